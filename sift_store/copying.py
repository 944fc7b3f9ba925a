"""From one store to another, vectors and all: nothing is embedded again, and what is there already is passed over."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sift_store.adapter import EmbedderIdentity, Progress, Statistics
from sift_store.context import Context, Steps
from sift_store.errors import EmbedderError, InvalidInputError, StorageError
from sift_store.filters import matches
from sift_store.records import Record, check_indexable, check_payload, differs
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
            as they have no vector. checked: how many were read from both stores afterwards and found equal.
    """

    passages: int
    written: int
    skipped: int
    checked: int


def copy_steps(source: Context, target: Context, progress: Progress | None) -> Steps[Copied]:
    """Copy all passages of a source (of its scope, if it has one); stopped half-way and begun again it goes on.

    Raises:
        EmbedderError: the target holds vectors of another embedder or dimension. InvalidInputError: a payload that the
            target cannot index. StorageError: counts or a sample do not agree at the end.
    """
    check_writable(target)
    if target.scope is not None:
        raise InvalidInputError("copy_to: a scoped store given, the store itself wanted")
    found: Statistics = yield source.adapter.statistics
    if found.dimension is None:
        return Copied(0, 0, 0, 0)
    yield from _prepared(source, target, found, found.dimension)
    fields = (yield target.adapter.statistics).fields
    total: int = yield partial(source.adapter.count, source.scope)
    before: int = yield partial(target.adapter.count, None)
    sample, after = _Sample(), None
    done = written = new = 0
    while True:
        page: Sequence[Record]
        page, after = yield partial(source.adapter.scan, after, _PAGE, vectors=True)
        records = _records(page, source, fields, target.adapter.capabilities.depth)
        stored: list[Record | None] = yield partial(target.adapter.get, [record.id for record in records])
        changed = [r for r, old in zip(records, stored, strict=True) if old is None or differs(old, r)]
        if changed:
            yield partial(target.adapter.upsert, changed)
        sample.take(records)
        done, written, new = done + len(records), written + len(changed), new + stored.count(None)
        if progress:
            progress(done, max(total, done))
        if after is None:
            break
    there: int = yield partial(target.adapter.count, None)
    if there != before + new:
        raise StorageError(
            f"{new} passages were new to the target, but it holds {there} and held {before} before: does somebody else "
            "write? Run it again"
        )
    yield from _compared(source, target, sample.records)
    return Copied(done, written, max(total - done, 0), len(sample.records))


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
    names = identity.name, (there.embedder or EmbedderIdentity()).name
    if None not in names and names[0] != names[1]:
        raise EmbedderError(f"the source was embedded by {names[0]!r}, the target by {names[1]!r}; copy to another")


def _records(page: Sequence[Record], source: Context, fields: Mapping[str, str], deepest: int) -> list[Record]:
    """What is to be written of a page, one record an id."""
    records: dict[object, Record] = {}
    for record in page:
        if record.vector is None or not record.vector.any() or not matches(source.scope, record.payload):
            continue
        payload = check_payload(record.payload, f"payload of {record.id!r}", deepest)
        check_indexable(payload, fields, f"payload of {record.id!r}")
        records[type(record.id), record.id] = replace(record, payload=payload)
    return list(records.values())


class _Sample:
    """Records taken evenly from all that pass by, the same each time; of a page at most as many as are kept."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311  # no secret

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._seen += 1
            if len(self.records) < _SAMPLE:
                self.records.append(record)
            elif (place := self._random.randrange(self._seen)) < _SAMPLE:
                self.records[place] = record


def _compared(source: Context, target: Context, sample: Sequence[Record]) -> Steps[None]:
    copies: list[Record | None] = yield partial(target.adapter.get, [record.id for record in sample], vectors=True)
    close = 1 - source.adapter.capabilities.score_error - target.adapter.capabilities.score_error
    for record, copy in zip(sample, copies, strict=True):
        if copy is None or differs(copy, record):
            raise StorageError(
                f"the copy of {record.id!r} is not what was read; does somebody else write? Run it again"
            )
        cosine = 0.0
        if record.vector is not None and copy.vector is not None:
            cosine = float(np.dot(record.vector, copy.vector))
        if cosine < close:
            raise StorageError(
                f"the vector of {record.id!r} and its copy are {cosine:.4f} alike; was one of the stores re-embedded? "
                "Drop the target and run it again"
            )
