"""An interrupt that nothing can shut out, such as one on the way into `__exit__`: the model comes back later."""

import contextlib
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import Any

import pytest
from sift_store_transformers import Adaptation, TestTimeTuner
from sift_store_transformers.adaptation import Method
from tiny_models import TEXTS, byte_tokenizer, described, llama

from sift_store import AdaptationError

RESTORING = ("restore", "restore_state", "_set_back")


class Stopper:
    """Raises before the n-th call or line of ours: the exception rises where an interrupt would."""

    def __init__(self, place: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.place, self.error, self.places = place, error, list[str]()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if "sift_store_transformers" not in frame.f_code.co_filename:
            return None
        if event in ("call", "line"):
            self.places.append(frame.f_code.co_name)
            if len(self.places) == self.place + 1:
                raise self.error
        return self


@pytest.fixture(autouse=True)
def _trace() -> Iterator[None]:
    tracer = sys.gettrace()
    yield
    sys.settrace(tracer)


def tuner_for(model: Any, method: Method = "full") -> TestTimeTuner:
    return TestTimeTuner(model, byte_tokenizer(), method=method, learning_rate=1e-2)


def by_with(adaptation: Adaptation, stopper: Stopper) -> None:
    with adaptation:
        sys.settrace(stopper)


def by_hand(adaptation: Adaptation, stopper: Stopper) -> None:
    adaptation.__enter__()
    ways_out = [adaptation.__exit__]
    sys.settrace(stopper)
    ways_out.pop()(None, None, None)


def leave(way: Callable[[Adaptation, Stopper], None], adaptation: Adaptation, stopper: Stopper) -> BaseException | None:
    """What was raised, with its traceback, which holds the frames that it went through."""
    try:
        way(adaptation, stopper)
    except BaseException as error:
        return error
    finally:
        sys.settrace(None)
    return None


def places(tuner: TestTimeTuner) -> list[int]:
    """All outside of the copying, and some within."""
    stopper = Stopper(10**9)
    assert leave(by_with, tuner.adapt(TEXTS[:1]), stopper) is None
    assert stopper.places[0] == "__exit__"
    outside = [place for place, name in enumerate(stopper.places) if name not in RESTORING]
    return sorted({*outside, *range(0, len(stopper.places), len(stopper.places) // 6)})


def seen_by_the_next(tuner: TestTimeTuner, model: Any) -> dict[str, Any]:
    """The model as another adaptation meets it."""
    states: list[dict[str, Any]] = []

    def look(_: Any) -> float:
        states.append(described(model))
        return 1.0

    with tuner.adapt(TEXTS[:1], keep_if=look):
        pass
    return states[0]


@pytest.mark.parametrize(("method", "way"), [("full", by_with), ("lora", by_with), ("full", by_hand)])
def test_the_next_adaptation_puts_back_what_an_interrupt_left(method: Method, way: Any) -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model, method)
    left = 0
    for place in places(tuner):
        adaptation = tuner.adapt(TEXTS[:1])
        error = leave(way, adaptation, Stopper(place))
        assert isinstance(error, KeyboardInterrupt)  # it and the adaptation live on, as in an interactive session
        left += described(model) != before
        assert seen_by_the_next(tuner, model) == before
        assert described(model) == before
        adaptation.__exit__(None, None, None)
        assert described(model) == before
    assert left >= 2  # the entries of `__exit__` and of what it calls


def test_whatever_it_is_that_a_handler_of_signals_raises() -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model)
    errors = itertools.cycle([SystemExit, GeneratorExit, TimeoutError])
    for place, error in zip(places(tuner), errors, strict=False):
        raised = leave(by_with, tuner.adapt(TEXTS[:1]), Stopper(place, error))
        assert isinstance(raised, error)
        assert seen_by_the_next(tuner, model) == before


@pytest.mark.parametrize("way", [by_with, by_hand])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_adaptation_that_is_garbage_has_put_the_model_back(method: Method, way: Any) -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model, method)
    for place in range(3):
        adaptation = tuner.adapt(TEXTS[:1])
        error = leave(way, adaptation, Stopper(place))
        assert isinstance(error, KeyboardInterrupt)
        assert described(model) != before
        del adaptation, error
        gc.collect()
        assert described(model) == before


def test_one_that_was_entered_by_hand_and_thrown_away_too() -> None:
    model = llama()
    before = described(model)
    adaptation = tuner_for(model).adapt(TEXTS)
    adaptation.__enter__()
    assert described(model) != before
    del adaptation
    gc.collect()
    assert described(model) == before


def test_an_interrupt_on_the_way_in_leaves_nothing_to_the_next_either() -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model, "lora")

    def enter(adaptation: Adaptation, stopper: Stopper) -> None:
        sys.settrace(stopper)
        with adaptation:
            sys.settrace(None)

    stopper = Stopper(10**9)
    leave(enter, tuner.adapt(TEXTS[:1]), stopper)
    for place in range(0, len(stopper.places), len(stopper.places) // 15):
        adaptation = tuner.adapt(TEXTS[:1])
        assert isinstance(leave(enter, adaptation, Stopper(place)), KeyboardInterrupt)
        assert seen_by_the_next(tuner, model) == before
    assert described(model) == before


def test_a_thread_that_ended_inside_of_its_block_holds_the_model_no_longer() -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model)
    errors: list[BaseException | None] = []
    adaptation = tuner.adapt(TEXTS)
    thread = threading.Thread(target=lambda: errors.append(leave(by_with, adaptation, Stopper(0))))
    thread.start()
    thread.join()
    assert isinstance(errors[0], KeyboardInterrupt)
    assert seen_by_the_next(tuner, model) == before


# --- whose block lasts keeps the model --------------------------------------------------------------------------------


def block(adaptation: Adaptation) -> Generator[None, None, None]:
    with adaptation:
        yield


@pytest.mark.parametrize("way", ["generator", "stack", "hand"])
def test_a_block_that_lasts_keeps_its_model(way: str) -> None:
    model = llama()
    before, tuner = described(model), tuner_for(model)
    adaptation = tuner.adapt(TEXTS)
    assert adaptation.__exit__ is not None  # looked at by others, before and meanwhile
    generator, stack = block(adaptation), contextlib.ExitStack()
    {
        "generator": lambda: next(generator),
        "stack": lambda: stack.enter_context(adaptation),
        "hand": lambda: adaptation.__enter__(),
    }[way]()
    assert way == "hand" or adaptation.__exit__ is not None
    inside = described(model)
    gc.collect()
    with pytest.raises(AdaptationError, match="adapted already"):
        tuner.adapt(TEXTS).__enter__()
    assert described(model) == inside != before
    generator.close()
    stack.close()
    adaptation.__exit__(None, None, None)
    assert described(model) == before
