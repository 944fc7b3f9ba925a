"""Texts for test-time fine-tuning: what may be trained on, cut into passages, and pieces to be predicted."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import embeddings

from sift_store.jsonl import read_jsonl

DOMAINS = ("arxiv_abstracts", "code_rust", "dm_math", "gsm8k", "law_us_scotus", "ubuntu_irc", "wikitext2")
TOKENS = 256  # of a passage and of a piece, by the language model's tokenizer
_LEAST = 64  # a shorter rest of a document is no passage, and no piece


@dataclass(frozen=True)
class Piece:
    """What is to be predicted. half: "choose" for defaults, "report" for the tables; by a hash of the document."""

    id: str
    text: str
    half: str


@dataclass(frozen=True)
class Domain:
    """passages: of the documents to train on; vectors (n, d), theirs by MiniLM."""

    name: str
    passages: list[str]
    vectors: npt.NDArray[np.float32]
    pieces: list[Piece]


def read_domain(name: str, tokenizer: Any) -> Domain:
    """One domain, its pieces in an order that a hash decides."""
    passages = [text for row in _rows(name, "train") for text in _cut(row["text"], tokenizer)]
    pieces = []
    for row in _rows(name, "test"):
        half = "choose" if _hash(row["doc"]) & 1 else "report"
        pieces += [Piece(row["id"], text, half) for text in _cut(row["text"], tokenizer)[:1]]
    pieces.sort(key=lambda piece: _hash(piece.id))
    return Domain(name, passages, embeddings(passages, name), pieces)


def _rows(name: str, part: str) -> list[dict[str, str]]:
    folder = Path(os.environ.get("SIFT_STORE_DATA", "")) / "lm" / name
    if not os.environ.get("SIFT_STORE_DATA") or not folder.is_dir():
        sys.exit("set SIFT_STORE_DATA to a folder that holds lm/<domain>/train.jsonl and test.jsonl")
    return [row for _, row in read_jsonl(folder / f"{part}.jsonl")]


def _cut(text: str, tokenizer: Any) -> list[str]:
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    starts = range(0, len(offsets), TOKENS)
    rooms = [(start, min(start + TOKENS, len(offsets))) for start in starts]
    parts = [text[offsets[start][0] : offsets[end - 1][1]] for start, end in rooms if end - start >= _LEAST]
    return parts or [text]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
