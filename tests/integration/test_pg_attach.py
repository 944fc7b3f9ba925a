"""Attaching to what others keep in PostgreSQL: LangChain's two layouts and LlamaIndex's, written by those libraries
themselves, and tables, views and clients of any kind. Nothing is ever written.
"""

import json
import uuid
from collections.abc import Iterator
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy
from langchain_core.documents import Document
from langchain_postgres import Column, PGEngine, PGVector, PGVectorStore
from llama_index.core.schema import TextNode
from llama_index.vector_stores.postgres import PGVectorStore as LlamaIndexStore
from pgvector.psycopg import register_vector
from postgres_server import Server
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine
from word_embeddings import ANSWER, QUESTION, Words

from sift_store import (
    AsyncSiftStore,
    EmbedderError,
    InvalidInputError,
    LocationError,
    NotFoundError,
    ReadOnlyError,
    SiftStore,
)
from sift_store.adapter import CandidateQuery
from sift_store.filters import parse
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


def as_psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def documents() -> list[Document]:
    texts = [*JORDAN, JORDAN[0]]
    return [Document(page_content=text, metadata={"year": 2000 + i, "tags": ["a"]}) for i, text in enumerate(texts)]


@pytest.fixture
def langchain_collections(postgres: Server, database: str) -> Iterator[tuple[str, PGVector]]:
    """LangChain's older layout: one table for all collections."""
    url = postgres.url(database)
    stores = []
    for name, texts in (("jordan", documents()), ("other", [Document(page_content="Something else.")])):
        store = PGVector(Words(), connection=as_psycopg(url), collection_name=name, use_jsonb=True)
        store.add_documents(texts)
        stores.append(store)
    yield url, stores[0]
    for store in stores:
        store._engine.dispose()


def test_a_langchain_collection(langchain_collections: tuple[str, PGVector]) -> None:
    url, theirs = langchain_collections
    with SiftStore.attach(f"{url}?collection=jordan", embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.text for hit in hits} == ANSWER
        assert [item.reason for item in hits.suppressed if item.text == JORDAN[0]] == ["copy"]
        assert store.count() == 6
        assert store.count({"year": {"$gte": 2003}, "tags": "a"}) == 3
        (document, away), *_ = theirs.similarity_search_with_score("Paris", k=1)
        nearest = store.search("Paris", k=1, method="knn")[0]
        assert (nearest.text, nearest.id) == (document.page_content, document.id)
        assert nearest.score == pytest.approx(1 - away, abs=1e-5)
        assert nearest.payload == document.metadata
        assert store.get([nearest.id])[0] is not None
    with pytest.raises(NotFoundError, match=r"no LangChain collection 'nowhere'; there are: jordan, other"):
        SiftStore.attach(f"{url}?collection=nowhere")
    with SiftStore.attach(f"{url}?table=langchain_pg_embedding") as store:
        assert store.count() == 7


def test_a_langchain_table(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    engine = PGEngine.from_connection_string(as_psycopg(url))
    columns = [Column("year", "INTEGER"), Column("language", "TEXT")]
    engine.init_vectorstore_table("passages", 32, metadata_columns=columns)
    theirs = PGVectorStore.create_sync(engine, Words(), "passages", metadata_columns=["year", "language"])
    theirs.add_documents(documents())
    with SiftStore.attach(f"{url}?table=passages", embedder=WordEmbedder()) as store:
        assert {hit.text for hit in store.search(QUESTION, k=2)} == ANSWER
        assert store.count({"year": {"$gte": 2003}, "tags": "a"}) == 3
        assert store.count({"language": {"$exists": True}}) == 0
        (document,) = theirs.similarity_search("Paris", k=1)
        nearest = store.search("Paris", k=1, method="knn")[0]
        assert (nearest.text, str(nearest.id)) == (document.page_content, document.id)
        assert nearest.payload == {**document.metadata, "language": None}
    engine._run_as_sync(engine.close())


@pytest.mark.parametrize("use_jsonb", [False, True])
def test_a_llama_index_table(postgres: Server, database: str, use_jsonb: bool) -> None:
    at = postgres.parameters
    theirs = LlamaIndexStore.from_params(
        host=at["host"],
        port=str(at["port"]),
        user=at["user"],
        password=at.get("password") or "none",
        database=database,
        table_name="jordan",
        embed_dim=32,
        use_jsonb=use_jsonb,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
    )
    theirs.add(
        [
            TextNode(text=text, id_=f"node {i}", metadata={"year": 2000 + i}, embedding=Words().embed_query(text))
            for i, text in enumerate(JORDAN)
        ]
    )
    with SiftStore.attach(postgres.url(database, table="data_jordan"), embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.id for hit in hits} == {"node 0", "node 2"}
        assert hits[0].payload["_node_type"] == "TextNode"
        assert [record and record.text for record in store.get(["node 3", "nobody", 7])] == [JORDAN[3], None, None]
        assert store.count({"year": {"$lt": 2002}}) == 2
    theirs._engine.dispose()


# --- any table --------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection(postgres: Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    with postgres.connect(database) as opened:
        yield opened


def fill(connection: psycopg.Connection[Any], table: str, kind: str = "vector(32)", rows: int = 5) -> np.ndarray:
    """A table as somebody might have it; the vectors have all lengths."""
    name = sql.Identifier(table)
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (number int PRIMARY KEY, body text, author text, price numeric, at timestamptz, "
            'langs text[], extra jsonb, "%s ""; DROP TABLE x" text, emb {})'
        ).format(name, sql.SQL(kind))
    )
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, 32)).astype(np.float32) * rng.uniform(0.5, 4, size=(rows, 1)).astype(np.float32)
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
        for i, vector in enumerate(vectors):
            author, day, langs = "ann" if i % 2 else "bob", f"2020-01-0{i % 9 + 1}", ["en", "de"][: i % 3]
            extra = json.dumps({"deep": {"er": i}})
            copy.write_row((i, f"body {i}", author, i + 0.5, day, langs, extra, "x", str(vector.tolist())))
    return vectors


def test_any_table_with_columns_as_metadata(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, 'odd "name"; % DROP')
    with SiftStore.attach(
        "postgresql://localhost/x?table=odd+%22name%22%3B+%25+DROP&text=body", client=pool_of(postgres, database)
    ) as store:
        hits = store.search(vector=vectors[3], k=5, method="knn")
        cosines = vectors @ vectors[3] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[3])
        assert [hit.id for hit in hits] == np.argsort(-cosines).tolist()
        assert [hit.score for hit in hits] == pytest.approx(np.sort(cosines)[::-1], abs=1e-5)
        assert hits[0].payload["author"] == "ann"
        assert hits[0].payload["deep"] == {"er": 3}
        assert hits[0].payload["langs"] == []
        wheres: dict[int, Any] = {
            2: {"author": "ann"},
            3: {"author": {"$ne": "ann"}},
            1: {"deep.er": {"$gt": 3}},
            4: {"price": {"$gte": 1.5}},
            5: {"author": {"$in": ["ann", "bob"]}},
        }
        for wanted, where in wheres.items():
            assert store.count(where) == wanted, where
        assert store.count({"langs": "en"}) == 3
        assert store.count({"langs": {"$exists": False}}) == 2
        assert store.count({"at": {"$lt": np.datetime64("2020-01-03").astype(object)}}) == 2
        assert store.count({"author": 3}) == 0
        native = sqlalchemy.text("price > 2 OR author = 'bob'")
        assert store.count(native) == 4
        columns = sqlalchemy.or_(sqlalchemy.column("price") > 2, sqlalchemy.column("author") == "bob")
        assert store.scoped({"author": "ann"}).count(columns) == 1
        for write in (lambda: store.add(["x"]), lambda: store.delete([1]), lambda: store.update_payload([1], {"a": 1})):
            with pytest.raises(ReadOnlyError):
                write()
        for write in (lambda: store.reembed(WordEmbedder()), store.optimize):
            with pytest.raises(ReadOnlyError):
                write()


def pool_of(postgres: Server, database: str) -> ConnectionPool[Any]:
    pool = ConnectionPool(kwargs={**postgres.parameters, "dbname": database}, min_size=1, max_size=2, open=False)
    pool.open()
    POOLS.append(pool)
    return pool


POOLS: list[ConnectionPool[Any]] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while POOLS:
        POOLS.pop().close()


@pytest.mark.parametrize(
    ("opclass", "metric"), [("vector_l2_ops", "euclid"), ("vector_ip_ops", "dot"), ("vector_cosine_ops", "cosine")]
)
@pytest.mark.parametrize("method", ["hnsw", "ivfflat"])
def test_scores_follow_the_index_of_the_table(
    postgres: Server, database: str, connection: psycopg.Connection[Any], opclass: str, metric: str, method: str
) -> None:
    vectors = fill(connection, "docs", rows=3000)
    lists = " WITH (lists = 1)" if method == "ivfflat" else ""  # of several, chance decides which rows are in them
    connection.execute(f"CREATE INDEX ON docs USING {method} (emb {opclass}){lists}")
    query = np.random.default_rng(1).normal(size=32) * 3
    truth = {
        "euclid": -np.linalg.norm(vectors - query, axis=1),
        "dot": vectors @ query,
        "cosine": vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
    }[metric]
    with SiftStore.attach(postgres.url(database, table="docs", text="body")) as store:
        hits = store.search(vector=query, k=200, method="knn")
        assert hits.metric == metric
        assert len(hits) == 200
        assert [hit.score for hit in hits] == pytest.approx([truth[int(str(hit.id))] for hit in hits], abs=1e-4)
        best = set(np.argsort(-truth)[:200].tolist())
        assert len(best & {hit.id for hit in hits}) >= 160
        assert [f.level for f in store.doctor()] == ["ok", "ok", "note"]
        assert len(store.search(vector=query, k=10)) == 10


def test_as_many_lists_are_probed_as_the_root_of_their_number(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, "docs", rows=3000)
    connection.execute("CREATE INDEX ON docs USING ivfflat (emb vector_cosine_ops) WITH (lists = 100)")
    with SiftStore.attach(postgres.url(database, table="docs", text="body")) as store:
        layout = store._context.adapter._collection.layout  # type: ignore[attr-defined]
        asked = layout.nearest(CandidateQuery(vectors[5], 200), exact=False)
        assert asked.settings == {"ivfflat.probes": "10", "ivfflat.iterative_scan": "relaxed_order"}
        assert store.search(vector=vectors[5], k=200, method="knn")[0].id == 5
        assert len(store.search(vector=vectors[5], k=200, method="knn")) == 200


def test_a_column_without_dimension_and_an_index_on_a_cast(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, "docs", kind="vector", rows=12_000)
    connection.execute("CREATE INDEX by_half ON docs USING hnsw ((emb::halfvec(32)) halfvec_cosine_ops)")
    with SiftStore.attach(postgres.url(database, table="docs", text="body")) as store:
        hits = store.search(vector=vectors[5], k=1)
        assert hits[0].id == 5
        assert "HNSW, ef 200" in str(hits.plan.lines())
        walks = [finding.what for finding in store.doctor() if "walks by_half" in finding.what]
        assert walks


def test_rows_without_a_direction_are_passed_over(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, "docs")
    connection.execute("UPDATE docs SET emb = NULL WHERE number = 1")
    connection.execute("UPDATE docs SET emb = %s, body = NULL WHERE number = 2", (str([0.0] * 32),))
    for metric in ("cosine", "dot", "euclid"):
        with SiftStore.attach(postgres.url(database, table="docs", text="body", metric=metric)) as store:
            assert {hit.id for hit in store.search(vector=vectors[0], k=5)} == {0, 3, 4}


def test_views_partitions_and_materialised_views(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    fill(connection, "docs")
    connection.execute("CREATE VIEW seen AS SELECT number, body, author, emb FROM docs WHERE number < 3")
    connection.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM seen")
    connection.execute("CREATE TABLE parts (LIKE docs) PARTITION BY LIST (author)")
    for name in ("ann", "bob"):
        connection.execute(f"CREATE TABLE parts_{name} PARTITION OF parts FOR VALUES IN ('{name}')")
    connection.execute("INSERT INTO parts SELECT * FROM docs")
    for table, count in (("seen", 3), ("kept", 3), ("parts", 5)):
        with pytest.raises(LocationError, match=r"no primary key; name what.*&id="):
            SiftStore.attach(postgres.url(database, table=table, text="body"))
        with SiftStore.attach(postgres.url(database, table=table, text="body", id="number")) as store:
            assert store.count() == count
            assert len(store.search(vector=[1.0] * 32, k=9)) == count


def test_doubts_are_asked_about(postgres: Server, database: str, connection: psycopg.Connection[Any]) -> None:
    fill(connection, "docs")
    url = postgres.url(database)
    for options, error, says in (
        ("", LocationError, r"which table\? Say \?table=…; with vectors there are: public.docs"),
        ("?table=dogs", NotFoundError, "no table or view .*public.docs"),
        ("?table=docs", LocationError, r"which column is the text\? Say &text=…; it could be body, author"),
        ("?table=docs&text=boddy", LocationError, "text=boddy: docs has no such column; it has .*body"),
        ("?table=docs&text=body&vector=price", LocationError, "vector=price: of type numeric"),
        ("?table=docs&text=body&metric=l2", LocationError, "metric=l2: one of cosine, dot, euclid"),
        ("?table=docs&text=body&grpc_port=3", LocationError, "grpc_port= has no meaning here"),
        ("?table=docs&text=body&collection=x", LocationError, "no table of LangChain collections"),
    ):
        with pytest.raises(error, match=says):
            SiftStore.attach(url + options)
    with pytest.raises(LocationError, match=r"table= has no meaning here.*SiftStore.attach"):
        SiftStore.open(url + "?table=docs")
    with pytest.raises(EmbedderError, match="gives dimension 16, the store has 32"):
        SiftStore.attach(url + "?table=docs&text=body", embedder=WordEmbedder(16))
    connection.execute("ALTER TABLE docs ADD COLUMN second vector(3)")
    with pytest.raises(LocationError, match=r"which column is the vector.*emb, second"):
        SiftStore.attach(url + "?table=docs&text=body")
    with pytest.raises(LocationError, match="'path' cannot be attached"):
        SiftStore.attach("./somewhere.sift")


def test_a_role_that_may_only_read_is_enough(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    fill(connection, "docs")
    role = f"reader_{uuid.uuid4().hex[:8]}"
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'only-reads'").format(sql.Identifier(role)))
    connection.execute(sql.SQL("GRANT SELECT ON docs TO {}").format(sql.Identifier(role)))
    try:
        at = postgres.parameters
        url = f"postgresql://{role}:only-reads@{at['host']}:{at['port']}/{database}"
        with SiftStore.attach(f"{url}?table=docs&text=body") as store:
            assert len(store.search(vector=[1.0] * 32, k=3)) == 3
            assert store.doctor()
        with SiftStore.open(f"{url}?collection=mine") as store, pytest.raises(Exception, match="migrate") as failed:
            store.add(["x"], vectors=np.ones((1, 32)))
        assert "only-reads" not in str(failed.value)
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(role)))


# --- clients of the caller's own --------------------------------------------------------------------------------------


def test_engines_and_pools_are_used_and_left_open(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, "docs")
    pool = pool_of(postgres, database)
    engine = sqlalchemy.create_engine(as_psycopg(postgres.url(database)))
    for client in (pool, engine):
        for _ in range(3):
            with SiftStore.attach("postgresql://?table=docs&text=body", client=client) as store:
                assert store.search(vector=vectors[2], k=1)[0].id == 2
        with SiftStore.open("postgresql://?collection=mine", client=client, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
            assert store.count() == 5
            assert store.reembed(WordEmbedder(8, "eight")) == 5
            store.reembed(WordEmbedder())
    with engine.connect() as still:
        assert still.scalar(sqlalchemy.text("SELECT 1")) == 1
        assert not still.connection.driver_connection.autocommit  # type: ignore[union-attr]  # as it was
    with pool.connection() as still:
        assert not still.autocommit
    engine.dispose()
    for wrong in (
        sqlalchemy.create_engine("postgresql+psycopg2://localhost/x"),
        "a string",
        AsyncConnectionPool(open=False),
    ):
        with pytest.raises(InvalidInputError, match="client: "):
            SiftStore.attach("postgresql://?table=docs&text=body", client=wrong)
    with pytest.raises(InvalidInputError, match="'memory' has no connection"):
        SiftStore.open("memory://", client=pool)


async def test_async_engines_and_pools(postgres: Server, database: str, connection: psycopg.Connection[Any]) -> None:
    vectors = fill(connection, "docs")
    engine = create_async_engine(as_psycopg(postgres.url(database)))
    sync_engine = sqlalchemy.create_engine(as_psycopg(postgres.url(database)))
    async with AsyncConnectionPool(kwargs={**postgres.parameters, "dbname": database}, min_size=1, max_size=2) as pool:
        for client in (engine, pool, None, sync_engine):
            url = postgres.url(database) if client is None else "postgresql://"
            async with await AsyncSiftStore.attach(f"{url}?table=docs&text=body", client=client) as store:
                assert (await store.search(vector=vectors[2], k=1))[0].id == 2
            async with await AsyncSiftStore.open(f"{url}?collection=m", client=client, embedder=WordEmbedder()) as own:
                await own.add(JORDAN)
                assert await own.count() == 5
    await engine.dispose()
    sync_engine.dispose()


def test_secrets_are_not_shown(postgres: Server, database: str, capfd: pytest.CaptureFixture[str]) -> None:
    at = postgres.parameters
    shown: list[str] = []
    for url in (
        f"postgresql://postgres:s3cr3t@{at['host']}:1/{database}",
        f"postgresql://postgres:s3cr3t@{at['host']}:{at['port']}/nowhere",
        f"postgresql://postgres:s3cr3t@{at['host']}:notaport/x",
        f"postgresql://postgres:s3cr3t@[{at['host']}/x",
        f"postgresql://postgres:s3cr3t@{at['host']}:{at['port']}/{database}?nonsense=1",
    ):
        for open_ in (SiftStore.open, SiftStore.attach):
            with pytest.raises(Exception) as failed:  # whichever it is
                open_(url)
            error: BaseException | None = failed.value
            while error is not None:
                shown += [str(error), repr(error)]
                error = error.__cause__
    with SiftStore.open(
        f"postgresql://postgres:s3cr3t@{at['host']}:{at['port']}/{database}", embedder=WordEmbedder()
    ) as store:
        store.add(JORDAN)
        shown += [repr(store), str(store.explain("Paris")), str(store.doctor()), repr(store._context)]
    said = capfd.readouterr()
    assert "s3cr3t" not in "\n".join([*shown, said.out, said.err])


def test_keys_and_columns_of_odd_types(postgres: Server, database: str, connection: psycopg.Connection[Any]) -> None:
    large = 5_000_000_000
    for table, kind, values in (
        ("snowflakes", "int8", [large, large + 1]),
        ("smalls", "int2", [1, 2]),
        ("fixed", "char(4)", ["ab", "cd"]),
        ("days", "date", ["2020-01-01", "2020-01-02"]),
        ("exact", "numeric", [1, 2.5]),
    ):
        connection.execute(f"CREATE TABLE {table} (k {kind} PRIMARY KEY, body text, n int, x float8, emb vector(2))")
        for place, value in enumerate(values):
            row = (value, f"text {place}", place, "NaN" if place else 1.5, f"[{place + 1},1]")
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s)", row)
        with SiftStore.attach(postgres.url(database, table=table, text="body")) as store:
            ids = [hit.id for hit in store.search(vector=[1.0, 0.0], k=2)]
            assert len(ids) == 2
            assert [record and record.id for record in store.get(ids)] == ids
            assert store.get([2**62, "nobody"]) == [None, None]
            assert len(store._context.adapter.scan(None, 5)[0]) == 2
            assert store.count({"x": {"$gt": 0}}) == 1  # NaN is no number
            assert store.count({"n": {"$gte": 0.5}}) == 1
            assert store.count({"n": {"$in": [0, 1, 2**60]}}) == 2


def test_an_index_on_an_integer_column_is_used(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    fill(connection, "docs", rows=3000)
    connection.execute("ALTER TABLE docs ADD COLUMN year int; UPDATE docs SET year = number")
    connection.execute("CREATE INDEX by_year ON docs (year); ANALYZE docs")
    with SiftStore.attach(postgres.url(database, table="docs", text="body")) as store:
        for where in ({"year": 17}, {"year": {"$gte": 10, "$lt": 20}}, {"year": {"$in": [1, 2]}}):
            (counted,) = next(store._context.adapter._collection.layout.count(parse(where)))  # type: ignore[attr-defined]
            assert "by_year" in str(connection.execute(f"EXPLAIN {counted.sql}", counted.parameters).fetchall())


def test_one_odd_date_spoils_no_filter(postgres: Server, database: str) -> None:
    odd = ["2020-01-01T00:00+99:00", "2020-01-01T00:00+15:60", "0000-01-01", "2020-02-30", "2020-01-01T24:00", "x"]
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder()) as store:
        store.add(
            [f"text {i}" for i in range(7)], payloads=[{"day": text} for text in [*odd, "2020-01-01T00:00+15:59"]]
        )
        assert store.count({"day": {"$gte": date(1900, 1, 1)}}) == 1
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder(), indexed={"day": "datetime"}) as store:
        assert store.count({"day": {"$gte": date(1900, 1, 1)}}) == 1


def test_numbers_that_are_members_of_an_enumeration(postgres: Server, database: str) -> None:
    level, name = IntEnum("Level", "LOW HIGH"), StrEnum("Name", "ANN")
    for url in (postgres.url(database), "memory://"):
        with SiftStore.open(url, embedder=WordEmbedder()) as store:
            store.add(["text"], payloads=[{"level": 2, "name": "ann"}])
            assert store.count({"level": level.HIGH, "name": name.ANN}) == 1
            assert store.scoped({"level": level.LOW}).count() == 0


def test_connections_that_make_something_else_of_rows_and_vectors(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    vectors = fill(connection, "docs")
    kwargs = {**postgres.parameters, "dbname": database, "row_factory": dict_row}
    with ConnectionPool(kwargs=kwargs, configure=register_vector, min_size=1, max_size=2) as pool:
        with SiftStore.attach("postgresql://?table=docs&text=body", client=pool) as store:
            assert [hit.id for hit in store.search(vector=vectors[2], k=1)] == [2]
        with SiftStore.open("postgresql://", client=pool, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
            assert store.search(JORDAN[1], k=1)[0].text == JORDAN[1]


def test_maintenance_goes_where_the_clients_connections_lead(postgres: Server, database: str) -> None:
    at = {**postgres.parameters, "dbname": database}
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**at))
    with SiftStore.open("postgresql://", client=engine, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        assert store.reembed(WordEmbedder(8, "eight")) == 5
    engine.dispose()
    with postgres.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM sift_store.collection").fetchone() == (1,)
