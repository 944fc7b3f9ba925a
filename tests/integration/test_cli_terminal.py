"""What reaches the terminal, whatever it can show, and what happens when it is gone or Ctrl-C is pressed."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sift_store_edge.adapter import EdgeAdapter

from sift_store import SiftStore, embedding
from sift_store.display import one_line, visible
from sift_store.testing import WordEmbedder

Run = Callable[..., tuple[int, str, str]]

# The command line, with an embedder that loads at once.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sift_store import embedding
from sift_store.testing import WordEmbedder
embedding._by_name = lambda name, identity=None: WordEmbedder(name=name)
from sift_store.cli import main
main()
"""
EVIL = "Café ☃ \x1b]0;title\x07 \x1b[2J \x9b31m back\x08 \x7f \u202eturned\u2066 over\rwritten [red]text[/] [/]"
ODD_ID = "id\x1b[31m[bold]☃"
SHOWN = r"\x1b]0;title\x07 \x1b[2J \x9b31m back\x08 \x7f \u202eturned\u2066 over\x0dwritten [red]text[/] [/]"
COMMANDS = [
    ("search", "x.sift", "Café ☃ [red]"),
    ("search", "x.sift", "Café ☃", "--json"),
    ("compare", "x.sift", "Café ☃"),
    ("explain", "x.sift", "Café\x1b[2J ☃ [/]"),
    ("explain", "x.sift", "Café ☃", "--json"),
    ("doctor", "x.sift"),
    ("doctor", "x.sift", "--json"),
    ("list", "x.sift"),
    ("optimize", "x.sift"),
    ("search", "none\x1b[2J☃.sift", "question"),
    ("calibrate", "--help"),
]


@pytest.fixture(scope="module", autouse=True)
def words_for_minilm() -> Iterator[None]:
    original = embedding._by_name
    embedding._by_name = lambda name, identity=None: WordEmbedder(name=name)
    yield
    embedding._by_name = original


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, words_for_minilm: None) -> Path:
    """A folder with a store of texts that would steer a terminal."""
    path = tmp_path_factory.mktemp("terminal")
    with SiftStore.open(path / "x.sift", embedder="minilm") as store:
        store.add([EVIL, "a plain text", "a text with [bold]markup[/bold]"], ids=[ODD_ID, "plain", "[/]"])
    return path


def program(folder: Path, *arguments: str, **options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300", **options},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )


def steers(said: str) -> list[str]:
    return [character for character in said if character != "\n" and visible(character) != character]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_shows_what_it_can_and_escapes_the_rest(folder: Path, encoding: str) -> None:
    for arguments in (COMMANDS[0], COMMANDS[1], COMMANDS[3], COMMANDS[9]):
        done = program(folder, *arguments, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        said, complained = done.stdout.decode(encoding), done.stderr.decode(encoding)
        assert done.returncode == (2 if arguments is COMMANDS[9] else 0), complained
        assert "Traceback" not in complained
        assert steers(said + complained) == []
        if "--json" in arguments:
            assert json.loads(said)["hits"][0] == json.loads(said)["hits"][0] | {"id": ODD_ID, "text": EVIL}
        elif arguments is COMMANDS[0]:
            assert SHOWN in said
            assert EVIL[:6].encode(encoding, "backslashreplace").decode(encoding) in said


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_stored_steers_the_terminal(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "600")
    code, said, complained = run(*arguments)
    assert code == (2 if "none" in arguments[1] else 0), complained
    assert steers(said + complained) == []
    if arguments[0] in ("search", "compare", "explain") and code == 0 and "--json" not in arguments:
        assert visible(EVIL)[:40] in said
        assert "[bold]markup[/bold]" in said


def test_an_answer_in_json_is_exact(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    hits = json.loads(run("search", "x.sift", "Café ☃", "--json")[1])["hits"]
    assert {hit["id"]: hit["text"] for hit in hits}[ODD_ID] == EVIL


def test_a_terminal_gets_colours_of_ours_and_no_escape_of_theirs(folder: Path) -> None:
    screen, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "add", "y.sift", "rows.jsonl"],
        cwd=_rows(folder),
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LANG": "C.UTF-8"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    said = _all_of(screen)
    assert child.wait() == 1
    assert b"2 documents, 2 passages" in said
    assert b"bad\\x1b]0;x\\x07.txt, line 1: not UTF-8" in said
    assert b"\x1b]0" not in said
    assert b"\x07" not in said


def _rows(folder: Path) -> Path:
    (folder / "rows.jsonl").mkdir()
    (folder / "rows.jsonl" / "rows.jsonl").write_text(json.dumps({"id": ODD_ID, "text": EVIL}) + "\n")
    (folder / "rows.jsonl" / "good.txt").write_text("good")
    (folder / "rows.jsonl" / "bad\x1b]0;x\x07.txt").write_bytes(b"caf\xe9")
    return folder


def _all_of(screen: int) -> bytes:
    parts = []
    try:
        while part := os.read(screen, 4096):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(screen)
    return b"".join(parts)


@pytest.mark.parametrize("arguments", [*COMMANDS[:5], ("--help",)], ids=" ".join)
def test_a_reader_that_goes_ends_the_program_in_silence(folder: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=folder,
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_output_that_cannot_be_written_is_one_line(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "list", "x.sift"],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("sift-store: standard output cannot be written")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "method", "words"),
    [
        (("search", "x.sift", "question"), "candidates", "interrupted; nothing was changed"),
        (("add", "x.sift", "a.txt"), "upsert", "interrupted; what was written stays; the same command adds the rest"),
        (("optimize", "x.sift"), "optimize", "interrupted; what was written stays"),
        (("reembed", "x.sift", "--embedder", "other"), "replace", "interrupted; the store is as it was"),
    ],
)
def test_an_interrupt_says_what_stays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], method: str, words: str
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    with SiftStore.open(tmp_path / "x.sift", embedder="minilm") as store:
        store.add(["one", "two"])

    def pressed(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EdgeAdapter, method, pressed)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the suite was started
    try:
        code, said, complained = run(*arguments)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert (code, said) == (130, "")
    assert complained.startswith(f"sift-store: {words}")
    assert complained.count("\n") == 1
    monkeypatch.undo()
    with SiftStore.open(tmp_path / "x.sift") as store:
        assert store.count() == 2


def test_one_line_is_visible_and_cut() -> None:
    assert one_line("a\r\nb\n\n c\td\x1b", 100) == r"a b c d\x1b"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
    assert visible("a\r\nb\tc\n\ud800\u2028") == "a\nb\tc\n\\ud800\\u2028"
    assert visible("עברית, 👩‍👧, naïve") == "עברית, 👩‍👧, naïve"
