"""The choice among passages that somebody else retrieved."""

import numpy as np
import pytest

from sift_store import InvalidInputError, Record, SiftStore, VectorError
from sift_store.reranking import rerank
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

QUESTION = WordEmbedder().embed_query("What is the age of Michael Jordan and how many children has he?")


def records(texts: list[str]) -> list[Record]:
    vectors = WordEmbedder().embed_documents(texts)
    return [
        Record(row, text, {"row": row}, vector) for row, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


def test_it_chooses_as_a_search_does_among_the_same() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(150, 24)).astype(np.float32)
    candidates = [Record(row, f"text {row}", {}, vector) for row, vector in enumerate(vectors)]
    with SiftStore.open("memory://") as store:
        store.add([f"text {row}" for row in range(150)], list(range(150)), vectors=vectors)
        for query in rng.normal(size=(5, 24)):
            for options in ({}, {"method": "mmr"}, {"method": "knn"}, {"objective": "query"}, {"order": "score"}):
                one = rerank(candidates, query, 5, **options)
                other = store.search(vector=query, k=5, **options)
                assert [hit.id for hit in one] == [hit.id for hit in other]
                assert [hit.rank for hit in one] == [hit.rank for hit in other]
                assert one.variance == pytest.approx(other.variance)


def test_copies_go_and_are_named() -> None:
    hits = rerank(records([*JORDAN, JORDAN[0]]), QUESTION, 2)
    assert {hit.text for hit in hits} == {JORDAN[0], JORDAN[2]}
    assert [item.reason for item in hits.suppressed if item.text == JORDAN[0]] == ["copy"]


def test_scores_of_others_weigh_and_rank() -> None:
    candidates = records(JORDAN)
    scores = [0.0, 0.0, 0.0, 10.0, 0.0]
    hits = rerank(candidates, QUESTION, 2, relevance=scores)
    assert hits[0].text == JORDAN[3]
    assert (hits[0].score, hits[0].rank, hits.metric) == (10.0, 1, "fused")
    assert rerank(candidates, QUESTION, 1).metric == "cosine"


def test_several_questions_and_none_to_choose_from() -> None:
    both = WordEmbedder().embed_documents(["children of Michael Jordan", "capital of Germany"])
    assert {hit.text for hit in rerank(records(JORDAN), both, 2)} == {JORDAN[2], JORDAN[4]}
    empty = rerank([], QUESTION, 2)
    assert len(empty) == 0
    assert empty.shortfall


def test_what_is_wrong_is_told() -> None:
    candidates = records(JORDAN)
    with pytest.raises(InvalidInputError, match="1 of 6 have no vector, first 'x'"):
        rerank([*candidates, Record("x", "x", {})], QUESTION)
    with pytest.raises(VectorError, match="dimension"):
        rerank(candidates, [1.0, 2.0])
    with pytest.raises(InvalidInputError, match="relevance: "):
        rerank(candidates, QUESTION, relevance=[1.0])
    with pytest.raises(InvalidInputError, match="relevance: "):
        rerank(candidates, QUESTION, relevance=[1.0, 2.0, 3.0, 4.0, float("nan")])
    with pytest.raises(InvalidInputError, match="k: 0 given"):
        rerank(candidates, QUESTION, 0)
