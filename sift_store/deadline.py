"""How long a whole operation may take, all its calls together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sift_store.errors import DeadlineError

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of `time.monotonic` that an operation must not outlive. `seconds`: what was given, for the message."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """That many seconds from now."""
        return cls(time.monotonic() + seconds, seconds)

    def left(self) -> float:
        """Seconds left, not negative."""
        return max(self.at - time.monotonic(), 0.0)

    def check(self) -> None:
        """Go on only if there is time left.

        Raises:
            DeadlineError: there is none.
        """
        if not self.left():
            raise self.error()

    def error(self) -> DeadlineError:
        """What to raise when it is over."""
        return DeadlineError(f"the {self.seconds:g} s given are over; give more with timeout=, or see what doctor says")
