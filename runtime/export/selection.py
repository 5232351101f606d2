"""Which tables are exported: names, globs, dbt's selection syntax, or all of a schema.

`--select` and `--exclude` are answered by dbt's own selector over its manifest, so every method and graph operator
that dbt has means the same here.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ConfigurationError, NotReadyError
from runtime.export.models import Manifest

_GLOB = re.compile(r"[*?\[]")
# dbt keeps its flags in the process, and `path:` looks below the working directory.
_DBT = threading.Lock()


@dataclass(frozen=True)
class Selection:
    """dbt's --select and --exclude. Without a manifest both take names and globs only."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def choose_tables(
    schema: str,
    available: Mapping[str, bool],
    wanted: Sequence[str] | None = None,
    selection: Selection | None = None,
    manifest: Manifest | None = None,
) -> list[str]:
    """Return the tables to export, sorted.

    `available` are the schema's tables and views, each with whether it is a table. `wanted` are names and globs; None
    or none means all tables, or what `selection` holds. A view is exported only when its whole name is given. Raises
    ConfigurationError naming what is missing and what there is, NotReadyError for a schema without tables.
    """
    base = sorted(name for name, is_table in available.items() if is_table)
    asked = selection or Selection()
    if not wanted and not asked.select:
        if not base:
            raise NotReadyError(f"schema {schema!r} has no tables, or none that this user may see")
        chosen = set(base)
    else:
        chosen = _named(schema, available, base, wanted or ()) | _selected(schema, available, base, asked, manifest)
    chosen -= _excluded(schema, base, asked, manifest)
    if not chosen:
        raise ConfigurationError(f"the selection leaves no table of schema {schema!r}; it has {_listed(base)}")
    return sorted(chosen)


def _named(schema: str, available: Mapping[str, bool], base: Sequence[str], wanted: Sequence[str]) -> set[str]:
    """Return the tables that names and globs mean."""
    found: set[str] = set()
    missing: list[str] = []
    for pattern in wanted:
        if pattern in available:
            found.add(pattern)
            continue
        matches = [name for name in base if fnmatch.fnmatchcase(name, pattern)] if _GLOB.search(pattern) else []
        found.update(matches)
        if not matches:
            missing.append(pattern)
    if missing:
        names = ", ".join(map(repr, sorted(set(missing))))
        raise ConfigurationError(f"schema {schema!r} has no table {names}; it has {_listed(base)}")
    return found


def _selected(
    schema: str, available: Mapping[str, bool], base: Sequence[str], asked: Selection, manifest: Manifest | None
) -> set[str]:
    """Return the tables that --select holds; views among them are left out, missing tables are an error."""
    if not asked.select:
        return set()
    if manifest is None:
        return _named(schema, available, base, _plain("--select", asked.select))
    found = dbt_tables(manifest, schema, asked.select)
    missing = sorted(found - set(available))
    if missing:
        names = ", ".join(map(repr, missing))
        raise ConfigurationError(
            f"schema {schema!r} has no table {names}, which dbt's selection holds", hint="dbt build makes it"
        )
    return {name for name in found if available[name]}


def _excluded(schema: str, base: Sequence[str], asked: Selection, manifest: Manifest | None) -> set[str]:
    """Return the tables that --exclude takes out; one that is not there is none."""
    if not asked.exclude:
        return set()
    if manifest is not None:
        return set(dbt_tables(manifest, schema, asked.exclude))
    patterns = _plain("--exclude", asked.exclude)
    return {name for name in base if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def _plain(option: str, criteria: Sequence[str]) -> list[str]:
    """Return the names and globs of criteria; raise ConfigurationError for what only dbt's manifest can answer."""
    words = [word for text in criteria for word in text.split()]
    methods = [word for word in words if re.search(r"[:+@,]", word)]
    if methods:
        raise ConfigurationError(
            f"{option} {methods[0]!r} is answered by dbt's manifest, and none is given",
            hint="--manifest target/manifest.json",
        )
    return words


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


# --- dbt ---


def dbt_tables(manifest: Manifest, schema: str, select: Sequence[str]) -> frozenset[str]:
    """Return the tables of a schema that dbt's selection holds.

    Raises ConfigurationError for what dbt's selector does not take, and where the manifest is of a version that this
    dbt does not read. `state:` and `result:` compare with earlier runs, which an export does not have.
    """
    ids = _select_ids(manifest.path, select)
    return frozenset(item.table for item in manifest.models if item.unique_id in ids and item.schema == schema)


def _select_ids(path: Path, select: Sequence[str]) -> set[str]:
    """Return the unique ids that dbt's own selector finds."""
    try:
        from dbt.exceptions import DbtRuntimeError
        from dbt_common.exceptions import DbtBaseException
    except ImportError as exc:
        raise ConfigurationError("--select needs dbt-core, which is not installed", hint="name the tables") from exc
    found = path.resolve()
    with _DBT, _quiet_dbt(), contextlib.chdir(_project(found)):
        try:
            return _dbt_selection(found, select)
        except (DbtRuntimeError, DbtBaseException) as exc:
            text = " ".join(str(exc).split())
            raise ConfigurationError(f"dbt does not take the selection {' '.join(select)!r}: {text}") from exc


def _dbt_selection(path: Path, select: Sequence[str]) -> set[str]:
    """Hand the selection to dbt."""
    from argparse import Namespace

    from dbt.compilation import Linker
    from dbt.contracts.graph.manifest import Manifest as DbtManifest
    from dbt.contracts.graph.manifest import WritableManifest
    from dbt.flags import set_from_args
    from dbt.graph.cli import parse_difference
    from dbt.graph.graph import Graph
    from dbt.graph.selector import NodeSelector

    set_from_args(Namespace(SEND_ANONYMOUS_USAGE_STATS=False), None)
    manifest = DbtManifest.from_writable_manifest(WritableManifest.read_and_check_versions(str(path)))
    linker: Any = Linker()
    linker.link_graph(manifest)
    selector = NodeSelector(Graph(linker.graph), manifest)
    found: set[str] = set(selector.get_selected(parse_difference(list(select), None)))
    return found


def _project(path: Path) -> Path:
    """Return the folder of the manifest's project, which `path:` is relative to."""
    for folder in path.resolve().parents[:3]:
        if (folder / "dbt_project.yml").is_file():
            return folder
    return Path.cwd()


@contextlib.contextmanager
def _quiet_dbt() -> Iterator[None]:
    """Keep dbt from writing to standard output, where results go. It warns there of criteria without a match."""
    from dbt_common.events.event_manager_client import cleanup_event_logger

    cleanup_event_logger()
    with contextlib.redirect_stdout(sys.stderr):
        yield
