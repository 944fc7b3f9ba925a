"""What a budget of tokens buys: passages by score until it is spent, and SIFT by gain per token.

    SIFT_STORE_DATA=… python benchmarks/budget.py [--embedder minilm]

Tokens are estimated at four characters each for all. Half of the queries, the half that nothing was chosen on.
"""

from __future__ import annotations

import numpy as np
from common import asked_vectors, data_folder, report

from sift_store import select
from sift_store.embedding import estimated_tokens
from sift_store.evaluation import Judge, make_corpus, read_dataset
from sift_store.evaluation.pools import pools_of
from sift_store.plan import DEFAULT_CANDIDATES

SETS = ("hotpotqa_big", "2wiki_all", "cranfield")
BUDGETS = (250, 500, 1000)


def by_score(costs: np.ndarray, budget: float) -> list[int]:
    """Nearest first; what does not fit is passed over."""
    picks = []
    for row, cost in enumerate(costs):
        if cost <= budget:
            picks.append(row)
            budget -= cost
    return picks


def main() -> None:
    vectors = asked_vectors()
    name = vectors.name
    rows = []
    for folder in SETS:
        dataset = read_dataset(data_folder() / "retrieval" / folder)
        asked = dataset.rows("report")
        judge = Judge(dataset, asked, cutoffs=(1000,))
        corpus = make_corpus(dataset, "clean", vectors.passages)
        pools = list(pools_of(corpus, vectors.queries(dataset.queries), asked, DEFAULT_CANDIDATES))
        for budget in BUDGETS:
            found: dict[str, list[list[int]]] = {"by score": [], "SIFT": []}
            for pool in pools:
                costs = np.array(estimated_tokens(pool.texts or ()))
                spent = by_score(costs, budget)
                sifted = select(pool.vectors, pool.query, None, costs=costs, budget=budget)
                found["by score"].append(pool.origin[spent].tolist())
                found["SIFT"].append(pool.origin[sifted.indices].tolist())
            for method, answers in found.items():
                measured = judge.measure(answers)
                count = np.mean([len(answer) for answer in answers])
                figures = (f"{100 * measured[f'{m}@1000'].mean():.1f}" for m in ("recall", "all"))
                rows.append([folder, budget, method, f"{count:.1f}", *figures])
    columns = ["set", "tokens", "%", "passages", "recall", "all"]
    report(f"budget-{name}", f"A budget of tokens, {name}", columns, rows)


if __name__ == "__main__":
    main()
