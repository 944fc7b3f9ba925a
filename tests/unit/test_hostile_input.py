"""Input that nobody should give: an error of ours that names it, before anything is written, never a foreign one."""

import asyncio
from typing import Any

import numpy as np
import pytest

from sift_store import AsyncSiftStore, EmbedderError, InvalidInputError, SiftStore, SiftStoreError, VectorError, select
from sift_store.embedding import Embedding
from sift_store.filters import parse
from sift_store.location import parse_location
from sift_store.reranking import rerank
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

HUGE = 10**400
VECTOR = np.eye(32)[0]


@pytest.fixture
def store():
    with SiftStore.open("memory://", embedder=WordEmbedder()) as opened:
        opened.add(JORDAN)
        yield opened


class NeedsGrad:
    """As a tensor that requires a gradient."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@pytest.mark.parametrize(
    "vectors",
    [[[HUGE] * 32], np.eye(32)[:1] * 1j, [["1.0"] * 32], np.ones((1, 32), bool), NeedsGrad(), [[None] * 32], "text"],
    ids=["huge", "complex", "strings", "booleans", "needs grad", "nothing", "text"],
)
def test_vectors_that_are_no_real_numbers(store: SiftStore, vectors: Any) -> None:
    for ask in (
        lambda: store.add(["new"], vectors=vectors),
        lambda: store.search(vector=vectors),
        lambda: store.search_batch(vectors=vectors),
    ):
        with pytest.raises(InvalidInputError):
            ask()
    assert store.count() == 5


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": HUGE},
        {"min_score": HUGE},
        {"target_variance": HUGE},
        {"lambda_": HUGE, "objective": "query"},
        {"k": HUGE},
        {"method": np.array(["sift"])},
        {"objective": np.array(["pool"])},
        {"kernel": np.array(["rbf"]), "objective": "query"},
        {"order": ["pick"]},
        {"replace": np.array([True])},
        {"replace": "yes"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_of_a_search(store: SiftStore, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options)).rstrip("_")):
        store.search("Michael", **options)


def test_weights_and_surrogates(store: SiftStore) -> None:
    with pytest.raises(InvalidInputError, match="weights"):
        store.search(queries=["a", "b"], weights=[HUGE, 1])
    for ask in (lambda: store.search("\ud800"), lambda: store.search(queries=["a", "\ud800"])):
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            ask()


def test_an_unknown_option_is_answered_in_one_way(store: SiftStore) -> None:
    async def awaited() -> None:
        async with await AsyncSiftStore.open("memory://", embedder=WordEmbedder()) as twin:
            for ask in (lambda: twin.search("a", kk=3), lambda: twin.explain("a", kk=3)):
                with pytest.raises(TypeError, match="unexpected keyword argument 'kk'"):
                    await ask()
            with pytest.raises(TypeError, match="unexpected keyword argument 'kk'"):
                await twin.search_batch(["a"], kk=3)

    for ask in (
        lambda: store.search("a", kk=3),  # type: ignore[call-arg]
        lambda: store.explain("a", kk=3),
        lambda: store.search_batch(["a"], kk=3),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'kk'"):
            ask()
    asyncio.run(awaited())


def test_explain_takes_every_question(store: SiftStore) -> None:
    assert len(store.explain(vector=WordEmbedder().embed_query("Michael"), k=2).hits) == 2
    assert "Michael · Paris" in str(store.explain(queries=["Michael", "Paris"], k=2))


@pytest.mark.parametrize("target", [0, 1, 0.5])
def test_a_target_variance_is_the_same_share_everywhere(store: SiftStore, target: float) -> None:
    rows = WordEmbedder().embed_documents(JORDAN)
    assert len(select(rows, rows[0], k=3, target_variance=target).indices) <= 3
    assert len(store.search(vector=rows[0], k=3, target_variance=target)) <= 3


def test_a_store_is_opened_and_not_made() -> None:
    with pytest.raises(InvalidInputError, match=r"open a store with SiftStore.open\(location\)"):
        SiftStore("x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"open a store with AsyncSiftStore.open"):
        AsyncSiftStore("x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "indexed", [{5: "integer"}, {"": "integer"}, {"$x": "keyword"}, {"x": ["integer"]}, {'"': "bool"}]
)
def test_fields_that_cannot_be_indexed(indexed: Any) -> None:
    with pytest.raises(InvalidInputError):
        SiftStore.open("memory://", indexed=indexed)


def test_a_filter_nests_to_a_limit_everywhere() -> None:
    where: Any = {"$gt": 3}
    for _ in range(5000):
        where = {"$not": where}
    with pytest.raises(InvalidInputError, match="nested more than 64 deep"):
        parse({"key": where})


class OddEmbedder(WordEmbedder):
    """An embedder of which one thing is odd."""

    def __init__(self, **odd: Any) -> None:
        super().__init__()
        self.__dict__.update(odd)


@pytest.mark.parametrize(
    "odd", [{"name": 5}, {"query_prefix": b"q"}, {"passage_prefix": 1}, {"dimension": "32"}, {"dimension": 0}]
)
def test_an_embedder_that_names_itself_oddly(odd: dict[str, Any]) -> None:
    with pytest.raises(EmbedderError, match=next(iter(odd))):
        SiftStore.open("memory://", embedder=OddEmbedder(**odd))


def test_an_embedder_that_cannot_count(store: SiftStore) -> None:
    def failing(texts: list[str]) -> list[int]:
        raise KeyError("vocabulary")

    for count in (failing, lambda texts: [1], lambda texts: ["many"] * len(texts)):
        with SiftStore.open("memory://", embedder=OddEmbedder(count_tokens=count)) as odd:
            odd.add(JORDAN)
            with pytest.raises(EmbedderError):
                odd.search("Michael", max_tokens=20)


def test_a_dimension_that_changes_on_the_way() -> None:
    calls: list[int] = []

    def changing(texts: list[str]) -> Any:
        calls.append(len(texts))
        return np.ones((len(texts), 3 + len(calls)))

    with pytest.raises(EmbedderError, match="dimension 4, then 5"):
        Embedding(changing).documents(["text"] * 300)
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add([f"t{place}" for place in range(1500)])
        calls.clear()
        with pytest.raises(EmbedderError, match=r"dimension"):
            store.reembed(changing)
        assert store.search("t1", k=1)[0].text == "t1"


def test_costs_that_are_next_to_nothing() -> None:
    rows = WordEmbedder().embed_documents(JORDAN)
    assert select(rows, rows[0], costs=[5e-324] * 5, budget=1.0, replace=True, k=3).indices.size == 3


def test_what_has_no_meaning_when_reranking_is_refused(store: SiftStore) -> None:
    records = [record for record in store.get(["x"]) if record is not None]
    for name, value in {"where": {"a": 1}, "timeout": 3, "kk": 3}.items():
        with pytest.raises(InvalidInputError, match=f"{name}= has no meaning"):
            rerank(records, VECTOR, **{name: value})


SECRET = "s3cr3t"
ODD = ("{}／", "{}＠", "[{}", "{}]", "[::{}]", "{}：", "a\\{}", "{}%zz")
ODD_SECRETS = [text.format(SECRET) for text in ODD]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "qdrant", "qdrants", "nowhere"])
@pytest.mark.parametrize("password", ODD_SECRETS)
@pytest.mark.parametrize("method", [SiftStore.open, SiftStore.attach])
def test_a_password_is_never_shown(scheme: str, password: str, method: Any) -> None:
    url = f"{scheme}://user:{password}@127.0.0.1:1/x?collection=c"
    try:
        assert SECRET not in repr(parse_location(url))
        method(url)
    except SiftStoreError as exc:
        chain: BaseException | None = exc
        while chain is not None:
            assert SECRET not in f"{chain} {chain.args}", type(chain)
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


def test_names_that_are_too_long(tmp_path: Any) -> None:
    for location in (
        f"{tmp_path}/{'x' * 300}",
        f"{tmp_path}/x?collection={'é' * 60}",
        f"{tmp_path}/x?collection={'x' * 300}",
    ):
        with pytest.raises(InvalidInputError, match=r"bytes|characters"):
            SiftStore.open(location)
    with pytest.raises(InvalidInputError, match="schema="):
        SiftStore.open(f"postgresql://127.0.0.1:1/x?schema={'s' * 64}")


def test_vectors_are_checked_before_they_are_kept(store: SiftStore) -> None:
    with pytest.raises(VectorError):
        store.add(["x"], vectors=[[float("nan")] * 32])
    assert store.count() == 5
