"""What is told or kept of a device: when its work is done, its random numbers, and that its memory is out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sift_store.errors import AdaptationError

__all__ = ["is_out_of_memory", "out_of_memory_told", "own_randomness", "synchronize"]


def synchronize(device: Any) -> None:
    """Wait for what was queued, so that times are true and errors are met where they arise."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def own_randomness(model: Any, seed: int) -> Iterator[None]:
    """Dropout and the first weights of a LoRA by the seed; the process's own generators stay where they are."""
    devices = {parameter.device for parameter in model.parameters()}
    generators = [torch.default_generator]
    generators += [torch.cuda.default_generators[device.index] for device in devices if device.type == "cuda"]
    generators += [torch.mps] if any(device.type == "mps" for device in devices) else []
    states = [_state(generator) for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            _set_state(generator, state)


@contextmanager
def out_of_memory_told(where: Callable[[], str]) -> Iterator[None]:
    """Turn what is raised when memory is out into `AdaptationError`; where says how far it was."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        if not is_out_of_memory(exc):
            raise
        raise AdaptationError(
            f"out of memory at {where()}; the weights are as before. A smaller max_tokens=, checkpointing=True or "
            "method='lora' needs less"
        ) from exc


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what it says; on the CPU torch raises a bare RuntimeError."""
    told = str(error).lower()
    of_torch = isinstance(error, RuntimeError) and ("out of memory" in told or "allocate memory" in told)
    return of_torch or isinstance(error, MemoryError)


def _state(generator: Any) -> Any:
    return generator.get_rng_state() if generator is torch.mps else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    (generator.set_rng_state if generator is torch.mps else generator.set_state)(state)
