"""Stores as commands open them."""

from __future__ import annotations

from sift_store.errors import NotFoundError
from sift_store.location import parse_location
from sift_store.store import SiftStore, list_collections

__all__ = ["check_exists", "existing_store", "exists", "shown"]


def shown(store: str) -> str:
    """A path as it is; a URL without what may be secret in it."""
    where = parse_location(store)
    return store if where.scheme == "path" else f"{where.scheme}://…?collection={where.collection}"


def exists(store: str) -> bool:
    """Whether there is a collection at that path or URL."""
    return parse_location(store).collection in list_collections(store)


def check_exists(store: str) -> None:
    """Refuse a place with no collection.

    Raises:
        NotFoundError: there is none.
    """
    if not exists(store):
        raise NotFoundError(f"no collection at {shown(store)}; make one with: sift-store add {shown(store)} FOLDER")


def existing_store(store: str, embedder: str | None = None) -> SiftStore:
    """Open what is there, or attach a table that the URL names; nothing is created."""
    if "table" in parse_location(store).options:
        return SiftStore.attach(store, embedder=embedder)
    check_exists(store)
    return SiftStore.open(store, embedder=embedder)
