"""What decomposing a question gains: an oracle gives the titles of the supporting passages as sub-questions.

    SIFT_STORE_DATA=… python benchmarks/subquestions.py [--embedder minilm]

An oracle, because the titles are part of the answer key; a language model's sub-questions would lie between the first
lines and these. Reported on the half of the queries that nothing was chosen on.
"""

from __future__ import annotations

import numpy as np
from common import asked_vectors, data_folder, report

from sift_store import select
from sift_store.evaluation import Judge, make_corpus, read_dataset
from sift_store.plan import DEFAULT_CANDIDATES

SETS = ("hotpotqa_big", "2wiki_all")
K = 10


def main() -> None:
    vectors = asked_vectors()
    name = vectors.name
    rows = []
    for folder in SETS:
        dataset = read_dataset(data_folder() / "retrieval" / folder)
        corpus = make_corpus(dataset, "clean", vectors.passages).vectors
        asked = dataset.rows("report")
        whole = vectors.queries(dataset.queries)
        titles = [[dataset.titles[doc] for doc in dataset.grades[row]] for row in asked]
        vectors.queries([title for some in titles for title in some])
        answers: dict[str, list[list[int]]] = {
            "nearest, question": [],
            "SIFT, question": [],
            "nearest, best score over parts": [],
            "nearest, in turns": [],
            "SIFT, parts": [],
            "SIFT, question and parts": [],
        }
        for row, some in zip(asked, titles, strict=True):
            question, parts = whole[row], vectors.queries(some)
            both = np.concatenate([question[None], parts])
            answers["nearest, question"].append(nearest(corpus, question[None])[:K])
            answers["SIFT, question"].append(sift(corpus, question[None]))
            answers["nearest, best score over parts"].append(nearest(corpus, parts)[:K])
            answers["nearest, in turns"].append(in_turns([nearest(corpus, part[None]) for part in parts]))
            answers["SIFT, parts"].append(sift(corpus, parts))
            answers["SIFT, question and parts"].append(sift(corpus, both))
        judge = Judge(dataset, asked)
        for method, picked in answers.items():
            found = judge.measure(picked)
            measures = ("recall@2", "recall@5", "recall@10", "all@2", "all@5", "all@10")
            rows.append([folder, method, *(f"{100 * found[measure].mean():.1f}" for measure in measures)])
    columns = ["set", "%", "recall@2", "recall@5", "recall@10", "all@2", "all@5", "all@10"]
    report(f"subquestions-{name}", f"Sub-questions by an oracle, {name}", columns, rows)


def nearest(corpus: np.ndarray, queries: np.ndarray) -> list[int]:
    """The nearest candidates by their best score over the queries."""
    best = (corpus @ queries.T).max(axis=1)
    return np.argsort(-best, kind="stable")[:DEFAULT_CANDIDATES].tolist()


def sift(corpus: np.ndarray, queries: np.ndarray) -> list[int]:
    """As `search(queries=…)` does: the candidates of each sub-question together, then SIFT."""
    scores = corpus @ queries.T
    pool = np.unique([row for column in scores.T for row in np.argsort(-column, kind="stable")[:DEFAULT_CANDIDATES]])
    pool = pool[np.argsort(-scores[pool].max(axis=1), kind="stable")]
    return pool[select(corpus[pool], queries, K).indices].tolist()


def in_turns(ranked: list[list[int]]) -> list[int]:
    """The first of each, the second of each, …"""
    taken = dict.fromkeys(doc for place in zip(*ranked, strict=True) for doc in place)
    return list(taken)[:K]


if __name__ == "__main__":
    main()
