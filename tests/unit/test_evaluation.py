"""The measuring itself, against its definitions and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sift_store import InvalidInputError, NotFoundError
from sift_store.embedding import Embedding
from sift_store.evaluation import (
    BASELINE,
    DEFAULT,
    Judge,
    VectorCache,
    all_methods,
    evaluate,
    make_corpus,
    paired_difference,
    read_cells,
    read_dataset,
    redundancy,
)
from sift_store.evaluation.datasets import half_of
from sift_store.evaluation.pools import Pool, pools_of
from sift_store.evaluation.report import draw, tables, update_document
from sift_store.evaluation.scenarios import Corpus, edits_of, windows_of
from sift_store.testing import WordEmbedder

TOPICS = ("rain", "wind", "snow", "sun")


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of 24 passages and 8 queries with subtopics."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    corpus = [
        {"id": f"p{i}", "title": TOPICS[i % 4], "text": " ".join(rng.choice(words, size=6)) + f" {TOPICS[i % 4]}"}
        for i in range(24)
    ]
    corpus[3]["text"] = " ".join(rng.choice(words, size=230))
    queries = [{"id": f"q{i}", "text": f"{TOPICS[i % 4]} {words[i]} {words[i + 8]}"} for i in range(8)]
    qrels = [
        {"query": f"q{i}", "doc": f"p{j}", "grade": 1 + (j % 3)}
        for i in range(8)
        for j in range(i % 4, 24, 4)
        if j < 18
    ]
    made = tmp_path / "weather"
    made.mkdir()
    write(made / "corpus.jsonl", corpus)
    write(made / "queries.jsonl", [*queries, {"id": "q-none", "text": "nothing relevant"}])
    write(made / "qrels.jsonl", [*qrels, {"query": "q0", "doc": "p1", "grade": 0}])
    subtopics = [{"query": r["query"], "subtopic": str(int(str(r["doc"])[1:]) % 3), "doc": r["doc"]} for r in qrels]
    write(made / "subtopic_qrels.jsonl", subtopics)
    return made


def embedding() -> Embedding:
    embedder = WordEmbedder()
    return Embedding(embedder)


class Named(WordEmbedder):
    """Counts what it embeds."""

    name = "words"

    def __init__(self) -> None:
        super().__init__()
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> np.ndarray:
        self.embedded += len(texts)
        return super().embed_documents(texts)


def test_a_set_is_read_and_queries_without_an_answer_are_left_out(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert (dataset.name, len(dataset.ids), len(dataset.queries)) == ("weather", 24, 8)
    assert dataset.grades[1] == {1: 2, 5: 3, 9: 1, 13: 2, 17: 3}
    assert dataset.subtopics is not None
    assert dataset.subtopics[1] == {"1": {1, 13}, "2": {5, 17}, "0": {9}}
    halves = [half_of(name) for name in dataset.query_ids]
    assert sorted([*dataset.rows("choose"), *dataset.rows("report")]) == dataset.rows("all") == list(range(8))
    assert {"choose", "report"} == set(halves)


def test_bad_sets_are_refused_by_file_and_line(folder: Path) -> None:
    with (folder / "qrels.jsonl").open("a") as file:
        file.write('{"query": "q0", "doc": "nowhere", "grade": 1}\n')
    with pytest.raises(InvalidInputError, match=r"qrels.jsonl, line \d+: passage 'nowhere' is not in the set"):
        read_dataset(folder)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(InvalidInputError, match=r"corpus.jsonl, line 25: text missing"):
        read_dataset(folder)
    rows = [{"id": "p1", "text": "a"}, {"id": "p1", "text": "b"}]
    write(folder / "corpus.jsonl", rows)
    with pytest.raises(InvalidInputError, match=r"corpus.jsonl, line 2: id 'p1' stands twice"):
        read_dataset(folder)
    write(folder / "corpus.jsonl", [{"id": f"p{i}", "text": "a"} for i in range(24)])
    write(folder / "qrels.jsonl", [{"query": "q0", "doc": "p1", "grade": "high"}])
    with pytest.raises(InvalidInputError, match=r"qrels.jsonl, line 1: grade 'high'"):
        read_dataset(folder)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(NotFoundError, match=r"corpus.jsonl is not there"):
        read_dataset(folder)


def test_measures_are_as_defined(folder: Path) -> None:
    dataset = read_dataset(folder)
    rng = np.random.default_rng(1)
    rows = dataset.rows("all")
    answers = [rng.integers(0, 24, size=12).tolist() for _ in rows]  # with repeated passages
    found = Judge(dataset, rows, cutoffs=(3, 10)).measure(answers)
    for row, answer in zip(rows, answers, strict=True):
        for k in (3, 10):
            relevant, seen, gained, covered, value = dataset.grades[row], set(), 0.0, {}, 0.0
            for rank, doc in enumerate(answer[:k]):
                if doc in seen:
                    continue
                seen.add(doc)
                gained += relevant.get(doc, 0) / math.log2(rank + 2)
                for subtopic, docs in dataset.subtopics[row].items():
                    if doc in docs:
                        value += 0.5 ** covered.get(subtopic, 0) / math.log2(rank + 2)
                        covered[subtopic] = covered.get(subtopic, 0) + 1
            ideal = sum(g / math.log2(r + 2) for r, g in enumerate(sorted(relevant.values(), reverse=True)[:k]))
            hit = len(seen & set(relevant))
            assert found[f"recall@{k}"][row] == pytest.approx(hit / len(relevant), abs=1e-6)
            assert found[f"all@{k}"][row] == (hit == len(relevant))
            assert found[f"ndcg@{k}"][row] == pytest.approx(gained / ideal, abs=1e-6)
            assert found[f"srecall@{k}"][row] == pytest.approx(len(covered) / len(dataset.subtopics[row]), abs=1e-6)
            # The best order of these subtopics, one or two passages each, is to take turns.
            sizes = sorted((len(docs) for docs in dataset.subtopics[row].values()), reverse=True)
            turns = [0.5**turn for turn in range(max(sizes)) for size in sizes if size > turn][:k]
            best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(turns))
            assert found[f"alpha_ndcg@{k}"][row] == pytest.approx(value / best, abs=1e-6)


def pool_of(vectors: np.ndarray, query: np.ndarray, origin: np.ndarray) -> Pool:
    (pool,) = pools_of(Corpus(vectors, origin), query[None], [0], len(vectors))
    return pool


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_redundancy_counts_copies_and_the_mean_cosine() -> None:
    vectors = unit(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    pool = pool_of(vectors, vectors[0], np.array([7, 7, 8]))
    found = redundancy([pool], [[0, 1, 2]], cutoffs=(1, 2, 3))
    cosines = vectors @ vectors.T
    assert found["similarity@2"][0] == pytest.approx(cosines[0, 1], abs=1e-6)
    assert found["similarity@3"][0] == pytest.approx((cosines[0, 1] + cosines[0, 2] + cosines[1, 2]) / 3, abs=1e-6)
    assert [found[f"duplicates@{k}"][0] for k in (1, 2, 3)] == pytest.approx([0, 1 / 2, 1 / 3])


def test_the_interval_of_a_difference_holds_the_mean_and_counts_queries() -> None:
    ours, theirs = np.array([1, 1, 0, 1, 0.5] * 20, np.float32), np.array([0, 1, 1, 0, 0.5] * 20, np.float32)
    found = paired_difference(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert (found.wins, found.losses) == (40, 20)
    assert found.low < 0.2 < found.high
    error = (ours - theirs).std() / math.sqrt(100)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert paired_difference(ours, theirs) == found  # seeded


def test_every_method_is_greedy_and_picks_distinct_candidates() -> None:
    """Figures at several k are read off one run with the largest."""
    rng = np.random.default_rng(2)
    vectors = unit(rng.normal(size=24) + rng.normal(size=(60, 24)))
    pool = pool_of(vectors, unit(vectors[:5].mean(axis=0)), np.arange(60))
    for method in all_methods():
        many = list(method.choose(pool, 12))
        assert len(set(many)) == 12, method.name
        assert list(method.choose(pool, 5)) == many[:5], method.name


def test_the_threshold_is_the_plain_greedy_walk() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=8) + 0.6 * rng.normal(size=(50, 8)))
    pool = pool_of(vectors, vectors[0], np.arange(50))
    cosines = pool.vectors @ pool.vectors.T
    for method in all_methods():
        if method.family != "threshold":
            continue
        cut, walked = float(method.name.split()[1]), []
        for row in range(50):
            if all(cosines[row, pick] < cut for pick in walked):
                walked.append(row)
        walked += [row for row in range(50) if row not in walked]
        assert list(method.choose(pool, 10)) == walked[:10]


def test_scenarios_do_what_they_say(folder: Path) -> None:
    dataset = read_dataset(folder)
    embed = embedding().documents
    clean = make_corpus(dataset, "clean", embed)
    noisy = make_corpus(dataset, "noise=0.39", embed)
    assert noisy.vectors.shape == (120, clean.vectors.shape[1])
    np.testing.assert_array_equal(noisy.vectors[:24], clean.vectors)
    cosine = np.einsum("ij,ij->i", noisy.vectors[24:], clean.vectors[noisy.origin[24:]])
    assert cosine.mean() == pytest.approx(0.93, abs=0.01)
    exact = make_corpus(dataset, "exact", embed)
    np.testing.assert_array_equal(exact.vectors, clean.vectors[exact.origin])
    cut = make_corpus(dataset, "windows", embed)
    assert np.bincount(cut.origin).tolist() == [4 if place == 3 else 1 for place in range(24)]
    edited = make_corpus(dataset, "edited", embed)
    assert np.bincount(edited.origin).tolist() == [3] * 24
    for bad in ("noisy", "noise", "noise=x", "noise=-1", "clean=3"):
        with pytest.raises(InvalidInputError, match="scenario"):
            make_corpus(dataset, bad, embed)


def test_windows_hold_every_word_and_share_half() -> None:
    words = [f"w{i}" for i in range(263)]
    windows = [window.split() for window in windows_of(" ".join(words))]
    assert all(len(window) <= 100 for window in windows)
    assert [window[0] for window in windows] == ["w0", "w50", "w100", "w150", "w200"]
    assert windows[-1][-1] == "w262"
    assert windows_of("a  short   text") == ["a  short   text"]


def test_edits_are_seeded_by_the_passage_and_differ_from_it() -> None:
    text = "Rain is water, and wind is air; both are weather in the north of the country."
    assert edits_of("p1", text) == edits_of("p1", text)
    assert len({text, *edits_of("p1", text), *edits_of("p2", text)}) > 3


def test_vectors_are_embedded_once_and_survive_an_interrupted_run(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(300)]
    first = Named()
    vectors = VectorCache(Embedding(first), tmp_path).passages([*texts, *texts])
    assert first.embedded == 300
    np.testing.assert_allclose(vectors[:300], Embedding(Named()).documents(texts), atol=1e-6)
    with (tmp_path / "words.vectors").open("ab") as file:
        file.write(b"half a batch")
    keys = (tmp_path / "words.keys").read_bytes()
    (tmp_path / "words.keys").write_bytes(keys[:-40])  # the last text and a part of the one before
    again = Named()
    np.testing.assert_allclose(VectorCache(Embedding(again), tmp_path).passages(texts), vectors[:300], atol=1e-6)
    assert again.embedded == 2
    (tmp_path / "words.keys").unlink()  # vectors without names are worth nothing
    np.testing.assert_allclose(VectorCache(Embedding(Named()), tmp_path).passages(texts), vectors[:300], atol=1e-6)
    one, other = VectorCache(Embedding(Named()), tmp_path), VectorCache(Embedding(Named()), tmp_path)
    one.passages(["only one"])
    np.testing.assert_allclose(other.passages(texts), vectors[:300], atol=1e-6)  # reading beside it is safe
    with pytest.raises(InvalidInputError, match="one run at a time"):
        other.passages(["another"])
    with pytest.raises(InvalidInputError, match="name"):
        VectorCache(Embedding(lambda texts: np.ones((len(texts), 2))), tmp_path)


def test_a_run_is_measured_kept_and_resumed(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    vectors = VectorCache(Embedding(Named()), tmp_path / "vectors")
    methods = [method for method in all_methods() if method.name in (BASELINE, DEFAULT, "threshold 0.9", "MMR 0.5")]
    kept = tmp_path / "figures"
    said: list[tuple[str, int, int]] = []
    (cell,) = evaluate([dataset], vectors, ["exact"], methods, kept, half="all", notify=lambda *told: said.append(told))
    assert cell.queries == 8
    assert cell.mean(DEFAULT, "duplicates@5") == 0 < cell.mean(BASELINE, "duplicates@5")
    assert said[-1][1] == said[-1][2] == 4

    def never(pool: Pool, k: int) -> list[int]:
        raise AssertionError("it was kept")

    again = [type(method)(method.name, method.family, never) for method in methods]
    (same,) = evaluate([dataset], vectors, ["exact"], again, kept, half="all")
    for method in cell.figures:
        for measure, values in cell.figures[method].items():
            np.testing.assert_array_equal(values, same.figures[method][measure])
    (read,) = read_cells(kept, methods)
    assert read.to_dict() == cell.to_dict()
    (kept / "left.part").write_bytes(b"of an interrupted run")
    assert len(read_cells(kept, methods)) == 1
    with pytest.raises(InvalidInputError, match="candidates: 5 given"):
        evaluate([dataset], vectors, ["exact"], methods, kept, half="all", candidates=5)


def test_tables_plots_and_documents(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    vectors = VectorCache(Embedding(Named()), tmp_path / "vectors")
    cells = evaluate([dataset], vectors, ["clean"], all_methods(), tmp_path / "figures", half="all")
    made = tables(cells)
    assert list(made) == ["words clean", "words clean difference"]
    assert "| threshold, best of 10 for each column |" in made["words clean"]
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- eval: words clean -->\nold\n<!-- end -->\nAfter.\n")
    assert update_document(page, made) == ["words clean"]
    assert page.read_text().startswith("Before.\n<!-- eval: words clean -->\n| % | weather srecall@5 |")
    assert page.read_text().endswith("<!-- end -->\nAfter.\n")
    page.write_text("<!-- eval: other -->\n<!-- end -->\n")
    with pytest.raises(InvalidInputError, match="other"):
        update_document(page, made)
    page.write_text("<!-- eval: words clean -->\nno end\n<!-- eval: words clean -->\n<!-- end -->\n")
    with pytest.raises(InvalidInputError, match="no end"):
        update_document(page, made)
    drawn = draw(cells, tmp_path / "plots")
    assert [path.name for path in drawn] == ["words-clean.png", "words-clean.svg"]
    assert all(path.stat().st_size > 5000 for path in drawn)
