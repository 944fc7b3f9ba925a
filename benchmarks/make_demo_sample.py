"""Make the demo's corpus: a few hundred HotpotQA passages with the redundancy that real corpora have.

    SIFT_STORE_DATA=… python benchmarks/make_demo_sample.py

Writes examples/demo/corpus.jsonl and questions.jsonl. Seeded: the same data give the same files. Of each passage there
is a page of its own; longer ones also appear as overlapping windows, and a third of all as mirrored or edited copies,
as crawls and wikis have them.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from common import data_folder

from sift_store.jsonl import read_jsonl

SET = "hotpotqa_big"
QUESTIONS = 6
OTHERS = 150
TARGET = Path(__file__).parent.parent / "examples" / "demo"


def read(name: str) -> list[dict[str, Any]]:
    path = data_folder() / "retrieval" / SET / f"{name}.jsonl"
    return [row for _, row in read_jsonl(path)]


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?]) +", text) if part]


def windows(text: str) -> list[str]:
    """Halves that share their middle."""
    parts = sentences(text)
    if len(parts) < 4:
        return []
    third = len(parts) // 3
    return [" ".join(parts[: 2 * third + 1]), " ".join(parts[third:])]


def edited(text: str, rng: random.Random) -> str:
    """The passage as another page has it."""
    kind = rng.randrange(3)
    if kind == 0:
        month, year = rng.choice(["March", "July", "October"]), rng.randrange(2012, 2020)
        return f"{text} This page was last edited in {month} {year}."
    if kind == 1:
        return f"From the free encyclopedia mirror: {text}"
    return (
        text.replace(" is an ", " was an ").replace(" is a ", " was a ").replace(", and ", " and ").replace("; ", ". ")
    )


def main() -> None:
    rng = random.Random(7)
    corpus = {row["id"]: row for row in read("corpus")}
    gold: dict[str, list[str]] = {}
    for row in read("qrels"):
        gold.setdefault(row["query"], []).append(row["doc"])
    bridges = [row for row in read("queries") if row["type"] == "bridge" and len(row["text"]) < 110]
    asked = rng.sample(bridges, QUESTIONS)
    chosen = [doc for question in asked for doc in gold[question["id"]]]
    chosen += rng.sample(sorted(set(corpus) - set(chosen)), OTHERS)
    rows = []
    for doc in chosen:
        title, text = corpus[doc]["title"], corpus[doc]["text"]
        texts = [text, *windows(text)]
        if doc in chosen[: 2 * QUESTIONS] or rng.random() < 0.3:
            texts += [edited(text, rng) for _ in range(3)]
        for place, version in enumerate(dict.fromkeys(texts)):
            rows.append({"id": f"{doc}.{place}", "title": title, "text": version})
    rng.shuffle(rows)
    write(TARGET / "corpus.jsonl", rows)
    questions = [
        {"id": row["id"], "text": row["text"], "titles": [corpus[doc]["title"] for doc in gold[row["id"]]]}
        for row in asked
    ]
    write(TARGET / "questions.jsonl", questions)
    print(f"{len(rows)} passages, {len(asked)} questions")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
