"""How well a model predicts a text, and what it writes: always in evaluation mode, without gradients."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sift_store.errors import InvalidInputError
from sift_store_transformers.encoding import Example, bare_ids, context_length, token_ids

__all__ = ["completion", "evaluating", "example_loss", "loss_of", "text_nats"]


def loss_of(model: Any, example: Example) -> Any:
    """Mean loss in nats over the tokens that count, as a tensor that can be differentiated."""
    ids = torch.tensor([example.ids], device=model.device)
    labels = ids.clone()
    labels[0, : example.masked] = -100  # the mark of transformers for "does not count"
    return model(input_ids=ids, labels=labels, use_cache=False).loss


def example_loss(model: Any, example: Example) -> float:
    """The same as a number, in evaluation mode."""
    with evaluating(model):
        return float(loss_of(model, example))


def text_nats(model: Any, tokenizer: Any, text: str, context: str) -> tuple[float, int]:
    """Nats that the text costs after the context, its first token left out, and how many tokens that is.

    Raises:
        InvalidInputError: fewer than two tokens, or together longer than the model's context.
    """
    before, ids = token_ids(tokenizer, context), bare_ids(tokenizer, text)
    room = context_length(model)
    if len(ids) < 2:
        raise InvalidInputError(f"text {text[:40]!r}: {len(ids)} tokens given, two or more wanted")
    if room is not None and len(before) + len(ids) > room:
        raise InvalidInputError(
            f"text and context: {len(before)} + {len(ids)} tokens given, at most {room} wanted; give less of it"
        )
    whole = torch.tensor([before + ids], device=model.device)
    forward = inspect.signature(_inner(model).forward).parameters
    some = {"logits_to_keep": len(ids)} if "logits_to_keep" in forward else {}
    with evaluating(model):
        logits = model(input_ids=whole, use_cache=False, **some).logits[0, -len(ids) : -1].float()
        nats = torch.nn.functional.cross_entropy(logits, whole[0, 1 - len(ids) :], reduction="sum")
    return float(nats), len(ids) - 1


def completion(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> str:
    """What the model writes after a prompt, the likeliest token each time; the prompt itself is not repeated."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InvalidInputError(f"max_new_tokens: {max_new_tokens!r} given, a whole number from 1 on wanted")
    ids = torch.tensor([token_ids(tokenizer, prompt)], device=model.device)
    room = context_length(model) or math.inf
    if not 1 <= ids.shape[1] <= room - max_new_tokens:
        raise InvalidInputError(
            f"prompt: {ids.shape[1]} tokens given, 1 to {room - max_new_tokens} wanted: {max_new_tokens} more must fit"
        )
    with evaluating(model):
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            return_dict_in_generate=False,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    text: str = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    return text


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode and no gradients, each module's own mode given back afterwards."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
