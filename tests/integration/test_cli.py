"""The command line on the packaged embedder and the embedded store."""

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sift_store import SiftStore, embedding

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def _load_the_model_once():
    original = embedding._by_name
    embedding._by_name = functools.cache(original)
    yield
    embedding._by_name = original


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    long = "\n\n".join(f"# Part {i}\n\nParagraph {i} tells about topic {i} in a few plain words." for i in range(60))
    (folder / "long.md").write_text(long)
    (folder / "deep" / "facts.txt").write_text("The age of Michael Jordan is 61 years.")
    rows = [
        {"id": "born", "text": "Michael Jordan was born on February 17, 1963.", "year": 1963},
        {"id": "kids", "title": "Family", "text": "Michael Jordan has five children.", "year": 2014},
        {"text": "The age of Michael Jordan is 61 years."},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    (folder / "ignored.pdf").write_bytes(b"%PDF")
    return folder


def test_add_search_compare_explain_doctor(run: Run, docs: Path) -> None:
    code, said, _ = run("add", "x.sift", "docs", "--index", "year=integer", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["documents"] == 5
    assert told["stored"] == told["passages"] > 6
    code, said, _ = run("add", "x.sift", "docs", "--json")
    assert json.loads(said) == {**told, "removed": 0}

    question = "How old is Michael Jordan and how many children has he?"
    code, said, _ = run("search", "x.sift", question, "-k", "2", "--json")
    answer = json.loads(said)
    assert {hit["text"].splitlines()[-1] for hit in answer["hits"]} == {
        "The age of Michael Jordan is 61 years.",
        "Michael Jordan has five children.",
    }
    assert [item["reason"] for item in answer["suppressed"]].count("copy") == 1
    code, said, _ = run("search", "x.sift", question, "--where", '{"year": {"$lt": 2000}}')
    assert code == 0
    assert "born" in said
    assert "fewer than asked" in said
    code, _, complaint = run("search", "x.sift", "q", "--where", '{"at": {"$gte": "2020-01-31"}}')
    assert (code, complaint) == (0, "")
    code, said, _ = run("compare", "x.sift", question, "-k", "3")
    assert "nearest neighbours" in said
    assert "repeats 1" in said
    assert "variance left" in said
    assert set(json.loads(run("compare", "x.sift", question, "--json")[1])) == {"knn", "mmr", "sift"}
    code, said, _ = run("explain", "x.sift", question)
    assert "candidates: 200" in said
    assert json.loads(run("explain", "x.sift", question, "--json")[1])["plan"]["method"] == "sift"
    code, said, _ = run("doctor", "x.sift")
    assert code == 0
    assert "agree with their stored vectors" in said
    assert run("optimize", "x.sift")[0] == 0


def test_a_shorter_document_leaves_no_old_chunks(run: Run, docs: Path) -> None:
    before = json.loads(run("add", "x.sift", "docs", "--json")[1])["stored"]
    (docs / "long.md").write_text("# Only\n\nOne short paragraph.")
    told = json.loads(run("add", "x.sift", "docs", "--json")[1])
    assert told["removed"] == before - told["passages"] > 0
    assert told["stored"] == told["passages"]


def test_a_document_that_became_empty_leaves_nothing(run: Run, docs: Path) -> None:
    run("add", "x.sift", "docs")
    (docs / "deep" / "facts.txt").write_text("")
    told = json.loads(run("add", "x.sift", "docs", "--json")[1])
    assert told["removed"] == 1
    assert told["stored"] == told["passages"]


def test_rows_keep_their_own_keys_and_odd_characters(run: Run, tmp_path: Path) -> None:
    rows = [
        {
            "id": None,
            "text": "line\u2028separator and next\u0085line",
            "source": "wikipedia",
            "chunk": 7,
            "document": "d",
        },
        {"id": 5, "text": "five"},
    ]
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert run("add", "odd[/b].sift", "rows.jsonl")[0] == 0
    with SiftStore.open("odd[/b].sift") as store:
        record = store.get(["rows.jsonl:1"])[0]
        assert record is not None
        assert record.text == rows[0]["text"]
        assert {key: record.payload[key] for key in ("source", "chunk", "document")} == {
            "source": "wikipedia",
            "chunk": 7,
            "document": "d",
        }
        assert store.get(["5"])[0] is not None


def test_folders_of_one_name_do_not_mix(run: Run, tmp_path: Path) -> None:
    for folder in ("docs", "other/docs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(f"text of {folder}")
    told = json.loads(run("add", "x.sift", "docs", "other/docs", "--json")[1])
    assert told["stored"] == 2
    assert json.loads(run("add", "x.sift", "./docs/", "--json")[1])["stored"] == 2


def test_texts_that_are_cut_are_named(run: Run, docs: Path) -> None:
    code, _, complaint = run("add", "x.sift", "docs", "--whole")
    assert code == 0
    assert "warning: 1 passages are longer than the 254 tokens" in complaint
    assert "docs/long.md" in complaint


def test_list_drop_reembed(run: Run, docs: Path, tmp_path: Path) -> None:
    run("add", "x.sift", "docs/rows.jsonl")
    run("add", "x.sift?collection=other", "docs/rows.jsonl")
    assert run("list", "x.sift")[1].split() == ["default", "other"]
    assert json.loads(run("list", "x.sift", "--json")[1]) == ["default", "other"]
    code, said, _ = run("reembed", "x.sift", "--embedder", "minilm")
    assert (code, said) == (0, "3 passages embedded anew\n")
    assert run("drop", "x.sift?collection=other", "--yes")[0] == 0
    assert run("list", "x.sift")[1].split() == ["default"]
    with SiftStore.open(tmp_path / "x.sift") as store:
        assert store.count() == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "none.sift", "q"], "no collection at none.sift; make one with"),
        (["search", "x.sift", "q", "--where", "{"], "--where: not JSON"),
        (["search", "x.sift", "q", "--where", '{"a": {"$x": 1}}'], "unknown operator"),
        (["search", "x.sift", "q", "-k", "0"], "k: 0 given"),
        (["search", "x.sift", "q", "-k", "many"], "valid integer"),
        (["search", "x.sift", ""], "query ''"),
        (["search", "x.sift", "q", "--method", "best"], "'sift', 'knn', 'mmr'"),
        (["search", "x.sift"], "query"),
        (["search", "x.sift", "q", "--bogus"], "--bogus"),
        (["frobnicate"], "frobnicate"),
        (["add", "x.sift", "nowhere"], "nowhere does not exist"),
        (["add", "x.sift", "docs/ignored.pdf"], "is no .txt, .md or .jsonl file"),
        (["add", "x.sift", "docs", "--index", "year"], "KEY=TYPE"),
        (["add", "x.sift", "docs", "--index", "year=int"], "'int' given"),
        (["add", "x.sift", "docs", "--chunk", "10", "--overlap", "10"], "overlap 10"),
        (["add", "x.sift", "docs", "--chunk", "0"], "--chunk: 0 given, 1 to 1,000,000 tokens wanted; --whole leaves"),
        (["add", "x.sift", "docs", "--chunk", "-5"], "--chunk: -5 given"),
        (["add", "x.sift", "docs", "--chunk", "99999999999999999999"], "--chunk: 99999999999999999999 given"),
        (["add", "x.sift", "docs", "--overlap", "-1"], "overlap -1"),
        (["add", "x.sift", "docs", "--whole", "--chunk", "9"], "--whole leaves texts uncut"),
        (["add", "x.sift", "docs", "--whole", "--overlap", "9"], "--whole leaves texts uncut"),
        (["add", "docs", "docs"], "holds other files"),
        (["add", "x.sift", "docs", "--query-prefix", "q: "], "prefixes need --embedder"),
        (["add", "nosuch://host", "docs"], "scheme 'nosuch'"),
        (["drop", "none.sift", "--yes"], "no collection at none.sift"),
        (["demo", "docs"], "make demo"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Run, docs: Path, arguments: list[str], words: str) -> None:
    run("add", "x.sift", "docs/rows.jsonl")
    code, _, complaint = run(*arguments)
    assert code == 2
    assert complaint.startswith("sift-store: ")
    assert complaint.count("\n") == 1
    assert words in complaint
    with SiftStore.open("x.sift") as store:
        assert store.count() == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "fine"}\n{"text": 3}\n', 'bad.jsonl, line 2: an object with a string "text" wanted'),
        (b'{"text": "fine"}\nnot json\n', "bad.jsonl, line 2: not JSON"),
        (
            b'{"text": "fine", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
            "bad.jsonl, line 1: not JSON that can be read",
        ),
        (b'{"text": "fine", "x": ' + b"[" * 100 + b"]" * 100 + b"}\n", "bad.jsonl, line 1: ['x']"),
        (
            b'{"text": "fine"}\n{"text": "fine", "x": 9223372036854775808}\n',
            "bad.jsonl, line 2: ['x']: 9223372036854775808",
        ),
        (
            b'{"text": "fine"}\n\n{"text": "fine", "x": NaN}\n',
            "bad.jsonl, line 3: not JSON that can be read (NaN given",
        ),
        (b'{"id": [1], "text": "fine"}\n', "bad.jsonl, line 1: id [1] given; text, a whole number or none wanted"),
        (b'{"id": "a", "text": ""}\n{"id": "a", "text": "b"}\n', "bad.jsonl, line 2: id 'a' is given twice"),
        (b'{"text": "lone \\ud800 surrogate"}\n', "lone surrogate"),
        (b'{"text": "fine", "_passage": 1}\n', 'the key "_passage" is kept'),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"\n", "empty"),
        (b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "id '1' is given twice"),
    ],
)
def test_a_bad_file_writes_nothing(run: Run, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    code, _, complaint = run("add", "x.sift", "bad.jsonl")
    assert code == 2
    assert words in complaint
    assert not (tmp_path / "x.sift").exists()


def test_one_bad_file_does_not_stop_a_folder(run: Run, docs: Path) -> None:
    (docs / "latin.txt").write_bytes(b"first line\ncaf\xe9\n")
    (docs / "utf16.md").write_bytes("text".encode("utf-16"))
    (docs / "bad.jsonl").write_text('{"id": "fine", "text": "fine"}\n{"text": "nan", "score": NaN}\n')
    (docs / "gone.txt").symlink_to(docs / "nowhere.txt")
    (docs / "folder.txt").mkdir()
    (docs / "folder.txt" / "inner.txt").write_bytes(b"\xef\xbb\xbfwith a mark")
    code, said, complaint = run("add", "x.sift", "docs", "--json")
    told = json.loads(said)
    assert (code, told["documents"]) == (1, 6)
    assert told["stored"] == told["passages"]
    faults = {fault.partition(" ")[0].rstrip(","): fault for fault in told["unread"]}
    assert sorted(faults) == ["docs/bad.jsonl", "docs/gone.txt", "docs/latin.txt", "docs/utf16.md"]
    assert "line 2: not UTF-8 at byte 15 of the file; convert it, e.g. with iconv -f latin1" in faults["docs/latin.txt"]
    assert "line 1: not UTF-8 at byte 1 of the file; convert it, e.g. with iconv -f utf-16" in faults["docs/utf16.md"]
    assert "line 2: not JSON that can be read (NaN given" in faults["docs/bad.jsonl"]
    assert "dangling link" in faults["docs/gone.txt"]
    assert complaint.splitlines() == [f"left out: {fault}" for fault in told["unread"]]
    with SiftStore.open("x.sift") as store:
        assert store.get(["fine"]) == [None]  # a file is left out as a whole
        assert store.get(["docs/folder.txt/inner.txt"])[0].text == "with a mark"


def test_what_cannot_be_read_again_keeps_what_it_gave_before(run: Run, docs: Path) -> None:
    before = json.loads(run("add", "x.sift", "docs", "--json")[1])["stored"]
    (docs / "long.md").write_bytes(b"caf\xe9")
    code, said, complaint = run("add", "x.sift", "docs")
    assert (code, f"holds {before}" in said, "left out: docs/long.md, line 1" in complaint) == (1, True, True)


def test_a_file_named_twice_is_added_once(run: Run, docs: Path) -> None:
    once = json.loads(run("add", "x.sift", "docs", "--json")[1])
    assert json.loads(run("add", "y.sift", "docs", "docs/rows.jsonl", "./docs", "--json")[1]) == once


def test_one_id_in_two_files_is_told_by_file_and_line(run: Run, docs: Path) -> None:
    (docs / "more.jsonl").write_text('\n{"id": "kids", "text": "other"}\n')
    code, _, complaint = run("add", "x.sift", "docs")
    words = "docs/rows.jsonl, line 2: id 'kids' is given twice, first by docs/more.jsonl, line 2"
    assert (code, words in complaint) == (2, True)
    code, _, complaint = run("add", "x.sift", "docs/rows.jsonl", "--index", "title=integer")
    assert (code, "docs/rows.jsonl, line 2: ['title']: 'Family' does not fit" in complaint) == (2, True)
    assert run("list", "x.sift")[1:] == ("", "no collections at x.sift\n")


def test_what_is_done_is_said(run: Run, docs: Path) -> None:
    run("add", "x.sift", "docs/rows.jsonl")
    few = "x.sift: 0 of 3 passages are in the index; so few are compared one by one\n"
    assert run("optimize", "x.sift") == (0, few, "")
    assert run("drop", "x.sift", "--yes") == (0, "dropped: x.sift\n", "")
    assert run("list", "x.sift") == (0, "", "no collections at x.sift\n")
    assert run("list", "x.sift", "--json") == (0, "[]\n", "")
    for command in (["drop", "x.sift", "--yes"], ["optimize", "x.sift"], ["compare", "x.sift", "q"]):
        code, said, complaint = run(*command)
        assert (code, said, "no collection at x.sift" in complaint) == (2, "", True)


def test_no_answer_is_no_consent(run: Run, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "x.sift", "docs/rows.jsonl")
    for answer, code, words in (("", 2, "add --yes"), ("n\n", 1, "nothing was done"), ("\n", 1, "nothing was done")):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        told = run("drop", "x.sift")
        assert (told[0], words in told[2]) == (code, True)
        assert run("list", "x.sift")[1] == "default\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("drop", "x.sift")[0] == 0


def test_the_demo_runs_on_its_corpus(run: Run) -> None:
    folder = Path(__file__).parents[2] / "examples" / "demo"
    code, said, _ = run("demo", str(folder), "-k", "4")
    assert code == 0
    rows = {line[:18].strip(): line.split()[-2:] for line in said.splitlines()[-3:]}
    knn, sift = ([int(number) for number in rows[name]] for name in ("nearest neighbours", "SIFT"))
    assert sift[0] < knn[0]  # fewer repeats
    assert sift[1] > knn[1]  # more of the pages that support the answers
