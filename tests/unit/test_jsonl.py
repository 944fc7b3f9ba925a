"""The reader of JSON lines: what ends a line, what is refused, and that file and line are named."""

import re
from pathlib import Path

import pytest

from sift_store import InvalidInputError, NotFoundError
from sift_store.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]


def read(path: Path, content: bytes) -> list[tuple[int, dict]]:
    path.write_bytes(content)
    return list(read_jsonl(path))


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d"
    content = f'\ufeff{{"text": "{odd}"}}\r\n\r\n  \n{{"text": "a\\fb\\u2028\\ud83d\\ude00"}}'.encode()
    assert read(tmp_path / "a.jsonl", content) == [(1, {"text": odd}), (4, {"text": "a\fb\u2028😀"})]


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n \n"):
        assert read(tmp_path / "a.jsonl", content) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json", "not JSON that can be read"),
        (b"[1]", "list given, a JSON object wanted"),
        (b"null", "NoneType given, a JSON object wanted"),
        (b'{"text": "caf\xe9"}', "not UTF-8 at byte 14 of it; convert the file"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (b'{"x": [NaN]}', "NaN given, a finite number or null wanted"),
        (b'{"x": -Infinity}', "-Infinity given"),
        (b'{"x": 1e999}', "1e999 given"),
        (b'{"x": ' + b"1" * 5000 + b"}", "not JSON that can be read"),
        (b'{"x": ' + b"[" * 100_000, "not JSON that can be read"),
        (b'{"text": "a\x0cb"}', "not JSON that can be read"),
        (b'{"text": "a"} {"text": "b"}', "not JSON that can be read"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file_and_line(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(InvalidInputError) as refused:
        read(path, b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine"}\n')
    assert str(refused.value).startswith(f"{path}, line 3: ")
    assert words in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.jsonl is not there"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        list(read_jsonl(tmp_path))


def test_nothing_cuts_json_lines_in_another_way() -> None:
    """`str.splitlines` cuts at characters that JSON text may hold."""
    for folder in ("sift_store", "adapters", "benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"json\.loads\(line\)|map\(json\.loads,", text), path
