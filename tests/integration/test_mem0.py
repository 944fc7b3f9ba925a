"""mem0 through its LangChain provider, on a real Memory, without a network."""

import asyncio
import copy
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from sift_store_langchain import SiftVectorStore
from word_embeddings import Words

from sift_store import SiftStore

with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
    patched.setenv("MEM0_TELEMETRY", "False")  # both are read when mem0 is imported
    patched.setenv("MEM0_DIR", tempfile.mkdtemp(prefix="mem0-"))
    warnings.simplefilter("ignore", DeprecationWarning)  # langchain-community says that its time is over
    import langchain_community.vectorstores  # noqa: F401
    from mem0 import AsyncMemory, Memory

ANN, BOB = {"user_id": "ann"}, {"user_id": "bob"}


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SiftStore]:
    location = "memory://" if request.param == "memory" else tmp_path / "memories.sift"
    with SiftStore.open(location, embedder=Words(), indexed={"user_id": "keyword"}) as opened:
        yield opened


def settings(store: SiftStore) -> dict[str, Any]:
    return {
        "vector_store": {"provider": "langchain", "config": {"client": SiftVectorStore(store)}},
        "embedder": {"provider": "langchain", "config": {"model": Words()}},
        "llm": {"provider": "langchain", "config": {"model": FakeListChatModel(responses=['{"memory": []}'])}},
        "history_db_path": ":memory:",
    }


def added(answer: dict[str, Any]) -> str:
    return str(answer["results"][0]["id"])


def told(answer: dict[str, Any]) -> list[str]:
    return [found["memory"] for found in answer["results"]]


def test_memories_are_kept_found_changed_and_forgotten(store: SiftStore) -> None:
    with Memory.from_config(settings(store)) as memory:
        coffee = added(memory.add("Ann drinks coffee.", **ANN, infer=False))
        chess = added(memory.add("Ann plays chess.", **ANN, metadata={"since": 2020}, infer=False))
        memory.add("Bob drinks coffee.", **BOB, infer=False)
        assert store.count() == 3
        assert store.get([coffee])[0].text == "Ann drinks coffee."  # type: ignore[union-attr]
        assert told(memory.search("Who drinks coffee?", filters=ANN))[0] == "Ann drinks coffee."
        assert "Bob drinks coffee." not in told(memory.search("Who drinks coffee?", filters=ANN))
        assert sorted(told(memory.get_all(filters=ANN))) == ["Ann drinks coffee.", "Ann plays chess."]
        assert memory.get(chess)["metadata"] == {"since": 2020}
        memory.update(coffee, text="Ann drinks tea.")
        assert store.get([coffee])[0].text == "Ann drinks tea."  # type: ignore[union-attr]
        assert told(memory.search("Who drinks tea?", filters=ANN))[0] == "Ann drinks tea."
        assert [change["event"] for change in memory.history(coffee)] == ["ADD", "UPDATE"]
        memory.delete(chess)
        assert told(memory.get_all(filters=ANN)) == ["Ann drinks tea."]
        memory.delete_all(**ANN)
        assert told(memory.get_all(filters=ANN)) == []
        assert told(memory.get_all(filters=BOB)) == ["Bob drinks coffee."]
        memory.reset()
        assert store.count() == 0
        memory.add("Bob is back.", **BOB, infer=False)
        assert told(memory.get_all(filters=BOB)) == ["Bob is back."]


async def test_the_same_with_coroutines(store: SiftStore) -> None:
    async with AsyncMemory.from_config(settings(store)) as memory:
        coffee = added(await memory.add("Ann drinks coffee.", **ANN, infer=False))
        await asyncio.gather(*(memory.add(f"Ann has seen film {row}.", **ANN, infer=False) for row in range(5)))
        await memory.add("Bob drinks coffee.", **BOB, infer=False)
        assert told(await memory.search("Who drinks coffee?", filters=ANN))[0] == "Ann drinks coffee."
        assert len(told(await memory.get_all(filters=ANN))) == 6
        await memory.update(coffee, text="Ann drinks tea.")
        assert (await memory.get(coffee))["memory"] == "Ann drinks tea."
        await memory.delete_all(**ANN)
        assert told(await memory.get_all(filters=ANN)) == []
        assert told(await memory.get_all(filters=BOB)) == ["Bob drinks coffee."]
        await memory.reset()
        await memory.add("Bob is back.", **BOB, infer=False)
        assert told(await memory.get_all(filters=BOB)) == ["Bob is back."]


def test_what_a_model_made_of_a_talk_is_kept_too(store: SiftStore) -> None:
    given = settings(store)
    model = FakeListChatModel(responses=['{"memory": [{"text": "Ann likes long walks."}]}'])
    given["llm"] = {"provider": "langchain", "config": {"model": model}}
    with Memory.from_config(given) as memory:
        memory.add("I like long walks.", **ANN)
        assert told(memory.get_all(filters=ANN)) == ["Ann likes long walks."]


def test_a_deep_copy_is_a_store_of_its_own(store: SiftStore) -> None:
    """mem0 keeps entities in a deep copy of its client, where it finds any."""
    theirs = SiftVectorStore(store)
    assert copy.deepcopy(theirs).get_by_ids(["none"]) == []
    (id_,) = theirs.add_texts(["Ann drinks coffee."], [{"user_id": "ann"}])
    other = copy.deepcopy(theirs)
    other.delete([id_])
    other.add_texts(["An entity."])
    assert [document.page_content for document in theirs.similarity_search("entity", k=5)] == ["Ann drinks coffee."]


def test_nothing_of_it_is_left_in_the_environment() -> None:
    assert "MEM0_DIR" not in os.environ
