"""The commands that measure, as a user calls them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sift_store import embedding
from sift_store.testing import WordEmbedder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def words_for_minilm() -> Iterator[None]:
    original = embedding._by_name
    embedding._by_name = lambda name, identity=None: WordEmbedder(name=name)
    yield
    embedding._by_name = original


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_eval_measures_a_folder_draws_and_fills_a_document(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "set/corpus.jsonl", [{"id": f"p{i}", "text": f"fact {i} about {i % 5}"} for i in range(30)])
    write(
        tmp_path / "set/queries.jsonl", [{"id": f"q{i}", "text": f"what about {i % 5} and fact {i}"} for i in range(6)]
    )
    write(tmp_path / "set/qrels.jsonl", [{"query": f"q{i}", "doc": f"p{i}", "grade": 1} for i in range(6)])
    (tmp_path / "page.md").write_text("<!-- eval: minilm exact -->\n<!-- end -->\n")
    code, said, _ = run("eval", "set", "--scenario", "clean", "--scenario", "exact", "--update", "page.md", "--json")
    assert code == 0
    cells = json.loads(said)
    assert [cell["scenario"] for cell in cells] == ["clean", "exact"]
    assert cells[1]["methods"]["SIFT"]["duplicates@5"] == 0
    assert cells[1]["methods"]["nearest"]["duplicates@5"] > 0.5
    assert "| SIFT |" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "sift-eval/plots/minilm-exact.svg").is_file()
    code, said, _ = run("eval", "set")
    assert code == 0
    assert "recall@10" in said
    code, _, complaint = run("eval", "set", "--half", "some")
    assert (code, "choose, report or all" in complaint) == (2, True)
    code, _, complaint = run("eval", "set", "--scenario", "noise")
    assert (code, "scenario 'noise'" in complaint) == (2, True)


def test_calibrate_fits_says_how_well_and_writes(run: Run, tmp_path: Path) -> None:
    write(
        tmp_path / "docs/rows.jsonl", [{"id": f"p{i}", "text": f"the colour of item{i} is shade{i}"} for i in range(40)]
    )
    assert run("add", "x.sift", "docs")[0] == 0
    held = [{"text": f"colour of item{i} shade{i}", "answerable": True} for i in range(15)]
    lacking = [{"text": f"height of tower{i} metres", "answerable": False} for i in range(15)]
    write(tmp_path / "asked.jsonl", [*held, *lacking])
    code, said, _ = run("calibrate", "x.sift", "asked.jsonl", "--plot", "judgement.svg", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["auroc"]["score"] > 0.9
    assert json.loads((tmp_path / "calibration.json").read_text())["queries"] == 30
    assert (tmp_path / "judgement.svg").is_file()
    code, said, _ = run("calibrate", "x.sift", "asked.jsonl")
    assert (code, "AUROC" in said, "calibration error" in said) == (0, True, True)
    write(tmp_path / "few.jsonl", held[:5])
    code, _, complaint = run("calibrate", "x.sift", "few.jsonl")
    assert (code, "at least 10 of each wanted" in complaint) == (2, True)
