"""Hugging Face: embedders by sentence-transformers, and language models fine-tuned at test time."""

from typing import TYPE_CHECKING, Any

from sift_store.registry import needs_extra
from sift_store_transformers.embedder import SentenceTransformerEmbedder, minilm

if TYPE_CHECKING:
    from sift_store_transformers.adaptation import Adaptation, Step
    from sift_store_transformers.tuner import TestTimeTuner

__all__ = ["Adaptation", "SentenceTransformerEmbedder", "Step", "TestTimeTuner", "minilm"]

_LATE = {"Adaptation": "adaptation", "Step": "adaptation", "TestTimeTuner": "tuner"}


def __getattr__(name: str) -> Any:
    """The tuner imports torch, which takes seconds: when it is first asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    with needs_extra("finetune"):
        return getattr(import_module(f"sift_store_transformers.{_LATE[name]}"), name)
