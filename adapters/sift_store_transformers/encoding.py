"""From passages to the token ids that a step trains on, and which of them count in its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sift_store.errors import InvalidInputError

__all__ = ["Example", "Passage", "bare_ids", "context_length", "encode", "token_ids"]

Passage: TypeAlias = str | tuple[str, str]
"""A text, or a (prompt, answer) of which the answer alone counts in the loss."""


@dataclass(frozen=True, slots=True)
class Example:
    """One passage as a model reads it.

    Attributes:
        ids: tokens. masked: how many of the first do not count in the loss. cut: how many were cut off the end.
    """

    ids: tuple[int, ...]
    masked: int
    cut: int


def encode(tokenizer: Any, passage: Passage, name: str, max_tokens: int | None, context: int | None) -> Example:
    """Token ids of a passage, with the tokenizer's own special tokens and no others.

    Args:
        name: of the passage, for errors. max_tokens: where to cut, None: cut nothing. context: what the model can
            read, None where it does not say.

    Raises:
        InvalidInputError: no text, nothing to predict in it, or too long and no `max_tokens` to cut it at.
    """
    if isinstance(passage, str):
        ids, masked = list(tokenizer(passage, verbose=False)["input_ids"]), 0
    elif isinstance(passage, tuple) and len(passage) == 2 and all(isinstance(part, str) for part in passage):
        prompt = token_ids(tokenizer, passage[0])
        ids = prompt + bare_ids(tokenizer, passage[1])
        masked = len(prompt)
    else:
        raise InvalidInputError(f"{name}: {type(passage).__name__} given, a text or a pair (prompt, answer) wanted")
    whole = len(ids)
    if max_tokens is not None:
        ids = ids[:max_tokens]
    elif context is not None and whole > context:
        raise InvalidInputError(
            f"{name}: {whole} tokens given, at most the {context} of the model's context wanted; cut it, or say where "
            "to cut with max_tokens="
        )
    if len(ids) < 2 or len(ids) <= masked:
        raise InvalidInputError(
            f"{name}: {whole} tokens, of which {min(masked, len(ids))} are a prompt and {whole - len(ids)} cut off; "
            "one token with another before it to predict it from wanted"
        )
    return Example(tuple(ids), masked, whole - len(ids))


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that something may follow: with what the tokenizer puts before it, nothing after it."""
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    alone = tokenizer("a", verbose=False)["input_ids"]
    ended = len(alone) > 1 and alone[-1] == tokenizer.eos_token_id
    return ids[:-1] if ended else ids


def bare_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text alone, without special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def context_length(model: Any) -> int | None:
    """How many tokens the model can read; None where its configuration does not say."""
    config = model.config.get_text_config()
    names: Sequence[str] = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return next((int(value) for name in names if (value := getattr(config, name, None))), None)
