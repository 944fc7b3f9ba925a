"""`SiftVectorStore`: a store of ours as LangChain's vector store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from sift_store import AsyncSiftStore, Hits, InvalidInputError, SiftStore
from sift_store.filters import EVERYTHING
from sift_store.records import check_texts, listed
from sift_store.sharing import Sharing
from sift_store.twins import Twins, search_arguments
from sift_store_langchain.documents import (
    by_text,
    diverse,
    documents_found,
    documents_of,
    scored,
    search_options,
    spelled,
    strings,
    with_relevance,
)
from sift_store_langchain.mem0 import Listing
from sift_store_langchain.retriever import SiftVectorStoreRetriever

__all__ = ["SiftVectorStore"]


class SiftVectorStore(Sharing, VectorStore):
    """A `SiftStore` as LangChain's vector store.

    `similarity_search` and its kin are plain nearest neighbours, as everybody expects of them; `sift_search`, and
    ``as_retriever(search_type="sift")``, choose passages that together tell most. Scores are cosines, higher is better.
    All take other arguments of `SiftStore.search`, too, and its `where` also as `filter`. Adding the same text and
    metadata twice without ids changes nothing.

    Args:
        store: a `SiftStore` opened with an embedder (LangChain's embeddings will do), or for coroutines alone an
            `AsyncSiftStore`. It is the caller's to close.
    """

    _instead = "copy.copy gives one over the same store, copy.deepcopy one in memory; in another process make it anew"

    def __init__(self, store: SiftStore | AsyncSiftStore) -> None:
        self.twins = Twins.of(store)
        self._embedding = store.embedding
        self._owned: SiftStore | None = None

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        location: str | os.PathLike[str] = "memory://",
        indexed: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open a store, add texts to it. `location` and `indexed` as for `SiftStore.open`; default: kept in memory."""
        made = cls._opened(embedding, location, indexed)
        made.add_texts(texts, metadatas, ids=ids, **kwargs)
        return made

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        location: str | os.PathLike[str] = "memory://",
        indexed: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """As `from_texts`."""
        made = await asyncio.to_thread(cls._opened, embedding, location, indexed)
        await made.aadd_texts(texts, metadatas, ids=ids, **kwargs)
        return made

    @classmethod
    def _opened(cls, embedding: Embeddings, location: Any, indexed: Mapping[str, str] | None) -> Self:
        store = SiftStore.open(location, embedder=embedding, indexed=indexed)
        made = cls(store)
        made._owned = store
        return made

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedder in use, if it is one of LangChain's."""
        source = None if self._embedding is None else self._embedding.source
        return source if isinstance(source, Embeddings) else None

    def close(self) -> None:
        """Close the store that `from_texts` opened; one that was given stays open."""
        if self._owned is not None:
            self._owned.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A store in memory with the same passages: connections and files cannot be copied. mem0 wants one."""
        copied = SiftStore.open("memory://", embedder=self._embedding)
        self.twins.sync().copy_to(copied)
        made = type(self)(copied)
        if memo is not None:
            memo[id(self)] = made
        return made

    @property
    def _collection(self) -> Listing:
        """Where mem0 asks for a listing."""
        return Listing(self.twins)

    # --- writing ---

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *, ids: Any = None, **kwargs: Any
    ) -> list[str]:
        """Embed and store texts; see `SiftStore.add`. An id that is missing is a hash of text and metadata."""
        return strings(self.twins.sync().add(texts, ids, metadatas or None, **_adding(kwargs)))

    async def aadd_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *, ids: Any = None, **kwargs: Any
    ) -> list[str]:
        """As `add_texts`."""
        store = await self.twins.here()
        return strings(await store.add(texts, ids, metadatas or None, **_adding(kwargs)))

    def add_embeddings(
        self,
        texts: Iterable[str] | None = None,
        embeddings: Sequence[Sequence[float] | None] = (),
        metadatas: list[dict[str, Any]] | None = None,
        ids: Any = None,
    ) -> list[str]:
        """Store texts with vectors that are there already; those without one are embedded.

        Args:
            texts: default, as mem0 has it, what each metadata holds under "data".
        """
        said: list[Any] = (
            [(held or {}).get("data") for held in metadatas or []] if texts is None else listed(texts, "texts")
        )
        if len(said) != len(embeddings):
            raise InvalidInputError(f"embeddings: {len(embeddings)} given for {len(said)} texts, one a text wanted")
        store, without = self.twins.sync(), [said[row] for row, vector in enumerate(embeddings) if vector is None]
        if without and store.embedding is None:
            raise InvalidInputError("embeddings: None given for a text, but the store has no embedder")
        made = iter(store.embedding.documents(check_texts(without)) if without and store.embedding else ())
        vectors: Any = [next(made) if vector is None else vector for vector in embeddings]
        return strings(store.add(said, ids, metadatas, vectors))

    async def aadd_embeddings(
        self,
        texts: Iterable[str] | None = None,
        embeddings: Sequence[Sequence[float] | None] = (),
        metadatas: list[dict[str, Any]] | None = None,
        ids: Any = None,
    ) -> list[str]:
        """As `add_embeddings`."""
        return await asyncio.to_thread(self.add_embeddings, texts, embeddings, metadatas, ids)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete by ids, by filter, or what matches both.

        Raises:
            InvalidInputError: neither was given; for everything there is `delete_collection`.
        """
        self.twins.sync().delete(spelled(ids), **search_options(kwargs))
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """As `delete`."""
        await (await self.twins.here()).delete(spelled(ids), **search_options(kwargs))
        return True

    def delete_collection(self) -> None:
        """Delete every passage of the collection."""
        self.twins.sync().delete(where=EVERYTHING)

    async def adelete_collection(self) -> None:
        """As `delete_collection`."""
        await (await self.twins.here()).delete(where=EVERYTHING)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, those that are there, in order."""
        return documents_found(by_text(ids, self.twins.sync().get(spelled(ids) or [])))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """As `get_by_ids`."""
        return documents_found(by_text(ids, await (await self.twins.here()).get(spelled(ids) or [])))

    # --- searching ---

    def sift_search(self, query: str, k: int = 4, *, with_scores: bool = False, **options: Any) -> list[Document]:
        """Passages that together tell most."""
        return documents_of(
            self.twins.sync().search(query, k=k, **search_arguments(search_options(options))), with_scores=with_scores
        )

    async def asift_search(
        self, query: str, k: int = 4, *, with_scores: bool = False, **options: Any
    ) -> list[Document]:
        """As `sift_search`."""
        hits = await (await self.twins.here()).search(query, k=k, **search_arguments(search_options(options)))
        return documents_of(hits, with_scores=with_scores)

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The nearest neighbours."""
        return documents_of(self._nearest(query=query, k=k, **options))

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """As `similarity_search`."""
        return documents_of(await self._anearest(query=query, k=k, **options))

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """The nearest neighbours and their scores, higher is better."""
        return scored(self._nearest(query=query, k=k, **options))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        return scored(await self._anearest(query=query, k=k, **options))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """The nearest neighbours of a vector."""
        return documents_of(self._nearest(vector=embedding, k=k, **options))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """As `similarity_search_by_vector`."""
        return documents_of(await self._anearest(vector=embedding, k=k, **options))

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """The nearest neighbours of a vector and their scores, higher is better."""
        return scored(self._nearest(vector=embedding, k=k, **options))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score_by_vector`."""
        return scored(await self._anearest(vector=embedding, k=k, **options))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """MMR among the `fetch_k` nearest; `lambda_mult` 1 is relevance alone, 0 diversity alone."""
        return self._mmr(self._nearest(query=query, k=fetch_k, **options), k, lambda_mult)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        return await self._ammr(await self._anearest(query=query, k=fetch_k, **options), k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        return self._mmr(self._nearest(vector=embedding, k=fetch_k, **options), k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        return await self._ammr(await self._anearest(vector=embedding, k=fetch_k, **options), k, lambda_mult)

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """As LangChain's, with "sift" as one more type."""
        return (
            self.sift_search(query, **kwargs) if search_type == "sift" else super().search(query, search_type, **kwargs)
        )

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """As `search`."""
        if search_type == "sift":
            return await self.asift_search(query, **kwargs)
        return await super().asearch(query, search_type, **kwargs)

    def as_retriever(self, **kwargs: Any) -> SiftVectorStoreRetriever:
        """A retriever; ``search_type="sift"`` for passages that together tell most."""
        tags = [*(kwargs.pop("tags", None) or []), *self._get_retriever_tags()]
        return SiftVectorStoreRetriever(vectorstore=self, tags=tags, **kwargs)

    def _nearest(self, **options: Any) -> Hits:
        return self.twins.sync().search(**_nearest_arguments(options))

    async def _anearest(self, **options: Any) -> Hits:
        return await (await self.twins.here()).search(**_nearest_arguments(options))

    def _mmr(self, hits: Hits, k: int, lambda_mult: float) -> list[Document]:
        return diverse(hits, self.twins.sync().get([hit.id for hit in hits], vectors=True), k, lambda_mult)

    async def _ammr(self, hits: Hits, k: int, lambda_mult: float) -> list[Document]:
        return diverse(
            hits, await (await self.twins.here()).get([hit.id for hit in hits], vectors=True), k, lambda_mult
        )

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return with_relevance(self._nearest(query=query, k=k, **kwargs))

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return with_relevance(await self._anearest(query=query, k=k, **kwargs))


def _adding(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `SiftStore.add`, which makes batches by itself; LangChain's indexing says how large."""
    return {name: value for name, value in kwargs.items() if name != "batch_size"}


def _nearest_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    question = {name: options[name] for name in ("query", "vector") if name in options}
    rest = {name: value for name, value in options.items() if name not in question}
    return {**question, "method": "knn", **search_arguments(search_options(rest))}
