"""From a URL scheme or an embedder's name to the package that knows it, by entry point, imported when first used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from sift_store.adapter import StoreModule
from sift_store.errors import LocationError, MissingExtraError
from sift_store.location import Location

__all__ = ["EMBEDDERS", "SPLITTERS", "STORES", "TUNERS", "find", "needs_extra", "store_module"]

STORES = "sift_store.stores"
EMBEDDERS = "sift_store.embedders"
SPLITTERS = "sift_store.splitters"
TUNERS = "sift_store.tuners"


def find(group: str, name: str) -> EntryPoint | None:
    """The entry point of that name, or None. Nothing is imported."""
    return next(iter(entry_points(group=group, name=name)), None)


def store_module(location: Location) -> StoreModule:
    """The module that opens locations of this scheme.

    Raises:
        LocationError: no installed package knows the scheme.
        MissingExtraError: the package is there, what it needs is not.
    """
    entry = find(STORES, location.scheme)
    if entry is None:
        known = sorted(f"{name}://" for name in entry_points(group=STORES).names if name != "path")
        raise LocationError(
            f"location scheme {location.scheme!r} is not known; a path such as ./handbook.sift, or one of "
            f"{', '.join(known)} wanted. Is the package with that adapter installed?"
        )
    return cast(StoreModule, entry.load())


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import of an optional package into an error that names the pip line.

    Raises:
        MissingExtraError: the block raised ImportError.
    """
    try:
        yield
    except ImportError as exc:
        missing = exc.name or str(exc)
        raise MissingExtraError(f"{missing} is not installed; run: pip install 'sift-store[{extra}]'") from exc
