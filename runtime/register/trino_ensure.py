"""Make sure that a schema of Trino has tables where they lie, and sees them as their logs have them now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import FailedError
from runtime.register.lake_tables import DELTA, ICEBERG, LakeTable
from runtime.register.report import REGISTERED, REPLACED, UNCHANGED, each, same_place
from runtime.register.trino_catalogue import Seen, TrinoCatalogue


def agrees(kind: str, table: LakeTable, seen: Seen) -> bool:
    """Return whether what Trino sees proves that it has this table as its log has it now."""
    if kind == ICEBERG:
        return seen.path is not None and seen.path == table.metadata_location
    if seen.version is None or seen.path is None or not table.has_file(seen.path):
        return False
    return seen.count is None or table.rows is None or seen.count == table.rows


def is_empty_as_its_log(kind: str, table: LakeTable, seen: Seen) -> bool:
    """Return whether Trino sees the log's version and no file, as the log says."""
    return kind == DELTA and seen.version is not None and seen.path is None and table.is_empty and not seen.count


@dataclass(frozen=True)
class Ensurance:
    """Makes sure that a schema of Trino has tables where they lie. `reread` looks at a table's location anew.

    `root` is the location of a schema that has to be made. `verify` looks closely at all tables, and not only at those
    whose log has changed.
    """

    trino: TrinoCatalogue
    schema: str
    root: str
    reread: Callable[[LakeTable], LakeTable]
    replace: bool = False
    verify: bool = False
    dry_run: bool = False

    def states(
        self, tables: Sequence[LakeTable], *, marks: Mapping[str, str], moved: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Return each table's state after making it so. Nothing is written before all tables were looked at.

        `marks` are the identities, by name, that tables had when Trino was last seen to have them: they only have to
        be in the schema's list of names, which is one statement. `moved` are those whose entry in a catalogue that
        Trino may share was moved just now.
        """
        states = {table.name: UNCHANGED for table in tables}
        if not tables:
            return states
        if not self.dry_run:
            each(lambda name: self.trino.flush(self.schema, name.lower()), sorted(moved))
        names = self.trino.names(self.schema)
        absent = [table for table in tables if table.name.lower() not in names]
        doubtful = [
            table
            for table in tables
            if table.name.lower() in names and (self.verify or marks.get(table.name) != table.identity)
        ]
        seen = self.trino.look(self.schema, doubtful)
        open_ones = [table for table in doubtful if not agrees(self.trino.kind, table, seen[table.name])]
        states |= {table.name: REGISTERED for table in absent}
        states |= zip((table.name for table in open_ones), each(self._state, open_ones), strict=True)
        todo = [table for table in tables if states[table.name] != UNCHANGED]
        if todo:
            self.trino.check_usable(self.schema)
        if not self.dry_run:
            if todo:
                self.trino.ensure_schema(self.schema, self.root)
            each(lambda table: self._write(table, states[table.name]), todo)
            self._verify([table for table in tables if table in todo or table in open_ones])
        return states

    def _state(self, table: LakeTable) -> str:
        """Return what has to be done for a table that the close look left open."""
        name = table.name.lower()
        if not self.dry_run:
            # Trino remembers entries and logs, also those of a location that was wiped and written anew.
            self.trino.flush(self.schema, name)
        return self._compared(table, self.trino.location(self.schema, name), replace=self.replace)

    def _compared(self, table: LakeTable, found: str | None, *, replace: bool) -> str:
        """Return what has to be done, given the location that Trino has."""
        if found is None:
            return REGISTERED
        if same_place(found, table.location):
            # Of an Iceberg table the catalogue decides which metadata file counts.
            return REPLACED if self.trino.kind == ICEBERG and replace else UNCHANGED
        if replace:
            return REPLACED
        raise FailedError(
            f"Trino has {self.schema}.{table.name} at {found or 'a location without a log'}, not at {table.location}",
            hint="register with --replace to change its location",
        )

    def _write(self, table: LakeTable, state: str) -> None:
        """Carry out what `_state` said."""
        name = table.name.lower()
        if state == REPLACED:
            self.trino.unregister(self.schema, name)
        try:
            self.trino.register(self.schema, table)
        except FailedError as exc:
            if exc.code != "ALREADY_EXISTS":
                raise
            # Somebody was faster, or Trino shares the Glue catalogue and had cached its absence.
            self._compared(table, self.trino.location(self.schema, name), replace=False)
        if state == REPLACED:
            # What Trino remembers of this name is the other place.
            self.trino.flush(self.schema, name)

    def _verify(self, tables: Sequence[LakeTable]) -> None:
        """Raise FailedError unless Trino sees each table as its log has it; an export may come between."""
        if not tables:
            return
        seen = self.trino.look(self.schema, tables, counted=True)
        each(self._verify_again, [t for t in tables if not self._is_right(t, seen[t.name])])

    def _is_right(self, table: LakeTable, seen: Seen) -> bool:
        kind = self.trino.kind
        if kind == ICEBERG:
            # An entry that is not the newest was left as it is, and said so.
            return seen.path is not None
        return agrees(kind, table, seen) or is_empty_as_its_log(kind, table, seen)

    def _verify_again(self, table: LakeTable) -> None:
        self.trino.flush(self.schema, table.name.lower())
        now = self.reread(table)
        seen = self.trino.look(self.schema, [now], counted=True)[now.name]
        if not self._is_right(now, seen):
            raise FailedError(
                f"Trino sees {self.schema}.{table.name} otherwise than the log of {table.location}:"
                f" {_difference(now, seen)}",
                hint="look whether its location was wiped and written anew",
            )


def _difference(table: LakeTable, seen: Seen) -> str:
    """Return in which way a table is seen otherwise."""
    if not seen.there:
        return "there is no such table"
    if seen.version is None:
        return f"version {table.version} is not seen"
    if seen.count is not None and table.rows is not None and seen.count != table.rows:
        return f"{seen.count} rows are counted, and the log has {table.rows}"
    return f"the file {seen.path} is not in version {table.version}"
