"""What registration asks of Trino and Glue, played by catalogues in memory that record it."""

from __future__ import annotations

import itertools
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.register import glue_catalogue, pruning
from runtime.register.glue_catalogue import GlueCatalogue, table_input
from runtime.register.lake_tables import DELTA, ICEBERG, LakeTable, iceberg_type_text
from runtime.register.report import REGISTERED, REPLACED, UNCHANGED, each, same_place
from runtime.register.trino_catalogue import TOGETHER, Seen, TrinoCatalogue
from runtime.register.trino_ensure import Ensurance, agrees

ROOT = "s3://lake/gold"


@dataclass
class Log:
    """As much of a Delta log as registration asks for."""

    paths: list[str]
    id: str = "id-1"

    def get_add_actions(self) -> Log:
        return self

    def column(self, _name: str) -> Log:
        return self

    def to_pylist(self) -> list[str]:
        return self.paths

    def metadata(self) -> Log:
        return self


def delta(name: str, *paths: str, version: int = 0, rows: int | None = 3, identity: str = "id-1") -> LakeTable:
    log: Any = Log(list(paths or ("part-1.parquet",)) if paths != ("",) else [], identity)
    return LakeTable(name, f"{ROOT}/{name}", DELTA, (), None, version, rows, log=log)


@dataclass
class TrinoInMemory:
    """Answers the statements that registration sends as Trino 476 was seen to."""

    tables: dict[str, str] = field(default_factory=dict)
    lake: dict[str, LakeTable] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    disabled: bool = False
    connector: str = "delta_lake"
    # Tables of which Trino remembers what was before, until flush_metadata_cache.
    remembered: dict[str, str] = field(default_factory=dict)
    registered_meanwhile: str | None = None
    statements: list[str] = field(default_factory=list)
    at_once: int = 0
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        with self._lock:
            self.statements.append(statement)
            self._running += 1
            self.at_once = max(self.at_once, self._running)
        try:
            return self._answer(statement)
        finally:
            with self._lock:
                self._running -= 1

    def _answer(self, statement: str) -> list[tuple[Any, ...]]:
        if "information_schema" in statement:
            return [(name,) for name in self.tables]
        if "system.metadata.catalogs" in statement:
            return [(self.connector,)]
        if statement.startswith("CALL"):
            return self._call(statement)
        if statement.startswith("SHOW CREATE TABLE"):
            name = statement.rsplit('"', 2)[1]
            self._there(name)
            return [(f"CREATE TABLE delta.gold.{name} (id bigint)\nWITH (\n   location = '{self.tables[name]}'\n)",)]
        if "$history" in statement:
            return [row for branch in statement.split("\nUNION ALL\n") for row in self._branch(branch)]
        return []

    def _there(self, name: str) -> None:
        if name not in self.tables:
            raise FailedError("no such table", code="TABLE_NOT_FOUND")
        if name in self.lost:
            raise FailedError("no log", code="DELTA_LAKE_INVALID_SCHEMA")

    def _branch(self, branch: str) -> list[tuple[Any, ...]]:
        found = re.search(r'SELECT (\d+),.*"([^"$]+)(\$history)?"', branch.replace('"$path"', "path"))
        assert found
        index, name = int(found[1]), found[2]
        self._there(name)
        table = self.lake[name]
        mine = self.tables[name] == table.location
        if found[3]:
            return [(index, table.version if mine else None, None, None)]
        paths: list[str] = table.log.get_add_actions().column("path").to_pylist() if table.log else []
        path = f"{self.tables[name]}/{self.remembered.get(name, paths[0])}" if paths else None
        if "count(*)" in branch:
            return [(index, None, path, self.counts.get(name, table.rows))]
        return [(index, None, path, None)] if path else []

    def _call(self, statement: str) -> list[tuple[Any, ...]]:
        found = dict(re.findall(r"(\w+) => '([^']*)'", statement))
        name = found["table_name"]
        if "flush_metadata_cache" in statement:
            self.remembered.pop(name, None)
        elif "unregister_table" in statement:
            self.tables.pop(name)
            self.lost.discard(name)
        elif self.connector == "tpch":
            raise ConfigurationError("Procedure not registered", code="PROCEDURE_NOT_FOUND")
        elif self.disabled:
            raise ConfigurationError("register_table procedure is disabled", code="PROCEDURE_DISABLED")
        elif not name:
            raise FailedError("table_name cannot be null or empty", code="INVALID_PROCEDURE_ARGUMENT")
        elif self.registered_meanwhile:
            self.tables[name] = self.registered_meanwhile
            raise FailedError("Table already exists", code="ALREADY_EXISTS")
        else:
            self.tables[name] = found["table_location"]
        return [(True,)]

    def sent(self, part: str) -> list[str]:
        return [statement for statement in self.statements if part in statement]


def ensurance(memory: TrinoInMemory, **options: Any) -> Ensurance:
    trino = TrinoCatalogue("delta", memory, address="trino:8080")
    return Ensurance(trino, "gold", ROOT, lambda table: memory.lake[table.name.lower()], **options)


def lake(*tables: LakeTable, **options: Any) -> TrinoInMemory:
    """Return a Trino that can see these tables in the lake, and has none of them yet."""
    return TrinoInMemory(lake={table.name.lower(): table for table in tables}, **options)


MANY = [delta(f"t{number:03}") for number in range(200)]
MARKS = {table.name: table.identity for table in MANY}


# --- how much is asked ---


def test_200_absent_tables_take_one_statement_each_and_a_few_more() -> None:
    memory = lake(*MANY)
    states = ensurance(memory).states(MANY, marks={})
    assert set(states.values()) == {REGISTERED}
    # Names, the two of the pre-flight, the schema; each table; and ten tables a statement when all is done.
    assert len(memory.statements) == 4 + 200 + 200 / TOGETHER
    assert len(memory.sent("SHOW CREATE TABLE")) == 0


def test_200_registered_tables_whose_logs_did_not_change_take_one_statement() -> None:
    memory = lake(*MANY, tables={table.name: table.location for table in MANY})
    assert set(ensurance(memory).states(MANY, marks=MARKS).values()) == {UNCHANGED}
    assert len(memory.statements) == 1


def test_of_200_tables_those_whose_logs_changed_are_looked_at_ten_in_a_statement() -> None:
    now = [delta(f"t{number:03}", version=1) for number in range(30)] + MANY[30:]
    memory = lake(*now, tables={table.name: table.location for table in now})
    assert set(ensurance(memory).states(now, marks=MARKS).values()) == {UNCHANGED}
    assert len(memory.statements) == 1 + 3


def test_verify_looks_closely_at_tables_that_did_not_change_too() -> None:
    memory = lake(*MANY[:20], tables={table.name: table.location for table in MANY[:20]})
    ensurance(memory, verify=True).states(MANY[:20], marks=MARKS)
    assert len(memory.sent("$history")) == 2


def test_no_more_than_eight_registrations_are_under_way_at_once() -> None:
    memory = lake(*MANY)
    ensurance(memory).states(MANY, marks={})
    assert 1 <= memory.at_once <= 8


def test_a_broken_table_does_not_hide_the_sound_ones_beside_it() -> None:
    tables = MANY[:10]
    memory = lake(*tables, tables={table.name: table.location for table in tables}, lost={"t007"})
    seen = TrinoCatalogue("delta", memory).look("gold", tables)
    assert [name for name, item in seen.items() if not agrees(DELTA, memory.lake[name], item)] == ["t007"]


def test_the_first_failure_ends_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    cancels = itertools.count(1)
    all_cancelled = threading.Event()
    cancel = Future.cancel

    def counted(future: Future[None]) -> bool:
        done = cancel(future)
        if next(cancels) == 1000:
            all_cancelled.set()
        return done

    monkeypatch.setattr(Future, "cancel", counted)

    def fail(item: int) -> None:
        begun.append(item)
        # Two workers: the first item's may take one more before the others are cancelled.
        assert item == 0 or all_cancelled.wait(30)
        raise UnreachableError("the metastore is down")

    with pytest.raises(UnreachableError):
        each(fail, range(1000), at_once=2)
    assert len(begun) <= 3


# --- what is done ---


def test_another_location_is_a_failure_before_anything_is_written_and_replace_moves_it() -> None:
    tables = [delta("fact"), delta("dim")]
    memory = lake(*tables, tables={"fact": "s3://other/fact"})
    with pytest.raises(FailedError, match=r"Trino has gold.fact at s3://other/fact"):
        ensurance(memory).states(tables, marks={})
    assert memory.sent("register_table(") == []
    assert ensurance(memory, replace=True).states(tables, marks={}) == {"fact": REPLACED, "dim": REGISTERED}
    assert memory.tables == {table.name: table.location for table in tables}
    after = memory.statements[memory.statements.index(memory.sent("unregister_table")[0]) :]
    assert any("flush_metadata_cache" in statement and "'fact'" in statement for statement in after)


def test_a_table_that_appears_meanwhile_is_as_good_when_its_location_is_the_same() -> None:
    table = delta("fact")
    same = lake(table, registered_meanwhile=table.location)
    assert ensurance(same).states([table], marks={}) == {"fact": REGISTERED}
    other = lake(table, registered_meanwhile="s3://other/fact")
    with pytest.raises(FailedError, match="s3://other/fact"):
        ensurance(other).states([table], marks={})


def test_files_of_a_location_that_was_wiped_are_noticed_and_forgotten() -> None:
    table = delta("fact", identity="written anew")
    memory = lake(table, tables={"fact": table.location}, remembered={"fact": "gone.parquet"})
    assert ensurance(memory).states([table], marks={"fact": "id-1@0"}) == {"fact": UNCHANGED}
    assert memory.remembered == {}


def test_a_table_without_files_is_looked_at_by_its_location() -> None:
    table = delta("fact", "", rows=0)
    memory = lake(table, tables={"fact": table.location})
    assert ensurance(memory).states([table], marks={}) == {"fact": UNCHANGED}
    assert len(memory.sent("SHOW CREATE TABLE")) == 1


def test_a_count_that_is_not_the_logs_is_a_failure_after_a_second_look() -> None:
    table = delta("fact")
    memory = lake(table, counts={"fact": 2})
    with pytest.raises(FailedError, match="2 rows are counted, and the log has 3"):
        ensurance(memory).states([table], marks={})
    assert len(memory.sent("count(*)")) == 2


def test_a_dry_run_changes_nothing_in_trino() -> None:
    memory = lake(delta("fact"), delta("dim"), tables={"dim": f"{ROOT}/dim"})
    states = ensurance(memory, dry_run=True).states([delta("fact"), delta("dim")], marks={})
    assert states == {"fact": REGISTERED, "dim": UNCHANGED}
    assert memory.tables == {"dim": f"{ROOT}/dim"}
    assert memory.sent("CREATE SCHEMA") == memory.sent("flush") == []


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (DELTA, "delta.register-table-procedure.enabled=true"),
        (ICEBERG, "iceberg.register-table-procedure.enabled=true"),
    ],
)
def test_a_disabled_procedure_is_named_with_its_property(kind: str, wanted: str) -> None:
    trino = TrinoCatalogue("lake", TrinoInMemory(disabled=True), kind)
    with pytest.raises(ConfigurationError) as raised:
        trino.check_usable("gold")
    assert raised.value.hint == f"set {wanted} in the properties of Trino's catalogue lake"


@pytest.mark.parametrize("connector", ["tpch", "iceberg"])
def test_a_catalogue_of_another_connector_is_said_to_be_one_before_anything_is_written(connector: str) -> None:
    memory = lake(delta("fact"), connector=connector)
    with pytest.raises(ConfigurationError, match=f"of the connector {connector}, not of delta_lake"):
        ensurance(memory).states([delta("fact")], marks={})
    assert memory.tables == {}
    assert memory.sent("CREATE SCHEMA") == []


def test_a_schema_is_made_with_its_location_and_without_where_the_metastore_takes_none() -> None:
    statements: list[str] = []

    def run(statement: str) -> list[tuple[Any, ...]]:
        statements.append(statement)
        if "location" in statement:
            raise FailedError("Database cannot be created with a location set", code="HIVE_DATABASE_LOCATION_ERROR")
        return []

    TrinoCatalogue("delta", run).ensure_schema("gold", ROOT)
    assert statements == [
        f'CREATE SCHEMA IF NOT EXISTS "delta"."gold" WITH (location = \'{ROOT}\')',
        'CREATE SCHEMA IF NOT EXISTS "delta"."gold"',
    ]


def test_what_trino_sees_must_be_a_file_of_the_log_at_the_place() -> None:
    table = delta("fact", "a=1/p%20q.parquet", version=4)
    right = Seen(True, 4, f"{ROOT}/fact/a=1/p q.parquet", 3)
    assert agrees(DELTA, table, right)
    assert agrees(DELTA, table, Seen(True, 4, right.path))
    for wrong in (
        Seen(True, None, right.path),
        Seen(True, 4, "s3://lake/other/fact/a=1/p q.parquet"),
        Seen(True, 4, f"{ROOT}/fact/older.parquet"),
        Seen(True, 4, right.path, 2),
        Seen(False),
    ):
        assert not agrees(DELTA, table, wrong)


# --- Iceberg ---


def test_an_iceberg_table_is_registered_by_its_metadata_file() -> None:
    statements: list[str] = []
    table = LakeTable("T", f"{ROOT}/T", ICEBERG, metadata_location=f"{ROOT}/T/metadata/00002-x.metadata.json")

    def run(statement: str) -> list[tuple[Any, ...]]:
        statements.append(statement)
        return []

    trino = TrinoCatalogue("iceberg", run, ICEBERG)
    trino.register("gold", table)
    assert statements == [
        "CALL \"iceberg\".system.register_table(schema_name => 'gold', table_name => 't', "
        f"table_location => '{ROOT}/T', metadata_file_name => '00002-x.metadata.json')"
    ]
    assert agrees(ICEBERG, table, Seen(True, path=table.metadata_location))
    assert not agrees(ICEBERG, table, Seen(True, path=f"{ROOT}/T/metadata/00001-x.metadata.json"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("long", "bigint"),
        ("timestamptz", "timestamp"),
        ("decimal(9, 2)", "decimal(9,2)"),
        ("fixed[16]", "binary"),
        ("uuid", "string"),
        ({"type": "list", "element": "int"}, "array<int>"),
        ({"type": "map", "key": "string", "value": "long"}, "map<string,bigint>"),
        ({"type": "struct", "fields": [{"name": "a", "type": "date"}]}, "struct<a:date>"),
    ],
)
def test_iceberg_types_are_written_as_glue_takes_them(kind: Any, text: str) -> None:
    assert iceberg_type_text(kind) == text


# --- Glue ---


class GlueInMemory:
    """Answers Glue's calls; counts them."""

    def __init__(self, entries: list[dict[str, Any]] | None = None) -> None:
        self.entries = entries or []
        self.pages = 0

    def get_paginator(self, _operation: str) -> GlueInMemory:
        return self

    def paginate(self, **_of: str) -> Any:
        for start in range(0, len(self.entries), 100):
            self.pages += 1
            yield {"TableList": self.entries[start : start + 100]}


def test_200_entries_take_two_requests() -> None:
    entries = [table_input(table) for table in MANY]
    glue = GlueInMemory(entries)
    plans = GlueCatalogue(glue, "gold", ROOT).plans(MANY, replace=False)
    assert {plan.state for plan in plans} == {UNCHANGED}
    assert glue.pages == 2


def test_a_changed_comment_is_a_difference() -> None:
    entry = {**table_input(delta("fact")), "Description": "before"}
    wanted = {**entry, "Description": "after"}
    assert glue_catalogue.covers(entry, entry)
    assert not glue_catalogue.covers(entry, wanted)


def test_a_delta_table_in_the_place_of_an_iceberg_entry_is_refused_unless_replaced() -> None:
    there = LakeTable("fact", f"{ROOT}/fact", ICEBERG, metadata_location=f"{ROOT}/fact/metadata/v1.metadata.json")
    glue = GlueInMemory([table_input(there), table_input(delta("dim"))])
    tables = [delta("fact"), delta("dim")]
    with pytest.raises(FailedError, match="is registered as iceberg, not as delta"):
        GlueCatalogue(glue, "gold", ROOT).plans(tables, replace=False)
    assert GlueCatalogue(glue, "gold", ROOT).plans(tables, replace=True)[0].state == REPLACED


def test_the_entrys_metadata_file_of_an_iceberg_table_is_moved_on_demand_only() -> None:
    def table(version: int) -> LakeTable:
        return LakeTable("t", f"{ROOT}/t", ICEBERG, metadata_location=f"{ROOT}/t/metadata/v{version}.metadata.json")

    glue = GlueInMemory([table_input(table(1)), table_input(delta("dim"))])
    plan = GlueCatalogue(glue, "gold", ROOT).plans([table(2), delta("dim")], replace=False)[0]
    assert (plan.state, plan.wanted["Parameters"]["metadata_location"]) == (
        UNCHANGED,
        f"{ROOT}/t/metadata/v1.metadata.json",
    )
    assert plan.warning is not None
    assert "v2.metadata.json" in plan.warning
    assert GlueCatalogue(glue, "gold", ROOT).plans([table(2), delta("dim")], replace=True)[0].state == "updated"


# --- places ---


@given(st.sampled_from(["s3", "s3a", "s3n"]), st.sampled_from(["", "/"]))
def test_a_place_is_the_same_in_each_way_to_write_it(scheme: str, end: str) -> None:
    assert same_place(f"{scheme}://lake/gold/fact{end}", "s3://lake/gold/fact")


@pytest.mark.parametrize(
    ("place", "below"),
    [(f"{ROOT}/a", True), ("s3a://lake/gold/a/", True), (ROOT, False), ("s3://lake/golden/a", False)],
)
def test_only_what_is_below_the_target_can_be_stale(place: str, below: bool) -> None:
    assert pruning.is_below(place, ROOT) is below
