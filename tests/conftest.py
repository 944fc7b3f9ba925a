import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The brute-force references and the server for tests are plain modules beside them.
sys.path[:0] = [str(HERE), str(HERE / "reference")]

# Test modules that import a framework are left out where it is not installed; the report's first lines say so.
FRAMEWORKS = ("haystack", "langchain_core", "llama_index", "mem0")
IMPORTED = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)
OF_LANGCHAIN = re.compile(r"langchain_\w+|sift_store_langchain|word_embeddings")


def wanted(file: Path) -> set[str]:
    """The frameworks that a test module imports at its top."""
    roots = IMPORTED.findall(file.read_text(encoding="utf-8"))
    named = {"langchain_core" if OF_LANGCHAIN.fullmatch(root) else root.removeprefix("sift_store_") for root in roots}
    return named & set(FRAMEWORKS)


MISSING = {name for name in FRAMEWORKS if find_spec(name) is None}
collect_ignore = [str(file.relative_to(HERE)) for file in HERE.rglob("test_*.py") if wanted(file) & MISSING]


def pytest_report_header() -> str | None:
    """What is left out, and why."""
    return f"without {', '.join(sorted(MISSING))}, so not run: {', '.join(collect_ignore)}" if MISSING else None


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
