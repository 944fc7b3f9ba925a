"""The query planner: from what was asked and what the store holds to how the search will go. Pure; a plan prints.

It chooses the number of candidates, the index settings, what is pushed down as a filter, and what travels when: ids,
scores and vectors first, text and payload of the winners second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from sift_store.adapter import Statistics
from sift_store.errors import InvalidInputError
from sift_store.filters import Filter, Native, fields
from sift_store.kernels import Kernel
from sift_store.selection import MAX_PICKS, Objective
from sift_store.selection_input import check_positive, kernel_for

__all__ = [
    "DEFAULT_CANDIDATES",
    "DEFAULT_K",
    "TUNING_KERNEL",
    "TUNING_LAMBDA",
    "Method",
    "Plan",
    "Request",
    "make_plan",
]

Method = Literal["sift", "knn", "mmr"]
Order = Literal["pick", "score"]

DEFAULT_K = 5
# The paper's number, and the one that every benchmark of this project uses.
DEFAULT_CANDIDATES = 200
# What objective "query" picks by, to fine-tune on: the paper's linear kernel moves on to what is less like the prompt,
# which is worse than nearest neighbours where like passages are no repeats (docs/fine-tuning.md).
TUNING_KERNEL: Kernel = "rbf"
TUNING_LAMBDA = 0.1
# A selection needs something to leave out.
_CANDIDATES_PER_PICK = 4
# Least breadth of the index walk. Above it, as broad as there are candidates: over 100,000 × 384 that finds 0.985 of
# the nearest 10 and 0.962 of the nearest 200, twice as broad 0.995 and 0.986 (benchmarks/search.py).
_MIN_EF = 128
# From this share of the collection on, comparing with every vector costs no more than walking the index.
_EXACT_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a search was asked for; `SiftStore.search` describes the fields. Checked on construction."""

    k: int | None = None
    method: Method = "sift"
    objective: Objective = "pool"
    replace: bool = False
    candidates: int | None = None
    max_tokens: int | None = None
    min_score: float | None = None
    target_variance: float | None = None
    kernel: Kernel | None = None
    lambda_: float | None = None
    order: Order = "pick"
    where: Filter | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("k", "candidates", "max_tokens"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.min_score is not None and not _is_finite(self.min_score):
            raise InvalidInputError(f"min_score: {self.min_score!r} given, a finite number wanted")
        if self.timeout is not None and not (_is_finite(self.timeout) and self.timeout > 0):
            raise InvalidInputError(f"timeout: {self.timeout!r} given, seconds greater than 0 wanted")
        if self.target_variance is not None and not (
            _is_finite(self.target_variance) and 0 <= self.target_variance <= 1
        ):
            raise InvalidInputError(f"target_variance: {self.target_variance!r} given, a fraction in [0, 1] wanted")
        if not isinstance(self.replace, bool):
            raise InvalidInputError(f"replace: {self.replace!r} given, True or False wanted")
        _one_of("method", self.method, get_args(Method))
        _one_of("objective", self.objective, get_args(Objective))
        _one_of("order", self.order, get_args(Order))
        ours = (self.objective != "pool", self.replace, self.max_tokens is not None, self.target_variance is not None)
        if self.method != "sift" and any(ours):
            raise InvalidInputError(
                f"objective, replace, max_tokens and target_variance belong to method='sift'; {self.method!r} given"
            )
        check_positive(lambda_=self.lambda_)
        if self.objective != "query" and (self.kernel is not None or self.lambda_ is not None):
            raise InvalidInputError(
                f"kernel {self.kernel!r}, lambda_ {self.lambda_!r}: only for objective='query'; leave out for 'pool'"
            )
        kernel_for(self.objective, self.kernel)
        if self.candidates is not None and not self.replace and self.candidates < (self.k or 1):
            raise InvalidInputError(f"candidates: {self.candidates} given, at least k = {self.k} wanted")

    @property
    def limit(self) -> int | None:
        """Most hits; None when only the token budget limits them."""
        return self.k if self.k is not None or self.max_tokens is not None else DEFAULT_K


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search will go, and why.

    Attributes:
        method, objective: of the choice. k: most hits, None with a token budget alone.
        candidates: how many are asked of the engine, for each query vector.
        exact: compare with every vector. ef: breadth of the index walk, None without an index.
        filter: "" or what is pushed down. with_vectors: whether vectors travel in phase one.
        texts_first: whether all candidates' texts are needed before choosing.
        reasons: a line for each choice.
    """

    method: Method
    objective: Objective | None
    k: int | None
    candidates: int
    exact: bool
    ef: int | None
    filter: str
    with_vectors: bool
    texts_first: bool
    reasons: tuple[str, ...]

    def lines(self) -> Sequence[str]:
        """The plan for people, a line a choice."""
        how = self.method if self.objective is None else f'{self.method}, objective "{self.objective}"'
        return [f"plan: {how}, k = {self.k or 'as the budget allows'}", *(f"  {reason}" for reason in self.reasons)]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return asdict(self) | {"reasons": list(self.reasons)}


def make_plan(request: Request, statistics: Statistics) -> Plan:
    """Choose how to answer a request over a store in that state. Pure."""
    wanted = request.limit
    with_vectors = request.method != "knn"
    candidates, why = _candidates(request, wanted, with_vectors)
    exact, ef, index = _index(candidates, statistics)
    reasons = [f"candidates: {candidates} ({why})", f"index: {index}"]
    if request.where is not None:
        reasons.append(f"filter: pushed down to the engine{_unindexed(request.where, statistics)}")
    if request.max_tokens is not None:
        reasons.append(f"transfer: ids, scores, vectors and all texts first: a budget of {request.max_tokens} tokens")
    elif with_vectors:
        reasons.append("transfer: ids, scores and vectors first; text and payload of the chosen second")
    else:
        reasons.append("transfer: ids and scores first, no vectors; text and payload second")
    return Plan(
        method=request.method,
        objective=request.objective if request.method == "sift" else None,
        k=wanted,
        candidates=candidates,
        exact=exact,
        ef=ef,
        filter="" if request.where is None else str(request.where),
        with_vectors=with_vectors,
        texts_first=request.max_tokens is not None,
        reasons=tuple(reasons),
    )


def _candidates(request: Request, wanted: int | None, with_vectors: bool) -> tuple[int, str]:
    if request.candidates is not None:
        return request.candidates, "as asked"
    if not with_vectors:
        return wanted or DEFAULT_K, "k, nearest neighbours need no more"
    many = _CANDIDATES_PER_PICK * (wanted or 0)
    if many > DEFAULT_CANDIDATES:
        return many, f"{_CANDIDATES_PER_PICK} for each of k = {wanted}"
    return DEFAULT_CANDIDATES, "the default"


def _index(candidates: int, statistics: Statistics) -> tuple[bool, int | None, str]:
    count, indexed = statistics.count, statistics.indexed
    if not indexed:
        building = "; one is being built" if statistics.building else ""
        return False, None, f"none, every vector is compared{building}"
    if candidates >= _EXACT_SHARE * count:
        return True, None, f"not used, {candidates} candidates are a large share of all vectors"
    ef = max(candidates, _MIN_EF)
    rest = ", those newer than the index are compared one by one" if count > indexed else ""
    return False, ef, f"HNSW, ef {ef}{rest}"


def _unindexed(where: Filter, statistics: Statistics) -> str:
    if isinstance(where, Native):
        return " as given"
    missing = sorted({key for key in fields(where) if key not in statistics.fields})
    return f"; no payload index on {', '.join(missing)} (declare with indexed=)" if missing else ", all fields indexed"


def _whole(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MAX_PICKS:
        raise InvalidInputError(f"{name}: {value!r} given, a whole number from 1 to {MAX_PICKS:,} wanted")
    return int(value)


def _is_finite(value: object) -> bool:
    if type(value) is bool or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError(f"{name}: {value!r} given, one of {', '.join(map(repr, allowed))} wanted")
