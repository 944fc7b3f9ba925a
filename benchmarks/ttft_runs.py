"""What the experiment does: picks by each method, an adaptation that is looked at now and then, a line for each run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import RESULTS
from sift_store_transformers import TestTimeTuner
from ttft_data import Domain, Piece

from sift_store import remaining_variance, select
from sift_store.jsonl import read_jsonl
from sift_store.kernels import similarity_spread

CANDIDATES = 200
LOOKS = (1, 2, 5, 10, 20, 50)
LAMBDAS = (0.01, 0.1, 0.3, 1.0, 3.0)
RUNS = RESULTS / "ttft"


@dataclass(frozen=True)
class Picked:
    """rows: of the domain's passages, in order. left: variance after each, under the linear kernel."""

    rows: list[int]
    left: list[float]


def picks(method: str, domain: Domain, query: npt.NDArray[np.float32], steps: int, seed: str) -> Picked:
    """The first `steps` picks of a method; "sift 0.1" is SIFT with λ = 0.1, "sift 0.1 rbf 1" with another kernel."""
    nearest = np.argsort(-(domain.vectors @ query), kind="stable")[:CANDIDATES]
    if method.startswith("copied "):  # as if each passage were in the index five times; for SIFT, search leaves one
        nearest, method = nearest[: CANDIDATES // 5], method.removeprefix("copied ")
        if method == "nearest":
            return Picked(np.repeat(nearest, 5)[:steps].tolist(), [])
    pool = domain.vectors[nearest]
    if method.startswith("sift"):
        _, lambda_, *width = method.split()
        kernel: dict[str, Any] = {"kernel": "rbf", "bandwidth": float(width[1]) * spread(pool)} if width else {}
        rows = select(pool, query, steps, objective="query", replace=True, lambda_=float(lambda_), **kernel).indices
        left = remaining_variance(pool, query, rows, objective="query", lambda_=float(lambda_))
        return Picked(nearest[rows].tolist(), left.tolist())
    if method == "nearest":
        rows = nearest[:steps]
    elif method == "repeated":
        rows = np.repeat(nearest[:1], steps)
    elif method == "uncertainty":
        rows = nearest[most_uncertain(pool, steps)]
    else:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
        rows = rng.choice(len(domain.passages), steps, replace=False)
    return Picked(rows.tolist(), [])


def spread(pool: npt.NDArray[np.float32]) -> float:
    """Standard deviation of the similarities between a pool's candidates."""
    return float(similarity_spread(pool @ pool.T))


def most_uncertain(pool: npt.NDArray[np.float32], steps: int, lambda_: float = 0.01) -> list[int]:
    """Uncertainty sampling: each time the candidate of the largest posterior variance, whatever the query."""
    covariance = (pool @ pool.T).astype(np.float64)
    chosen: list[int] = []
    for _ in range(steps):
        pick = int(covariance.diagonal().argmax())
        chosen.append(pick)
        column = covariance[:, pick].copy()
        covariance -= np.outer(column, column) / (column[pick] + lambda_)
    return chosen


class Watched:
    """Adapts on passages and measures a text's bits per byte after some of the steps."""

    def __init__(self, tuner: TestTimeTuner) -> None:
        self.tuner = tuner

    def run(self, passages: Sequence[str], looks: Sequence[int], text: str, context: str = "", guard: str = "") -> Any:
        """Bits per byte after each look, the seconds of the steps until then, and losses of the guard."""
        bits: dict[int, float] = {}
        guarded: dict[int, float] = {}

        def look(done: int, _: int) -> None:
            if done in looks:
                bits[done] = self.tuner.bits_per_byte(text, context)
                if guard:
                    guarded[done] = self.tuner.loss(guard)

        adaptation = self.tuner.adapt(list(passages), progress=look)
        with adaptation:
            pass
        spent = np.cumsum([step.seconds for step in adaptation.steps])
        return {
            "bits": bits,
            "guarded": guarded,
            "seconds": {look: float(spent[look - 1]) for look in bits},
        }


def halves(text: str, tokenizer: Any) -> tuple[str, str]:
    """The first half of a text's tokens, and the rest."""
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    cut = offsets[len(offsets) // 2][0]
    return text[:cut], text[cut:]


class Book:
    """Lines of results, one file for each worker; what is in any of them is not done again."""

    def __init__(self, worker: str) -> None:
        RUNS.mkdir(parents=True, exist_ok=True)
        self._own = RUNS / f"runs-{worker}.jsonl"
        self.done = {_key(row): row for row in read_runs()}

    def write(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self.done[_key(row)] = row
        with self._own.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def has(self, **row: Any) -> bool:
        """Whether such a run is there, with as many steps at least."""
        found = self.done.get(_key(row))
        return found is not None and found["steps"] >= row["steps"]


def read_runs(folder: Path = RUNS) -> Iterator[dict[str, Any]]:
    """All lines of all workers."""
    for path in sorted(folder.glob("runs-*.jsonl")):
        for _, row in read_jsonl(path):
            yield row


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("protocol", "domain", "piece", "method"))


class Experiment:
    """The runs of one worker."""

    def __init__(self, tuner: TestTimeTuner, embed: Any, book: Book) -> None:
        self.watched = Watched(tuner)
        self.tuner = tuner
        self.embed = embed
        self.book = book

    def piece(self, protocol: str, domain: Domain, piece: Piece, methods: Sequence[str], steps: int) -> None:
        """All methods on one piece. "whole": it is embedded and scored; "remainder": its first half is embedded."""
        wanted = [
            m
            for m in methods
            if not self.book.has(protocol=protocol, domain=domain.name, piece=piece.id, method=m, steps=steps)
        ]
        if not wanted:
            return
        prefix, rest = halves(piece.text, self.tuner.tokenizer) if protocol == "remainder" else ("", piece.text)
        query = self.embed(prefix or rest)
        looks = [look for look in LOOKS if look <= steps]
        base = self.tuner.bits_per_byte(rest, prefix)
        guard = self.tuner.loss(prefix) if prefix else math.nan
        ran: dict[tuple[int, ...], Any] = {}
        for method in wanted:
            chosen = picks(method, domain, query, steps, f"{domain.name} {piece.id}")
            rows = tuple(chosen.rows)
            if rows not in ran:
                ran[rows] = self.watched.run([domain.passages[row] for row in rows], looks, rest, prefix, prefix)
            self.book.write(
                {
                    "protocol": protocol,
                    "domain": domain.name,
                    "piece": piece.id,
                    "half": piece.half,
                    "method": method,
                    "steps": steps,
                    "base": base,
                    "base_guard": guard,
                    "distinct": {n: len(set(rows[:n])) for n in looks},
                    "left": chosen.left,
                    "rows": list(rows),
                    **ran[rows],
                }
            )

    def in_context(self, domain: Domain, piece: Piece, methods: Sequence[str], numbers: Sequence[int]) -> None:
        """The same picks before the piece instead of trained on, in the order picked, each once."""
        for method in methods:
            if self.book.has(protocol="context", domain=domain.name, piece=piece.id, method=method, steps=max(numbers)):
                continue
            query = self.embed(piece.text)
            rows = picks(method, domain, query, max(numbers), f"{domain.name} {piece.id}").rows
            bits = {}
            for number in numbers:
                texts = [domain.passages[row] for row in dict.fromkeys(rows[:number])]
                bits[number] = self.tuner.bits_per_byte(piece.text, "\n\n".join(texts) + "\n\n")
            base = self.tuner.bits_per_byte(piece.text)
            self.book.write(
                {
                    "protocol": "context",
                    "domain": domain.name,
                    "piece": piece.id,
                    "half": piece.half,
                    "method": method,
                    "steps": max(numbers),
                    "base": base,
                    "bits": bits,
                }
            )
