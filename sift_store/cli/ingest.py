"""Files to passages: .txt and .md cut into chunks, .jsonl row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sift_store.embedding import Embedding
from sift_store.errors import InvalidInputError, MissingExtraError
from sift_store.registry import SPLITTERS, find

__all__ = ["Chunking", "Passage", "passages"]

_SUFFIXES = {".txt": "text", ".md": "markdown", ".jsonl": "rows"}
_DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage to add. `payload` names its document and its place in it, so that a shorter version can be pruned."""

    id: str
    text: str
    payload: dict[str, Any]


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


def passages(paths: Sequence[Path], chunking: Chunking) -> Iterator[Passage]:
    """Every passage of the files and folders, in the order of their names.

    Ids are made of the path below the folder that was named (or the row's own id) and the chunk's number, so adding
    the same files again replaces what they gave before.

    Raises:
        InvalidInputError: a path that does not exist, a folder without such files, a file that cannot be read.
    """
    for root in paths:
        for path, source in _files(root):
            if _SUFFIXES[path.suffix.lower()] == "rows":
                yield from _rows(path, source, chunking)
            else:
                yield from _chunks(source, _read(path), {}, _SUFFIXES[path.suffix.lower()], chunking)


def _files(root: Path) -> list[tuple[Path, str]]:
    if root.is_file() and root.suffix.lower() in _SUFFIXES:
        return [(root, root.name)]
    if not root.is_dir():
        what = "is no .txt, .md or .jsonl file" if root.exists() else "does not exist"
        raise InvalidInputError(f"{root} {what}; a folder of .txt, .md and .jsonl files, or one of these, wanted")
    name = root.resolve().name
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix.lower() in _SUFFIXES)
    if not found:
        raise InvalidInputError(f"{root} holds no .txt, .md or .jsonl file")
    return [(path, f"{name}/{path.relative_to(root).as_posix()}") for path in found]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path}: not UTF-8 at byte {exc.start}; convert it, e.g. with iconv") from exc
    except OSError as exc:
        raise InvalidInputError(f"{path}: {exc.strerror}") from exc


def _rows(path: Path, source: str, chunking: Chunking) -> Iterator[Passage]:
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise InvalidInputError(f"{where}: not JSON ({exc})") from exc
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InvalidInputError(f'{where}: an object with a string "text" wanted')
        document = row.pop("id", f"{source}:{number}")
        text, title = row.pop("text"), row.get("title")
        full = f"{title}\n{text}" if isinstance(title, str) and title else text
        yield from _chunks(str(document), full, {**row, "source": source}, "text", chunking)


def _chunks(document: str, text: str, payload: dict[str, Any], kind: str, chunking: Chunking) -> Iterator[Passage]:
    if not text.strip():
        return
    for number, chunk in enumerate(chunking.cut(text, kind)):
        own = {**payload, "document": document, "chunk": number}
        yield Passage(document if number == 0 else f"{document}#{number}", chunk, own)
