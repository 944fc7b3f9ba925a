"""Long texts cut at their natural seams by semantic-text-splitter, measured in the embedder's own tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sift_store.errors import InvalidInputError
from sift_store.registry import needs_extra

__all__ = ["split"]


def split(
    text: str,
    kind: Literal["text", "markdown"],
    max_tokens: int,
    overlap: int,
    count: Callable[[str], int],
) -> list[tuple[int, str]]:
    """Cut a text into chunks of at most `max_tokens`.

    Args:
        text: to cut. kind: "markdown" cuts at headings first.
        max_tokens: >= 1. overlap: tokens that neighbours may share, < max_tokens. count: tokens of a piece of text.

    Returns:
        (offset in characters, chunk) in order; chunks are stripped of white space at their ends, none is empty.

    Raises:
        InvalidInputError: sizes out of range. MissingExtraError: the splitter is not installed.
    """
    if not 0 <= overlap < max_tokens:
        raise InvalidInputError(f"overlap {overlap}, chunk size {max_tokens}: 0 <= overlap < size wanted")
    with needs_extra("transformers"):
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    maker = MarkdownSplitter if kind == "markdown" else TextSplitter
    return maker.from_callback(count, max_tokens, overlap).chunk_indices(text)
