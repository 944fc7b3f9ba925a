"""Models that cannot be given these tokens, or hold nothing that a step could change: refused before anything runs."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sift_store_transformers import TestTimeTuner
from tiny_models import EOS, TEXTS, adapters, byte_tokenizer, described, gpt2, llama

from sift_store import AdaptationError, InvalidInputError

NEW = "<new>"  # the first token that the models do not know
UNKNOWN = r"token id 257 given, 0 to 256 wanted, as the model has 257 embeddings.*resize_token_embeddings"


def larger_tokenizer() -> Any:
    tokenizer = byte_tokenizer()
    assert tokenizer.add_tokens([NEW]) == 1
    return tokenizer


# --- tokens -----------------------------------------------------------------------------------------------------------

DOORS: dict[str, Callable[[TestTimeTuner], Any]] = {
    "passage 2": lambda tuner: tuner.adapt(["fine", f"a {NEW} one"]),
    "passage 1": lambda tuner: tuner.adapt([(f"a {NEW} prompt", "answered")]),
    "passage 3": lambda tuner: tuner.adapt(["fine", "too", ("a prompt", f"{NEW} answered")]),
    "keep_if": lambda tuner: tuner.adapt(TEXTS, keep_if=f"the {NEW}"),
    "text and context": lambda tuner: tuner.loss(f"the {NEW}"),
    "text and context, context": lambda tuner: tuner.loss("the cat", context=NEW),
    "text and context, bits": lambda tuner: tuner.bits_per_byte(f"the {NEW}"),
    "prompt": lambda tuner: tuner.complete(f"the {NEW}", 4),
}


@pytest.mark.parametrize("kind", [llama, gpt2, lambda: adapters(llama())], ids=["llama", "gpt2", "peft"])
@pytest.mark.parametrize("door", DOORS)
def test_a_token_that_the_model_does_not_know_is_named(door: str, kind: Any) -> None:
    model = kind()
    before = described(model)
    tuner = TestTimeTuner(model, larger_tokenizer())
    with pytest.raises(InvalidInputError, match=f"^{door.partition(',')[0]}: {UNKNOWN}"):
        DOORS[door](tuner)
    assert described(model) == before


def test_it_is_known_once_the_model_is_enlarged_and_does_not_matter_where_it_is_cut_off() -> None:
    model = llama()
    tuner = TestTimeTuner(model, larger_tokenizer(), max_tokens=4)
    with tuner.adapt([f"the {NEW}"]):
        pass
    model.resize_token_embeddings(len(tuner.tokenizer))
    for ask in DOORS.values():
        ask(TestTimeTuner(model, larger_tokenizer()))


def test_a_token_that_is_read_need_not_be_one_that_is_predicted() -> None:
    model = llama()
    model.model.embed_tokens = torch.nn.Embedding(EOS + 2, 32)
    tuner = TestTimeTuner(model, larger_tokenizer())
    with tuner.adapt([(NEW, "read")]):
        pass
    assert tuner.loss("read", context=NEW) > 0
    assert isinstance(tuner.complete(NEW, 2), str)
    with pytest.raises(InvalidInputError, match=r"passage 1: token id 257 given, 0 to 256 wanted.*257 outputs"):
        tuner.adapt([("read", NEW)])
    with pytest.raises(InvalidInputError, match=r"text and context: token id 257 given.*257 outputs"):
        tuner.loss(f"read {NEW}")


# --- weights ----------------------------------------------------------------------------------------------------------


class Unpacking(torch.Tensor):
    """As torchao's: calls itself float32, and can be asked for the weights that it stands for."""

    def dequantize(self) -> Any:
        return self.as_subclass(torch.Tensor)


class IntegerLinear(torch.nn.Linear):
    """As bitsandbytes': a linear layer with a parameter of integers, through which gradients pass."""

    def __init__(self, of: torch.nn.Linear) -> None:
        super().__init__(of.in_features, of.out_features, bias=False)
        self.scale = float(of.weight.detach().abs().max()) / 127
        whole = (of.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


class BufferLinear(torch.nn.Module):
    """As GPTQ's: integers in a buffer, nothing that is a parameter."""

    def __init__(self, of: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = of.in_features, of.out_features
        self.register_buffer("qweight", (of.weight.detach() * 100).round().to(torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.qweight.to(x.dtype) / 100)


def dynamic(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao moves to torchao
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def replaced(make: Callable[[torch.nn.Linear], torch.nn.Module]) -> Any:
    model = llama()
    for layer in model.model.layers:
        layer.mlp.up_proj, layer.mlp.down_proj = make(layer.mlp.up_proj), make(layer.mlp.down_proj)
    return model


def with_weight(convert: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    model = llama()
    mlp = model.model.layers[1].mlp
    mlp.up_proj.weight = torch.nn.Parameter(convert(mlp.up_proj.weight.detach()), requires_grad=False)
    return model


def integers() -> Any:
    model = llama()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter((weight.detach() * 10).to(torch.int32), requires_grad=False))
    return model


QUANTISED: dict[str, Callable[[], Any]] = {
    "dynamic": lambda: dynamic(llama()),
    "dynamic, tied": lambda: dynamic(llama(tied=True)),
    "integer parameters": lambda: replaced(IntegerLinear),
    "integer buffers": lambda: replaced(BufferLinear),
    "float8": lambda: with_weight(lambda weight: weight.to(torch.float8_e4m3fn)),
    "a tensor that unpacks itself": lambda: with_weight(lambda weight: weight.as_subclass(Unpacking)),
    "all of integers": integers,
    "frozen adapters over integers": lambda: adapters(replaced(IntegerLinear), trainable=False),
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_model_has_no_weights_to_train(kind: str) -> None:
    model = QUANTISED[kind]()
    weights = [(parameter, parameter.data_ptr(), parameter.requires_grad) for parameter in model.parameters()]
    adaptation = TestTimeTuner(model, byte_tokenizer()).adapt(TEXTS)
    for _ in range(2):  # and the model is free again
        with (
            pytest.raises(AdaptationError, match=r"no weights to train: '.*' and \d+ more hold quantised.*Load it"),
            TestTimeTuner(model, byte_tokenizer()).adapt(TEXTS),
        ):
            pass
    assert adaptation.steps == ()
    assert weights == [(parameter, parameter.data_ptr(), parameter.requires_grad) for parameter in model.parameters()]


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, target_modules=["embed_tokens"])], ids=["linear", "embeddings"])
def test_adapters_on_a_model_that_gradients_do_not_pass_are_refused(lora: Any) -> None:
    model = dynamic(llama())
    structure = [(name, id(module)) for name, module in model.named_modules()]
    with (
        pytest.raises(AdaptationError, match="no weights to train"),
        TestTimeTuner(model, byte_tokenizer(), method="lora", lora=lora).adapt(TEXTS),
    ):
        pass
    assert structure == [(name, id(module)) for name, module in model.named_modules()]


def test_adapters_that_no_gradient_reaches_are_told_at_the_first_step() -> None:
    model = llama()
    model.model.norm.register_forward_hook(lambda _, __, output: output.detach())
    before = described(model)
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    with (
        pytest.raises(AdaptationError, match="none of the 4 tensors to train got a gradient"),
        TestTimeTuner(model, byte_tokenizer(), method="lora", lora=lora).adapt(TEXTS),
    ):
        pass
    assert described(model) == before


@pytest.mark.parametrize("make", [IntegerLinear, BufferLinear])
def test_adapters_are_trained_on_a_quantised_model_that_lets_gradients_through(make: Any) -> None:
    model = replaced(make)
    before = described(model)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    tuner = TestTimeTuner(model, byte_tokenizer(), method="lora", learning_rate=1e-2, lora=lora)
    loss = tuner.loss(TEXTS[0])
    with tuner.adapt(TEXTS):
        assert tuner.loss(TEXTS[0]) < loss
    assert described(model) == before
    peft = get_peft_model(model, lora).eval()
    for method in ("full", "lora"):  # of a peft model that says what is to be trained, that is trained
        before = described(peft)
        with TestTimeTuner(peft, byte_tokenizer(), method=method, learning_rate=1e-2).adapt(TEXTS):
            changed = {name for name, p in peft.named_parameters() if id(p) in before_ids(before, described(peft))}
        assert changed
        assert all("lora_" in name for name in changed)
        assert described(peft) == before


def before_ids(before: dict[str, Any], after: dict[str, Any]) -> set[int]:
    """The parameters whose bits differ, by their identity."""
    return {told[0] for name, told in after["tensors"].items() if told[3:] != before["tensors"][name][3:]}


def test_a_count_or_a_mask_among_the_parameters_is_no_quantised_weight() -> None:
    model = llama()
    model.register_parameter("count", torch.nn.Parameter(torch.arange(4), requires_grad=False))
    model.register_parameter("mask", torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bool), requires_grad=False))
    before = described(model)
    with TestTimeTuner(model, byte_tokenizer()).adapt(TEXTS):
        assert described(model) != before
    assert described(model) == before


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lora", "match"),
    [
        (LoraConfig(target_modules=["nope"]), r"target_modules=\{'nope'\} given.*q_proj, k_proj.*lm_head"),
        (LoraConfig(target_modules=["act_fn"]), "target_modules=.*SiLUActivation.*q_proj"),
        (LoraConfig(target_modules="no.*where"), "target_modules='no.\\*where' given.*q_proj"),
        (LoraConfig(target_modules=["q_proj"], r=0), "positive integer.*q_proj"),
        (LoraConfig(target_modules=["q_proj"], layers_to_transform=[7]), "into LlamaForCausalLM"),
        (object(), "target_modules=None given.*A peft configuration for this model wanted"),
    ],
    ids=["no such", "not linear", "a pattern", "rank", "no such layer", "no configuration"],
)
def test_a_configuration_that_peft_refuses_is_told_with_the_names_that_there_are(lora: Any, match: str) -> None:
    model = llama()
    before = described(model)
    with (
        pytest.raises(AdaptationError, match=f"^lora: .*{match}") as told,
        TestTimeTuner(model, byte_tokenizer(), method="lora", lora=lora).adapt(TEXTS),
    ):
        pass
    assert isinstance(told.value.__cause__, Exception)
    assert described(model) == before
    with TestTimeTuner(model, byte_tokenizer(), method="lora").adapt(TEXTS):
        pass
