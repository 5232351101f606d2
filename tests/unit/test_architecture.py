"""The arrows between the folders, what a Lambda function loads at a cold start, and that every test is collected."""

from __future__ import annotations

import ast
import fnmatch
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdas import layers
from runtime.silver import SILVER_TABLES
from stacks import names, transform

ROOT = Path(__file__).parents[2]
# `__main__ -> stacks -> components`, `lambdas -> runtime`, `local -> runtime, stacks`. Of the runtime library, stacks
# and components take the names of environment variables and of secrets, and the error that the program is refused with.
ALLOWED = {
    "__main__": ("stacks", "runtime.errors"),
    "stacks": ("stacks", "components", "runtime.settings", "runtime.catalogue", "runtime.errors"),
    "components": ("components", "runtime.settings", "runtime.errors"),
    "runtime": ("runtime",),
    "lambdas": ("lambdas", "runtime"),
    "local": ("local", "runtime", "stacks", "policies"),
    # The engine runs it in an environment of its own, in which nothing of ours is.
    "policies": ("policies",),
}
OWN = (*ALLOWED, "tests")
# Functions and containers have no Pulumi.
WITHOUT_PULUMI = ("runtime", "lambdas")
HANDLERS = ("check", "dbt_runner", "export", "register", "rotate")
LOADED_BY_LAMBDA = (
    "aws",
    "delta",
    "duck",
    "errors",
    "export",
    "glue",
    "parquet",
    "readiness",
    "readiness_delta",
    "readiness_footer",
    "readiness_iceberg",
    "readiness_log",
    "readiness_parquet",
    "readiness_sources",
    "readiness_store",
    "readiness_tables",
    "register",
    "rotation",
    "settings",
    "silver",
    "sql",
    "warehouse",
)


def module_file(module: str, root: Path = ROOT) -> Path | None:
    """Return the file of one of our own modules, None for a package of others or for a name inside a module."""
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return path if path.is_dir() and within(module, OWN) else None


def imported(node: ast.stmt, root: Path = ROOT) -> list[str]:
    """Return the modules that a statement imports; `from package import module` is `package.module`."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        below = [f"{module}.{name.name}" for name in node.names]
        return [full if module_file(full, root) else module for full in below]
    return []


def all_imports(tree: ast.AST, root: Path = ROOT) -> list[str]:
    """Return every module that is imported anywhere in a module, in functions too."""
    return [name for node in ast.walk(tree) if isinstance(node, ast.stmt) for name in imported(node, root)]


def imports_at_start(tree: ast.AST) -> list[str]:
    """Return what is imported when the module is: neither what functions import nor what only type checkers see."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found += imports_at_start(ast.Module(node.orelse, []))
            continue
        if isinstance(node, ast.stmt):
            found += imported(node)
        found += imports_at_start(node)
    return found


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def sources() -> Iterator[tuple[str, Path]]:
    """Yield every Python file of the program and the library with the folder that it belongs to."""
    yield "__main__", ROOT / "__main__.py"
    for folder in ALLOWED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


SOURCES = list(sources())


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def faults(folder: str, tree: ast.AST) -> list[str]:
    """Return the imports of our own modules that the folder may not have."""
    return [name for name in all_imports(tree) if within(name, OWN) and not within(name, ALLOWED[folder])]


@pytest.mark.parametrize(("folder", "path"), SOURCES, ids=[str(path.relative_to(ROOT)) for _folder, path in SOURCES])
def test_a_module_imports_only_along_the_arrows(folder: str, path: Path) -> None:
    assert faults(folder, parsed(path)) == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("runtime", "import stacks.settings"),
        ("runtime", "from lambdas import layers"),
        ("runtime", "def f():\n    from local.process import free_port"),
        ("components", "from stacks import settings"),
        ("components", "from runtime import aws"),
        ("stacks", "from runtime.aws import Connection"),
        ("stacks", "from local import inprocess"),
        ("lambdas", "import local"),
        ("local", "from lambdas.layers import build_all"),
        ("__main__", "from components import naming"),
        ("policies", "from runtime.errors import FailedError"),
        ("components", "from policies.limits import REGIONS"),
        ("runtime", "import tests.conftest"),
    ],
)
def test_an_import_against_an_arrow_is_found(folder: str, source: str) -> None:
    assert len(faults(folder, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("stacks", "from runtime import settings, errors"),
        ("components", "from components.policies import trust"),
        ("lambdas", "from runtime.cli import say"),
        ("local", "from stacks.settings import load_settings"),
        ("runtime", "import json, boto3"),
        ("local", "from policies.registry import RULES"),
    ],
)
def test_an_import_along_an_arrow_is_none(folder: str, source: str) -> None:
    assert faults(folder, ast.parse(source)) == []


@pytest.mark.parametrize("folder", WITHOUT_PULUMI)
def test_neither_the_library_nor_the_functions_import_pulumi(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        names = {name.split(".")[0] for name in all_imports(parsed(path))}
        assert not {name for name in names if name.startswith("pulumi")}, path


def test_rules_need_the_standard_library_alone_and_the_pack_the_engines_too() -> None:
    pack = {"__main__.py": {"pulumi_policy"}, "pack.py": {"pulumi_policy", "yaml"}}
    for path in sorted((ROOT / "policies").rglob("*.py")):
        names = {name.split(".")[0] for name in all_imports(parsed(path))} - {"policies", "__future__"}
        assert names - sys.stdlib_module_names == pack.get(path.name, set()), path


def loaded_with(module: str) -> dict[str, list[str]]:
    """Return every module of ours that is loaded with one, each with what it imports at its start."""
    found: dict[str, list[str]] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name in found or file is None or file.is_dir():
            continue
        found[name] = imports_at_start(parsed(file))
        waiting += [other for other in found[name] if within(other, OWN)]
    return found


@pytest.mark.parametrize(
    "module",
    [*(f"lambdas.{step}.handler" for step in HANDLERS), *(f"runtime.{name}" for name in LOADED_BY_LAMBDA)],
)
def test_a_cold_start_loads_the_standard_library_and_our_own_modules_only(module: str) -> None:
    loaded = loaded_with(module)
    assert module in loaded
    for name, imports in loaded.items():
        assert within(name, ("runtime", "lambdas")), name
        heavy = [other for other in imports if not within(other, ("runtime", "lambdas"))]
        assert [other for other in heavy if other.split(".")[0] not in sys.stdlib_module_names] == [], name


def test_every_handler_is_among_those_whose_start_is_looked_at() -> None:
    assert {path.parent.name for path in (ROOT / "lambdas").glob("*/handler.py")} == set(HANDLERS)


def test_imports_at_the_start_are_told_from_later_ones() -> None:
    source = """
import json
if TYPE_CHECKING:
    import duckdb
else:
    import sqlite3
try:
    import yaml
except ImportError:
    import tomllib
class A:
    import boto3
    def f(self):
        import deltalake
def g():
    import dbt
"""
    assert imports_at_start(ast.parse(source)) == ["json", "sqlite3", "yaml", "tomllib", "boto3"]


def reads_config(tree: ast.AST) -> bool:
    """Return whether a module uses pulumi.Config, under whatever name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "Config" and ast.unparse(node.value) == "pulumi":
            return True
        if isinstance(node, ast.ImportFrom) and within(node.module or "", ("pulumi",)):
            named = [name.name for name in node.names]
            if "Config" in named:
                return True
        if isinstance(node, ast.Import) and any(name.name == "pulumi" and name.asname for name in node.names):
            # Another name for the SDK would hide it from this test.
            return True
    return False


def test_the_stacks_configuration_is_read_in_one_place() -> None:
    assert [str(path.relative_to(ROOT)) for _folder, path in SOURCES if reads_config(parsed(path))] == [
        str(Path("stacks", "settings.py"))
    ]


@pytest.mark.parametrize(
    "source", ["import pulumi\npulumi.Config('a')", "from pulumi import Config", "import pulumi as sdk\nsdk.Config()"]
)
def test_reading_the_configuration_is_found(source: str) -> None:
    assert reads_config(ast.parse(source))


def test_the_programs_entry_stays_small() -> None:
    assert len((ROOT / "__main__.py").read_text().splitlines()) < 40


# --- tests ---


def started_by_tests() -> set[Path]:
    """Return the files in folders `programs` that a test beside the folder names as `"<name>.py"`, to start it."""
    return {
        path
        for path in (ROOT / "tests").rglob("programs/*.py")
        if any(f'"{path.name}"' in test.read_text() for test in path.parents[1].glob("test_*.py"))
    }


def imported_by_programs() -> set[Path]:
    """Return the files that a program under tests imports from beside it; a program has no suffix and a first line."""
    programs = [path for path in (ROOT / "tests").rglob("*") if path.is_file() and not path.suffix]
    return {
        path.with_name(f"{name}.py")
        for path in programs
        if path.read_bytes().startswith(b"#!") and b"python" in path.read_bytes().splitlines()[0]
        for name in all_imports(parsed(path))
    }


def test_every_file_under_tests_is_collected_or_imported(pytestconfig: pytest.Config) -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    used = {name for path in files for name in all_imports(parsed(path))}
    patterns = pytestconfig.getini("python_files")
    for path in files:
        relative = path.relative_to(ROOT)
        collected = any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns) or path.name == "conftest.py"
        imported = ".".join(relative.with_suffix("").parts) in used or path in imported_by_programs()
        needed = imported or path in started_by_tests()
        assert collected or needed, f"{relative} is neither collected nor imported"


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    passed_over = pytestconfig.getini("norecursedirs")
    assert pytestconfig.getini("testpaths") == ["tests"]
    for path in (ROOT / "tests").rglob("test_*.py"):
        for folder in path.relative_to(ROOT).parts[:-1]:
            assert not any(fnmatch.fnmatch(folder, pattern) for pattern in passed_over), path


def test_every_test_file_has_tests_with_names_of_their_own() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        functions = [
            node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        names = [function.name for function in functions if function.name.startswith("test_")]
        assert names, f"{path} has no test"
        assert len(names) == len(set(names)), f"{path}: of two tests of one name, only the last is run"


def test_the_program_and_the_builder_know_the_same_artifacts() -> None:
    """The arrows keep stacks from importing the builder, so the names stand in both."""
    assert set(transform.LAYERS) == {*layers.LAYER_PACKAGES, layers.PROJECT_LAYER}
    assert transform.FUNCTIONS_CODE == layers.FUNCTIONS


def test_the_program_makes_the_databases_of_every_silver_table() -> None:
    assert set(names.SILVER_DATABASES) == {table.database for table in SILVER_TABLES}
