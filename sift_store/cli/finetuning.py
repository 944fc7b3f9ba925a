"""The command that fine-tunes a language model on the picks for one prompt, and shows what that changes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sift_store.cli.opening import existing_store
from sift_store.cli.render import row_of
from sift_store.cli.terminal import bar, can_show, out, print_json, shown_text, working
from sift_store.errors import InvalidInputError, MissingExtraError
from sift_store.hooks import Picks
from sift_store.registry import TUNERS, find, pip_line

__all__ = ["add_commands"]

_BAR = 24  # characters of the longest


def add_commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(finetune)


def finetune(
    store: Annotated[str, typer.Argument(help="A folder such as handbook.sift, or a URL.")],
    prompt: Annotated[str, typer.Argument(help="What the model is to go on from.")],
    k: Annotated[
        int, typer.Option("--k", "-k", help="Gradient steps: one a pick, the same passage perhaps again.")
    ] = 20,
    model: Annotated[
        str, typer.Option(help="smollm2 (packaged), or the folder or hub name of a causal language model.")
    ] = "smollm2",
    method: Annotated[str, typer.Option(help="full: all weights; lora: low-rank adapters.")] = "full",
    lambda_: Annotated[
        float | None, typer.Option("--lambda", help="SIFT's noise: the greater, the oftener the best match again.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Stop when a step is no longer worth it: fewer steps the greater it is.")
    ] = None,
    guard: Annotated[bool, typer.Option("--guard", help="Keep the change only if the prompt's own loss fell.")] = False,
    write: Annotated[int, typer.Option(help="Tokens to write, before and after.")] = 64,
    max_tokens: Annotated[int | None, typer.Option(help="Cut passages after so many of the model's tokens.")] = None,
    export: Annotated[Path | None, typer.Option(help="Folder for the trained LoRA, in peft's format.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Default: what the store remembers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Adapt a language model to one prompt on what SIFT picks for it; show the picks, the loss by step, the text."""
    if export is not None and method != "lora":
        raise InvalidInputError(f"--export: method {method!r} trains no adapter; add --method lora")
    if write < 1:
        raise InvalidInputError(f"--write: {write} given, 1 or more tokens wanted")
    entry = find(TUNERS, "transformers")
    if entry is None:
        raise MissingExtraError(f"no package that fine-tunes is installed; {pip_line('finetune')}")
    tuner_class: Any = entry.load()
    with existing_store(store, embedder) as opened:
        hits = opened.search(prompt, k=k, objective="query", replace=True, lambda_=lambda_)
    with working(f"loading {model}"):
        tuner = tuner_class.load(model, method=method, max_tokens=max_tokens)
    before = tuner.complete(prompt, write)
    with ExitStack() as adapted:
        with bar("a gradient step a pick") as progress:
            adaptation = tuner.adapt(hits, alpha=alpha, keep_if=prompt if guard else None, progress=progress)
            adapted.enter_context(adaptation)
        after = tuner.complete(prompt, write)
        if export is not None and adaptation.kept is not False:
            adaptation.export(export)
    picks = Picks.of(hits)
    if as_json:
        print_json({"prompt": prompt, **_plain(picks, adaptation), "before": before, "after": after})
    else:
        out.print(_shown(picks, adaptation, before, after))


def _plain(picks: Picks, adaptation: Any) -> dict[str, Any]:
    return {
        "picks": [{"id": str(hit.id), "score": hit.score, "text": hit.text} for hit in picks.hits],
        "variance": list(picks.variance),
        "steps": [asdict(step) for step in adaptation.steps],
        "kept": adaptation.kept,
        "guarded": adaptation.guarded,
        "seconds": adaptation.seconds,
    }


def _shown(picks: Picks, adaptation: Any, before: str, after: str) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("step", "loss before", "after"):
        table.add_column(name, justify="right")
    table.add_column("", width=_BAR)
    table.add_column("pick", ratio=1)
    top = max(step.loss for step in adaptation.steps)
    seen: dict[Any, int] = {}
    for number, (step, hit) in enumerate(zip(adaptation.steps, picks.hits, strict=False), start=1):
        again = seen.setdefault(hit.id, number)
        body = Text(f"again the pick of step {again}", style="dim") if again != number else Text(row_of(hit.text, 160))
        table.add_row(
            str(number),
            f"{step.loss:.2f}",
            f"{step.loss_after:.2f}",
            Text(("█" if can_show("█") else "#") * max(1, round(_BAR * step.loss / top)), style="cyan"),
            body,
        )
    notes = [f"{what} {seconds:.1f} s" for what, seconds in adaptation.seconds.items() if what != "guard"]
    summary = f"{len(adaptation.steps)} steps on {len(seen)} passages: {', '.join(notes)}"
    if adaptation.kept is not None:
        first, last = adaptation.guarded
        done = "kept" if adaptation.kept else "rolled back, nothing exported: what follows is by the model as it was"
        summary += f"; loss of the prompt {first:.3f}, then {last:.3f}, {done}"
    return Group(
        table,
        Text(summary, style="dim"),
        Panel(Text(shown_text(before.strip())), title="before", title_align="left"),
        Panel(Text(shown_text(after.strip())), title="after", title_align="left"),
    )
