"""One adaptation: a gradient step a passage in the order picked, the adapted model for a while, and back."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MethodType, TracebackType
from typing import Any, Literal, TypeAlias, TypeVar, cast

import torch

from sift_store.adapter import Progress
from sift_store.errors import AdaptationError, InvalidInputError
from sift_store_transformers.device import out_of_memory_told, own_randomness, synchronize
from sift_store_transformers.encoding import Example
from sift_store_transformers.lora import active_adapter, add_lora, fresh_weights, is_peft_model, refuse_merging
from sift_store_transformers.scoring import evaluating, example_loss, loss_of
from sift_store_transformers.snapshot import Claim, Snapshot, reserve
from sift_store_transformers.trainable import check_differentiable, check_gradients, trainable

__all__ = ["Adaptation", "Guard", "Method", "Recipe", "Step"]

Method = Literal["full", "lora"]
Guard: TypeAlias = Example | Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; `TestTimeTuner` describes the fields."""

    method: Method
    learning_rate: float
    autocast: bool
    checkpointing: bool
    loss_after: bool
    lora: Any
    seed: int


@dataclass(frozen=True, slots=True)
class Step:
    """One gradient step.

    Attributes:
        loss: of the passage before the step, in nats a token, by the step's own forward pass: where the model has
            dropout, with it. loss_after: after it, without dropout; None where it was not asked for.
        tokens: trained on. cut: cut off the passage's end. seconds: of the step, without `loss_after`.
    """

    loss: float
    loss_after: float | None
    tokens: int
    cut: int
    seconds: float


class _WayOut:
    """A method that tells the claim of its object each time it is bound."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self._function
        bound = MethodType(self._function, instance)
        instance._claim.watch(bound)
        return bound


_Function = TypeVar("_Function", bound=Callable[..., None])


def _watched(function: _Function) -> _Function:
    return cast(_Function, _WayOut(function))


class Adaptation(AbstractContextManager[Any]):
    """What `TestTimeTuner.adapt` gives: enter it to train and get the model, leave it to have the model as it was.

    It can be entered once. Inside the block the model is shared as ever: whoever uses it gets the adapted one. Entered
    by hand, it is to be kept: an adaptation that is garbage has put its model back.

    Attributes:
        steps: those done. kept: whether the adaptation holds inside the block; None before it and without a guard.
        guarded: loss of the guard's text before and after. seconds: "prepare" (copies of the weights), "tune" (the
            steps), "guard" and "restore".
    """

    def __init__(
        self, model: Any, examples: Sequence[Example], recipe: Recipe, guard: Guard | None, progress: Progress | None
    ) -> None:
        self.steps: tuple[Step, ...] = ()
        self.kept: bool | None = None
        self.guarded: tuple[float, float] | None = None
        self.seconds: dict[str, float] = {}
        self._model = model
        self._examples = examples
        self._recipe = recipe
        self._guard = guard
        self._progress = progress
        self._adapted: Any = None
        self._claim = Claim(self)
        self._used = False

    def __repr__(self) -> str:
        return f"<Adaptation: {len(self.steps)} of {len(self._examples)} steps, {self._recipe.method}>"

    def __enter__(self) -> Any:
        """Train; the model that results, in the modes it was found in."""
        if self._used:
            raise AdaptationError("this adaptation was entered before; adapt again for another")
        self._claim.begin()
        try:
            reserve(self._model, self._claim)
            self._used = True
            with out_of_memory_told(self._where):
                self._adapt()
        except BaseException:
            self._leave()
            raise
        return self._adapted

    @_watched
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def export(self, folder: str | os.PathLike[str]) -> None:
        """Write the trained LoRA in peft's own format, for a serving engine; inside the block only.

        Raises:
            AdaptationError: there is none: outside of the block, rolled back, or method "full".
        """
        trained = self._claim.holds and self.kept is not False and self._recipe.method == "lora"
        if not trained or not is_peft_model(self._adapted):
            raise AdaptationError(
                f"export: no trained adapter at hand (method {self._recipe.method!r}, kept {self.kept}); method='lora' "
                "wanted, inside of the `with` block, not rolled back"
            )
        self._adapted.save_pretrained(folder, save_embedding_layers=False)  # the vocabulary is as it was

    # --- the way there ------------------------------------------------------------------------------------------------

    def _adapt(self) -> None:
        model, recipe = self._model, self._recipe
        with self._timed("guard"):
            before = self._guard_loss(model)
        with own_randomness(model, recipe.seed), torch.inference_mode(False), torch.enable_grad():
            with self._timed("prepare"):
                adapted, trained, settled = self._chosen()
                settled.set_aside_gradients()
                _prepare(adapted, trained, recipe)
            with self._timed("tune"):
                self._train(adapted, trained)
        settled.restore_state()
        with self._timed("guard"):
            after = self._guard_loss(adapted)
        self._adapted = adapted
        refuse_merging(adapted)
        if before is not None and after is not None:
            self.guarded = (before, after)
            self.kept = after < before
            if not self.kept and self._claim.snapshot is not None:
                self._adapted = model
                self._claim.snapshot.restore()
                refuse_merging(model)

    def _chosen(self) -> tuple[Any, list[Any], Snapshot]:
        """The model to train, which of its weights, and how it is to be when they are trained."""
        model, recipe = self._model, self._recipe
        check_differentiable(model)
        if recipe.method == "lora" and not is_peft_model(model):
            own = list(model.parameters())
            self._claim.snapshot = whole = Snapshot(model, [])
            adapted = add_lora(model, recipe.lora)
            fresh = fresh_weights(adapted, own)
            known = {id(parameter) for parameter in own}
            whole.keep([p for p in fresh if id(p) in known])  # a configuration may train biases of the model itself
            return adapted, fresh, Snapshot(adapted, [])
        trained = (active_adapter(model) if recipe.method == "lora" else []) or trainable(model)
        self._claim.snapshot = whole = Snapshot(model, trained)
        return model, trained, whole

    def _train(self, model: Any, trained: Sequence[Any]) -> None:
        recipe = self._recipe
        device = model.device
        optimizer = torch.optim.Adam(
            trained, lr=recipe.learning_rate, eps=1e-8, fused=device.type in ("cpu", "cuda", "mps")
        )
        for place, example in enumerate(self._examples):
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.autocast):
                loss = loss_of(model, example)
            value = _finite(loss.item(), f"step {place + 1}")
            if loss.requires_grad:
                loss.backward()
            if place == 0:
                check_gradients(trained)
            optimizer.step()
            optimizer.zero_grad()
            torch.clear_autocast_cache()  # of an autocast around the block, which would keep casts of the old weights
            synchronize(device)
            seconds = time.perf_counter() - started
            del loss
            after = None
            if recipe.loss_after or place == len(self._examples) - 1:  # what the last step did shows nowhere else
                after = _finite(self._loss(model, example), f"after step {place + 1}")
            self.steps += (Step(value, after if recipe.loss_after else None, len(example.ids), example.cut, seconds),)
            if self._progress is not None:
                self._progress(place + 1, len(self._examples))

    def _loss(self, model: Any, example: Example) -> float:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self._recipe.autocast):
            return example_loss(model, example)

    def _guard_loss(self, model: Any) -> float | None:
        if self._guard is None:
            return None
        if isinstance(self._guard, Example):
            return self._loss(model, self._guard)
        with evaluating(model):
            return float(self._guard(model))

    # --- and back -----------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self._claim.put_back()
        self.seconds["restore"] = self._claim.seconds
        self._adapted = None

    def _where(self) -> str:
        place = min(len(self.steps), len(self._examples) - 1)
        return f"step {place + 1} of {len(self._examples)}, {len(self._examples[place].ids)} tokens"

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - started


def _finite(loss: float, where: str) -> float:
    if not math.isfinite(loss):
        raise AdaptationError(
            f"{where}: the loss is {loss}; a finite one wanted. The weights are as before; a smaller learning_rate= "
            "may mend it, or float32 weights"
        )
    return loss


def _prepare(model: Any, trained: Sequence[Any], recipe: Recipe) -> None:
    for parameter in trained:
        parameter.requires_grad_(True)
    if recipe.checkpointing:
        base = model.get_base_model() if is_peft_model(model) else model
        if not getattr(base, "supports_gradient_checkpointing", False):
            raise InvalidInputError(f"checkpointing: {type(base).__name__} does not support it; leave it out")
        # Its name until transformers 5.
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.train()
