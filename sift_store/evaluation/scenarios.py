"""What is done to a corpus before it is searched: nothing, copies of several kinds, overlapping windows. Seeded."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sift_store.errors import InvalidInputError
from sift_store.evaluation.datasets import Dataset, with_title

__all__ = ["SCENARIOS", "Corpus", "make_corpus", "windows_of"]

Embed = Callable[[list[str]], npt.NDArray[np.float32]]

SCENARIOS = {
    "clean": "as it is",
    "noise=X": "four copies of every passage, by Gaussian noise of norm X, renormalised; X = 0.39 makes cosine 0.93",
    "exact": "four exact copies of every passage",
    "edited": "two copies of every passage as other pages have it, embedded anew",
    "windows": "passages over 100 words as windows of 100 words that share 50",
}
_COPIES = 4
_EDITS = 2
_WINDOW, _STRIDE = 100, 50


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Vectors, (n, d) unit float32, the place of the passage that each comes from, (n,), and the texts.

    Noisy copies have no texts of their own: then `texts` is None, and methods see vectors alone.
    """

    vectors: npt.NDArray[np.float32]
    origin: npt.NDArray[np.int64]
    texts: list[str] | None = None


def make_corpus(dataset: Dataset, scenario: str, embed: Embed) -> Corpus:
    """The corpus of a scenario, see `SCENARIOS`.

    Args:
        embed: from texts to unit vectors.

    Raises:
        InvalidInputError: no such scenario.
    """
    kind, _, level = scenario.partition("=")
    origin = np.arange(len(dataset.ids))
    if kind == "windows" and not level:
        return _of_texts([windows_of(text) for text in dataset.texts], dataset, embed)
    if kind == "edited" and not level:
        return _of_texts(
            [[text, *edits_of(name, text)] for name, text in zip(dataset.ids, dataset.texts, strict=True)],
            dataset,
            embed,
        )
    if kind == "clean" and not level:
        return Corpus(embed(dataset.passages()), origin, dataset.passages())
    copied = np.tile(origin, _COPIES + 1)
    if kind == "exact" and not level:
        copies = _COPIES + 1
        return Corpus(np.tile(embed(dataset.passages()), (copies, 1)), copied, dataset.passages() * copies)
    if kind == "noise" and _is_positive(level):
        return Corpus(_noisy(embed(dataset.passages()), float(level)), copied)
    raise InvalidInputError(f"scenario {scenario!r} given, one of {', '.join(SCENARIOS)} wanted")


def windows_of(text: str) -> list[str]:
    """A text of over 100 words as windows of at most 100 that share 50 with the next; else the text itself."""
    words = text.split()
    if len(words) <= _WINDOW:
        return [text]
    starts = range(0, len(words) - _WINDOW + _STRIDE, _STRIDE)
    return [" ".join(words[start : start + _WINDOW]) for start in starts]


def edits_of(name: str, text: str) -> list[str]:
    """The passage as other pages have it: a line added, words dropped, or punctuation and case changed."""
    rng = random.Random(hashlib.sha256(name.encode()).digest())  # noqa: S311 - a seeded benchmark, no secret
    return [edit(text, rng) for edit in rng.sample([_framed, _shortened, _restyled], _EDITS)]


def _framed(text: str, rng: random.Random) -> str:
    before = rng.choice(["From the archive:", "Cached copy.", "Note:"])
    return f"{before} {text} Last edited in {rng.choice(['March', 'July', 'October'])} {rng.randrange(2012, 2020)}."


def _shortened(text: str, rng: random.Random) -> str:
    words = text.split()
    gone = set(rng.sample(range(len(words)), max(len(words) // 12, 1))) if len(words) > 3 else set()
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def _restyled(text: str, rng: random.Random) -> str:
    changed = text.replace(",", "").replace(";", ".").replace(" is ", " was " if rng.random() < 0.5 else "'s ")
    return f"{changed[:1].upper()}{changed[1:]}".rstrip(".") + " ..."


def _of_texts(versions: list[list[str]], dataset: Dataset, embed: Embed) -> Corpus:
    texts = [with_title(title, text) for title, some in zip(dataset.titles, versions, strict=True) for text in some]
    origin = np.repeat(np.arange(len(versions)), [len(some) for some in versions])
    return Corpus(embed(texts), origin, texts)


def _noisy(vectors: npt.NDArray[np.float32], norm: float) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    parts = [vectors]
    for _ in range(_COPIES):
        scale = np.float32(norm / np.sqrt(vectors.shape[1]))
        moved = vectors + scale * rng.standard_normal(vectors.shape, dtype=np.float32)
        parts.append(moved / np.linalg.norm(moved, axis=1, keepdims=True))
    return np.concatenate(parts)


def _is_positive(level: str) -> bool:
    try:
        return 0 < float(level) < 10
    except ValueError:
        return False
