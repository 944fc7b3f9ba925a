"""Low-rank adapters, by peft."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from sift_store.errors import AdaptationError
from sift_store.registry import needs_extra
from sift_store_transformers.device import is_out_of_memory

__all__ = ["active_adapter", "add_lora", "default_lora", "fresh_weights", "is_peft_model", "refuse_merging"]


def default_lora() -> Any:
    """Rank 16 on every linear layer but the last, no dropout: peft's configuration."""
    with needs_extra("finetune"):
        from peft import LoraConfig
    return LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def add_lora(model: Any, config: Any) -> Any:
    """The model with fresh low-rank adapters in it, its own weights frozen; new modules in the mode of the model.

    Raises:
        AdaptationError: peft can make none of this configuration in this model.
    """
    with needs_extra("finetune"):
        from peft import get_peft_model
    found = {id(module) for module in model.modules()}
    try:
        adapted = get_peft_model(model, deepcopy(config))  # peft writes names of this model into it
    except Warning:  # made an error by the caller's own filter
        raise
    except Exception as exc:
        if is_out_of_memory(exc):
            raise
        names = _linear_names(model)
        mend = f"name some of its linear layers: {', '.join(names)}" if names else "it has no linear layers in floats"
        raise AdaptationError(
            f"lora: target_modules={getattr(config, 'target_modules', None)!r} given, but peft can put no such adapter "
            f"into {type(model).__name__}: {str(exc).rstrip('.')}. A peft configuration for this model wanted; {mend}"
        ) from exc
    for module in adapted.modules():
        if id(module) not in found:
            module.training = getattr(module, "base_layer", model).training
    return adapted


def active_adapter(model: Any) -> list[Any]:
    """The parameters of a peft model's active adapters; none where the kind of adapter has no layers of its own."""
    prefix, active = getattr(model.base_model, "prefix", None), set(model.active_adapters)
    return [p for name, p in model.named_parameters() if prefix and prefix in name and active & set(name.split("."))]


def fresh_weights(adapted: Any, own: list[Any]) -> list[Any]:
    """What to train of a model that `add_lora` made, whose own parameters were these.

    Raises:
        AdaptationError: nothing was added that can be trained.
    """
    known = {id(parameter) for parameter in own}
    floating = [p for p in adapted.parameters() if p.is_floating_point()]
    # An inference_mode=True in the configuration freezes what was just made: it is what is trained nevertheless.
    trained = [p for p in floating if p.requires_grad] or [p for p in floating if id(p) not in known]
    if not trained:
        raise AdaptationError(
            "lora: this configuration adds nothing to train; one whose target_modules= are linear layers wanted"
        )
    return trained


def is_peft_model(model: Any) -> bool:
    """Whether peft has put adapters into the model already."""
    return hasattr(model, "get_base_model") and hasattr(model, "peft_config")


def refuse_merging(model: Any) -> None:
    """Let no adapter be merged into the weights: those of the base are not copied, and the way back is not exact."""
    for module in model.modules():
        if hasattr(module, "merged_adapters"):
            module.merge = _refuse


def _linear_names(model: Any) -> list[str]:
    """The last parts of their names, each once, as `target_modules` takes them."""
    kinds = (torch.nn.Linear, Conv1D)
    linear = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linear))


def _refuse(*_: Any, **__: Any) -> None:
    raise AdaptationError(
        "merging the LoRA would change the base weights for good; export it and merge it into a copy of the model"
    )
