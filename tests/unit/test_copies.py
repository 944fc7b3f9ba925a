import numpy as np

from sift_store.copies import like_picks, near_equal_rows, overlaps, repeats, same_text_groups


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


def sentence(start: int, size: int) -> str:
    return " ".join(f"word{place}" for place in range(start, start + size))


def test_windows_and_edited_copies_overlap_and_like_facts_do_not() -> None:
    texts = {
        0: sentence(0, 100),
        1: sentence(50, 100),  # shares half
        2: sentence(90, 100),  # shares ten words with the first: too little; much with the second, which has gone
        3: "Cached: " + sentence(0, 60).replace("word7 ", "").upper() + " Edited in 2019.",
        4: "a lit candle is covered in a large jar",
        5: "a lit candle is covered in a small jar",
    }
    pairs = [(later, earlier) for later in range(6) for earlier in range(later)]
    assert overlaps(pairs, texts.__getitem__) == {1: 0, 3: 0}
    assert overlaps([], texts.__getitem__) == {}


def test_only_picks_that_are_alike_are_looked_at() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 16))
    vectors = np.concatenate([base, base + 0.1 * rng.normal(size=(6, 16))])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert like_picks(vectors, [8, 0, 2, 6], 0.1) == [(2, 8), (6, 0)]
    assert like_picks(vectors, [], 0.1) == []
