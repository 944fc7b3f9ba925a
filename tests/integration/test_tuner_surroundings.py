"""What is around a tuner: an autocast, tokenizers with special tokens, generation settings, peft, interrupts."""

from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
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


GENERATION: list[dict[str, Any]] = [
    {"num_beams": 3, "repetition_penalty": 1.7, "return_dict_in_generate": True},
    {"num_beams": 2, "num_return_sequences": 2, "early_stopping": True, "length_penalty": 3.0},
    {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.3, "num_return_sequences": 3},
    {"stop_strings": ["a", "e"]},
    {"forced_bos_token_id": 5},
    {"forced_eos_token_id": 7},
    {"max_time": 1e-9},
    {"max_length": 3},
    {"min_length": 50, "min_new_tokens": 40},
    {"output_scores": True, "output_logits": True, "output_attentions": True, "return_dict_in_generate": True},
    {"guidance_scale": 3.0},
    {"suppress_tokens": list(range(200))},
    {"begin_suppress_tokens": list(range(200))},
    {"bad_words_ids": [[token] for token in range(200)]},
    {"sequence_bias": [[[9], 100.0]]},
    {"no_repeat_ngram_size": 1, "encoder_repetition_penalty": 9.0},
    {"exponential_decay_length_penalty": (1, 9.0)},
    {"watermarking_config": {"greenlist_ratio": 0.1, "bias": 50.0}},
    {"prompt_lookup_num_tokens": 2},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"dola_layers": "low"},
    {"cache_implementation": "static"},
    {"cache_implementation": "nonsense"},
    {"token_healing": True},
    {"pad_token_id": 9999},
    {"a_setting_of_its_own": [1, 2]},
]


@pytest.mark.parametrize("settings", GENERATION, ids=lambda settings: next(iter(settings)))
@pytest.mark.parametrize("made", [llama, lambda: adapters(llama())], ids=["llama", "peft"])
def test_it_writes_the_likeliest_tokens_whatever_the_models_generation_settings(made: Any, settings: Any) -> None:
    model = made()
    tuner = TestTimeTuner(model, byte_tokenizer())
    plain = tuner.complete("the cat", 6)
    assert len(plain) > 1
    vars(model.generation_config).update(settings)
    before = described(model)
    assert tuner.complete("the cat", 6) == plain
    assert described(model) == before


@pytest.mark.parametrize("made", [llama, lambda: adapters(llama())], ids=["llama", "peft"])
def test_which_token_ends_a_text_the_model_says_or_its_tokenizer(made: Any) -> None:
    model = made()
    tuner = TestTimeTuner(model, byte_tokenizer())
    ids = byte_tokenizer()("the cat")["input_ids"]
    written: list[int] = []
    with torch.no_grad():
        while len(written) < 6:
            written.append(int(model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax()))
    for end in (written[2], [300, written[2]]):
        model.generation_config.eos_token_id = end
        expected = byte_tokenizer().decode(written[: written.index(written[2]) + 1])
        assert tuner.complete("the cat", 6) == expected
    model.generation_config.eos_token_id = None
    tuner.tokenizer.eos_token = byte_tokenizer().convert_ids_to_tokens(written[2])
    assert tuner.complete("the cat", 6) == expected


@pytest.mark.parametrize("method", ["full", "lora"])
def test_inside_of_the_block_it_writes_as_the_adapted_model(method: Any) -> None:
    model = llama()
    tuner = TestTimeTuner(model, byte_tokenizer(), method=method, learning_rate=1e-1, lora=None)
    plain = tuner.complete("the cat", 8)
    with tuner.adapt(TEXTS[:1] * 6) as adapted:
        inside = tuner.complete("the cat", 8)
        assert TestTimeTuner(adapted, byte_tokenizer()).complete("the cat", 8) == inside != plain
    assert tuner.complete("the cat", 8) == plain


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # which peft tells of transformers itself
def test_a_prompt_of_peft_is_read_before_the_text() -> None:
    torch.manual_seed(0)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = get_peft_model(llama(), config).eval()
    model.generation_config.num_beams = 3
    before = described(model)
    ids = byte_tokenizer()("the cat")["input_ids"]
    with torch.no_grad():
        first = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    assert TestTimeTuner(model, byte_tokenizer()).complete("the cat", 1) == byte_tokenizer().decode([first])
    assert described(model) == before


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
