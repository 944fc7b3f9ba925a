"""Vectors, texts, payloads and ids as PostgreSQL holds them."""

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sift_store_pgvector.codec import (
    decode_payload,
    decode_vectors,
    encode_payload,
    encode_vector,
    from_id_columns,
    key_of,
    to_id_columns,
    with_nul,
    without_nul,
)

letters = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\0\ufdd00")


def test_a_vector_is_what_pgvector_documents() -> None:
    assert encode_vector(np.array([1, -2], np.float32), "vector").hex() == "00020000" + "3f800000" + "c0000000"
    assert encode_vector(np.array([1, -2], np.float32), "halfvec").hex() == "00020000" + "3c00" + "c000"


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_vectors_come_back(kind: str) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float16).astype(np.float32)
    again = decode_vectors([encode_vector(row, kind) for row in rows], 7, kind)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again, rows)
    assert again.dtype == np.float32
    assert decode_vectors([], 7, kind).shape == (0, 7)  # type: ignore[arg-type]


@given(st.text(letters))
def test_any_text_comes_back_and_holds_no_nul_meanwhile(text: str) -> None:
    assert "\0" not in without_nul(text)
    assert with_nul(without_nul(text)) == text


@given(
    st.dictionaries(
        st.text(letters, min_size=1),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(letters),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(letters), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_any_payload_comes_back(payload: dict[str, object]) -> None:
    text = encode_payload(payload)
    assert "\\u0000" not in text
    again = decode_payload(text)
    assert again == payload
    assert repr(again) == repr(payload) or again == payload


def test_large_floats_stay_floats() -> None:
    assert encode_payload({"x": 1e22, "y": [1e300]}).startswith('{"x":10000000000000000000000.0,"y":[1')


def test_ids_keep_their_type() -> None:
    uuid = UUID("7b0e4a32-6a4f-4bb1-8f2e-0a3a3a3a3a3a")
    ids = ["7", 7, -7, uuid, str(uuid), "a\0b", "x" * 10_000]
    assert [from_id_columns(*to_id_columns(id_)) for id_ in ids] == ids
    assert len({key_of(id_) for id_ in ids}) == len(ids)
