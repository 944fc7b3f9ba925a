"""What a search returns: frozen, printable, convertible to JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from sift_store.display import one_line
from sift_store.plan import Plan
from sift_store.records import Id, Payload

__all__ = ["MARGIN_RANK", "Explanation", "Hit", "Hits", "Suppressed"]

MARGIN_RANK = 10
_SHORT = 80  # characters of a text that `explain` shows


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage that was chosen.

    Attributes:
        id, text, payload: as stored.
        score: by the collection's metric (`Hits.metric`), higher is better.
        gain: share of the prior variance that this pick removed; None where variance was not computed.
        pick: 1 for the first picked. rank: 1 for the nearest neighbour.
    """

    id: Id
    text: str
    payload: Payload = field(hash=False)
    score: float
    gain: float | None
    pick: int
    rank: int


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One passage that was left out, and the pick that stands for it.

    Attributes:
        by: id of that pick. similarity: cosine to it.
        reason: "copy": the same text; "overlap": much of its text stands in the pick, as in overlapping windows and
            edited copies; "near-copy": among the k nearest, and in this pool close enough to the pick to
            count as a copy of it; "redundant": among the k nearest, but other picks told more.
    """

    id: Id
    text: str
    score: float
    rank: int
    by: Id
    similarity: float
    reason: Literal["copy", "overlap", "near-copy", "redundant"]


@dataclass(frozen=True, slots=True)
class Hits(Sequence[Hit]):
    """The answer to one search: a sequence of `Hit`.

    Attributes:
        variance: share of the prior variance left after each pick, in the order picked. Empty where not computed.
            Not comparable from corpus to corpus.
        plan: what the planner chose. timings: milliseconds by stage, of the whole call.
        suppressed: what was left out, and by which pick.
        shortfall: why there are fewer than asked; "" if there are not.
        metric: of `Hit.score`; "fused" if it comes from several rankings put together. found: candidates that came
            back. moved: bytes of vectors that left the engine.
        margin: score of the best candidate minus that of the tenth (or the last); None if none came back.
        outcome: what the search's hook gave back; None without one.
    """

    items: tuple[Hit, ...]
    variance: tuple[float, ...]
    plan: Plan
    timings: Mapping[str, float] = field(hash=False)
    suppressed: tuple[Suppressed, ...]
    shortfall: str
    metric: str
    found: int
    moved: int = field(repr=False)
    margin: float | None = None
    outcome: Any = field(default=None, repr=False, compare=False)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """The hit or hits at that place."""
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.items)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; UUIDs become text."""
        return {
            "hits": [_plain(hit) for hit in self.items],
            "variance": list(self.variance),
            "suppressed": [_plain(item) for item in self.suppressed],
            "shortfall": self.shortfall,
            "metric": self.metric,
            "found": self.found,
            "margin": self.margin,
            "moved_bytes": self.moved,
            "plan": self.plan.to_dict(),
            "timings_ms": dict(self.timings),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search came to its answer; `print` it."""

    query: str
    hits: Hits

    def __str__(self) -> str:
        hits = self.hits
        lines = [f"query: {one_line(self.query)}", *hits.plan.lines()]
        lines.append(f"found: {hits.found} candidates, {hits.moved:,} bytes of vectors moved")
        lines.append("time: " + ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in hits.timings.items()))
        for hit in hits:
            gain = "" if hit.gain is None else f"  gain {hit.gain:.2g}"
            lines.append(f"pick {hit.pick}: score {hit.score:.3f}{gain}  rank {hit.rank}  {_shown(hit)}")
            for item in hits.suppressed:
                if item.by == hit.id:
                    what = "same text" if item.reason == "copy" else f"{item.reason}, cosine {item.similarity:.3f}"
                    lines.append(f"    instead of rank {item.rank} ({what}): {_shown(item)}")
        if hits.variance:
            lines.append("variance left: " + " ".join(f"{left:.2g}" for left in hits.variance))
        if hits.shortfall:
            lines.append(f"fewer than asked: {hits.shortfall}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {"query": self.query, **self.hits.to_dict()}


def _plain(item: Hit | Suppressed) -> dict[str, Any]:
    names = item.__slots__
    return {name: _json(getattr(item, name)) for name in names}


def _json(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    return dict(value) if isinstance(value, Mapping) else str(value)


def _shown(item: Hit | Suppressed) -> str:
    return f"{one_line(str(item.id))}  {one_line(item.text, _SHORT)}"
