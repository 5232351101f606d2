"""Entries of Delta and Iceberg tables in the Glue catalogue.

The entry of a Delta table is one that Athena and Trino's Delta connector both read: `spark.sql.sources.provider` =
`delta` and the location as the serde's parameter `path`. Sources: Amazon Athena user guide, "Synchronize Delta Lake
metadata", which also says to leave `table_type` away; Trino's HiveMetastoreBackedDeltaLakeMetastore, which takes the
provider in either case and the location from `path`. An Iceberg table's has `table_type` = `ICEBERG` and
`metadata_location` (Iceberg's GlueCatalog; Athena and Trino read it).

The engines read schema and files from the log. The entry's columns and comments serve Lake Formation, Athena's editor
and whoever lists the catalogue, so they are kept equal to the log's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.aws import translated
from runtime.errors import AccessDeniedError, FailedError
from runtime.glue import table_format
from runtime.register.lake_tables import DELTA, ICEBERG, LakeTable
from runtime.register.report import (
    NO_DATA_YET,
    REGISTERED,
    REPLACED,
    UNCHANGED,
    UPDATED,
    each,
    same_place,
)

_INPUT_KEYS = (
    "Description",
    "Owner",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "ViewOriginalText",
    "ViewExpandedText",
    "TableType",
    "Parameters",
)
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class GluePlan:
    """A table with what the catalogue should say about it, and what has to be done for that."""

    table: LakeTable
    state: str
    wanted: Mapping[str, Any] = field(default_factory=dict)
    existing: Entry | None = None
    warning: str | None = None


@dataclass(frozen=True)
class GlueCatalogue:
    """A database of the Glue catalogue; `root` becomes its location when it has to be made."""

    client: Any
    database: str
    root: str

    def entries(self, names: Sequence[str] | None = None) -> dict[str, Entry]:
        """Return the entries by name, those of `names` or all; empty when the database is not there.

        One request for every hundred entries of the database. A role that may read single tables only is served by
        one request a table.
        """
        if names is not None and len(names) < 2:
            return self._one_by_one(names)
        try:
            found = self._all()
        except AccessDeniedError:
            if names is None:
                raise
            return self._one_by_one(names)
        return found if names is None else {name: found[name] for name in names if name in found}

    def _all(self) -> dict[str, Entry]:
        try:
            with translated(f"Glue tables of {self.database}"):
                pages = self.client.get_paginator("get_tables").paginate(DatabaseName=self.database)
                return {entry["Name"]: entry for page in pages for entry in page["TableList"]}
        except FailedError as exc:
            if exc.code == "EntityNotFoundException":
                return {}
            raise

    def _one_by_one(self, names: Sequence[str]) -> dict[str, Entry]:
        found = each(self._entry, names)
        return {name: entry for name, entry in zip(names, found, strict=True) if entry is not None}

    def _entry(self, name: str) -> Entry | None:
        """Return the entry of a table; None when table or database is not there."""
        try:
            with translated(f"Glue table {self.database}.{name}"):
                entry: Entry = self.client.get_table(DatabaseName=self.database, Name=name)["Table"]
        except FailedError as exc:
            if exc.code == "EntityNotFoundException":
                return None
            raise
        return entry

    def plans(self, tables: Sequence[LakeTable], *, replace: bool) -> list[GluePlan]:
        """Return what has to be done for each table. Raises FailedError for one that is registered elsewhere."""
        entries = self.entries([table.name.lower() for table in tables if table.format])
        return [self._plan(table, entries.get(table.name.lower()), replace=replace) for table in tables]

    def _plan(self, table: LakeTable, existing: Entry | None, *, replace: bool) -> GluePlan:
        if table.format is None:
            return GluePlan(table, NO_DATA_YET)
        wanted = table_input(table)
        if existing is None:
            return GluePlan(table, REGISTERED, wanted)
        found = entry_location(existing)
        kind = table_format(existing)
        here = same_place(found, table.location) and not existing.get("ViewOriginalText")
        other_kind = kind in (DELTA, ICEBERG) and kind != table.format
        if here and not other_kind:
            return self._follow(table, existing, wanted, replace=replace)
        if not replace:
            what = f"as {kind}" if here else f"at {found or 'no location (a view)'}"
            raise FailedError(
                f"{self.database}.{table.name} is registered {what}, not "
                + (f"as {table.format}" if here else f"at {table.location}"),
                hint="register with --replace to change its location",
            )
        return GluePlan(table, REPLACED, wanted, existing)

    def _follow(self, table: LakeTable, existing: Entry, wanted: Mapping[str, Any], *, replace: bool) -> GluePlan:
        """Return the plan for an entry of the same place.

        Of an Iceberg table the catalogue decides which metadata file is the current one: a newer file may be that of a
        commit that failed. The entry is moved with `replace` only.
        """
        pointer = (existing.get("Parameters") or {}).get("metadata_location")
        if pointer and table.metadata_location and pointer != table.metadata_location and not replace:
            warning = f"{self.database}.{table.name} points to {pointer}; the newest is {table.metadata_location}"
            return GluePlan(table, UNCHANGED, existing, existing, warning)
        return GluePlan(table, UNCHANGED if covers(existing, wanted) else UPDATED, wanted, existing)

    def carry_out(self, plans: Sequence[GluePlan]) -> None:
        """Write what the plans say, and verify all of it by reading it back."""
        todo = [plan for plan in plans if plan.state not in (UNCHANGED, NO_DATA_YET)]
        if not todo:
            return
        # The database is made once, not by each of eight.
        self._write(todo[0])
        each(self._write, todo[1:])
        entries = self.entries([plan.table.name.lower() for plan in todo])
        for plan in todo:
            entry = entries.get(plan.table.name.lower())
            if entry is None or not covers(entry, plan.wanted):
                raise FailedError(f"{self.database}.{plan.table.name} was written to Glue and does not read back equal")

    def _write(self, plan: GluePlan) -> None:
        """Create or update the entry. An update keeps what others put there: owner, other parameters."""
        if plan.existing is None:
            self._create(plan)
            return
        # Glue takes no empty texts, and emulators give them back.
        kept = {key: plan.existing[key] for key in _INPUT_KEYS if plan.existing.get(key)}
        if plan.state == REPLACED:
            # What described the other place is not true of this one.
            kept = {key: value for key, value in kept.items() if key in ("Owner", "Retention")}
        parameters = {**kept.get("Parameters", {}), **plan.wanted["Parameters"]}
        with translated(f"register {self.database}.{plan.table.name} in Glue"):
            self.client.update_table(
                DatabaseName=self.database, TableInput={**kept, **plan.wanted, "Parameters": parameters}
            )

    def _create(self, plan: GluePlan) -> None:
        """Create the entry, and the database first where it is missing: a stack brings it along, so that is rare."""

        def create() -> None:
            with translated(f"register {self.database}.{plan.table.name} in Glue"):
                self.client.create_table(DatabaseName=self.database, TableInput=dict(plan.wanted))

        with _unless_there():
            try:
                create()
            except FailedError as exc:
                if exc.code != "EntityNotFoundException":
                    raise
                with _unless_there(), translated(f"create Glue database {self.database}"):
                    self.client.create_database(DatabaseInput={"Name": self.database, "LocationUri": self.root})
                create()

    def marks(self, plans: Sequence[GluePlan], key: str) -> dict[str, str]:
        """Return what a parameter of the entries said before the plans, by table."""
        found = {plan.table.name: (plan.existing or {}).get("Parameters") or {} for plan in plans}
        return {name: parameters[key] for name, parameters in found.items() if key in parameters}

    def mark(self, tables: Sequence[LakeTable], key: str) -> None:
        """Keep the tables' identities in a parameter of their entries, without a version of its own in Glue."""
        entries = self.entries([table.name.lower() for table in tables])
        each(lambda table: self._mark(entries.get(table.name.lower()), key, table.identity), tables)

    def _mark(self, entry: Entry | None, key: str, value: str) -> None:
        if entry is None or (entry.get("Parameters") or {}).get(key) == value:
            return
        kept = {name: entry[name] for name in ("Name", *_INPUT_KEYS) if entry.get(name)}
        parameters = {**(entry.get("Parameters") or {}), key: value}
        # Somebody else may change or delete the entry meanwhile: then the next run asks Trino once more.
        with contextlib.suppress(FailedError), translated(f"mark {self.database}.{entry['Name']} in Glue"):
            self.client.update_table(
                DatabaseName=self.database, TableInput={**kept, "Parameters": parameters}, SkipArchive=True
            )

    def delete(self, name: str) -> None:
        """Delete an entry; one that is gone already counts as deleted."""
        try:
            with translated(f"delete Glue table {self.database}.{name}"):
                self.client.delete_table(DatabaseName=self.database, Name=name)
        except FailedError as exc:
            if exc.code != "EntityNotFoundException":
                raise


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Take it well that another process was faster: what it made is read back and compared."""
    try:
        yield
    except FailedError as exc:
        if exc.code != "AlreadyExistsException":
            raise


def table_input(table: LakeTable) -> dict[str, Any]:
    """Return Glue's TableInput for a table; see the module's text for its form."""
    common = {
        "Name": table.name.lower(),
        **({"Description": table.description} if table.description else {}),
        "TableType": "EXTERNAL_TABLE",
    }
    columns = [dict(column) for column in table.columns]
    if table.format == ICEBERG:
        return {
            **common,
            "Parameters": {"table_type": "ICEBERG", "metadata_location": str(table.metadata_location)},
            "StorageDescriptor": {"Columns": columns, "Location": table.location},
        }
    return {
        **common,
        "Parameters": {"EXTERNAL": "TRUE", "spark.sql.sources.provider": "delta", "classification": "delta"},
        # Native Delta tables have their partition columns among the others; Athena asks for the empty list.
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": columns,
            "Location": table.location,
            "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"serialization.format": "1", "path": table.location},
            },
        },
    }


def entry_location(entry: Entry) -> str:
    """Return where an entry's table is: the serde's path, as Trino reads it, or the descriptor's location."""
    storage = entry.get("StorageDescriptor") or {}
    path = ((storage.get("SerdeInfo") or {}).get("Parameters") or {}).get("path")
    return str(path or storage.get("Location") or "")


def covers(entry: Entry, wanted: Mapping[str, Any]) -> bool:
    """Return whether an entry says all that is wanted; it may say more."""
    storage, ours = entry.get("StorageDescriptor") or {}, wanted["StorageDescriptor"]
    parameters = entry.get("Parameters") or {}
    return (
        entry.get("TableType") == wanted["TableType"]
        and entry.get("Description", "") == wanted.get("Description", entry.get("Description", ""))
        and all(_same_value(key, parameters.get(key, ""), value) for key, value in wanted["Parameters"].items())
        and same_place(storage.get("Location", ""), ours["Location"])
        and same_place(entry_location(entry), ours["Location"])
        and [_column_key(column) for column in storage.get("Columns") or []]
        == [_column_key(column) for column in ours["Columns"]]
    )


def _same_value(key: str, found: str, wanted: str) -> bool:
    """Return whether a parameter is as wanted: engines write words in either case, a location has one."""
    return found == wanted if key == "metadata_location" else found.lower() == wanted.lower()


def _column_key(column: Mapping[str, str]) -> tuple[str, str, str]:
    """Return what is compared of a column."""
    return column["Name"], column.get("Type", ""), column.get("Comment", "")
