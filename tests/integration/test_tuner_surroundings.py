"""What is around a tuner: an autocast, tokenizers with special tokens, generation settings, peft, interrupts."""

from typing import Any

import pytest
import torch
from sift_store_transformers import TestTimeTuner, snapshot
from tiny_models import EOS, TEXTS, adapters, byte_tokenizer, described, llama
from tokenizers import processors

from sift_store import AdaptationError, InvalidInputError


def with_special_tokens(template: str) -> Any:
    """The tokenizer of bytes, putting "<eos>" where the template says: before a text as Llama does, or after it."""
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<eos>", EOS)]
    )
    return tokenizer


# --- autocast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast", [False, True])
def test_an_autocast_around_the_block_keeps_no_casts_of_old_weights(autocast: bool) -> None:
    model = llama()
    tuner = TestTimeTuner(model, byte_tokenizer(), learning_rate=1e-2, autocast=autocast)
    with (alone := tuner.adapt(TEXTS)):
        pass
    with torch.autocast("cpu", torch.bfloat16):
        before = tuner.loss(TEXTS[0])
        with (around := tuner.adapt(TEXTS)):
            assert tuner.loss(TEXTS[0]) < before - 0.1
        assert tuner.loss(TEXTS[0]) == before
    assert [step.loss for step in around.steps] == pytest.approx([step.loss for step in alone.steps], rel=0.02)


# --- special tokens ---------------------------------------------------------------------------------------------------


def test_what_a_tokenizer_puts_after_a_text_stands_in_no_middle() -> None:
    plain = TestTimeTuner(llama(), byte_tokenizer())
    ending = TestTimeTuner(llama(), with_special_tokens("$A <eos>"))
    assert ending.tokenizer("ab")["input_ids"] == [*plain.tokenizer("ab")["input_ids"], EOS]
    assert ending.loss("cat", context="the ") == plain.loss("cat", context="the ")
    assert ending.bits_per_byte("the cat") == plain.bits_per_byte("the cat")
    assert ending.complete("the cat", 4) == plain.complete("the cat", 4)
    for tuner in (ending, plain):
        with (adaptation := tuner.adapt([("the ", "cat")])):
            pass
        assert adaptation.steps[0].tokens == 7
    with (whole := ending.adapt(["the cat"])):
        pass
    assert whole.steps[0].tokens == 8  # at its end it is learnt


def test_the_same_tokens_are_scored_with_a_context_and_without() -> None:
    tuner = TestTimeTuner(llama(), with_special_tokens("<eos> $A"))
    ids = [EOS, *byte_tokenizer()("cat")["input_ids"]]
    with torch.no_grad():
        logits = tuner.model(input_ids=torch.tensor([ids])).logits[0, 1:-1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[2:])).item()
    assert tuner.loss("cat") == pytest.approx(expected, rel=1e-5)


def test_it_writes_the_likeliest_tokens_whatever_the_models_generation_settings() -> None:
    tuner = TestTimeTuner(llama(), byte_tokenizer())
    plain = tuner.complete("the cat", 6)
    settings = tuner.model.generation_config
    settings.num_beams, settings.repetition_penalty, settings.return_dict_in_generate = 3, 1.7, True
    assert tuner.complete("the cat", 6) == plain


# --- what must not outlive the block ----------------------------------------------------------------------------------


def test_a_peft_model_trained_whole_exports_no_adapter() -> None:
    tuner = TestTimeTuner(adapters(llama(), trainable=False), byte_tokenizer(), method="full")
    with (adaptation := tuner.adapt(TEXTS)), pytest.raises(AdaptationError, match="method 'full'"):
        adaptation.export("nowhere")


def test_an_adapter_is_not_merged_after_a_rollback_either() -> None:
    model = adapters(llama())
    before = described(model)
    worse = iter([1.0, 2.0])
    tuner = TestTimeTuner(model, byte_tokenizer(), method="lora")
    with tuner.adapt(TEXTS, keep_if=lambda _: next(worse)) as same, pytest.raises(AdaptationError, match="merging"):
        same.merge_adapter()
    assert described(model) == before


def test_an_interrupt_while_a_model_is_taken_leaves_it_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from sift_store_transformers import adaptation

    def interrupted(model: Any, owner: object) -> None:
        snapshot.reserve(model, owner)
        raise KeyboardInterrupt

    tuner = TestTimeTuner(llama(), byte_tokenizer())
    with monkeypatch.context() as patched:
        patched.setattr(adaptation, "reserve", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuner.adapt(TEXTS).__enter__()
    with tuner.adapt(TEXTS):
        refused = tuner.adapt(TEXTS)
        with pytest.raises(AdaptationError, match="adapted already"):
            refused.__enter__()
    with refused:  # one that was refused may be entered later
        pass


def test_a_model_with_offloaded_weights_is_refused() -> None:
    model = llama()
    model.model.layers[0].to("meta")
    with pytest.raises(InvalidInputError, match="offloaded"):
        TestTimeTuner(model, byte_tokenizer())


def test_some_of_the_hits_may_be_given() -> None:
    from sift_store import SiftStore
    from sift_store.testing import WordEmbedder

    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(TEXTS)
        hits = store.search(TEXTS[0], k=3)
    tuner = TestTimeTuner(llama(), byte_tokenizer())
    with (adaptation := tuner.adapt(hits[:2])):
        pass
    assert [step.tokens for step in adaptation.steps] == [len(hit.text) for hit in hits[:2]]
