"""How good an answer is, query by query: by ir-measures where it has the measure, by our own where it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sift_store.evaluation.datasets import Dataset
from sift_store.evaluation.pools import Pool
from sift_store.registry import needs_extra

__all__ = ["CUTOFFS", "Judge", "redundancy", "summary"]

CUTOFFS = (1, 2, 3, 5, 10, 15, 20)


class Judge:
    """Measures runs over some queries of a set.

    Measures, in [0, 1], at every cutoff k: recall@k (share of the relevant passages), all@k (1 if none is missing),
    ndcg@k (grades as gains); with subtopics srecall@k (share of the subtopics covered) and alpha_ndcg@k (Clarke et al.,
    SIGIR 2008, α = 0.5). A second copy of a passage is worth nothing and takes its place.

    Args:
        rows: places of the queries. cutoffs: each k, rising.

    Raises:
        MissingExtraError: ir-measures is not installed.
    """

    def __init__(self, dataset: Dataset, rows: Sequence[int], cutoffs: Sequence[int] = CUTOFFS) -> None:
        with needs_extra("eval"):
            import ir_measures
        self._ir: Any = ir_measures
        self._rows = list(rows)
        self._names: dict[str, str] = {}  # of our measure -> of theirs
        measures: list[Any] = []
        for k in cutoffs:
            wanted = {f"recall@{k}": ir_measures.R @ k, f"ndcg@{k}": ir_measures.nDCG @ k}
            measures += wanted.values()
            self._names |= {str(theirs): ours for ours, theirs in wanted.items()}
        qrels = [
            ir_measures.Qrel(str(row), str(doc), grade)
            for row in self._rows
            for doc, grade in dataset.grades[row].items()
        ]
        self._evaluators = [ir_measures.evaluator(measures, qrels)]
        if dataset.subtopics is not None:
            self._add_subtopics(dataset, cutoffs)

    def _add_subtopics(self, dataset: Dataset, cutoffs: Sequence[int]) -> None:
        ir = self._ir
        measures: list[Any] = []
        for k in cutoffs:
            wanted = {f"srecall@{k}": ir.StRecall @ k, f"alpha_ndcg@{k}": ir.alpha_nDCG @ k}
            measures += wanted.values()
            self._names |= {str(theirs): ours for ours, theirs in wanted.items()}
        subtopics = dataset.subtopics or ()
        qrels = [
            ir.Qrel(str(row), str(doc), 1, subtopic)
            for row in self._rows
            for subtopic, docs in subtopics[row].items()
            for doc in sorted(docs)
        ]
        self._evaluators.append(ir.evaluator(measures, qrels))

    def measure(self, answers: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.float32]]:
        """Each measure of each query, in the order of the rows.

        Args:
            answers: for each query, the passages picked, in order; places in the set, copies named by their original.
        """
        run = [
            self._ir.ScoredDoc(str(row), doc, float(-rank))
            for row, picks in zip(self._rows, answers, strict=True)
            for rank, doc in enumerate(_copies_named_apart(picks))
        ]
        place = {str(row): at for at, row in enumerate(self._rows)}
        found = {name: np.zeros(len(self._rows), dtype=np.float32) for name in self._names.values()}
        for evaluator in self._evaluators:
            for one in evaluator.iter_calc(run):
                found[self._names[str(one.measure)]][place[one.query_id]] = one.value
        for name in [name for name in found if name.startswith("recall@")]:
            found[name.replace("recall", "all")] = (found[name] >= 1 - 1e-6).astype(np.float32)
        return found


def redundancy(
    pools: Sequence[Pool], picked: Sequence[Sequence[int]], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, npt.NDArray[np.float32]]:
    """How much the picks repeat one another, query by query, whatever is relevant.

    Returns:
        similarity@k: mean cosine between two of the first k picks, for k > 1; duplicates@k: share of the first k that
        come from a passage picked before (a copy, or a window of the same).
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    for k in cutoffs:
        if k > 1:
            means = [_mean_between(pool.similarities, rows[:k]) for pool, rows in zip(pools, picked, strict=True)]
            found[f"similarity@{k}"] = np.array(means, dtype=np.float32)
        repeated = [
            1 - len(set(pool.origin[rows[:k]].tolist())) / len(rows[:k])
            for pool, rows in zip(pools, (list(rows) for rows in picked), strict=True)
        ]
        found[f"duplicates@{k}"] = np.array(repeated, dtype=np.float32)
    return found


def summary(measured: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """The mean of each measure over the queries."""
    return {name: float(values.mean()) for name, values in measured.items()}


def _mean_between(similarities: npt.NDArray[np.float32], rows: Sequence[int]) -> float:
    among = similarities[np.ix_(list(rows), list(rows))]
    size = len(among)
    return float((among.sum() - np.trace(among)) / (size * (size - 1))) if size > 1 else 0.0


def _copies_named_apart(picks: Sequence[int]) -> list[str]:
    """Names for a run, in which no passage may come twice: a repeated one becomes one that is relevant to nothing."""
    seen: set[int] = set()
    names = []
    for place, doc in enumerate(picks):
        names.append(f"copy {place}" if doc in seen else str(doc))
        seen.add(doc)
    return names
