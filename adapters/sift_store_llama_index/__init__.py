"""LlamaIndex: a retriever over an index that is there already, a node postprocessor, and a vector store.

retriever = index.as_retriever(similarity_top_k=5)     # before
retriever = SIFTRetriever(index, similarity_top_k=5)   # after: the same vectors, nothing embedded again
"""

from __future__ import annotations

from sift_store.registry import needs_extra

with needs_extra("llama-index"):
    import llama_index.core as _llama_index  # noqa: F401  # first what a pip line mends

from sift_store_llama_index.postprocessor import SIFTPostprocessor
from sift_store_llama_index.retriever import SIFTRetriever
from sift_store_llama_index.vector_store import SiftVectorStore

__all__ = ["SIFTPostprocessor", "SIFTRetriever", "SiftVectorStore"]
