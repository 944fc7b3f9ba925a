"""Hugging Face models for sift-store: sentence-transformers as embedders, one of them packaged ("minilm")."""

from sift_store_transformers.embedder import SentenceTransformerEmbedder, minilm

__all__ = ["SentenceTransformerEmbedder", "minilm"]
