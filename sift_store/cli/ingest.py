"""Files to passages: .txt and .md cut into chunks, .jsonl row by row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sift_store.embedding import Embedding
from sift_store.errors import InvalidInputError, MissingExtraError
from sift_store.filters import storable
from sift_store.registry import SPLITTERS, find

__all__ = ["OWN_KEY", "Chunking", "Document", "Passage", "documents"]

_SUFFIXES = {".txt": "text", ".md": "markdown", ".jsonl": "rows"}
_DEFAULT_TOKENS = 256
# The payload key under which a passage tells its document and its number in it.
OWN_KEY = "_passage"


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage to add."""

    id: str
    text: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A file, or a row of one, as passages; none if it is empty."""

    name: str
    passages: list[Passage]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut; `tokens` 0 leaves them whole."""

    tokens: int
    overlap: int
    count: Callable[[str], int]

    @classmethod
    def of(cls, embedding: Embedding, tokens: int | None, overlap: int) -> Chunking:
        """Chunks of at most `tokens`; default what the embedder reads, at most 256."""
        if tokens is None:
            tokens = min(_DEFAULT_TOKENS, embedding.max_tokens or _DEFAULT_TOKENS)
        return cls(tokens, overlap, lambda text: embedding.tokens([text])[0])

    def cut(self, text: str, kind: str) -> list[str]:
        """The chunks of a text, in order."""
        if not self.tokens:
            return [text.strip()]
        entry = find(SPLITTERS, "semantic")
        if entry is None:
            raise MissingExtraError("no text splitter is installed; run: pip install 'sift-store[transformers]'")
        return [chunk for _, chunk in entry.load()(text, kind, self.tokens, self.overlap, self.count)]


def documents(paths: Sequence[Path], chunking: Chunking) -> Iterator[Document]:
    """Everything in the files and folders, in the order of their names.

    A document's name is its path as it was given, or its row's own id; passages are numbered. So adding the same paths
    again replaces what they gave before. Each payload tells both under `OWN_KEY`.

    Raises:
        InvalidInputError: a path that does not exist, a folder without such files, a file that cannot be read.
    """
    for root in paths:
        for path in _files(root):
            if _SUFFIXES[path.suffix.lower()] == "rows":
                yield from _rows(path, chunking)
            else:
                name = _name(path)
                yield _document(name, _read(path), {"source": name}, _SUFFIXES[path.suffix.lower()], chunking)


def _files(root: Path) -> list[Path]:
    if root.is_file() and root.suffix.lower() in _SUFFIXES:
        return [root]
    if not root.is_dir():
        what = "is no .txt, .md or .jsonl file" if root.exists() else "does not exist"
        raise InvalidInputError(f"{root} {what}; a folder of .txt, .md and .jsonl files, or one of these, wanted")
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix.lower() in _SUFFIXES)
    if not found:
        raise InvalidInputError(f"{root} holds no .txt, .md or .jsonl file")
    return found


def _name(path: Path) -> str:
    return Path(os.path.normpath(path)).as_posix()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path}: not UTF-8 at byte {exc.start}; convert it, e.g. with iconv") from exc
    except OSError as exc:
        raise InvalidInputError(f"{path}: {exc.strerror}") from exc


def _rows(path: Path, chunking: Chunking) -> Iterator[Document]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise InvalidInputError(f"{where}: not JSON that can be read ({exc})") from exc
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InvalidInputError(f'{where}: an object with a string "text" wanted')
        if OWN_KEY in row:
            raise InvalidInputError(f'{where}: the key "{OWN_KEY}" is kept for the number of the passage; rename it')
        text, title, own_id = row.pop("text"), row.get("title"), row.pop("id", None)
        name = f"{_name(path)}:{number}" if own_id is None else str(own_id)
        full = f"{title}\n{text}" if isinstance(title, str) and title else text
        yield _document(name, full, {"source": _name(path), **row}, "text", chunking)


def _document(name: str, text: str, payload: dict[str, Any], kind: str, chunking: Chunking) -> Document:
    if not text.strip():
        return Document(name, [])
    if not storable(text):
        raise InvalidInputError(f"{name}: the text holds a lone surrogate; write it anew with errors='replace'")
    return Document(
        name,
        [
            Passage(
                name if number == 0 else f"{name}#{number}",
                chunk,
                {**payload, OWN_KEY: {"document": name, "chunk": number}},
            )
            for number, chunk in enumerate(chunking.cut(text, kind))
        ],
    )
