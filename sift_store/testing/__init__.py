"""For adapter authors and for tests: the contract that every adapter must pass, and an embedder that needs no model.

    from sift_store.testing.contract import StoreContract    # needs pytest, hypothesis

    class TestMyStore(StoreContract):
        @pytest.fixture
        def location(self, tmp_path):
            return str(tmp_path / "corpus.sift")

Run it on the real engine; a test is skipped only by a declared capability.
"""

from sift_store.testing.words import WordEmbedder

__all__ = ["WordEmbedder"]
