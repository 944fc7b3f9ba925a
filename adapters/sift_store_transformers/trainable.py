"""What of a model a gradient step can change; a model without that is refused, and not trained in vain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sift_store.errors import AdaptationError
from sift_store_transformers.lora import is_peft_model

__all__ = ["check_differentiable", "check_gradients", "trainable"]


def trainable(model: Any) -> list[Any]:
    """The parameters that ask for gradients; of a model frozen for inference, all of floating point.

    Raises:
        AdaptationError: there are none, or the model's weights are quantised: then what floats are left are those
            beside its layers. A peft model may stand on quantised weights, as long as it has something to train itself.
    """
    floating = [p for p in model.parameters() if p.is_floating_point()]
    asking = [p for p in floating if p.requires_grad]
    packed = [] if asking and is_peft_model(model) else _quantized_layers(model)
    if packed or not floating:
        raise _nothing_to_train(model, packed)
    return asking or floating


def check_differentiable(model: Any) -> None:
    """Refuse the quantised layers of torch.ao: gradients end in them, and those of what stands before would be wrong.

    Raises:
        AdaptationError: the model has some.
    """
    packed = [name for name, module in model.named_modules() if hasattr(module, "_packed_params")]
    if packed:
        raise _nothing_to_train(model, packed)


def check_gradients(trained: Sequence[Any]) -> None:
    """After a backward pass: whether it reached anything.

    Raises:
        AdaptationError: it did not, as through layers that cannot be differentiated.
    """
    if all(parameter.grad is None for parameter in trained):
        raise AdaptationError(
            f"step 1: none of the {len(trained)} tensors to train got a gradient, so nothing would be learnt; layers "
            "that can be differentiated wanted. Load the model without quantisation"
        )


def _nothing_to_train(model: Any, packed: list[str]) -> AdaptationError:
    what = f"{packed[0]!r} and {len(packed) - 1} more hold quantised weights" if packed else "all are of integers"
    return AdaptationError(
        f"model: {type(model).__name__} has no weights to train: {what}; float32 or bfloat16 wanted. Load it without "
        "quantisation; or adapt by method='lora', where peft can put adapters into such layers"
    )


def _quantized_layers(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if _is_quantized(module)]


def _is_quantized(module: Any) -> bool:
    """By what libraries have in common: weights in tensors of integers, or in none at all."""
    weights = list(module.parameters(recurse=False))
    if any(_is_packed(weight) for weight in weights):
        return True
    linear = hasattr(module, "in_features") and hasattr(module, "out_features")
    if not linear and not hasattr(module, "embedding_dim"):
        return False
    packed = any(not buffer.is_floating_point() for buffer in module.buffers(recurse=False))
    return (packed or hasattr(module, "_packed_params")) and not any(p.ndim >= 2 for p in module.parameters())


def _is_packed(weight: Any) -> bool:
    dtype = weight.dtype
    if dtype is torch.bool or weight.ndim < 2:  # a mask, a count
        return False
    unpacks_itself = type(weight).dequantize is not torch.Tensor.dequantize  # it may call itself float32
    return (
        (unpacks_itself and not weight.requires_grad)
        or dtype.itemsize < 2
        or not (dtype.is_floating_point or dtype.is_complex)
    )
