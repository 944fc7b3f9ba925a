"""From LlamaIndex's indexes and vector stores to ours: the same vectors where they are, attached and only read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote, unquote, urlencode

from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.schema import MetadataMode
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from sift_store import FilterError, InvalidInputError, StorageError
from sift_store.mapped import Entry
from sift_store.records import Id
from sift_store.twins import Twins

__all__ = ["Reading", "SimpleSource", "read"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a retriever reaches what it was given.

    Attributes:
        twins: the vectors. index: where it was one; it has the nodes that the vector store does not keep.
        stores_text: whether the vector store keeps nodes whole.
    """

    twins: Twins
    index: VectorStoreIndex | None
    stores_text: bool = True


def read(source: object) -> Reading:
    """A store for sync and one for asynchronous code, of whatever was given.

    Args:
        source: a `SiftStore` or `AsyncSiftStore`, a `VectorStoreIndex`, or a vector store: ours, or LlamaIndex's
            `QdrantVectorStore` or `PGVectorStore`, or within an index its `SimpleVectorStore`. Those are opened when
            first asked, at the collection or table that they read.

    Raises:
        InvalidInputError: another vector store, or a `SimpleVectorStore` without its index, which has the texts.
    """
    index = source if isinstance(source, VectorStoreIndex) else None
    store = source if index is None else index.vector_store
    if isinstance(store, SimpleVectorStore):
        if index is None:
            raise InvalidInputError("a SimpleVectorStore keeps no texts; give the index, SIFTRetriever(index)")
        made = partial(Twins.attach, "memory://", client=SimpleSource(index))
        return Reading(Twins.shared(index, made), index, stores_text=False)
    if isinstance(store, BasePydanticVectorStore):
        return Reading(_twins_of(store), index)
    return Reading(Twins.of(store), index)


def _twins_of(store: BasePydanticVectorStore) -> Twins:
    twins = getattr(store, "twins", None)
    if isinstance(twins, Twins):
        return twins
    for kind in type(store).__mro__:
        attach = _KNOWN.get((kind.__module__.partition(".")[0], kind.__name__))
        if attach is not None:
            return Twins.shared(store, partial(attach, store))
    raise InvalidInputError(
        f"{type(store).__name__} given; QdrantVectorStore, PGVectorStore, an index over a SimpleVectorStore, or a "
        "SiftStore wanted. Where its data are in Qdrant or PostgreSQL, SiftStore.attach(URL) reads them"
    )


def _qdrant(store: Any) -> Twins:
    client = store._client if store._client is not None else store._aclient
    return Twins.attach(f"qdrant://?{urlencode({'collection': store.collection_name})}", client=client)


def _postgres(store: Any) -> Twins:
    engine = store._engine
    url = _quoted(store.connection_string) if engine is None else engine.url.render_as_string(hide_password=False)
    # Its own queries compare by cosine, whatever its index does.
    options = urlencode({"table": f"data_{store.table_name}", "schema": store.schema_name, "metric": "cosine"})
    return Twins.attach(f"{url}{'&' if '?' in url else '?'}{options}")


def _quoted(url: str) -> str:
    """A URL whose user and password may stand there as they are, as `PGVectorStore.from_params` puts them."""
    head, at, rest = url.rpartition("@")
    scheme, _, said = head.partition("://")
    user, colon, password = said.partition(":")
    return f"{scheme}://{quote(unquote(user), '')}{colon}{quote(unquote(password), '')}@{rest}" if at else url


_KNOWN: Mapping[tuple[str, str], Callable[[Any], Twins]] = {
    ("llama_index", "PGVectorStore"): _postgres,
    ("llama_index", "QdrantVectorStore"): _qdrant,
}


class SimpleSource:
    """The vectors of a `SimpleVectorStore`, and the texts of its index; see `sift_store.mapped.Source`."""

    native_filter = ""

    def __init__(self, index: VectorStoreIndex) -> None:
        self._there = weakref.ref(index)  # the index keeps what is made of it

    @property
    def _index(self) -> VectorStoreIndex:
        index = self._there()
        if index is None:
            raise StorageError("the index is gone; keep it as long as what reads it")
        return index

    def entries(self) -> dict[Id, Entry]:
        """Every vector of the index, by the id of its node."""
        data, nodes = cast(SimpleVectorStore, self._index.vector_store).data, self._index.index_struct.nodes_dict
        metadata = data.metadata_dict or {}
        return {
            nodes[key]: Entry(vector, metadata.get(key, {}))
            for key, vector in dict(data.embedding_dict).items()
            if key in nodes
        }

    def texts(self, ids: Sequence[Id]) -> list[str | None]:
        """Texts by node id."""
        wanted = [str(id_) for id_ in ids]
        found = self._index.docstore.get_nodes(wanted, raise_error=False) if wanted else []
        by_id = {node.node_id: node.get_content(metadata_mode=MetadataMode.NONE) for node in found}
        return [by_id.get(id_) for id_ in wanted]

    def allows(self, native: Any, id_: Id) -> bool:
        """There are no filters of its own."""
        raise FilterError(f"filters: {type(native).__name__} given for {id_!r}; MetadataFilters or a mapping wanted")
