"""The collections of ours on a server: their names, and what is behind each."""

from __future__ import annotations

from typing import Any

from sift_store.errors import LocationError, NotFoundError
from sift_store_qdrant.state import Marks, is_behind
from sift_store_qdrant.work import Call, Info, Work

__all__ = ["check_name", "collection_names", "collections_behind", "drop"]


def check_name(name: str) -> None:
    """Refuse names that are part of a URL's own language: not all versions of the client quote them in paths.

    Raises:
        LocationError: names the first such character.
    """
    odd = sorted(set(name) & set("#%/\\?")) or [name] * (name in (".", ".."))
    if odd:
        raise LocationError(f"collection={name}: {odd[0]!r} has a meaning in paths; a name without # % / \\ ? wanted")


def collection_names() -> Work[list[str]]:
    """The names of our collections, sorted."""
    found = yield Call("get_aliases")
    names = []
    for alias in found.aliases:
        if is_behind(alias.collection_name, alias.alias_name) and (yield from _is_ours(alias.collection_name)):
            names.append(alias.alias_name)
    return sorted(names)


def collections_behind(name: str) -> Work[list[str]]:
    """What is on the server under a store's name: the live collection, and what was left of others."""
    found: Any = yield Call("get_collections")
    behind = []
    for item in found.collections:
        if is_behind(item.name, name) and (yield from _is_ours(item.name)):
            behind.append(item.name)
    return behind


def drop(name: str) -> Work[bool]:
    """Delete a collection of ours with all it holds; whether there was one.

    Raises:
        LocationError: a collection of that name is there and not ours.
    """
    try:
        info = yield Info(name)
    except NotFoundError:
        info = None
    marks = None if info is None else Marks.of(info)
    if info is not None and marks is None:
        raise LocationError(f"{name!r} is a collection that another program keeps; drop it with that")
    behind = yield from collections_behind(name)
    for collection in sorted(behind, key=lambda item: marks is not None and item == marks.collection):  # the live last
        yield Call("delete_collection", {"collection_name": collection})  # its alias goes with it
    return bool(behind)


def _is_ours(collection: str) -> Work[bool]:
    """A name may look like ours by chance; the marks do not."""
    try:
        info = yield Info(collection)
    except NotFoundError:  # just dropped
        return False
    return Marks.of(info) is not None
