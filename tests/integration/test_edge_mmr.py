"""The MMR of the quality tables is the engine's: both pick the same."""

from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as q

from sift_store import SiftStore
from sift_store.mmr import mmr


@pytest.mark.parametrize("balance", [0.9, 0.7, 0.5])
def test_the_engines_mmr_picks_what_ours_picks(tmp_path: Path, balance: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=32) + 1.5 * rng.normal(size=(300, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with SiftStore.open(tmp_path / "x.sift") as store:
        store.add([f"text {row}" for row in range(300)], ids=list(range(300)), vectors=vectors)
        adapter = store._context.adapter
        shard = adapter._serving().shard
        for query in vectors[:10] + vectors[10:20]:
            query = (query / np.linalg.norm(query)).astype(np.float32)
            asked = q.QueryRequest(limit=10, query=q.Mmr(query.tolist(), balance, 100))
            theirs = {record.id for record in adapter.fetch([point.id for point in shard.query(asked)])}
            scores = (vectors @ query).astype(np.float64)
            nearest = np.argsort(-scores)[:100]
            ours = nearest[mmr(vectors[nearest], scores[nearest], 10, balance)]
            assert theirs == set(ours.tolist())
