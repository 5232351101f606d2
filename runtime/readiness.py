"""Are the source tables there, not empty, and fresh? Exit 0 ready, 1 not ready, 2 cannot be told.

What to check comes from dbt's sources. A table is ready when its Glue entry leads to Parquet files or to a
Delta log with a readable version, when there is at least one row unless it may be empty, and when its newest
object is not older than dbt's `freshness.error_after`. Whatever is not understood counts as not ready.

dbt measures freshness by a column; this check measures it by the time of the newest Parquet object or Delta
commit, for it runs before the warehouse is woken. A rewrite without new rows therefore looks fresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from runtime import glue, parquet
from runtime.aws import Connection
from runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    AccessDeniedError,
    ConfigurationError,
    GoldlakeError,
    UnreachableError,
)

SCHEMA = "goldlake.check/1"
# Up to here every footer is read and the row count is exact; beyond, reading stops at the first row found.
MAX_COUNTED_FILES = 1000
_BATCH = 64
_SYMLINK_FOLDER = "_symlink_format_manifest/"
_PERIODS = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}

State = Literal["ready", "missing", "empty", "stale", "unreadable", "forbidden", "unreachable"]
_UNTOLD: frozenset[State] = frozenset({"forbidden", "unreachable"})


@dataclass(frozen=True)
class SourceTable:
    """A table that dbt reads: its Glue database and name, whether it may be empty, and how old it may be."""

    database: str
    name: str
    allow_empty: bool = False
    warn_after: timedelta | None = None
    error_after: timedelta | None = None

    @property
    def full_name(self) -> str:
        """`<Glue database>.<table>`."""
        return f"{self.database}.{self.name}"


@dataclass(frozen=True)
class TableReadiness:
    """What was found out about a table.

    `rows` None means not counted; with `exact` False there are at least so many. `modified` is the time of
    the newest object or Delta commit, `age_seconds` its age at the check. `version` is Delta's.
    """

    table: str
    state: State
    detail: str
    format: str | None = None
    location: str | None = None
    rows: int | None = None
    exact: bool = True
    files: int | None = None
    version: int | None = None
    modified: datetime | None = None
    age_seconds: int | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `modified` in ISO 8601."""
        return {**asdict(self), "modified": self.modified.isoformat() if self.modified else None}


@dataclass(frozen=True)
class ReadinessReport:
    """The tables' readiness at one time."""

    checked_at: datetime
    tables: tuple[TableReadiness, ...]

    @property
    def ready(self) -> bool:
        """Whether there is at least one table and all are ready."""
        return bool(self.tables) and all(table.state == "ready" for table in self.tables)

    @property
    def exit_code(self) -> int:
        """0 all ready; 2 when a table cannot be told because of a permission or connection; else 1."""
        if any(table.state in _UNTOLD for table in self.tables):
            return EXIT_UNREACHABLE
        return EXIT_DONE if self.ready else EXIT_FAILED

    @property
    def summary(self) -> str:
        """One line for people: how many tables are ready, and which are not."""
        waiting = [f"{table.table} is {table.state}" for table in self.tables if table.state != "ready"]
        ready = len(self.tables) - len(waiting)
        return f"{ready} of {len(self.tables)} tables ready" + (f"; {', '.join(waiting)}" if waiting else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values under the schema `goldlake.check/1`."""
        return {
            "schema": SCHEMA,
            "checked_at": self.checked_at.isoformat(),
            "ready": self.ready,
            "exit_code": self.exit_code,
            "tables": [table.to_dict() for table in self.tables],
        }


# --- what to check: dbt's sources ---


def sources_from_project(project_dir: Path) -> list[SourceTable]:
    """Return the enabled source tables of a dbt project, from the yml files under models/, by name.

    The Glue database is `meta.glue_database` of table or source (also under `config.meta`), else the source's
    schema, else its name; the table is `identifier`, else its name. `meta.allow_empty` and `freshness` are
    read at both levels, the table's first. Raises ConfigurationError when there is no source, and with file
    and source for what cannot be understood, a Jinja expression included.
    """
    models = project_dir / "models"
    if not models.is_dir():
        raise ConfigurationError(f"{project_dir} is no dbt project: it has no folder models")
    tables: dict[str, SourceTable] = {}
    for path in sorted([*models.rglob("*.yml"), *models.rglob("*.yaml")]):
        for table in _tables_in(path):
            tables[table.full_name] = table
    if not tables:
        # Nothing to check must not mean that all is well.
        raise ConfigurationError(f"the dbt project {project_dir} declares no enabled source tables")
    return [tables[name] for name in sorted(tables)]


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
    database = meta.get("glue_database") or source.get("schema") or source.get("name")
    name = table.get("identifier") or table.get("name")
    for text in (database, name):
        if not isinstance(text, str) or "{{" in text or "{%" in text:
            raise ConfigurationError(
                f"{where}: {text!r} is no plain name; this check renders no Jinja",
                hint="set meta.glue_database on the source",
            )
    freshness = _freshness(source, table)
    return SourceTable(
        # Glue keeps names in lower case and dbt need not.
        database=str(database).lower(),
        name=str(name).lower(),
        allow_empty=meta.get("allow_empty") is True,
        warn_after=_duration(freshness.get("warn_after"), f"{where}: freshness.warn_after"),
        error_after=_duration(freshness.get("error_after"), f"{where}: freshness.error_after"),
    )


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


# --- the check ---


@dataclass(frozen=True)
class _Clients:
    """The clients, made once for all tables."""

    aws: Connection
    glue: Any = field(repr=False)
    s3: Any = field(repr=False)


@dataclass(frozen=True)
class _Content:
    """What a location holds: format, rows (at least, unless exact), files, newest change, Delta version."""

    format: str
    rows: int | None
    exact: bool
    files: int
    modified: datetime | None
    version: int | None = None


class _NotReadyTable(Exception):  # noqa: N818 - an answer, not an error: it never leaves this module
    """A state that ends the check of a table."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


def check(aws: Connection, tables: Sequence[SourceTable], *, now: datetime | None = None) -> ReadinessReport:
    """Return the readiness of each table; nothing is written.

    A missing permission or connection is a state of the table, not an exception; after the first table that
    cannot be reached the others are not tried, for each would wait for the same timeouts. Raises
    ConfigurationError for an empty list, and for a connection without region or credentials profile.
    """
    if not tables:
        raise ConfigurationError("there are no tables to check")
    moment = now or datetime.now(UTC)
    clients = _Clients(aws, aws.client("glue"), aws.client("s3"))
    results: list[TableReadiness] = []
    for table in tables:
        if down := next((item for item in results if item.state == "unreachable"), None):
            detail = f"not tried, since {down.table} could not be reached"
            results.append(TableReadiness(table.full_name, "unreachable", detail))
        else:
            results.append(_check_table(clients, table, moment))
    return ReadinessReport(moment, tuple(results))


def _check_table(clients: _Clients, table: SourceTable, now: datetime) -> TableReadiness:
    """Return the readiness of one table."""
    location: str | None = None
    try:
        entry = _entry(clients, table)
        location = str((entry.get("StorageDescriptor") or {}).get("Location") or "")
        content = _content(clients, entry, location)
    except _NotReadyTable as exc:
        return TableReadiness(table.full_name, exc.state, exc.detail, location=location)
    except AccessDeniedError as exc:
        return TableReadiness(table.full_name, "forbidden", exc.message, location=location)
    except UnreachableError as exc:
        return TableReadiness(table.full_name, "unreachable", exc.message, location=location)
    except GoldlakeError as exc:
        state: State = "missing" if exc.code == "NoSuchBucket" else "unreadable"
        return TableReadiness(table.full_name, state, exc.message, location=location)
    return _judged(table, content, location, now)


def _judged(table: SourceTable, content: _Content, location: str, now: datetime) -> TableReadiness:
    """Return the table's state by its rows and age."""
    age = now - content.modified if content.modified else None
    state: State = "ready"
    detail = _amount(content)
    warning = None
    if content.rows is None and not table.allow_empty:
        state, detail = "unreadable", "the number of rows cannot be told"
    elif content.rows == 0 and not table.allow_empty:
        state, detail = "empty", f"no rows in {content.files} files"
    elif table.error_after is not None and (age is None or age > table.error_after):
        state, detail = "stale", f"last written {_ago(age)}; allowed are {_span(table.error_after)}"
    elif table.warn_after is not None and (age is None or age > table.warn_after):
        warning = f"last written {_ago(age)}; expected within {_span(table.warn_after)}"
    return TableReadiness(
        table=table.full_name,
        state=state,
        detail=detail,
        format=content.format,
        location=location,
        rows=content.rows,
        exact=content.exact,
        files=content.files,
        version=content.version,
        modified=content.modified,
        age_seconds=int(age.total_seconds()) if age is not None else None,
        warning=warning,
    )


def _amount(content: _Content) -> str:
    """Return rows and files as a person says them."""
    if content.rows is None:
        return f"rows not counted, {content.files} files"
    return f"{'' if content.exact else 'at least '}{content.rows:,} rows in {content.files:,} files"


def _ago(age: timedelta | None) -> str:
    """Return an age as a person says it."""
    return "at an unknown time" if age is None else f"{_span(max(age, timedelta()))} ago"


def _span(duration: timedelta) -> str:
    """Return a duration in its largest whole unit: `26 h`, `3 d`."""
    minutes = int(duration.total_seconds() // 60)
    if minutes >= 3 * 24 * 60:
        return f"{minutes // (24 * 60)} d"
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"


def _entry(clients: _Clients, table: SourceTable) -> dict[str, Any]:
    """Return the table's Glue entry. Raises _NotReadyTable when there is none."""
    entry = glue.get_table(clients.aws, table.database, table.name, client=clients.glue)
    if entry is None:
        raise _NotReadyTable("missing", f"no table {table.full_name} in the Glue catalogue")
    return entry


def _content(clients: _Clients, entry: Mapping[str, Any], location: str) -> _Content:
    """Return what the entry's location holds. Raises _NotReadyTable, or as `runtime.aws.translated` does."""
    kind = glue.table_format(entry)
    if kind in ("view", "iceberg"):
        raise _NotReadyTable("unreadable", f"the Glue entry is of the kind {kind}, which is not checked")
    if not location:
        raise _NotReadyTable("unreadable", "the Glue entry has no location")
    # Spectrum's entry of a Delta table leads to the manifest inside it.
    root = location.rstrip("/") + "/"
    bucket, prefix = parquet.split_location(root.removesuffix(_SYMLINK_FOLDER))
    if parquet.has_delta_log(clients.aws, bucket, prefix, client=clients.s3):
        return _delta(clients, bucket, prefix)
    if kind == "delta":
        raise _NotReadyTable("missing", f"no _delta_log in s3://{bucket}/{prefix}")
    if kind != "parquet":
        raise _NotReadyTable("unreadable", f"the Glue entry's format is {kind}: expected Parquet or Delta")
    return _parquet(clients, bucket, prefix)


def _parquet(clients: _Clients, bucket: str, prefix: str) -> _Content:
    """Return what a folder of Parquet files holds."""
    files = parquet.list_files(clients.aws, bucket, prefix, client=clients.s3)
    if not files:
        raise _NotReadyTable("missing", f"no files in s3://{bucket}/{prefix}")
    newest = max(file.modified for file in files)
    exact = len(files) <= MAX_COUNTED_FILES
    rows = 0
    # The newest first: they are the likeliest to have rows, when one row is all that is asked for.
    keys = [file.key for file in sorted(files, key=lambda file: file.modified, reverse=True)]
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        rows += sum(parquet.footer_rows(clients.aws, bucket, batch, client=clients.s3).values())
        if rows and not exact:
            break
    return _Content("parquet", rows, exact or rows == 0, len(files), newest)


def _delta(clients: _Clients, bucket: str, prefix: str) -> _Content:
    """Return what the current version of a Delta table holds, by its log."""
    from runtime import delta

    location = f"s3://{bucket}/{prefix.rstrip('/')}"
    table = delta.open_table(location, clients.aws.storage_options())
    if table is None:
        raise _NotReadyTable("unreadable", f"the Delta log of {location} has no readable version")
    with delta.translated(f"Delta table {location}"):
        files = table.file_uris()
        history = table.history(1)
        rows = delta.log_rows(table)
    if rows is None:
        # A writer without statistics: the files know.
        keys = [uri.removeprefix(f"s3://{bucket}/") for uri in files]
        rows = sum(parquet.footer_rows(clients.aws, bucket, keys, client=clients.s3).values())
    stamp = history[0].get("timestamp") if history else None
    modified = datetime.fromtimestamp(stamp / 1000, UTC) if stamp is not None else None
    return _Content("delta", rows, True, len(files), modified, table.version())
