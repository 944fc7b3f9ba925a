"""Makes tests/data/store-VERSION.tar.xz: a store on disk as this release writes it, which every later one must open.

    python tests/make_kept_store.py

Run it once for each release; what is there is never made anew.
"""

import tarfile
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

from sift_store import SiftStore
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

DATA = Path(__file__).parent / "data"
IDS = ["text", 7, -7, 2**64 - 1, UUID(int=5)]
PAYLOADS = [
    {"year": 2024, "share": 0.09986771604242495, "at": "2024-01-01T00:00:00+0200"},
    {"deep": {"er": [1, 2.5, "é", None, True]}, "zero": -0.0},
    {"at": datetime(2020, 5, 1, 8, tzinfo=UTC).isoformat()},
    {},
    {"year": 2**60 + 1},
]


def main() -> None:
    target = DATA / f"store-{version('sift-store')}.tar.xz"
    if target.exists():
        raise SystemExit(f"{target} is there; a kept store is never made anew")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.sift"
        with SiftStore.open(path, embedder=WordEmbedder(), indexed={"year": "integer", "at": "datetime"}) as store:
            store.add(JORDAN, ids=IDS, payloads=PAYLOADS)
        with tarfile.open(target, "w:xz") as archive:
            archive.add(path, "kept.sift")


if __name__ == "__main__":
    main()
