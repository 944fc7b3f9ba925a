"""What a collection of ours keeps beside its points: marks in the collection's metadata, and how it is named.

A store's name is an alias; behind it is a collection named after it, one for each generation of content, so that new
content takes the old one's place by one change of the alias.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, fields
from typing import Any

from qdrant_client import models

from sift_store.adapter import EmbedderIdentity

__all__ = ["LEASE", "MARKS", "REPLACING", "Lease", "Marks", "behind", "is_behind"]

# Keys of the metadata. The second is there while the content is being replaced.
MARKS, REPLACING = "sift_store", "sift_store_replacing"
# Seconds for which a replacement shuts out writers, from its last sign of life.
LEASE = 600.0


@dataclass(frozen=True, slots=True)
class Marks:
    """What tells a collection of ours.

    Attributes:
        collection: its name on the server. born: what tells it from one of the same name that was dropped.
        generation: how often its content was replaced. embedder: of its vectors.
    """

    collection: str
    born: str
    generation: int
    embedder: EmbedderIdentity

    @classmethod
    def of(cls, info: models.CollectionInfo) -> Marks | None:
        """The marks in a collection's metadata, None if it is not ours."""
        held: Any = (info.config.metadata or {}).get(MARKS)
        try:
            known = {field.name: held["embedder"].get(field.name) for field in fields(EmbedderIdentity)}
            return cls(held["collection"], held["born"], int(held["generation"]), EmbedderIdentity(**known))
        except (AttributeError, KeyError, TypeError, ValueError):  # somebody else's, whatever it is
            return None

    def metadata(self) -> dict[str, Any]:
        """As the collection's metadata keep them."""
        return {MARKS: asdict(self)}

    @classmethod
    def new(cls, name: str, embedder: EmbedderIdentity) -> Marks:
        """Of a first collection behind a store's name."""
        return cls(behind(name, 0), secrets.token_hex(8), 0, embedder)

    def next(self, name: str, holder: str, embedder: EmbedderIdentity) -> Marks:
        """Of the one that is to take its place."""
        generation = self.generation + 1
        return Marks(behind(name, generation, holder), self.born, generation, embedder)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who replaces the content, and until when nobody else may write. Clocks of clients should agree to a minute."""

    holder: str
    until: float

    @classmethod
    def of(cls, info: models.CollectionInfo) -> Lease | None:
        """The lease in a collection's metadata, None if there is none or it has run out."""
        held: Any = (info.config.metadata or {}).get(REPLACING)
        try:
            lease = cls(str(held["holder"]), float(held["until"]))
        except (KeyError, TypeError, ValueError):
            return None
        return lease if lease.until > time.time() else None

    @classmethod
    def new(cls, holder: str | None = None) -> Lease:
        """One that begins now."""
        return cls(holder or secrets.token_hex(8), time.time() + LEASE)

    def metadata(self) -> dict[str, Any]:
        """As the collection's metadata keep it."""
        return {REPLACING: asdict(self)}


def behind(name: str, generation: int, holder: str = "") -> str:
    """The collection behind a store's name. Those of replacements are told apart by who makes them."""
    return f"{name}.v{generation}" + (f"-{holder}" if holder else "")


def is_behind(collection: str, name: str) -> bool:
    """Whether a collection is named as one behind that store's name."""
    rest = collection.removeprefix(f"{name}.v")
    number, _, holder = rest.partition("-")
    hexadecimal = not holder or all(letter in "0123456789abcdef" for letter in holder)
    return rest != collection and number.isdigit() and hexadecimal
