"""Everything sift-store raises on purpose, in one tree.

    SiftStoreError
    ├── InvalidInputError (ValueError)    what the caller passed cannot be used; nothing was written
    │   ├── VectorError                   wrong shape or dimension, NaN, infinite or zero vectors
    │   ├── FilterError                   an unknown operator or a value that cannot be compared
    │   └── LocationError                 a URL or path that names no store
    ├── NotFoundError (LookupError)       a collection or model that does not exist
    ├── MissingExtraError (ImportError)   an optional package is not installed; names the pip line
    ├── BrokenPackageError (ImportError)  an optional package is installed and cannot be imported
    ├── CopyError (TypeError)             an open store cannot be copied or pickled; says what can be done
    ├── EmbedderError                     no embedder, one that failed, or another than the stored one
    ├── StoreClosedError                  used after close()
    ├── StoreLockedError                  another process has the embedded store open
    ├── ReadOnlyError                     a write to a collection that was attached; those are never written
    ├── AdaptationError                   fine-tuning at test time failed or is under way; the weights are as before
    └── StorageError                      the engine failed; its own error is the cause
        ├── AccessError                   the server refuses the key, the password or what it may do
        ├── DeadlineError (TimeoutError)  the time that was given is over
        └── PartialWriteError             a write stopped half-way; says exactly what was written

A message names the value seen, the value wanted and the mend. No message holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AccessError",
    "AdaptationError",
    "BrokenPackageError",
    "CopyError",
    "DeadlineError",
    "EmbedderError",
    "FilterError",
    "InvalidInputError",
    "LocationError",
    "MissingExtraError",
    "NotFoundError",
    "PartialWriteError",
    "ReadOnlyError",
    "SiftStoreError",
    "StorageError",
    "StoreClosedError",
    "StoreLockedError",
    "VectorError",
]


class SiftStoreError(Exception):
    """Base of every error that sift-store raises on purpose."""


class InvalidInputError(SiftStoreError, ValueError):
    """The caller's input cannot be used. Nothing was written."""


class VectorError(InvalidInputError):
    """Vectors of the wrong shape or dimension, or with NaN, infinite or zero rows."""


class FilterError(InvalidInputError):
    """A `where` filter with an unknown operator or a value that cannot be compared."""


class LocationError(InvalidInputError):
    """A URL or path that does not name a store."""


class NotFoundError(SiftStoreError, LookupError):
    """A collection or a model that does not exist."""


class MissingExtraError(SiftStoreError, ImportError):
    """An optional package is not installed; the message holds the pip line."""


class BrokenPackageError(SiftStoreError, ImportError):
    """An optional package is installed and cannot be imported. Its own error is the `__cause__`."""


class CopyError(SiftStoreError, TypeError):
    """An open store, or what stands on one, cannot be copied or pickled; the message says what can be done."""


class EmbedderError(SiftStoreError):
    """No embedder where one is needed, one that failed, or another than the store was built with."""


class StoreClosedError(SiftStoreError):
    """The store was used after `close()`."""


class StoreLockedError(SiftStoreError):
    """Another process, or another object of this one, has the embedded store open."""


class ReadOnlyError(SiftStoreError):
    """A write to a collection that was attached. What others own is never written."""


class AdaptationError(SiftStoreError):
    """A model could not be adapted: out of memory, no finite loss, adapted already. Its weights are as before."""


class StorageError(SiftStoreError):
    """The engine failed. Its own error is the `__cause__`."""


class AccessError(StorageError):
    """The server refuses the key or password that was given, or does not allow it to do what was asked."""


class DeadlineError(StorageError, TimeoutError):
    """The time that was given is over; nothing was written."""


class PartialWriteError(StorageError):
    """A batched write stopped half-way.

    Attributes:
        written: ids that are stored, in the order given. Adding the whole batch again is safe: ids are idempotent.
    """

    def __init__(self, message: str, written: Sequence[object]) -> None:
        super().__init__(message)
        self.written = tuple(written)
