"""Every example in README.md and docs/ runs: python blocks in order, and the sift-store lines of shell blocks."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import Server
from qdrant_server import Qdrant

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|console|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


# Pages with examples of a framework's adapter are skipped where the framework is missing.
FRAMEWORKS = {"sift_store_langchain": "langchain_core", "sift_store_llama_index": "llama_index.core"}
# The servers of docker-compose.yml; here others stand in for them.
DATABASE = "postgresql://sift:sift@localhost:5432/sift"
QDRANT, QDRANT_HTTP = "qdrant://localhost:6333?collection=", "http://localhost:6333"


@pytest.fixture
def here(request: pytest.FixtureRequest, page: Path) -> Callable[[str], str]:
    """Puts the servers that there are in an example's text."""
    text = page.read_text(encoding="utf-8")
    instead: dict[str, str] = {}
    if DATABASE in text:
        server: Server = request.getfixturevalue("postgres")
        instead[DATABASE] = server.url(request.getfixturevalue("database"))
    if QDRANT in text:
        qdrant: Qdrant = request.getfixturevalue("qdrant")
        host, _, options = qdrant.url(request.getfixturevalue("collection")).partition("?")
        name, _, port = options.partition("&")
        instead |= {QDRANT: f"{host}?{port}&{name}-", QDRANT_HTTP: f"http://{qdrant.host}"}
        instead['collection_name = "'] = f'collection_name = "{name.removeprefix("collection=")}-'

    def put(example: str) -> str:
        for there, ours in instead.items():
            example = example.replace(there, ours)
        return example

    return put


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_examples_run(
    page: Path, here: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for adapter, framework in FRAMEWORKS.items():
        if adapter in page.read_text(encoding="utf-8"):
            pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "example"}
    for place, body in enumerate(blocks(page, "python")):
        exec(compile(here(body), f"{page.name}, block {place + 1}", "exec"), namespace)  # our own documentation


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=lambda page: page.name)
def test_shell_examples_run(page: Path, here: Callable[[str], str], tmp_path: Path) -> None:
    """The lines that begin with ``$ sift-store``, with docs/ at hand as the folder of texts."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    lines = [
        line[2:] for body in blocks(page, "console") for line in body.splitlines() if line.startswith("$ sift-store")
    ]
    assert lines
    for line in lines:
        arguments = shlex.split(here(line))[1:]
        done = subprocess.run(
            [sys.executable, "-c", "from sift_store.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
