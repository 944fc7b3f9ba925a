"""The commands that measure: eval, calibrate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markdown import Markdown
from rich.text import Text

from sift_store.calibration import signals
from sift_store.cli.opening import existing_store
from sift_store.cli.terminal import bars, complain, out, print_json, say, shown_text
from sift_store.embedding import as_embedding
from sift_store.errors import InvalidInputError
from sift_store.evaluation.calibrating import draw_judgement, fit, judge
from sift_store.evaluation.datasets import Half, read_dataset, read_lines
from sift_store.evaluation.harness import evaluate, read_cells
from sift_store.evaluation.methods import all_methods
from sift_store.evaluation.report import draw, tables, update_document
from sift_store.evaluation.scenarios import SCENARIOS
from sift_store.evaluation.vectors import VectorCache, safe_name
from sift_store.plan import DEFAULT_CANDIDATES, DEFAULT_K

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("eval")(eval_)
    app.command()(calibrate)


def eval_(
    folders: Annotated[
        list[Path], typer.Argument(help="Labelled sets: corpus.jsonl, queries.jsonl, qrels.jsonl in each.")
    ],
    embedder: Annotated[
        list[str] | None, typer.Option(help="A named embedder; may be repeated. Default: minilm.")
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="; ".join(f"{name}: {what}" for name, what in SCENARIOS.items()) + ". May be repeated."),
    ] = None,
    half: Annotated[
        str, typer.Option(help="Queries to measure on: choose, report (halves by a hash of the id), or all.")
    ] = "all",
    candidates: Annotated[int, typer.Option(help="How many candidates each method chooses from.")] = DEFAULT_CANDIDATES,
    results: Annotated[
        Path, typer.Option("--results", help="Where vectors and figures are kept; an interrupted run goes on there.")
    ] = Path("sift-eval"),
    update: Annotated[
        Path | None, typer.Option(help="A Markdown document whose marked tables are replaced by what results hold.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure nearest neighbours, what people use for diversity, and SIFT on labelled sets."""
    if half not in ("choose", "report", "all"):
        raise InvalidInputError(f"--half {half!r}: choose, report or all wanted")
    methods = all_methods()
    datasets = [read_dataset(folder) for folder in folders]
    cells = []
    with bars("reading") as notify:
        for name in embedder or ["minilm"]:
            made = as_embedding(name)
            vectors = VectorCache(cast(Any, made), results / "vectors")
            cells += evaluate(
                datasets,
                vectors,
                scenario or ["clean"],
                methods,
                results / "figures",
                half=cast(Half, half),
                candidates=candidates,
                notify=notify,
            )
    made_tables = tables(cells)
    for name, text in made_tables.items():
        (results / f"{safe_name(name)}.md").write_text(text, encoding="utf-8")
    drawn = draw(cells, results / "plots")
    if update is not None:
        kept = [
            cell
            for cell in read_cells(results / "figures", methods)
            if (cell.half, cell.candidates) == (half, candidates)
        ]
        update_document(update, tables(kept))
    if as_json:
        print_json([cell.to_dict() for cell in cells])
        return
    for name, text in made_tables.items():
        out.rule(Text(shown_text(name)), align="left")
        out.print(Markdown(shown_text(text)))
    complain(f"written: {results}/*.md, {len(drawn)} plots in {results / 'plots'}")


def calibrate(
    store: Annotated[str, typer.Argument(help="A folder such as handbook.sift, or a URL.")],
    questions: Annotated[
        Path,
        typer.Argument(help='One object a line: {"text": "…", "answerable": true}, the label by your own reading.'),
    ],
    k: Annotated[int, typer.Option("--k", "-k", help="How many passages a search returns.")] = DEFAULT_K,
    save: Annotated[Path, typer.Option(help="Where the fitted map goes.")] = Path("calibration.json"),
    plot: Annotated[Path | None, typer.Option(help="Reliability diagram and selective curve, .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit "does the store hold an answer?" to labelled questions, and say how well it can be told."""
    labelled = list(read_lines(questions, ("text", "answerable")))
    for where, row in labelled:
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise InvalidInputError(f"{where}: text {row['text']!r} given, a question wanted")
        if not isinstance(row["answerable"], bool):
            raise InvalidInputError(f"{where}: answerable {row['answerable']!r} given, true or false wanted")
    with existing_store(store) as opened, bars("reading") as notify:
        seen = []
        for done, (where, row) in enumerate(labelled):
            notify("searching", done, len(labelled))
            hits = opened.search(row["text"], k=k)
            if len(hits) < k:
                raise InvalidInputError(f"{where}: {len(hits)} hits, k = {k} wanted: {hits.shortfall}")
            seen.append(signals(hits))
    answerable = [bool(row["answerable"]) for _, row in labelled]
    fitted, judgement = fit(seen, answerable, k), judge(seen, answerable)
    fitted.save(save)
    if plot is not None:
        draw_judgement(judgement, plot)
    if as_json:
        print_json({"weights": dict(fitted.weights), **asdict(judgement)})
        return
    say(f"{judgement.queries} questions, {judgement.answerable} answerable; by cross-validation:")
    for name, area in judgement.auroc.items():
        say(f"  told apart by {name:9} AUROC {area:.3f}")
    say(f"  expected calibration error {judgement.ece:.3f}")
    for share, right in judgement.selective[1::2]:
        say(f"  answering the surest {share:.0%}: {right:.0%} are answerable")
    say(f"written: {save}")
