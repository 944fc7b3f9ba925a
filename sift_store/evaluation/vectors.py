"""Embeddings computed once: kept in two append-only files by the hash of each text, so that a run can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sift_store.adapter import Progress
from sift_store.embedding import Embedding
from sift_store.errors import InvalidInputError
from sift_store.kernels import unit_rows

__all__ = ["VectorCache", "safe_name"]

Role = Literal["query", "passage"]
_HASH = 32
_BATCH = 128


class VectorCache:
    """Vectors of one embedder's texts in `folder`/<name>.keys and .vectors.

    Each text is looked up by a hash of its role and itself; what is missing is embedded, shortest first, in batches,
    each appended when it is done. An interrupted run loses one batch.

    Raises:
        InvalidInputError: the embedder has no name, or another run is embedding into the same folder.
    """

    def __init__(self, embedding: Embedding, folder: Path) -> None:
        self.name = embedding.identity.name or ""
        if not self.name:
            raise InvalidInputError("an embedder with a name wanted: its vectors are kept by that name")
        self._embedding = embedding
        folder.mkdir(parents=True, exist_ok=True)
        safe = safe_name(self.name)
        self._keys, self._vectors = folder / f"{safe}.keys", folder / f"{safe}.vectors"
        self._place: dict[bytes, int] = {}
        self._size = 0
        self._dimension = embedding.dimension or 0
        self._keys.touch()
        self._vectors.touch()
        if self._keys.stat().st_size or self._vectors.stat().st_size:
            self._read_keys()

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """Unit vectors of passages, (n, d) float32."""
        return self._get("passage", texts, self._embedding.documents, progress)

    def queries(self, texts: Sequence[str], progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """Unit vectors of queries, (n, d) float32."""
        return self._get("query", texts, self._embed_queries, progress)

    def _embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = np.stack([self._embedding.query(text) for text in texts])
        return unit_rows(rows, "query vectors").astype(np.float32, copy=False)

    def _get(
        self,
        role: Role,
        texts: Sequence[str],
        embed: Callable[[Sequence[str]], npt.NDArray[np.float32]],
        progress: Progress | None,
    ) -> npt.NDArray[np.float32]:
        keys = [_key(role, text) for text in texts]
        missing = sorted({text for text, key in zip(texts, keys, strict=True) if key not in self._place}, key=len)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._append([_key(role, text) for text in batch], embed(batch))
            if progress:
                progress(start + len(batch), len(missing))
        rows = np.array([self._place[key] for key in keys])
        kept = np.memmap(self._vectors, dtype="<f4", mode="r", shape=(self._size, self._dimension))
        found: npt.NDArray[np.float32] = kept[rows].astype(np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    def _append(self, keys: list[bytes], vectors: npt.NDArray[np.float32]) -> None:
        self._dimension = vectors.shape[1]
        held = self._keys.stat().st_size
        if held != self._size * _HASH:
            raise InvalidInputError(f"{self._keys} has grown meanwhile; one run at a time may embed into a folder")
        with self._vectors.open("ab") as file:
            file.write(vectors.astype("<f4").tobytes())
        with self._keys.open("ab") as file:
            file.write(b"".join(keys))
        self._place.update(zip(keys, range(self._size, self._size + len(keys)), strict=True))
        self._size += len(keys)

    def _read_keys(self) -> None:
        """Take up what an earlier run left; a batch that was cut off half-way is dropped."""
        raw = self._keys.read_bytes()
        dimension = self._embedding.dimension
        if dimension is None:
            dimension = self._embedding.query("dimension").shape[0]
        whole = min(len(raw) // _HASH, self._vectors.stat().st_size // (4 * dimension))
        with self._keys.open("r+b") as file:
            file.truncate(whole * _HASH)
        with self._vectors.open("r+b") as file:
            file.truncate(whole * 4 * dimension)
        self._dimension = dimension
        self._place = {raw[at * _HASH : (at + 1) * _HASH]: at for at in range(whole)}
        self._size = whole


def safe_name(name: str) -> str:
    """A name that every file system takes."""
    return "".join(letter if letter.isalnum() or letter in "-.=_" else "-" for letter in name)


def _key(role: Role, text: str) -> bytes:
    return hashlib.sha256(f"{role}\0{text}".encode()).digest()
