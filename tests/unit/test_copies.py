import numpy as np

from sift_store.copies import near_equal_rows, repeats, same_text_groups


def test_groups_of_near_equal_vectors_against_brute_force() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        base = rng.normal(size=(12, 6))
        vectors = base[rng.integers(12, size=40)] + rng.normal(size=(40, 6)) * 1e-6
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        scores = vectors @ (base[0] / np.linalg.norm(base[0])).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        vectors, scores = vectors[order], scores[order]
        rows = np.arange(0, 40, 2)
        close = np.linalg.norm(vectors[:, None] - vectors[None], axis=2) < 2e-5
        wanted = {tuple(np.flatnonzero(close[row, rows]) * 2) for row in rows if close[row, rows].sum() > 1}
        assert {tuple(sorted(group)) for group in near_equal_rows(vectors, scores, rows)} == wanted


def test_nothing_is_near_equal_in_small_or_distinct_pools() -> None:
    assert near_equal_rows(np.eye(3, dtype=np.float32), np.array([1, 0, 0], np.float32), np.arange(3)) == []
    assert near_equal_rows(np.eye(1, dtype=np.float32), np.ones(1, np.float32), np.arange(1)) == []
    assert near_equal_rows(np.eye(3, dtype=np.float32), np.ones(3, np.float32), np.arange(0)) == []


def test_only_the_same_text_is_a_copy() -> None:
    texts = {0: "one  text", 1: "other", 2: "one text\n", 3: "other", 4: "third"}
    assert same_text_groups([[0, 1, 2, 3], [4]], texts.__getitem__) == {0: [2], 1: [3]}


def test_repeats_are_told_by_words() -> None:
    texts = [
        "The cat sat on the mat and slept.",
        "A dog barked all night long.",
        "Cached: the cat sat on the mat and slept. Edited 2019.",
        "the cat sat",
        "Yes",
        "yes!",
    ]
    assert repeats(texts) == [None, None, 0, 0, None, 4]
