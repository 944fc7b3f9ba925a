"""What reaches the terminal: visible text in what its encoding can hold, and no traceback when it is gone."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from sift_store.adapter import Progress
from sift_store.display import STEERING, visible

__all__ = [
    "CLOSED_PIPE",
    "bar",
    "bars",
    "can_show",
    "complain",
    "give_up_streams",
    "out",
    "prepare_streams",
    "print_json",
    "say",
    "shown_text",
    "working",
]

CLOSED_PIPE = 141  # 128 and SIGPIPE's number, as shells report a program that wrote to a closed pipe


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`: rich would end the program with a code of its own."""
        raise  # called while BrokenPipeError is handled


out = _Screen()
_err = _Screen(stderr=True)


def prepare_streams() -> None:
    """Have what an encoding cannot hold written as escapes, whatever PYTHONIOENCODING and the locale say."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def give_up_streams() -> None:
    """What is still buffered and cannot be written goes nowhere, so that the interpreter's end is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed before the program began
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def shown_text(text: str, stream: TextIO | None = None) -> str:
    """Visible text, in characters that the stream's encoding holds (default: standard output's)."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def can_show(characters: str) -> bool:
    """Whether standard output's encoding holds these characters."""
    return shown_text(characters) == characters


def say(text: str) -> None:
    """A line on standard output."""
    print(shown_text(text))


def complain(text: str) -> None:
    """A line on standard error."""
    print(shown_text(text, sys.stderr), file=sys.stderr)


def print_json(content: Any) -> None:
    """Print for machines. Escapes stand for what would steer a terminal, and beyond UTF-8 for all but ASCII."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = json.dumps(content, ensure_ascii=codecs.lookup(encoding).name != "utf-8", indent=1)
    # Outside of strings JSON has no such characters; in them an escape means the same.
    print(STEERING.sub(lambda character: f"\\u{ord(character[0]):04x}", text))


def working(what: str) -> AbstractContextManager[object]:
    """Say on standard error, where it is a terminal, what is under way."""
    spinner = "line" if _err.options.ascii_only else "dots"
    return _err.status(Text(shown_text(what, sys.stderr)), spinner=spinner)


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A bar for long work, gone at its end; what it gives is called with (done, all)."""
    with bars(what) as notify:
        yield lambda done, total: notify(what, done, total)


@contextmanager
def bars(what: str) -> Iterator[Any]:
    """One bar, named by what is under way; what it gives is called with (what, done, all). Only on a terminal."""
    if not _err.is_terminal:
        yield _unseen
        return
    name = TextColumn("{task.description}", markup=False)
    with Bar(name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_err, transient=True) as drawn:
        task = drawn.add_task(shown_text(what, sys.stderr), total=None)
        yield lambda now, done, total: drawn.update(
            task, description=shown_text(now, sys.stderr), completed=done, total=total
        )


def _unseen(*_: object) -> None:
    """Progress that nobody looks at."""
