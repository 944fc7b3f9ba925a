"""The engine's shard: opening, creating, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as q

from sift_store.errors import SiftStoreError, StorageError
from sift_store.points import EXACT, METADATA
from sift_store_edge.filters import exact_path, field_path

__all__ = ["INDEXING_THRESHOLD_KB", "create_shard", "declare_fields", "engine_errors", "load_shard"]

# Below this many KB of vectors a scan beats the index; the engine's own default.
INDEXING_THRESHOLD_KB = 10_000

_INDEX_TYPES = {
    "bool": q.PayloadSchemaType.Bool,
    "datetime": q.PayloadSchemaType.Datetime,
    "float": q.PayloadSchemaType.Float,
    "integer": q.PayloadSchemaType.Integer,
    "keyword": q.PayloadSchemaType.Keyword,
}


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """The engine raises bare `Exception`s and panics; they leave as `StorageError` that says what was being done."""
    try:
        yield
    except SiftStoreError:
        raise
    except Exception as exc:
        raise StorageError(f"{doing}: {exc}") from exc
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":  # of the engine's bindings; a BaseException without a public name
            raise
        raise StorageError(f"{doing}: the engine panicked: {exc}") from exc


def create_shard(path: Path, dimension: int) -> q.EdgeShard:
    """A new, empty shard for cosine over one vector of that dimension."""
    config = q.EdgeConfig(
        vectors=q.EdgeVectorParams(size=dimension, distance=q.Distance.Cosine),
        hnsw_config=q.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=INDEXING_THRESHOLD_KB),
        # One segment: a query walks one graph.
        optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=INDEXING_THRESHOLD_KB),
    )
    path.mkdir()
    with engine_errors(f"creating {path}"):
        return q.EdgeShard.create(str(path), config)


def load_shard(path: Path) -> q.EdgeShard:
    """Open a shard; its stored configuration stays."""
    with engine_errors(f"opening {path}"):
        return q.EdgeShard.load(str(path))


def declare_fields(shard: q.EdgeShard, declared: Mapping[str, str]) -> dict[str, str]:
    """Make the payload indexes that are declared and not there; returns all there are, key -> type."""
    with engine_errors("indexing payload fields"):
        present = _present_fields(shard)
        for key, kind in declared.items():
            if present.get(key) == kind:
                continue
            if key in present:
                for path in _index_paths(key, present[key]):
                    shard.update(q.UpdateOperation.delete_field_index(path))
            for path, schema in _index_paths(key, kind).items():
                shard.update(q.UpdateOperation.create_field_index(path, schema))
        return {**present, **declared}


def _index_paths(key: str, kind: str) -> dict[str, q.PayloadSchemaType]:
    """The engine's indexes for a field: dates are compared by their exact spelling, floats by it as well."""
    if kind == "datetime":
        return {exact_path(key): _INDEX_TYPES[kind]}
    indexes = {field_path(key): _INDEX_TYPES.get(kind, q.PayloadSchemaType.Keyword)}
    return {**indexes, exact_path(key): q.PayloadSchemaType.Keyword} if kind == "float" else indexes


def _present_fields(shard: q.EdgeShard) -> dict[str, str]:
    kinds = {str(kind): name for name, kind in _INDEX_TYPES.items()}
    present = {}
    for path, info in shard.info().payload_schema.items():
        root, _, rest = path.partition(".")
        kind = kinds.get(str(info.data_type), "other")
        if root == METADATA or (root == EXACT and kind == "datetime"):
            present[rest.replace('"', "")] = kind  # whichever way the engine quotes it
    return present
