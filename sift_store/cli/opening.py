"""Stores as commands open them."""

from __future__ import annotations

import contextlib

from sift_store.embedding import Embedding, as_embedding
from sift_store.errors import AccessError, InvalidInputError, NotFoundError
from sift_store.location import parse_location
from sift_store.registry import EMBEDDERS, find, store_module
from sift_store.store import SiftStore, list_collections

__all__ = ["embedder_of", "embedding_of", "existing_store", "exists", "shown"]

# Parameters that say where things are in the data of others.
_ATTACHED = {"fusion", "id", "metadata", "sparse", "table", "text", "vector"}


def shown(store: str) -> str:
    """A path as it is; a URL without what may be secret in it."""
    where = parse_location(store)
    return store if where.scheme == "path" else f"{where.scheme}://…?collection={where.collection}"


def exists(store: str) -> bool:
    """Whether there is a collection of ours at that path or URL."""
    return parse_location(store).collection in list_collections(store)


def _check_exists(store: str) -> None:
    """Refuse a place with no collection of ours.

    Raises:
        NotFoundError: there is none.
    """
    if not exists(store):
        raise NotFoundError(f"no collection at {shown(store)}; make one with: sift-store add {shown(store)} FOLDER")


def existing_store(store: str, embedder: str | None = None) -> SiftStore:
    """Open what is there, or attach what others keep under that name; nothing is created.

    Raises:
        NotFoundError: there is nothing.
    """
    where = parse_location(store)
    if where.options.keys() & _ATTACHED:
        return SiftStore.attach(store, embedder=embedder)
    attachable = "collection" in where.options and hasattr(store_module(where), "attach_store")
    if attachable and not _may_exist(store):
        with contextlib.suppress(NotFoundError):
            return SiftStore.attach(store, embedder=embedder)
    _check_exists(store)
    return SiftStore.open(store, embedder=embedder)


def _may_exist(store: str) -> bool:
    """Whether there is a collection of ours; one whose key may not list what there is cannot have made one."""
    try:
        return exists(store)
    except AccessError:
        return False


def embedding_of(store: SiftStore) -> Embedding:
    """The embedder of a store that needs one.

    Raises:
        InvalidInputError: it has none.
    """
    if store.embedding is None:
        raise InvalidInputError("the store was built from vectors alone; name its embedder with --embedder")
    return store.embedding


def embedder_of(name: str | None, query_prefix: str | None, passage_prefix: str | None) -> Embedding | None:
    """The embedder of that name, with prefixes where they are given; None without a name.

    Raises:
        InvalidInputError: prefixes for none, or for one that takes none.
    """
    if query_prefix is None and passage_prefix is None:
        return as_embedding(name)
    general = find(EMBEDDERS, "sentence-transformers")
    if name is None or general is None:
        raise InvalidInputError("prefixes need --embedder with the name or folder of a sentence-transformers model")
    return as_embedding(general.load()(name, query_prefix=query_prefix, passage_prefix=passage_prefix))
