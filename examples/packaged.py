"""What both examples stand on: the demo's passages and questions, and models that come in packages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sift_store_transformers import TestTimeTuner, minilm

from sift_store.jsonl import read_jsonl

DEMO = Path(__file__).parent / "demo"


def passages() -> list[dict[str, str]]:
    """471 passages of 162 pages: id, title, text. The pages have overlapping windows and edited copies."""
    return _lines("corpus.jsonl")


def questions() -> list[dict[str, Any]]:
    """Six questions: text, and the titles of the two pages that support each answer."""
    return _lines("questions.jsonl")


def _lines(name: str) -> list[Any]:
    return [row for _, row in read_jsonl(DEMO / name)]


class MiniLM:
    """all-MiniLM-L6-v2, with lists as both frameworks want them."""

    def __init__(self) -> None:
        self._model = minilm()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(number) for number in row] for row in self._model.embed_documents(texts)]

    def embed_query(self, text: str) -> list[float]:
        return [float(number) for number in self._model.embed_query(text)]


class SmolLM:
    """SmolLM2-135M-Instruct: small enough for a laptop, and not much of a reader."""

    def __init__(self) -> None:
        self._model = TestTimeTuner.load("smollm2")

    def answer(self, prompt: str) -> str:
        chat = [{"role": "user", "content": prompt}]
        said = self._model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self._model.complete(said, max_new_tokens=32).strip()


def show(
    question: dict[str, Any], before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]
) -> tuple[int, int]:
    """Print what the line changed in the prompt, given (title, text) of each passage in it.

    Returns:
        How many of the two supporting pages are in the prompt before and after.
    """
    print(f"\nQuestion: {question['text']}")
    wanted, found = set(question["titles"]), []
    for name, those, others in (("before", before, after), ("after", after, before)):
        found.append(len(wanted & {title for title, _ in those}))
        print(f"  {name}: {found[-1]} of {len(wanted)} supporting pages in the prompt")
        for title, text in those:
            mark = " " if (title, text) in others else ("-" if name == "before" else "+")
            print(f"  {mark} {title}: {text if len(text) < 90 else text[:89] + '…'}")
    return found[0], found[1]


def total(found: Sequence[tuple[int, int]]) -> None:
    """Print how many supporting pages were in the prompts of all questions."""
    before, after = (sum(counts) for counts in zip(*found, strict=True))
    print(f"\nSupporting pages in the prompts: {before} before, {after} after, of {2 * len(found)}.")
