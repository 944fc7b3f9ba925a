"""LangChain's own suites, langchain-tests, none of their tests changed or left out, on stores of every kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from postgres_server import Server
from qdrant_server import Qdrant
from sift_store_langchain import SIFTRetriever, SiftVectorStore
from word_embeddings import Words

from sift_store import SiftStore
from sift_store.testing.fixtures import JORDAN


class OverStore(VectorStoreIntegrationTests):
    """The vector store over a store at a location."""

    @pytest.fixture
    def location(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def vectorstore(self, location: str) -> Iterator[VectorStore]:
        with SiftStore.open(location, embedder=self.get_embeddings()) as store:
            yield SiftVectorStore(store)


class TestVectorStoreOnDisk(OverStore):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "documents.sift")


class TestVectorStoreInMemory(OverStore):
    @pytest.fixture
    def location(self) -> str:
        return "memory://"


class TestVectorStoreInPostgreSQL(OverStore):
    @pytest.fixture
    def location(self, postgres: Server, database: str) -> str:
        return f"{postgres.url(database)}?collection=documents"


class TestVectorStoreInQdrant(OverStore):
    @pytest.fixture
    def location(self, qdrant: Qdrant, collection: str) -> str:
        return qdrant.url(collection)


class OverRetriever(RetrieversIntegrationTests):
    """The retriever, made as a user makes it: its class and its arguments."""

    @pytest.fixture(autouse=True)
    def _store(self, location: str) -> Iterator[None]:
        with SiftStore.open(location, embedder=Words()) as store:
            store.add(JORDAN)
            self.store = store
            yield

    @property
    def retriever_constructor(self) -> type[SIFTRetriever]:
        return SIFTRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "How many children has Michael Jordan?"


class TestRetrieverOnDisk(OverRetriever):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "documents.sift")


class TestRetrieverInPostgreSQL(OverRetriever):
    @pytest.fixture
    def location(self, postgres: Server, database: str) -> str:
        return f"{postgres.url(database)}?collection=documents"


class TestRetrieverInQdrant(OverRetriever):
    @pytest.fixture
    def location(self, qdrant: Qdrant, collection: str) -> str:
        return qdrant.url(collection)


class TestRetrieverOverInMemoryVectorStore(RetrieversIntegrationTests):
    """The same over a vector store of LangChain's own."""

    @property
    def retriever_constructor(self) -> type[SIFTRetriever]:
        return SIFTRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        theirs = InMemoryVectorStore(Words())
        theirs.add_documents([Document(page_content=text) for text in JORDAN])
        return {"store": theirs}

    @property
    def retriever_query_example(self) -> str:
        return "How many children has Michael Jordan?"
