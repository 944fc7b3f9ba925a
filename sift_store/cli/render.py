"""What the command line draws: tables of hits, the comparison of methods, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sift_store.adapter import Finding
from sift_store.cli.terminal import can_show, shown_text
from sift_store.copies import repeats
from sift_store.display import one_line
from sift_store.plan import Method
from sift_store.results import Hits

__all__ = ["comparison", "findings_table", "hits_table", "repeats_in", "row_of", "summary"]

_TITLES: Mapping[Method, str] = {"knn": "nearest neighbours", "mmr": "MMR", "sift": "SIFT"}
_LINES = 6  # of text in a cell, at most
_LEVELS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


def hits_table(hits: Hits) -> RenderableType:
    """One line a hit, then what was left out."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for name in ("pick", "score", "gain", "rank"):
        table.add_column(name, justify="right")
    table.add_column("text", ratio=1)
    for hit in hits:
        gain = "" if hit.gain is None else f"{hit.gain:.2g}"
        body = Text(row_of(hit.text, 240))
        body.append(f"  {row_of(str(hit.id), 240)}", style="dim")
        table.add_row(str(hit.pick), f"{hit.score:.3f}", gain, str(hit.rank), body)
    notes = []
    copies = sum(item.reason != "redundant" for item in hits.suppressed)
    redundant = len(hits.suppressed) - copies
    if hits.suppressed:
        notes.append(f"left out: {copies} copies of a hit or overlapping one, {redundant} nearer but telling less")
    if hits.shortfall:
        notes.append(f"fewer than asked: {shown_text(hits.shortfall)}")
    return Group(table, *(Text(note, style="dim") for note in notes))


def comparison(answers: Mapping[Method, Hits], width: int) -> RenderableType:
    """The methods side by side, repeats marked, and the variance that each leaves."""
    table = Table(show_lines=True, expand=True)
    for method in answers:
        table.add_column(_TITLES[method], ratio=1)
    marks = {method: repeats([hit.text for hit in hits]) for method, hits in answers.items()}
    room = _LINES * max(width // len(answers) - 4, 16)
    for place in range(max(map(len, answers.values()), default=0)):
        table.add_row(*(_cell(hits, marks[method], place, room) for method, hits in answers.items()))
    summed = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "repeats", "variance left"):
        summed.add_column(name, justify="right" if name else "left")
    for method, hits in answers.items():
        left = hits.variance[-1] if hits.variance else 1.0
        count = sum(mark is not None for mark in marks[method])
        summed.add_row(_TITLES[method], f"{count} of {len(hits)}", f"{left:.2%}")
    short = next((hits.shortfall for hits in answers.values() if hits.shortfall), "")
    return Group(table, summed, *([Text(f"fewer than asked: {shown_text(short)}", style="dim")] if short else []))


def repeats_in(hits: Hits) -> int:
    """How many hits repeat the words of an earlier one."""
    return sum(mark is not None for mark in repeats([hit.text for hit in hits]))


def summary(repeated: Mapping[str, int], shown: int, supporting: Mapping[str, int], wanted: int) -> RenderableType:
    """How the methods did over several questions."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column(f"repeats among {shown} passages", justify="right")
    table.add_column(f"of {wanted} supporting pages found", justify="right")
    for method, title in _TITLES.items():
        table.add_row(title, str(repeated[method]), str(supporting[method]))
    return table


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """One line a finding, its mend below it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("level")
    table.add_column("what", ratio=1)
    for finding in findings:
        body = Text(shown_text(finding.what))
        if finding.mend:
            arrow = "→" if can_show("→") else "->"
            body.append(f"\n{arrow} {shown_text(finding.mend)}", style="bold")
        table.add_row(Text(finding.level, style=_LEVELS[finding.level]), body)
    return table


def _cell(hits: Hits, marks: Sequence[int | None], place: int, room: int) -> Text:
    if place >= len(hits):
        return Text("")
    mark = marks[place]
    cell = Text(row_of(hits[place].text, room), style="dim" if mark is not None else "")
    if mark is not None:
        cell.append(f"  {'↑' if can_show('↑') else '^'} repeats {mark + 1}", style="bold red")
    return cell


def row_of(text: str, width: int) -> str:
    """Stored text on one line, as the terminal can show it, cut to the width."""
    return shown_text(one_line(text, width))
