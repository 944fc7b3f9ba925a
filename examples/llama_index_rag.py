"""Retrieval-augmented generation with LlamaIndex, before and after one line.

    python examples/llama_index_rag.py

The index is LlamaIndex's own and stays as it is; the line that makes the retriever changes.
"""

from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from packaged import MiniLM, SmolLM, passages, questions, show, total
from sift_store_llama_index import SIFTRetriever


class PackagedEmbedding(BaseEmbedding):
    """MiniLM as LlamaIndex's embedding model."""

    _model: MiniLM = PrivateAttr(default_factory=MiniLM)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._model.embed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._model.embed_documents([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed_documents(texts)


class PackagedLLM(CustomLLM):
    """SmolLM2 as LlamaIndex's language model."""

    _model: SmolLM = PrivateAttr(default_factory=SmolLM)
    _prompt: str = PrivateAttr(default="")

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=8192, num_output=32)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._prompt = prompt
        return CompletionResponse(text=self._model.answer(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        yield self.complete(prompt, formatted, **kwargs)


def main() -> None:
    nodes = [TextNode(text=one["text"], id_=one["id"], metadata={"title": one["title"]}) for one in passages()]
    index = VectorStoreIndex(nodes, embed_model=PackagedEmbedding(embed_batch_size=256))
    llm = PackagedLLM()

    before = index.as_retriever(similarity_top_k=4)
    after = SIFTRetriever(index, similarity_top_k=4)  # the one line

    found = []
    for question in questions():
        seen = [
            [(found.node.metadata["title"], found.node.get_content()) for found in retriever.retrieve(question["text"])]
            for retriever in (before, after)
        ]
        found.append(show(question, *seen))
        for name, retriever in (("before", before), ("after", after)):
            answer = RetrieverQueryEngine.from_args(retriever, llm=llm).query(question["text"])
            print(f"  answer {name} ({len(llm._prompt.split())} words of prompt): {answer}")
    total(found)


if __name__ == "__main__":
    main()
