"""A model as it was found: weights, buffers, structure, modes, gradients, settings; its return; and who has it."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import OrderedDict
from types import MethodType
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from sift_store.errors import AdaptationError
from sift_store_transformers.device import synchronize

__all__ = ["Claim", "Snapshot", "reserve"]

# Re-entrant, as both locks here: a finalizer may run in the thread that has one.
_lock = threading.RLock()
_claims = WeakIdKeyDictionary()  # parameter -> the last claim on it, which may be over


class Claim:
    """One adaptation's hold on a model, and what puts the model back.

    It outlives its adaptation. No code can shut out an interrupt on the way into `__exit__`; after such a one the next
    adaptation of the model puts it back, or the finalizer of the adaptation that was left, whichever comes first.

    Attributes:
        holds: whether the model is taken. ending: whether its way back has begun. snapshot: what to put back, None as
            long as nothing is changed. seconds: that putting it back took, once it is back.
    """

    def __init__(self, owner: object) -> None:
        self.holds = self.ending = False
        self.snapshot: Snapshot | None = None
        self.seconds = 0.0
        self._owner = weakref.ref(owner)
        self._exits: list[weakref.ref[MethodType]] = []
        self._returning = threading.RLock()
        weakref.finalize(owner, self.put_back).atexit = False

    def watch(self, way_out: MethodType) -> None:
        """Note a bound `__exit__`. A `with` statement takes one before it enters and keeps it until it is over."""
        self._exits = [*self._alive(), weakref.ref(way_out)]

    def begin(self) -> None:
        """Forget those that nobody waits to call: entering begins."""
        self._exits = self._alive()

    def recover(self) -> None:
        """Put back what an owner left that is gone, or whose block is over though `put_back` was not reached."""
        owner = self._owner()  # kept, so that its finalizer does not come in between
        dropped = bool(self._exits) and not self._alive()
        if owner is None or self.ending or (dropped and not _has_way_out(owner)):
            self.put_back()

    def put_back(self) -> None:
        """Everything as found, the model free. An interrupt waits until it is; done again, nothing happens."""
        self.ending = True
        interrupt: BaseException | None = None
        while self.holds:
            try:
                with self._returning:
                    started = time.perf_counter()
                    if self.snapshot is not None:
                        self.snapshot.restore()
                    self.seconds = time.perf_counter() - started
                    self.snapshot = None
                    self.holds = False
            except Exception:
                raise
            except BaseException as exc:
                interrupt = exc
        try:
            if interrupt is not None:
                raise interrupt
        finally:
            del interrupt  # the exception holds this frame

    def _alive(self) -> list[weakref.ref[MethodType]]:
        return [way_out for way_out in self._exits if way_out() is not None]


def _has_way_out(owner: object) -> bool:
    """Whether somebody will call its `__exit__`: an ExitStack binds it for itself. Looks through the whole heap."""
    way_out = type(owner).__exit__  # type: ignore[attr-defined]
    return any(type(other) is MethodType and other.__func__ is way_out for other in gc.get_referrers(owner))


def reserve(model: Any, claim: Claim) -> None:
    """Take a model's weights for one adaptation, until the claim puts them back.

    Raises:
        AdaptationError: another adaptation has some of them, perhaps through another model object or tuner.
    """
    for earlier in _on(model):
        earlier.recover()
    with _lock:
        if _on(model):
            raise AdaptationError(
                "this model is adapted already; one adaptation at a time wanted: leave the other `with` block first, "
                "or load the model a second time"
            )
        claim.ending, claim.holds = False, True
        _claims.update(dict.fromkeys(model.parameters(), claim))


def _on(model: Any) -> list[Claim]:
    claims = dict.fromkeys(_claims.get(parameter) for parameter in model.parameters())
    return [claim for claim in claims if claim is not None and claim.holds]


class Snapshot:
    """Everything that a model's modules hold, the values in their configurations included.

    It costs a copy of the weights that are about to change, and of the buffers.

    Args:
        model: a torch module. changing: its parameters that will be trained; the others are kept by reference.
    """

    def __init__(self, model: Any, changing: list[Any]) -> None:
        self._modules = [(vars(module), _holdings(module)) for module in model.modules()]
        self._parameters = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
        self._grads = [(grad, grad.data) for *_, grad in self._parameters if grad is not None]
        tensors = [p.data for p in changing] + [buffer.data for buffer in model.buffers()]
        self._tensors = [(tensor, tensor.clone()) for tensor in tensors]

    def keep(self, changing: list[Any]) -> None:
        """Copy more of the parameters, before they change."""
        self._tensors += [(parameter.data, parameter.data.clone()) for parameter in changing]

    def restore_state(self) -> None:
        """Structure, modes, requires_grad and gradients as found; weights stay as they are now."""
        for module, (attributes, containers) in self._modules:
            for container, content in [(module, attributes), *containers]:
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
        for device in {tensor.device for tensor, _ in self._tensors}:
            synchronize(device)


def _set_back(held: Any, content: Any) -> None:
    """Never empty, not for a moment: other threads may be using the model."""
    if isinstance(held, list):
        held[:] = content
        return
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
    return attributes, containers + _settings(attributes)


def _settings(attributes: dict[str, Any]) -> list[tuple[Any, Any]]:
    """The configurations among a module's attributes, alone or in a dictionary, and all that they hold."""
    mappings = [value for value in attributes.values() if type(value) in (dict, OrderedDict)]
    values = [*attributes.values(), *(value for mapping in mappings for value in mapping.values())]
    containers: dict[int, tuple[Any, Any]] = {}
    for value in values:
        if _is_configuration(value):
            _gather(value, containers)
    return list(containers.values())


def _gather(value: Any, containers: dict[int, tuple[Any, Any]]) -> None:
    container = vars(value) if _is_configuration(value) else value
    if type(container) not in (dict, OrderedDict, list, set) or id(container) in containers:
        return
    containers[id(container)] = container, container.copy()
    for inner in container.values() if isinstance(container, dict) else container:
        _gather(inner, containers)


def _is_configuration(value: Any) -> bool:
    """Of a model, a generation, a quantisation, an adapter: transformers and peft give all of them this method."""
    return hasattr(type(value), "to_dict") and hasattr(value, "__dict__")
