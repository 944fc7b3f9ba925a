"""What one line costs: retrievers of LangChain and LlamaIndex over their own stores in memory, ours over the same.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 SIFT_STORE_DATA=… python benchmarks/frameworks.py

Real MiniLM embeddings of HotpotQA passages; the question's vector is at hand, as no retriever's choice changes it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from common import embeddings, in_turns, report, texts_of
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode
from sift_store_langchain import SIFTRetriever as LangChainRetriever
from sift_store_llama_index import SIFTPostprocessor
from sift_store_llama_index import SIFTRetriever as LlamaIndexRetriever

from sift_store import SiftStore

K, CANDIDATES = 5, 200


class Known(Embeddings):
    """Looks vectors up."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[text]


class KnownModel(BaseEmbedding):
    """The same for LlamaIndex."""

    _known: Known = PrivateAttr()

    def __init__(self, known: Known) -> None:
        super().__init__()
        self._known = known

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._known.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._known.embed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._known.embed_query(text)


def langchain(known: Known, texts: list[str]) -> dict[str, Callable[[str], Any]]:
    theirs = InMemoryVectorStore(known)
    theirs.add_texts(texts)
    mmr = theirs.as_retriever(search_type="mmr", search_kwargs={"k": K, "fetch_k": CANDIDATES})
    return {
        "LangChain, similarity": theirs.as_retriever(search_kwargs={"k": K}).invoke,
        f"LangChain, MMR of {CANDIDATES}": mmr.invoke,
        f"SIFTRetriever over it, of {CANDIDATES}": LangChainRetriever(store=theirs, k=K).invoke,
    }


def llama_index(known: Known, texts: list[str]) -> dict[str, Callable[[str], Any]]:
    nodes = [TextNode(text=text, id_=str(row), embedding=known.vectors[text]) for row, text in enumerate(texts)]
    index = VectorStoreIndex(nodes, embed_model=KnownModel(known))
    many = index.as_retriever(similarity_top_k=CANDIDATES)
    chooser = SIFTPostprocessor(source=index, top_n=K)
    return {
        "LlamaIndex, similarity": index.as_retriever(similarity_top_k=K).retrieve,
        "LlamaIndex, MMR of all": index.as_retriever(similarity_top_k=K, vector_store_query_mode="mmr").retrieve,
        f"SIFTRetriever over it, of {CANDIDATES}": LlamaIndexRetriever(index, K).retrieve,
        f"similarity {CANDIDATES}, then SIFTPostprocessor": lambda question: chooser.postprocess_nodes(
            many.retrieve(question), query_str=question
        ),
    }


def own(known: Known, texts: list[str]) -> dict[str, Callable[[str], Any]]:
    store = SiftStore.open("memory://", embedder=known)
    store.add(texts)
    return {
        "SiftStore.search, memory://": lambda question: store.search(question, k=K),
        "LangChain's SIFTRetriever over it": LangChainRetriever(store=store, k=K).invoke,
        "LlamaIndex's SIFTRetriever over it": LlamaIndexRetriever(store, K).retrieve,
    }


def asking(call: Callable[[str], Any], questions: list[str]) -> Callable[[], Any]:
    turn = itertools.cycle(questions)
    return lambda: call(next(turn))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    texts = list(dict.fromkeys(texts_of("hotpotqa_big", "corpus")))[: asked.passages]
    questions = texts_of("hotpotqa_big", "queries")[:100]
    vectors = embeddings([*texts, *questions], "passages and questions")
    known = Known({text: row.tolist() for text, row in zip([*texts, *questions], vectors, strict=True)})
    rows = []
    for framework, make in (("LangChain", langchain), ("LlamaIndex", llama_index), ("own store", own)):
        calls = {name: asking(call, questions) for name, call in make(known, texts).items()}
        times = in_turns(calls, asked.seconds)
        first = next(iter(times.values()))
        rows += [[framework, name, ms, f"{ms / first:.2f}×"] for name, ms in times.items()]
    title = f"{len(texts):,} passages, {K} wanted"
    report("frameworks", title, ["over", "retriever", "p50 ms", "of the first"], rows)


if __name__ == "__main__":
    main()
