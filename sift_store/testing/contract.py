"""The whole contract of a store, as one pytest class. A backend supplies the fixture `location`."""

import pytest

_PARTS = ("differential", "filtering", "searching", "trust", "writing")
pytest.register_assert_rewrite(*(f"sift_store.testing.{part}" for part in _PARTS))

from sift_store.testing.differential import DifferentialContract  # noqa: E402  # after what makes asserts speak
from sift_store.testing.filtering import FilterContract  # noqa: E402
from sift_store.testing.searching import SearchContract  # noqa: E402
from sift_store.testing.trust import TrustContract  # noqa: E402
from sift_store.testing.writing import WriteContract  # noqa: E402

__all__ = [
    "DifferentialContract",
    "FilterContract",
    "SearchContract",
    "StoreContract",
    "TrustContract",
    "WriteContract",
]


class StoreContract(WriteContract, SearchContract, FilterContract, TrustContract, DifferentialContract):
    """Everything a store must do. Tests are skipped only by declared capabilities."""
