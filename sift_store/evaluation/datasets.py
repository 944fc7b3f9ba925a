"""Labelled retrieval sets on disk: corpus.jsonl, queries.jsonl, qrels.jsonl, optional subtopics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sift_store.errors import InvalidInputError, NotFoundError
from sift_store.jsonl import line_of, read_jsonl

__all__ = ["Dataset", "Half", "half_of", "read_dataset", "read_lines", "with_title"]

Half = Literal["choose", "report", "all"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Passages, queries and what a good answer to each is. Passages are named by their place in `ids`.

    Attributes:
        name: of the folder. digest: of its contents.
        ids, titles, texts: of the passages. query_ids, queries: the questions that have a relevant passage.
        grades: for each query, place of a relevant passage -> its grade, > 0.
        subtopics: for each query, subtopic -> places of the passages that cover it; None if the set has none.
    """

    name: str
    digest: str
    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    grades: tuple[dict[int, int], ...] = field(hash=False)
    subtopics: tuple[dict[str, set[int]], ...] | None = field(hash=False)

    def passages(self) -> list[str]:
        """What is embedded of each passage: title and text."""
        return [with_title(title, text) for title, text in zip(self.titles, self.texts, strict=True)]

    def rows(self, half: Half) -> list[int]:
        """Places of the queries in one half, or all."""
        return [row for row, name in enumerate(self.query_ids) if half == "all" or half_of(name) == half]


def with_title(title: str, text: str) -> str:
    """A passage as it is embedded; never empty."""
    return f"{title} {text}".strip() or "-"


def half_of(query_id: str) -> Literal["choose", "report"]:
    """The half that a query belongs to: defaults are chosen on one, figures reported on the other."""
    return "report" if hashlib.sha256(query_id.encode()).digest()[0] & 1 else "choose"


def read_dataset(folder: Path) -> Dataset:
    """Read a set: corpus.jsonl (id, title, text), queries.jsonl (id, text), qrels.jsonl (query, doc, grade).

    With subtopic_qrels.jsonl (query, subtopic, doc) subtopics are known too. Queries without a relevant passage are
    left out.

    Raises:
        NotFoundError: a file is missing. InvalidInputError: a line cannot be read, or names what is not there.
    """
    corpus = list(read_lines(folder / "corpus.jsonl", ("id", "text")))
    queries = list(read_lines(folder / "queries.jsonl", ("id", "text")))
    place, asked = _places(corpus), _places(queries)
    grades: list[dict[int, int]] = [{} for _ in queries]
    for where, row in read_lines(folder / "qrels.jsonl", ("query", "doc", "grade")):
        query, doc = _known(row, asked, place, where)
        grade = row["grade"]
        if isinstance(grade, bool) or not isinstance(grade, int):
            raise InvalidInputError(f"{where}: grade {grade!r} given, a whole number wanted")
        if grade > 0:
            grades[query][doc] = grade
    covered: list[dict[str, set[int]]] | None = None
    if (path := folder / "subtopic_qrels.jsonl").is_file():
        covered = [{} for _ in queries]
        for where, row in read_lines(path, ("query", "subtopic", "doc")):
            query, doc = _known(row, asked, place, where)
            covered[query].setdefault(str(row["subtopic"]), set()).add(doc)
    kept = [at for at, relevant in enumerate(grades) if relevant and (covered is None or covered[at])]
    if not kept:
        raise InvalidInputError(f"{folder}: no query has a relevant passage in qrels.jsonl")
    return Dataset(
        name=folder.resolve().name,
        digest=_digest(folder),
        ids=tuple(place),
        titles=tuple(str(row.get("title") or "") for _, row in corpus),
        texts=tuple(str(row["text"]) for _, row in corpus),
        query_ids=tuple(str(queries[at][1]["id"]) for at in kept),
        queries=tuple(str(queries[at][1]["text"]) for at in kept),
        grades=tuple(grades[at] for at in kept),
        subtopics=None if covered is None else tuple(covered[at] for at in kept),
    )


def read_lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a .jsonl file, each with all of `keys`, after its file and line for messages.

    Raises:
        NotFoundError: no such file. InvalidInputError: a line is no JSON object, or a key is missing.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} is not there; a file with {', '.join(keys)} on each line wanted")
    for number, row in read_jsonl(path):
        where = line_of(path, number)
        missing = [key for key in keys if key not in row]
        if missing:
            raise InvalidInputError(f"{where}: {', '.join(missing)} missing; {', '.join(keys)} wanted")
        yield where, row


def _places(rows: list[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    place: dict[str, int] = {}
    for at, (where, row) in enumerate(rows):
        if place.setdefault(str(row["id"]), at) != at:
            raise InvalidInputError(f"{where}: id {row['id']!r} stands twice; each once wanted")
    return place


def _known(row: dict[str, Any], asked: dict[str, int], place: dict[str, int], where: str) -> tuple[int, int]:
    query, doc = str(row["query"]), str(row["doc"])
    if query not in asked or doc not in place:
        what = f"query {query!r}" if query not in asked else f"passage {doc!r}"
        raise InvalidInputError(f"{where}: {what} is not in the set")
    return asked[query], place[doc]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.jsonl")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
