"""The contract suite on every store that this repository ships, each on its real engine."""

from pathlib import Path

import pytest
from postgres_server import Server
from qdrant_server import Qdrant

from sift_store.testing.contract import (
    DifferentialContract,
    FilterContract,
    SearchContract,
    StoreContract,
    TrustContract,
    WriteContract,
)


class TestMemory(StoreContract):
    @pytest.fixture
    def location(self) -> str:
        return "memory://"


class TestEdge(StoreContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "corpus.sift")


class TestPostgres(StoreContract):
    @pytest.fixture
    def location(self, postgres: Server, database: str) -> str:
        return postgres.url(database, collection="contract")


class TestPostgresHalfPrecision(WriteContract, SearchContract, FilterContract):
    @pytest.fixture
    def location(self, postgres: Server, database: str) -> str:
        return postgres.url(database, collection="contract", vector_type="halfvec")


@pytest.mark.long
class TestMoreOfPostgresHalfPrecision(TrustContract, DifferentialContract):
    """What vectors of half the precision have no part in."""

    @pytest.fixture
    def location(self, postgres: Server, database: str) -> str:
        return postgres.url(database, collection="contract", vector_type="halfvec")


class TestQdrantOverGrpc(StoreContract):
    @pytest.fixture
    def location(self, qdrant: Qdrant, collection: str) -> str:
        return qdrant.url(collection)


class TestQdrantOverRest(WriteContract, SearchContract, FilterContract, DifferentialContract):
    @pytest.fixture
    def location(self, qdrant: Qdrant, collection: str) -> str:
        return qdrant.url(collection, rest=True)


@pytest.mark.long
class TestMoreOfQdrantOverRest(TrustContract):
    """What does not hang on the wire."""

    @pytest.fixture
    def location(self, qdrant: Qdrant, collection: str) -> str:
        return qdrant.url(collection, rest=True)
