"""Tables and plots of test-time fine-tuning out of what the runs left; every number is computed from their lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from ttft_data import DOMAINS
from ttft_runs import LOOKS, RUNS, read_runs

from sift_store.evaluation.intervals import paired_difference
from sift_store.evaluation.report import update_document
from sift_store.hooks import steps_worth_taking

TITLES = {
    "nearest": "nearest neighbours",
    "repeated": "nearest, repeated",
    "random": "random",
    "uncertainty": "uncertainty sampling",
}
ALPHAS = (0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)

_ENOUGH = 8  # pieces, for an interval to mean something

Run = dict[str, Any]
Table = tuple[Sequence[str], list[Sequence[str]]]


class Runs:
    """The runs of one half, by protocol, method, domain and piece."""

    def __init__(self, half: str) -> None:
        self.rows: dict[tuple[str, str, str, str], Run] = {}
        for row in read_runs():
            if row["half"] == half:
                key = (row["protocol"], row["method"], row["domain"], row["piece"])
                if key not in self.rows or self.rows[key]["steps"] < row["steps"]:
                    self.rows[key] = row

    def methods(self, protocol: str) -> list[str]:
        """Those that were run, SIFT's first."""
        found = dict.fromkeys(method for kind, method, *_ in self.rows if kind == protocol)
        return sorted(found, key=lambda name: (not name.startswith("sift"), name))

    def pieces(self, protocol: str, domain: str, methods: Iterable[str], steps: int) -> list[str]:
        """Pieces on which all methods took so many steps."""
        sets = [
            {
                piece
                for (kind, name, of, piece), row in self.rows.items()
                if (kind, name, of) == (protocol, method, domain) and str(steps) in row["bits"]
            }
            for method in methods
        ]
        return sorted(set.intersection(*sets)) if sets else []

    def of(self, protocol: str, method: str, domain: str, piece: str) -> Run:
        """One run."""
        return self.rows[protocol, method, domain, piece]

    def values(
        self, protocol: str, method: str, domain: str, pieces: Sequence[str], value: Callable[[Run], float]
    ) -> npt.NDArray[np.float64]:
        """A number of each run."""
        return np.array([value(self.of(protocol, method, domain, piece)) for piece in pieces])


def share(steps: int) -> Callable[[Run], float]:
    """Bits per byte after so many steps, % of the base model's."""
    return lambda row: 100 * row["bits"][str(steps)] / row["base"]


def guarded(steps: int) -> Callable[[Run], float]:
    """The same with the guard: 100 where the prefix's own loss did not fall."""
    return lambda row: share(steps)(row) if row["guarded"][str(steps)] < row["base_guard"] else 100.0


def title(method: str) -> str:
    """A method's name for people."""
    name = method.removeprefix("copied ")
    if name.startswith("sift"):
        _, lambda_, *kernel = name.split()
        named = f"SIFT, {' '.join(kernel) or 'linear'}, λ = {lambda_}"
    else:
        named = TITLES[name]
    return named if name == method else f"{named}, five copies of each"


def by_domain(
    runs: Runs, protocol: str, methods: Sequence[str], steps: int, value: Callable[[Run], float] | None = None
) -> Table:
    """A row a domain: mean and standard error of each method, over the pieces that all were run on."""
    value = value or share(steps)
    rows: list[Sequence[str]] = []
    means, errors, count = [], [], 0
    for domain in DOMAINS:
        pieces = runs.pieces(protocol, domain, methods, steps)
        if not pieces:
            continue
        values = np.array([runs.values(protocol, method, domain, pieces, value) for method in methods])
        means.append(values.mean(axis=1))
        errors.append(
            values.std(axis=1, ddof=1) / math.sqrt(len(pieces)) if len(pieces) > 1 else np.zeros(len(methods))
        )
        count += len(pieces)
        cells = [f"{m:.1f} ± {e:.1f}" if e else f"{m:.1f}" for m, e in zip(means[-1], errors[-1], strict=True)]
        rows.append([domain, str(len(pieces)), *cells])
    if rows:
        rows.append(["**all domains**", str(count), *(f"**{mean:.1f}**" for mean in np.mean(means, axis=0))])
    return ["domain", "pieces", *map(title, methods)], rows


def by_steps(runs: Runs, protocol: str, methods: Sequence[str], most: int) -> Table:
    """A row a number of steps: each method's mean over the domains."""
    rows: list[Sequence[str]] = []
    for steps in [look for look in LOOKS if look <= most]:
        means = [domain_means(runs, protocol, method, methods, most, share(steps)) for method in methods]
        rows.append([str(steps), *(f"{np.mean(values):.1f}" if values else "" for values in means)])
    return ["steps", *map(title, methods)], rows


def domain_means(
    runs: Runs, protocol: str, method: str, methods: Sequence[str], most: int, value: Callable[[Run], float]
) -> list[float]:
    """A method's mean in each domain, over the pieces on which all methods went so far."""
    found = []
    for domain in DOMAINS:
        pieces = runs.pieces(protocol, domain, methods, most)
        if pieces:
            found.append(float(runs.values(protocol, method, domain, pieces, value).mean()))
    return found


def differences(runs: Runs, protocol: str, ours: str, theirs: str, steps: int) -> Table:
    """A row a domain: the paired difference of two methods; an interval over all pieces, where there are enough."""
    rows: list[Sequence[str]] = []
    every: list[tuple[Any, Any]] = []
    for domain in DOMAINS:
        pieces = runs.pieces(protocol, domain, (ours, theirs), steps)
        if pieces:
            pair = [runs.values(protocol, method, domain, pieces, share(steps)) for method in (ours, theirs)]
            every.append((pair[0], pair[1]))
            rows.append([domain, str(len(pieces)), *_difference(pair[0], pair[1])])
    if every:
        pooled = [np.concatenate(values) for values in zip(*every, strict=True)]
        rows.append(["**all pieces**", str(len(pooled[0])), *_difference(pooled[0], pooled[1])])
    return ["domain", "pieces", f"{title(ours)} − {title(theirs)}", "lower / higher on"], rows


def _difference(ours: Any, theirs: Any) -> list[str]:
    found = paired_difference(ours.astype(np.float32), theirs.astype(np.float32))
    interval = f" [{found.low:+.1f}, {found.high:+.1f}]" if len(ours) >= _ENOUGH else ""
    return [f"{found.mean:+.1f}{interval}", f"{found.losses} / {found.wins}"]


def context_table(runs: Runs, methods: Sequence[str], numbers: Sequence[int]) -> Table:
    """The same picks in the context and trained on: a row a domain for the most picks, then all domains by number."""
    columns = [(method, kind) for method in methods for kind in ("context", "whole")]
    most = max(numbers)
    by_name = {}
    for domain in DOMAINS:
        tuned = set(runs.pieces("whole", domain, methods, most))
        pieces = [piece for piece in runs.pieces("context", domain, methods, most) if piece in tuned]
        if pieces:
            by_name[domain] = np.array(
                [
                    [runs.values(kind, method, domain, pieces, share(number)).mean() for method, kind in columns]
                    for number in numbers
                ]
            )
    rows = [[domain, str(most), *(f"{mean:.1f}" for mean in means[-1])] for domain, means in by_name.items()]
    if by_name:
        every = np.mean(list(by_name.values()), axis=0)
        rows += [
            ["**all domains**", str(number), *(f"**{mean:.1f}**" for mean in means)]
            for number, means in zip(numbers, every, strict=True)
        ]
    names = {"context": "in context", "whole": "tuned on"}
    return ["domain", "picks", *(f"{title(method)}, {names[kind]}" for method, kind in columns)], rows


def stopping_table(runs: Runs, method: str, most: int) -> Table:
    """What the α rule saves and what it costs, over all pieces; gains between two looks are interpolated."""
    rows: list[Sequence[str]] = []
    found = _pieces(runs, method, most)
    whole = np.mean([_gain(row, most) for row in found])
    for alpha in ALPHAS:
        steps = [steps_worth_taking(row["left"][:most], alpha) for row in found]
        kept = np.mean([_gain(row, n) for row, n in zip(found, steps, strict=True)])
        same = np.mean([_gain(row, float(np.mean(steps))) for row in found])
        shares = [f"{100 * gain / whole:.0f} %" for gain in (kept, same)]
        rows.append([f"{alpha:g}", f"{np.mean(steps):.1f} of {most}", *shares])
    return ["α", "steps, mean", "of the gain of all steps", "the same number of steps for every piece"], rows


def variance_table(runs: Runs, method: str, numbers: Sequence[int]) -> Table:
    """Does the variance left say how much was gained? Over all pieces, and with each domain's means taken away."""
    rows: list[Sequence[str]] = []
    for steps in numbers:
        found = _pieces(runs, method, steps)
        if len(found) >= _ENOUGH:
            left = np.array([row["left"][steps - 1] for row in found])
            gain = np.array([_gain(row, steps) for row in found])
            names = [row["domain"] for row in found]
            within = _rho(_within(left, names), _within(gain, names))
            rows.append([str(steps), str(len(found)), _rho(left, gain), within])
    return ["steps", "pieces", "Spearman's ρ of variance left and gain", "within domains"], rows


def _within(values: Any, names: Sequence[str]) -> Any:
    means = {name: np.mean([v for v, other in zip(values, names, strict=True) if other == name]) for name in set(names)}
    return np.array([value - means[name] for value, name in zip(values, names, strict=True)])


def _pieces(runs: Runs, method: str, steps: int) -> list[Run]:
    """The runs of a method, whole pieces, that took so many steps."""
    found = [row for (protocol, name, *_), row in runs.rows.items() if (protocol, name) == ("whole", method)]
    return [row for row in found if str(steps) in row["bits"]]


def _gain(row: Run, steps: float) -> float:
    """Points gained after so many steps, between two looks on a straight line."""
    looks = [look for look in LOOKS if str(look) in row["bits"]]
    return float(np.interp(steps, [0, *looks], [0.0, *(100 - share(look)(row) for look in looks)]))


def _rho(left: Any, gain: Any) -> str:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, len(left), len(left)) for _ in range(2000)]
    drawn = [spearmanr(left[rows], gain[rows]).statistic for rows in samples if len(set(rows.tolist())) > 2]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{spearmanr(left, gain).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def lambda_table(runs: Runs, steps: int) -> Table:
    """By kernel and λ: each domain, how many passages are distinct, and what the best linear λ of each piece gave."""
    sift = [name for name in runs.methods("whole") if name.startswith("sift")]
    methods = [*sorted(sift, key=lambda name: (name.split()[2:], float(name.split()[1]))), "nearest"]
    columns, rows = by_domain(runs, "whole", methods, steps)
    distinct = [
        np.mean(domain_means(runs, "whole", name, methods, steps, lambda row: row["distinct"][str(steps)]))
        for name in methods
    ]
    rows.append([f"distinct passages of {steps}", "", *(f"{number:.1f}" for number in distinct)])
    linear = [name for name in methods if len(name.split()) == 2]
    hindsight = []
    for domain in DOMAINS:
        pieces = runs.pieces("whole", domain, methods, steps)
        if pieces:
            every = [runs.values("whole", name, domain, pieces, share(steps)) for name in linear]
            hindsight.append(np.min(every, axis=0).mean())
    rows.append(
        ["linear, the best λ of each piece in hindsight", "", f"{np.mean(hindsight):.1f}", *[""] * (len(methods) - 1)]
    )
    return columns, rows


def markdown(table: Table) -> str:
    """A table as Markdown."""
    columns, rows = table
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def curve(runs: Runs, method: str, methods: Sequence[str], most: int, of: Callable[[Run, int], float]) -> list[float]:
    """A number after each look, mean over the domains, on the pieces that all methods share; while all have it."""
    found: list[float] = []
    for look in LOOKS:
        try:
            found.append(float(np.mean(domain_means(runs, "whole", method, methods, most, partial(of, steps=look)))))
        except KeyError:
            break
    return found


def draw(runs: Runs, methods: Sequence[str], sift: str, most: int) -> None:
    """Bits per byte against steps and seconds; gain against the variance left."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    by_steps_, by_seconds, by_variance = figure.subplots(1, 3)
    for method in methods:
        shares = [100.0, *curve(runs, method, methods, most, lambda row, steps: share(steps)(row))]
        seconds = [0.0, *curve(runs, method, methods, most, lambda row, steps: row["seconds"][str(steps)])]
        by_steps_.plot((0, *LOOKS)[: len(shares)], shares, marker=".", label=title(method))
        by_seconds.plot(seconds, shares, marker=".")
    for domain in DOMAINS:
        pieces = runs.pieces("whole", domain, (sift,), most)
        left = runs.values("whole", sift, domain, pieces, lambda row: row["left"][most - 1])
        by_variance.scatter(left, 100 - runs.values("whole", sift, domain, pieces, share(most)), s=14, label=domain)
    labels = ("gradient steps", "seconds of tuning, one thread", f"variance left after {most} picks")
    for axis, label in zip((by_steps_, by_seconds, by_variance), labels, strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.set_ylabel("gain, points" if axis is by_variance else "bits per byte, % of the base model")
    by_steps_.legend(fontsize="x-small")
    by_variance.legend(fontsize="x-small")
    figure.savefig(RUNS / "fine-tuning.svg", metadata={"Date": None})
    figure.savefig(RUNS / "fine-tuning.png")


def write_report(sift: str, document: Path | None) -> None:
    """All tables, printed; those that the document names are put into it."""
    chosen, reported = Runs("choose"), Runs("report")
    methods = ["nearest", sift, "sift 0.1", "repeated", "random", "uncertainty"]
    few = ["nearest", sift]
    tables = {
        "lambda 20": lambda_table(chosen, 20),
        "lambda 5": lambda_table(chosen, 5),
        "lambda steps": by_steps(chosen, "whole", [*chosen.methods("whole")], 20),
        "whole 20": by_domain(reported, "whole", methods, 20),
        "whole 50": by_domain(reported, "whole", methods[:3], 50),
        "steps": by_steps(reported, "whole", methods, 20),
        "difference 20": differences(reported, "whole", sift, "nearest", 20),
        "difference 50": differences(reported, "whole", sift, "nearest", 50),
        "kernels choose": differences(chosen, "whole", sift, "sift 0.1", 20),
        "kernels 20": differences(reported, "whole", sift, "sift 0.1", 20),
        "kernels 50": differences(reported, "whole", sift, "sift 0.1", 50),
        "difference remainder": differences(reported, "remainder", sift, "nearest", 20),
        "copied 20": by_domain(reported, "whole", ["nearest", "copied nearest", sift, f"copied {sift}"], 20),
        "context": context_table(reported, few, (1, 5, 10)),
        "remainder 20": by_domain(reported, "remainder", few, 20),
        "remainder guarded 20": by_domain(reported, "remainder", few, 20, guarded(20)),
        "variance": variance_table(reported, sift, (1, 5, 20, 50)),
        "stopping choose": stopping_table(chosen, sift, 20),
        "stopping 20": stopping_table(reported, sift, 20),
        "stopping 50": stopping_table(reported, sift, 50),
    }
    made = {f"ttft {name}": markdown(table) for name, table in tables.items()}
    for name, text in made.items():
        print(f"\n{name}\n{text}")
    (RUNS / "tables.md").write_text("\n".join(f"{name}\n\n{text}" for name, text in made.items()), encoding="utf-8")
    if document is not None:
        print("put into", document, ":", ", ".join(update_document(document, made)))
    draw(reported, methods, sift, 20)
