"""`SIFTPostprocessor`: the choice among nodes that another retriever found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.settings import Settings

from sift_store import InvalidInputError, Record
from sift_store.embedding import Embedding
from sift_store.reranking import rerank
from sift_store.sharing import Sharing
from sift_store_llama_index.attaching import Reading, read
from sift_store_llama_index.nodes import text_of

__all__ = ["SIFTPostprocessor"]

_dispatcher = get_dispatcher(__name__)


class SIFTPostprocessor(Sharing, BaseNodePostprocessor):
    """Keep the nodes that together tell most, in the order picked.

    Retrieve many, keep few: ``index.as_retriever(similarity_top_k=50)`` with
    ``node_postprocessors=[SIFTPostprocessor(source=index, top_n=5)]``. Vectors are fetched by the nodes' ids from where
    they are stored; nothing but the question is embedded. If all nodes have scores, those of the retriever or reranker
    before, they say how relevant each is; else the cosine to the question does.

    Attributes:
        source: as for `SIFTRetriever`. top_n: nodes to keep.
        embed_model: for the question; default the index's, the store's own, or `Settings.embed_model`.
        options: other arguments of `sift_store.reranking.rerank`, such as `max_tokens`.

    Raises:
        ValidationError: pydantic's, a ValueError: what cannot be used as a source.
        InvalidInputError: no question was given, or the source has no vector of some nodes.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    source: Any = Field(exclude=True, repr=False, frozen=True)
    top_n: int = 5
    embed_model: BaseEmbedding | None = Field(default=None, exclude=True)
    options: dict[str, Any] = Field(default_factory=dict)
    _reading: Reading = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Find out how the vectors are reached; nothing is opened yet."""
        super().model_post_init(context)
        self._reading = read(self.source)

    @classmethod
    def class_name(cls) -> str:
        """Its name, for LlamaIndex."""
        return "SIFTPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        question, wanted = _asked(query_bundle), _without_vectors(nodes)
        store = self._reading.twins.sync()
        records = store.get(wanted, vectors=True) if wanted else []
        if question.embedding is None and (model := self._model(store.embedding)) is not None:
            question.embedding = model.get_agg_embedding_from_queries(question.embedding_strs)
        return self._kept(nodes, records, question, store.embedding)

    @_dispatcher.span  # the sync one is wrapped by the base class
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        question, wanted = _asked(query_bundle), _without_vectors(nodes)
        store = await self._reading.twins.here()
        records = await store.get(wanted, vectors=True) if wanted else []
        if question.embedding is None and (model := self._model(store.embedding)) is not None:
            question.embedding = await model.aget_agg_embedding_from_queries(question.embedding_strs)
        return await asyncio.to_thread(self._kept, nodes, records, question, store.embedding)

    def _model(self, embedding: Embedding | None) -> BaseEmbedding | None:
        """The model for the question; None where the store's own embedder is to embed it."""
        index = self._reading.index
        model = self.embed_model or (None if index is None else index._embed_model)
        return model if model is not None or embedding is not None else Settings.embed_model

    def _kept(
        self,
        nodes: Sequence[NodeWithScore],
        records: Sequence[Record | None],
        question: QueryBundle,
        embedding: Embedding | None,
    ) -> list[NodeWithScore]:
        first: dict[str, NodeWithScore] = {}
        for found in nodes:
            first.setdefault(found.node.node_id, found)
        candidates = _candidates(first, dict(zip(_without_vectors(nodes), records, strict=True)))
        scores = [found.score for found in first.values() if found.score is not None]
        relevance = scores if len(scores) == len(first) else None
        told: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.QUERY_STR: question.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        _dispatcher.event(
            ReRankStartEvent(query=question, nodes=list(nodes), top_n=self.top_n, model_name=self.class_name())
        )
        with self.callback_manager.event(CBEventType.RERANKING, payload=told) as event:
            vector: Any = question.embedding
            if vector is None and embedding is not None:
                vector = np.stack([embedding.query(text) for text in question.embedding_strs])
            hits = rerank(candidates, vector, self.top_n, relevance=relevance, **self.options)
            kept = [first[str(hit.id)] for hit in hits]
            event.on_end(payload={EventPayload.NODES: kept})
        _dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept


def _asked(bundle: QueryBundle | None) -> QueryBundle:
    if bundle is None:
        raise InvalidInputError("query_bundle: none given; a question wanted, as every query engine gives it")
    return bundle


def _without_vectors(nodes: Sequence[NodeWithScore]) -> list[str]:
    return list(dict.fromkeys(found.node.node_id for found in nodes if found.node.embedding is None))


def _candidates(first: Mapping[str, NodeWithScore], records: Mapping[str, Record | None]) -> list[Record]:
    """Each node with its vector; a store may spell its id in another way."""
    fetched = {id_: record.vector for id_, record in records.items() if record is not None}
    candidates = []
    for id_, found in first.items():
        vector = fetched.get(id_) if found.node.embedding is None else np.asarray(found.node.embedding, np.float32)
        candidates.append(Record(id_, text_of(found.node), {}, vector))
    without = [record.id for record in candidates if record.vector is None]
    if without:
        raise InvalidInputError(
            f"{len(without)} of {len(candidates)} nodes have no vector in the source, first {without[0]!r}; give as "
            "source= the index or vector store that they came from"
        )
    return candidates
