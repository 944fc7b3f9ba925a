"""`SiftVectorStore`: a store of ours as LlamaIndex's vector store, or one of LlamaIndex's own, read by SIFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from sift_store import AsyncSiftStore, Hits, InvalidInputError, Record, SiftStore
from sift_store.filters import EVERYTHING, matches, parse
from sift_store.plan import Method
from sift_store.reranking import rerank
from sift_store.sharing import Sharing
from sift_store.twins import Twins, search_arguments
from sift_store_llama_index.attaching import read
from sift_store_llama_index.filters import where_of
from sift_store_llama_index.nodes import node_of, payload_of, text_of

__all__ = ["SiftVectorStore"]


class SiftVectorStore(Sharing, BasePydanticVectorStore):
    """LlamaIndex's vector store whose queries are answered with nodes that together tell most.

    Over a `SiftStore`, nodes are kept as LlamaIndex's Postgres store keeps them: the node as JSON among its metadata,
    its text beside. Over a `QdrantVectorStore` or `PGVectorStore` of LlamaIndex's, that store does the writing, in its
    own layout, and this one only reads: what either wrote, both read.

    Args:
        store: a `SiftStore`, for coroutines alone an `AsyncSiftStore`, or LlamaIndex's vector store. It is the caller's
            to close.
        method: how queries of the default mode are answered: "sift", or "knn" for nearest neighbours. One retriever has
            another by ``vector_store_kwargs={"method": "knn"}``, which takes other arguments of `SiftStore.search`.
    """

    stores_text: bool = True
    flat_metadata: bool = False
    method: Method = "sift"

    _store: Any = PrivateAttr()
    _twins: Twins = PrivateAttr()

    def __init__(self, store: SiftStore | AsyncSiftStore | BasePydanticVectorStore, method: Method = "sift") -> None:
        super().__init__(stores_text=True)
        if method not in get_args(Method):
            raise InvalidInputError(f"method: {method!r} given, one of {', '.join(get_args(Method))} wanted")
        self.method = method
        self._store = store
        self._twins = read(store).twins

    @classmethod
    def class_name(cls) -> str:
        """Its name, for LlamaIndex."""
        return "SiftVectorStore"

    @property
    def client(self) -> Any:
        """The store that was given."""
        return self._store

    @property
    def twins(self) -> Twins:
        """How it is read."""
        return self._twins

    @property
    def _theirs(self) -> BasePydanticVectorStore | None:
        return self._store if isinstance(self._store, BasePydanticVectorStore) else None

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their vectors; those of the same ids are replaced."""
        if self._theirs is not None:
            return self._theirs.add(list(nodes), **kwargs)
        return [str(id_) for id_ in self._twins.sync().add(**_columns(nodes))] if nodes else []

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        if self._theirs is not None:
            return await self._theirs.async_add(list(nodes), **kwargs)
        return [str(id_) for id_ in await (await self._twins.here()).add(**_columns(nodes))] if nodes else []

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        if self._theirs is not None:
            self._theirs.delete(ref_doc_id, **delete_kwargs)
        else:
            self._twins.sync().delete(where=where_of(None, [ref_doc_id]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`."""
        if self._theirs is not None:
            await self._theirs.adelete(ref_doc_id, **delete_kwargs)
        else:
            await (await self._twins.here()).delete(where=where_of(None, [ref_doc_id]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filter, or those that match both."""
        if self._theirs is not None:
            self._theirs.delete_nodes(node_ids, filters, **delete_kwargs)
        else:
            self._twins.sync().delete(node_ids, where=where_of(filters))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`."""
        if self._theirs is not None:
            await self._theirs.adelete_nodes(node_ids, filters, **delete_kwargs)
        else:
            await (await self._twins.here()).delete(node_ids, where=where_of(filters))

    def clear(self) -> None:
        """Delete all nodes."""
        if self._theirs is not None:
            self._theirs.clear()
        else:
            self._twins.sync().delete(where=EVERYTHING)

    async def aclear(self) -> None:
        """As `clear`."""
        if self._theirs is not None:
            await self._theirs.aclear()
        else:
            await (await self._twins.here()).delete(where=EVERYTHING)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, those that are there and match the filter."""
        if self._theirs is not None:
            return self._theirs.get_nodes(node_ids, filters)
        return [node_of(record) for record in _matching(self._twins.sync().get(_named(node_ids)), where_of(filters))]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        if self._theirs is not None:
            return await self._theirs.aget_nodes(node_ids, filters)
        records = await (await self._twins.here()).get(_named(node_ids))
        return [node_of(record) for record in _matching(records, where_of(filters))]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Answer a query; `kwargs` are other arguments of `SiftStore.search`."""
        options, where = self._options(query, kwargs), where_of(query.filters, query.doc_ids)
        store = self._twins.sync()
        if query.node_ids:
            records = _matching(store.get(query.node_ids, vectors=True), where)
            return _result(rerank(records, query.query_embedding, **options))  # type: ignore[arg-type]  # checked there
        return _result(store.search(vector=query.query_embedding, where=where, **options))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        options, where = self._options(query, kwargs), where_of(query.filters, query.doc_ids)
        store = await self._twins.here()
        if query.node_ids:
            records = _matching(await store.get(query.node_ids, vectors=True), where)
            return _result(rerank(records, query.query_embedding, **options))  # type: ignore[arg-type]
        return _result(await store.search(vector=query.query_embedding, where=where, **options))

    def _options(self, query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        methods = {VectorStoreQueryMode.DEFAULT: self.method, VectorStoreQueryMode.MMR: "mmr"}
        if query.mode not in methods:
            raise InvalidInputError(f"mode {query.mode.value!r} given; 'default' or 'mmr' wanted")
        if query.query_embedding is None:
            raise InvalidInputError("query_embedding: none given; the question's vector wanted")
        return {"k": query.similarity_top_k, "method": methods[query.mode], **search_arguments(kwargs)}


def _columns(nodes: Sequence[BaseNode]) -> dict[str, Any]:
    return {
        "texts": [text_of(node) for node in nodes],
        "ids": [node.node_id for node in nodes],
        "payloads": [payload_of(node) for node in nodes],
        "vectors": [node.get_embedding() for node in nodes],
    }


def _named(node_ids: Sequence[str] | None) -> list[str]:
    if node_ids is None:
        raise InvalidInputError("node_ids: none given; nodes are read by id, filters only choose among those")
    return list(node_ids)


def _matching(records: Sequence[Record | None], where: Any) -> list[Record]:
    condition = parse(where)
    return [record for record in records if record is not None and matches(condition, record.payload)]


def _result(hits: Hits) -> VectorStoreQueryResult:
    nodes = [node_of(hit) for hit in hits]
    return VectorStoreQueryResult(
        nodes=nodes, similarities=[hit.score for hit in hits], ids=[str(hit.id) for hit in hits]
    )
