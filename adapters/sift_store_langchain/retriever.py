"""Retrievers: passages that together tell most, for anything in LangChain that takes a retriever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, Field, PrivateAttr

from sift_store import AsyncSiftStore, SiftStore
from sift_store.sharing import Sharing
from sift_store.twins import Twins, search_arguments
from sift_store_langchain.attaching import twins_of
from sift_store_langchain.documents import documents_of, search_options

__all__ = ["SIFTRetriever", "SiftVectorStoreRetriever"]


class SIFTRetriever(Sharing, BaseRetriever):
    """Retrieve an informative, non-redundant subset instead of the k nearest neighbours.

    Everything but `store` can be given for one call, too: ``retriever.invoke(question, k=3, filter={"year": 2024})``.
    Coroutines are awaited through to the database, where it is a server.

    Attributes:
        store: a `SiftStore` or `AsyncSiftStore`, or LangChain's vector store as it is: an `InMemoryVectorStore`, a
            `QdrantVectorStore`, a `PGVectorStore` or `PGVector`, whose collection or table is read where it is.
        k: documents wanted.
        filter: a mapping as `SiftStore.search` takes for `where`, or a filter of the store's own.
        with_scores: put score, gain, variance left, pick and rank into each document's metadata, under "sift".
        search_kwargs: other arguments of `SiftStore.search`, such as `candidates`, `max_tokens` or `order`.

    Raises:
        ValidationError: pydantic's, a ValueError: what cannot be used as a store, or an argument that is none. Of
            `invoke`, all that `SiftStore.search` raises.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    store: Any = Field(exclude=True, repr=False, frozen=True)
    k: int = 4
    filter: Any = None
    with_scores: bool = False
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    _twins: Twins = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Find out how the store is reached; nothing is opened yet."""
        super().model_post_init(context)
        self._twins = twins_of(self.store)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_retriever_name"] = "sift"
        params["ls_vector_store_provider"] = type(self.store).__name__
        embedder = getattr(self.store, "embeddings", None)
        if isinstance(self.store, SiftStore | AsyncSiftStore) and self.store.embedding is not None:
            embedder = self.store.embedding.source
            params["ls_embedding_model"] = self.store.embedding.identity.name
        if embedder is not None:
            params["ls_embedding_provider"] = type(embedder).__name__
        return params

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager  # events of a run are the caller's, and the base class sends them
        with_scores, options = self._options(kwargs)
        return documents_of(self._twins.sync().search(query, **options), with_scores=with_scores)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        with_scores, options = self._options(kwargs)
        store = await self._twins.here()
        return documents_of(await store.search(query, **options), with_scores=with_scores)

    def _options(self, kwargs: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        given = {"k": self.k, "where": self.filter} | search_options(self.search_kwargs) | search_options(kwargs)
        return bool(given.pop("with_scores", self.with_scores)), search_arguments(given)

    def close(self) -> None:
        """Close the connections that were opened for a vector store of LangChain's; a `SiftStore` stays open."""
        self._twins.close()


class SiftVectorStoreRetriever(VectorStoreRetriever):
    """LangChain's retriever over a vector store, with "sift" as one more search type."""

    allowed_search_types: ClassVar[Collection[str]] = (*VectorStoreRetriever.allowed_search_types, "sift")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type == "sift":
            return self.vectorstore.search(query, "sift", **{**self.search_kwargs, **kwargs})
        return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        if self.search_type == "sift":
            return await self.vectorstore.asearch(query, "sift", **{**self.search_kwargs, **kwargs})
        return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
