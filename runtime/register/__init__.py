"""Register Delta and Iceberg tables in the Glue catalogue, and in a Trino catalogue when one is named.

`register_tables` makes sure that the entries are there and right, `audit` says what lake and catalogues do not agree
on, `prune` removes entries whose data is gone. What an entry looks like: `glue_catalogue`, `trino_catalogue`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.aws import Connection
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError
from runtime.register import lake_tables, pruning
from runtime.register.glue_catalogue import GlueCatalogue, GluePlan
from runtime.register.lake_tables import DELTA, ICEBERG, LakeTable
from runtime.register.report import (
    AT_ONCE,
    NO_DATA_YET,
    REGISTERED,
    REPLACED,
    SCHEMA,
    UNCHANGED,
    UPDATED,
    RegisterReport,
    StaleEntry,
    TableRegistration,
    each,
)
from runtime.register.trino_catalogue import TrinoCatalogue
from runtime.register.trino_ensure import Ensurance
from runtime.trino import DEFAULT_TIMEOUT, TrinoOptions

__all__ = [
    "NO_DATA_YET",
    "REGISTERED",
    "REPLACED",
    "SCHEMA",
    "UNCHANGED",
    "UPDATED",
    "RegisterReport",
    "StaleEntry",
    "TableRegistration",
    "TrinoCatalogue",
    "audit",
    "prune",
    "register_tables",
]


@dataclass(frozen=True)
class _Places:
    """The lake, and the catalogues that its tables are registered in."""

    lake: Lake
    s3: Any
    glue: GlueCatalogue
    trinos: tuple[TrinoCatalogue, ...]

    @classmethod
    def of(
        cls,
        aws: Connection,
        target: str,
        database: str,
        trino_url: str | None,
        iceberg_trino_url: str | None,
        options: TrinoOptions | None,
    ) -> _Places:
        """Return the places. Raises ConfigurationError for a local folder and for unusable URLs."""
        lake = Lake.at(target, aws)
        if lake.aws is None:
            raise ConfigurationError(f"target {target!r} is a local folder: a Glue entry needs an S3 location")
        urls = ((DELTA, trino_url), (ICEBERG, iceberg_trino_url))
        trinos = tuple(TrinoCatalogue.at(url, options, kind=kind) for kind, url in urls if url)
        seconds = (options.timeout if options else 0) or DEFAULT_TIMEOUT
        s3, glue = (
            aws.limited_client(
                service,
                connect_seconds=min(5.0, seconds),
                read_seconds=seconds,
                attempts=2 if aws.is_emulator else 5,
                connections=AT_ONCE,
            )
            for service in ("s3", "glue")
        )
        return cls(lake, s3, GlueCatalogue(glue, database, lake.root), trinos)

    def look(self, name: str) -> LakeTable:
        """Return what lies at a table's location now."""
        return lake_tables.look(self.lake, name, self.s3)


def register_tables(
    aws: Connection,
    target: str,
    tables: Sequence[str] | None,
    *,
    database: str = "gold",
    replace: bool = False,
    trino_url: str | None = None,
    iceberg_trino_url: str | None = None,
    trino_options: TrinoOptions | None = None,
    verify: bool = False,
    dry_run: bool = False,
) -> RegisterReport:
    """Make sure that Glue has an entry for each table `<target>/<table>`; return what was done.

    `tables` None are all tables right below the target. Absent: registered. Same location: unchanged, or updated to
    the log's columns and comments. Another location: FailedError, or with `replace` changed. No Delta log and no
    Iceberg metadata: "no data yet", so that this may run before the first export. Nothing is written to a catalogue
    before all tables were looked at in it. With `trino_url` (`http://user@host:8080/<catalogue>`) the same then holds
    for the Delta tables in Trino's schema `database`, with `iceberg_trino_url` for the Iceberg ones. Trino comes after
    Glue, for it may share the entries. What Trino sees is compared with the log's version where that is not the one
    that it was seen to have (Glue's entry keeps it), with `verify` for all tables.

    Raises ConfigurationError for a target outside S3, an unusable Trino URL, or a Trino catalogue that cannot register
    tables, UnreachableError when S3, Glue or Trino does not answer, FailedError when what was written does not read
    back.
    """
    places = _Places.of(aws, target, database, trino_url, iceberg_trino_url, trino_options)
    names = list(dict.fromkeys(tables)) if tables is not None else lake_tables.discover(places.lake, places.s3)
    _refuse_same_names(names)
    found = each(places.look, names)
    plans = places.glue.plans(found, replace=replace)
    if not dry_run:
        places.glue.carry_out(plans)
    states = _in_trino(places, plans, replace=replace, verify=verify, dry_run=dry_run)
    done = tuple(_registration(plan, states.get(plan.table.name), bool(places.trinos)) for plan in plans)
    return RegisterReport(database, places.lake.root, dry_run, done)


def _refuse_same_names(names: Sequence[str]) -> None:
    """Raise ConfigurationError for tables that would be one entry: catalogues know lower case only."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ConfigurationError(f"tables {other!r} and {name!r} differ in case only, which catalogues cannot tell")


def _in_trino(
    places: _Places, plans: Sequence[GluePlan], *, replace: bool, verify: bool, dry_run: bool
) -> dict[str, str]:
    """Make sure that each Trino has the tables of its kind; return their states by name."""
    states: dict[str, str] = {}
    for trino in places.trinos:
        mine = [plan for plan in plans if plan.table.format == trino.kind]
        tables = [plan.table for plan in mine]
        ensurance = Ensurance(
            trino,
            places.glue.database,
            places.lake.root,
            lambda table: places.look(table.name),
            replace=replace,
            verify=verify,
            dry_run=dry_run,
        )
        marks = places.glue.marks([plan for plan in mine if plan.state != REPLACED], trino.mark)
        moved = frozenset(plan.table.name for plan in mine if plan.state == REPLACED)
        found = ensurance.states(tables, marks=marks, moved=moved)
        states |= found
        if dry_run:
            continue
        written = [table for table in tables if found[table.name] != UNCHANGED]
        if written:
            # A Trino on this Glue has put entries of its own, without columns, where it registered.
            places.glue.carry_out(places.glue.plans(written, replace=True))
        places.glue.mark([table for table in tables if marks.get(table.name) != table.identity], trino.mark)
    return states


def _registration(plan: GluePlan, trino: str | None, with_trino: bool) -> TableRegistration:
    """Return what became of a table."""
    table = plan.table
    if plan.state == NO_DATA_YET:
        warning = f"{table.location} has no _delta_log: register again after the first export"
        done = TableRegistration(table.name, table.location, plan.state, warning=warning)
        return dataclasses.replace(done, trino=NO_DATA_YET if with_trino else None)
    unknown = f"{table.location} has files without a row count: rows are unknown" if table.rows is None else None
    return TableRegistration(
        table.name,
        table.location,
        plan.state,
        trino=trino,
        version=table.version,
        rows=table.rows,
        warning=plan.warning or (unknown if table.format == DELTA else None),
        format=table.format,
    )


def audit(
    aws: Connection,
    target: str,
    *,
    database: str = "gold",
    trino_url: str | None = None,
    iceberg_trino_url: str | None = None,
    trino_options: TrinoOptions | None = None,
) -> tuple[tuple[str, ...], tuple[StaleEntry, ...]]:
    """Return the locations of tables without an entry in Glue, and the entries whose data is gone.

    Entries are looked at in Glue's database and in the named Trinos' schema, and only those of tables below the target.
    Raises as `register_tables` does.
    """
    places = _Places.of(aws, target, database, trino_url, iceberg_trino_url, trino_options)
    without_entry = tuple(pruning.orphans(places.lake, places.glue, places.s3))
    return without_entry, tuple(pruning.stale(places.lake, places.glue, places.trinos, places.s3))


def prune(
    aws: Connection,
    target: str,
    entries: Sequence[StaleEntry],
    *,
    database: str = "gold",
    trino_url: str | None = None,
    iceberg_trino_url: str | None = None,
    trino_options: TrinoOptions | None = None,
) -> tuple[StaleEntry, ...]:
    """Remove those of the entries that are still stale, and return them. No data is touched."""
    places = _Places.of(aws, target, database, trino_url, iceberg_trino_url, trino_options)
    # Between the look and the answer to "remove?" an export may have come.
    now = set(pruning.stale(places.lake, places.glue, places.trinos, places.s3))
    still = tuple(entry for entry in entries if entry in now)
    each(lambda entry: pruning.remove(entry, places.glue, places.trinos), still)
    return still
