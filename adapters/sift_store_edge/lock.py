"""One process at a time: an advisory lock on a file, let go by the system however the process ends."""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

from sift_store.errors import StorageError, StoreLockedError

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
    """A held lock; a context manager. Let go at the latest when it is garbage."""

    def __init__(self, descriptor: int) -> None:
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(path: Path) -> Lock:
    """Take the lock.

    Raises:
        StoreLockedError: somebody else holds it. StorageError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise StorageError(f"{path} cannot be opened: {exc.strerror}; write access to the store is needed") from exc
    try:
        _acquire(descriptor)
    except OSError as exc:
        os.close(descriptor)
        raise StoreLockedError(
            f"{path.parent} is open already, in another process or by another SiftStore of this one. The "
            "embedded store serves one opener: close the other (several workers? a forked child? a command line beside "
            "an app?), or run a server and open that from all of them."
        ) from exc
    return Lock(descriptor)
