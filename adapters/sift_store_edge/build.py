"""``python -m sift_store_edge.build SHARD``: build the index of a shard that nobody else has open.

A process of its own, because the engine holds the interpreter lock while it builds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from qdrant_edge import EdgeShard

_SET_PARENT_DEATH_SIGNAL = 1


def main(shard_path: str) -> None:
    """Build, flush, close. Gives way to others, and ends with its parent where the system can see to that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if hasattr(os, "nice"):
        os.nice(10)
    shard = EdgeShard.load(shard_path)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
