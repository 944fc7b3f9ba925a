"""sift-store: retrieval that answers with an informative, non-redundant subset instead of k copies of one fact."""

from sift_store.adapter import Finding, Statistics
from sift_store.async_store import AsyncSiftStore
from sift_store.copying import Copied
from sift_store.errors import (
    AccessError,
    AdaptationError,
    BrokenPackageError,
    CopyError,
    DeadlineError,
    EmbedderError,
    FilterError,
    InvalidInputError,
    LocationError,
    MissingExtraError,
    NotFoundError,
    PartialWriteError,
    ReadOnlyError,
    SiftStoreError,
    StorageError,
    StoreClosedError,
    StoreLockedError,
    VectorError,
)
from sift_store.plan import Plan
from sift_store.records import Record
from sift_store.results import Explanation, Hit, Hits, Suppressed
from sift_store.selection import Selection, remaining_variance, select, select_batch
from sift_store.store import SiftStore, drop_collection, list_collections

__all__ = [
    "AccessError",
    "AdaptationError",
    "AsyncSiftStore",
    "BrokenPackageError",
    "Copied",
    "CopyError",
    "DeadlineError",
    "EmbedderError",
    "Explanation",
    "FilterError",
    "Finding",
    "Hit",
    "Hits",
    "InvalidInputError",
    "LocationError",
    "MissingExtraError",
    "NotFoundError",
    "PartialWriteError",
    "Plan",
    "ReadOnlyError",
    "Record",
    "Selection",
    "SiftStore",
    "SiftStoreError",
    "Statistics",
    "StorageError",
    "StoreClosedError",
    "StoreLockedError",
    "Suppressed",
    "VectorError",
    "drop_collection",
    "list_collections",
    "remaining_variance",
    "select",
    "select_batch",
]
