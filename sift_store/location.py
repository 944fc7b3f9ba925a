"""Where a store is: a path, or a URL from which our own parameters are taken off."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from sift_store.errors import LocationError

__all__ = ["DEFAULT_COLLECTION", "Location", "check_options", "parse_location"]

DEFAULT_COLLECTION = "default"

# Query parameters that are ours; a driver never sees them.
_OURS = frozenset(
    {
        "collection",
        "columns",
        "fusion",
        "grpc_port",
        "id",
        "metadata",
        "metric",
        "schema",
        "sparse",
        "table",
        "text",
        "vector",
    }
    | {"vector_type"}
)


# What PostgreSQL cuts names to, and what a folder's name may be where nothing has to be encoded.
_LONGEST = {"schema": 63, "collection": 250}


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed location.

    Attributes:
        scheme: "path" for the embedded store, else the URL's scheme without a driver ("postgresql+asyncpg" is
            "postgresql"), which names the adapter.
        address: the path, or the URL without our parameters. May hold a password, so it is no part of the repr.
        options: our parameters.
    """

    scheme: str
    address: str = field(repr=False)
    options: dict[str, str] = field(hash=False)

    @property
    def collection(self) -> str:
        """The collection, "default" if none was named."""
        return self.options.get("collection", DEFAULT_COLLECTION)


def parse_location(location: str | os.PathLike[str]) -> Location:
    """Parse a path or URL. Text without ``://`` is a path, Windows drives included.

    Raises:
        LocationError: empty, not text, or one of our parameters given twice or without a value.
    """
    if not isinstance(location, str | os.PathLike) or not os.fspath(location):
        raise LocationError(f"location {location!r}: a path such as ./handbook.sift or a URL wanted")
    text = os.fspath(location)
    if "://" not in text:
        path, _, query = text.rpartition("?") if _only_ours(text.rpartition("?")[2]) else (text, "", "")
        return Location("path", path, _options(query))
    try:
        parts = urlsplit(text)
    except ValueError:  # its text quotes the URL, where a password may stand
        raise LocationError(
            "the URL cannot be read; percent-encode what is no letter or digit in user, password and host"
        ) from None
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    ours = urlencode([(name, value) for name, value in pairs if name in _OURS])
    theirs = urlencode(
        [(name, value) for name, value in pairs if name not in _OURS], quote_via=quote
    )  # no + for a blank
    before = text.partition("#")[0].partition("?")[0]  # as it was given: an empty host is one
    address = before + (f"?{theirs}" if theirs else "") + (f"#{parts.fragment}" if parts.fragment else "")
    _check_length(_options(ours))
    return Location(parts.scheme.lower().partition("+")[0], address, _options(ours))


def _check_length(options: dict[str, str]) -> None:
    """Names that no store can have: a file system and PostgreSQL count bytes."""
    for name, most in _LONGEST.items():
        if len(options.get(name, "").encode()) > most:
            raise LocationError(f"{name}={options[name][:20]}…: at most {most} bytes wanted")


def _only_ours(query: str) -> bool:
    names = [part.partition("=")[0] for part in query.split("&")]
    return "=" in query and all(name in _OURS for name in names)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options or not value:
            raise LocationError(
                f"location parameter {name}: given twice or without a value; once, with a value, wanted"
            )
        options[name] = value
    return options


def check_options(location: Location, allowed: frozenset[str], instead: str) -> None:
    """For adapters: refuse parameters that cannot be honoured. `instead`: where they may have a meaning.

    Raises:
        LocationError: names the first.
    """
    wrong = sorted(location.options.keys() - allowed)
    if wrong:
        raise LocationError(f"{wrong[0]}= has no meaning here ({', '.join(sorted(allowed))} have); use {instead}")
