"""The packaged language model, adapted to a page by passages of it that a store picks."""

from collections import defaultdict
from pathlib import Path

import pytest
from sift_store_transformers import TestTimeTuner

from sift_store import SiftStore
from sift_store.jsonl import read_jsonl

CORPUS = Path(__file__).parents[2] / "examples" / "demo" / "corpus.jsonl"


@pytest.mark.slow
def test_it_predicts_a_page_better_after_a_few_passages_of_it_and_is_then_as_before(tmp_path: Path) -> None:
    pages = defaultdict(list)
    for _, row in read_jsonl(CORPUS):
        pages[row["title"]].append(row["text"])
    held_out, *rest = max(pages.values(), key=len)
    tuner = TestTimeTuner.load("smollm2", max_tokens=128, device="cpu")
    with SiftStore.open("memory://", embedder="minilm") as store:
        store.add(rest + [text for texts in list(pages.values())[:20] for text in texts if held_out not in texts])
        hits = store.search(held_out[:400], k=5, objective="query", replace=True, hook=tuner.adapt)
    before, bits = tuner.loss(held_out), tuner.bits_per_byte(held_out)
    with hits.outcome:
        assert tuner.loss(held_out) < before - 0.01
        assert tuner.bits_per_byte(held_out) < bits
    assert (tuner.loss(held_out), tuner.bits_per_byte(held_out)) == (before, bits)
    assert len(hits.outcome.steps) == 5
    assert tuner.complete("The capital of France is", 8).strip()
    tuner.model.save_pretrained(tmp_path)
    tuner.tokenizer.save_pretrained(tmp_path)
    assert TestTimeTuner.load(tmp_path, device="cpu").loss(held_out) == pytest.approx(before, rel=1e-5)
