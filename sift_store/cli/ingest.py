"""Files to passages: .txt and .md cut into chunks, .jsonl row by row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sift_store.embedding import Embedding
from sift_store.errors import InvalidInputError, MissingExtraError
from sift_store.filters import storable
from sift_store.jsonl import line_of, read_jsonl, unreadable
from sift_store.registry import SPLITTERS, find, pip_line

__all__ = ["OWN_KEY", "Chunking", "Document", "Passage", "Reading", "read"]

_SUFFIXES = {".txt": "text", ".md": "markdown", ".jsonl": "rows"}
_DEFAULT_TOKENS = 256
_MOST_TOKENS = 1_000_000
# The payload key under which a passage tells its document and its number in it.
OWN_KEY = "_passage"


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage to add; `where` is the file and line that it comes from."""

    id: str
    text: str
    payload: dict[str, Any] = field(hash=False)
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A file, or a row of one, as passages; none if it is empty."""

    name: str
    where: str
    passages: list[Passage]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What files gave; `faults` names those that could not be read, which gave nothing."""

    documents: list[Document]
    faults: list[str]

    @property
    def passages(self) -> list[Passage]:
        """Those of all documents, in order."""
        return [passage for document in self.documents for passage in document.passages]


@dataclass(frozen=True, slots=True)
class _Source:
    """One text as it was read, before it is cut."""

    name: str
    where: str
    text: str
    payload: dict[str, Any] = field(hash=False)
    kind: str


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut; `tokens` None leaves them whole."""

    tokens: int | None
    overlap: int
    count: Callable[[str], int]

    @classmethod
    def of(cls, embedding: Embedding, tokens: int | None = None, overlap: int = 0, *, whole: bool = False) -> Chunking:
        """Chunks of at most `tokens`; default what the embedder reads, at most 256."""
        if tokens is None and not whole:
            tokens = min(_DEFAULT_TOKENS, embedding.max_tokens or _DEFAULT_TOKENS)
        return cls(tokens, overlap, lambda text: embedding.tokens([text])[0])

    @staticmethod
    def check(tokens: int | None, overlap: int, *, whole: bool) -> None:
        """Refuse what the options of a command cannot mean.

        Raises:
            InvalidInputError: sizes out of range, or a size for texts that are not cut.
        """
        if tokens is not None and not 1 <= tokens <= _MOST_TOKENS:
            raise InvalidInputError(
                f"--chunk: {tokens} given, 1 to {_MOST_TOKENS:,} tokens wanted; --whole leaves texts uncut"
            )
        if not 0 <= overlap < (tokens or _MOST_TOKENS):
            size = f"chunk size {tokens}" if tokens else "chunks of the embedder's size"
            raise InvalidInputError(f"--overlap {overlap}, {size}: 0 <= overlap < size wanted")
        if whole and (tokens is not None or overlap):
            raise InvalidInputError(
                "--whole leaves texts uncut, so --chunk and --overlap mean nothing; give one of them"
            )

    def cut(self, text: str, kind: str) -> list[str]:
        """The chunks of a text, in order."""
        if self.tokens is None:
            return [text.strip()]
        entry = find(SPLITTERS, "semantic")
        if entry is None:
            raise MissingExtraError(f"no text splitter is installed; {pip_line('transformers')}")
        return [chunk for _, chunk in entry.load()(text, kind, self.tokens, self.overlap, self.count)]


def read(paths: Sequence[Path], chunking: Chunking) -> Reading:
    """Everything in the files and folders, in the order of their names.

    A document's name is its path as it was given, or its row's own id; passages are numbered. So adding the same paths
    again replaces what they gave before. Each payload tells both under `OWN_KEY`.

    Raises:
        InvalidInputError: a path that does not exist, a folder without such files, two documents of one name, or none
            of the files can be read.
    """
    sources: list[_Source] = []
    faults: list[str] = []
    for path in _files(paths, faults):
        try:
            sources += _rows(path) if _kind(path) == "rows" else [_whole(path)]
        except InvalidInputError as exc:
            faults.append(str(exc))
    if faults and not sources:
        more = f"; {len(faults) - 1} more files cannot be read" if len(faults) > 1 else ""
        raise InvalidInputError(f"{faults[0]}{more}. Nothing was added")
    documents = [_document(source, chunking) for source in sources]
    _check_names(documents)
    return Reading(documents, faults)


def _kind(path: Path) -> str | None:
    return _SUFFIXES.get(path.suffix.lower())


def _files(paths: Sequence[Path], faults: list[str]) -> list[Path]:
    """Each file once, however often it is named."""
    by_name: dict[str, Path] = {}
    for root in paths:
        if not root.is_dir() and not (root.exists() and _kind(root)):
            what = "is no .txt, .md or .jsonl file" if root.exists() else "does not exist"
            raise InvalidInputError(f"{root} {what}; a folder of .txt, .md and .jsonl files, or one of these, wanted")
        some = sorted(_below(root, faults)) if root.is_dir() else [root]
        if not some:
            raise InvalidInputError(f"{root} holds no .txt, .md or .jsonl file")
        for path in some:
            by_name.setdefault(_name(path), path)
    return list(by_name.values())


def _below(root: Path, faults: list[str]) -> Iterator[Path]:
    for folder, _, names in os.walk(root, onerror=lambda exc: faults.append(str(unreadable(Path(exc.filename), exc)))):
        for name in names:
            path = Path(folder) / name
            if _kind(path):
                yield path


def _name(path: Path) -> str:
    return Path(os.path.normpath(path)).as_posix()


def _whole(path: Path) -> _Source:
    name = _checked_name(path)
    try:
        content = _content(path)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        number = content.count(b"\n", 0, exc.start) + 1
        kind = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise InvalidInputError(
            f"{line_of(path, number)}: not UTF-8 at byte {exc.start + 1} of the file; convert it, e.g. with "
            f"iconv -f {kind} -t utf-8"
        ) from exc
    except OSError as exc:
        raise unreadable(path, exc) from exc
    return _Source(name, str(path), text.replace("\r\n", "\n").replace("\r", "\n"), {"source": name}, str(_kind(path)))


def _content(path: Path) -> bytes:
    if not path.is_file():  # a pipe would be waited for
        raise OSError(None, "it is a dangling link or no regular file")
    return path.read_bytes()


def _rows(path: Path) -> list[_Source]:
    name = _checked_name(path)
    if not path.is_file():
        _content(path)
    return [_row(name, number, line_of(path, number), row) for number, row in read_jsonl(path)]


def _checked_name(path: Path) -> str:
    name = _name(path)
    if not storable(name):
        raise InvalidInputError(f"{path}: the file's name is not UTF-8, and names are ids; rename it")
    return name


def _row(file: str, number: int, where: str, row: dict[str, Any]) -> _Source:
    if not isinstance(row.get("text"), str):
        raise InvalidInputError(f'{where}: an object with a string "text" wanted')
    if OWN_KEY in row:
        raise InvalidInputError(f'{where}: the key "{OWN_KEY}" is kept for the number of the passage; rename it')
    text, title, own_id = row.pop("text"), row.get("title"), row.pop("id", None)
    if own_id is not None and (isinstance(own_id, bool) or not isinstance(own_id, str | int) or own_id == ""):
        raise InvalidInputError(f"{where}: id {own_id!r} given; text, a whole number or none wanted")
    name = f"{file}:{number}" if own_id is None else str(own_id)
    full = f"{title}\n{text}" if isinstance(title, str) and title else text
    return _Source(name, where, full, {"source": file, **row}, "text")


def _document(source: _Source, chunking: Chunking) -> Document:
    name, where = source.name, source.where
    chunks = chunking.cut(source.text, source.kind) if source.text.strip() else []
    return Document(
        name,
        where,
        [
            Passage(
                name if number == 0 else f"{name}#{number}",
                chunk,
                {**source.payload, OWN_KEY: {"document": name, "chunk": number}},
                where,
            )
            for number, chunk in enumerate(chunks)
        ],
    )


def _check_names(documents: Sequence[Document]) -> None:
    """Two documents of one name would replace each other, a passage beyond the first of one another document."""
    first: dict[str, str] = {}
    for document in documents:
        for id_ in [document.name, *(passage.id for passage in document.passages[1:])]:
            if id_ in first:
                raise InvalidInputError(
                    f"{document.where}: id {id_!r} is given twice, first by {first[id_]}; give another"
                )
            first[id_] = document.where
