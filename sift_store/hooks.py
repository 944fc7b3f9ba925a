"""The seam to what is done with a selection at test time: a function that gets the question and the picks.

Fine-tuning a language model is what SIFT was made for; the adapter `sift_store_transformers` offers it. Nothing here
knows how it is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from sift_store.errors import InvalidInputError
from sift_store.greedy import no_longer_worth_it
from sift_store.results import Hit, Hits

__all__ = ["Hook", "Picks", "steps_worth_taking"]


@dataclass(frozen=True, slots=True)
class Picks:
    """What a hook gets.

    Attributes:
        queries: the texts asked, one, or one for each sub-query; empty where vectors were asked.
        hits: in the order picked, whatever the order of the answer; one picked twice stands there twice.
        variance: share of the prior variance left after each; empty where it was not computed.
    """

    queries: tuple[str, ...]
    hits: tuple[Hit, ...]
    variance: tuple[float, ...]

    @classmethod
    def of(cls, hits: Hits, queries: Sequence[str] = ()) -> Self:
        """The picks of an answer."""
        ordered = tuple(sorted(hits, key=lambda hit: hit.pick))
        left = tuple(hits.variance[hit.pick - 1] for hit in ordered) if hits.variance else ()
        return cls(tuple(queries), ordered, left)

    @property
    def texts(self) -> tuple[str, ...]:
        """The passages, in the order picked."""
        return tuple(hit.text for hit in self.hits)


Hook: TypeAlias = Callable[[Picks], Any]
"""Called by `search(hook=…)` once the answer is there; what it gives back is `Hits.outcome`."""


def steps_worth_taking(variance: Sequence[float], alpha: float) -> int:
    """How many gradient steps a selection is worth: the first n at which σ_n > 1/(α n), or all.

    Args:
        variance: share of the prior left after each pick; σ_n is the root of the n-th.
        alpha: > 0; the greater, the fewer steps (Hübotter et al., "Efficiently Learning at Test-Time", ICLR 2025, on
            compute-proportional test-time training).

    Raises:
        InvalidInputError: alpha out of its range.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise InvalidInputError(f"alpha: {alpha!r} given, a number greater than 0 wanted")
    for steps, left in enumerate(variance, start=1):
        if no_longer_worth_it(alpha, steps, left):
            return steps
    return len(variance)
