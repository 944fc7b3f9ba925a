"""Test-time fine-tuning on tiny models: the steps, the guard, the one adaptation at a time, the export."""

import copy
import itertools
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from sift_store_transformers import Step, TestTimeTuner
from tiny_models import CONTEXT, TEXTS, adapters, byte_tokenizer, described, gpt2, llama

from sift_store import AdaptationError, InvalidInputError, SiftStore
from sift_store.hooks import Picks, steps_worth_taking
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

RATE = 1e-2
PAIR = ("Where is the cat? ", "On the mat.")


def tuner_for(model: Any, **settings: Any) -> TestTimeTuner:
    return TestTimeTuner(model, byte_tokenizer(), learning_rate=RATE, **settings)


def run(tuner: TestTimeTuner, passages: Any = TEXTS, **options: Any) -> tuple[Step, ...]:
    with (adaptation := tuner.adapt(passages, **options)):
        pass
    return adaptation.steps


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def by_hand(model: Any, masked: int, ids: list[int]) -> torch.Tensor:
    """Cross entropy of each token that is no prompt's, from those before it."""
    first = max(masked, 1)
    logits = model(input_ids=torch.tensor([ids])).logits[0, first - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[first:]))


# --- the steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_one_step_of_adam_a_pick_in_the_order_picked_and_repeats_repeated(tied: bool) -> None:
    model = llama(tied=tied, dtype=torch.float64)
    passages = [(0, TEXTS[1]), (0, TEXTS[0]), (0, TEXTS[1]), (len(PAIR[0]), "".join(PAIR)), (0, TEXTS[1])]
    mine = copy.deepcopy(model)
    optimizer = torch.optim.Adam(mine.parameters(), lr=RATE, eps=1e-8)
    expected = []
    for masked, text in passages:
        ids = byte_tokenizer()(text)["input_ids"]
        loss = by_hand(mine, masked, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            after = by_hand(mine, masked, ids)
        expected.append((loss.item(), after.item(), len(ids)))
    tuner = tuner_for(model)
    calls: list[tuple[int, int]] = []
    adaptation = tuner.adapt(
        [TEXTS[1], TEXTS[0], TEXTS[1], PAIR, TEXTS[1]], progress=lambda done, of: calls.append((done, of))
    )
    with adaptation:
        for name, weight in weights(mine).items():
            torch.testing.assert_close(model.get_parameter(name).detach(), weight, rtol=0, atol=1e-7)
    told = [(step.loss, step.loss_after, step.tokens) for step in adaptation.steps]
    assert told == [pytest.approx(step, rel=1e-6) for step in expected]
    assert calls == [(done, 5) for done in range(1, 6)]
    assert all(step.cut == 0 for step in adaptation.steps)
    assert set(adaptation.seconds) == {"prepare", "tune", "guard", "restore"}
    assert "5 of 5 steps" in repr(adaptation)


def test_the_seconds_of_a_step_are_those_of_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from sift_store_transformers import adaptation

    ticks = itertools.count()
    monkeypatch.setattr(adaptation, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    tuner = tuner_for(llama())
    # Nothing between the two looks at the clock of a step looks at it; `progress` does, and is not part of it.
    steps = run(tuner, progress=lambda *_: next(ticks))
    assert [step.seconds for step in steps] == [1.0] * 3


def test_the_loss_of_a_step_is_that_before_it_and_the_loss_after_it_can_be_left_out() -> None:
    tuner = tuner_for(llama())
    steps = run(tuner)
    assert steps[0].loss == pytest.approx(tuner.loss(TEXTS[0]), rel=1e-6)
    assert all(step.loss_after is not None and step.loss_after < step.loss for step in steps)
    short = run(tuner_for(tuner.model, loss_after=False))
    assert [step.loss_after for step in short] == [None] * 3
    assert [step.loss for step in short] == [step.loss for step in steps]


def test_a_prompt_is_read_but_does_not_count() -> None:
    model = llama()
    (step,) = run(tuner_for(model), [PAIR])
    ids = byte_tokenizer()("".join(PAIR))["input_ids"]
    with torch.no_grad():
        assert step.loss == pytest.approx(by_hand(model, len(PAIR[0]), ids).item(), rel=1e-6)
    assert step.tokens == len(ids)
    (bare,) = run(tuner_for(model), [("", PAIR[1])])
    assert bare.loss == run(tuner_for(model), [PAIR[1]])[0].loss


def test_passages_are_cut_where_it_was_said_and_what_is_cut_is_told() -> None:
    model = llama()
    long = "so it goes, " * 20
    steps = run(tuner_for(model, max_tokens=10), [long, "short", ("two ", long)])
    assert [(step.tokens, step.cut) for step in steps] == [(10, 230), (5, 0), (10, 234)]
    assert steps[0].loss == run(tuner_for(model), [long[:10]])[0].loss
    with pytest.raises(InvalidInputError, match=rf"passage 2: {CONTEXT + 1} tokens given.*{CONTEXT}.*max_tokens="):
        tuner_for(model).adapt(["short", "x" * (CONTEXT + 1)])
    assert run(tuner_for(model), ["x" * CONTEXT])[0].tokens == CONTEXT


def test_what_is_trained_on_for_a_hit_can_be_said() -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(TEXTS, payloads=[{"title": f"{place}: "} for place in range(3)])
        hits = store.search("the cat", k=2)
    model = llama()
    steps = run(tuner_for(model, example=lambda hit: (hit.payload["title"], hit.text)), hits)
    assert steps == run_like(model, [(hit.payload["title"], hit.text) for hit in hits], steps)
    plain = run(tuner_for(model), hits)
    assert plain == run_like(model, [hit.text for hit in hits], plain)
    assert plain == run_like(model, Picks.of(hits), plain)


def run_like(model: Any, passages: Any, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps on these passages, with the times of the others."""
    made = run(tuner_for(model), passages)
    return tuple(
        Step(one.loss, one.loss_after, one.tokens, one.cut, other.seconds)
        for one, other in zip(made, steps, strict=True)
    )


def test_the_picks_of_an_answer_are_trained_on_in_their_order_whatever_that_of_the_answer() -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add([*JORDAN, "Michael Jordan is 61 years old and has five children."])
        hits = store.search(
            "How old is Michael Jordan and how many children has he?",
            k=6,
            objective="query",
            replace=True,
            order="score",
        )
    assert [hit.pick for hit in hits] != [1, 2, 3, 4, 5, 6]
    model = llama()
    steps = run(tuner_for(model), hits)
    assert steps == run_like(model, [hit.text for hit in sorted(hits, key=lambda hit: hit.pick)], steps)


def test_in_bfloat16_where_float32_is_not_needed_losses_are_nearly_the_same() -> None:
    model = llama()
    exact, near = run(tuner_for(model)), run(tuner_for(model, autocast=True))
    assert [step.loss for step in near] == pytest.approx([step.loss for step in exact], rel=0.02)
    assert [step.loss for step in near] != [step.loss for step in exact]
    with tuner_for(model, autocast=True).adapt(TEXTS):
        assert model.dtype == torch.float32


def test_checkpointing_changes_nothing_but_the_memory() -> None:
    model = llama()
    plain = run(tuner_for(model))
    assert run_like(model, TEXTS, plain) == plain
    thrifty = run(tuner_for(model, checkpointing=True))
    assert [step.loss for step in thrifty] == pytest.approx([step.loss for step in plain], rel=1e-6)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dropout_and_the_first_weights_of_a_lora_are_those_of_the_seed(method: str) -> None:
    model = gpt2()
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True) if method == "lora" else None

    def losses(seed: int) -> list[float]:
        return [step.loss for step in run(tuner_for(model, method=method, lora=lora, seed=seed))]

    first = losses(1)
    torch.rand(5)
    assert losses(1) == first
    assert losses(2) != first


def test_the_default_lora_learns_and_leaves_the_base_alone() -> None:
    model = llama()
    before = weights(model)
    tuner = TestTimeTuner(model, byte_tokenizer(), method="lora", learning_rate=RATE)
    loss = tuner.loss(TEXTS[0])
    with tuner.adapt([TEXTS[0]] * 4) as made:
        assert isinstance(made, PeftModel)
        assert tuner.loss(TEXTS[0]) < loss
        held = {name.replace(".base_layer", ""): weight for name, weight in weights(made.base_model.model).items()}
        assert all(torch.equal(held[name], weight) for name, weight in before.items())


def test_one_lora_configuration_serves_models_of_different_kinds() -> None:
    config = LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=True)
    before = config.to_dict()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to True")  # what GPT-2 needs, peft tells of the other
        for model in (gpt2(), llama()):
            run(tuner_for(model, method="lora", lora=config))
    assert config.to_dict() == before


# --- the guard and the number of steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_adaptation_that_lowers_the_loss_of_the_guards_text_is_kept(method: str) -> None:
    tuner = tuner_for(llama(), method=method)
    before = tuner.loss("the cat sat")
    adaptation = tuner.adapt(TEXTS, keep_if="the cat sat")
    assert (adaptation.kept, adaptation.guarded) == (None, None)
    with adaptation:
        assert adaptation.kept is True
        assert adaptation.guarded == pytest.approx((before, tuner.loss("the cat sat")), rel=1e-6)
        assert tuner.loss("the cat sat") < before
    with (unguarded := tuner.adapt(TEXTS)):
        assert unguarded.kept is None


@pytest.mark.parametrize("method", ["full", "lora"])
def test_one_that_does_not_is_rolled_back_at_once(method: str) -> None:
    model = gpt2() if method == "full" else llama()
    tuner = tuner_for(model, method=method)
    before = described(model)
    numbers = iter([1.0, 1.5])
    modes: list[bool] = []

    def guard(given: Any) -> float:
        modes.append(given.training or torch.is_grad_enabled())
        return next(numbers)

    adaptation = tuner.adapt(TEXTS, keep_if=guard)
    with adaptation as found:
        assert found is model
        assert described(model) == before
        assert (adaptation.kept, adaptation.guarded) == (False, (1.0, 1.5))
        assert len(adaptation.steps) == 3
    assert described(model) == before
    assert modes == [False, False]
    for first, second in [(1.0, 1.0), (1.0, float("nan"))]:
        numbers = iter([first, second])
        with (adaptation := tuner.adapt(TEXTS, keep_if=guard)):
            assert adaptation.kept is False
            assert described(model) == before


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0, 20.0])
def test_only_as_many_steps_are_taken_as_the_variance_says_they_are_worth(alpha: float) -> None:
    picks = search_picks()
    adaptation = tuner_for(llama()).adapt(picks, alpha=alpha)
    with adaptation:
        pass
    worth = steps_worth_taking(picks.variance, alpha)
    assert len(adaptation.steps) == worth
    assert [step.tokens for step in adaptation.steps] == [len(text) for text in picks.texts[:worth]]


def search_picks() -> Picks:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(TEXTS)
        hits = store.search("the cat on the mat", k=6, objective="query", replace=True, lambda_=0.5)
    return Picks.of(hits)


def test_without_a_variance_alpha_says_nothing() -> None:
    tuner = tuner_for(llama())
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(TEXTS)
        nearest = store.search("the cat", k=2, method="knn")
    for passages in (TEXTS, nearest):
        with pytest.raises(InvalidInputError, match="alpha: needs the variance"):
            tuner.adapt(passages, alpha=1.0)
    with pytest.raises(InvalidInputError, match="alpha: 0 given"):
        tuner.adapt(search_picks(), alpha=0)


# --- export -----------------------------------------------------------------------------------------------------------


def test_peft_loads_what_was_exported_and_it_predicts_the_same(tmp_path: Path) -> None:
    model = llama(tied=True)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    adaptation = tuner_for(model, method="lora").adapt(TEXTS)
    with adaptation as made, torch.no_grad():
        adaptation.export(tmp_path / "lora")
        expected = made(input_ids=ids).logits
    loaded = PeftModel.from_pretrained(llama(tied=True), tmp_path / "lora").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=0, atol=0)
        assert not torch.equal(model(input_ids=ids).logits, expected)
    with pytest.raises(AdaptationError, match="inside of the `with` block"):
        adaptation.export(tmp_path / "late")


def test_there_is_nothing_to_export_of_a_whole_model_or_of_what_was_rolled_back(tmp_path: Path) -> None:
    never = iter(range(100))
    cases: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (llama(), {"method": "full"}, {}),
        (llama(), {"method": "lora"}, {"keep_if": lambda _: next(never)}),
        (adapters(llama()), {"method": "lora"}, {"keep_if": lambda _: next(never)}),
    ]
    for model, settings, options in cases:
        adaptation = tuner_for(model, **settings).adapt(TEXTS, **options)
        with adaptation, pytest.raises(AdaptationError, match="export"):
            adaptation.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# --- what a tuner says of a model -------------------------------------------------------------------------------------


def test_losses_and_what_the_model_writes() -> None:
    model = gpt2().train()  # dropout has no say in it
    tuner = tuner_for(model)
    ids = byte_tokenizer()("the cat sat")["input_ids"]
    still = gpt2()
    with torch.no_grad():
        whole, last = by_hand(still, 0, ids).item(), by_hand(still, len(ids) - 1, ids).item()
        written = list(ids)
        for _ in range(5):
            written.append(int(still(input_ids=torch.tensor([written])).logits[0, -1].argmax()))
    assert tuner.loss("the cat sat") == pytest.approx(whole, rel=1e-5)
    assert tuner.loss("at", "the cat s") == pytest.approx(last, rel=1e-5)
    nats = whole * (len(ids) - 1)
    assert tuner.bits_per_byte("the cat sat") == pytest.approx(nats / 0.6931472 / 11, rel=1e-5)
    assert tuner.complete("the cat sat", 5) == byte_tokenizer().decode(written[len(ids) :], skip_special_tokens=True)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (lambda tuner: tuner.loss("x"), "1 tokens given, two or more wanted"),
        (lambda tuner: tuner.loss("x" * 100, "y" * 29), "29 \\+ 100 tokens given, at most 128"),
        (lambda tuner: tuner.bits_per_byte(""), "0 tokens given"),
        (lambda tuner: tuner.complete("x" * 65, 64), "65 tokens given, 1 to 64 wanted"),
        (lambda tuner: tuner.complete("", 4), "0 tokens given"),
    ],
)
def test_texts_that_cannot_be_scored_or_gone_on_from(asked: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        asked(tuner_for(llama()))
