"""Copies: exact ones, found by vector and told by text; near ones, by the pool's own similarities; repeated words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "ROUNDS",
    "like_picks",
    "like_rows",
    "near_copy_distance",
    "near_equal_rows",
    "overlaps",
    "repeats",
    "same_text_groups",
    "stand_ins",
]

# How often a choice is made anew without the passages that were found to repeat a pick.
ROUNDS = 8
# Passages further apart than this many standard deviations of the pool's similarities are not looked at.
_LIKE_IN_SPREADS = 2.0
# Windows of one text, and edited copies, have runs of this many words in common: at least so many, and at least this
# share of the shorter's. Short facts in like words have fewer.
_RUN, _LEAST_RUNS, _SHARED_RUNS = 8, 12, 1 / 3

# One text embedded in two batches differs by rounding: 7e-7 in distance, measured for all-MiniLM-L6-v2 in float32.
_DISTANCE = 2e-5

# Copies show as a mode of their own in how far each candidate is from its nearest: at least a fifth of them lie within
# some scale, and at most a quarter as many between that scale and twice of it. Scales are in standard deviations of the
# pool's similarities. Chosen on labelled queries (docs/quality.md).
_SCALES = np.array([1.5, 1.25, 1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05])
_SHARE = 0.2
_PROMINENCE = 4.0
_LEAST_POOL = 20  # fewer show no mode
# Most lie within this quantile; two copies of one original are twice as far from each other as from it, if their
# differences are independent. Where that is little, a cut twice as wide costs nothing.
_QUANTILE = 0.8
_COPY_TO_COPY = 2.0
_LITTLE = 0.3
# Further than this many standard deviations, or than this cosine distance, nothing is a copy; closer than the last
# everything is, in any pool.
_FURTHEST, _FURTHEST_COSINE = 1.6, 0.25
_NEAREST = 0.02


def near_equal_rows(
    vectors: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> list[list[int]]:
    """Groups of two or more rows whose unit vectors are within 2e-5 of the group's first.

    Args:
        vectors: (K, d). scores: (K,) cosine to one query. rows: those to look at, by falling score.

    Equal vectors have equal scores, so only rows next to each other in score are compared: O(K·d) for a pool with few
    ties, never a K×K matrix.
    """
    ranked = scores[rows]
    first = rows.copy()  # the row that each is a copy of
    for lag in range(1, len(rows)):
        close = np.flatnonzero(ranked[:-lag] - ranked[lag:] <= _DISTANCE)
        if not len(close):
            break
        pairs = close[first[close + lag] == rows[close + lag]]
        difference = vectors[rows[pairs]] - vectors[rows[pairs + lag]]
        equal = pairs[np.einsum("ij,ij->i", difference, difference) <= _DISTANCE**2]
        for place in equal.tolist():  # rising, so that a chain of copies ends at its first
            first[place + lag] = first[place]
    groups: defaultdict[int, list[int]] = defaultdict(list)
    copies = np.flatnonzero(first != rows)
    for row, leader in zip(rows[copies].tolist(), first[copies].tolist(), strict=True):
        groups[leader].append(row)
    return [[leader, *group] for leader, group in groups.items()]


def same_text_groups(groups: Sequence[Sequence[int]], text: Callable[[int], str]) -> dict[int, list[int]]:
    """Of each group, the rows whose text (white space aside) an earlier row has: first row -> its later copies."""
    copies: dict[int, list[int]] = {}
    for group in groups:
        first: dict[str, int] = {}
        for row in group:
            leader = first.setdefault(" ".join(text(row).split()), row)
            if leader != row:
                copies.setdefault(leader, []).append(row)
    return copies


def like_picks(vectors: npt.NDArray[np.floating], picks: Sequence[int], spread: float) -> list[tuple[int, int]]:
    """Pairs (later pick, earlier pick) that are alike enough to have text in common, by 2 spreads of cosine distance.

    Args:
        vectors: (K, d) unit rows. picks: distinct rows, in order. spread: of the pool's similarities.
    """
    some = vectors[list(picks)]
    earlier, later = np.nonzero(np.triu(some @ some.T >= 1 - _LIKE_IN_SPREADS * spread, k=1))
    return [(picks[b], picks[a]) for a, b in zip(earlier.tolist(), later.tolist(), strict=True)]


def like_rows(
    vectors: npt.NDArray[np.floating], leaders: Sequence[int], rows: npt.NDArray[np.int64], spread: float
) -> list[tuple[int, int]]:
    """Pairs (row, leader) of other rows that are alike enough to a leader, the first leader's first."""
    alike = vectors[list(leaders)] @ vectors[rows].T >= 1 - _LIKE_IN_SPREADS * spread
    return [
        (row, leader)
        for leader, near in zip(leaders, alike, strict=True)
        for row in rows[near].tolist()
        if row != leader
    ]


def overlaps(pairs: Sequence[tuple[int, int]], text: Callable[[int], str]) -> dict[int, int]:
    """Of pairs of rows, the later ones that have text in common with an earlier one: later row -> the first such.

    Runs of eight words are compared: overlapping windows and edited copies share a dozen or more, different facts in
    like words do not. A row that itself has to go stands for no other.
    """
    runs = {row: _word_runs(text(row), _RUN) for row in {row for pair in pairs for row in pair}}
    found: dict[int, int] = {}
    for later, earlier in pairs:
        if later in found or earlier in found:
            continue
        fewest = min(len(runs[later]), len(runs[earlier]))
        if len(runs[later] & runs[earlier]) >= max(_SHARED_RUNS * fewest, _LEAST_RUNS):
            found[later] = earlier
    return found


def repeats(texts: Sequence[str], share: float = 0.5) -> list[int | None]:
    """For each text, the place of the first earlier one that it repeats, or None.

    A text repeats another if at least `share` of the shorter one's runs of three words stand in the longer: a measure
    of the words alone, so that it favours no embedder and no method.
    """
    runs = [_word_runs(text, 3) for text in texts]
    found: list[int | None] = []
    for place, run in enumerate(runs):
        earlier = (i for i in range(place) if len(run & runs[i]) >= share * min(len(run), len(runs[i])))
        found.append(next(earlier, None))
    return found


def _word_runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + length]) for i in range(max(len(words) - length + 1, 1))}


def near_copy_distance(similarities: npt.NDArray[np.floating], spread: float) -> float:
    """Cosine distance within which candidates of this pool are copies of one another, > 0.

    A threshold on similarity suits the embedder it was set on; what a pool with copies has, whatever the embedder, is a
    gap: candidates are close to their nearest or far from it, few in between. Without such a gap like passages are
    taken for different facts in like words, and only all but equal vectors for copies.

    Args:
        similarities: (K, K) cosines, symmetric, ones on the diagonal. spread: their standard deviation.

    Cost: O(K²), one pass.
    """
    size = len(similarities)
    if size < _LEAST_POOL:
        return _NEAREST * spread
    others = similarities.copy()
    np.fill_diagonal(others, -1)
    nearest = np.sort(np.maximum(1 - others.max(axis=1), 0.0))
    scales = _SCALES * spread
    within = np.searchsorted(nearest, scales, side="right")
    between = np.searchsorted(nearest, 2 * scales, side="right") - within
    found = np.flatnonzero((within >= _SHARE * size) & (within >= _PROMINENCE * (between + 1)))
    if not len(found):
        return _NEAREST * spread
    typical = _quantile(nearest[: within[found[0]]])
    wide = max(_COPY_TO_COPY * typical, min(2 * _COPY_TO_COPY * typical, _LITTLE * spread))
    return max(min(wide, _FURTHEST * spread, _FURTHEST_COSINE), _NEAREST * spread)


def _quantile(rising: npt.NDArray[np.floating]) -> float:
    """As `np.quantile`, of values in order, at a tenth of its cost."""
    place = _QUANTILE * (len(rising) - 1)
    below = int(place)
    above = min(below + 1, len(rising) - 1)
    return float(rising[below] + (rising[above] - rising[below]) * (place - below))


def stand_ins(
    similarities: npt.NDArray[np.floating], rank: npt.NDArray[np.int64], distance: float
) -> npt.NDArray[np.int64]:
    """For each candidate the row that stands for it: itself, or the best-ranked one within `distance` that stands.

    Args:
        similarities: (K, K) cosines. rank: (K,) 0 for the most relevant. distance: > 0, in cosine.

    Returns:
        (K,) rows. Cost: O(K²), and O(K) for each that has another near.
    """
    close = similarities >= 1 - distance
    near = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)  # all others stand for themselves
    leader = np.arange(len(rank))
    open_ = np.ones(len(rank), dtype=bool)
    for row in near[np.argsort(rank[near])].tolist():
        if open_[row]:
            leader[close[row] & open_] = row
            open_ &= ~close[row]
    return leader
