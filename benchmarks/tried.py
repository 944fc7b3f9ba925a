"""The numbers of the default, each moved alone, on the half that defaults are chosen on.

    SIFT_STORE_DATA=… python benchmarks/tried.py [--embedder minilm]

Points against nearest neighbours: recall@5 and recall@10 of each set, subtopic recall for Perspectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from common import asked_vectors, data_folder, report

from sift_store import posterior, select
from sift_store.evaluation import BASELINE, Judge, all_methods, make_corpus, read_dataset
from sift_store.evaluation.pools import Pool, pools_of
from sift_store.kernels import similarity_spread
from sift_store.plan import DEFAULT_CANDIDATES

SETS = ("hotpotqa_big", "2wiki_all", "entailmentbank", "cranfield", "perspectrum")
Choose = Callable[[Pool, int], Sequence[int]]


def with_numbers(temperature: float = 0.1, bandwidth: float = 1.0, **options: object) -> Choose:
    """SIFT with other numbers, in standard deviations of the pool's similarities."""

    def choose(pool: Pool, k: int) -> Sequence[int]:
        kept = posterior.TEMPERATURE_IN_SPREADS, posterior.BANDWIDTH_IN_SPREADS
        posterior.TEMPERATURE_IN_SPREADS, posterior.BANDWIDTH_IN_SPREADS = temperature, bandwidth
        try:
            return select(pool.vectors, pool.query, k, **options).indices.tolist()  # type: ignore[arg-type]
        finally:
            posterior.TEMPERATURE_IN_SPREADS, posterior.BANDWIDTH_IN_SPREADS = kept

    return choose


VARIANTS: dict[str, Choose] = {
    "the default": with_numbers(),
    "temperature 0.05": with_numbers(temperature=0.05),
    "temperature 0.15": with_numbers(temperature=0.15),
    "temperature 0.3": with_numbers(temperature=0.3),
    "temperature 1": with_numbers(temperature=1.0),
    "bandwidth 0.5": with_numbers(bandwidth=0.5),
    "bandwidth 2.5": with_numbers(bandwidth=2.5),
    "one kernel (rbf)": with_numbers(kernel="rbf"),
    "λ 0.001": with_numbers(lambda_=0.001),
    "λ 0.1": with_numbers(lambda_=0.1),
    "flat and broad: temperature 0.5, rbf 2.5": with_numbers(0.5, 2.5, kernel="rbf"),
}


def shape_of(pool: Pool) -> tuple[float, ...]:
    """Best score, tenth score, spread of the similarities, median distance of a candidate to its nearest."""
    others = pool.similarities.copy()
    np.fill_diagonal(others, -1)
    spread = similarity_spread(pool.similarities)
    return float(pool.scores[0]), float(pool.scores[9]), spread, float(np.median(1 - others.max(axis=1)))


def main() -> None:
    vectors = asked_vectors()
    name = vectors.name
    others = {method.name: method.choose for method in all_methods()}
    thresholds = ("threshold 0.8", "threshold 0.9") if name == "minilm" else ("threshold 0.95", "threshold 0.97")
    variants = VARIANTS | {threshold: others[threshold] for threshold in thresholds}
    rows: dict[str, list[object]] = {variant: [variant] for variant in variants}
    columns = ["points against nearest"]
    shapes: list[list[object]] = []
    for folder in SETS:
        dataset = read_dataset(data_folder() / "retrieval" / folder)
        asked = dataset.rows("choose")
        corpus = make_corpus(dataset, "clean", vectors.passages)
        pools = list(pools_of(corpus, vectors.queries(dataset.queries), asked, DEFAULT_CANDIDATES))
        shapes.append([folder, *(f"{value:.2f}" for value in np.median([shape_of(pool) for pool in pools], axis=0))])
        judge = Judge(dataset, asked, cutoffs=(5, 10))
        wanted = ("srecall@5", "srecall@10") if dataset.subtopics else ("recall@5", "recall@10")
        columns += [f"{folder} {measure}" for measure in wanted]

        def judged(choose: Choose, pools: list[Pool] = pools, judge: Judge = judge) -> dict[str, float]:
            found = judge.measure([pool.origin[list(choose(pool, 10))].tolist() for pool in pools])
            return {measure: 100 * float(values.mean()) for measure, values in found.items()}

        nearest = judged(others[BASELINE])
        for variant, choose in variants.items():
            found = judged(choose)
            rows[variant] += [f"{found[measure] - nearest[measure]:+.1f}" for measure in wanted]
    shape_columns = ["medians", "best score", "tenth score", "spread of the pool", "distance to the nearest candidate"]
    report(f"pools-{name}", f"What the pools look like, {name}", shape_columns, shapes)
    report(f"tried-{name}", f"Each number moved alone, {name}", columns, list(rows.values()))


if __name__ == "__main__":
    main()
