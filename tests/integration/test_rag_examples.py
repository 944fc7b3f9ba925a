"""The examples of whole RAG pipelines run, on packaged models, and show what one line changes in the prompt."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_one_line_brings_more_of_what_answers_into_the_prompt(framework: str) -> None:
    pytest.importorskip("langchain_core" if framework == "langchain" else "llama_index.core")
    done = subprocess.run(
        [sys.executable, f"{framework}_rag.py"], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Question: ") == 6
    answers = re.findall(r"answer (before|after) \(\d+ words of prompt\): (\S.*)", done.stdout)
    assert [name for name, _ in answers] == ["before", "after"] * 6
    total = re.search(r"(\d+) before, (\d+) after, of 12", done.stdout)
    assert total is not None
    assert int(total[1]) < int(total[2])


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_before_and_after_differ_in_one_line(framework: str) -> None:
    lines = (EXAMPLES / f"{framework}_rag.py").read_text(encoding="utf-8").splitlines()
    made = [place for place, line in enumerate(lines) if re.match(r"    (before|after) = ", line)]
    assert len(made) == 2
    assert made[1] == made[0] + 1
