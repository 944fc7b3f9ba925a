"""The contract suite on PostgreSQL behind a pooler, which is how most hosted databases are reached."""

from collections.abc import Iterator

import pytest
from pgbouncer_server import MISSING, Pooler, installed, pooled
from postgres_server import Server

from sift_store.testing.contract import StoreContract

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)


@pytest.fixture(scope="module")
def by_transaction(postgres: Server) -> Iterator[Pooler]:
    with pooled(postgres, "transaction") as running:
        yield running


@pytest.fixture(scope="module")
def by_session(postgres: Server) -> Iterator[Pooler]:
    with pooled(postgres, "session") as running:
        yield running


@pytest.mark.long
class TestPostgresPooledByTransaction(StoreContract):
    @pytest.fixture
    def location(self, by_transaction: Pooler, database: str) -> str:
        return by_transaction.url(database, collection="contract")


@pytest.mark.long
class TestPostgresPooledBySession(StoreContract):
    @pytest.fixture
    def location(self, by_session: Pooler, database: str) -> str:
        return by_session.url(database, collection="contract")
