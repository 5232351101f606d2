"""Which tables to check: dbt's sources, from a project's yml files or its manifest, and tables named one by one.

Sources of the rules: dbt's "Source properties", "freshness" and "manifest.json" reference pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from runtime.errors import ConfigurationError
from runtime.parquet import split_location

_PERIODS = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
# A hundred years: longer is a slip, and timedelta has an end.
_LONGEST = timedelta(days=36_525)
TABLE_FORMS = "glue:<database>.<table>, s3://<bucket>/<prefix> or delta:s3://<bucket>/<prefix>"


@dataclass(frozen=True)
class SourceTable:
    """A table that dbt reads: where it is, whether it may be empty, how old it may be, what columns it must have.

    It is found by Glue database and name, or lies at `location` (s3://…); database and name are empty then.
    `delta` says that it must be a Delta table. Names of databases, tables and columns are in lower case.
    """

    database: str
    name: str
    allow_empty: bool = False
    warn_after: timedelta | None = None
    error_after: timedelta | None = None
    columns: tuple[str, ...] = ()
    location: str | None = None
    delta: bool = False

    @property
    def full_name(self) -> str:
        """`<Glue database>.<table>`, or the location."""
        return self.location or f"{self.database}.{self.name}"

    @property
    def strictest(self) -> timedelta | None:
        """The shorter of the two limits on its age, None without one."""
        return min((limit for limit in (self.warn_after, self.error_after) if limit is not None), default=None)


# --- tables named one by one ---


def source_from_text(
    text: str, *, max_age: timedelta | None = None, allow_empty: bool = False, columns: tuple[str, ...] = ()
) -> SourceTable:
    """Return the table that `glue:db.table`, `s3://bucket/prefix` or `delta:s3://bucket/prefix` names.

    Raises ConfigurationError for another form.
    """
    wanted = SourceTable("", "", allow_empty=allow_empty, error_after=max_age, columns=tuple(map(str.lower, columns)))
    kind, _, rest = text.partition(":")
    if kind == "glue":
        database, dot, name = rest.partition(".")
        if not (database and dot and name) or re.search(r"[\s/]", rest):
            raise ConfigurationError(f"table {text!r}: expected glue:<database>.<table>")
        return replace(wanted, database=database.lower(), name=name.lower())
    location = rest if kind == "delta" else text
    try:
        bucket, prefix = split_location(location)
    except ConfigurationError as exc:
        raise ConfigurationError(f"table {text!r}: expected {TABLE_FORMS}") from exc
    return replace(wanted, location=f"s3://{bucket}/{prefix}", delta=kind == "delta")


def parse_duration(text: str) -> timedelta:
    """Return the duration that `90s`, `10m`, `2h`, `1d` or `1h30m` says; at least a second.

    Raises ConfigurationError for another form: a number without a unit is one too.
    """
    found = _DURATION.fullmatch(text)
    # More digits than any duration has would not fit into the sum.
    numbers = [int(number or 0) for number in found.groups()] if found and len(text) <= 40 else []
    seconds = sum(number * unit for number, unit in zip(numbers, _UNITS.values(), strict=False))
    if not 1 <= seconds <= _LONGEST.total_seconds():
        raise ConfigurationError(f"duration {text!r}: expected a form such as 90s, 10m, 2h, 1d or 1h30m")
    return timedelta(seconds=seconds)


def duration_text(duration: timedelta) -> str:
    """Return a duration of whole seconds as `parse_duration` takes it: `1h30m`."""
    rest = int(duration.total_seconds())
    parts = []
    for unit, size in _UNITS.items():
        number, rest = divmod(rest, size)
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts) or "0s"


# --- dbt's sources ---


def sources_from_project(project_dir: Path) -> list[SourceTable]:
    """Return the enabled source tables of a dbt project, from the yml files under models/, by name.

    The Glue database is `meta.glue_database` of table or source (also under `config.meta`), else the source's
    schema, else its name; the table is `identifier`, else its name. `meta.allow_empty` and `freshness` are
    read at both levels, the table's first. Declared columns are required unless `meta.require_columns` is false.
    Raises ConfigurationError when there is no source, and with file and source for what cannot be understood, a
    Jinja expression included.
    """
    models = project_dir / "models"
    if not models.is_dir():
        raise ConfigurationError(f"{project_dir} is no dbt project: it has no folder models")
    paths = sorted([*models.rglob("*.yml"), *models.rglob("*.yaml")])
    return _by_name((table for path in paths for table in _tables_in(path)), f"the dbt project {project_dir}")


def sources_from_manifest(path: Path) -> list[SourceTable]:
    """Return the source tables of dbt's manifest.json, by name; the rules are those of `sources_from_project`.

    dbt has rendered its Jinja and left out what is disabled. Raises ConfigurationError for a file that is no
    manifest, and when there is no source.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path} is no readable manifest: {exc}", hint="dbt parse writes one") from exc
    nodes = content.get("sources") if isinstance(content, Mapping) else None
    if not isinstance(nodes, Mapping) or not all(isinstance(node, Mapping) for node in nodes.values()):
        raise ConfigurationError(f"{path} is no dbt manifest: it has no sources", hint="dbt parse writes one")
    return _by_name((_from_manifest(key, node, path) for key, node in nodes.items()), str(path))


def _from_manifest(key: str, node: Mapping[str, Any], path: Path) -> SourceTable:
    """Return one source of a manifest, which has source and table merged but for `source_meta`."""
    columns = node.get("columns") or {}
    source = {"name": node.get("source_name"), "schema": node.get("schema"), "meta": node.get("source_meta")}
    table = {**node, "columns": list(columns.values()) if isinstance(columns, Mapping) else columns}
    return _source_table(source, table, f"{path}: {key}")


def _by_name(tables: Iterator[SourceTable], where: str) -> list[SourceTable]:
    """Return the tables by name; of several descriptions of one table, what is strictest in each."""
    found: dict[str, SourceTable] = {}
    for table in tables:
        other = found.get(table.full_name)
        found[table.full_name] = _stricter(other, table) if other else table
    if not found:
        # Nothing to check must not mean that all is well.
        raise ConfigurationError(f"{where} declares no enabled source tables")
    return [found[name] for name in sorted(found)]


def _stricter(one: SourceTable, other: SourceTable) -> SourceTable:
    """Return a table with the stricter of two descriptions."""

    def shorter(first: timedelta | None, second: timedelta | None) -> timedelta | None:
        return min((limit for limit in (first, second) if limit is not None), default=None)

    return replace(
        one,
        allow_empty=one.allow_empty and other.allow_empty,
        warn_after=shorter(one.warn_after, other.warn_after),
        error_after=shorter(one.error_after, other.error_after),
        columns=tuple(dict.fromkeys((*one.columns, *other.columns))),
    )


def _tables_in(path: Path) -> Iterator[SourceTable]:
    """Yield the enabled source tables of one yml file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} is no readable YAML: {exc}") from exc
    if not isinstance(content, Mapping) or not content.get("sources"):
        return
    for source in _mappings(content["sources"], f"{path}: sources"):
        where = f"{path}: source {source.get('name')}"
        if not _enabled(source):
            continue
        for table in _mappings(source.get("tables") or [], f"{where}: tables"):
            if _enabled(table):
                yield _source_table(source, table, f"{where}, table {table.get('name')}")


def _mappings(value: object, where: str) -> list[Mapping[str, Any]]:
    """Return the value as a list of mappings. Raises ConfigurationError when it is another thing."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigurationError(f"{where}: expected a list of mappings")
    return value


def _enabled(node: Mapping[str, Any]) -> bool:
    """Return dbt's `config.enabled` of a source or table, which is true by default."""
    return bool((node.get("config") or {}).get("enabled", True))


def _source_table(source: Mapping[str, Any], table: Mapping[str, Any], where: str) -> SourceTable:
    """Return one source table with what it inherits from its source."""
    meta = {**_meta(source), **_meta(table)}
    database = _plain(meta.get("glue_database") or source.get("schema") or source.get("name"), where)
    name = _plain(table.get("identifier") or table.get("name"), where)
    freshness = _freshness(source, table)
    columns = _mappings(table.get("columns") or [], f"{where}: columns")
    return SourceTable(
        # Glue keeps names in lower case and dbt need not.
        database=database.lower(),
        name=name.lower(),
        allow_empty=meta.get("allow_empty") is True,
        warn_after=_duration(freshness.get("warn_after"), f"{where}: freshness.warn_after"),
        error_after=_duration(freshness.get("error_after"), f"{where}: freshness.error_after"),
        columns=()
        if meta.get("require_columns") is False
        else tuple(_plain(column.get("name"), f"{where}: columns").lower() for column in columns),
    )


def _plain(text: object, where: str) -> str:
    """Return a name. Raises ConfigurationError for what is none, a Jinja expression included."""
    if not isinstance(text, str) or "{{" in text or "{%" in text:
        raise ConfigurationError(
            f"{where}: {text!r} is no plain name; this check renders no Jinja",
            hint="set meta.glue_database on the source, or give dbt's manifest.json",
        )
    return text


def _meta(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta` of a source or table, wherever it is written."""
    return {**(node.get("meta") or {}), **((node.get("config") or {}).get("meta") or {})}


def _freshness(source: Mapping[str, Any], table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the freshness of a table over its source's. `freshness: null` on a table turns it off, as in dbt."""
    merged: dict[str, Any] = {}
    for node in (source, table):
        for place in (node, node.get("config") or {}):
            if "freshness" in place:
                merged = {**merged, **place["freshness"]} if isinstance(place["freshness"], Mapping) else {}
    return merged


def _duration(value: object, where: str) -> timedelta | None:
    """Return dbt's {count, period} as a duration; None when absent. Raises ConfigurationError when unclear."""
    if not value:
        return None
    count = value.get("count") if isinstance(value, Mapping) else None
    period = value.get("period") if isinstance(value, Mapping) else None
    if count is None and period is None and isinstance(value, Mapping):
        return None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0 or period not in _PERIODS:
        raise ConfigurationError(f"{where}: expected {{count: <number>, period: minute|hour|day}}, not {value}")
    return count * _PERIODS[period]
