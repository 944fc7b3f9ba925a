"""Stores on disk that earlier releases wrote: this one opens them, and everything is there."""

import tarfile
from pathlib import Path

import pytest
from make_kept_store import DATA, IDS, PAYLOADS

from sift_store import SiftStore
from sift_store.records import canonical
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

KEPT = sorted(DATA.glob("store-*.tar.xz"))


@pytest.mark.parametrize("archive", KEPT, ids=[path.name for path in KEPT])
def test_it_opens(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    with SiftStore.open(tmp_path / "kept.sift", embedder=WordEmbedder()) as store:
        records = store.get(IDS, vectors=True)
        assert [record and (record.id, record.text) for record in records] == list(zip(IDS, JORDAN, strict=True))
        assert [canonical(record.payload) for record in records if record] == list(map(canonical, PAYLOADS))
        assert store.count({"share": 0.09986771604242495}) == 1
        assert store.count({"year": {"$gte": 2024}}) == 2
        assert store.search(JORDAN[2], k=1)[0].id == -7
        assert {finding.level for finding in store.doctor()} == {"ok"}
        store.add(["new"], ids=["new"])
        assert store.statistics().fields == {"year": "integer", "at": "datetime"}


def test_one_is_kept() -> None:
    assert KEPT
