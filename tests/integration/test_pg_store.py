"""What a store in PostgreSQL does beyond the contract: indexes, filters under them, fallbacks, connections, doctor."""

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import Server

from sift_store import AsyncSiftStore, DeadlineError, InvalidInputError, LocationError, SiftStore, StorageError
from sift_store.filters import matches, parse
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

ROWS, DIMENSION = 12_000, 32


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Vectors as embedders make them: around centres. Random ones have no neighbours to find."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, DIMENSION))
    return centres[rng.integers(0, 200, rows)] + 0.5 * rng.normal(size=(rows, DIMENSION))


@pytest.fixture(scope="module")
def big_database(postgres: Server) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="module")
def big(postgres: Server, big_database: str) -> Iterator[SiftStore]:
    """Twelve thousand passages with an index, a fifth of them newer than it."""
    fields = {"hundredth": "integer", "day": "datetime", "half": "keyword"}
    with SiftStore.open(postgres.url(big_database), indexed=fields) as store:
        day = datetime(2020, 1, 1, tzinfo=UTC)
        payloads = [
            {"hundredth": i % 100, "half": "ab"[i % 2], "day": day + timedelta(days=i % 1000), "free": i % 100}
            for i in range(ROWS)
        ]
        vectors, ids = clustered(ROWS), list(range(ROWS))
        texts = [f"text {i}" for i in ids]
        most = ROWS * 4 // 5
        store.add(texts[:most], ids[:most], payloads[:most], vectors[:most])
        store.optimize()
        store.add(texts[most:], ids[most:], payloads[most:], vectors[most:])
        yield store


def truth(query: np.ndarray, which: np.ndarray) -> list[int]:
    vectors = clustered(ROWS)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
    return which[np.argsort(-cosines[which], kind="stable")].tolist()


# --- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [40, 200, 1000, 1500])
def test_as_many_candidates_come_as_are_asked(big: SiftStore, candidates: int) -> None:
    """pgvector's own ef_search would end at 40."""
    query = clustered(1, seed=5)[0]
    hits = big.search(vector=query, k=10, candidates=candidates)
    assert hits.found == candidates
    nearest = big.search(vector=query, k=candidates, method="knn")
    found = [hit.id for hit in nearest]
    assert len(found) == candidates
    best = set(truth(query, np.arange(ROWS))[:candidates])
    assert len(best & set(found)) > 0.9 * candidates
    scores = [hit.score for hit in nearest]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("where", "which"),
    [
        ({"hundredth": 17}, np.arange(17, ROWS, 100)),
        ({"free": 17}, np.arange(17, ROWS, 100)),
        ({"half": "a"}, np.arange(0, ROWS, 2)),
        ({"hundredth": {"$gte": 98}}, np.flatnonzero(np.arange(ROWS) % 100 >= 98)),
        ({"day": {"$lt": datetime(2020, 1, 11, tzinfo=UTC)}}, np.flatnonzero(np.arange(ROWS) % 1000 < 10)),
        ({"hundredth": 17, "half": "b", "day": {"$lt": datetime(2020, 1, 19)}}, np.arange(17, ROWS, 1000)),
        ({"hundredth": 17, "half": "a"}, np.arange(0)),
    ],
)
def test_a_filter_under_an_index_leaves_all_that_match(big: SiftStore, where: Any, which: np.ndarray) -> None:
    query = clustered(1, seed=6)[0]
    wanted = truth(query, which)
    hits = big.search(vector=query, k=100, method="knn", where=where)
    assert len(hits) == min(100, len(which))
    assert {hit.id for hit in hits} <= set(which.tolist())
    assert len({hit.id for hit in hits} & set(wanted[:100])) >= 0.9 * len(hits)
    assert big.count(where) == len(which)
    assert bool(hits.shortfall) == (len(which) < 100)


def test_when_the_walk_finds_too_few_all_are_compared_and_it_is_said(
    big: SiftStore, postgres: Server, big_database: str
) -> None:
    url = (
        postgres.url(big_database)
        + "?options=-c%20hnsw.max_scan_tuples%3D1%20-c%20enable_sort%3Doff%20-c%20enable_seqscan%3Doff"
    )
    with SiftStore.open(url) as store:
        query = clustered(1, seed=7)[0]
        hits = store.search(vector=query, k=10, where={"free": {"$gte": 98}})
        assert hits.found == 200
        assert "every matching vector was compared" in str(hits.plan.lines())
        warnings = [finding.what for finding in store.doctor() if finding.level == "warning"]
        assert any("max_scan_tuples is 1" in what for what in warnings)


def test_filters_use_their_indexes(big: SiftStore, postgres: Server, big_database: str) -> None:
    adapter = big._context.adapter
    layout = adapter._collection.layout  # type: ignore[attr-defined]
    for where, index in (
        ({"hundredth": 17, "half": "b"}, "_payload"),
        ({"hundredth": {"$gte": 99}}, "_number_"),
        ({"day": {"$lt": datetime(2020, 1, 2)}}, "_earliest_"),
    ):
        (counted,) = next(layout.count(parse(where)))
        with postgres.connect(big_database) as connection:
            connection.execute("SET enable_seqscan = off")
            plan = connection.execute(f"EXPLAIN {counted.sql}", counted.parameters).fetchall()
        assert index in str(plan), where


def test_a_batch_is_one_round_trip(big: SiftStore, monkeypatch: pytest.MonkeyPatch) -> None:
    session = big._context.adapter._session  # type: ignore[attr-defined]
    asked: list[int] = []
    ask = session._ask
    monkeypatch.setattr(
        session, "_ask", lambda statements, deadline: asked.append(len(statements)) or ask(statements, deadline)
    )
    queries = clustered(16, seed=8)
    big.count()  # the state is fresh from here on
    big.search(vector=queries[0], k=5)
    asked.clear()
    batch = big.search_batch(vectors=queries, k=5)
    assert asked[0] == 16
    assert len(asked) <= 4  # with texts: those alike, those chosen
    assert [[hit.id for hit in hits] for hits in batch] == [
        [hit.id for hit in big.search(vector=query, k=5)] for query in queries
    ]


def test_changing_payloads_leaves_vectors_and_their_index_alone(
    big: SiftStore, postgres: Server, big_database: str
) -> None:
    def versions() -> list[Any]:
        with postgres.connect(big_database) as connection:
            return connection.execute("SELECT key, xmin FROM sift_store.vector_1_0 ORDER BY key LIMIT 500").fetchall()

    before = versions()
    big.update_payload(list(range(500)), {"checked": True})
    assert big.count({"checked": True}) == 500
    record = big.get(
        [3],
    )[0]
    assert record is not None
    vectors = clustered(ROWS)[3:4]
    big.add([record.text], [3], [{**record.payload, "checked": False}], vectors)  # the same vector again
    assert big.count({"checked": False}) == 1
    assert versions() == before


# --- the collection ---------------------------------------------------------------------------------------------------


def test_precision_by_dimension_and_by_wish(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    rng = np.random.default_rng(0)
    for collection, dimension, options, kind in (
        ("a", 2000, "", "vector"),
        ("b", 2001, "", "halfvec"),
        ("c", 8, "&vector_type=halfvec", "halfvec"),
    ):
        with SiftStore.open(f"{url}?collection={collection}{options}") as store:
            vectors = rng.normal(size=(3, dimension))
            store.add(["x", "y", "z"], vectors=vectors)
            assert store.search(vector=vectors[1], k=1)[0].text == "y"
            state = store._context.adapter._collection.serving()  # type: ignore[attr-defined]
            assert state.kind == kind
    with SiftStore.open(f"{url}?collection=d") as store, pytest.raises(InvalidInputError, match="halfvec up to 4000"):
        store.add(["x"], vectors=rng.normal(size=(1, 4001)))
    with (
        SiftStore.open(f"{url}?collection=d&vector_type=vector") as store,
        pytest.raises(InvalidInputError, match="halfvec"),
    ):
        store.add(["x"], vectors=rng.normal(size=(1, 2001)))
    with pytest.raises(LocationError, match="vector_type=bit"):
        SiftStore.open(f"{url}?vector_type=bit")


def test_fields_may_be_declared_later(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add(JORDAN, payloads=[{"year": i} for i in range(5)])
        assert "no payload index on year" in str(store.explain("Jordan", where={"year": 1}))
    with SiftStore.open(url, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
        assert "all fields indexed" in str(store.explain("Jordan", where={"year": 1}))
        assert store.count({"year": {"$lt": 2}}) == 2
        with pytest.raises(InvalidInputError, match="does not fit"):
            store.add(["x"], payloads=[{"year": "x"}])
        assert any("payload indexes: year" in finding.what for finding in store.doctor())
    with postgres.connect(database) as connection:
        connection.execute("DROP INDEX sift_store.passage_1_payload")
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        (missing,) = [finding for finding in store.doctor() if finding.level == "warning"]
        assert "passage_1_payload" in missing.what


def test_what_another_process_does_is_seen(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    with SiftStore.open(url, embedder=WordEmbedder()) as ours, SiftStore.open(url, embedder=WordEmbedder()) as theirs:
        assert list(ours.search("Jordan")) == []
        theirs.add(JORDAN)
        assert len(ours.search("Jordan", k=3)) == 3
        theirs.reembed(WordEmbedder(16, "sixteen"))
        with pytest.raises(StorageError):
            ours.search("Jordan")
        with pytest.raises(StorageError, match="re-embedded"):
            ours.search("Jordan")
        with pytest.raises(StorageError, match="re-embedded"):
            ours.add(["late"])
        assert theirs.count() == 5


def test_two_collections_do_not_meet(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    with SiftStore.open(f"{url}?collection=a") as a, SiftStore.open(f"{url}?collection=b&schema=elsewhere") as b:
        a.add(["in a"], ids=["x"], vectors=np.eye(1, 3))
        b.add(["in b"], ids=["x"], vectors=np.eye(1, 5))
        assert [a.get(["x"])[0].text, b.get(["x"])[0].text] == ["in a", "in b"]  # type: ignore[union-attr]


def test_many_writers_at_once(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            with SiftStore.open(url, embedder=WordEmbedder()) as store:
                for turn in range(5):
                    ids = np.random.default_rng(seed * 10 + turn).permutation(40)
                    store.add([f"text {i}" for i in ids], ids=[int(i) for i in ids])
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        assert store.count() == 40


letters = st.characters(exclude_categories=["Cs"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def scratch(postgres: Server) -> Iterator[SiftStore]:
    with postgres.database() as name, SiftStore.open(postgres.url(name)) as store:
        yield store


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values, text=st.text(letters, min_size=1).filter(str.strip))
def test_any_payload_text_and_id_comes_back_as_it_was(scratch: SiftStore, value: Any, text: str) -> None:
    scratch.add([text], ids=[text], payloads=[{"v": value}], vectors=np.ones((1, 4)))
    record = scratch.get([text])[0]
    assert record is not None
    assert (record.id, record.text) == (text, text)
    assert repr(record.payload["v"]) == repr(value) or record.payload["v"] == value
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        for where in ({"v": value}, {"v": {"$ne": value}}, {"v": {"$in": [value, "x"]}}):
            both = {"$and": [where, {"v": {"$exists": True}}]}
            ours = scratch.count({"$and": [both]})
            wanted = sum(matches(parse(both), r.payload) for r in scratch._context.adapter.scan(None, 10_000)[0])
            assert ours == wanted, where


# --- connections and time ---------------------------------------------------------------------------------------------


def connected(postgres: Server, database: str) -> int:
    with postgres.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,)).fetchone()
    assert row is not None
    return int(row[0])


async def test_no_connection_is_left_behind(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    for _ in range(3):
        with SiftStore.open(url, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
            threads = [threading.Thread(target=store.search, args=("Jordan",)) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for bad in ({"where": {"x": {"$near": 1}}}, {"vector": [1.0]}, {"timeout": 1e-9}):
                with pytest.raises((InvalidInputError, DeadlineError)):
                    store.search(None if "vector" in bad else "Jordan", **bad)  # type: ignore[arg-type]
            store.optimize()
            store.reembed(WordEmbedder(16, "sixteen"))
            store.reembed(WordEmbedder())
            assert connected(postgres, database) <= 10
        async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as twin:
            await asyncio.gather(*(twin.search("Jordan") for _ in range(20)))
            tasks = [asyncio.create_task(twin.search("Jordan")) for _ in range(20)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert len(await twin.search("Jordan", k=3)) == 3
            assert connected(postgres, database) <= 10
    for _ in range(50):
        if not connected(postgres, database):
            break
        await asyncio.sleep(0.05)
    assert connected(postgres, database) == 0


def test_a_failed_open_leaves_nothing(postgres: Server, database: str) -> None:
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN)
    for _ in range(3):
        with pytest.raises(Exception, match="'words'"):
            SiftStore.open(postgres.url(database), embedder=WordEmbedder(name="others"))
    assert connected(postgres, database) == 0


def test_one_deadline_for_a_whole_search(big: SiftStore, postgres: Server, big_database: str) -> None:
    query = clustered(1, seed=9)[0]
    with postgres.connect(big_database) as connection, connection.transaction():
        connection.execute("LOCK TABLE sift_store.vector_1_0 IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DeadlineError, match=r"the 0.3 s given are over"):
            big.search(vector=query, timeout=0.3)
    with postgres.connect(big_database) as connection, connection.transaction():
        connection.execute("LOCK TABLE sift_store.passage_1 IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            big.search(vector=query, timeout=0.3)
    assert len(big.search(vector=query, timeout=5)) == 5
    for wrong in (0, -1, "soon", float("nan")):
        with pytest.raises(InvalidInputError, match="timeout"):
            big.search(vector=query, timeout=wrong)  # type: ignore[arg-type]


# --- the doctor -------------------------------------------------------------------------------------------------------


def test_the_doctor_on_a_large_collection(big: SiftStore, postgres: Server, big_database: str) -> None:
    assert {finding.level for finding in big.doctor() if "embedder" not in finding.what} == {"ok"}
    with postgres.connect(big_database) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'sift_store.vector_1_0_hnsw'::regclass"
        )
        try:
            with SiftStore.open(postgres.url(big_database)) as store:
                found = {finding.level: finding for finding in store.doctor() if finding.level in ("error", "warning")}
                assert "invalid" in found["error"].what
                assert re.search(r"compares 1[0-4],\d{3} vectors", found["warning"].what)
                assert all("sift-store optimize" in finding.mend for finding in found.values())
                assert not store.search(vector=clustered(1)[0]).plan.ef
        finally:
            connection.execute(
                "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'sift_store.vector_1_0_hnsw'::regclass"
            )


def test_the_doctor_on_an_attached_table(big: SiftStore, postgres: Server, big_database: str) -> None:
    del big
    with postgres.connect(big_database) as connection:
        connection.execute(
            "CREATE TABLE docs AS SELECT id::int AS number, text AS body, payload AS meta, embedding::vector AS emb "
            "FROM sift_store.passage_1 JOIN sift_store.vector_1_0 USING (key)"
        )
        connection.execute("ALTER TABLE docs ADD PRIMARY KEY (number); ANALYZE docs")
        url = postgres.url(big_database, table="docs")
        for build, says in (
            (None, "no index serves"),
            ("CREATE INDEX i ON docs USING hnsw ((emb::vector(32)) vector_l2_ops)", "i is for vector_l2_ops"),
            (
                "CREATE INDEX i ON docs USING hnsw ((emb::vector(32)) vector_cosine_ops) WHERE number < 100",
                "i holds only",
            ),
        ):
            connection.execute("DROP INDEX IF EXISTS i")
            if build:
                connection.execute(build)
            with SiftStore.attach(url + "&metric=cosine") as store:
                (warning,) = [finding for finding in store.doctor() if finding.level == "warning"]
                assert says in warning.what
                assert "USING gin" in next(f.mend for f in store.doctor() if "no index on meta" in f.what)
        connection.execute("DROP INDEX i")
        connection.execute(warning.mend)  # the mend is SQL that works
        with SiftStore.attach(url) as store:
            findings = store.doctor()
            assert not [finding for finding in findings if finding.level in ("warning", "error")]
            assert any("walks docs_" in finding.what for finding in findings)
        connection.execute("DROP TABLE docs")
