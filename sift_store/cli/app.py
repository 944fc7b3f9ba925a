"""The commands. Each opens a store, calls it, and prints; `--json` prints for machines."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from sift_store.cli import adding, finetuning, quality
from sift_store.cli.ingest import Chunking, read
from sift_store.cli.opening import embedder_of, embedding_of, existing_store, exists, shown
from sift_store.cli.render import comparison, findings_table, hits_table, repeats_in, summary
from sift_store.cli.running import Commands, run
from sift_store.cli.terminal import bar, complain, out, print_json, say, shown_text, working
from sift_store.errors import InvalidInputError, NotFoundError
from sift_store.filters import parse_datetime
from sift_store.jsonl import read_jsonl
from sift_store.plan import DEFAULT_K, Method
from sift_store.store import SiftStore, drop_collection, list_collections, migrate_schema

__all__ = ["main"]

app = typer.Typer(
    cls=Commands,
    help="Retrieval that answers with an informative, non-redundant subset instead of k copies of one fact.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
adding.add_commands(app)
quality.add_commands(app)
finetuning.add_commands(app)

StoreArgument = Annotated[
    str, typer.Argument(help="A folder such as handbook.sift, or a URL; ?collection=NAME picks one.")
]
QueryArgument = Annotated[str, typer.Argument(help="The question.")]
KOption = Annotated[int, typer.Option("--k", "-k", help="How many passages.")]
WhereOption = Annotated[
    str | None, typer.Option(help='A filter as JSON, e.g. \'{"year": {"$gte": 2020}, "at": {"$lt": "2024-05-01"}}\'.')
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        help="minilm, or the name or folder of a sentence-transformers model. Default: what the store remembers."
    ),
]
QueryPrefix = Annotated[str | None, typer.Option(help='Put before queries, e.g. "query: " for E5 models.')]
PassagePrefix = Annotated[str | None, typer.Option(help='Put before passages, e.g. "passage: " for E5 models.')]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input: one line on stderr and exit code 2."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # the bars drawn here are enough
        os.environ.setdefault(name, "1")
    sys.exit(run(app, arguments))


@app.command()
def search(
    store: StoreArgument,
    query: QueryArgument,
    k: KOption = DEFAULT_K,
    where: WhereOption = None,
    method: Annotated[str, typer.Option(help="sift, knn or mmr.")] = "sift",
    max_tokens: Annotated[int | None, typer.Option(help="Budget for the texts together.")] = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question."""
    with existing_store(store, embedder) as opened:
        wanted = cast(Method, method)  # checked by the store
        hits = opened.search(query, k=k, where=_where(where), method=wanted, max_tokens=max_tokens)
    if as_json:
        print_json(hits.to_dict())
    else:
        out.print(hits_table(hits))


@app.command()
def compare(
    store: StoreArgument,
    query: QueryArgument,
    k: KOption = DEFAULT_K,
    where: WhereOption = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Nearest neighbours, MMR and SIFT side by side, repeats marked."""
    with existing_store(store, embedder) as opened:
        answers = opened.compare(query, k=k, where=_where(where))
    if as_json:
        print_json({method: hits.to_dict() for method, hits in answers.items()})
    else:
        out.print(comparison(answers, out.width))


@app.command()
def explain(
    store: StoreArgument,
    query: QueryArgument,
    k: KOption = DEFAULT_K,
    where: WhereOption = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how an answer came about: plan, candidates, time, and what each pick stands for."""
    with existing_store(store, embedder) as opened:
        explanation = opened.explain(query, k=k, where=_where(where))
    if as_json:
        print_json(explanation.to_dict())
    else:
        say(str(explanation))


@app.command()
def doctor(store: StoreArgument, embedder: EmbedderOption = None, as_json: JsonOption = False) -> None:
    """Find what is wrong, or will be. Exit code 1 if something is."""
    with existing_store(store, embedder) as opened:
        findings = opened.doctor()
    if as_json:
        print_json([{"level": item.level, "what": item.what, "mend": item.mend} for item in findings])
    else:
        out.print(findings_table(findings))
    if any(item.level == "error" for item in findings):
        raise typer.Exit(1)


@app.command()
def optimize(store: StoreArgument) -> None:
    """Build the index now and wait for it."""
    with existing_store(store, None) as opened:
        with working("building the index"):
            opened.optimize()
        state = opened.statistics()
    rest = "" if state.indexed else "; so few are compared one by one"
    say(f"{shown(store)}: {state.indexed} of {state.count} passages are in the index{rest}")


@app.command("list")
def list_(store: StoreArgument, as_json: JsonOption = False) -> None:
    """List the collections in a store."""
    names = list_collections(store)
    if as_json:
        print_json(names)
    elif names:
        for name in names:
            say(name)
    else:
        complain(f"no collections at {shown(store)}")


@app.command()
def drop(store: StoreArgument, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a collection with all it holds."""
    there = exists(store)
    if there and not yes:
        _confirm(f"Delete {shown(store)} with all it holds?")
    if not there or not drop_collection(store):
        raise NotFoundError(f"no collection at {shown(store)}, nothing was dropped; see sift-store list")
    say(f"dropped: {shown(store)}")


@app.command()
def migrate(
    source: Annotated[str, typer.Argument(help="A store; or, alone, a database such as postgresql://user@host/name.")],
    target: Annotated[str | None, typer.Argument(help="A store to copy to, of any kind, vectors and all.")] = None,
    to: Annotated[str, typer.Option(help="head, base (drops all collections), or a revision.")] = "head",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before dropping.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a store to another, going on where it was stopped; or bring the schema in a database to a revision."""
    if target is not None:
        _copy(source, target, as_json)
        return
    if to == "base" and not yes:
        _confirm("Drop the schema with all collections in it?")
    with working("migrating"):
        before, after = migrate_schema(source, to)
    if as_json:
        print_json({"before": before, "after": after})
    else:
        say(f"schema: {before or 'nothing'} before, {after or 'nothing'} now")


@app.command()
def reembed(
    store: StoreArgument,
    embedder: Annotated[str, typer.Option(help="minilm, or the name or folder of a sentence-transformers model.")],
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
) -> None:
    """Embed every text with another embedder; the store changes over at once, or not at all."""
    named = embedder_of(embedder, query_prefix, passage_prefix)
    with existing_store(store, None) as opened, bar("embedding") as progress:
        count = opened.reembed(named, progress=progress) if named is not None else 0
        opened.optimize()
    say(f"{count} passages embedded anew")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="A folder with corpus.jsonl and questions.jsonl.")] = Path(
        "examples/demo"
    ),
    k: KOption = DEFAULT_K,
) -> None:
    """Index a small corpus in a temporary store and compare nearest neighbours with SIFT on its questions."""
    questions = folder / "questions.jsonl"
    if not questions.is_file():
        raise NotFoundError(
            f"{questions} is not there; the demo's data comes with the source: run make demo in a clone"
        )
    asked = [row for _, row in read_jsonl(questions)]
    repeated: Counter[str] = Counter()
    supporting: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as temporary,
        SiftStore.open(Path(temporary) / "demo.sift", embedder="minilm") as opened,
    ):
        passages = read([folder / "corpus.jsonl"], Chunking.of(embedding_of(opened))).passages
        with bar(f"embedding {len(passages)} passages") as progress:
            columns = [(passage.text, passage.id, passage.payload) for passage in passages]
            opened.add(*map(list, zip(*columns, strict=True)), progress=progress)
        for question in asked:
            answers = opened.compare(question["text"], k=k)
            out.rule(Text(shown_text(question["text"])), align="left")
            out.print(comparison(answers, out.width))
            for method, hits in answers.items():
                repeated[method] += repeats_in(hits)
                supporting[method] += len({hit.payload.get("title") for hit in hits} & set(question["titles"]))
    out.rule(align="left")
    wanted = sum(len(question["titles"]) for question in asked)
    out.print(summary(repeated, k * len(asked), supporting, wanted))


def _copy(source: str, target: str, as_json: bool) -> None:
    with existing_store(source) as read, SiftStore.open(target, indexed=read.statistics().fields) as opened:
        with bar("copying") as progress:
            copied = read.copy_to(opened, progress=progress)
        with working("building the index, if one is due"):
            opened.optimize()
    if as_json:
        print_json(asdict(copied))
    else:
        skipped = f", {copied.skipped} without a vector left out" if copied.skipped else ""
        say(f"{copied.passages} passages, {copied.written} written{skipped}; {copied.checked} compared and equal")


# --- helpers ----------------------------------------------------------------------------------------------------------


def _confirm(question: str) -> None:
    """Ask, and stop unless the answer is yes."""
    try:
        answer = input(f"{shown_text(question)} [y/N]: ")
    except EOFError as exc:
        raise InvalidInputError(f"{question} No answer came on standard input, nothing was done; add --yes") from exc
    if answer.strip().lower() not in ("y", "yes"):
        complain("nothing was done")
        raise typer.Exit(1)


def _where(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text, object_hook=_with_dates)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"--where: not JSON ({exc})") from exc


def _with_dates(condition: dict[str, Any]) -> dict[str, Any]:
    """JSON has no dates: ISO text under a range operator is one."""
    return {
        key: (parse_datetime(value) or value) if key in ("$gt", "$gte", "$lt", "$lte") else value
        for key, value in condition.items()
    }
