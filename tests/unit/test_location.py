from pathlib import Path

import pytest

from sift_store import LocationError, SiftStore
from sift_store.location import parse_location


@pytest.mark.parametrize(
    ("text", "scheme", "address", "options"),
    [
        ("./handbook.sift", "path", "./handbook.sift", {}),
        ("handbook.sift?collection=b", "path", "handbook.sift", {"collection": "b"}),
        ("what?.sift", "path", "what?.sift", {}),
        ("a=b?c=d", "path", "a=b?c=d", {}),
        (r"C:\data\x.sift", "path", r"C:\data\x.sift", {}),
        (Path("x.sift"), "path", "x.sift", {}),
        ("memory://", "memory", "memory://", {}),
        (
            "postgresql://u:p@h:5432/db?collection=c&sslmode=require&table=t",
            "postgresql",
            "postgresql://u:p@h:5432/db?sslmode=require",
            {"collection": "c", "table": "t"},
        ),
        (
            "qdrant://h:6333?grpc_port=7&collection=a%20b",
            "qdrant",
            "qdrant://h:6333",
            {"grpc_port": "7", "collection": "a b"},
        ),
    ],
)
def test_our_parameters_are_taken_off(text: str, scheme: str, address: str, options: dict[str, str]) -> None:
    location = parse_location(text)
    assert (location.scheme, location.address, location.options) == (scheme, address, options)


def test_no_secret_is_shown() -> None:
    location = parse_location("postgresql://user:secret@host/db?collection=c")
    assert "secret" not in repr(location)
    with pytest.raises(LocationError) as caught:
        SiftStore.open("nosuch://user:secret@host/db")
    assert "secret" not in str(caught.value)
    assert "memory://" in str(caught.value)


@pytest.mark.parametrize("bad", ["", 3, None, "x?collection=", "m://?collection=a&collection=b"])
def test_what_names_no_store_is_refused(bad: object) -> None:
    with pytest.raises(LocationError):
        parse_location(bad)  # type: ignore[arg-type]


def test_a_driver_in_the_scheme_is_not_part_of_its_name() -> None:
    location = parse_location("postgresql+asyncpg://user:secret@host/db?sslmode=require&table=docs&metric=dot")
    assert location.scheme == "postgresql"
    assert location.options == {"table": "docs", "metric": "dot"}
    assert location.address.endswith("@host/db?sslmode=require")
    assert "secret" not in repr(location)
