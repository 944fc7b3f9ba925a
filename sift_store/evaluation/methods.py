"""The ways of choosing k of K that are compared: nearest neighbours, what people use for diversity, and SIFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sift_store.copies import ROUNDS, like_picks, like_rows, near_copy_distance, overlaps, stand_ins
from sift_store.evaluation.pools import Pool
from sift_store.kernels import similarity_spread
from sift_store.mmr import mmr
from sift_store.registry import needs_extra
from sift_store.selection import select

__all__ = ["BASELINE", "DEFAULT", "Choice", "all_methods"]

BASELINE, DEFAULT = "nearest", "SIFT"


@dataclass(frozen=True, slots=True)
class Choice:
    """A way of choosing.

    Attributes:
        name: shown. family: the grid it belongs to, of which tables show the best.
        choose: from a pool and k to rows of the pool in the order picked; the picks for k begin those for k + 1.
    """

    name: str
    family: str
    choose: Callable[[Pool, int], Sequence[int]]


def all_methods() -> list[Choice]:
    """Every method with its grid.

    Raises:
        MissingExtraError: pyversity is not installed.
    """
    methods = [
        Choice(BASELINE, BASELINE, lambda pool, k: range(min(k, len(pool.scores)))),
        Choice(DEFAULT, DEFAULT, sift),
        Choice("SIFT, vectors alone", "SIFT, vectors alone", partial(_sift, collapse=True)),
        Choice("SIFT, nothing collapsed", "SIFT, nothing collapsed", partial(_sift, collapse=False)),
        Choice("copies collapsed, then nearest", "copies collapsed, then nearest", _nearest_of_each),
    ]
    for cut in (0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98):
        methods.append(Choice(f"threshold {cut:g}", "threshold", partial(_threshold, cut=cut)))
    for balance in (0.95, 0.9, 0.8, 0.7, 0.5):
        methods.append(Choice(f"MMR {balance:g}", "MMR", partial(_mmr, balance=balance)))
    for strategy, grid in (("DPP", _GRID), ("MSD", _GRID), ("SSD", _GRID)):
        methods += [
            Choice(f"{strategy} {diversity:g}", strategy, partial(_pyversity(strategy), diversity=diversity))
            for diversity in grid
        ]
    for noise in (0.01, 0.1, 1.0):
        methods.append(Choice(f'SIFT "query" {noise:g}', 'SIFT "query"', partial(_query, noise=noise)))
    return methods


_GRID = (0.1, 0.3, 0.5, 0.7)


def sift(pool: Pool, k: int) -> Sequence[int]:
    """What `search` does by default: near copies collapse, and of texts that overlap the first picked stays."""
    rows = np.arange(len(pool.scores))
    dropped: list[int] = []
    for _ in range(ROUNDS + 1):
        selection = select(pool.vectors[rows], pool.query, k)
        picks: list[int] = rows[selection.indices].tolist()
        if pool.texts is None:
            break
        text, spread = pool.texts.__getitem__, selection.spread or 0.0
        found = set(overlaps(like_picks(pool.vectors, picks, spread), text).values())
        if not found:
            break
        leaders = [row for row in picks if row in found]
        repeated = overlaps(like_rows(pool.vectors, leaders, rows, spread), text)
        dropped += repeated
        rows = rows[~np.isin(rows, list(repeated))]
    return (picks + sorted(dropped))[:k]


def _sift(pool: Pool, k: int, collapse: bool) -> Sequence[int]:
    rows: list[int] = select(pool.vectors, pool.query, k, collapse=collapse).indices.tolist()
    return rows


def _query(pool: Pool, k: int, noise: float) -> Sequence[int]:
    rows: list[int] = select(pool.vectors, pool.query, k, objective="query", lambda_=noise).indices.tolist()
    return rows


def _mmr(pool: Pool, k: int, balance: float) -> Sequence[int]:
    rows: list[int] = mmr(pool.vectors, pool.scores, k, balance).tolist()
    return rows


def _nearest_of_each(pool: Pool, k: int) -> Sequence[int]:
    """Nearest neighbours after the collapse: what the collapse gives without SIFT."""
    rank = np.arange(len(pool.scores))
    distance = near_copy_distance(pool.similarities, similarity_spread(pool.similarities))
    own = stand_ins(pool.similarities, rank, distance) == rank
    return _first(np.flatnonzero(own).tolist(), len(rank), k)


def _threshold(pool: Pool, k: int, cut: float) -> Sequence[int]:
    """Walk by score, skip what is at least `cut` like a pick; if too few are left, the best of the skipped."""
    picks = [0]
    nearest = pool.similarities[0].copy()
    while len(picks) < k:
        rest = np.flatnonzero(nearest[picks[-1] + 1 :] < cut)
        if not len(rest):
            break
        picks.append(picks[-1] + 1 + int(rest[0]))
        np.maximum(nearest, pool.similarities[picks[-1]], out=nearest)
    return _first(picks, len(nearest), k)


def _first(picks: list[int], size: int, k: int) -> list[int]:
    """The first k picks, then the best-ranked of the others."""
    taken = set(picks)
    return (picks + [row for row in range(size) if row not in taken])[:k]


def _pyversity(strategy: str) -> Callable[..., Sequence[int]]:
    with needs_extra("eval"):
        import pyversity

    def choose(pool: Pool, k: int, diversity: float) -> Sequence[int]:
        chosen = pyversity.diversify(
            pool.vectors, pool.scores, k, strategy=pyversity.Strategy[strategy], diversity=diversity
        )
        return [int(row) for row in chosen.indices]

    return choose
