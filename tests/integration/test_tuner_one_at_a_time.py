"""A model has one adaptation at a time, whoever asks; afterwards it is free again."""

import gc
import threading
from typing import Any

import pytest
from sift_store_transformers import TestTimeTuner
from tiny_models import TEXTS, adapters, byte_tokenizer, llama

from sift_store import AdaptationError


def tuner_for(model: Any, **settings: Any) -> TestTimeTuner:
    return TestTimeTuner(model, byte_tokenizer(), **settings)


def run(tuner: TestTimeTuner) -> int:
    with (adaptation := tuner.adapt(TEXTS)):
        pass
    return len(adaptation.steps)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_has_one_adaptation_at_a_time(method: str) -> None:
    model = llama()
    tuner = tuner_for(model, method=method)
    others = [tuner, tuner_for(model), TestTimeTuner(model, byte_tokenizer(), method="lora")]
    with tuner.adapt(TEXTS):
        loss = tuner.loss(TEXTS[0])
        refused = [other.adapt(TEXTS) for other in others]
        for again in refused:
            with pytest.raises(AdaptationError, match="adapted already"):
                again.__enter__()
        told: list[BaseException] = []

        def enter() -> None:
            try:
                tuner_for(model).adapt(TEXTS).__enter__()
            except AdaptationError as error:
                told.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert len(told) == 1
        assert tuner.loss(TEXTS[0]) == loss
        other = llama(seed=1)
        with tuner_for(other).adapt(TEXTS):  # two models are two models
            pass
        with pytest.raises(AdaptationError, match="adapted already"):
            tuner.adapt(TEXTS).__enter__()
    for other_tuner in others:
        assert run(other_tuner) == 3


def test_a_peft_model_over_the_same_weights_is_the_same_model() -> None:
    model = llama()
    wrapped = adapters(model)
    with tuner_for(wrapped).adapt(TEXTS), pytest.raises(AdaptationError, match="adapted already"):
        tuner_for(wrapped.get_base_model()).adapt(TEXTS).__enter__()
    with tuner_for(wrapped.get_base_model()).adapt(TEXTS), pytest.raises(AdaptationError, match="adapted already"):
        tuner_for(wrapped).adapt(TEXTS).__enter__()


def test_an_adaptation_is_entered_once() -> None:
    tuner = tuner_for(llama())
    adaptation = tuner.adapt(TEXTS)
    with adaptation, pytest.raises(AdaptationError, match="entered before"):
        adaptation.__enter__()
    with pytest.raises(AdaptationError, match="entered before"):
        adaptation.__enter__()
    assert run(tuner) == 3


def test_a_model_thrown_away_inside_of_its_block_does_not_bar_those_that_come_after() -> None:
    for seed in range(12):  # new models take the places in memory of old ones
        assert tuner_for(llama(seed)).adapt(TEXTS[:1]).__enter__() is not None
        gc.collect()
