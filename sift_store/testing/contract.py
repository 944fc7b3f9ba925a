"""The whole contract of a store, as one pytest class. A backend supplies the fixture `location`."""

import pytest

pytest.register_assert_rewrite(
    *(f"sift_store.testing.{part}" for part in ("differential", "filtering", "searching", "writing"))
)

from sift_store.testing.differential import DifferentialContract  # noqa: E402  # after the line that makes its asserts speak
from sift_store.testing.filtering import FilterContract  # noqa: E402
from sift_store.testing.searching import SearchContract  # noqa: E402
from sift_store.testing.writing import WriteContract  # noqa: E402

__all__ = ["DifferentialContract", "FilterContract", "SearchContract", "StoreContract", "WriteContract"]


class StoreContract(WriteContract, SearchContract, FilterContract, DifferentialContract):
    """Everything a store must do. Tests are skipped only by declared capabilities."""
