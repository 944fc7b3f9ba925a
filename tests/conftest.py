import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The brute-force references and the server for tests are plain modules beside them.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "reference")]

import postgres_server  # noqa: E402  # found by the line above
import qdrant_server  # noqa: E402


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """A real PostgreSQL with pgvector; without one the run fails."""
    with postgres_server.any_server() as server:
        yield server


@pytest.fixture
def database(postgres: postgres_server.Server) -> Iterator[str]:
    """A fresh database on it."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="session")
def qdrant() -> Iterator[qdrant_server.Qdrant]:
    """A Qdrant server, over gRPC and REST."""
    with qdrant_server.any_server() as server:
        yield server


@pytest.fixture
def collection(qdrant: qdrant_server.Qdrant) -> Iterator[str]:
    """A name of a collection that is not there yet; what is made under it goes afterwards."""
    with qdrant.name() as name:
        yield name
