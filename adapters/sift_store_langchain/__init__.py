"""LangChain: a retriever over what is stored already, and a vector store.

retriever = vectorstore.as_retriever(search_kwargs={"k": 5})      # before
retriever = SIFTRetriever(store=vectorstore, k=5)                 # after: the same collection, nothing embedded again
"""

from __future__ import annotations

from sift_store.registry import needs_extra

with needs_extra("langchain"):
    import langchain_core as _langchain_core  # noqa: F401  # first what a pip line mends

from sift_store_langchain.retriever import SIFTRetriever
from sift_store_langchain.vectorstore import SiftVectorStore

__all__ = ["SIFTRetriever", "SiftVectorStore"]
