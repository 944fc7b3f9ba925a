"""What an import that fails is called: missing where it is missing, broken where it is broken."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sift_store import BrokenPackageError, MissingExtraError, SiftStoreError
from sift_store.registry import needs_extra, pip_line

LINE = r"run: pip install '\.\[qdrant\]' in a clone of sift-store"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that are found before those installed; the real ones of these names come back at the end."""
    for name in _loaded():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in _loaded():
        del sys.modules[name]


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in ("qdrant_client", "tenacity")]


def package(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


def test_what_is_missing_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(MissingExtraError, match=f"^tenacity is not installed; {LINE}"), needs_extra("qdrant"):
        import tenacity  # noqa: F401
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    for module in ("tenacity", "qdrant_client", "qdrant_client.http"):  # whichever is imported first
        with pytest.raises(MissingExtraError, match=f"^qdrant-client is not installed; {LINE}"), needs_extra("qdrant"):
            __import__(module)
    assert pip_line("e5") == "run: pip install '.[e5]' in a clone of sift-store"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module_of_its_own", "No module named 'no_such_module_of_its_own'"),
        ("raise ImportError('libx.so.1: no such file')", "libx.so.1"),
        ("raise OSError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so"),
        ("", "cannot import name 'QdrantClient'"),
    ],
)
def test_what_is_broken_is_not_called_missing(packages: Path, source: str, words: str) -> None:
    package(packages, "qdrant_client", source)
    with pytest.raises(BrokenPackageError) as told, needs_extra("qdrant"):
        from qdrant_client import QdrantClient  # noqa: F401
    message = str(told.value)
    assert message.startswith("qdrant-client is installed but cannot be imported: ")
    assert words in message
    assert isinstance(told.value, SiftStoreError)
    assert isinstance(told.value.__cause__, ImportError | OSError)
    assert not isinstance(told.value, MissingExtraError)


def test_the_part_of_an_extra_that_is_broken_is_named(packages: Path) -> None:
    package(packages, "tenacity", "import no_such_module_of_its_own")
    with (
        pytest.raises(BrokenPackageError, match="tenacity is installed but cannot be"),
        needs_extra("qdrant"),
    ):
        import tenacity  # noqa: F401


def test_an_error_of_ours_within_comes_through() -> None:
    with pytest.raises(MissingExtraError, match="inner"), needs_extra("qdrant"):
        raise MissingExtraError("inner")
