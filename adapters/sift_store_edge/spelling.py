"""At which keys of the metadata passages have floats or dates, so that a filter on other keys need not look for any.

The store has the only lock, so what was found out once holds until a write of its own says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sift_store.points import exact_payload

__all__ = ["SpeltKeys"]


class SpeltKeys:
    """Keys of filters that have been asked about, and the answers. The adapter's lock guards it."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def holds(self, key: str, look: Callable[[], bool]) -> bool:
        """Whether a key holds floats or dates anywhere; looks at most once."""
        if key not in self._known:
            self._known[key] = look()
        return self._known[key]

    def expect(self, payload: Mapping[str, Any]) -> None:
        """Take note, before it is written, of a payload that may be the first with floats or dates at a key."""
        unspelt = [key for key, present in self._known.items() if not present]
        fresh = exact_payload(payload).keys() if unspelt else ()
        self._known.update((key, True) for key in unspelt if key.partition(".")[0] in fresh)
