"""Copies: exact ones, found by vector and told by text; and texts that repeat each other's words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["near_equal_rows", "repeats", "same_text_groups"]

# One text embedded in two batches differs by rounding: 7e-7 in distance, measured for all-MiniLM-L6-v2 in float32.
_DISTANCE = 2e-5


def near_equal_rows(
    vectors: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> list[list[int]]:
    """Groups of two or more rows whose unit vectors are within 2e-5 of the group's first.

    Args:
        vectors: (K, d). scores: (K,) cosine to one query, in falling order. rows: those to look at, rising.

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


def repeats(texts: Sequence[str], share: float = 0.5) -> list[int | None]:
    """For each text, the place of the first earlier one that it repeats, or None.

    A text repeats another if at least `share` of the shorter one's runs of three words stand in the longer: a measure
    of the words alone, so that it favours no embedder and no method.
    """
    runs = [_word_runs(text) for text in texts]
    found: list[int | None] = []
    for place, run in enumerate(runs):
        earlier = (i for i in range(place) if len(run & runs[i]) >= share * min(len(run), len(runs[i])))
        found.append(next(earlier, None))
    return found


def _word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1))}
