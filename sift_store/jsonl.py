"""Files of JSON lines, one object a line: the one reader of all that read them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from sift_store.errors import InvalidInputError, NotFoundError

__all__ = ["line_of", "read_jsonl", "unreadable"]

_BOM = b"\xef\xbb\xbf"
# An escape for one half of a character beyond the first 65,536, which may lack the other.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    r"""The objects of a file in UTF-8, each with the number of its line, from 1.

    Only \n ends a line: JSON text may hold all else at which `str.splitlines` would cut it. A \r before it, a byte
    order mark and blank lines mean nothing.

    Raises:
        NotFoundError: no such file.
        InvalidInputError: the file cannot be read, or a line holds no JSON object, NaN, an infinite number or half a
            character; names file and line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(_BOM) if number == 1 else line
                if content.strip():
                    yield number, _object(content, line_of(path, number))
    except FileNotFoundError as exc:
        raise NotFoundError(f"{path} is not there; a file with a JSON object on each line wanted") from exc
    except OSError as exc:
        raise unreadable(path, exc) from exc


def line_of(path: Path, number: int) -> str:
    """A line, as messages name it."""
    return f"{path}, line {number}"


def unreadable(path: Path, error: OSError) -> InvalidInputError:
    """The error for a file that the system does not hand out."""
    return InvalidInputError(f"{path} cannot be read: {error.strerror or error}; see to its rights, or leave it out")


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(content.decode(), parse_constant=_not_finite, parse_float=_finite)
        if _HALF.search(content):
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError as exc:
        raise InvalidInputError(
            f"{where}: not UTF-8 at byte {exc.start + 1} of it; convert the file, e.g. with iconv -f latin1 -t utf-8"
        ) from exc
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"{where}: holds a lone surrogate, half a character, which no store keeps; write it anew with "
            "errors='replace'"
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{where}: not JSON that can be read ({exc}); one JSON object a line wanted") from exc
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where}: {type(row).__name__} given, a JSON object wanted")
    return row


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} given, a finite number or null wanted")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)
