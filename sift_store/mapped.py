"""Vectors that others keep in this process, read where they are: `SiftStore.attach("memory://", client=…)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sift_store.adapter import Capabilities, Finding, Statistics
from sift_store.deadline import Deadline
from sift_store.errors import InvalidInputError
from sift_store.filters import Filter, has_native, matches, predicate
from sift_store.kernels import unit_rows
from sift_store.memory import MemoryAdapter, copied
from sift_store.records import Id, Payload, Record, check_payload

__all__ = ["Entry", "MappedAdapter", "Source"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One vector of a `Source`, a sequence of numbers of any length but zero, and the payload that filters look at."""

    vector: Any
    payload: Payload


@runtime_checkable
class Source(Protocol):
    """What is attached: the vectors as they are now, and texts by id.

    Attributes:
        native_filter: what `where` may be beside a mapping, for people; "" for nothing.
    """

    native_filter: str

    def entries(self) -> Mapping[Id, Entry]:
        """Everything, in order. A vector that has not changed is the same object as before; only others are read."""

    def texts(self, ids: Sequence[Id]) -> list[str | None]:
        """Texts by id, in order; None where there is none."""

    def allows(self, native: Any, id_: Id) -> bool:
        """Whether a filter of the source's own lets an entry through."""


_NOTHING = Entry(None, {})


class MappedAdapter(MemoryAdapter):
    """Over a `Source`, which each operation looks at anew. Finding out what changed costs O(n), less than a search."""

    def __init__(self, source: Source) -> None:
        super().__init__({})
        self._source = source
        self._seen: dict[Id, Entry] = {}  # to tell those that changed
        self.capabilities = Capabilities(
            engine=f"numpy {np.__version__}, reading a {type(source).__name__}",
            persistent=False,
            native_filter=source.native_filter,
            writable=False,
        )

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: D102  # the seam says what each method does
        with self._lock:
            self._look()
            return super().statistics(deadline=deadline)

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        found = [self._open().get(id_) for id_ in ids]
        texts = self._source.texts(ids)
        return [
            None if record is None or text is None else with_changes(copied(record, vectors), text=text)
            for record, text in zip(found, texts, strict=True)
        ]

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return []

    def test(self, where: Filter | None) -> Callable[[Record], bool]:  # noqa: D102
        if where is None:
            return lambda record: True  # noqa: ARG005

        def holds(record: Record) -> bool:
            payload = _comparable(record.payload)
            return matches(where, payload, lambda native: self._source.allows(native, record.id))

        return holds if has_native(where) else self._plain_test(where)

    def _plain_test(self, where: Filter) -> Callable[[Record], bool]:
        holds = predicate(where)
        return lambda record: holds(_comparable(record.payload))

    def _look(self) -> None:
        """Take in what the source has now: where nothing changed, nothing is made."""
        known = self._open()
        entries = self._source.entries()
        fresh = [id_ for id_, entry in entries.items() if self._seen.get(id_, _NOTHING).vector is not entry.vector]
        same = not fresh and entries.keys() == self._seen.keys()
        if same and all(self._seen[id_].payload is entry.payload for id_, entry in entries.items()):
            return
        dimension = next((len(entry.vector) for entry in entries.values()), None)
        rows = self._unit([entries[id_].vector for id_ in fresh], dimension)
        vectors = dict(zip(fresh, rows, strict=True))
        self._matrix = None
        self._records = {
            id_: Record(id_, "", entry.payload, vectors[id_] if id_ in vectors else known[id_].vector)
            for id_, entry in entries.items()
        }
        self._seen = dict(entries)
        self._dimension = dimension

    @staticmethod
    def _unit(vectors: list[Any], dimension: int | None) -> npt.NDArray[np.float32]:
        if not vectors:
            return np.empty((0, dimension or 0), np.float32)
        return unit_rows(vectors, "stored vectors", dimension).astype(np.float32)


def _comparable(payload: Payload) -> Payload:
    """As a store keeps it, dates as text and so on; what no store could keep is compared as it is."""
    try:
        return check_payload(payload, "payload")
    except InvalidInputError:
        return payload
