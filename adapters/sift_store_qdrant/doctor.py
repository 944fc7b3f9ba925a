"""What the server's own state shows: slow scans, missing indexes, points that cannot be found; the mends."""

from __future__ import annotations

from collections.abc import Iterator

from qdrant_client import models

from sift_store.adapter import Finding, Statistics
from sift_store_qdrant.attached import AttachedCollection
from sift_store_qdrant.catalog import collections_behind
from sift_store_qdrant.own import OwnCollection
from sift_store_qdrant.place import Place
from sift_store_qdrant.work import Info, Work

__all__ = ["examine"]

# From here on comparing every vector takes tens of milliseconds.
_MANY = 10_000
_LOOKED_AT = 100
# The share of points that may be newer than the index.
_NEW_SHARE = 0.2


def examine(collection: OwnCollection | AttachedCollection) -> Work[list[Finding]]:
    """All findings on an existing collection. Reads only."""
    statistics = yield from collection.statistics()
    place = collection.place if isinstance(collection, AttachedCollection) else collection.serving().place
    info: models.CollectionInfo = yield Info(place.collection)
    findings = [*_wire(collection), *_state(info), *_index(info, statistics), *_cluster(info)]
    findings += _fields(collection, statistics)
    if isinstance(collection, AttachedCollection):
        findings += yield from _points(place)
    else:
        left = [name for name in (yield from collections_behind(collection.name)) if name != place.collection]
        if left and collection.serving().lease is None:
            what = f"left over from an interrupted re-embedding: {', '.join(left)}"
            findings.append(Finding("note", what, "the next re-embedding drops it"))
    return findings


def _wire(collection: OwnCollection | AttachedCollection) -> Iterator[Finding]:
    server = collection.server
    if server.note:
        yield Finding(
            "ok", f"searches go over {server.note}", "open that port, or name it with grpc_port=: it is faster"
        )
    else:
        yield Finding("ok", f"searches go over {server.wire}")


def _state(info: models.CollectionInfo) -> Iterator[Finding]:
    if info.status == models.CollectionStatus.RED:
        yield Finding("error", f"the collection is red: {info.optimizer_status}", "see the server's log, then its disk")
    elif info.status == models.CollectionStatus.GREY:
        yield Finding("warning", "the optimizers wait for a first update after a restart", "run sift-store optimize")
    elif info.status == models.CollectionStatus.YELLOW:
        yield Finding("ok", "an index is being built")


def _index(info: models.CollectionInfo, statistics: Statistics) -> Iterator[Finding]:
    config = info.config
    count, indexed = statistics.count, statistics.indexed
    if config.hnsw_config.m == 0:
        what, mend = "HNSW is switched off (m = 0): every search compares every vector", "set hnsw_config.m, e.g. to 16"
        yield Finding("warning" if count > _MANY else "note", what, mend)
    elif config.optimizer_config.indexing_threshold == 0:
        what, mend = "indexing is switched off (indexing_threshold = 0)", "set it to 10000 once the bulk of data is in"
        yield Finding("warning", what, mend)
    elif count > _MANY and not statistics.building:
        if count - indexed > _NEW_SHARE * count:
            what = f"{count - indexed:,} of {count:,} vectors are in no index and are compared one by one"
            yield Finding("warning", what, "run sift-store optimize; see indexing_threshold of the collection")
        else:
            yield Finding("ok", f"{indexed:,} of {count:,} vectors are in the HNSW index")
    if config.quantization_config is not None:
        yield Finding("ok", "quantized: searches here rescore with the whole vectors")


def _cluster(info: models.CollectionInfo) -> Iterator[Finding]:
    shards, copies = info.config.params.shard_number or 1, info.config.params.replication_factor or 1
    if shards > 1 or copies > 1:
        yield Finding("ok", f"{shards} shards, {copies} copies of each")


def _fields(collection: OwnCollection | AttachedCollection, statistics: Statistics) -> Iterator[Finding]:
    """Where a filter would be slow."""
    if isinstance(collection, OwnCollection):
        missing = [key for key, kind in collection.declared.items() if statistics.fields.get(key) != kind]
        if missing:
            mend = "open the store with the same indexed= again"
            yield Finding("warning", f"payload indexes are missing: {', '.join(missing)}", mend)
    if statistics.fields:
        yield Finding("ok", f"payload indexes: {', '.join(statistics.fields)}")
    elif statistics.count > _MANY:
        mend = "index the keys that are filtered on: indexed=, or create_payload_index where the collection is not ours"
        yield Finding("note", "no payload index: a filter looks at every point", mend)


def _points(place: Place) -> Work[list[Finding]]:
    """Look at some points: are they what the layout says?"""
    points, _ = yield from place.scroll(None, _LOOKED_AT, vectors=True)
    findings = [Finding("ok", f"payload layout: {place.layout.name}, text in {place.layout.text!r}")]
    without = sum(point.vector is None for point in points)
    if without:
        what = f"{without} of {len(points)} points looked at have no vector {place.vectors.using!r}: never found"
        findings.append(Finding("warning", what, "embed them, or say another &vector="))
    silent = sum(not place.layout.has_text(point.payload) for point in points)
    if silent:
        what = f"{silent} of {len(points)} points looked at have no text in {place.layout.text!r}"
        findings.append(Finding("warning", what, "say where it is with &text=KEY"))
    return findings
