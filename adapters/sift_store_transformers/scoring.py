"""How well a model predicts a text, and what it writes: always in evaluation mode, without gradients."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from sift_store.errors import InvalidInputError
from sift_store_transformers.encoding import Example, Reach, bare_ids, token_ids

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
        InvalidInputError: fewer than two tokens, ids that the model does not know, or together longer than the model's
            context.
    """
    before, ids = token_ids(tokenizer, context), bare_ids(tokenizer, text)
    reach = Reach.of(model)
    room = reach.context
    if len(ids) < 2:
        raise InvalidInputError(f"text {text[:40]!r}: {len(ids)} tokens given, two or more wanted")
    if room is not None and len(before) + len(ids) > room:
        raise InvalidInputError(
            f"text and context: {len(before)} + {len(ids)} tokens given, at most {room} wanted; give less of it"
        )
    reach.check("text and context", before + ids, len(before))
    whole = torch.tensor([before + ids], device=model.device)
    forward = inspect.signature(_inner(model).forward).parameters
    some = {"logits_to_keep": len(ids)} if "logits_to_keep" in forward else {}
    with evaluating(model):
        logits = model(input_ids=whole, use_cache=False, **some).logits[0, -len(ids) : -1].float()
        nats = torch.nn.functional.cross_entropy(logits, whole[0, 1 - len(ids) :], reduction="sum")
    return float(nats), len(ids) - 1


def completion(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> str:
    """What the model writes after a prompt, the likeliest token each time; the prompt itself is not repeated.

    Raises:
        InvalidInputError: no prompt, ids that the model does not know, or no room in its context.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InvalidInputError(f"max_new_tokens: {max_new_tokens!r} given, a whole number from 1 on wanted")
    before, reach = token_ids(tokenizer, prompt), Reach.of(model)
    most = math.inf if reach.context is None else reach.context - max_new_tokens
    if not 1 <= len(before) <= most:
        raise InvalidInputError(
            f"prompt: {len(before)} tokens given, 1 to {most} wanted: {max_new_tokens} more must fit"
        )
    reach.check("prompt", before, len(before))
    ids = torch.tensor([before], device=model.device)
    settings = _greedy(model, tokenizer, max_new_tokens)
    written_into = 2 if _inner(model) is not model else 0  # by peft: two layers below its own
    with evaluating(model):
        written = _with_settings(model, settings, written_into).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
    text: str = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def _greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """Settings of our own. Those of the model may ask for beams, samples, bans, other endings, or what needs more."""
    end = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    end = tokenizer.eos_token_id if end is None else end
    fills = (tokenizer.pad_token_id, tokenizer.eos_token_id, end[0] if isinstance(end, list) and end else end)
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end,
        pad_token_id=next((token for token in fills if token is not None), None),
    )


def _with_settings(model: Any, settings: GenerationConfig, layers: int = 0) -> Any:
    """The same model under other generation settings: transformers fills gaps in those given with the model's own.

    It shares everything but the dictionary of its attributes, so that no other thread meets the settings; so do as many
    layers below it.
    """
    view = object.__new__(type(model))
    vars(view).update(vars(model), generation_config=settings)
    if layers:
        parts = {name: part for name, part in model.named_children() if name in ("base_model", "model")}
        remade = {name: _with_settings(part, settings, layers - 1) for name, part in parts.items()}
        view._modules = {**model._modules, **remade}
    return view


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
