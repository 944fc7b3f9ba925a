"""Fit and judge the map from an answer's signals to the probability that the corpus holds an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sift_store.calibration import SIGNS, Calibration
from sift_store.errors import InvalidInputError
from sift_store.registry import needs_extra

__all__ = ["Judgement", "draw_judgement", "fit", "judge"]

Float64 = npt.NDArray[np.float64]
_FOLDS = 5
_BINS = 10
_LEAST = 10


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well answerable and unanswerable queries are told apart, each probability from a fit that did not see it.

    Attributes:
        queries, answerable: how many. auroc: of each signal alone, and of the "map" of all.
        ece: expected calibration error of the map, in [0, 1], ten bins of equal numbers.
        reliability: for each bin (mean probability, share answerable, queries).
        selective: for shares of the queries answered, most confident first: (share, share of these answerable).
    """

    queries: int
    answerable: int
    auroc: Mapping[str, float] = field(hash=False)
    ece: float
    reliability: tuple[tuple[float, float, int], ...]
    selective: tuple[tuple[float, float], ...]


def fit(seen: Sequence[Mapping[str, float]], answerable: Sequence[bool], k: int) -> Calibration:
    """Fit a monotone logistic map to labelled queries.

    Args:
        seen: `calibration.signals` of each query's hits. answerable: whether the corpus held an answer.
        k: of the searches.

    A signal whose weight comes out against its sign in `calibration.SIGNS` is left out, the most contrary first.

    Raises:
        InvalidInputError: fewer than 10 queries of one kind. MissingExtraError: scikit-learn is not installed.
    """
    table, labels = _table(seen, answerable)
    weights, intercept = _fit(table, labels)
    return Calibration(weights, intercept, k, len(labels))


def judge(seen: Sequence[Mapping[str, float]], answerable: Sequence[bool]) -> Judgement:
    """Judge such a map by five-fold cross-validation, seeded, beside each signal alone."""
    with needs_extra("eval"):
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold
    table, labels = _table(seen, answerable)
    told = np.zeros(len(labels))
    for known, asked in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(table, labels):
        weights, intercept = _fit(table[known], labels[known])
        logits = intercept + sum(weight * table[asked, list(SIGNS).index(name)] for name, weight in weights.items())
        told[asked] = 1 / (1 + np.exp(-np.asarray(logits)))
    auroc = {
        name: float(roc_auc_score(labels, sign * table[:, place])) for place, (name, sign) in enumerate(SIGNS.items())
    }
    auroc["map"] = float(roc_auc_score(labels, told))
    order = np.argsort(-told, kind="stable")
    bins = [part for part in np.array_split(order[::-1], _BINS) if len(part)]
    reliability = tuple((float(told[part].mean()), float(labels[part].mean()), len(part)) for part in bins)
    ece = sum(size * abs(said - true) for said, true, size in reliability) / len(labels)
    selective = tuple(
        (share / 10, float(labels[order[: max(round(len(labels) * share / 10), 1)]].mean())) for share in range(1, 11)
    )
    return Judgement(len(labels), int(labels.sum()), auroc, float(ece), reliability, selective)


def _table(seen: Sequence[Mapping[str, float]], answerable: Sequence[bool]) -> tuple[Float64, npt.NDArray[np.bool_]]:
    labels = np.array(answerable, dtype=bool)
    fewest = min(int(labels.sum()), int((~labels).sum()))
    if fewest < _LEAST:
        raise InvalidInputError(
            f"{int(labels.sum())} answerable and {int((~labels).sum())} unanswerable queries given; at least {_LEAST} "
            "of each wanted"
        )
    return np.array([[one[name] for name in SIGNS] for one in seen], dtype=np.float64), labels


def _fit(table: Float64, labels: npt.NDArray[np.bool_]) -> tuple[dict[str, float], float]:
    with needs_extra("eval"):
        from sklearn.linear_model import LogisticRegression
    names = [name for name, spread in zip(SIGNS, table.std(axis=0), strict=True) if spread > 1e-9] or list(SIGNS)
    centre, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
    while True:
        columns = [list(SIGNS).index(name) for name in names]
        model = LogisticRegression().fit((table[:, columns] - centre[columns]) / scale[columns], labels)
        signed = {name: SIGNS[name] * float(weight) for name, weight in zip(names, model.coef_[0], strict=True)}
        wrong = min(signed, key=lambda name: signed[name])
        if signed[wrong] >= 0 or len(names) == 1:
            break
        names.remove(wrong)
    weights = {
        name: SIGNS[name] * max(signed[name], 0.0) / float(scale[column])
        for name, column in zip(names, columns, strict=True)
    }
    moved = sum(weights[name] * float(centre[column]) for name, column in zip(names, columns, strict=True))
    return weights, float(model.intercept_[0]) - moved


def draw_judgement(judgement: Judgement, path: Path) -> None:
    """Reliability diagram and selective curve, as PNG or SVG by the path's ending."""
    with needs_extra("eval"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    said, true, _ = zip(*judgement.reliability, strict=True)
    axes[0].plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes[0].plot(said, true, marker="o")
    axes[0].set(xlabel="probability told", ylabel="share that the corpus held", title=f"ECE {judgement.ece:.3f}")
    share, right = zip(*judgement.selective, strict=True)
    axes[1].plot(share, right, marker="o")
    axes[1].set(xlabel="share of queries answered", ylabel="share of these answerable", ylim=(0, 1.02))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path)
