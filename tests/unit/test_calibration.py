"""Whether the corpus holds an answer: the map, its fit, and how it is judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sift_store import InvalidInputError, NotFoundError, SiftStore
from sift_store.calibration import SIGNS, Calibration, signals
from sift_store.evaluation.calibrating import draw_judgement, fit, judge
from sift_store.testing import WordEmbedder


def labelled(seed: int, size: int, strength: float) -> tuple[list[dict[str, float]], list[bool]]:
    """Signals whose margin tells, with that strength, and whose variance says nothing."""
    rng = np.random.default_rng(seed)
    answerable = rng.random(size) < 0.5
    margin = strength * answerable + rng.normal(size=size)
    rows = zip(rng.normal(size=size), margin, rng.normal(size=size), strict=True)
    return [dict(zip(SIGNS, row, strict=True)) for row in rows], answerable.tolist()


def test_the_fit_finds_what_tells_and_its_probabilities_are_honest() -> None:
    seen, answerable = labelled(0, 2000, 2.0)
    found = judge(seen, answerable)
    assert found.auroc["margin"] == pytest.approx(0.92, abs=0.02)  # Φ(2/√2)
    assert found.auroc["map"] == pytest.approx(found.auroc["margin"], abs=0.01)
    assert found.auroc["score"] == pytest.approx(0.5, abs=0.03)
    assert found.ece < 0.04
    assert sum(size for _, _, size in found.reliability) == 2000
    assert found.selective[0][1] > 0.97
    assert found.selective[-1] == (1.0, pytest.approx(np.mean(answerable)))
    weights = fit(seen, answerable, 5).weights
    assert weights["margin"] == pytest.approx(2.0, rel=0.15)  # the log odds of two unit normals two apart


@given(seed=st.integers(0, 500), strength=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_the_map_is_monotone_whatever_the_data(seed: int, strength: float) -> None:
    fitted = fit(*labelled(seed, 60, strength), 3)
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add([f"rain over town {place}" for place in range(12)])
        hits = store.search("rain over town 3", k=3)
    told = fitted.probability(hits)
    surer = replace(hits, margin=(hits.margin or 0) + 0.1, variance=(*hits.variance[:-1], hits.variance[-1] / 2))
    assert fitted.probability(surer) >= told


def test_too_few_labels_are_refused() -> None:
    seen, _ = labelled(0, 30, 1.0)
    with pytest.raises(InvalidInputError, match="3 answerable and 27 unanswerable"):
        fit(seen, [True] * 3 + [False] * 27, 5)


def test_a_calibration_reads_hits_and_survives_the_disk(tmp_path: Path) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add([f"rain over town {i}" for i in range(20)] + ["snow on the hill"])
        hits = store.search("snow on the hill", k=3)
        assert hits.margin == pytest.approx(
            hits[0].score - store.search("snow on the hill", k=10, method="knn")[9].score
        )
        seen = signals(hits)
        made = Calibration({"margin": 2.0, "variance": -0.5}, -1.0, k=3, queries=50)
        made.save(tmp_path / "map.json")
        loaded = Calibration.load(tmp_path / "map.json")
        assert loaded == made
        logit = -1 + 2 * seen["margin"] - 0.5 * seen["variance"]
        assert loaded.probability(hits) == pytest.approx(1 / (1 + np.exp(-logit)))
        with pytest.raises(InvalidInputError, match="fitted with k = 3"):
            loaded.probability(store.search("snow", k=2))
        with pytest.raises(InvalidInputError, match="method 'sift' wanted"):
            signals(store.search("snow", k=3, method="knn"))
    with pytest.raises(NotFoundError, match="sift-store calibrate"):
        Calibration.load(tmp_path / "other.json")
    (tmp_path / "map.json").write_text('{"weights": {"luck": 1}, "intercept": 0, "k": 3, "queries": 1}')
    with pytest.raises(InvalidInputError, match="luck"):
        Calibration.load(tmp_path / "map.json")


def test_a_judgement_is_drawn(tmp_path: Path) -> None:
    draw_judgement(judge(*labelled(1, 100, 1.0)), tmp_path / "judgement.png")
    assert (tmp_path / "judgement.png").stat().st_size > 5000
