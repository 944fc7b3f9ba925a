"""From an answer to the probability that the corpus holds what was asked for, by a map fitted to labelled queries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sift_store.errors import InvalidInputError, NotFoundError
from sift_store.results import Hits

__all__ = ["SIGNS", "Calibration", "signals"]

# What is looked at, and whether more of it speaks for an answer (1) or against (-1).
SIGNS: Mapping[str, int] = {"score": 1, "margin": 1, "variance": -1}
_LEAST_VARIANCE = 1e-12


def signals(hits: Hits) -> dict[str, float]:
    """What an answer shows of whether there is one: best score, margin, and the logarithm of the variance left.

    Raises:
        InvalidInputError: no hits, or hits of another method than "sift".
    """
    if not len(hits) or hits.margin is None or not hits.variance:
        raise InvalidInputError("hits: none, or without variance; hits of method 'sift' wanted")
    variance = math.log10(max(hits.variance[-1], _LEAST_VARIANCE))
    return {"score": max(hit.score for hit in hits), "margin": hits.margin, "variance": variance}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic map, monotone in each signal: more margin never lowers the probability, more variance never raises it.

    It holds for the collection, the embedder and the k that it was fitted on.

    Attributes:
        weights: signal -> its weight, of the sign in `SIGNS`. intercept: of the logit. k: of the searches.
        queries: how many it was fitted to.
    """

    weights: Mapping[str, float] = field(hash=False)
    intercept: float
    k: int
    queries: int

    def probability(self, hits: Hits) -> float:
        """The probability that the collection holds an answer, in [0, 1].

        Raises:
            InvalidInputError: no hits, or another number of picks than it was fitted on.
        """
        if len(hits.variance) != self.k:
            raise InvalidInputError(
                f"hits: {len(hits.variance)} picks given, {self.k} wanted: it was fitted with k = {self.k}"
            )
        seen = signals(hits)
        logit = self.intercept + sum(weight * seen[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-logit)) if logit > -500 else 0.0

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {"weights": dict(self.weights), "intercept": self.intercept, "k": self.k, "queries": self.queries}
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            NotFoundError: no such file. InvalidInputError: it is no calibration.
        """
        if not path.is_file():
            raise NotFoundError(f"{path} is not there; make it with sift-store calibrate")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = {str(name): float(weight) for name, weight in content["weights"].items()}
            made = cls(weights, float(content["intercept"]), int(content["k"]), int(content["queries"]))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InvalidInputError(f"{path}: no calibration ({exc}); make one with sift-store calibrate") from exc
        if unknown := set(made.weights) - set(SIGNS):
            raise InvalidInputError(f"{path}: signals {sorted(unknown)} given, some of {list(SIGNS)} wanted")
        return made
