"""One store for sync and asynchronous code."""

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest

from sift_store import AsyncSiftStore, InvalidInputError, NotFoundError, SiftStore, StoreClosedError
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN
from sift_store.twins import Twins


def filled(location: str | Path) -> SiftStore:
    store = SiftStore.open(location, embedder=WordEmbedder())
    store.add(JORDAN, payloads=[{"tenant": "a" if row % 2 else "b"} for row in range(len(JORDAN))])
    return store


async def counted(twins: Twins) -> int:
    return await (await twins.here()).count()


def test_what_runs_in_the_process_is_shared_and_stays_open(tmp_path: Path) -> None:
    with filled(tmp_path / "a.sift") as store:
        twins = Twins.of(store)
        assert [asyncio.run(counted(twins)) for _ in range(3)] == [5, 5, 5]
        twins.sync().add(["One more."])
        assert asyncio.run(counted(twins)) == 6
        twins.close()
        assert store.count() == 6


def test_a_scope_holds_for_both(tmp_path: Path) -> None:
    with filled("memory://") as store:
        twins = Twins.of(store.scoped({"tenant": "a"}))
        assert twins.sync().count() == asyncio.run(counted(twins)) == 2


def test_one_loop_has_one_store_however_many_ask_at_once() -> None:
    opened = []

    async def open_slowly() -> AsyncSiftStore:
        opened.append(1)
        await asyncio.sleep(0.01)
        return await AsyncSiftStore.open("memory://")

    twins = Twins(lambda: SiftStore.open("memory://"), open_slowly)

    async def ask() -> int:
        stores = await asyncio.gather(*(twins.here() for _ in range(5)))
        return len({id(store) for store in stores})

    assert asyncio.run(ask()) == 1
    assert len(opened) == 1
    assert asyncio.run(ask()) == 1
    assert len(opened) == 2


def test_an_asynchronous_store_ends_with_its_loop() -> None:
    stores = []

    async def open_() -> AsyncSiftStore:
        stores.append(await AsyncSiftStore.open("memory://"))
        return stores[-1]

    twins = Twins(lambda: SiftStore.open("memory://"), open_)
    asyncio.run(counted(twins))
    with pytest.raises(StoreClosedError):
        asyncio.run(stores[0].count())
    assert twins._loops == {}


def test_a_failed_opening_is_tried_again_by_the_next() -> None:
    attempts = []

    async def open_() -> AsyncSiftStore:
        attempts.append(1)
        if len(attempts) == 1:
            raise NotFoundError("not there yet")
        return await AsyncSiftStore.open("memory://")

    twins = Twins(lambda: SiftStore.open("memory://"), open_)

    async def ask() -> int:
        with pytest.raises(NotFoundError):
            await twins.here()
        return await counted(twins)

    assert asyncio.run(ask()) == 0


def test_who_gives_up_waiting_stops_nobody_else() -> None:
    async def open_() -> AsyncSiftStore:
        await asyncio.sleep(0.05)
        return await AsyncSiftStore.open("memory://")

    twins = Twins(lambda: SiftStore.open("memory://"), open_)

    async def ask() -> int:
        impatient = asyncio.create_task(counted(twins))
        await asyncio.sleep(0.01)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        return await counted(twins)

    assert asyncio.run(ask()) == 0


async def test_an_asynchronous_store_serves_coroutines_alone_and_stays_open() -> None:
    async with await AsyncSiftStore.open("memory://", embedder=WordEmbedder()) as store:
        await store.add(JORDAN)
        twins = Twins.of(store)
        assert await counted(twins) == 5
        with pytest.raises(InvalidInputError, match="await, or give a SiftStore"):
            twins.sync()


def test_only_stores_have_twins() -> None:
    with pytest.raises(InvalidInputError, match="store: str given, a SiftStore or an AsyncSiftStore wanted"):
        Twins.of("./handbook.sift")


def test_a_store_that_was_opened_here_is_closed_with_the_last_user() -> None:
    store = SiftStore.open("memory://")
    twins = Twins(lambda: store)
    assert twins.sync().count() == 0
    del twins
    gc.collect()
    with pytest.raises(StoreClosedError):
        store.count()


class Awaited(WordEmbedder):
    """Embeds by coroutines, and says how many were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = self.batches = 0

    async def aembed_query(self, text: str) -> np.ndarray:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        return self.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> np.ndarray:
        await asyncio.sleep(0)
        self.batches += 1
        return self.embed_documents(texts)


async def test_an_embedders_own_coroutines_are_awaited_side_by_side() -> None:
    embedder = Awaited()
    async with await AsyncSiftStore.open("memory://", embedder=embedder) as store:
        await store.add(JORDAN)
        assert embedder.batches == 1
        found = await asyncio.gather(*(store.search(text, k=1) for text in JORDAN))
        assert [hits[0].text for hits in found] == JORDAN
        assert embedder.most == len(JORDAN)
