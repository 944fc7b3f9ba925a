"""From one store to another, vectors and all: nothing is embedded again, and what is there already is passed over."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sift_store.adapter import EmbedderIdentity, Key, Progress, Statistics
from sift_store.context import Context, Steps
from sift_store.errors import EmbedderError, InvalidInputError, StorageError
from sift_store.filters import matches
from sift_store.records import Id, Record, check_indexable, check_payload, differs
from sift_store.writing import check_writable

__all__ = ["Copied", "copy_steps"]

_PAGE = 1024
# Passages that are read from both afterwards and compared.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did.

    Attributes:
        passages: that were read. written: of these; the others were there already. skipped: of the source, not read,
            as they have no vector. checked: how many were read back from the target and found to be what was read.
    """

    passages: int
    written: int
    skipped: int
    checked: int


def copy_steps(source: Context, target: Context, progress: Progress | None) -> Steps[Copied]:
    """Copy all passages of a source (of its scope, if it has one); stopped half-way and begun again it goes on.

    Raises:
        EmbedderError: the target holds vectors of another embedder or dimension. InvalidInputError: a payload that the
            target cannot index, or two passages with one id. StorageError: the source was re-embedded meanwhile, or
            counts or a sample do not agree at the end.
    """
    check_writable(target)
    if target.scope is not None:
        raise InvalidInputError("copy_to: a scoped store given, the store itself wanted")
    found: Statistics = yield source.adapter.statistics
    if found.dimension is None:
        return Copied(0, 0, 0, 0)
    yield from _prepared(source, target, found, found.dimension)
    total: int = yield partial(source.adapter.count, source.scope)
    before: int = yield partial(target.adapter.count, None)
    sample = _Sample()
    written, new = yield from _pages(source, target, sample, total, progress)
    now: Statistics = yield source.adapter.statistics
    if now.generation != found.generation:
        raise StorageError("the source was re-embedded while it was copied; run it again")
    there: int = yield partial(target.adapter.count, None)
    if there != before + new:
        raise StorageError(
            f"{new} passages were new to the target, but it holds {there} and held {before} before: does somebody else "
            "write? Run it again"
        )
    yield from _compared(source, target, sample.records)
    return Copied(sample.seen, written, max(total - sample.seen, 0), len(sample.records))


def _pages(
    source: Context, target: Context, sample: _Sample, total: int, progress: Progress | None
) -> Steps[tuple[int, int]]:
    """Copy page by page; how many were written, and how many of these were new to the target."""
    statistics: Statistics = yield target.adapter.statistics
    close = _close(source, target)
    after: Key | None = None
    ids: set[tuple[type, Id]] = set()
    written = new = 0
    while True:
        page: Sequence[Record]
        page, after = yield partial(source.adapter.scan, after, _PAGE, vectors=True)
        records = _records(page, source, statistics.fields, target.adapter.capabilities.depth)
        for record in records:
            if (type(record.id), record.id) in ids:
                raise InvalidInputError(
                    f"the source has two passages with the id {record.id!r}; ids that differ wanted"
                )
            ids.add((type(record.id), record.id))
        there: list[Record | None] = yield partial(target.adapter.get, [r.id for r in records], vectors=True)
        changed = [r for r, old in zip(records, there, strict=True) if old is None or not _same(r, old, close)]
        if changed:
            yield partial(target.adapter.upsert, changed)
        sample.take(records)
        written, new = written + len(changed), new + there.count(None)
        if progress:
            progress(sample.seen, max(total, sample.seen))
        if after is None:
            return written, new


def _close(source: Context, target: Context) -> float:
    """From which cosine on a stored vector is the one that was written."""
    return 1 - source.adapter.capabilities.score_error - target.adapter.capabilities.score_error


def _same(record: Record, copy: Record, close: float) -> bool:
    return not differs(copy, record) and _cosine(record, copy) >= close


def _cosine(record: Record, copy: Record) -> float:
    if record.vector is None or copy.vector is None:
        return 0.0
    return float(np.dot(record.vector, copy.vector))


def _prepared(source: Context, target: Context, found: Statistics, dimension: int) -> Steps[None]:
    """Make the target, or see that it can hold such vectors."""
    stored = found.embedder or EmbedderIdentity()
    identity = source.embedding.identity if source.embedding is not None else stored
    there: Statistics = yield target.adapter.statistics
    if there.dimension is None:
        yield partial(target.adapter.create, dimension, identity)
    there = yield target.adapter.statistics
    if there.dimension != dimension:
        raise EmbedderError(f"the source has dimension {dimension}, the target {there.dimension}; copy to another")
    theirs = there.embedder or EmbedderIdentity()
    if None not in (identity.name, theirs.name) and identity != theirs:
        raise EmbedderError(f"the source was embedded by {identity}, the target by {theirs}; use another target")


def _records(page: Sequence[Record], source: Context, fields: Mapping[str, str], deepest: int) -> list[Record]:
    """What is to be written of a page."""
    records: list[Record] = []
    for record in page:
        if record.vector is None or not record.vector.any() or not matches(source.scope, record.payload):
            continue
        payload = check_payload(record.payload, f"payload of {record.id!r}", deepest)
        check_indexable(payload, fields, f"payload of {record.id!r}")
        records.append(replace(record, payload=payload))
    return records


class _Sample:
    """Records taken evenly from all that pass by, the same each time; of a page at most as many as are kept."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.seen = 0
        self._random = random.Random(0)  # noqa: S311  # no secret

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            self.seen += 1
            if len(self.records) < _SAMPLE:
                self.records.append(record)
            elif (place := self._random.randrange(self.seen)) < _SAMPLE:
                self.records[place] = record


def _compared(source: Context, target: Context, sample: Sequence[Record]) -> Steps[None]:
    copies: list[Record | None] = yield partial(target.adapter.get, [record.id for record in sample], vectors=True)
    close = _close(source, target)
    for record, copy in zip(sample, copies, strict=True):
        if copy is None or differs(copy, record):
            raise StorageError(
                f"the copy of {record.id!r} is not what was read; does somebody else write? Run it again"
            )
        if (cosine := _cosine(record, copy)) < close:
            what = f"the vector of {record.id!r} and its copy are {cosine:.4f} alike"
            raise StorageError(f"{what}; was the target re-embedded meanwhile? Run it again")
