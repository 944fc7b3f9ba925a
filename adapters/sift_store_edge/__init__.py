"""Qdrant Edge, the server's own engine in the process: the embedded, persistent default.

A path holds one or more collections, each a folder:

    handbook.sift/
      sift-store.json             marks the folder as ours
      default/                    one collection
        lock                      held while a process has it open
        CURRENT                   the name of the live version; replaced atomically
        version-<hex>/            data and index; others are leftovers of an interrupted build, removed at open
          meta.json               dimension and embedder
          shard/                  the engine's own files
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from sift_store.adapter import Adapter, no_client
from sift_store.location import Location
from sift_store_edge.adapter import EdgeAdapter
from sift_store_edge.layout import Layout, collections_in
from sift_store_edge.lock import hold
from sift_store_edge.shard import engine_errors

__all__ = ["drop_collection", "list_collections", "open_store"]


def open_store(location: Location, *, indexed: Mapping[str, str], client: object = None) -> Adapter:
    """Open the collection at a path, existing or not; nothing is created before the first add."""
    no_client(location, client)
    return EdgeAdapter(Layout.at(location), indexed)


def list_collections(location: Location) -> list[str]:
    """Names of the collections in the folder, sorted."""
    return collections_in(location)


def drop_collection(location: Location) -> bool:
    """Delete a collection with all it holds; whether there was one."""
    layout = Layout.at(location)
    if not layout.folder.is_dir():
        return False
    with hold(layout.lock_file), engine_errors(f"dropping {layout.folder}"):
        shutil.rmtree(layout.set_aside())
    return True
