"""Between what LangChain gives and takes and what a store does: documents, ids, arguments."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document

from sift_store import Hit, Hits, InvalidInputError, Record
from sift_store.mmr import mmr
from sift_store.records import check_id, listed

__all__ = [
    "SCORES",
    "by_text",
    "diverse",
    "documents_found",
    "documents_of",
    "scored",
    "search_options",
    "spelled",
    "strings",
    "with_relevance",
]

# The key in a document's metadata that holds what a search says of it, where that is asked for.
SCORES = "sift"
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,19}")


def documents_of(hits: Hits, *, with_scores: bool = False) -> list[Document]:
    """The hits of an answer, in its order; metadata as stored, and with `with_scores` one key more."""
    documents = [_document(hit) for hit in hits]
    if with_scores:
        for hit, document in zip(hits, documents, strict=True):
            left = hits.variance[hit.pick - 1] if hits.variance else None
            said = {"score": hit.score, "gain": hit.gain, "variance": left, "pick": hit.pick, "rank": hit.rank}
            document.metadata[SCORES] = said
    return documents


def documents_found(records: Iterable[Record | None]) -> list[Document]:
    """Those that are there."""
    return [_document(record) for record in records if record is not None]


def scored(hits: Hits) -> list[tuple[Document, float]]:
    """The hits with their scores."""
    return list(zip(documents_of(hits), [hit.score for hit in hits], strict=True))


def with_relevance(hits: Hits) -> list[tuple[Document, float]]:
    """Cosines brought to between 0 and 1, as langchain-qdrant does, so that a threshold keeps its meaning.

    Raises:
        InvalidInputError: the scores are no cosines.
    """
    _check_cosine(hits, "relevance between 0 and 1")
    return [(document, min(max((1 + score) / 2, 0.0), 1.0)) for document, score in scored(hits)]


def diverse(hits: Hits, records: Sequence[Record | None], k: int, lambda_mult: float) -> list[Document]:
    """MMR among hits, given their records with vectors.

    Raises:
        InvalidInputError: the scores are no cosines.
    """
    _check_cosine(hits, "MMR")
    there = [(hit.score, record) for hit, record in zip(hits, records, strict=True) if record is not None]
    if not there:
        return []
    pool = np.array([record.vector for _, record in there], dtype=np.float32)
    picks = mmr(pool, np.array([score for score, _ in there], dtype=np.float64), k, lambda_mult)
    return [_document(there[pick][1]) for pick in picks]


def spelled(ids: Iterable[Any] | None) -> list[Any] | None:
    """Ids as texts, and what else a store may have instead: LangChain's ids are texts, a store's may be numbers."""
    if ids is None:
        return None
    given = listed(ids, "ids")
    for text in [id_ for id_ in given if isinstance(id_, str)]:
        with contextlib.suppress(InvalidInputError):  # digits that no store takes for a number are text alone
            if _NUMBER.fullmatch(text):
                given.append(check_id(int(text)))
        with contextlib.suppress(ValueError):
            given.append(uuid.UUID(text))
    return given


def by_text(ids: Iterable[str], records: Iterable[Record | None]) -> list[Record | None]:
    """Records in the order of ids given as texts."""
    there = [record for record in records if record is not None]
    there.sort(key=lambda record: isinstance(record.id, str))  # of "5" and 5, the text comes last and is taken
    found = {str(record.id): record for record in there}
    return [found.get(id_) for id_ in ids]


def strings(ids: Iterable[Any]) -> list[str]:
    """Ids as LangChain has them."""
    return [str(id_) for id_ in ids]


def search_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a store names them, `filter` as `where`; without those that only LangChain understands."""
    return {("where" if name == "filter" else name): value for name, value in given.items() if name != "verbose"}


def _document(item: Hit | Record) -> Document:
    return Document(id=str(item.id), page_content=item.text, metadata=dict(item.payload))


def _check_cosine(hits: Hits, what: str) -> None:
    if hits.metric != "cosine":
        raise InvalidInputError(f"{what} is of cosines; the scores of this collection are {hits.metric}")
