"""One process at a time: an advisory lock on a file, let go by the system however the process ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sift_store.errors import StoreLockedError

__all__ = ["Lock", "hold"]

if sys.platform == "win32":
    import msvcrt

    def _acquire(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _acquire(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """A held lock; a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(path: Path) -> Lock:
    """Take the lock.

    Raises:
        StoreLockedError: somebody else holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor)
    except OSError as exc:
        os.close(descriptor)
        raise StoreLockedError(
            f"{path.parent} is open already, in another process or by another SiftStore of this one. The "
            "embedded store serves one opener: close the other (several workers? a command line beside an app?), or "
            "run a server and open that from all of them."
        ) from exc
    return Lock(descriptor)
