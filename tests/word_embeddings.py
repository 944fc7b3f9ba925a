"""The test embedder as LangChain wants one, and a question for the texts about Jordan with what answers it."""

from langchain_core.embeddings import Embeddings

from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

__all__ = ["ANSWER", "QUESTION", "Words"]

QUESTION = "What is the age of Michael Jordan and how many children has he?"
ANSWER = {JORDAN[0], JORDAN[2]}


class Words(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return WordEmbedder().embed_documents(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return WordEmbedder().embed_query(text).tolist()
