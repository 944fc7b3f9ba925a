"""Whatever happens in an adaptation, the model is afterwards as it was found, bit for bit."""

import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
from peft import LoraConfig
from sift_store_transformers import Adaptation, TestTimeTuner
from sift_store_transformers.adaptation import Method
from tiny_models import TEXTS, adapters, byte_tokenizer, described, gpt2, llama, randomness

from sift_store import AdaptationError

GPT2_LORA = LoraConfig(r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, lora_dropout=0.1)


def mixed_dtypes() -> Any:
    """A body in bfloat16, the head in float32, and beside them a float64 weight and a buffer of integers."""
    model = llama(dtype=torch.bfloat16)
    model.model.norm.float()
    model.lm_head.float()
    model.register_parameter("aside", torch.nn.Parameter(torch.rand(3, dtype=torch.float64)))
    model.register_buffer("count", torch.arange(4))
    return model


def counting(*, replacing: bool) -> Any:
    """A buffer that counts the forward passes in training mode: in place, or by a new tensor each time."""
    model = llama()
    model.model.register_buffer("passes", torch.zeros(2))

    def count(module: Any, _: Any) -> None:
        if module.training and replacing:
            module.passes = module.passes + 1
        elif module.training:
            module.passes += 1

    model.model.register_forward_pre_hook(count)
    return model


def partly_frozen() -> Any:
    model = llama(tied=True)
    for parameter in model.model.layers[0].parameters():
        parameter.requires_grad_(False)
    return model


def frozen() -> Any:
    return llama().requires_grad_(False)


def half_in_training() -> Any:
    model = gpt2()
    model.transformer.h[0].train()
    model.lm_head.train()
    return model


def with_gradients() -> Any:
    """Gradients of somebody else's training, which goes on afterwards; one weight has none."""
    model = llama(tied=True)
    ids = torch.tensor([[1, 2, 3, 4]])
    model(input_ids=ids, labels=ids).loss.backward()
    model.model.norm.weight.grad = None
    return model


def checkpoint(model: Any) -> Any:
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama, tied": lambda: llama(tied=True),
    "llama, bfloat16": lambda: llama(dtype=torch.bfloat16),
    "llama, tied, bfloat16": lambda: llama(tied=True, dtype=torch.bfloat16),
    "gpt2, tied, dropout": gpt2,
    "mixed dtypes": mixed_dtypes,
    "a buffer that counts": lambda: counting(replacing=False),
    "a buffer that is replaced": lambda: counting(replacing=True),
    "found in training mode": lambda: gpt2().train(),
    "half in training mode": half_in_training,
    "partly frozen": partly_frozen,
    "frozen": frozen,
    "with gradients": with_gradients,
    "already checkpointing": lambda: checkpoint(llama()),
    "peft": lambda: adapters(llama()),
    "peft, in training mode": lambda: adapters(llama(tied=True)).train(),
    "peft, frozen": lambda: adapters(llama(), trainable=False),
}


def tuner_for(model: Any, method: Method = "full", **settings: Any) -> TestTimeTuner:
    lora = GPT2_LORA if method == "lora" and "GPT2" in type(model).__name__ else None
    return TestTimeTuner(model, byte_tokenizer(), method=method, learning_rate=1e-2, lora=lora, **settings)


def modes(model: Any) -> dict[int, bool]:
    return {id(module): module.training for module in model.modules()}


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """Python's own handler: a background job of a script, or `nohup`, starts with the signal ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(autouse=True)
def _gradients_are_on_afterwards() -> Iterator[None]:
    yield
    on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)  # of the next test
    assert on


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("made", MODELS)
def test_a_model_is_as_it_was_found(made: str, method: Method, checkpointing: bool) -> None:
    model = MODELS[made]()
    before, chance, found = described(model), randomness(), modes(model)
    tuner = tuner_for(model, method, checkpointing=checkpointing)
    loss = tuner.loss(TEXTS[0])
    adaptation = tuner.adapt(TEXTS)
    with adaptation as adapted:
        assert tuner.loss(TEXTS[0]) < loss
        assert tuner_for(adapted).loss(TEXTS[0]) == tuner.loss(TEXTS[0])  # the one given in is the one given back
        assert found.items() <= modes(adapted).items()
        assert randomness() == chance
    assert described(model) == before
    assert randomness() == chance
    assert tuner.loss(TEXTS[0]) == loss
    assert hasattr(model, "peft_config") == made.startswith("peft")
    assert len(adaptation.steps) == 3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_inside_of_the_block_there_are_no_gradients_and_no_rest_of_the_training(method: Method) -> None:
    model = gpt2()
    with tuner_for(model, method, checkpointing=True).adapt(TEXTS) as adapted:
        assert all(parameter.grad is None for parameter in adapted.parameters())
        assert not any(module.training for module in adapted.modules())
        assert not any(getattr(module, "gradient_checkpointing", False) for module in adapted.modules())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_was_frozen_stays_as_it_was_inside_of_the_block_too(method: Method) -> None:
    model = partly_frozen()
    still = model.model.layers[0].mlp.up_proj.weight
    before = still.detach().clone()
    with tuner_for(model, method).adapt(TEXTS):
        assert torch.equal(still, before)
        assert not still.requires_grad


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
def test_of_a_peft_model_method_lora_trains_the_adapter_alone(trainable: bool) -> None:
    model = adapters(llama(), trainable=trainable)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with tuner_for(model, "lora").adapt(TEXTS) as adapted:
        assert adapted is model
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_many_adaptations_in_a_row_do_not_wear_a_model() -> None:
    model = gpt2()
    before = described(model)
    for round_ in range(6):
        with tuner_for(model, ("full", "lora")[round_ % 2], seed=round_).adapt(TEXTS):
            pass
    assert described(model) == before


# --- whatever happens -------------------------------------------------------------------------------------------------


def interrupt(*_: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def fail(*_: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize(("happens", "raised"), [(fail, OSError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("place", ["in the block", "in progress", "in keep_if", "in keep_if, afterwards"])
def test_an_exception_leaves_the_model_as_it_was(
    place: str, method: Method, happens: Callable[..., None], raised: type[BaseException]
) -> None:
    model = half_in_training()
    before, chance = described(model), randomness()
    tuner = tuner_for(model, method, checkpointing=True)
    calls: list[int] = []

    def guard(_: Any) -> float:
        calls.append(1)
        if len(calls) == (1 if place == "in keep_if" else 2):
            happens()
        return -len(calls)

    with (
        pytest.raises(raised),
        tuner.adapt(
            TEXTS,
            keep_if=guard if "keep_if" in place else None,
            progress=(lambda done, _: happens() if done == 2 else None) if place == "in progress" else None,
        ),
    ):
        happens()
    assert described(model) == before
    assert randomness() == chance
    with tuner.adapt(TEXTS):  # and the model is free again
        pass
    assert described(model) == before


class Stopper:
    """Interrupts the restoring before the n-th of its lines, for real: the exception rises where the line stands."""

    def __init__(self, line: int) -> None:
        self.line, self.lines = line, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_name not in ("restore", "restore_state", "_set_back"):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                raise KeyboardInterrupt
        return self


def lines_of_restoring(adaptation: Adaptation, line: int) -> int:
    adaptation.__enter__()
    stopper, traced = Stopper(line), sys.gettrace()
    sys.settrace(stopper)
    try:
        adaptation.__exit__(None, None, None)
    finally:
        sys.settrace(traced)
    return stopper.lines


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interrupt_while_restoring_waits_until_it_is_done(method: Method) -> None:
    model = with_gradients()
    before = described(model)
    tuner = tuner_for(model, method)
    last = lines_of_restoring(tuner.adapt(TEXTS[:1]), 10**9)
    assert last > 200
    for line in {*range(1, last, last // 12), *range(last - 20, last + 1)}:
        with pytest.raises(KeyboardInterrupt):
            lines_of_restoring(tuner.adapt(TEXTS[:1]), line)
        assert described(model) == before


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_cast_inside_of_the_block_gets_its_dtype_and_bits_back(dtype: torch.dtype, method: Method) -> None:
    model = with_gradients()
    before = described(model)
    with tuner_for(model, method).adapt(TEXTS) as adapted:
        adapted.to(dtype)
        assert model.lm_head.weight.dtype == dtype
    assert described(model) == before


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_done_to_structure_and_modes_inside_of_the_block_is_undone(method: Method) -> None:
    model = llama()
    before = described(model)
    with tuner_for(model, method).adapt(TEXTS):
        model.train()
        model.requires_grad_(False)
        checkpoint(model)
        model.register_forward_hook(lambda *_: None)
        model.model.layers[0].mlp.act_fn = torch.nn.ReLU()
        model.lm_head = torch.nn.Linear(32, 5)
        model.model.norm.weight = torch.nn.Parameter(torch.zeros(32))
    assert described(model) == before


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("made", ["llama", "peft"])
def test_what_is_done_to_the_settings_inside_of_the_block_is_undone(made: str, method: Method) -> None:
    model = MODELS[made]()
    model.config.stages = {"names": ["a", "b"], "inner": {"depth": [1, 2]}}
    before, stages = described(model), model.config.stages
    with tuner_for(model, method).adapt(TEXTS):
        model.config.use_cache = False
        model.config.added = 7
        model.config.rope_parameters["rope_theta"] = 1.0
        model.config.stages["names"].append("c")
        del model.config.stages["inner"]["depth"][0]
        model.generation_config.num_beams = 3
        model.generation_config.stop_strings = ["cat"]
        model.generation_config = None
        if made == "peft":
            model.peft_config["default"].r = 99
    assert described(model) == before
    assert model.config.stages is stages
    assert stages == {"names": ["a", "b"], "inner": {"depth": [1, 2]}}
    assert made == "llama" or model.peft_config["default"].r == 2


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # which peft tells of the head of GPT-2
@pytest.mark.parametrize(
    "settings",
    [{"inference_mode": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}],
    ids=str,
)
def test_a_model_is_as_it_was_whatever_the_configuration_trains_beside_adapters(settings: dict[str, Any]) -> None:
    model = gpt2()
    before = described(model)
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, **settings)
    tuner = TestTimeTuner(model, byte_tokenizer(), method="lora", learning_rate=1e-2, lora=lora)
    loss = tuner.loss(TEXTS[0])
    with tuner.adapt(TEXTS, keep_if=TEXTS[0]):
        assert tuner.loss(TEXTS[0]) < loss
    assert described(model) == before
    worse = iter([1.0, 2.0])
    with tuner.adapt(TEXTS, keep_if=lambda _: next(worse)):
        assert described(model) == before
    assert described(model) == before


MERGES: dict[str, Callable[[Any], Any]] = {
    "merge_adapter": lambda adapted: adapted.merge_adapter(),
    "merge_and_unload": lambda adapted: adapted.merge_and_unload(),
    "merged and unmerged": lambda adapted: (adapted.merge_adapter(), adapted.unmerge_adapter()),
}


@pytest.mark.parametrize("made", ["llama", "peft"])
@pytest.mark.parametrize("merge", MERGES)
def test_a_lora_merged_into_the_weights_inside_of_the_block_is_never_silently_kept(merge: str, made: str) -> None:
    model = MODELS[made]()
    before = described(model)
    with pytest.raises(AdaptationError, match="merg"), tuner_for(model, "lora").adapt(TEXTS) as adapted:
        MERGES[merge](adapted)
    assert described(model) == before
