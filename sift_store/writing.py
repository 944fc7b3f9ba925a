"""Everything but searching: add, get, update, delete, count, re-embed, doctor. No I/O here, as in searching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from sift_store.adapter import (
    EmbedderIdentity,
    Finding,
    Progress,
    Replacement,
    Statistics,
    check_generation,
    outside,
)
from sift_store.context import Context, Steps
from sift_store.embedding import Embedding, check_embedder
from sift_store.errors import (
    EmbedderError,
    InvalidInputError,
    NotFoundError,
    PartialWriteError,
    ReadOnlyError,
    SiftStoreError,
)
from sift_store.filters import constant, matches, parse, within
from sift_store.kernels import unit_rows
from sift_store.records import (
    Id,
    Payload,
    Record,
    canonical,
    check_id,
    check_ids,
    check_indexable,
    check_payload,
    check_texts,
    content_id,
    differs,
    listed,
)

__all__ = [
    "add_steps",
    "check_writable",
    "count_steps",
    "delete_steps",
    "doctor_steps",
    "get_steps",
    "optimize_steps",
    "reembed_steps",
    "statistics_steps",
    "update_steps",
]

T = TypeVar("T")

# Texts embedded between two writes: what an interruption can lose.
_CHUNK = 1024
# Texts that doctor embeds again, and how far they may be from what is stored.
_PROBES = 5
_PROBE_DISTANCE = 0.02


def add_steps(
    context: Context,
    texts: Iterable[str],
    ids: Iterable[Any] | None,
    payloads: Iterable[Payload | None] | None,
    vectors: npt.ArrayLike | None,
    progress: Progress | None,
) -> Steps[list[Id]]:
    """Check everything, then embed and write chunk by chunk; passages that are stored already are passed over."""
    check_writable(context)
    statistics: Statistics = yield context.adapter.statistics
    records = _records(context, texts, ids, payloads, statistics)
    rows = None if vectors is None else _given_rows(vectors, len(records), statistics.dimension)
    if rows is None and context.embedding is None:
        raise EmbedderError(
            "texts were added but the store has no embedder; open it with embedder=…, or give vectors=…"
        )
    unique = _unique(records)
    written: list[Id] = []
    for start in range(0, len(unique), _CHUNK):
        places = unique[start : start + _CHUNK]
        report = None if progress is None else _shifted(progress, start, len(unique))
        try:
            yield from _add_chunk(context, records, places, rows, report)
        except SiftStoreError as exc:
            written.extend(exc.written if isinstance(exc, PartialWriteError) else ())  # type: ignore[arg-type]  # ids
            if not written:
                raise
            raise PartialWriteError(
                f"{len(written)} of {len(unique)} passages are written (see .written), then: {exc} "
                "Adding the whole batch again is safe.",
                written,
            ) from exc
        written.extend(records[place].id for place in places)
        if report:
            report(len(places), len(places))
    return [record.id for record in records]


def _add_chunk(
    context: Context,
    records: Sequence[Record],
    places: Sequence[int],
    rows: npt.NDArray[np.float32] | None,
    progress: Progress | None,
) -> Steps[None]:
    generation = context.in_use.generation  # before the embedder: the two change in the other order
    adapter, embedding = context.adapter, context.embedding
    stored: list[Record | None] = [None] * len(places)
    if (yield from _has_content(context)):
        stored = yield partial(adapter.get, [records[place].id for place in places])
        if context.scope is not None:  # early, before anything is embedded; upsert makes sure
            outside(stored, context.scope)
    if rows is None:
        places = [p for p, old in zip(places, stored, strict=True) if old is None or differs(old, records[p])]
        if not places:
            return
        texts = [records[place].text for place in places]
        made: npt.NDArray[np.float32] = yield cast(Embedding, embedding).documents_call(texts, progress, context.awaits)
    else:
        made = rows[places]
    identity = embedding.identity if embedding else EmbedderIdentity()
    if not (yield from _has_content(context)):
        if rows is not None:
            yield from _check_first(context, records[places[0]].text, made.shape[1])
        yield partial(adapter.create, made.shape[1], identity)
    statistics: Statistics = yield adapter.statistics
    check_generation(statistics.generation, generation)
    check_embedder(statistics, embedding)
    if statistics.dimension != made.shape[1]:
        raise EmbedderError(f"the vectors have dimension {made.shape[1]}, the store has {statistics.dimension}")
    batch = [
        Record(records[place].id, records[place].text, records[place].payload, vector)
        for place, vector in zip(places, made, strict=True)
    ]
    yield partial(adapter.upsert, batch, generation=generation, within=context.scope)


def _check_first(context: Context, text: str, dimension: int) -> Steps[None]:
    """The first vectors decide a collection's dimension: those that were given must be as long as the embedder's.

    Raises:
        EmbedderError: they are not; nothing was made.
    """
    embedding = context.embedding
    if embedding is None:
        return
    wanted = embedding.dimension
    if wanted is None:
        probe: npt.NDArray[Any] = yield embedding.query_call(text, context.awaits)
        wanted = len(probe)
    if wanted != dimension:
        raise EmbedderError(
            f"the vectors have dimension {dimension}, the embedder gives {wanted}; give vectors of the embedder's own, "
            "or open the store without embedder="
        )


def _shifted(progress: Progress, start: int, total: int) -> Progress:
    return lambda done, _: progress(start + done, total)


def _records(
    context: Context,
    texts: Iterable[str],
    ids: Iterable[Any] | None,
    payloads: Iterable[Payload | None] | None,
    statistics: Statistics,
) -> list[Record]:
    checked = check_texts(texts)
    names = None if ids is None else listed(ids, "ids")
    bodies = [None] * len(checked) if payloads is None else listed(payloads, "payloads")
    for name, given in (("ids", names), ("payloads", bodies)):
        if given is not None and len(given) != len(checked):
            raise InvalidInputError(f"{name}: {len(given)} given, one for each of {len(checked)} texts wanted")
    records = []
    for row, (text, body) in enumerate(zip(checked, bodies, strict=True)):
        payload = check_payload(body, f"payloads[{row}]", context.adapter.capabilities.depth) | context.stamps
        check_indexable(payload, statistics.fields, f"payloads[{row}]")
        named = None if names is None else names[row]
        records.append(Record(content_id(text, payload) if named is None else check_id(named), text, payload))
    return records


def _unique(records: Sequence[Record]) -> list[int]:
    """Places of the first record of each id; the same id with other content is an error."""
    first: dict[Id, int] = {}
    for place, record in enumerate(records):
        earlier = records[first.setdefault(record.id, place)]
        if differs(earlier, record):
            raise InvalidInputError(f"id {record.id!r} is given twice with different text or payload")
    return list(first.values())


def _given_rows(vectors: npt.ArrayLike, count: int, dimension: int | None) -> npt.NDArray[np.float32]:
    if not count:
        return np.empty((0, dimension or 1), np.float32)
    rows = unit_rows(vectors, "vectors", dimension)
    if len(rows) != count:
        raise InvalidInputError(f"vectors: {len(rows)} rows given for {count} texts, one a text wanted")
    return rows.astype(np.float32)  # a copy: the caller may go on with his own


def get_steps(context: Context, ids: Sequence[Id], vectors: bool = False) -> Steps[list[Record | None]]:
    """Records by id, None for those that are missing or out of scope."""
    wanted = check_ids(ids)
    if not (yield from _has_content(context)):
        return [None] * len(wanted)
    names = list(dict.fromkeys(wanted))
    stored: list[Record | None] = yield partial(context.adapter.get, names, vectors=vectors)
    records = {
        name: record
        for name, record in zip(names, stored, strict=True)
        if record is not None and matches(context.scope, record.payload)
    }
    if len(names) == len(wanted):
        return [records.get(name) for name in wanted]
    return [copy.deepcopy(records.get(name)) for name in wanted]  # each can be changed apart


def update_steps(context: Context, ids: Sequence[Id], payload: Payload) -> Steps[None]:
    """Merge keys into the payloads of records that must all exist."""
    check_writable(context)
    wanted = check_ids(ids)
    checked = check_payload(payload, "payload", context.adapter.capabilities.depth)
    stamps = context.stamps
    fixed = [key for key in checked if key in stamps and canonical(checked[key]) != canonical(stamps[key])]
    if fixed:
        raise InvalidInputError(f"payload: {fixed[0]!r} is fixed by this store's scope and cannot be changed")
    found = yield from get_steps(context, wanted)
    missing = [id_ for id_, record in zip(wanted, found, strict=True) if record is None]
    if missing:
        raise NotFoundError(f"{len(missing)} of {len(wanted)} ids are not in the store, the first is {missing[0]!r}")
    if wanted and checked:
        statistics: Statistics = yield context.adapter.statistics
        check_indexable(checked, statistics.fields, "payload")
        yield partial(context.adapter.update_payload, wanted, checked, within=context.scope)


def delete_steps(context: Context, ids: Sequence[Id] | None, where: Any) -> Steps[int]:
    """Delete by ids, by filter, or by both at once."""
    check_writable(context)
    if ids is None and where is None:
        raise InvalidInputError("delete: ids or where wanted; to delete everything drop the collection")
    asked = parse(where)
    if ids is None and constant(asked) is True:
        raise InvalidInputError(
            f"delete: where={where!r} matches everything, whatever is stored; to delete everything drop the collection"
        )
    condition = within(context.scope, asked)
    named = None if ids is None else check_ids(ids)
    if not (yield from _has_content(context)):
        return 0
    gone: int = yield partial(context.adapter.delete, named, condition)
    return gone


def count_steps(context: Context, where: Any) -> Steps[int]:
    """How many passages match."""
    condition = within(context.scope, parse(where))
    if not (yield from _has_content(context)):
        return 0
    counted: int = yield partial(context.adapter.count, condition)
    return counted


def statistics_steps(context: Context) -> Steps[Statistics]:
    """What is in the store; a scoped one tells of its own passages only."""
    statistics: Statistics = yield context.adapter.statistics
    if context.scope is None:
        return statistics
    return replace(statistics, count=(yield from count_steps(context, None)), indexed=0)


def check_writable(context: Context) -> None:
    """Refuse to change what was attached.

    Raises:
        ReadOnlyError: the collection belongs to others.
    """
    if not context.adapter.capabilities.writable:
        raise ReadOnlyError("an attached collection is only read; write to it with the program that it belongs to")


def _has_content(context: Context) -> Steps[bool]:
    statistics: Statistics = yield context.adapter.statistics
    return statistics.dimension is not None


def reembed_steps(context: Context, embedding: Embedding, progress: Progress | None) -> Steps[int]:
    """Embed every text anew and take the old vectors' place at once. Returns how many passages there are."""
    check_writable(context)
    if context.scope is not None:
        raise InvalidInputError("reembed changes the whole collection; call it on the store, not on a scoped one")
    statistics: Statistics = yield context.adapter.statistics
    if statistics.dimension is None:
        context.in_use.embedding = embedding
        return 0
    replacement: Replacement = yield partial(context.adapter.replace, embedding.identity)
    try:
        done = yield from _embed_anew(context, embedding, replacement, statistics.count, progress)
        generation: int = yield replacement.commit
    except GeneratorExit:  # nobody is there to call anything; the replacement ends when it is garbage
        raise
    except BaseException:
        live: int | None = yield replacement.abandon
        if live is not None:  # it failed after the change over
            context.in_use.embedding, context.in_use.generation = embedding, live
        raise
    context.in_use.embedding, context.in_use.generation = embedding, generation
    return done


def _embed_anew(
    context: Context, embedding: Embedding, replacement: Replacement, total: int, progress: Progress | None
) -> Steps[int]:
    after, done, dimension = None, 0, 0
    while True:
        page, after = yield partial(context.adapter.scan, after, _CHUNK)
        texts = [record.text for record in page] or ["dimension"]  # an empty collection has a dimension, too
        vectors: npt.NDArray[np.float32] = yield embedding.documents_call(texts, None, context.awaits)
        dimension = dimension or vectors.shape[1]
        if vectors.shape[1] != dimension:
            raise EmbedderError(f"the embedder gave dimension {vectors.shape[1]} after {dimension}; one wanted")
        batch = [Record(r.id, r.text, r.payload, v) for r, v in zip(page, vectors, strict=False)]
        yield partial(replacement.write, batch, vectors.shape[1])
        done += len(page)
        if progress:
            progress(done, total)
        if after is None:
            return done


def optimize_steps(context: Context, wait: bool) -> Steps[None]:
    """Build the index."""
    check_writable(context)
    yield partial(context.adapter.optimize, wait=wait)


def doctor_steps(context: Context) -> Steps[list[Finding]]:
    """What is wrong, or will be, and the mend for each. A scoped store tells of its own passages only."""
    statistics: Statistics = yield context.adapter.statistics
    if statistics.dimension is None:
        mend = "add texts: store.add([...]) or sift-store add STORE FOLDER"
        return [Finding("note", "the collection is empty", mend)]
    if context.scope is not None:
        count = yield from count_steps(context, None)
        return [Finding("ok", f"{count:,} passages in this scope", "for the rest call doctor on the store itself")]
    stored = statistics.embedder or EmbedderIdentity()
    findings = [
        Finding(
            "ok",
            f"{statistics.count:,} passages, dimension {statistics.dimension}, metric {statistics.metric}, "
            f"embedder {stored.name or 'unnamed'}, engine {context.adapter.capabilities.engine}",
        )
    ]
    engine: Callable[[], Iterable[Finding]] = context.adapter.doctor
    findings.extend((yield engine))
    findings.append((yield from _probe(context)))
    return findings


def _probe(context: Context) -> Steps[Finding]:
    """Embed a few stored texts again and compare with the stored vectors."""
    if context.embedding is None:
        return Finding(
            "note", "no embedder given: the stored vectors were not checked", "open the store with embedder=…"
        )
    page, _ = yield partial(context.adapter.scan, None, _PROBES, vectors=True)
    if not page:
        return Finding("note", "nothing is stored, so no vector was checked")
    stored = np.stack([record.vector for record in page])
    again: npt.NDArray[np.float32] = yield partial(context.embedding.documents, [record.text for record in page])
    if again.shape != stored.shape:
        return Finding(
            "error",
            f"the embedder gives dimension {again.shape[1]}, the store has {stored.shape[1]}",
            "open the store with the embedder it was built with, or re-embed it",
        )
    furthest = float(1 - np.einsum("ij,ij->i", stored, again).min())
    if furthest > _PROBE_DISTANCE:
        return Finding(
            "error",
            f"{len(page)} texts embedded again are up to {furthest:.3f} in cosine from their stored vectors",
            "open the store with the embedder (and prefixes) it was built with, or re-embed it",
        )
    return Finding("ok", f"{len(page)} texts embedded again agree with their stored vectors")
