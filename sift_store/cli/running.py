"""How a command ends: its exit code, and one line about what stopped it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from sift_store.cli.terminal import CLOSED_PIPE, complain, give_up_streams, prepare_streams
from sift_store.display import one_line
from sift_store.errors import SiftStoreError

__all__ = ["Commands", "run"]

# What an interrupt leaves, where that is not what was there before.
_LEFT = {
    "add": "what was written stays; the same command adds the rest",
    "drop": "the collection may still be there; sift-store list tells",
    "eval": "what was measured stays; the same command goes on",
    "finetune": "the model's files are as they were",
    "migrate": "what was written stays; the same command goes on",
    "optimize": "what was written stays; the index may not be built",
    "reembed": "the store is as it was, or embedded anew as a whole",
}


class _InterruptedError(Exception):
    """Ctrl-C in a command, whose name it holds; by its own kind, as typer makes an exit of the original."""


class _ReaderGoneError(Exception):
    """What reads standard output has closed it."""


class Commands(TyperGroup):
    """The group of all commands: what stops one is told apart from what typer would make of it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:
            raise _InterruptedError(ctx.invoked_subcommand or "") from exc
        except BrokenPipeError as exc:
            raise _ReaderGoneError from exc


def run(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run a command; the exit code. 2 for bad input, 130 after Ctrl-C, 141 where nobody reads its output any more."""
    prepare_streams()
    try:
        code = _code(app, arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (_ReaderGoneError, BrokenPipeError):
        code = CLOSED_PIPE
    except OSError as exc:
        code = _failed(f"standard output cannot be written: {exc.strerror or exc}")
    give_up_streams()
    return code


def _code(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run a command, and say in one line why it failed."""
    try:
        code = app(args=arguments, prog_name="sift-store", standalone_mode=False)
    except SiftStoreError as exc:
        return _failed(str(exc))
    except (KeyboardInterrupt, _InterruptedError) as exc:
        return _failed(f"interrupted; {_LEFT.get(str(exc), 'nothing was changed')}", 130)
    except SystemExit:  # the ways of typer and rich to end where help is written to a closed pipe
        return CLOSED_PIPE
    except typer.Abort:
        return _failed("standard input ended before the answer; nothing was changed")
    except Exception as exc:
        usage = getattr(exc, "format_message", None)  # typer's own errors, whose classes are not public
        if usage is not None:
            return _failed(f"{usage()} See sift-store --help.")
        if isinstance(exc, OSError) and exc.filename is not None:
            return _failed(f"{exc.filename}: {exc.strerror}")
        raise
    if code == 130:  # typer's word for Ctrl-C before a command began
        return _failed("interrupted; nothing was changed", 130)
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int = 2) -> int:
    complain("sift-store: " + one_line(message))
    return code
