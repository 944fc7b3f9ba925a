"""From LangChain's vector stores to ours: the same collection or table, attached and only read."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever

from sift_store import AsyncSiftStore, FilterError, InvalidInputError, SiftStore
from sift_store.embedding import as_embedding
from sift_store.mapped import Entry
from sift_store.records import Id
from sift_store.twins import Twins

__all__ = ["InMemorySource", "twins_of"]

_METRICS = {"COSINE": "cosine", "COSINE_DISTANCE": "cosine", "EUCLIDEAN": "euclid"} | {
    "INNER_PRODUCT": "dot",
    "MAX_INNER_PRODUCT": "dot",
}


def twins_of(store: object) -> Twins:
    """A store for sync and one for asynchronous code, of whatever a retriever was given.

    Args:
        store: a `SiftStore`, an `AsyncSiftStore`, a `SiftVectorStore`, or a vector store of LangChain's own: an
            `InMemoryVectorStore`, a `QdrantVectorStore`, a `PGVectorStore` or a `PGVector`. Those are opened when first
            asked, at the collection or table that they read.

    Raises:
        InvalidInputError: another vector store.
    """
    if isinstance(store, VectorStore):
        twins = getattr(store, "twins", None)
        return twins if isinstance(twins, Twins) else Twins.shared(store, partial(_attached, store))
    if isinstance(store, VectorStoreRetriever):
        raise InvalidInputError("store: a retriever given; its vector store wanted, retriever.vectorstore")
    return Twins.of(store)


def _attached(store: VectorStore) -> Twins:
    for kind in type(store).__mro__:
        attach = _KNOWN.get((kind.__module__.partition(".")[0], kind.__name__))
        if attach is not None:
            return attach(store)
    known = ", ".join(sorted({name for _, name in _KNOWN}))
    raise InvalidInputError(
        f"store: {type(store).__name__} given; {known} or a SiftStore wanted. Where its data are in Qdrant or "
        "PostgreSQL, SiftStore.attach(URL) reads them"
    )


def _in_memory(store: Any) -> Twins:
    return Twins.attach("memory://", embedder=store.embedding, client=InMemorySource(store))


def _qdrant(store: Any) -> Twins:
    mode = str(getattr(store.retrieval_mode, "value", store.retrieval_mode))
    if mode == "sparse":
        raise InvalidInputError("store: a QdrantVectorStore in sparse mode has no dense vectors, which SIFT compares")
    options = {
        "collection": store.collection_name,
        "text": store.content_payload_key,
        "metadata": store.metadata_payload_key,
        **({"vector": store.vector_name} if store.vector_name else {}),
    }
    given: dict[str, Any] = {"client": store.client}
    if mode == "hybrid":
        options["sparse"] = store.sparse_vector_name
        given["sparse_embedder"] = store.sparse_embeddings
    return Twins.attach(f"qdrant://?{urlencode(options)}", embedder=store.embeddings, **given)


def _pg_table(store: Any) -> Twins:
    inner = getattr(store, "_PGVectorStore__vs", store)
    options = {
        "table": inner.table_name,
        "schema": inner.schema_name,
        "id": inner.id_column,
        "text": inner.content_column,
        "vector": inner.embedding_column,
        "metric": _METRICS[inner.distance_strategy.name],
        "columns": ",".join(inner.metadata_columns) or ",",
        **({"metadata": inner.metadata_json_column} if inner.metadata_json_column else {}),
    }
    if inner.hybrid_search_config is not None:
        raise InvalidInputError(
            "store: its hybrid_search_config is not followed, only dense vectors are compared; give a PGVectorStore "
            "of the same table without it"
        )
    return Twins.attach(_postgres(inner.engine, options), embedder=inner.embedding_service)


def _pg_collection(store: Any) -> Twins:
    options = {"collection": store.collection_name, "metric": _METRICS[store._distance_strategy.name]}
    embedder = as_embedding(store.embeddings)
    if store._engine is None or store._engine.dialect.driver != "psycopg":
        return Twins.attach(_postgres(store._engine or store._async_engine, options), embedder=embedder)

    async def open_async() -> AsyncSiftStore:
        location = await asyncio.to_thread(_reached_by, store._engine, options)
        return await AsyncSiftStore.attach(location, embedder=embedder)

    return Twins(lambda: SiftStore.attach(_reached_by(store._engine, options), embedder=embedder), open_async)


def _reached_by(engine: Any, options: Mapping[str, str]) -> str:
    """A URL of our own to where an engine's connection is, whatever it was made with."""
    borrowed = engine.raw_connection()
    try:
        info = borrowed.driver_connection.info
        named = {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname}
        query = {**info.get_parameters(), **named, "password": info.password, **options}
    finally:
        borrowed.close()
    told = urlencode({name: value for name, value in query.items() if value})
    return f"postgresql://localhost/?{told}"  # the host in the query wins


def _postgres(engine: Any, options: Mapping[str, str]) -> str:
    """A URL of our own to where an engine leads; what only asyncpg and SQLAlchemy know of it means nothing here."""
    url = engine.url
    query = dict(url.query)
    if engine.dialect.driver == "asyncpg":
        query = {"sslmode": query["ssl"]} if "ssl" in query else {}
    return str(url.set(query={**query, **options}).render_as_string(hide_password=False))


_KNOWN: Mapping[tuple[str, str], Callable[[Any], Twins]] = {
    ("langchain_core", "InMemoryVectorStore"): _in_memory,
    ("langchain_postgres", "AsyncPGVectorStore"): _pg_table,
    ("langchain_postgres", "PGVector"): _pg_collection,
    ("langchain_postgres", "PGVectorStore"): _pg_table,
    ("langchain_qdrant", "QdrantVectorStore"): _qdrant,
}


class InMemorySource:
    """What an `InMemoryVectorStore` holds; see `sift_store.mapped.Source`."""

    native_filter = "a function of a Document, as InMemoryVectorStore takes"

    def __init__(self, store: InMemoryVectorStore) -> None:
        self._there = weakref.ref(store)  # the store keeps what is made of it

    @property
    def _held(self) -> dict[str, dict[str, Any]]:
        store = self._there()
        return {} if store is None else store.store

    def entries(self) -> dict[Id, Entry]:
        """Everything."""
        return {id_: Entry(held["vector"], held["metadata"]) for id_, held in dict(self._held).items()}

    def texts(self, ids: Sequence[Id]) -> list[str | None]:
        """Texts by id."""
        held = self._held
        return [held[str(id_)]["text"] if id_ in held else None for id_ in ids]

    def allows(self, native: Any, id_: Id) -> bool:
        """Whether a function of documents lets one through."""
        if not callable(native):
            raise FilterError(f"filter: {type(native).__name__} given; a mapping or {self.native_filter} wanted")
        held = self._held.get(str(id_))
        if held is None:
            return False
        return bool(native(Document(id=str(id_), page_content=held["text"], metadata=held["metadata"])))
