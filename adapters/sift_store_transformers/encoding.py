"""From passages to the token ids that a step trains on, which of them count in its loss, and which a model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import torch

from sift_store.errors import InvalidInputError

__all__ = ["Example", "Passage", "Reach", "bare_ids", "context_length", "encode", "token_ids"]

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


@dataclass(frozen=True, slots=True)
class Reach:
    """What a model can be given; None where it does not say.

    Attributes:
        context: tokens at once. embedded: how many token ids it reads, predicted: how many it predicts, from 0 on.
    """

    context: int | None
    embedded: int | None
    predicted: int | None

    @classmethod
    def of(cls, model: Any) -> Self:
        """That of a model as it is now."""
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        return cls(
            context_length(model), _rows(embeddings, "num_embeddings"), _rows(head, "num_embeddings", "out_features")
        )

    def check(self, name: str, ids: Sequence[int], read_only: int = 0) -> None:
        """Refuse ids that the model does not know: on a GPU they would end the whole process's use of it.

        Args:
            read_only: how many of the first are read and need not be predicted.

        Raises:
            InvalidInputError: there are some.
        """
        self._check(name, ids, self.embedded, "embeddings")
        self._check(name, ids[read_only:], self.predicted, "outputs")

    @staticmethod
    def _check(name: str, ids: Sequence[int], rows: int | None, what: str) -> None:
        unknown = [token for token in ids if rows is not None and not 0 <= token < rows]
        if rows is not None and unknown:
            raise InvalidInputError(
                f"{name}: token id {max(unknown)} given, 0 to {rows - 1} wanted, as the model has {rows} {what}; take "
                "the model's own tokenizer, or enlarge the model: model.resize_token_embeddings(len(tokenizer))"
            )


def encode(tokenizer: Any, passage: Passage, name: str, max_tokens: int | None, reach: Reach) -> Example:
    """Token ids of a passage, with the tokenizer's own special tokens and no others.

    Args:
        name: of the passage, for errors. max_tokens: where to cut, None: cut nothing. reach: the model's.

    Raises:
        InvalidInputError: no text, nothing to predict in it, ids that the model does not know, or too long and no
            `max_tokens` to cut it at.
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
    elif reach.context is not None and whole > reach.context:
        raise InvalidInputError(
            f"{name}: {whole} tokens given, at most the {reach.context} of the model's context wanted; cut it, or say "
            "where to cut with max_tokens="
        )
    if len(ids) < 2 or len(ids) <= masked:
        raise InvalidInputError(
            f"{name}: {whole} tokens, of which {min(masked, len(ids))} are a prompt and {whole - len(ids)} cut off; "
            "one token with another before it to predict it from wanted"
        )
    reach.check(name, ids, masked)
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


def _rows(layer: Any, *names: str) -> int | None:
    """How many tokens an embedding or a head is for: by its weights, unless they are packed."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.is_floating_point() and weight.ndim == 2:
        return int(weight.shape[0])
    return next((int(rows) for name in names if isinstance(rows := getattr(layer, name, None), int)), None)
