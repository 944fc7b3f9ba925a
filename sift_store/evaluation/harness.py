"""Runs methods over sets and scenarios, and keeps every query's figures on disk: an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sift_store.errors import InvalidInputError
from sift_store.evaluation.datasets import Dataset, Half
from sift_store.evaluation.methods import BASELINE, Choice
from sift_store.evaluation.metrics import CUTOFFS, Judge, redundancy, summary
from sift_store.evaluation.pools import Pool, pools_of
from sift_store.evaluation.scenarios import make_corpus
from sift_store.evaluation.vectors import VectorCache, safe_name
from sift_store.plan import DEFAULT_CANDIDATES

__all__ = ["Cell", "evaluate", "read_cells"]

# Raise it when a method or a measure changes its meaning: kept figures of another edition are computed anew.
_EDITION = 2


@dataclass(frozen=True, slots=True)
class Key:
    """What a cell's figures depend on, beside the methods."""

    dataset: str
    digest: str
    embedder: str
    scenario: str
    half: str
    candidates: int
    edition: int = _EDITION


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Every method on one set, embedder and scenario.

    Attributes:
        dataset, embedder, scenario, half, candidates: as asked. queries: how many.
        figures: method -> measure -> (queries,) values in [0, 1]. families: method -> the grid it belongs to.
    """

    dataset: str
    embedder: str
    scenario: str
    half: str
    candidates: int
    queries: int
    figures: dict[str, dict[str, npt.NDArray[np.float32]]]
    families: dict[str, str]

    def mean(self, method: str, measure: str) -> float:
        """The mean over the queries, in per cent."""
        return 100 * float(self.figures[method][measure].mean())

    def to_dict(self) -> dict[str, Any]:
        """Means as JSON can hold them."""
        told = {name: getattr(self, name) for name in ("dataset", "embedder", "scenario", "half", "candidates")}
        return {**told, "queries": self.queries, "methods": {m: summary(f) for m, f in self.figures.items()}}


Notify = Callable[[str, int, int], None]


def evaluate(
    datasets: Iterable[Dataset],
    vectors: VectorCache,
    scenarios: Sequence[str],
    methods: Sequence[Choice],
    folder: Path,
    *,
    half: Half = "report",
    candidates: int = DEFAULT_CANDIDATES,
    notify: Notify | None = None,
) -> list[Cell]:
    """Measure methods on sets under scenarios; what `folder` holds already is not computed again.

    Args:
        vectors: the embedder and what it has embedded. scenarios: see `scenarios.SCENARIOS`.
        half: the queries to measure on. candidates: K of every method.
        notify: called with (what, done, all).

    Raises:
        InvalidInputError: an unknown scenario. MissingExtraError: the "eval" extra is not installed.
    """
    if candidates < CUTOFFS[-1]:
        raise InvalidInputError(f"candidates: {candidates} given, at least {CUTOFFS[-1]} wanted")
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for dataset in datasets:
        for scenario in scenarios:
            key = Key(dataset.name, dataset.digest, vectors.name, scenario, half, candidates)
            cells.append(_cell(dataset, vectors, methods, folder, key, notify or (lambda *_: None)))
    return cells


def _cell(
    dataset: Dataset, vectors: VectorCache, methods: Sequence[Choice], folder: Path, key: Key, notify: Notify
) -> Cell:
    path = folder / f"{safe_name(f'{key.dataset}.{key.embedder}.{key.scenario}.{key.half}.{key.candidates}')}.npz"
    figures = _kept(path, key)
    missing = [method for method in methods if method.name not in figures]
    rows = dataset.rows(key.half)  # type: ignore[arg-type]  # made from a Half
    if not rows:
        raise InvalidInputError(f"{dataset.name}: no query falls in the half {key.half!r}; use all")
    if missing:
        what = f"{key.dataset}, {key.scenario}, {key.embedder}"
        pools = _pools(dataset, vectors, key, rows, lambda done, total: notify(f"embedding {what}", done, total))
        judge = Judge(dataset, rows)
        for done, method in enumerate(missing):
            notify(what, done, len(missing))
            picked = [list(method.choose(pool, CUTOFFS[-1])) for pool in pools]
            answers = [pool.origin[rows].tolist() for pool, rows in zip(pools, picked, strict=True)]
            figures[method.name] = judge.measure(answers) | redundancy(pools, picked)
            _keep(path, key, figures)
        notify(what, len(missing), len(missing))
    families = {method.name: method.family for method in methods}
    return Cell(
        *(key.dataset, key.embedder, key.scenario, key.half, key.candidates, len(rows)),
        {method.name: figures[method.name] for method in methods},
        families,
    )


def _pools(
    dataset: Dataset, vectors: VectorCache, key: Key, rows: Sequence[int], progress: Callable[[int, int], None]
) -> list[Pool]:
    corpus = make_corpus(dataset, key.scenario, lambda texts: vectors.passages(texts, progress))
    queries = vectors.queries(dataset.queries, progress)
    return list(pools_of(corpus, queries, rows, key.candidates))


# --- kept figures -----------------------------------------------------------------------------------------------------


def _kept(path: Path, key: Key) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Figures of an earlier run with the same key."""
    figures: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    if not path.is_file():
        return figures
    with np.load(path) as kept:
        if str(kept["key"]) != json.dumps(asdict(key)):
            return figures
        for name in kept.files:
            method, bar, measure = name.rpartition("|")
            if bar:
                figures.setdefault(method, {})[measure] = kept[name]
    return figures


def _keep(path: Path, key: Key, figures: dict[str, dict[str, npt.NDArray[np.float32]]]) -> None:
    flat = {f"{method}|{name}": values for method, measured in figures.items() for name, values in measured.items()}
    half_written = path.with_suffix(".part")
    with half_written.open("wb") as file:
        np.savez(file, allow_pickle=False, key=np.array(json.dumps(asdict(key))), **flat)
    half_written.replace(path)


def read_cells(folder: Path, methods: Sequence[Choice]) -> list[Cell]:
    """Every cell that `folder` holds, with those of the methods that it has."""
    cells = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as kept:
            key = Key(**json.loads(str(kept["key"])))
        if key.edition != _EDITION:
            continue
        figures = _kept(path, key)
        known = {method.name: figures[method.name] for method in methods if method.name in figures}
        if BASELINE in known:
            queries = len(next(iter(known[BASELINE].values())))
            families = {method.name: method.family for method in methods}
            cells.append(
                Cell(key.dataset, key.embedder, key.scenario, key.half, key.candidates, queries, known, families)
            )
    return cells
