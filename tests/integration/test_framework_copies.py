"""Copies of what stands on a store: frameworks copy retrievers, and what ours replace can be copied."""

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from sift_store_langchain import SIFTRetriever, SiftVectorStore
from sift_store_llama_index import SIFTPostprocessor
from sift_store_llama_index import SIFTRetriever as LlamaIndexSIFT
from sift_store_llama_index import SiftVectorStore as LlamaIndexStore
from word_embeddings import QUESTION, Words

from sift_store import AsyncSiftStore, CopyError, SiftStore, SiftStoreError
from sift_store.testing.fixtures import JORDAN

COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
Copy = Callable[[Any], Any]


@pytest.fixture
def store() -> Iterator[SiftStore]:
    with SiftStore.open("memory://", embedder=Words()) as opened:
        opened.add(list(JORDAN))
        yield opened


def nodes() -> list[TextNode]:
    return [
        TextNode(id_=str(number), text=text, embedding=Words().embed_query(text)) for number, text in enumerate(JORDAN)
    ]


def refused_to_pickle(thing: object, words: str) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(CopyError, match=words) as refused:
            pickle.dumps(thing, protocol)
        assert isinstance(refused.value, SiftStoreError)
        assert isinstance(refused.value, TypeError)


@COPIES
def test_an_open_store_says_what_to_do_instead(store: SiftStore, copied: Copy) -> None:
    for thing in (store, store.scoped({"tenant": "a"})):
        with pytest.raises(CopyError, match="SiftStore is an open store, which no copy and no pickle holds; share it"):
            copied(thing)
        refused_to_pickle(thing, "share it, or open the store again")
    assert store.count() == len(JORDAN)

    async def of_async() -> None:
        async with await AsyncSiftStore.open("memory://", embedder=Words()) as opened:
            with pytest.raises(CopyError, match="AsyncSiftStore is an open store"):
                copied(opened)

    asyncio.run(of_async())


@COPIES
def test_a_copy_of_langchains_retriever_has_the_same_store(store: SiftStore, copied: Copy) -> None:
    of_langchain = InMemoryVectorStore(Words())
    of_langchain.add_texts(list(JORDAN))
    for source in (store, SiftVectorStore(store), of_langchain):
        retriever = SIFTRetriever(store=source, k=2, search_kwargs={"candidates": 4}, tags=["one"])
        twin = copied(retriever)
        assert twin is not retriever
        assert twin.store is source
        assert twin == retriever
        assert twin.invoke(QUESTION) == retriever.invoke(QUESTION)
        assert asyncio.run(twin.ainvoke(QUESTION)) == retriever.invoke(QUESTION)
        twin.k = 3
        assert len(retriever.invoke(QUESTION)) == 2
        assert retriever.model_copy(update={"k": 1}).invoke(QUESTION) == retriever.invoke(QUESTION)[:1]
        refused_to_pickle(retriever, "copy.copy and copy.deepcopy give another over the same store")


def test_a_deep_copy_has_settings_of_its_own(store: SiftStore) -> None:
    retriever = SIFTRetriever(store=store, search_kwargs={"candidates": 4}, filter={"a": {"$in": [1]}}, tags=["one"])
    twin = copy.deepcopy(retriever)
    twin.search_kwargs["candidates"] = 5
    twin.filter["a"]["$in"].append(2)
    twin.tags.append("two")
    assert (retriever.search_kwargs, retriever.filter) == ({"candidates": 4}, {"a": {"$in": [1]}})
    assert retriever.tags == ["one"]
    both = copy.deepcopy([retriever, retriever])
    assert both[0] is both[1]


def test_langchains_own_retriever_over_our_store_can_be_copied(store: SiftStore) -> None:
    own = SiftVectorStore(store)
    retriever = own.as_retriever(search_type="sift", search_kwargs={"k": 2})
    for twin in (copy.copy(retriever), copy.deepcopy(retriever)):
        assert twin.invoke(QUESTION) == retriever.invoke(QUESTION)
    assert copy.copy(own).twins is own.twins
    refused_to_pickle(retriever, "copy.deepcopy one in memory")


@COPIES
def test_a_copy_of_llama_indexs_retriever_has_the_same_source(store: SiftStore, copied: Copy) -> None:
    index = VectorStoreIndex(nodes(), embed_model=MockEmbedding(3))
    for source in (store, index, LlamaIndexStore(store)):
        retriever: LlamaIndexRetriever = LlamaIndexSIFT(source, similarity_top_k=2, with_scores=True, candidates=4)
        twin = copied(retriever)
        question = QueryBundle(QUESTION, embedding=Words().embed_query(QUESTION))
        assert [found.node_id for found in twin.retrieve(question)] == [
            found.node_id for found in retriever.retrieve(question)
        ]
        twin.similarity_top_k = 3
        assert len(retriever.retrieve(question)) == 2
        refused_to_pickle(retriever, "SIFTRetriever is an open store, .* in another process make it anew")


@COPIES
def test_a_copy_of_the_postprocessor_has_the_same_source(copied: Copy) -> None:
    index = VectorStoreIndex(nodes(), embed_model=MockEmbedding(3))
    chosen = SIFTPostprocessor(source=index, top_n=2, options={"max_tokens": 100})
    twin = copied(chosen)
    question = QueryBundle(QUESTION, embedding=Words().embed_query(QUESTION))
    found = [NodeWithScore(node=node) for node in nodes()]
    assert [kept.node_id for kept in twin.postprocess_nodes(found, question)] == [
        kept.node_id for kept in chosen.postprocess_nodes(found, question)
    ]
    assert twin.source is index
    refused_to_pickle(chosen, "SIFTPostprocessor is an open store")


@COPIES
def test_a_copy_of_llama_indexs_vector_store_has_the_same_store(store: SiftStore, copied: Copy) -> None:
    own = LlamaIndexStore(store, "knn")
    twin = copied(own)
    assert (twin.method, twin.client) == ("knn", store)
    question = VectorStoreQuery(Words().embed_query(QUESTION), similarity_top_k=2)
    assert twin.query(question).ids == own.query(question).ids
    refused_to_pickle(own, "SiftVectorStore is an open store")
