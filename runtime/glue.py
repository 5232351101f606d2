"""Databases and Parquet tables in the Glue catalogue, made when absent and corrected when they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError

# Somebody else can change a table between our look and our change; they are done after a few tries.
ATTEMPTS = 3
PARQUET_INPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
PARQUET_OUTPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
PARQUET_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"

Outcome = Literal["created", "updated", "unchanged"]


class _Column(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...


class ParquetTable(Protocol):
    """What a table must tell: its Glue database, its name, and columns with Glue types."""

    @property
    def database(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> Sequence[_Column]: ...


def ensure_database(aws: Connection, name: str, *, client: Any = None) -> Literal["created", "unchanged"]:
    """Create the Glue database when it is absent. Raises as `runtime.aws.translated` does."""
    client = client or aws.client("glue")
    with translated(f"create Glue database {name}"):
        try:
            client.get_database(Name=name)
        except client.exceptions.EntityNotFoundException:
            try:
                client.create_database(DatabaseInput={"Name": name})
            except client.exceptions.AlreadyExistsException:
                return "unchanged"
            return "created"
    return "unchanged"


def get_table(aws: Connection, database: str, name: str, *, client: Any = None) -> dict[str, Any] | None:
    """Return Glue's description of a table; None when the table or its database is absent.

    Raises as `runtime.aws.translated` does.
    """
    client = client or aws.client("glue")
    with translated(f"read Glue table {database}.{name}"):
        try:
            table: dict[str, Any] = client.get_table(DatabaseName=database, Name=name)["Table"]
        except client.exceptions.EntityNotFoundException:
            return None
    return table


def ensure_parquet_table(aws: Connection, table: ParquetTable, location: str, *, client: Any = None) -> Outcome:
    """Make the table's Glue entry an external Parquet table over `location` (`s3://…/`).

    The database must exist. Parameters that others have set on the entry are kept. Several callers at once
    are safe: who comes second compares with what the first has made. Raises ConfigurationError when the
    entry is a view, partitioned, or of another format (Delta, Iceberg), FailedError when it keeps being
    changed meanwhile, and as `runtime.aws.translated` does.
    """
    client = client or aws.client("glue")
    wanted = _table_input(table, location)
    full_name = f"{table.database}.{table.name}"
    for _ in range(ATTEMPTS):
        existing = get_table(aws, table.database, table.name, client=client)
        if existing is None:
            if _create(client, table.database, wanted, full_name):
                return "created"
            continue
        _refuse_other_kind(existing, full_name)
        if _differences(existing, wanted) == []:
            return "unchanged"
        if _update(client, table.database, _merged(existing, wanted), full_name):
            return "updated"
    raise FailedError(f"Glue table {full_name} was changed by somebody else {ATTEMPTS} times while we changed it")


def _create(client: Any, database: str, wanted: dict[str, Any], full_name: str) -> bool:
    """Create the entry; return False when somebody else just has."""
    with translated(f"create Glue table {full_name}"):
        try:
            client.create_table(DatabaseName=database, TableInput=wanted)
        except client.exceptions.AlreadyExistsException:
            return False
    return True


def _update(client: Any, database: str, wanted: dict[str, Any], full_name: str) -> bool:
    """Change the entry; return False when somebody else just changed or deleted it."""
    with translated(f"update Glue table {full_name}"):
        try:
            client.update_table(DatabaseName=database, TableInput=wanted)
        except (
            client.exceptions.ConcurrentModificationException,
            client.exceptions.EntityNotFoundException,
        ):
            return False
    return True


def _table_input(table: ParquetTable, location: str) -> dict[str, Any]:
    """Return Glue's TableInput of an external Parquet table."""
    return {
        "Name": table.name,
        "TableType": "EXTERNAL_TABLE",
        # EXTERNAL is Hive's own flag; without it some engines take the table for theirs and delete its files.
        "Parameters": {"classification": "parquet", "EXTERNAL": "TRUE"},
        "StorageDescriptor": {
            "Columns": [{"Name": column.name, "Type": column.type} for column in table.columns],
            "Location": location,
            "InputFormat": PARQUET_INPUT,
            "OutputFormat": PARQUET_OUTPUT,
            "SerdeInfo": {
                "SerializationLibrary": PARQUET_SERDE,
                "Parameters": {"serialization.format": "1"},
            },
        },
    }


def table_format(table: Mapping[str, Any]) -> str:
    """Return what a Glue table holds: parquet, delta, iceberg, view, or its input format's name."""
    parameters = {key.lower(): str(value).lower() for key, value in (table.get("Parameters") or {}).items()}
    if table.get("TableType") == "VIRTUAL_VIEW":
        return "view"
    if parameters.get("table_type") in ("iceberg", "delta"):
        return parameters["table_type"]
    if parameters.get("spark.sql.sources.provider") in ("iceberg", "delta"):
        return parameters["spark.sql.sources.provider"]
    input_format = str((table.get("StorageDescriptor") or {}).get("InputFormat") or "")
    if "parquet" in input_format.lower() or parameters.get("classification") == "parquet":
        return "parquet"
    return input_format or parameters.get("classification") or "unknown"


def _refuse_other_kind(existing: Mapping[str, Any], full_name: str) -> None:
    """Raise ConfigurationError for an entry that is not ours to turn into a plain Parquet table."""
    kind = table_format(existing)
    partitions = [key["Name"] for key in existing.get("PartitionKeys") or []]
    if kind in ("view", "delta", "iceberg") or partitions:
        what = f"partitioned by {', '.join(partitions)}" if partitions else f"of the kind {kind}"
        raise ConfigurationError(
            f"Glue table {full_name} is there and is {what}: it is not turned into a plain Parquet table",
            hint=f"delete or rename the Glue table {full_name} first",
        )


def _differences(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts in which the entry differs from what is wanted."""
    old, new = existing.get("StorageDescriptor") or {}, wanted["StorageDescriptor"]
    old_columns = [(column["Name"], column.get("Type", "")) for column in old.get("Columns") or []]
    parameters = existing.get("Parameters") or {}
    same = {
        "Columns": old_columns == [(column["Name"], column["Type"]) for column in new["Columns"]],
        "Location": old.get("Location") == new["Location"],
        "InputFormat": old.get("InputFormat") == new["InputFormat"],
        "OutputFormat": old.get("OutputFormat") == new["OutputFormat"],
        "SerdeInfo": (old.get("SerdeInfo") or {}).get("SerializationLibrary") == PARQUET_SERDE,
        "TableType": existing.get("TableType") == wanted["TableType"],
        "Parameters": all(parameters.get(key) == value for key, value in wanted["Parameters"].items()),
    }
    return [name for name, equal in same.items() if not equal]


def _merged(existing: Mapping[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted TableInput with the description, owner and parameters that others have set."""
    kept = {key: existing[key] for key in ("Description", "Owner", "Retention") if existing.get(key)}
    parameters = {**(existing.get("Parameters") or {}), **wanted["Parameters"]}
    return {**kept, **wanted, "Parameters": parameters}
