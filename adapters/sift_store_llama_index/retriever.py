"""`SIFTRetriever`: nodes that together tell most, for anything in LlamaIndex that takes a retriever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle
from llama_index.core.settings import Settings

from sift_store import AsyncSiftStore, Hits, InvalidInputError, SiftStore
from sift_store.sharing import Sharing
from sift_store.twins import search_arguments
from sift_store_llama_index.attaching import read
from sift_store_llama_index.filters import where_of
from sift_store_llama_index.nodes import kept_elsewhere, node_of, put_in, scored

__all__ = ["SIFTRetriever"]

_dispatcher = get_dispatcher(__name__)


class SIFTRetriever(Sharing, BaseRetriever):
    """Retrieve an informative, non-redundant subset instead of the nearest neighbours.

    ``index.as_retriever(similarity_top_k=5)`` becomes ``SIFTRetriever(index, similarity_top_k=5)``. The question is
    embedded by the index's model (or `embed_model`, or `Settings.embed_model`), a `SiftStore` with an embedder of its
    own embeds it itself; stored texts are never embedded again.

    Args:
        source: a `VectorStoreIndex`, a vector store of LlamaIndex's over Qdrant or PostgreSQL, a `SiftVectorStore`, a
            `SiftStore` or an `AsyncSiftStore`.
        similarity_top_k: nodes wanted.
        filters: `MetadataFilters`, or a mapping as `SiftStore.search` takes. doc_ids: documents whose nodes are wanted.
        with_scores: put score, gain, variance left, pick and rank into each node's metadata, too, under "sift", where
            models do not see them.
        callback_manager, object_map, objects, verbose: as for every retriever; by default the index's.
        options: other arguments of `SiftStore.search`, such as `candidates`, `max_tokens` or `order`.

    Raises:
        InvalidInputError: what cannot be used as a source; of `retrieve`, all that `SiftStore.search` raises.
    """

    def __init__(
        self,
        source: object,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        *,
        filters: Any = None,
        doc_ids: list[str] | None = None,
        with_scores: bool = False,
        embed_model: BaseEmbedding | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        twice = sorted(options.keys() & {"filter", "k", "where"})
        if twice:
            raise InvalidInputError(f"{twice[0]}: here filters= and similarity_top_k= say it")
        self._reading = read(source)
        index = self._reading.index
        self._embed_model = embed_model or (None if index is None else index._embed_model)
        self._where = where_of(filters, doc_ids)
        self._with_scores, self._options = with_scores, search_arguments(options)
        self.similarity_top_k = similarity_top_k
        super().__init__(
            callback_manager=callback_manager or (None if index is None else index._callback_manager),
            object_map=object_map or (None if index is None else index._object_map),
            objects=objects,
            verbose=verbose,
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        store = self._reading.twins.sync()
        if self._wants_vector(store, query_bundle):
            query_bundle.embedding = self._model().get_agg_embedding_from_queries(query_bundle.embedding_strs)
        hits = store.search(**self._arguments(query_bundle))
        nodes = [node_of(hit) for hit in hits]
        docstore, elsewhere = self._docstore(), kept_elsewhere(nodes, self._reading.stores_text)
        if docstore is not None and elsewhere:
            nodes = put_in(nodes, docstore.get_nodes(elsewhere, raise_error=False))
        return scored(nodes, hits, with_scores=self._with_scores)

    @_dispatcher.span  # the sync one is wrapped by the base class
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        store = await self._reading.twins.here()
        if self._wants_vector(store, query_bundle):
            query_bundle.embedding = await self._model().aget_agg_embedding_from_queries(query_bundle.embedding_strs)
        hits: Hits = await store.search(**self._arguments(query_bundle))
        nodes = [node_of(hit) for hit in hits]
        docstore, elsewhere = self._docstore(), kept_elsewhere(nodes, self._reading.stores_text)
        if docstore is not None and elsewhere:
            nodes = put_in(nodes, await docstore.aget_nodes(elsewhere, raise_error=False))
        return scored(nodes, hits, with_scores=self._with_scores)

    def _wants_vector(self, store: SiftStore | AsyncSiftStore, bundle: QueryBundle) -> bool:
        """Whether the question is to be embedded here: not if it comes with a vector, or the store embeds it."""
        embeds = store.embedding is not None and self._embed_model is None
        return bundle.embedding is None and not embeds

    def _model(self) -> BaseEmbedding:
        return self._embed_model or Settings.embed_model

    def _arguments(self, bundle: QueryBundle) -> Mapping[str, Any]:
        question: dict[str, Any] = {"vector": bundle.embedding}
        if bundle.embedding is None:
            custom = bundle.custom_embedding_strs
            question = {"query": bundle.query_str} if custom is None else {"queries": custom}
        return {**question, "k": self.similarity_top_k, "where": self._where, **self._options}

    def _docstore(self) -> Any:
        return None if self._reading.index is None else self._reading.index.docstore

    def close(self) -> None:
        """Close the connections that were opened for a vector store of LlamaIndex's; a `SiftStore` stays open."""
        self._reading.twins.close()
