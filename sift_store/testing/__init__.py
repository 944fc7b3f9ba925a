"""The contract that every adapter must pass on its real engine, as pytest classes; needs pytest.

from sift_store.testing import StoreContract

class TestMyStore(StoreContract):
    @pytest.fixture
    def location(self, tmp_path):
        return str(tmp_path / "corpus.sift")
"""

from sift_store.testing.contract import FilterContract, SearchContract, StoreContract, WriteContract
from sift_store.testing.words import WordEmbedder

__all__ = ["FilterContract", "SearchContract", "StoreContract", "WordEmbedder", "WriteContract"]
