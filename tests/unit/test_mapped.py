"""Vectors that others keep in this process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sift_store import FilterError, InvalidInputError, ReadOnlyError, SiftStore, VectorError
from sift_store.mapped import Entry
from sift_store.records import Id
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


class Notes:
    """A dictionary of notes, as somebody may have one."""

    native_filter = "a set of ids"

    def __init__(self, texts: Sequence[str]) -> None:
        self.read = 0
        self.notes = {f"n{row}": self.note(text, row) for row, text in enumerate(texts)}

    @staticmethod
    def note(text: str, row: int) -> dict[str, Any]:
        return {"text": text, "vector": WordEmbedder().embed_query(text).tolist(), "about": {"row": row}}

    def entries(self) -> dict[Id, Entry]:
        return {id_: Entry(note["vector"], note["about"]) for id_, note in self.notes.items()}

    def texts(self, ids: Sequence[Id]) -> list[str | None]:
        self.read += len(ids)
        return [self.notes[str(id_)]["text"] if id_ in self.notes else None for id_ in ids]

    def allows(self, native: Any, id_: Id) -> bool:
        if not isinstance(native, set):
            raise FilterError(f"{type(native).__name__} given, a set wanted")
        return id_ in native


QUESTION = "What is the age of Michael Jordan and how many children has he?"


def attached(notes: Notes) -> SiftStore:
    return SiftStore.attach("memory://", client=notes, embedder=WordEmbedder())


def test_they_are_searched_where_they_are() -> None:
    with attached(Notes(JORDAN)) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.text for hit in hits} == {JORDAN[0], JORDAN[2]}
        assert {hit.id for hit in hits} == {"n0", "n2"}
        assert hits[0].payload.keys() == {"row"}
        assert all(finding.level == "ok" for finding in store.doctor())


def test_answers_are_those_of_a_store_that_holds_the_same() -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(300, 16)).astype(np.float32)
    notes = Notes([])
    notes.notes = {f"n{i}": {"text": f"t{i}", "vector": row, "about": {"row": i}} for i, row in enumerate(rows)}
    with SiftStore.attach("memory://", client=notes) as theirs, SiftStore.open("memory://") as ours:
        ours.add([f"t{i}" for i in range(300)], [f"n{i}" for i in range(300)], [{"row": i} for i in range(300)], rows)
        for query in rng.normal(size=(5, 16)):
            for where in (None, {"row": {"$lt": 100}}):
                one, other = (store.search(vector=query, k=5, where=where) for store in (theirs, ours))
                assert [(hit.id, hit.score, hit.gain) for hit in one] == [
                    (hit.id, hit.score, hit.gain) for hit in other
                ]


def test_what_changes_is_seen_by_the_next_search() -> None:
    notes = Notes(JORDAN)
    with attached(notes) as store:
        assert store.count() == 5
        notes.notes["new"] = Notes.note("Mount Everest is high.", 9)
        assert store.search("Mount Everest is high.", k=1)[0].id == "new"
        notes.notes["new"] = Notes.note("The Nile is long.", 9)
        assert store.search("Mount Everest is high.", k=1)[0].id != "new"
        assert store.search("The Nile is long.", k=1)[0].text == "The Nile is long."
        del notes.notes["new"]
        assert store.count() == 5
        assert store.get(["new", "n0"])[0] is None
        notes.notes["n0"]["about"]["row"] = 100
        assert store.count({"row": 100}) == 1
        notes.notes = dict(reversed(notes.notes.items()))
        assert {hit.text for hit in store.search(QUESTION, k=2)} == {JORDAN[0], JORDAN[2]}
        notes.notes.clear()
        assert store.search(QUESTION, k=2).shortfall == "the collection is empty"


def test_texts_are_read_of_what_is_shown_only() -> None:
    notes = Notes([f"Note number {row} about its own subject {row * row}." for row in range(100)])
    with attached(notes) as store:
        store.search(vector=WordEmbedder().embed_query("number 5"), k=3, method="knn")
        assert notes.read == 3


def test_filters_of_their_own_go_with_ours() -> None:
    with attached(Notes(JORDAN)) as store:
        found = store.search(QUESTION, k=5, where={"n0", "n1", "n2"})
        assert {hit.id for hit in found} == {"n0", "n1", "n2"}
        assert {hit.id for hit in store.scoped({"row": 1}).search(QUESTION, k=5, where={"n0", "n1"})} == {"n1"}
        with pytest.raises(FilterError, match="int given, a set wanted"):
            store.search(QUESTION, k=5, where=3)


def test_they_are_never_written() -> None:
    notes = Notes(JORDAN)
    with attached(notes) as store:
        for write in (
            lambda: store.add(["more"]),
            lambda: store.delete(["n0"]),
            lambda: store.update_payload(["n0"], {"row": 3}),
            lambda: store.optimize(),
            lambda: store.reembed(WordEmbedder()),
        ):
            with pytest.raises(ReadOnlyError):
                write()
        store.search(QUESTION, k=1)[0].payload["row"] = "changed"  # type: ignore[index]  # a copy
        assert notes.notes["n0"]["about"] == {"row": 0}
        assert store.get(["n0"], vectors=True)[0].vector is not None  # type: ignore[union-attr]


def test_bad_vectors_are_told() -> None:
    notes = Notes(JORDAN)
    notes.notes["bad"] = {"text": "bad", "vector": [float("nan")] * 32, "about": {}}
    with pytest.raises(VectorError, match="stored vectors: row 5 holds NaN"), attached(notes) as store:
        store.search(QUESTION)


def test_something_else_cannot_be_attached() -> None:
    with pytest.raises(InvalidInputError, match="client: dict given, an object with entries and texts wanted"):
        SiftStore.attach("memory://", client={})
    with pytest.raises(InvalidInputError, match="client: NoneType given"):
        SiftStore.attach("memory://")
