"""`sift-store finetune`: a tiny language model adapted to a prompt on what a store holds about it."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_models import llama, save

from sift_store import SiftStore, embedding

Run = Callable[..., tuple[int, str, str]]

TEXTS = [
    "The age of Michael Jordan is 61 years.",
    "Michael Jordan was born in 1963.",
    "Michael Jordan has five children.",
    "Paris is the capital of France.",
]
PROMPT = "Michael Jordan is"
TINY = ("-k", "4", "--write", "5", "--model", "tiny")


@pytest.fixture(scope="module", autouse=True)
def _load_the_embedder_once() -> Iterator[None]:
    original = embedding._by_name
    embedding._by_name = functools.cache(original)
    yield
    embedding._by_name = original


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # its variable is read on import


@pytest.fixture
def tiny(run: Run, tmp_path: Path) -> Path:
    """A folder with a model, beside a store."""
    save(tmp_path / "tiny", llama())
    with SiftStore.open(tmp_path / "x.sift", embedder="minilm") as store:
        store.add(TEXTS, ids=range(len(TEXTS)))
    return tmp_path / "tiny"


def finetune(run: Run, *options: str) -> dict:
    code, said, complaint = run("finetune", "x.sift", PROMPT, *TINY, "--json", *options)
    assert code == 0, complaint
    return json.loads(said)


def test_it_tells_the_picks_the_losses_and_what_the_model_writes(run: Run, tiny: Path) -> None:
    told = finetune(run, "--lambda", "10")
    assert told["prompt"] == PROMPT
    with SiftStore.open("x.sift") as store:
        hits = store.search(PROMPT, k=4, objective="query", replace=True, lambda_=10.0)
    assert [pick["id"] for pick in told["picks"]] == [str(hit.id) for hit in hits]
    assert len({pick["text"] for pick in told["picks"]}) < 4  # the noise repeats the best match
    assert told["variance"] == pytest.approx(list(hits.variance))
    assert [step["tokens"] for step in told["steps"]] == [len(hit.text) for hit in hits]
    assert all(step["loss_after"] < step["loss"] and step["cut"] == 0 for step in told["steps"])
    assert (told["kept"], told["guarded"]) == (None, None)
    assert {"prepare", "tune", "restore"} <= set(told["seconds"])
    assert all(isinstance(told[name], str) for name in ("before", "after"))
    assert finetune(run, "--lambda", "10")["steps"][-1]["loss"] == told["steps"][-1]["loss"]


def test_it_shows_them(run: Run, tiny: Path) -> None:
    code, said, _ = run("finetune", "x.sift", PROMPT, *TINY, "--lambda", "10")
    assert code == 0
    assert "Michael Jordan" in said
    assert "again the pick of step 1" in said
    assert "4 steps on" in said
    assert "rolled back" not in said
    assert said.index("before ─") < said.index("after ─")


def test_a_guard_says_whether_the_change_is_kept(run: Run, tiny: Path) -> None:
    told = finetune(run, "--guard")
    first, last = told["guarded"]
    assert told["kept"] is (last < first)
    code, said, _ = run("finetune", "x.sift", PROMPT, *TINY, "--guard")
    assert code == 0
    assert f"loss of the prompt {first:.3f}, then {last:.3f}, {'kept' if told['kept'] else 'rolled back'}" in said


def test_the_greater_alpha_the_fewer_steps(run: Run, tiny: Path) -> None:
    assert len(finetune(run, "--alpha", "0.001")["steps"]) == 4
    told = finetune(run, "--alpha", "1000")
    assert (len(told["steps"]), len(told["picks"])) == (1, 4)
    assert run("finetune", "x.sift", PROMPT, *TINY, "--alpha", "1000")[1].count("1 steps on 1 passages") == 1


def test_passages_are_cut_where_it_was_said(run: Run, tiny: Path) -> None:
    told = finetune(run, "--max-tokens", "10")
    assert all(step["tokens"] == 10 and step["cut"] > 0 for step in told["steps"])


def test_a_lora_is_exported(run: Run, tiny: Path) -> None:
    finetune(run, "--method", "lora", "--export", "out/lora")
    with torch.no_grad():
        ids = torch.tensor([[1, 2, 3, 4]])
        loaded = PeftModel.from_pretrained(llama(), "out/lora").eval()
        assert not torch.equal(loaded(input_ids=ids).logits, llama()(input_ids=ids).logits)


def test_what_is_in_the_folder_stays_as_it_is(run: Run, tiny: Path) -> None:
    before = {path.name: path.read_bytes() for path in tiny.iterdir()}
    finetune(run)
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == before


def test_more_steps_than_passages_repeat_them(run: Run, tiny: Path) -> None:
    told = finetune(run, "-k", "9")
    assert len(told["steps"]) == len(told["picks"]) == len(told["variance"]) == 9


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--model", "no/such-model"), "model 'no/such-model'"),
        (("--model", "nowhere"), "model 'nowhere'"),
        (("--method", "half"), "method: 'half' given, one of full, lora wanted"),
        (("--max-tokens", "1"), "max_tokens: 1 given"),
        (("--alpha", "0"), "alpha: 0.0 given"),
        (("--lambda", "0"), "lambda: 0.0 given"),
        (("-k", "0"), "k"),
        (("--write", "1000"), "1000 more must fit"),
        (("--write", "0"), "0 given"),
        (("--export", "out"), "--export: method 'full' trains no adapter"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Run, tiny: Path, options: tuple[str, ...], complaint: str) -> None:
    code, said, told = run("finetune", "x.sift", PROMPT, *TINY, *options)
    assert (code, said) == (2, "")
    lines = told.splitlines()
    assert complaint in lines[-1]
    assert lines[-1].startswith("sift-store: ")
    assert not any("Traceback" in line for line in lines)


def test_a_store_that_is_not_there_or_empty_is_told(run: Run, tiny: Path) -> None:
    code, _, told = run("finetune", "y.sift", PROMPT, *TINY)
    assert code == 2
    assert "y.sift" in told
    with SiftStore.open("x.sift") as store:
        store.delete(range(len(TEXTS)))
        assert store.count() == 0
    code, _, told = run("finetune", "x.sift", PROMPT, *TINY)
    assert code == 2
    assert "passages: none given" in told
    assert "Traceback" not in told
