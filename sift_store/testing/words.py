"""An embedder for tests: deterministic, instant, and alike for texts that share words."""

from __future__ import annotations

import re
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["WordEmbedder"]


class WordEmbedder:
    """A text is the sum of one random direction a word, the word's checksum its seed.

    Attributes:
        calls: texts embedded so far.
    """

    def __init__(self, dimension: int = 32, name: str | None = "words") -> None:
        self.dimension, self.name = dimension, name
        self.calls = 0

    def embed_documents(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Vectors of passages, (n, d)."""
        self.calls += len(texts)
        return np.stack([self._embed(text) for text in texts])

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Vector of a query, (d,)."""
        self.calls += 1
        return self._embed(text)

    def _embed(self, text: str) -> npt.NDArray[np.float32]:
        words = re.findall(r"\w+", text.casefold()) or [text]
        rows = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dimension) for word in words]
        return np.asarray(np.sum(rows, axis=0), dtype=np.float32)
