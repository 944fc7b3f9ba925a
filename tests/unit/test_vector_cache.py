import numpy as np
from sift_store_edge.vectors import VectorCache

RNG = np.random.default_rng(0)


def test_a_bounded_cache_gives_what_the_engine_has() -> None:
    truth = RNG.normal(size=(500, 4)).astype(np.float32)
    cache = VectorCache(4, max_bytes=100 * 16)
    loads = 0

    def load(ids: list[object]) -> np.ndarray:
        nonlocal loads
        loads += len(ids)
        return truth[ids]

    for _ in range(200):
        ids = RNG.choice(500, size=int(RNG.integers(1, 150)), replace=False).tolist()
        if RNG.random() < 0.5:
            changed = RNG.choice(500, size=20, replace=False).tolist()
            truth[changed] = RNG.normal(size=(20, 4))
            cache.drop(changed)
        rows, loaded = cache.gather(ids, load)
        np.testing.assert_array_equal(rows, truth[ids])
        assert loaded <= len(ids)
    assert len(cache._slots) <= 100
    assert cache._block.nbytes <= 100 * 16


def test_what_is_kept_is_not_loaded_again() -> None:
    cache = VectorCache(2)
    assert cache.gather([1, 2], lambda ids: np.ones((len(ids), 2), np.float32))[1] == 2
    assert cache.gather([2, 1, 3], lambda ids: np.ones((len(ids), 2), np.float32))[1] == 1
    cache.drop([1, 99])
    assert cache.gather([1, 2, 3], lambda ids: np.ones((len(ids), 2), np.float32))[1] == 1
