"""In: the source files. Out: whether imports go one way, and whether files keep the house rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "toolformer").rglob("*.py"))
ENTRIES = ("train", "curriculum", "evaluate", "prepare", "report")
# What each part may import of ours besides itself. Whatever is not listed here is an entry point's: it may import all.
ALLOWED = {
    "records": set(),
    "calls": {"records"},
    "schemas": {"records", "calls"},
    "model": set(),
    "data": {"stopping", "records", "calls", "schemas"},
    "metrics": {"records", "calls", "schemas"},
    "settings": set(),
    "stopping": set(),
    "overrides": {"settings"},
    "cli": {"settings", "overrides", "stopping"},
    "stages": {"stopping", "records", "calls", "schemas", "model", "data", "metrics", "inference"},
    "inference": {"records", "calls", "schemas", "model", "data", "metrics"},
    "evaluation": {"records", "calls", "schemas", "model", "data", "metrics", "inference", "reporting"},
    "reporting": {"records", "calls", "schemas", "metrics"},
}
HEAVY = {"torch", "transformers", "lightning", "datasets", "wandb", "matplotlib", "torchmetrics", "scipy"}
HYDRA = {"cli", "overrides", *ENTRIES}


def part(path: Path) -> str:
    """``toolformer/data/corpus.py`` is of part ``data``."""
    return path.relative_to(ROOT / "toolformer").with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module name that is imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            if node.module == "toolformer":
                yield from (f"toolformer.{alias.name}" for alias in node.names)


def at_start(tree: ast.Module) -> Iterator[str]:
    """What importing the file imports at once: everything outside functions and ``if TYPE_CHECKING``."""
    for node in tree.body:
        for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not for_types:
            yield from imports(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path):
    names = set(imports(ast.parse(path.read_text())))
    ours = {name.split(".")[1] for name in names if name.startswith("toolformer.")}
    if part(path) in ALLOWED:
        wrong = ours - ALLOWED[part(path)] - {part(path)}
        assert not wrong, f"{path.name} imports {wrong}; {part(path)} may import {ALLOWED[part(path)] or 'nothing'}"
    if part(path) not in HYDRA:
        assert not any(name.split(".")[0] == "hydra" for name in names), "only entry points import hydra"
    assert not any(name.split(".")[0] in ("experiments", "tests") for name in names)
    if part(path) not in ENTRIES:
        assert not ours & set(ENTRIES), "an entry point is imported"


def test_records_need_the_standard_library_alone():
    names = set(imports(ast.parse((ROOT / "toolformer/records.py").read_text())))
    assert not names & (HEAVY | {"numpy", "omegaconf", "yaml", "jsonschema"})


def test_sources_know_no_tokenizer_and_no_split():
    for path in (ROOT / "toolformer/data/sources").glob("*.py"):
        names = set(imports(ast.parse(path.read_text())))
        forbidden = {"transformers", "tokenizers", "torch", "toolformer.data.corpus", "toolformer.data.prompts"}
        assert not names & forbidden, path.name


def test_model_knows_no_lightning_and_no_data():
    for path in (ROOT / "toolformer/model").glob("*.py"):
        names = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
        assert not names & {"lightning", "omegaconf", "datasets", "wandb"}, path.name


@pytest.mark.parametrize("name", ["cli", "overrides", "settings", "stopping", "__init__", *ENTRIES])
def test_entry_points_start_fast(name: str):
    """Heavy packages, and our modules which import them, only inside functions."""
    path = ROOT / f"toolformer/{name}.py"
    for module in at_start(ast.parse(path.read_text())):
        assert module.split(".")[0] not in HEAVY, f"{path.name} imports {module} at its start"
        assert not module.startswith("toolformer.") or part(path.with_name(module.split(".")[1])) in (
            "cli",
            "overrides",
            "settings",
            "stopping",
            "records",
        ), f"{path.name} imports {module} at its start"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_open_with_what_enters_and_what_leaves(path: Path):
    text = path.read_text()
    if text.strip():
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
        assert first.startswith("In: ") and "Out: " in first, f"{path.name}: {first!r}"


def test_names():
    for path in SOURCES:
        assert path.stem not in ("utils", "helpers", "common", "misc") and not path.stem.endswith("v2"), path
