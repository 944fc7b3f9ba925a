"""What was measured, as Markdown tables, as plots, and put into a document between its marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sift_store.errors import InvalidInputError
from sift_store.evaluation.harness import Cell
from sift_store.evaluation.intervals import paired_difference
from sift_store.evaluation.methods import BASELINE, DEFAULT
from sift_store.evaluation.metrics import CUTOFFS
from sift_store.evaluation.vectors import safe_name
from sift_store.registry import needs_extra

__all__ = ["draw", "tables", "update_document"]

_MEASURES = ("recall@5", "recall@10", "all@5", "ndcg@10")
_SUBTOPIC_MEASURES = ("srecall@5", "srecall@10", "alpha_ndcg@10")
_PARTS = (BASELINE, DEFAULT)


def tables(cells: Sequence[Cell]) -> dict[str, str]:
    """Markdown by name: "<embedder> <scenario>" for the figures, the same with " difference" for SIFT − nearest."""
    found = {}
    for name, group in _groups(cells).items():
        found[name] = _figures(group)
        found[f"{name} difference"] = _differences(group)
    return found


def _groups(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(f"{cell.embedder} {cell.scenario}", []).append(cell)
    return groups


def measures_of(cell: Cell) -> tuple[str, ...]:
    """The measures that a table shows of a set."""
    return _SUBTOPIC_MEASURES if "srecall@5" in cell.figures[BASELINE] else _MEASURES


def _figures(group: Sequence[Cell]) -> str:
    """A row a family; of a family with a grid, the best of each column, which no single setting reaches."""
    columns = [(cell, measure) for cell in group for measure in measures_of(cell)]
    rows = []
    for family in dict.fromkeys(family for cell in group for family in cell.families.values()):
        members = [name for name, of in group[0].families.items() if of == family]
        shown = family if len(members) == 1 else f"{family}, best of {len(members)} for each column"
        line = [shown]
        for cell, measure in columns:
            values = [cell.mean(name, measure) for name in members if name in cell.figures]
            line.append(f"{max(values):.1f}" if values else "")
        rows.append(line)
    header = ["%", *(f"{cell.dataset} {measure}" for cell, measure in columns)]
    return _markdown(header, rows)


def _differences(group: Sequence[Cell]) -> str:
    rows = []
    for cell in group:
        if DEFAULT not in cell.figures:
            continue
        for measure in measures_of(cell):
            found = paired_difference(cell.figures[DEFAULT][measure], cell.figures[BASELINE][measure])
            rows.append(
                [
                    cell.dataset,
                    measure,
                    str(cell.queries),
                    f"{cell.mean(BASELINE, measure):.1f}",
                    f"{cell.mean(DEFAULT, measure):.1f}",
                    f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
                    f"{found.wins} / {found.losses}",
                ]
            )
    header = ["set", "measure", "queries", BASELINE, DEFAULT, "difference, 95 % interval", "better / worse on"]
    return _markdown(header, rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def update_document(path: Path, made: dict[str, str]) -> list[str]:
    """Put each table between its marks, ``<!-- eval: NAME -->`` and ``<!-- end -->``; other text stays as it is.

    Returns:
        The names that were put.

    Raises:
        InvalidInputError: the document names a table that was not made, or a mark has no end; nothing was written.
    """
    text = path.read_text(encoding="utf-8")
    mark = re.compile(r"(<!-- eval: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
    if any("<!-- eval:" in found[0][len(found[1]) :] for found in mark.finditer(text)):
        raise InvalidInputError(f"{path}: a mark <!-- eval: … --> has no end; <!-- end --> wanted before the next")
    wanted = [name for _, name, _ in mark.findall(text)]
    if unknown := [name for name in wanted if name not in made]:
        raise InvalidInputError(f"{path} wants {', '.join(unknown)}, which no run has measured; measured: {list(made)}")
    path.write_text(mark.sub(lambda found: found[1] + made[found[2]] + found[3], text), encoding="utf-8")
    return wanted


def draw(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Recall and redundancy against k, a figure an embedder and scenario, as PNG and SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("eval"):
        from matplotlib.figure import Figure
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, group in _groups(cells).items():
        figure = Figure(figsize=(8, 2.4 * len(group)), layout="constrained")
        axes: Any = figure.subplots(len(group), 2, squeeze=False)
        for row, cell in zip(axes, group, strict=True):
            recall = "srecall" if "srecall@5" in cell.figures[BASELINE] else "recall"
            for method in _drawn(cell, recall):
                row[0].plot(CUTOFFS, [cell.mean(method, f"{recall}@{k}") for k in CUTOFFS], marker=".", label=method)
                some = CUTOFFS[1:]
                row[1].plot(some, [cell.mean(method, f"similarity@{k}") for k in some], marker=".", label=method)
            row[0].set_ylabel("subtopic recall, %" if recall == "srecall" else "recall, %")
            row[1].set_ylabel("mean cosine of two picks, %")
            row[0].set_title(cell.dataset, fontsize="medium", loc="left")
            for axis in row:
                axis.set_xlabel("k")
                axis.grid(alpha=0.3)
        axes[0][1].legend(fontsize="small")
        for kind in ("png", "svg"):
            path = folder / f"{safe_name(name)}.{kind}"
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else None)
            written.append(path)
    return written


def _drawn(cell: Cell, recall: str) -> list[str]:
    """The baseline, SIFT, and of the most used families the member that is best at recall@10."""
    chosen = [name for name in _PARTS if name in cell.figures]
    for family in ("threshold", "MMR", "DPP"):
        members = [name for name in cell.figures if cell.families[name] == family]
        if members:
            chosen.append(max(members, key=lambda name: cell.mean(name, f"{recall}@10")))
    return chosen
