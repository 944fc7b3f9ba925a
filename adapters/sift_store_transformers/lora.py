"""Low-rank adapters, by peft."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sift_store.errors import AdaptationError
from sift_store.registry import needs_extra

__all__ = ["active_adapter", "add_lora", "default_lora", "is_peft_model", "refuse_merging"]


def default_lora() -> Any:
    """Rank 16 on every linear layer but the last, no dropout: peft's configuration."""
    with needs_extra("finetune"):
        from peft import LoraConfig
    return LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def add_lora(model: Any, config: Any) -> Any:
    """The model with fresh low-rank adapters in it, its own weights frozen; new modules in the mode of the model."""
    with needs_extra("finetune"):
        from peft import get_peft_model
    found = {id(module) for module in model.modules()}
    adapted = get_peft_model(model, deepcopy(config))  # peft writes names of this model into it
    for module in adapted.modules():
        if id(module) not in found:
            module.training = getattr(module, "base_layer", model).training
    return adapted


def active_adapter(model: Any) -> list[Any]:
    """The parameters of a peft model's active adapters; none where the kind of adapter has no layers of its own."""
    prefix, active = getattr(model.base_model, "prefix", None), set(model.active_adapters)
    return [p for name, p in model.named_parameters() if prefix and prefix in name and active & set(name.split("."))]


def is_peft_model(model: Any) -> bool:
    """Whether peft has put adapters into the model already."""
    return hasattr(model, "get_base_model") and hasattr(model, "peft_config")


def refuse_merging(model: Any) -> None:
    """Let no adapter be merged into the weights: those of the base are not copied, and the way back is not exact."""
    for module in model.modules():
        if hasattr(module, "merged_adapters"):
            module.merge = _refuse


def _refuse(*_: Any, **__: Any) -> None:
    raise AdaptationError(
        "merging the LoRA would change the base weights for good; export it and merge it into a copy of the model"
    )
