"""Can it be told whether the corpus holds an answer? The gold of half of the queries is removed from the corpus.

    SIFT_STORE_DATA=… python benchmarks/enough.py [--embedder minilm]

For each set: AUROC of the best score, the margin and the remaining variance alone, and of the calibrated map; expected
calibration error; how many are answerable among the surest half. Queries that lose a part of their gold are left out.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from common import RESULTS, asked_vectors, data_folder, report

from sift_store import select
from sift_store.evaluation import make_corpus, read_dataset
from sift_store.evaluation.calibrating import draw_judgement, judge
from sift_store.evaluation.pools import pools_of
from sift_store.evaluation.scenarios import Corpus
from sift_store.plan import DEFAULT_CANDIDATES
from sift_store.results import MARGIN_RANK

SETS = ("hotpotqa_big", "2wiki_all", "entailmentbank", "cranfield")
K = 10


def removed(query_id: str) -> bool:
    """Whether this query loses its gold: half of them, by hash."""
    return bool(hashlib.sha256(f"gold of {query_id}".encode()).digest()[0] & 1)


def main() -> None:
    vectors = asked_vectors()
    name = vectors.name
    rows = []
    for folder in SETS:
        dataset = read_dataset(data_folder() / "retrieval" / folder)
        lost = [removed(query) for query in dataset.query_ids]
        gone = {doc for row, relevant in enumerate(dataset.grades) if lost[row] for doc in relevant}
        whole = make_corpus(dataset, "clean", vectors.passages)
        kept = np.array([place not in gone for place in whole.origin.tolist()])
        corpus = Corpus(whole.vectors[kept], whole.origin[kept])
        asked = [row for row, docs in enumerate(dataset.grades) if lost[row] or not gone & set(docs)]
        seen = []
        for pool in pools_of(corpus, vectors.queries(dataset.queries), asked, DEFAULT_CANDIDATES):
            left = float(select(pool.vectors, pool.query, K).variance[-1])
            margin = float(pool.scores[0] - pool.scores[MARGIN_RANK - 1])
            seen.append({"score": float(pool.scores[0]), "margin": margin, "variance": math.log10(max(left, 1e-12))})
        judgement = judge(seen, [not lost[row] for row in asked])
        draw_judgement(judgement, RESULTS / f"enough-{name}-{folder}.svg")
        surest = dict(judgement.selective)
        rows.append(
            [
                folder,
                judgement.queries,
                f"{judgement.answerable / judgement.queries:.2f}",
                *(f"{judgement.auroc[signal]:.3f}" for signal in ("score", "margin", "variance", "map")),
                f"{judgement.ece:.3f}",
                f"{surest[0.2]:.2f}",
                f"{surest[0.5]:.2f}",
            ]
        )
    columns = [
        "set",
        "queries",
        "answerable",
        "score",
        "margin",
        "variance",
        "map",
        "ECE",
        "surest 20 %",
        "surest 50 %",
    ]
    report(f"enough-{name}", f"Told apart (AUROC) with {name}, half of the gold removed", columns, rows)


if __name__ == "__main__":
    main()
