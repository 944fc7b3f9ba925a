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
from typing import Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

from sift_store.cli import finetuning, quality
from sift_store.cli.ingest import OWN_KEY, Chunking, Document, Passage, documents
from sift_store.cli.opening import check_exists, existing_store, exists, shown
from sift_store.cli.render import bar, comparison, findings_table, hits_table, print_json, repeats_in, summary
from sift_store.embedding import Embedding, as_embedding
from sift_store.errors import InvalidInputError, NotFoundError, SiftStoreError
from sift_store.filters import parse_datetime
from sift_store.plan import DEFAULT_K, Method
from sift_store.registry import EMBEDDERS, find
from sift_store.store import SiftStore, drop_collection, list_collections, migrate_schema

__all__ = ["main"]

app = typer.Typer(
    help="Retrieval that answers with an informative, non-redundant subset instead of k copies of one fact.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
quality.add_commands(app)
finetuning.add_commands(app)
out = Console()
err = Console(stderr=True)

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

_PRUNE = 500


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input: one line on stderr and exit code 2."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # the bars drawn here are enough
        os.environ.setdefault(name, "1")
    try:
        code = app(args=arguments, prog_name="sift-store", standalone_mode=False)
    except SiftStoreError as exc:
        _fail(str(exc))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 130)
    except Exception as exc:
        usage = getattr(exc, "format_message", None)  # typer's own errors, whose classes are not public
        if usage is None:
            raise
        _fail(f"{usage()} See sift-store --help.")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int = 2) -> NoReturn:
    print("sift-store: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


@app.command()
def add(
    store: StoreArgument,
    paths: Annotated[
        list[Path], typer.Argument(help="Folders or files: .txt, .md, .jsonl (one object a line, with text).")
    ],
    embedder: Annotated[
        str | None,
        typer.Option(
            help="minilm, or the name or folder of a sentence-transformers model. Default: what the store remembers, "
            "minilm for a new one."
        ),
    ] = None,
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
    chunk: Annotated[
        int | None, typer.Option(help="Tokens a passage at most; default what the embedder reads, at most 256.")
    ] = None,
    overlap: Annotated[int, typer.Option(help="Tokens that neighbouring passages share.")] = 0,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut texts.")] = False,
    index: Annotated[
        list[str] | None, typer.Option(help="Payload index KEY=TYPE, e.g. year=integer. May be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add files to a store. Adding again replaces what changed and embeds nothing else anew."""
    indexed = {f"{OWN_KEY}.document": "keyword", **dict(_pair(item) for item in index or [])}
    made = _embedder(embedder or (None if exists(store) else "minilm"), query_prefix, passage_prefix)
    with SiftStore.open(store, embedder=made, indexed=indexed) as opened:
        embedding = _needed(opened)
        chunking = Chunking.of(embedding, 0 if whole else chunk, overlap)
        with err.status("reading and cutting"):
            read = list(documents(paths, chunking))
        found = [passage for document in read for passage in document.passages]
        if not found and not opened.count():
            raise InvalidInputError("the files are empty; nothing to add")
        cut = _warn_of_cuts(found, embedding) if whole or chunk else 0
        before = opened.count()
        with bar(err, "embedding and writing") as progress:
            opened.add(
                [passage.text for passage in found],
                [passage.id for passage in found],
                [passage.payload for passage in found],
                progress=progress,
            )
        pruned = _prune(opened, read) if before else 0
        with err.status("building the index, if one is due"):
            opened.optimize()
        after = opened.count()
    if as_json:
        print_json({"documents": len(read), "passages": len(found), "cut": cut, "removed": pruned, "stored": after})
    else:
        removed = f", {pruned} outdated removed" if pruned else ""
        print(f"{len(read)} documents, {len(found)} passages{removed}; {shown(store)} holds {after}")


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
        out.print(str(explanation), markup=False, highlight=False, soft_wrap=True)


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
    with existing_store(store, None) as opened, err.status("building the index"):
        opened.optimize()


@app.command("list")
def list_(store: StoreArgument, as_json: JsonOption = False) -> None:
    """List the collections in a store."""
    names = list_collections(store)
    if as_json:
        print_json(names)
    else:
        for name in names:
            out.print(name, markup=False, highlight=False)


@app.command()
def drop(store: StoreArgument, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a collection with all it holds."""
    check_exists(store)
    if not yes and not typer.confirm(f"Delete {shown(store)} with all it holds?"):
        raise typer.Exit(1)
    drop_collection(store)


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
    if to == "base" and not yes and not typer.confirm("Drop the schema with all collections in it?"):
        raise typer.Exit(1)
    with err.status("migrating"):
        before, after = migrate_schema(source, to)
    if as_json:
        print_json({"before": before, "after": after})
    else:
        print(f"schema: {before or 'nothing'} before, {after or 'nothing'} now")


@app.command()
def reembed(
    store: StoreArgument,
    embedder: Annotated[str, typer.Option(help="minilm, or the name or folder of a sentence-transformers model.")],
    query_prefix: QueryPrefix = None,
    passage_prefix: PassagePrefix = None,
) -> None:
    """Embed every text with another embedder; the store changes over at once, or not at all."""
    made = _embedder(embedder, query_prefix, passage_prefix)
    with existing_store(store, None) as opened, bar(err, "embedding") as progress:
        count = opened.reembed(made, progress=progress) if made is not None else 0
        opened.optimize()
    print(f"{count} passages embedded anew")


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
    asked = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    repeated: Counter[str] = Counter()
    supporting: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as temporary,
        SiftStore.open(Path(temporary) / "demo.sift", embedder="minilm") as opened,
    ):
        read = documents([folder / "corpus.jsonl"], Chunking.of(_needed(opened), None, 0))
        found = [passage for document in read for passage in document.passages]
        with bar(err, f"embedding {len(found)} passages") as progress:
            opened.add([p.text for p in found], [p.id for p in found], [p.payload for p in found], progress=progress)
        for question in asked:
            answers = opened.compare(question["text"], k=k)
            out.rule(question["text"], align="left")
            out.print(comparison(answers, out.width))
            for method, hits in answers.items():
                repeated[method] += repeats_in(hits)
                supporting[method] += len({hit.payload.get("title") for hit in hits} & set(question["titles"]))
    out.rule(align="left")
    wanted = sum(len(question["titles"]) for question in asked)
    out.print(summary(repeated, k * len(asked), supporting, wanted))


def _copy(source: str, target: str, as_json: bool) -> None:
    with existing_store(source) as read, SiftStore.open(target, indexed=read.statistics().fields) as opened:
        with bar(err, "copying") as progress:
            copied = read.copy_to(opened, progress=progress)
        with err.status("building the index, if one is due"):
            opened.optimize()
    if as_json:
        print_json(asdict(copied))
    else:
        skipped = f", {copied.skipped} without a vector left out" if copied.skipped else ""
        print(f"{copied.passages} passages, {copied.written} written{skipped}; {copied.checked} compared and equal")


# --- helpers ----------------------------------------------------------------------------------------------------------


def _needed(store: SiftStore) -> Embedding:
    if store.embedding is None:
        raise InvalidInputError("the store was built from vectors alone; name its embedder with --embedder")
    return store.embedding


def _embedder(name: str | None, query_prefix: str | None, passage_prefix: str | None) -> Embedding | None:
    if query_prefix is None and passage_prefix is None:
        return as_embedding(name)
    general = find(EMBEDDERS, "sentence-transformers")
    if name is None or general is None:
        raise InvalidInputError("prefixes need --embedder with the name or folder of a sentence-transformers model")
    return as_embedding(general.load()(name, query_prefix=query_prefix, passage_prefix=passage_prefix))


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


def _pair(item: str) -> tuple[str, str]:
    key, equals, kind = item.partition("=")
    if not key or not equals:
        raise InvalidInputError(f"--index {item!r}: KEY=TYPE wanted, e.g. year=integer")
    return key, kind


def _warn_of_cuts(found: Sequence[Passage], embedding: Embedding) -> int:
    if embedding.max_tokens is None:
        return 0
    counts = embedding.tokens([passage.text for passage in found])
    cut = [passage.id for passage, count in zip(found, counts, strict=True) if count > embedding.max_tokens]
    if cut:
        print(
            f"warning: {len(cut)} passages are longer than the {embedding.max_tokens} tokens the embedder reads; what "
            f"follows is not searched. The first is {cut[0]}",
            file=sys.stderr,
        )
    return len(cut)


def _prune(store: SiftStore, read: Sequence[Document]) -> int:
    """Delete what a longer, earlier version of a document left beyond its last passage."""
    by_length: dict[int, list[str]] = {}
    for document in read:
        by_length.setdefault(len(document.passages), []).append(document.name)
    gone = 0
    for length, names in by_length.items():
        for start in range(0, len(names), _PRUNE):
            some = names[start : start + _PRUNE]
            beyond = {f"{OWN_KEY}.document": {"$in": some}, f"{OWN_KEY}.chunk": {"$gte": length}}
            gone += store.delete(where=beyond)
    return gone
