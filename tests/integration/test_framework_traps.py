"""What the retrievers of LangChain and LlamaIndex do that nobody expects who swaps one store for another.

The migration pages in docs/ state each of these. Here the installed versions are asked; once one has mended its trap,
the test fails and the page must change. Of a range of versions in a docstring, both ends were tried.

A text is a bearing, such as "30°", and its vector points there: the cosine of two texts is that of the angle between
them, and what is near the question "0°" is the text with the smallest bearing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from unittest.mock import patch
from uuid import UUID

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_postgres import PGEngine, PGVector, PGVectorStore
from langchain_postgres.v2.indexes import DistanceStrategy
from langchain_qdrant import QdrantVectorStore
from llama_index.core import MockEmbedding, QueryBundle, VectorStoreIndex
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode
from llama_index.vector_stores.postgres import PGVectorStore as LlamaIndexPostgres
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexQdrant
from postgres_server import Server
from qdrant_client import QdrantClient, models
from qdrant_server import Qdrant


class Bearings(Embeddings):
    """`calls`: what was embedded so far, one entry a call."""

    def __init__(self) -> None:
        self.calls: list[str | list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(texts)
        return [vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls.append(text)
        return vector(text)


def vector(text: str) -> list[float]:
    angle = math.radians(float(text.removesuffix("°"))) if text.endswith("°") else 0.0
    return [math.cos(angle), math.sin(angle)]


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def texts(found: Sequence[Document]) -> list[str]:
    return [document.page_content for document in found]


def in_memory(passages: list[str]) -> InMemoryVectorStore:
    return InMemoryVectorStore.from_texts(passages, Bearings())


# --- the other stores -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(request: pytest.FixtureRequest, qdrant: Qdrant) -> Iterator[QdrantClient]:
    """Of the server for tests; where a test asks for it, of Qdrant's own imitation of one in Python."""
    made = QdrantClient(":memory:") if getattr(request, "param", "") == "in memory" else qdrant.client()
    yield made
    made.close()


@pytest.fixture
def in_qdrant(client: QdrantClient, collection: str) -> Callable[[list[str]], QdrantVectorStore]:
    def make(passages: list[str]) -> QdrantVectorStore:
        client.create_collection(collection, models.VectorParams(size=2, distance=models.Distance.COSINE))
        store = QdrantVectorStore(client, collection, Bearings())
        store.add_texts(passages, [{"kind": "bearing"} for _ in passages])
        return store

    return make


@pytest.fixture
def engine(postgres: Server, database: str) -> Iterator[PGEngine]:
    made = PGEngine.from_connection_string(as_psycopg(postgres.url(database)))
    yield made
    made._run_as_sync(made.close())


@pytest.fixture
def in_postgres(engine: PGEngine) -> Callable[..., PGVectorStore]:
    def make(passages: list[str], **options: object) -> PGVectorStore:
        engine.init_vectorstore_table("bearings", 2)
        store = PGVectorStore.create_sync(engine, Bearings(), "bearings", **options)  # type: ignore[arg-type]
        store.add_texts(passages, [{"kind": "bearing"} for _ in passages])
        return store

    return make


@pytest.fixture
def in_old_postgres(postgres: Server, database: str) -> Iterator[Callable[[list[str]], PGVector]]:
    """LangChain's older layout, PGVector."""
    made: list[PGVector] = []

    def make(passages: list[str]) -> PGVector:
        store = PGVector(Bearings(), connection=as_psycopg(postgres.url(database)), collection_name="bearings")
        made.append(store)
        store.add_texts(passages, [{"kind": "bearing"} for _ in passages])
        return store

    yield make
    for store in made:
        store._engine.dispose()


@pytest.fixture
def llama_index_postgres(postgres: Server, database: str) -> Iterator[LlamaIndexPostgres]:
    at = postgres.parameters
    store = LlamaIndexPostgres.from_params(
        host=at["host"],
        port=str(at["port"]),
        user=at["user"],
        password=at.get("password") or "none",
        database=database,
        table_name="bearings",
        embed_dim=2,
    )
    yield store
    store._engine.dispose()


def as_psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def nodes(passages: list[str]) -> list[BaseNode]:
    return [TextNode(text=text, id_=str(UUID(int=i)), embedding=vector(text)) for i, text in enumerate(passages)]


def ask(
    store: BasePydanticVectorStore, k: int, mode: str = "default", threshold: float | None = None, **options: float
) -> VectorStoreQueryResult:
    """What a LlamaIndex store answers to "0°"."""
    query = VectorStoreQuery(vector("0°"), k, mode=VectorStoreQueryMode(mode), mmr_threshold=threshold)
    return store.query(query, **options)


def chosen(passages: list[str], result: VectorStoreQueryResult) -> list[str]:
    return [passages[UUID(id_).int] for id_ in result.ids or []]


# --- 1: what a score says ---------------------------------------------------------------------------------------------

RIGHT_ANGLE = ["0°", "90°"]  # the question itself, and what has nothing to do with it


def scores(store: VectorStore) -> list[float]:
    found = store.similarity_search_with_score("0°", k=2)
    assert texts([document for document, _ in found]) == RIGHT_ANGLE  # the best comes first everywhere
    return [score for _, score in found]


def test_langchains_qdrant_and_memory_give_a_similarity(in_qdrant: Callable[[list[str]], QdrantVectorStore]) -> None:
    """langchain-qdrant 1.1.0, langchain-core 1.0.0-1.8.4."""
    assert scores(in_memory(RIGHT_ANGLE)) == pytest.approx([1, 0], abs=1e-6)
    assert scores(in_qdrant(RIGHT_ANGLE)) == pytest.approx([1, 0], abs=1e-6)


def test_langchains_postgres_stores_give_a_distance(
    in_postgres: Callable[[list[str]], PGVectorStore], in_old_postgres: Callable[[list[str]], PGVector]
) -> None:
    """langchain-postgres 0.0.16-0.0.19: what is 1 with Qdrant is 0 here, and the other way round."""
    assert scores(in_postgres(RIGHT_ANGLE)) == pytest.approx([0, 1], abs=1e-6)
    assert scores(in_old_postgres(RIGHT_ANGLE)) == pytest.approx([0, 1], abs=1e-6)


def test_langchains_postgres_gives_a_similarity_after_all_where_it_is_the_inner_product(
    in_postgres: Callable[..., PGVectorStore],
) -> None:
    """langchain-postgres 0.0.16-0.0.19, PGVectorStore: ordered by the negative product, scored by the product."""
    assert scores(in_postgres(RIGHT_ANGLE, distance_strategy=DistanceStrategy.INNER_PRODUCT)) == pytest.approx(
        [1, 0], abs=1e-6
    )


def test_both_llama_index_stores_give_a_similarity(
    client: QdrantClient, collection: str, llama_index_postgres: LlamaIndexPostgres
) -> None:
    """llama-index-vector-stores-qdrant 0.10.3-0.10.4, and -postgres 0.9.0, which gives 1 - distance."""
    for store in (llama_index_postgres, LlamaIndexQdrant(collection, client=client)):
        store.add(nodes(RIGHT_ANGLE))
        assert ask(store, 2).similarities == pytest.approx([1, 0], abs=1e-6)


# --- 2: lambda_mult in Qdrant -----------------------------------------------------------------------------------------

TWO_SIDES = ["10°", "11°", "12°", "13°", "-41°", "90°"]
RELEVANT = ["10°", "11°", "12°"]  # the nearest
DIVERSE = ["10°", "90°", "-41°"]  # the nearest, then always what is farthest from all before


@pytest.mark.parametrize("client", ["by sockets", "in memory"], indirect=True)
@pytest.mark.parametrize(("lambda_mult", "elsewhere", "there"), [(1.0, RELEVANT, DIVERSE), (0.0, DIVERSE, RELEVANT)])
def test_lambda_mult_means_the_opposite_in_langchains_qdrant(
    in_qdrant: Callable[[list[str]], QdrantVectorStore], lambda_mult: float, elsewhere: list[str], there: list[str]
) -> None:
    """langchain-qdrant 1.1.0: LangChain defines 1 as minimum diversity, Qdrant is handed it as `diversity`."""
    for store, wanted in ((in_memory(TWO_SIDES), elsewhere), (in_qdrant(TWO_SIDES), there)):
        assert texts(store.max_marginal_relevance_search("0°", k=3, lambda_mult=lambda_mult)) == wanted
        search = {"k": 3, "lambda_mult": lambda_mult}
        assert texts(store.as_retriever(search_type="mmr", search_kwargs=search).invoke("0°")) == wanted


# --- 3: MMR in LangChain's Postgres stores ----------------------------------------------------------------------------

ONE_SIDE = ["10°", "11°", "12°", "13°", "14°", "-41°"]  # the last is the least relevant, and MMR's second choice


def test_langchains_postgres_offers_mmr_no_more_than_four_candidates_by_default(
    in_postgres: Callable[..., PGVectorStore],
) -> None:
    """langchain-postgres 0.0.16-0.0.19, PGVectorStore: fetch_k is the store's own k unless each call says it.

    Its docs say 20, and what the store was made with counts for nothing. So it is plain k-nearest-neighbour search,
    with four documents where ten are asked for.
    """
    store = in_postgres(ONE_SIDE, fetch_k=20)
    assert "-41°" in texts(in_memory(ONE_SIDE).max_marginal_relevance_search("0°"))
    assert texts(store.max_marginal_relevance_search("0°")) == texts(store.similarity_search("0°")) == ONE_SIDE[:4]
    assert texts(store.as_retriever(search_type="mmr").invoke("0°")) == ONE_SIDE[:4]
    assert texts(store.max_marginal_relevance_search("0°", k=10)) == ONE_SIDE[:4]
    assert "-41°" in texts(store.max_marginal_relevance_search("0°", fetch_k=20))


def test_langchains_postgres_takes_a_lambda_mult_of_zero_for_none_given(
    in_postgres: Callable[[list[str]], PGVectorStore],
) -> None:
    """langchain-postgres 0.0.16-0.0.19, PGVectorStore: the most diverse choice cannot be had, 0 means 0.5."""
    passages = ["10°", "11°", "-41°", "90°"]
    memory, table = in_memory(passages), in_postgres(passages)
    for lambda_mult, in_the_table in ((0.5, ["10°", "-41°"]), (0.01, ["10°", "90°"]), (0, ["10°", "-41°"])):
        assert texts(table.max_marginal_relevance_search("0°", k=2, lambda_mult=lambda_mult)) == in_the_table
    assert texts(memory.max_marginal_relevance_search("0°", k=2, lambda_mult=0)) == ["10°", "90°"]


def test_langchains_postgres_stores_lose_the_order_of_mmr(
    in_postgres: Callable[[list[str]], PGVectorStore], in_old_postgres: Callable[[list[str]], PGVector]
) -> None:
    """langchain-postgres 0.0.16-0.0.19, both classes: the right documents, but nearest first."""
    picked = texts(in_memory(ONE_SIDE).max_marginal_relevance_search("0°", k=3))
    assert picked == ["10°", "-41°", "11°"]
    for store in (in_postgres(ONE_SIDE), in_old_postgres(ONE_SIDE)):
        assert texts(store.max_marginal_relevance_search("0°", k=3, fetch_k=20)) == ["10°", "11°", "-41°"]


# --- 4: what is embedded for one search -------------------------------------------------------------------------------


def test_each_mmr_search_of_langchains_qdrant_embeds_a_dummy_text_too(
    in_qdrant: Callable[[list[str]], QdrantVectorStore],
) -> None:
    """langchain-qdrant 1.1.0: two calls of the embedder for each question, one of them for nothing."""
    store = in_qdrant(TWO_SIDES)
    calls = store.embeddings.calls  # type: ignore[union-attr]
    calls.clear()
    store.max_marginal_relevance_search("0°")
    store.max_marginal_relevance_search("0°")
    assert calls == [["dummy_text"], "0°"] * 2
    calls.clear()
    store.similarity_search("0°")
    store.similarity_search_by_vector(vector("0°"))
    store.max_marginal_relevance_search_by_vector(vector("0°"))
    assert calls == ["0°"]


def test_each_search_by_vector_of_langchains_qdrant_reads_the_collections_configuration_first(
    in_qdrant: Callable[[list[str]], QdrantVectorStore],
) -> None:
    """langchain-qdrant 1.1.0: one more round trip; a vector that is no list is refused on the way."""
    store = in_qdrant(TWO_SIDES)
    searches: dict[Callable[[], object], int] = {
        lambda: store.similarity_search("0°"): 0,
        lambda: store.similarity_search_by_vector(vector("0°")): 1,
        lambda: store.max_marginal_relevance_search("0°"): 1,
        lambda: store.max_marginal_relevance_search_by_vector(vector("0°")): 0,
    }
    for search, wanted in searches.items():
        with patch.object(store.client, "get_collection", wraps=store.client.get_collection) as asked:
            search()
        assert asked.call_count == wanted
    with pytest.raises(TypeError, match="Invalid `embeddings` type"):
        store.similarity_search_by_vector(np.array(vector("0°")))  # type: ignore[arg-type]


# --- 5: MMR in LlamaIndex ---------------------------------------------------------------------------------------------

COPY_LATER = ["20°", "21°", "-25°", "-60°"]


def test_llama_indexs_mmr_compares_with_the_last_pick_only(llama_index_postgres: LlamaIndexPostgres) -> None:
    """llama-index-core 0.14.0-0.14.25, and llama-index-vector-stores-postgres 0.9.0, which uses it.

    After "20°" and "-60°" comes "21°", all but a copy of the first: only its likeness to "-60°" counts by then.
    """
    rows = maximal_marginal_relevance(np.array(vector("0°")), [vector(text) for text in COPY_LATER], k=3)
    assert [COPY_LATER[row] for row in rows] == ["20°", "-60°", "-25°"]
    _, rows = get_top_k_mmr_embeddings(vector("0°"), [vector(text) for text in COPY_LATER], similarity_top_k=3)
    assert [COPY_LATER[row] for row in rows] == ["20°", "-60°", "21°"]
    for store in (SimpleVectorStore(), llama_index_postgres):
        store.add(nodes(COPY_LATER))
        assert chosen(COPY_LATER, ask(store, 3, "mmr")) == ["20°", "-60°", "21°"]


def test_copies_of_two_texts_fill_a_choice_of_llama_indexs_mmr() -> None:
    """llama-index-core 0.14.0-0.14.25: it swings from one to the other while copies last; a third text waits."""
    passages = [*["20°"] * 3, "-25°", *["-60°"] * 3]
    store = SimpleVectorStore()
    store.add(nodes(passages))
    assert chosen(passages, ask(store, 6, "mmr")) == ["20°", "-60°"] * 3
    rows = maximal_marginal_relevance(np.array(vector("0°")), [vector(text) for text in passages], k=3)
    assert [passages[row] for row in rows] == ["20°", "-60°", "-25°"]


def test_a_score_of_llama_indexs_mmr_is_no_similarity(llama_index_postgres: LlamaIndexPostgres) -> None:
    """llama-index-core 0.14.0-0.14.25, llama-index-vector-stores-postgres 0.9.0: half of it by default, less a penalty.

    The question itself, found again, has 0.5, and a cut-off that was chosen for cosines takes away what it should keep.
    """
    for store in (SimpleVectorStore(), llama_index_postgres):
        store.add(nodes(["0°", "10°"]))
        assert ask(store, 2).similarities == pytest.approx([1, cosine(10)], abs=1e-6)
        assert ask(store, 2, "mmr").similarities == pytest.approx([0.5, 0], abs=1e-6)


def test_the_mmr_threshold_is_the_weight_of_relevance_and_its_place_differs(
    llama_index_postgres: LlamaIndexPostgres,
) -> None:
    """llama-index-core 0.14.0-0.14.25: 1 is relevance alone, 0 diversity alone, as lambda_mult in LangChain.

    SimpleVectorStore heeds the keyword and not the query's field of that name; Postgres (0.9.0) takes either.
    """
    for store in (SimpleVectorStore(), llama_index_postgres):
        store.add(nodes(TWO_SIDES))
        assert chosen(TWO_SIDES, ask(store, 2, "mmr", mmr_threshold=1)) == ["10°", "11°"]
        assert chosen(TWO_SIDES, ask(store, 2, "mmr", mmr_threshold=0.01)) == ["10°", "90°"]
        by_field = chosen(TWO_SIDES, ask(store, 2, "mmr", threshold=1))
        by_default = chosen(TWO_SIDES, ask(store, 2, "mmr"))
        assert by_default == ["10°", "-41°"]
        assert by_field == (by_default if isinstance(store, SimpleVectorStore) else ["10°", "11°"])


def test_llama_indexs_mmr_at_threshold_zero_begins_with_whatever_was_stored_first() -> None:
    """llama-index-core 0.14.25, SimpleVectorStore: relevance times 0 is alike for all.

    0.14.0 took 0 for none given, which is 0.5. LangChain's begins with the nearest at any weight.
    """
    passages = ["90°", "10°", "0°"]
    store = SimpleVectorStore()
    store.add(nodes(passages))
    assert chosen(passages, ask(store, 1, "mmr", mmr_threshold=0)) == ["90°"]
    assert texts(in_memory(passages).max_marginal_relevance_search("0°", k=1, lambda_mult=0)) == ["0°"]


def test_an_mmr_threshold_given_to_a_llama_index_retriever_is_dropped_in_silence() -> None:
    """llama-index-core 0.14.0-0.14.25: only what stands in vector_store_kwargs gets through."""
    index = VectorStoreIndex(nodes(TWO_SIDES), embed_model=MockEmbedding(embed_dim=2))
    question = QueryBundle("0°", embedding=vector("0°"))

    def retrieve(**options: object) -> list[str]:
        retriever = index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=2, **options)
        return [found.text for found in retriever.retrieve(question)]

    assert retrieve(mmr_threshold=1) == retrieve() == ["10°", "-41°"]
    assert retrieve(vector_store_kwargs={"mmr_threshold": 1}) == ["10°", "11°"]


# --- 6: MMR in LlamaIndex's Qdrant ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mmr", "svm", "text_search"])
def test_llama_indexs_qdrant_answers_modes_it_has_not_got_with_the_nearest(
    client: QdrantClient, collection: str, mode: str
) -> None:
    """llama-index-vector-stores-qdrant 0.10.3-0.10.4: no error, no warning, no diversity."""
    store = LlamaIndexQdrant(collection, client=client)
    store.add(nodes(TWO_SIDES))
    found = ask(store, 3, mode, threshold=0.1, mmr_threshold=0.1)
    assert chosen(TWO_SIDES, found) == RELEVANT
    assert found.similarities == pytest.approx([cosine(10), cosine(11), cosine(12)], abs=1e-6)


# --- 7: how far MMR sees ----------------------------------------------------------------------------------------------


def test_mmr_of_a_langchain_retriever_sees_twenty_candidates_and_so_nothing_behind_as_many_copies() -> None:
    """langchain-core 1.0.0-1.8.4: fetch_k is 20 whatever k is.

    With all 27 in sight, one copy's penalty is still smaller than that of a text which is little to the point.
    """
    store = in_memory([*["10°"] * 25, "-41°", "90°"])

    def retrieve(**search: int) -> list[str]:
        return texts(store.as_retriever(search_type="mmr", search_kwargs=search).invoke("0°"))

    assert retrieve(k=4) == ["10°"] * 4
    assert retrieve(k=4, fetch_k=27) == ["10°", "-41°", "10°", "10°"]
    assert len(retrieve(k=25)) == 20


# --- 8: filters, thresholds, ids --------------------------------------------------------------------------------------


def test_a_filter_that_is_a_function_leaves_everything_in_with_langchains_postgres(
    in_postgres: Callable[[list[str]], PGVectorStore], in_old_postgres: Callable[[list[str]], PGVector]
) -> None:
    """langchain-core 1.0.0-1.8.4's InMemoryVectorStore takes a function, langchain-postgres 0.0.19 a dict.

    The wrong kind raises there and in PGVector; PGVectorStore searches as if nothing had been said.
    """

    def none(document: Document) -> bool:
        return False

    memory, table, old = in_memory(RIGHT_ANGLE), in_postgres(RIGHT_ANGLE), in_old_postgres(RIGHT_ANGLE)
    assert memory.similarity_search("0°", filter=none) == []
    assert table.similarity_search("0°", filter={"kind": "none"}) == []
    assert old.similarity_search("0°", filter={"kind": "none"}) == []
    assert texts(table.similarity_search("0°", filter=none)) == RIGHT_ANGLE  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'dict' object is not callable"):
        memory.similarity_search("0°", filter={"kind": "none"})
    with pytest.raises(ValueError, match="Invalid type: Expected a dictionary"):
        old.similarity_search("0°", filter=none)  # type: ignore[arg-type]


def test_one_score_threshold_keeps_in_qdrant_what_it_drops_in_postgres(
    in_qdrant: Callable[[list[str]], QdrantVectorStore], in_postgres: Callable[[list[str]], PGVectorStore]
) -> None:
    """langchain-qdrant 1.1.0, langchain-postgres 0.0.16-0.0.19.

    Relevance is (1 + cosine) / 2 there and the cosine here; langchain-core 1.0.0-1.8.4's InMemoryVectorStore has none.
    """

    def kept(store: VectorStore) -> list[str]:
        search = {"score_threshold": 0.49}
        return texts(store.as_retriever(search_type="similarity_score_threshold", search_kwargs=search).invoke("0°"))

    assert kept(in_qdrant(RIGHT_ANGLE)) == ["0°", "90°"]
    assert kept(in_postgres(RIGHT_ANGLE)) == ["0°"]
    with pytest.raises(NotImplementedError):
        kept(in_memory(RIGHT_ANGLE))


def test_a_document_of_langchains_qdrant_has_no_id_and_two_keys_of_metadata_more(
    in_qdrant: Callable[[list[str]], QdrantVectorStore],
    in_postgres: Callable[[list[str]], PGVectorStore],
    in_old_postgres: Callable[[list[str]], PGVector],
) -> None:
    """langchain-qdrant 1.1.0: the id is in metadata["_id"].

    langchain-core 1.0.0-1.8.4's InMemoryVectorStore and langchain-postgres 0.0.16-0.0.19 set Document.id.
    """
    store = in_qdrant(["0°"])
    (document,) = store.similarity_search("0°")
    (point,) = store.client.scroll(store.collection_name)[0]
    assert document.id is None
    assert document.metadata == {"kind": "bearing", "_id": point.id, "_collection_name": store.collection_name}
    for other in (in_memory(["0°"]), in_postgres(["0°"]), in_old_postgres(["0°"])):
        (document,) = other.similarity_search("0°")
        assert document.id
        assert not [key for key in document.metadata if key.startswith("_")]
