"""One collection: the engine's shard, what is known beside it, and the building of its index."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import qdrant_edge as q
from qdrant_client import models as m

from edge_server import translating as t

__all__ = ["Collection"]

_INDEXING_THRESHOLD_KB = 10_000  # the server's default

# The engine keeps the interpreter's lock while it builds, for as long as that takes: another process does it.
_BUILD = "import sys, qdrant_edge as q; shard = q.EdgeShard.load(sys.argv[1]); shard.optimize(); shard.close()"


class Collection:
    """A shard in a folder of its own. `kept`: encoded vectors by encoder and selector; every write empties it."""

    def __init__(self, path: Path, given: m.CreateCollection) -> None:
        self._path, self._given = path, given
        self._data = path / "data"
        self._writing = threading.Lock()  # the builder of the index holds it while it works on a copy
        self._builder: threading.Thread | None = None
        self.metadata = dict(given.metadata or {})
        self.index_params: dict[str, Any] = {}
        self.optimizers = given.optimizers_config or m.OptimizersConfigDiff()
        self.kept: dict[Any, dict[Any, bytes]] = {}
        config = t.config_of(given, self._threshold)
        path.mkdir(parents=True)
        self.shard = q.EdgeShard.create(str(self._data), config)

    def write(self, operation: q.UpdateOperation) -> None:
        """Apply an operation."""
        with self._writing:
            try:
                self.shard.update(operation)
            finally:  # an operation that fails is done in part
                self.kept = {}

    def close(self) -> None:
        """Remove everything. A reader that still has the shard may finish."""
        if self._builder is not None:
            self._builder.join()
        shutil.rmtree(self._path, ignore_errors=True)

    @property
    def _threshold(self) -> int:
        given = self.optimizers.indexing_threshold
        return _INDEXING_THRESHOLD_KB if given is None else given

    def build_index(self) -> None:
        """Begin to build the index if as much is unindexed as the threshold says. Reads go on, writes wait."""
        given, state = self._given.vectors or {}, self.shard.info()
        sizes = [part.size for part in (given.values() if isinstance(given, dict) else [given])]
        due = sum(sizes) * 4 * state.points_count / 1024 >= self._threshold > 0
        if due and state.indexed_vectors_count < state.points_count and not self._building:
            self._builder = threading.Thread(target=self._build, name="edge-server-index", daemon=True)
            self._builder.start()

    @property
    def _building(self) -> bool:
        return self._builder is not None and self._builder.is_alive()

    def _build(self) -> None:
        with self._writing:
            self.shard.flush()
            old, new = self._data, self._path / uuid.uuid4().hex
            shutil.copytree(old, new)
            q.EdgeShard.load(str(new), t.config_of(self._given, self._threshold)).close()  # stores the threshold
            subprocess.run([sys.executable, "-c", _BUILD, str(new)], check=True)
            self.shard, self._data = q.EdgeShard.load(str(new)), new
            shutil.rmtree(old)

    def info(self) -> m.CollectionInfo:
        """What the server tells about it."""
        state = self.shard.info()
        return m.CollectionInfo(
            status=m.CollectionStatus.YELLOW if self._building else m.CollectionStatus.GREEN,
            optimizer_status=m.OptimizersStatusOneOf.OK,
            indexed_vectors_count=state.indexed_vectors_count,
            points_count=state.points_count,
            segments_count=state.segments_count,
            config=self._config(),
            payload_schema={
                field: m.PayloadIndexInfo(
                    data_type=m.PayloadSchemaType(str(index.data_type).rpartition(".")[2].lower()),
                    params=self.index_params.get(field),
                    points=index.points,
                )
                for field, index in state.payload_schema.items()
            },
        )

    def _config(self) -> m.CollectionConfig:
        given = self._given
        hnsw = given.hnsw_config or m.HnswConfigDiff()
        return m.CollectionConfig(
            params=m.CollectionParams(
                vectors=given.vectors,
                sparse_vectors=given.sparse_vectors,
                shard_number=given.shard_number or 1,
                replication_factor=given.replication_factor or 1,
                write_consistency_factor=given.write_consistency_factor or 1,
                on_disk_payload=True if given.on_disk_payload is None else given.on_disk_payload,
            ),
            hnsw_config=m.HnswConfig(
                m=16 if hnsw.m is None else hnsw.m,
                ef_construct=hnsw.ef_construct or 100,
                full_scan_threshold=10_000 if hnsw.full_scan_threshold is None else hnsw.full_scan_threshold,
            ),
            optimizer_config=m.OptimizersConfig(
                default_segment_number=1, flush_interval_sec=5, indexing_threshold=self._threshold
            ),
            wal_config=m.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=given.quantization_config,
            metadata=dict(self.metadata) or None,
        )
