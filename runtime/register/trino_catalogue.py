"""Tables of a Trino catalogue: the Delta Lake connector's, or the Iceberg connector's.

No table of Trino lists where others lie, so that is asked of each: what it sees of the log (`"t$history"` from the
log's version on) and the path of one file (`"$path"`). A path that belongs to the log's version proves place, version
and that nothing is remembered from a location that was wiped: `count(*)` alone can be answered from what Trino
remembers after the data is gone. For Iceberg the newest of `"t$metadata_log_entries"` is the metadata file itself.

Ten tables are asked about in one statement. Each is a stage of its own to Trino, which plans them ever slower: with
Trino 476 on two processors 10 tables took 1.1 s, 100 took 11 s and 200 took 32 s, where a list of names takes 0.2 s.
So `trino_ensure` asks for the names only, and for more where a log has changed since it was looked at last.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime import sql
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError
from runtime.register.lake_tables import DELTA, ICEBERG, LakeTable
from runtime.register.report import each
from runtime.trino import PROCEDURE_DISABLED, Rows, TrinoOptions, TrinoServer, is_absent

CONNECTORS = {DELTA: "delta_lake", ICEBERG: "iceberg"}
# A catalogue's property without which nothing can be registered; off by default.
PROPERTIES = {
    DELTA: "delta.register-table-procedure.enabled=true",
    ICEBERG: "iceberg.register-table-procedure.enabled=true",
}
# Said for a location that has no log any more, or no metadata file.
_LOST = frozenset({"DELTA_LAKE_INVALID_SCHEMA", "DELTA_LAKE_INVALID_TABLE", "ICEBERG_INVALID_METADATA"})


# Tables in one statement, and such statements at once; see above. With eight at once each took a minute.
TOGETHER = 10
CLOSE_LOOKS = 2


@dataclass(frozen=True)
class Seen:
    """What Trino says of a table. `there` False: no such table; all else None: it could not tell."""

    there: bool
    version: int | None = None
    path: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class TrinoCatalogue:
    """A catalogue of Trino's Delta Lake or Iceberg connector (`kind`), on the server at `address`.

    `run` executes a statement, in any thread.
    """

    name: str
    run: Callable[[str], Rows]
    kind: str = DELTA
    address: str = ""

    @classmethod
    def at(cls, url: str, options: TrinoOptions | None = None, *, kind: str = DELTA) -> TrinoCatalogue:
        """Return the catalogue that a URL names; raises ConfigurationError as `TrinoServer.at` does."""
        server = TrinoServer.at(url, options)
        return cls(server.catalog, server.run, kind, f"{server.host}:{server.port or server.scheme}")

    @property
    def mark(self) -> str:
        """The parameter of Glue's entry that says which state of the log this catalogue was seen to have."""
        return f"goldlake.trino.{self.address}.{self.name}"

    # --- what there is ---

    def look(self, schema: str, tables: Sequence[LakeTable], *, counted: bool = False) -> dict[str, Seen]:
        """Return what Trino sees of each table, by name: a statement for every ten that are there and sound."""
        groups = [tables[start : start + TOGETHER] for start in range(0, len(tables), TOGETHER)]
        found: dict[str, Seen] = {}
        for seen in each(lambda group: self._look(schema, group, counted), groups, at_once=CLOSE_LOOKS):
            found |= seen
        return found

    def _look(self, schema: str, tables: Sequence[LakeTable], counted: bool) -> dict[str, Seen]:
        """Ask for the tables together; where one of them makes that fail, for each half."""
        try:
            return self._together(schema, tables, counted=counted)
        except FailedError as exc:
            if len(tables) == 1:
                return {tables[0].name: Seen(there=not is_absent(exc))}
        middle = len(tables) // 2
        return self._look(schema, tables[:middle], counted) | self._look(schema, tables[middle:], counted)

    def _together(self, schema: str, tables: Sequence[LakeTable], *, counted: bool) -> dict[str, Seen]:
        """Ask for all tables in one statement. Raises FailedError when one of them is not there or is broken."""
        branches = [
            branch for index, table in enumerate(tables) for branch in self._branches(schema, index, table, counted)
        ]
        found = [Seen(there=True) for _ in tables]
        for index, version, path, count in self.run("\nUNION ALL\n".join(branches)):
            old = found[index]
            found[index] = Seen(
                True,
                old.version if version is None else version,
                old.path if path is None else path,
                old.count if count is None else count,
            )
        return {table.name: seen for table, seen in zip(tables, found, strict=True)}

    def _branches(self, schema: str, index: int, table: LakeTable, counted: bool) -> list[str]:
        """Return the SELECTs about one table: index, version, path, count, what is not asked as NULL."""
        name = table.name.lower()
        source = sql.qualified(self.name, schema, name)
        if self.kind == ICEBERG:
            entries = sql.qualified(self.name, schema, f"{name}$metadata_log_entries")
            newest = "CAST(NULL AS bigint), max_by(file, timestamp), CAST(NULL AS bigint)"
            return [f"SELECT {index}, {newest} FROM {entries}"]  # noqa: S608 - quoted by runtime.sql
        history = sql.qualified(self.name, schema, f"{name}$history")
        path = (
            f'SELECT {index}, NULL, min("$path"), count(*) FROM {source}'  # noqa: S608 - as above
            if counted
            else f'(SELECT {index}, NULL, "$path", NULL FROM {source} LIMIT 1)'  # noqa: S608 - as above
        )
        # The predicate makes Trino read the log from there on only.
        return [
            f"SELECT {index}, max(version), CAST(NULL AS varchar), CAST(NULL AS bigint) FROM {history}"  # noqa: S608 - as above
            f" WHERE version >= {table.version or 0}",
            path,
        ]

    def names(self, schema: str) -> frozenset[str]:
        """Return the names of a schema's tables; none when it is not there."""
        tables = sql.qualified(self.name, "information_schema", "tables")
        wanted = sql.literal(schema.lower())
        rows = self.run(f"SELECT table_name FROM {tables} WHERE table_schema = {wanted}")  # noqa: S608 - quoted by runtime.sql
        return frozenset(str(row[0]) for row in rows)

    def location(self, schema: str, table: str) -> str | None:
        """Return where Trino has the table; None when schema or table is not there, "" when it does not say."""
        try:
            rows = self.run(f"SHOW CREATE TABLE {sql.qualified(self.name, schema, table)}")
        except FailedError as exc:
            if is_absent(exc):
                return None
            if exc.code in _LOST:
                return ""
            raise
        found = re.search(r"\blocation = '((?:[^']|'')*)'", str(rows[0][0]))
        return found[1].replace("''", "'") if found else ""

    # --- what is done ---

    def check_usable(self, schema: str) -> None:
        """Raise ConfigurationError unless tables can be registered here; nothing is changed by asking.

        The procedure looks whether it is enabled before it looks at its arguments, which are no table's here.
        """
        try:
            self._call("register_table", schema_name=schema, table_name="", table_location="")
        except ConfigurationError as exc:
            if exc.code == "PROCEDURE_NOT_FOUND":
                raise self._other_connector(exc) from exc
            raise
        except FailedError:
            # The arguments are refused, as they should be; what else may be wrong the real call will say.
            self._check_connector()

    def _check_connector(self) -> None:
        """Raise ConfigurationError for a catalogue of another connector that has such a procedure, too."""
        found = self._connector()
        if found not in (None, CONNECTORS[self.kind]):
            raise ConfigurationError(
                f"Trino's catalogue {self.name} is of the connector {found}, not of {CONNECTORS[self.kind]}",
                hint=f"name a catalogue with connector.name={CONNECTORS[self.kind]}",
                code="OTHER_CONNECTOR",
            )

    def _connector(self) -> str | None:
        """Return the catalogue's connector; None when we may not know."""
        wanted = sql.literal(self.name)
        with contextlib.suppress(AccessDeniedError, FailedError):
            rows = self.run(f"SELECT connector_name FROM system.metadata.catalogs WHERE catalog_name = {wanted}")  # noqa: S608 - quoted by runtime.sql
            return str(rows[0][0]) if rows else None
        return None

    def _other_connector(self, exc: ConfigurationError) -> ConfigurationError:
        """Return the error for a catalogue whose connector registers nothing."""
        found = self._connector()
        return ConfigurationError(
            f"Trino's catalogue {self.name} is of the connector {found or 'unknown'}, not of {CONNECTORS[self.kind]}",
            hint=f"name a catalogue with connector.name={CONNECTORS[self.kind]}",
            code=exc.code,
        )

    def ensure_schema(self, schema: str, location: str) -> None:
        """Create the schema when it is missing, with its location where the metastore takes one."""
        name = sql.qualified(self.name, schema)
        try:
            self.run(f"CREATE SCHEMA IF NOT EXISTS {name} WITH (location = {sql.literal(location)})")
        except FailedError as exc:
            if exc.code == "SCHEMA_ALREADY_EXISTS":
                return
            self.run(f"CREATE SCHEMA IF NOT EXISTS {name}")

    def register(self, schema: str, table: LakeTable) -> None:
        """Register the table. Raises FailedError with code ALREADY_EXISTS when Trino has one of this name."""
        more: Mapping[str, str] = {}
        if self.kind == ICEBERG and table.metadata_location:
            more = {"metadata_file_name": table.metadata_location.rpartition("/")[2]}
        self._call(
            "register_table", schema_name=schema, table_name=table.name.lower(), table_location=table.location, **more
        )

    def unregister(self, schema: str, table: str) -> None:
        """Forget the table; its data stays. One that is not there counts as forgotten."""
        try:
            self._call("unregister_table", schema_name=schema, table_name=table)
        except FailedError as exc:
            if not is_absent(exc):
                raise

    def flush(self, schema: str, table: str) -> None:
        """Make Trino read the table's entry and log anew; also good for a table that is not there.

        The Iceberg connector remembers nothing by name that would have to be forgotten.
        """
        if self.kind == DELTA:
            self._call("flush_metadata_cache", schema_name=schema, table_name=table)

    def count(self, schema: str, table: str) -> int:
        """Return the table's rows as Trino counts them."""
        source = sql.qualified(self.name, schema, table)
        return int(self.run(f"SELECT count(*) FROM {source}")[0][0])  # noqa: S608 - quoted by runtime.sql

    def _call(self, procedure: str, **arguments: str) -> None:
        """Call one of the connector's procedures."""
        values = ", ".join(f"{name} => {sql.literal(value)}" for name, value in arguments.items())
        try:
            self.run(f"CALL {sql.identifier(self.name)}.system.{procedure}({values})")
        except ConfigurationError as exc:
            if exc.code != PROCEDURE_DISABLED:
                raise
            hint = f"set {PROPERTIES[self.kind]} in the properties of Trino's catalogue {self.name}"
            raise ConfigurationError(exc.message, hint=hint, code=exc.code) from exc
