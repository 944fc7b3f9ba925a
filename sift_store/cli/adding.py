"""The command that adds files to a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sift_store.cli.ingest import OWN_KEY, Chunking, Document, Passage, Reading, read
from sift_store.cli.opening import embedder_of, embedding_of, exists, shown
from sift_store.cli.terminal import bar, complain, print_json, say, working
from sift_store.embedding import Embedding
from sift_store.errors import InvalidInputError
from sift_store.store import SiftStore

__all__ = ["add_commands"]

_PRUNE = 500
# How the store names one of many passages.
_ROW = re.compile(r"(?:texts|ids|payloads)\[(\d+)\]")


def add_commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(add)


def add(
    store: Annotated[str, typer.Argument(help="A folder such as handbook.sift, or a URL; ?collection=NAME picks one.")],
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
    query_prefix: Annotated[str | None, typer.Option(help='Put before queries, e.g. "query: " for E5 models.')] = None,
    passage_prefix: Annotated[
        str | None, typer.Option(help='Put before passages, e.g. "passage: " for E5 models.')
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(help="Tokens a passage at most; default what the embedder reads, at most 256.")
    ] = None,
    overlap: Annotated[int, typer.Option(help="Tokens that neighbouring passages share.")] = 0,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut texts.")] = False,
    index: Annotated[
        list[str] | None, typer.Option(help="Payload index KEY=TYPE, e.g. year=integer. May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add files to a store. Adding again replaces what changed and embeds nothing else anew.

    Files that cannot be read are left out and named at the end; then the exit code is 1.
    """
    Chunking.check(chunk, overlap, whole=whole)
    indexed = {f"{OWN_KEY}.document": "keyword", **dict(_pair(item) for item in index or [])}
    named = embedder_of(embedder or (None if exists(store) else "minilm"), query_prefix, passage_prefix)
    with SiftStore.open(store, embedder=named, indexed=indexed) as opened:
        embedding = embedding_of(opened)
        with working("reading and cutting"):
            reading = read(paths, Chunking.of(embedding, chunk, overlap, whole=whole))
        passages = reading.passages
        before = opened.count()
        if not passages and not before:
            raise InvalidInputError("; ".join(["the files are empty; nothing to add", *reading.faults]))
        cut = _warn_of_cuts(passages, embedding) if whole or chunk else 0
        _write(opened, passages)
        pruned = _prune(opened, reading.documents) if before else 0
        with working("building the index, if one is due"):
            opened.optimize()
        after = opened.count()
    _report(store, reading, {"cut": cut, "removed": pruned, "stored": after}, as_json)


def _write(opened: SiftStore, passages: Sequence[Passage]) -> None:
    try:
        with bar("embedding and writing") as progress:
            opened.add(
                [passage.text for passage in passages],
                [passage.id for passage in passages],
                [passage.payload for passage in passages],
                progress=progress,
            )
    except InvalidInputError as exc:
        row = _ROW.match(str(exc))
        if row is None:
            raise
        raise InvalidInputError(f"{passages[int(row[1])].where}: {str(exc)[row.end() :].lstrip(': ')}") from exc


def _report(store: str, reading: Reading, counts: dict[str, int], as_json: bool) -> None:
    documents, passages = len(reading.documents), len(reading.passages)
    if as_json:
        print_json({"documents": documents, "passages": passages, **counts, "unread": reading.faults})
    else:
        removed = f", {counts['removed']} outdated removed" if counts["removed"] else ""
        say(f"{documents} documents, {passages} passages{removed}; {shown(store)} holds {counts['stored']}")
    for fault in reading.faults:
        complain(f"left out: {fault}")
    if reading.faults:
        raise typer.Exit(1)


def _pair(item: str) -> tuple[str, str]:
    key, equals, kind = item.partition("=")
    if not key or not equals:
        raise InvalidInputError(f"--index {item!r}: KEY=TYPE wanted, e.g. year=integer")
    return key, kind


def _warn_of_cuts(passages: Sequence[Passage], embedding: Embedding) -> int:
    if embedding.max_tokens is None:
        return 0
    counts = embedding.tokens([passage.text for passage in passages])
    cut = [passage.id for passage, count in zip(passages, counts, strict=True) if count > embedding.max_tokens]
    if cut:
        complain(
            f"warning: {len(cut)} passages are longer than the {embedding.max_tokens} tokens the embedder reads; what "
            f"follows is not searched. The first is {cut[0]}"
        )
    return len(cut)


def _prune(store: SiftStore, documents: Sequence[Document]) -> int:
    """Delete what a longer, earlier version of a document left beyond its last passage."""
    by_length: dict[int, list[str]] = {}
    for document in documents:
        by_length.setdefault(len(document.passages), []).append(document.name)
    gone = 0
    for length, names in by_length.items():
        for start in range(0, len(names), _PRUNE):
            some = names[start : start + _PRUNE]
            beyond = {f"{OWN_KEY}.document": {"$in": some}, f"{OWN_KEY}.chunk": {"$gte": length}}
            gone += store.delete(where=beyond)
    return gone
