"""A model as it was found: weights, buffers, structure, modes, gradients; and its return to that, bit for bit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from sift_store.errors import AdaptationError

__all__ = ["Snapshot", "release", "reserve"]

_lock = threading.Lock()
_reserved = WeakIdKeyDictionary()  # parameter under adaptation -> who has it


def reserve(model: Any, owner: object) -> None:
    """Take a model's weights for one adaptation; to be given back with `release`.

    Raises:
        AdaptationError: another adaptation has some of them, perhaps through another model object or tuner.
    """
    wanted = list(model.parameters())
    with _lock:
        if any(parameter in _reserved for parameter in wanted):
            raise AdaptationError(
                "this model is adapted already; one adaptation at a time wanted: leave the other `with` block first, "
                "or load the model a second time"
            )
        _reserved.update({parameter: id(owner) for parameter in wanted})


def release(model: Any, owner: object) -> None:
    """Give back what `reserve` took for this owner."""
    with _lock:
        for parameter in model.parameters():
            if _reserved.get(parameter) == id(owner):
                del _reserved[parameter]


class Snapshot:
    """Everything that a model's modules hold. Costs a copy of the weights that are about to change, and of the buffers.

    Args:
        model: a torch module. changing: its parameters that will be trained; the others are kept by reference.
    """

    def __init__(self, model: Any, changing: list[Any]) -> None:
        self._modules = [(vars(module), _holdings(module)) for module in model.modules()]
        self._parameters = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
        self._grads = [(grad, grad.data) for *_, grad in self._parameters if grad is not None]
        tensors = [p.data for p in changing] + [buffer.data for buffer in model.buffers()]
        self._tensors = [(tensor, tensor.clone()) for tensor in tensors]

    def restore_state(self) -> None:
        """Structure, modes, requires_grad and gradients as found; weights stay as they are now."""
        for held, (attributes, containers) in self._modules:
            for container, content in [(held, attributes), *containers]:
                _set_back(container, content)
        for grad, data in self._grads:  # casting a model casts these in place
            grad.data = data
        for parameter, data, requires_grad, grad in self._parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad

    def set_aside_gradients(self) -> None:
        """No gradients, while training makes its own."""
        for parameter, *_ in self._parameters:
            parameter.grad = None

    def restore(self) -> None:
        """Everything as found. May be done again after an interrupt."""
        for tensor, copy in self._tensors:
            tensor.copy_(copy)
        self.restore_state()
        torch.clear_autocast_cache()  # an autocast around all of this keeps casts of the adapted weights


def _set_back(held: Any, content: Any) -> None:
    """Never empty, not for a moment: other threads may be using the model."""
    if isinstance(held, set):
        held &= content
        held |= content
        return
    for name in held.keys() - content.keys():
        del held[name]
    held.update(content)
    if list(held) != list(content):
        for name in content:
            held[name] = held.pop(name)


def _holdings(module: Any) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
    attributes = dict(vars(module))
    containers = [(value, value.copy()) for value in attributes.values() if type(value) in (dict, OrderedDict, set)]
    return attributes, containers
