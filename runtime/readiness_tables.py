"""What a table holds, from as few requests as tell it: Delta by its log, Parquet by a listing, Iceberg by its metadata.

No row is read. A Delta table's log has version, rows and time of the newest commit. Parquet files under a Glue table
are listed once, and footers are read, the newest file's first, until one has a row. An Iceberg table's metadata file
has the current snapshot and its totals.

Sources of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Deletion Vectors", "Commit Provenance
Information"), the Iceberg table spec ("Table Metadata", "Snapshots"), the Glue API (GetTables), ListObjectsV2.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from runtime import glue, parquet, readiness_footer
from runtime.aws import Connection, translated
from runtime.errors import AccessDeniedError, FailedError, GoldlakeError, UnreachableError
from runtime.readiness_footer import Footer
from runtime.readiness_sources import SourceTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

State = Literal["ready", "missing", "empty", "stale", "unreadable", "forbidden", "unreachable"]

# A table that was not found to be fresh or to have a row by then is not ready; it is not listed to its end.
LISTED_OBJECTS = 50_000
# From so many tables of one database, its list is asked for (100 a page) instead of each table.
LISTED_TABLES = 8
_BATCH = 64
# commitInfo is the first action of most writers; a commit of thousands of files need not be read for it.
_COMMIT_BYTES = 64 * 1024
_SYMLINK_FOLDER = "_symlink_format_manifest/"


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to check. `workers` tables are looked at at once; the times are limits of one request.

    `count` reads every footer, so that the rows of Parquet tables are exact.
    """

    workers: int = 16
    connect_seconds: float = 5
    read_seconds: float = 10
    attempts: int = 3
    count: bool = False


@dataclass(frozen=True)
class Content:
    """What a table holds.

    `rows` None: it cannot be told; unless `exact` there are at least so many (Iceberg: at most). `complete` says that
    all files were listed, `modified` is the time of the newest object, commit or snapshot. `columns` are the top-level
    ones, in lower case. `version` is Delta's, `snapshot` Iceberg's id as text: it has more digits than a JSON number
    keeps everywhere.
    """

    format: str
    location: str
    rows: int | None
    files: int | None
    modified: datetime | None
    columns: frozenset[str]
    exact: bool = True
    complete: bool = True
    version: int | None = None
    snapshot: str | None = None
    warning: str | None = None


class NotReadyTable(Exception):  # noqa: N818 - an answer, not an error: it never leaves the check
    """A state that ends the check of a table."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


@dataclass(frozen=True)
class Store:
    """Where tables are looked for: clients made once for all of them, and the threads that read footers."""

    aws: Connection
    options: CheckOptions
    s3: Any = field(repr=False)
    glue: Any = field(repr=False)
    readers: Executor = field(repr=False)

    def delta_options(self) -> dict[str, str]:
        """Return delta-rs' options with the limits of the other clients; its own are three minutes and ten tries."""
        limits = self.options
        return {
            **self.aws.storage_options(),
            "connect_timeout": _milliseconds(limits.connect_seconds),
            "timeout": _milliseconds(limits.read_seconds),
            "max_retries": str(limits.attempts - 1),
            "retry_timeout": _milliseconds(limits.attempts * (limits.connect_seconds + limits.read_seconds)),
        }


def _milliseconds(seconds: float) -> str:
    """Return a duration as delta-rs reads it: it takes no fractions."""
    return f"{round(seconds * 1000)}ms"


# --- the catalogue ---


@dataclass(frozen=True)
class Catalogue:
    """What Glue has said about the tables so far; of a database that could not be asked, why."""

    entries: Mapping[tuple[str, str], Mapping[str, Any]]
    failed: Mapping[str, UnreachableError]

    def entry(self, store: Store, table: SourceTable) -> Mapping[str, Any]:
        """Return the table's entry. Raises NotReadyTable when there is none, and as `translated` does."""
        if error := self.failed.get(table.database):
            raise error
        # A list leaves out what Lake Formation hides, so that only the table's own call says that it is not there.
        entry = self.entries.get((table.database, table.name)) or glue.get_table(
            store.aws, table.database, table.name, client=store.glue
        )
        if entry is None:
            raise NotReadyTable("missing", f"no table {table.full_name} in the Glue catalogue")
        return entry


def read_catalogue(store: Store, tables: Sequence[SourceTable], pool: Executor) -> Catalogue:
    """Return the entries of databases of which many tables are wanted, asked for by the page."""
    wanted: dict[str, set[str]] = {}
    for table in tables:
        if table.location is None:
            wanted.setdefault(table.database, set()).add(table.name)
    listed = {database: names for database, names in wanted.items() if len(names) >= LISTED_TABLES}
    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    failed: dict[str, UnreachableError] = {}
    answers = pool.map(lambda item: _list_database(store, *item), listed.items())
    for database, answer in zip(listed, answers, strict=True):
        if isinstance(answer, UnreachableError):
            failed[database] = answer
        else:
            entries.update({(database, name): entry for name, entry in answer.items()})
    return Catalogue(entries, failed)


def _list_database(store: Store, database: str, names: set[str]) -> dict[str, Mapping[str, Any]] | UnreachableError:
    """Return the wanted entries of a database, with no more calls than one for each table would be."""
    found: dict[str, Mapping[str, Any]] = {}
    more: dict[str, str] = {}
    try:
        for _ in names:
            with translated(f"list Glue tables of {database}"):
                answer = store.glue.get_tables(DatabaseName=database, MaxResults=100, **more)
            found.update({entry["Name"]: entry for entry in answer["TableList"] if entry["Name"] in names})
            if len(found) == len(names) or not answer.get("NextToken"):
                break
            more = {"NextToken": answer["NextToken"]}
    except (AccessDeniedError, FailedError):
        # The right to list is not needed, and a database that is not there is said by each table.
        return found
    except UnreachableError as exc:
        return exc
    return found


# --- one table ---


@dataclass(frozen=True)
class Place:
    """Where a table is: its location, its kind if that is known, and its Glue entry, empty without one."""

    location: str
    kind: str | None
    entry: Mapping[str, Any] = field(repr=False)


def find_table(store: Store, catalogue: Catalogue, table: SourceTable) -> Place:
    """Return where a table is. Raises NotReadyTable, or as `runtime.aws.translated` does."""
    if table.location is not None:
        return Place(table.location, "delta" if table.delta else None, {})
    entry = catalogue.entry(store, table)
    kind = glue.table_format(entry)
    if kind == "view":
        raise NotReadyTable("unreadable", "the Glue entry is of the kind view, which is not checked")
    location = _metadata_location(entry) if kind == "iceberg" else _location(entry)
    if not location:
        what = "metadata_location" if kind == "iceberg" else "location"
        raise NotReadyTable("unreadable", f"the Glue entry of kind {kind} has no {what}")
    return Place(location, kind, entry)


def _location(entry: Mapping[str, Any]) -> str:
    return str((entry.get("StorageDescriptor") or {}).get("Location") or "")


def _metadata_location(entry: Mapping[str, Any]) -> str:
    parameters = {key.lower(): str(value) for key, value in (entry.get("Parameters") or {}).items()}
    return parameters.get("metadata_location", "")


def read_table(store: Store, table: SourceTable, place: Place, now: datetime) -> Content:
    """Return what a table holds: Iceberg, Delta if there is a log, else Parquet files.

    Raises NotReadyTable, or as `runtime.aws.translated` does.
    """
    if place.kind == "iceberg":
        return _iceberg(store, place.location)
    # Spectrum's entry of a Delta table leads to the manifest inside it.
    root = place.location.rstrip("/") + "/"
    bucket, prefix = parquet.split_location(root.removesuffix(_SYMLINK_FOLDER))
    if place.kind == "delta":
        return _delta(store, bucket, prefix)
    listing = _Listing(store, bucket, prefix)
    listing.read_on()
    if listing.has_delta_log():
        return _delta(store, bucket, prefix)
    if place.kind not in ("parquet", None):
        raise NotReadyTable("unreadable", f"the format is {place.kind}: expected Parquet, Delta or Iceberg")
    return _parquet(store, listing, table, place.entry, now)


# --- Parquet ---


class _Listing:
    """The objects under a prefix, read page by page (1,000 each) as far as they are needed."""

    def __init__(self, store: Store, bucket: str, prefix: str) -> None:
        self.store, self.bucket, self.prefix = store, bucket, prefix
        self.files: list[parquet.StoredFile] = []
        self.complete = False
        self._keys: list[str] = []
        self._listed = 0
        self._token: str | None = None

    @property
    def ended(self) -> bool:
        """Whether there is no more to list, or enough has been listed."""
        return self.complete or self._listed >= LISTED_OBJECTS

    def read_on(self) -> list[parquet.StoredFile]:
        """Read the next page and return its data files."""
        more = {"ContinuationToken": self._token} if self._token else {}
        with translated(f"list s3://{self.bucket}/{self.prefix}"):
            page = self.store.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, **more)
        contents = page.get("Contents", [])
        self._keys = [item["Key"] for item in contents]
        self._listed += len(contents)
        self._token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        self.complete = self._token is None
        found = [
            parquet.StoredFile(item["Key"], item["Size"], item["LastModified"])
            for item in contents
            if parquet.is_data(item["Key"].removeprefix(self.prefix))
        ]
        self.files += found
        return found

    def has_delta_log(self) -> bool:
        """Return whether there is a `_delta_log/`, by the first page where that reaches so far: keys come in order."""
        log = f"{self.prefix}_delta_log/"
        if any(key.startswith(log) for key in self._keys):
            return True
        if self.complete or (self._keys and self._keys[-1] > log):
            return False
        return parquet.has_delta_log(self.store.aws, self.bucket, self.prefix, client=self.store.s3)


def _parquet(store: Store, listing: _Listing, table: SourceTable, entry: Mapping[str, Any], now: datetime) -> Content:
    """Return what a folder of Parquet files holds, as far as the check needs to know."""
    while not listing.ended and not _listed_enough(listing, table, now):
        listing.read_on()
    if not listing.files:
        among = "" if listing.complete else f" among its first {LISTED_OBJECTS:,} objects"
        raise NotReadyTable("missing", f"no files in s3://{listing.bucket}/{listing.prefix}{among}")
    newest, *others = sorted(listing.files, key=lambda file: file.modified, reverse=True)
    first = _footer(store, listing.bucket, newest.key)
    rows, counted = first.rows, 1
    waiting = others
    while waiting or not listing.ended:
        if not store.options.count and (rows or table.allow_empty):
            break
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        rows += _count(store, listing.bucket, [file.key for file in batch])
        counted += len(batch)
        if not waiting and not listing.ended:
            waiting = listing.read_on()
    exact = listing.complete and counted == len(listing.files)
    # Files that were not looked at may have rows, or not.
    told = rows > 0 or exact or table.allow_empty
    return Content(
        "parquet",
        f"s3://{listing.bucket}/{listing.prefix}",
        rows if told else None,
        len(listing.files),
        max(file.modified for file in listing.files),
        _parquet_columns(entry, first, newest.key.removeprefix(listing.prefix)),
        exact=exact,
        complete=listing.complete,
    )


def _listed_enough(listing: _Listing, table: SourceTable, now: datetime) -> bool:
    """Return whether the files so far answer: one is there, and one is fresh where that is asked for."""
    if listing.store.options.count:
        return False
    if table.strictest is None:
        return bool(listing.files)
    return any(now - file.modified <= table.strictest for file in listing.files)


def _footer(store: Store, bucket: str, key: str) -> Footer:
    """Return a file's footer. Raises FailedError when it has none that can be read."""
    return readiness_footer.parse(parquet.read_footer(store.s3, bucket, key), f"s3://{bucket}/{key}")


def _count(store: Store, bucket: str, keys: Sequence[str]) -> int:
    """Return the rows of files by their footers, several at once."""
    return sum(footer.rows for footer in store.readers.map(lambda key: _footer(store, bucket, key), keys))


def _parquet_columns(entry: Mapping[str, Any], footer: Footer, name: str) -> frozenset[str]:
    """Return the columns that a reader finds: in the newest file and, if Glue lists columns, there too."""
    own = {column.lower() for column in footer.columns}
    declared = {column["Name"].lower() for column in (entry.get("StorageDescriptor") or {}).get("Columns") or []}
    partitions = {key["Name"].lower() for key in entry.get("PartitionKeys") or []}
    if not entry:
        # No catalogue says what the folders mean; Hive's form does.
        partitions = {part.partition("=")[0].lower() for part in name.split("/")[:-1] if "=" in part}
    return frozenset((own & declared if declared else own) | partitions)


# --- Delta ---


def _delta(store: Store, bucket: str, prefix: str) -> Content:
    """Return what the current version of a Delta table holds, by its log."""
    from runtime.delta import log as delta_log

    location = f"s3://{bucket}/{prefix.rstrip('/')}"
    table = delta_log.open_table(location, store.delta_options())
    if table is None:
        if parquet.has_delta_log(store.aws, bucket, prefix, client=store.s3):
            raise NotReadyTable("unreadable", f"the Delta log of {location} has no readable version")
        raise NotReadyTable("missing", f"no _delta_log in {location}")
    with delta_log.translated(f"Delta table {location}"):
        files = table.file_uris()
        rows, deleted = delta_log.log_rows(table), _deleted_rows(table)
        known = table.count()
        columns = frozenset(item.name.lower() for item in table.schema().fields)
    exact = rows is not None
    if rows is None and known > deleted and not store.options.count:
        rows = known
    elif rows is None:
        # A writer without statistics: the files know.
        keys = [uri.removeprefix(f"s3://{bucket}/") for uri in files]
        rows, exact = _count(store, bucket, keys), True
    modified = _commit_time(store, bucket, prefix, table)
    return Content(
        "delta", location, rows - deleted, len(files), modified, columns, exact=exact, version=table.version()
    )


def _deleted_rows(table: DeltaTable) -> int:
    """Return how many of the files' rows deletion vectors take away: a file's row count includes them."""
    if "deletionVectors" not in (table.protocol().reader_features or []):
        return 0
    masks = (mask for batch in table.deletion_vectors() for mask in batch.column("selection_vector").to_pylist())
    return sum(mask.count(False) for mask in masks)


def _commit_time(store: Store, bucket: str, prefix: str, table: DeltaTable) -> datetime | None:
    """Return when the current version was committed: by its commitInfo, else by its file's time in the store.

    Where the commit's file is cleaned up, the newest data file's time is the nearest that the checkpoint knows. Not by
    DeltaTable.history, which holds the interpreter's lock during its two requests, so that every other table waits.
    """
    key = f"{prefix}_delta_log/{table.version():020}.json"
    try:
        with translated(f"read s3://{bucket}/{key}"):
            answer = store.s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_COMMIT_BYTES - 1}")
            content: bytes = answer["Body"].read()
    except FailedError:
        times = table.get_add_actions().column("modification_time").to_pylist()
        return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None
    stored: datetime = answer["LastModified"]
    return _stated_time(content) or stored


def _stated_time(content: bytes) -> datetime | None:
    """Return the time that a commit says itself; the beginning of a long one may end in the middle of a line."""
    for line in content.splitlines():
        try:
            info = json.loads(line)["commitInfo"]
            return datetime.fromtimestamp((info.get("inCommitTimestamp") or info["timestamp"]) / 1000, UTC)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
    return None


# --- Iceberg ---


def _iceberg(store: Store, location: str) -> Content:
    """Return what an Iceberg table's current snapshot holds, by the metadata file that Glue points to."""
    bucket, key = parquet.split_location(location)
    metadata = _read_json(store, bucket, key.removesuffix("/"))
    try:
        return _current_snapshot(metadata, location)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise NotReadyTable("unreadable", f"the Iceberg metadata {location} is broken: {exc!r}") from exc


def _read_json(store: Store, bucket: str, key: str) -> Any:
    """Return a JSON object's content, compressed or not. Raises NotReadyTable when it is none."""
    place = f"s3://{bucket}/{key}"
    try:
        with translated(f"read {place}"):
            content: bytes = store.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except FailedError as exc:
        if exc.code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise NotReadyTable("missing", f"no Iceberg metadata at {place}") from exc
        raise
    try:
        return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (ValueError, OSError, EOFError) as exc:
        raise NotReadyTable("unreadable", f"{place} is no JSON: {exc}") from exc


def _current_snapshot(metadata: Mapping[str, Any], place: str) -> Content:
    """Return what the metadata's current snapshot holds; a table that was never written to has none."""
    location = str(metadata["location"])
    columns = frozenset(str(column["name"]).lower() for column in _iceberg_schema(metadata)["fields"])
    current = metadata.get("current-snapshot-id")
    # The first version of the format writes -1 for none.
    if current in (None, -1):
        return Content("iceberg", location, 0, 0, None, columns)
    found = [snapshot for snapshot in metadata.get("snapshots") or [] if snapshot["snapshot-id"] == current]
    if not found:
        raise NotReadyTable("unreadable", f"the Iceberg metadata {place} does not have its current snapshot")
    summary = found[0].get("summary") or {}
    total = summary.get("total-records")
    rows = None if total is None else int(total) - int(summary.get("total-position-deletes", 0))
    equality = int(summary.get("total-equality-deletes", 0))
    return Content(
        "iceberg",
        location,
        rows,
        int(summary["total-data-files"]) if "total-data-files" in summary else None,
        datetime.fromtimestamp(found[0]["timestamp-ms"] / 1000, UTC),
        columns,
        exact=not equality,
        snapshot=str(current),
        # What they take away is only known by reading rows.
        warning=f"rows that {equality:,} equality deletes take away are counted too" if equality else None,
    )


def _iceberg_schema(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the current schema; the first version of the format may have just one."""
    schemas: list[Mapping[str, Any]] = metadata.get("schemas") or [metadata["schema"]]
    current = metadata.get("current-schema-id", schemas[-1].get("schema-id"))
    found = [schema for schema in schemas if schema.get("schema-id") == current]
    if not found:
        raise ValueError(f"no schema {current}")
    return found[0]


def state_of(error: GoldlakeError) -> tuple[State, str]:
    """Return the state that an error means."""
    if isinstance(error, AccessDeniedError):
        return "forbidden", error.message
    if isinstance(error, UnreachableError):
        return "unreachable", error.message
    return ("missing" if error.code == "NoSuchBucket" else "unreadable"), error.message
