"""Export from a DuckDB file, without any stack: to a folder and to S3 on the emulator, read back by other readers."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import cli, sql
from runtime.aws import Connection
from runtime.delta import types as delta_types
from runtime.delta.commit import NOT_COMMITTED
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, NotReadyError, UnreachableError
from runtime.export import ExportOptions, ExportReport, Manifest, TableExport, export_tables, parse_source
from runtime.export import merge as merging
from runtime.export.models import Model, ModelColumn
from runtime.export.upload import Uploads
from runtime.query import query
from tests.local.faulty_proxy import Rule, faulty_proxy

SALES = """
CREATE TABLE gold.sales AS
    SELECT i AS id, DATE '2026-01-01' + (i % 3)::INTEGER AS day, 'customer ' || i AS customer, i / 4 AS amount
    FROM range(300) r(i);
"""


class Source:
    """A DuckDB file with a schema `gold`, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gold.duckdb"
        self.run("CREATE SCHEMA gold")

    def run(self, statements: str) -> None:
        """Run SQL in the file and close it. Its catalogue's name is not `gold`, which would be ambiguous."""
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {sql.literal(str(self.path))} AS file")
            connection.execute("USE file")
            connection.execute(statements)

    @property
    def url(self) -> str:
        return f"duckdb:///{self.path}"

    def export(self, target: object, aws: Connection | None = None, **options: Any) -> ExportReport:
        """Export; what is no argument of export_tables is an option."""
        known = ("schema", "tables", "selection", "manifest", "run_id", "dry_run", "progress")
        given = {name: options.pop(name) for name in known if name in options}
        return export_tables(parse_source(self.url), aws, str(target), options=ExportOptions(**options), **given)

    def one(self, target: object, aws: Connection | None = None, **options: Any) -> TableExport:
        """Export a source of one table."""
        (table,) = self.export(target, aws, **options).tables
        return table


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "source"
    folder.mkdir()
    return Source(folder)


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Connection | None]:
    """Both kinds of targets, one after the other."""
    if request.param == "folder":
        return str(tmp_path / "lake"), None
    bucket = request.getfixturevalue("lake_bucket")
    return f"s3://{bucket}/gold", request.getfixturevalue("aws")


def rows(target: str, aws: Connection | None, statement: str) -> list[tuple[Any, ...]]:
    """Return what DuckDB's delta extension reads."""
    return list(query(aws, target, statement, limit=None).rows)


def log_of(table: TableExport, aws: Connection | None = None) -> DeltaTable:
    return DeltaTable(table.location, storage_options=None if aws is None else aws.storage_options())


def count(table: TableExport, aws: Connection | None = None) -> int:
    """Return the rows that delta-rs itself reads."""
    from deltalake import QueryBuilder

    found = QueryBuilder().register("t", log_of(table, aws)).execute("SELECT count(*) FROM t").read_all()
    return int(found.column(0)[0].as_py())


def parquet_files(target: str, aws: Connection | None) -> list[str]:
    """Return the names of all Parquet files at the target."""
    if aws is None:
        return sorted(path.relative_to(target).as_posix() for path in Path(target).rglob("*.parquet"))
    bucket = target.removeprefix("s3://").partition("/")[0]
    listed = aws.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return sorted(entry["Key"] for entry in listed if entry["Key"].endswith(".parquet"))


def goldlake(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, output and messages."""
    with pytest.raises(SystemExit) as ended:
        cli.app.main(list(arguments))
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


# --- sources ---


def test_the_command_writes_a_table_of_a_file_to_a_folder_without_any_stack(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source.run("CREATE TABLE gold.f AS SELECT 1 AS id; CREATE TABLE gold.other AS SELECT 1 AS id")
    monkeypatch.chdir(source.path.parent)
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "nothing-deployed"))
    code, out, err = goldlake(
        capsys, "export", "f", "--source", "duckdb:///gold.duckdb", "--schema", "gold", "--target", "lake/gold",
        "--output", "json",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    assert (report["schema"], report["rows"], report["engine"]) == ("goldlake.export/1", 1, "duckdb")
    assert "engine duckdb: " in err
    assert rows("lake/gold", None, "FROM f") == [(1,)]
    assert [path.name for path in Path("lake/gold").iterdir()] == ["f"]


def test_the_command_writes_a_table_of_a_file_to_s3_without_any_stack(
    source: Source,
    aws: Connection,
    lake_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source.run("CREATE TABLE gold.f AS SELECT 1 AS id")
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "nothing-deployed"))
    where = ("--endpoint-url", str(aws.endpoint_url), "--region", str(aws.region))
    target = f"s3://{lake_bucket}/gold"
    code, _, err = goldlake(capsys, "export", "f", "--source", source.url, "--target", target, *where)
    assert code == 0, err
    assert rows(target, aws, "FROM f") == [(1,)]
    code, out, err = goldlake(capsys, "export", "f", "--verify", "--target", target, "--output", "json", *where)
    assert code == 0, err
    assert json.loads(out)["tables"][0]["rows"] == 1


def test_three_slashes_are_relative_and_four_absolute(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.path.parent)
    forms = ("duckdb:///gold.duckdb", f"duckdb:////{source.path}", f"duckdb:///{source.path}")
    assert {parse_source(form).label for form in forms} == {f"duckdb:///{source.path}"}


def test_a_path_that_exists_as_an_absolute_one_only_is_taken_with_three_slashes(source: Source) -> None:
    assert parse_source(f"duckdb://{source.path}").label == f"duckdb:///{source.path}"


def test_a_missing_file_is_a_usage_error_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"'nope\.duckdb' does not exist"):
        parse_source("duckdb:///nope.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    other = tmp_path / "other.duckdb"
    other.write_bytes(b"hello" * 10_000)
    with pytest.raises(ConfigurationError, match="is not a DuckDB database"):
        export_tables(parse_source(f"duckdb:///{other}"), None, str(tmp_path / "lake"))


def test_a_file_that_another_process_writes_is_exit_code_2_and_names_it(source: Source, tmp_path: Path) -> None:
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(source.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UnreachableError, match=f"is held open by process {holder.pid}"):
            source.export(tmp_path / "lake")
    finally:
        holder.communicate("")


def test_the_file_is_read_only_for_the_export(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    before = (source.path.stat().st_mtime_ns, source.path.read_bytes())
    source.export(tmp_path / "lake")
    assert (source.path.stat().st_mtime_ns, source.path.read_bytes()) == before
    assert os.listdir(source.path.parent) == ["gold.duckdb"]  # noqa: PTH208 - no log beside it


def test_globs_mean_tables_and_views_are_exported_by_their_whole_name(source: Source, tmp_path: Path) -> None:
    source.run("""CREATE TABLE gold.dim_a AS SELECT 1 AS id; CREATE TABLE gold.dim_b AS SELECT 1 AS id;
                  CREATE TABLE gold.fact AS SELECT 1 AS id; CREATE VIEW gold.dim_view AS SELECT 2 AS id""")
    some = source.export(tmp_path / "some", tables=["dim_*"])
    assert [table.table for table in some.tables] == ["dim_a", "dim_b"]
    assert [table.table for table in source.export(tmp_path / "all").tables] == ["dim_a", "dim_b", "fact"]
    assert [table.rows for table in source.export(tmp_path / "view", tables=["dim_view"]).tables] == [1]


def test_a_schema_that_is_not_there_is_not_ready(source: Source, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="'silver' has no tables"):
        source.export(tmp_path, schema="silver")


# --- modes ---


def test_append_adds_rows_and_says_how_many(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    source.one(*lake)
    table = source.one(*lake, mode="append")
    assert (table.version, table.rows, table.rows_written, table.files) == (1, 600, 300, 2)
    assert count(table, lake[1]) == 600


def test_error_if_exists_writes_a_new_table_only(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    assert source.one(*lake, mode="error-if-exists").version == 0
    files = parquet_files(*lake)
    with pytest.raises(FailedError, match="exists already"):
        source.one(*lake, mode="error-if-exists")
    assert parquet_files(*lake) == files


def test_ignore_leaves_a_table_that_is_there(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    assert source.one(*lake, mode="ignore").outcome == "exported"
    files = parquet_files(*lake)
    source.run("DELETE FROM gold.sales")
    again = source.one(*lake, mode="ignore")
    assert (again.outcome, again.version, again.rows) == ("exists", 0, 300)
    assert parquet_files(*lake) == files


def test_replace_where_replaces_the_named_partitions_only(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    source.one(*lake, partition_by=("day",))
    source.run("UPDATE gold.sales SET customer = 'new'; DELETE FROM gold.sales WHERE id = 0")
    table = source.one(*lake, mode="replace-where", replace_where=("day=2026-1-1",))
    assert (table.rows, table.rows_written, table.version) == (299, 99, 1)
    counts = "count(*), count(*) FILTER (customer = 'new')"
    found = rows(*lake, f"SELECT day::VARCHAR, {counts} FROM sales GROUP BY 1 ORDER BY 1")  # noqa: S608 - fixed texts
    assert found == [("2026-01-01", 99, 99), ("2026-01-02", 100, 0), ("2026-01-03", 100, 0)]


@pytest.mark.parametrize("condition", ["customer=x", "day", "day=tomorrow", "nope=1"])
def test_replace_where_takes_values_of_partition_columns_only(source: Source, tmp_path: Path, condition: str) -> None:
    source.run(SALES)
    source.one(tmp_path, partition_by=("day",))
    with pytest.raises(ConfigurationError, match="--replace-where"):
        source.one(tmp_path, mode="replace-where", replace_where=(condition,))


def test_merge_updates_rows_of_known_keys_and_adds_others(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT i AS id, 'old' AS state FROM range(10) r(i)")
    first = source.one(*lake, mode="merge", unique_key=("id",))
    assert (first.created, first.rows) == (True, 10)
    source.run("CREATE OR REPLACE TABLE gold.fact AS SELECT i AS id, 'new' AS state FROM range(5, 12) r(i)")
    table = source.one(*lake, mode="merge", unique_key=("id",), run_id="run-7")
    assert (table.version, table.rows, table.created) == (1, 12, False)
    assert "merge reads the table" in table.notes[0]
    assert rows(*lake, "SELECT state, count(*) FROM fact GROUP BY 1 ORDER BY 1") == [("new", 7), ("old", 5)]
    assert dict(log_of(table, lake[1]).history(1)[0])["goldlake.runId"] == "run-7"


@pytest.mark.parametrize("extra", ["(1, 'twice')", "(NULL, 'none')"])
def test_merge_refuses_keys_that_are_null_or_there_twice(source: Source, tmp_path: Path, extra: str) -> None:
    source.run("CREATE TABLE gold.fact (id INTEGER, state VARCHAR); INSERT INTO gold.fact VALUES (1, 'a'), (2, 'b')")
    source.one(tmp_path, mode="merge", unique_key=("id",))
    source.run(f"INSERT INTO gold.fact VALUES {extra}")  # noqa: S608 - fixed texts
    with pytest.raises(FailedError, match="merge cannot say which row wins"):
        source.one(tmp_path, mode="merge", unique_key=("id",))


def test_nothing_is_committed_when_the_second_table_cannot_be_merged(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.a AS SELECT 1 AS id; CREATE TABLE gold.b AS SELECT 1 AS id FROM range(2)")
    with pytest.raises(FailedError):
        source.export(tmp_path / "lake", mode="merge", unique_key=("id",))
    assert [path.name for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []


# --- schema ---


def test_append_refuses_another_schema_with_a_diff_and_writes_nothing(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id, 'a' AS name")
    source.one(tmp_path)
    files = parquet_files(str(tmp_path), None)
    source.run("CREATE OR REPLACE TABLE gold.fact AS SELECT 1::BIGINT AS id, DATE '2026-01-01' AS day")
    with pytest.raises(ConfigurationError) as raised:
        source.one(tmp_path, mode="append")
    for line in ("~ id int -> bigint", "- name string", "+ day date"):
        assert line in raised.value.message
    assert parquet_files(str(tmp_path), None) == files


def test_schema_mode_merge_adds_nullable_columns(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id")
    source.one(*lake)
    source.run("CREATE OR REPLACE TABLE gold.fact AS SELECT 2 AS id, 'x' AS name")
    table = source.one(*lake, mode="append", schema_mode="merge")
    assert table.schema_changes == ("+ name string",)
    assert rows(*lake, "FROM fact ORDER BY id") == [(1, None), (2, "x")]


def model(**columns: ModelColumn) -> Manifest:
    """Return a manifest whose only model, gold.fact, has a contract with these columns."""
    only = Model("model.p.fact", "gold", "fact", "What happened.", columns, contract=True)
    return Manifest(Path("manifest.json"), (only,), "invocation-1")


def test_a_contract_gives_descriptions_and_not_null_columns(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id, 'a' AS name")
    manifest = model(id=ModelColumn("id", "int", "The key.", True), name=ModelColumn("name", "varchar(5)"))
    table = source.one(tmp_path, manifest=manifest)
    log = log_of(table)
    key, name = delta_types.fields_of(log.schema())
    assert (key["nullable"], key["metadata"], name["nullable"]) == (False, {"comment": "The key."}, True)
    assert log.metadata().description == "What happened."
    assert dict(log.history(1)[0])["goldlake.dbtInvocationId"] == "invocation-1"
    assert source.one(tmp_path, mode="append").rows == 2


def test_a_null_that_the_contract_forbids_fails_the_export_and_leaves_no_file(
    source: Source, lake: tuple[str, Connection | None]
) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT NULL::INTEGER AS id")
    with pytest.raises(FailedError, match=r"'id' of gold\.fact has 1 nulls"):
        source.one(*lake, manifest=model(id=ModelColumn("id", "int", None, True)))
    assert parquet_files(*lake) == []


def test_a_table_that_is_not_what_its_contract_says_is_refused_with_a_diff(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id, 2 AS extra")
    manifest = model(id=ModelColumn("id", "varchar"), day=ModelColumn("day", "date"))
    with pytest.raises(ConfigurationError) as raised:
        source.one(tmp_path, manifest=manifest)
    for line in ("- day date", "+ extra int", "~ id varchar -> int"):
        assert line in raised.value.message


def test_names_that_delta_does_not_take_are_mapped_and_come_back(
    source: Source, lake: tuple[str, Connection | None]
) -> None:
    source.run("""CREATE TABLE gold.fact AS SELECT i AS id, i * 2 AS "net amount (EUR)" FROM range(3) r(i)""")
    table = source.one(*lake)
    assert log_of(table, lake[1]).metadata().configuration["delta.columnMapping.mode"] == "name"
    wanted = [(0, 0), (1, 2), (2, 4)]
    assert rows(*lake, 'SELECT id, "net amount (EUR)" FROM fact ORDER BY 1') == wanted
    assert source.one(*lake, mode="append").rows == 6
    assert source.one(*lake).rows == 3
    assert rows(*lake, 'SELECT id, "net amount (EUR)" FROM fact ORDER BY 1') == wanted
    with pytest.raises(ConfigurationError, match="cannot be exported"):
        source.one(f"{lake[0]}/other", lake[1], column_mapping="never")


def test_a_table_gets_column_mapping_when_a_new_name_needs_it(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id")
    source.one(tmp_path)
    source.run("""CREATE OR REPLACE TABLE gold.fact AS SELECT 1 AS id, 'x' AS "a b" """)
    with pytest.raises(ConfigurationError, match="column mapping"):
        source.one(tmp_path, mode="append", schema_mode="merge")
    table = source.one(tmp_path)
    assert rows(str(tmp_path), None, "FROM fact") == [(1, "x")]
    assert count(table) == 1


# --- layout ---

ODD_TEXTS = ["plain", "two words", "a/b", "50%", "a=b", "Zoë 日本", "q'uote", "+&?#", "trailing."]


def test_partitions_of_odd_texts_and_nulls_come_back_equal(source: Source, lake: tuple[str, Connection | None]) -> None:
    texts = ", ".join(f"({number}, {sql.literal(text)})" for number, text in enumerate(ODD_TEXTS))
    source.run("CREATE TABLE gold.fact (id INTEGER, part VARCHAR)")
    source.run(f"INSERT INTO gold.fact VALUES {texts}, (99, NULL)")  # noqa: S608 - quoted by runtime.sql
    table = source.one(*lake, partition_by=("part",))
    expected = [*enumerate(ODD_TEXTS), (99, None)]
    assert rows(*lake, "SELECT id, part FROM fact ORDER BY id") == expected
    assert count(table, lake[1]) == len(expected)
    for number, text in enumerate(ODD_TEXTS):
        where = f"part = {sql.literal(text)}"
        assert rows(*lake, f"SELECT id FROM fact WHERE {where}") == [(number,)]  # noqa: S608 - quoted by runtime.sql
    source.run("UPDATE gold.fact SET id = id + 100")
    again = source.one(*lake, mode="replace-where", replace_where=("part=a/b", "part="))
    assert again.rows_written == 2
    assert rows(*lake, "SELECT id FROM fact WHERE id > 99 ORDER BY 1") == [(102,), (199,)]


def test_partitions_of_every_allowed_type_come_back_equal(source: Source, tmp_path: Path) -> None:
    source.run("""CREATE TABLE gold.fact AS SELECT 1 AS id, true AS b, -5::TINYINT AS t, 7::HUGEINT AS h,
        1.50::DECIMAL(5, 2) AS m, DATE '2026-02-28' AS d, TIMESTAMPTZ '2026-02-28 01:02:03.5+00' AS z""")
    columns = ("b", "t", "h", "m", "d", "z")
    source.one(tmp_path, partition_by=columns)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        expected = connection.execute(
            "SELECT 1, true, -5, 7::DECIMAL(38, 0), 1.50, DATE '2026-02-28', TIMESTAMPTZ '2026-02-28 01:02:03.5+00'"
        ).fetchall()
    assert rows(str(tmp_path), None, "SELECT id, b, t, h, m, d, z FROM fact") == expected


@pytest.mark.parametrize(("kind", "value"), [("DOUBLE", "1.5"), ("INTEGER[]", "[1]"), ("BLOB", "'x'")])
def test_partition_columns_without_one_text_form_are_refused(
    source: Source, tmp_path: Path, kind: str, value: str
) -> None:
    source.run(f"CREATE TABLE gold.fact AS SELECT 1 AS id, {value}::{kind} AS part")
    with pytest.raises(ConfigurationError, match="partition column 'part'"):
        source.one(tmp_path, partition_by=("part",))


def test_an_empty_text_as_a_partition_is_refused_and_leaves_no_file(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 1 AS id, '' AS part")
    with pytest.raises(ConfigurationError, match="NULL to all readers"):
        source.one(tmp_path, partition_by=("part",))
    assert parquet_files(str(tmp_path), None) == []


def test_a_table_keeps_its_partitions_when_none_are_named(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    source.one(tmp_path, partition_by=("day",))
    assert source.one(tmp_path).files == 3
    with pytest.raises(ConfigurationError, match="is partitioned by day, not by customer"):
        source.one(tmp_path, mode="append", partition_by=("customer",))


def test_sorted_files_have_ranges_that_do_not_overlap(source: Source, tmp_path: Path) -> None:
    source.run("""CREATE TABLE gold.fact AS
        SELECT (i * 7919) % 600011 AS id, md5(i::VARCHAR) AS text, md5((i + 1)::VARCHAR) AS more
        FROM range(600000) r(i)""")
    table = source.one(tmp_path, order_by=("id desc",), file_size="5MB")
    actions = log_of(table).get_add_actions(flatten=True)
    ranges = sorted(zip(actions.column("min.id").to_pylist(), actions.column("max.id").to_pylist(), strict=True))
    assert len(ranges) > 2
    assert all(one[1] < following[0] for one, following in itertools.pairwise(ranges))


def test_row_groups_have_the_size_that_is_asked_for(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT i AS id FROM range(50000) r(i)")
    source.one(tmp_path, row_group_rows=10_240)
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT max(row_group_num_rows) FROM parquet_metadata(?)", [str(tmp_path / "fact" / "*.parquet")]
        ).fetchone()
    assert found == (10_240,)


def test_properties_are_set_and_kept(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    wanted = {"delta.logRetentionDuration": "interval 60 days", "owner": "sales"}
    source.one(tmp_path, properties=wanted)
    assert log_of(source.one(tmp_path)).metadata().configuration == wanted


def test_a_symlink_manifest_is_written_on_request(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    table = source.one(tmp_path, symlink_manifest=True)
    (manifest,) = Path(table.location, "_symlink_format_manifest").rglob("manifest")
    assert len(manifest.read_text().split()) == 1


# --- only what changed ---


def test_an_unchanged_table_is_skipped_when_asked(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    assert source.one(*lake, if_changed=True).outcome == "exported"
    again = source.one(*lake, if_changed=True)
    assert (again.outcome, again.version, again.rows) == ("unchanged", 0, 300)
    source.run("UPDATE gold.sales SET amount = 0 WHERE id = 299")
    assert source.one(*lake, if_changed=True).version == 1
    # A commit of somebody else's, or without a fingerprint, is no longer what was exported.
    assert source.one(*lake).version == 2
    assert source.one(*lake, if_changed=True).version == 3


def test_the_order_of_rows_is_no_change(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    source.one(tmp_path, if_changed=True)
    source.run("CREATE OR REPLACE TABLE gold.sales AS SELECT * FROM gold.sales ORDER BY id DESC")
    assert source.one(tmp_path, if_changed=True).outcome == "unchanged"


def test_another_layout_is_a_change(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    source.one(tmp_path, if_changed=True)
    assert source.one(tmp_path, if_changed=True, partition_by=("day",)).outcome == "exported"


# --- safety ---


def test_an_error_in_the_middle_leaves_no_files(source: Source, lake: tuple[str, Connection | None]) -> None:
    # Its largest value has 39 digits, which Delta's widest number has not.
    source.run("""CREATE TABLE gold.a AS SELECT i AS id FROM range(1000) r(i);
        CREATE TABLE gold.b AS SELECT CASE WHEN i = 499999 THEN 170141183460469231731687303715884105727::HUGEINT
            ELSE i::HUGEINT END AS n FROM range(500000) r(i)""")
    with pytest.raises(FailedError):
        source.export(*lake, file_size="1MB")
    assert parquet_files(*lake) == []


def test_an_upload_that_fails_ends_the_export_and_leaves_no_files(
    source: Source, aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT i AS id, md5(i::VARCHAR) AS text FROM range(400000) r(i)")
    send = Uploads._send
    sent: list[str] = []

    def second_fails(self: Uploads, name: str) -> int:
        sent.append(name)
        if len(sent) == 2:
            raise UnreachableError("no answer")
        return send(self, name)

    monkeypatch.setattr(Uploads, "_send", second_fails)
    with pytest.raises(UnreachableError, match="no answer"):
        source.one(f"s3://{lake_bucket}/gold", aws, file_size="1MB")
    assert len(sent) >= 2
    assert parquet_files(f"s3://{lake_bucket}/gold", aws) == []


def test_a_file_that_was_sent_too_early_is_a_failure(
    source: Source, aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(SALES)
    send = Uploads._send
    monkeypatch.setattr(Uploads, "_send", lambda self, name: send(self, name) - 1)
    with pytest.raises(FailedError, match="was sent before it was complete"):
        source.one(f"s3://{lake_bucket}/gold", aws)


def test_a_table_without_rows_has_the_right_schema(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run("CREATE TABLE gold.fact (id INTEGER, moment TIMESTAMPTZ, tags VARCHAR[])")
    table = source.one(*lake, partition_by=("id",))
    assert (table.rows, table.files, parquet_files(*lake)) == (0, 0, [])
    assert [field["name"] for field in delta_types.fields_of(log_of(table, lake[1]).schema())] == [
        "id",
        "moment",
        "tags",
    ]
    assert rows(*lake, "FROM fact") == []


def test_a_dry_run_writes_nothing_and_names_the_engine(source: Source, tmp_path: Path) -> None:
    source.run(SALES)
    report = source.export(tmp_path / "lake", dry_run=True)
    assert (report.engine, report.tables[0].outcome, report.tables[0].created) == ("duckdb", "planned", True)
    assert not (tmp_path / "lake").exists()


def test_leftovers_are_vacuumed_and_referenced_files_stay(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.run(SALES)
    target = tmp_path / "lake"
    source.one(target, partition_by=("day",))
    leftover = target / "sales" / "day=2026-01-01" / "left-0.parquet"
    leftover.write_bytes(b"PAR1")
    os.utime(leftover, (0, 0))
    code, _, err = goldlake(capsys, "vacuum", "--target", str(target))
    assert (code, leftover.exists()) == (0, True)
    assert "nothing was deleted" in err
    code, out, _ = goldlake(capsys, "vacuum", "sal*", "--target", str(target), "--yes", "--output", "json")
    assert code == 0
    assert json.loads(out)["tables"][0]["files"] == ["day=2026-01-01/left-0.parquet"]
    assert len(parquet_files(str(target), None)) == 3


def test_verify_finds_a_file_that_is_gone(source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source.run(SALES)
    source.one(tmp_path / "lake")
    (file,) = (tmp_path / "lake").rglob("*.parquet")
    file.unlink()
    code, out, err = goldlake(capsys, "export", "--verify", "--target", str(tmp_path / "lake"))
    assert (code, "wrong" in out) == (1, True)
    assert "not in the store" in err


def test_verified_exports_say_nothing_more(source: Source, lake: tuple[str, Connection | None]) -> None:
    source.run(SALES)
    assert source.one(*lake, verify=True, partition_by=("day",)).rows == 300


@pytest.mark.parametrize(
    "options",
    [
        {"order_by": ("nope",)},
        {"partition_by": ("nope",)},
        {"mode": "merge", "unique_key": ("nope",)},
        {"mode": "merge"},
        {"mode": "append", "schema_mode": "overwrite"},
        {"replace_where": ("day=2026-01-01",), "mode": "append"},
        {"file_size": "1KB"},
        {"engine": "unload"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    source: Source, tmp_path: Path, options: dict[str, Any]
) -> None:
    source.run(SALES)
    with pytest.raises(ConfigurationError):
        source.one(tmp_path / "lake", **options)
    assert not (tmp_path / "lake").exists()


def test_errors_of_a_model_name_their_table(source: Source, tmp_path: Path) -> None:
    source.run("CREATE TABLE gold.a AS SELECT 1 AS id; CREATE TABLE gold.b AS SELECT INTERVAL 1 DAY AS span")
    with pytest.raises(GoldlakeError, match=r"table gold\.b: column 'span'"):
        source.export(tmp_path)


def test_the_command_skips_what_is_unchanged_and_writes_the_manifest_for_spectrum(
    source: Source, aws: Connection, lake_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source.run(SALES)
    target = f"s3://{lake_bucket}/gold"
    command = (
        "export", "--source", source.url, "--target", target, "--if-changed", "--symlink-manifest", "--verify-written",
        "--partition-by", "day", "--output", "json",
        "--endpoint-url", str(aws.endpoint_url), "--region", str(aws.region),
    )  # fmt: skip
    found = []
    for _ in range(2):
        code, out, err = goldlake(capsys, *command)
        assert code == 0, err
        found.append(json.loads(out)["tables"][0]["outcome"])
    assert found == ["exported", "unchanged"]
    key = "gold/sales/_symlink_format_manifest/day=2026-01-02/manifest"
    (url,) = aws.client("s3").get_object(Bucket=lake_bucket, Key=key)["Body"].read().decode().splitlines()
    assert url.removeprefix(f"s3://{lake_bucket}/") in parquet_files(target, aws)


# --- merges that meet other writers ---


def overtaken(monkeypatch: pytest.MonkeyPatch, winner: Callable[[], Any], times: int = 1) -> None:
    """Let another writer commit after a merge has read the table, as often as that."""
    merge = merging._merge
    met: list[bool] = []

    def after_the_winner(*arguments: Any) -> dict[str, Any]:
        if len(met) < times:
            met.append(True)
            winner()
        return merge(*arguments)

    monkeypatch.setattr(merging, "_merge", after_the_winner)
    monkeypatch.setattr(merging, "_pause", lambda _: None)


FACT = "CREATE OR REPLACE TABLE gold.fact AS SELECT i::BIGINT AS id, '{}' AS state FROM range({}, {}) r(i)"


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_merge_that_another_writer_overtakes_is_done_on_the_newest_version(
    source: Source, lake: tuple[str, Connection | None], monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    source.run(FACT.format("old", 0, 10))
    table = source.one(*lake)
    source.run(FACT.format("new", 5, 12))
    # It writes a key that the merge has too: on the version that it read, the merge would add it a second time.
    other: dict[str, list[Any]] = {"id": [11, 12], "state": ["theirs", "theirs"]}
    overtaken(monkeypatch, lambda: write(table, lake[1], other, mode))
    merged = source.one(*lake, mode="merge", unique_key=("id",), verify=True)
    kept = [(number, "old") for number in range(5)] if mode == "append" else []
    expected = [*kept, *((number, "new") for number in range(5, 12)), (12, "theirs")]
    assert rows(*lake, "FROM fact ORDER BY id") == expected
    assert (merged.version, merged.rows, merged.retries) == (2, len(expected), 1)


def write(table: TableExport, aws: Connection | None, columns: dict[str, list[Any]], mode: Any, **options: Any) -> None:
    """Write rows by delta-rs."""
    from arro3.core import Array, DataType, Table

    kinds = {int: DataType.int64(), str: DataType.utf8()}
    content = Table.from_pydict({name: Array(values, kinds[type(values[0])]) for name, values in columns.items()})
    storage_options = None if aws is None else aws.storage_options()
    write_deltalake(table.location, content, mode=mode, storage_options=storage_options, **options)


def test_a_merge_gives_up_when_others_are_faster_each_time_and_leaves_their_rows(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.run(FACT.format("old", 0, 3))
    table = source.one(tmp_path)
    numbers = itertools.count(100)
    overtaken(monkeypatch, lambda: write(table, None, {"id": [next(numbers)], "state": ["x"]}, "append"), 99)
    source.run(FACT.format("new", 0, 3))
    with pytest.raises(FailedError, match="during each of 5 merges, of which nothing is in the table") as raised:
        source.one(tmp_path, mode="merge", unique_key=("id",))
    assert raised.value.code == NOT_COMMITTED
    found = rows(str(tmp_path), None, "FROM fact ORDER BY id")
    assert found == [*((number, "old") for number in range(3)), *((number, "x") for number in range(100, 105))]


@pytest.mark.parametrize(
    ("theirs", "diff"),
    [({"id": [7]}, r"\+ state string"), ({"id": [7], "state": ["x"], "more": ["y"]}, "- more string")],
    ids=["dropped", "added"],
)
def test_a_merge_whose_winner_changed_the_columns_is_refused_with_a_diff(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, list[Any]], diff: str
) -> None:
    source.run(FACT.format("old", 0, 3))
    table = source.one(tmp_path)
    overtaken(monkeypatch, lambda: write(table, None, theirs, "overwrite", schema_mode="overwrite"))
    source.run(FACT.format("new", 0, 3))
    with pytest.raises(FailedError, match=f"another writer changed (?s:.)*{diff}") as raised:
        source.one(tmp_path, mode="merge", unique_key=("id",))
    assert raised.value.code == NOT_COMMITTED
    assert rows(str(tmp_path), None, "FROM fact") == [tuple(values[0] for values in theirs.values())]


def test_a_merge_whose_commit_gets_no_answer_is_there_once(source: Source, aws: Connection, lake_bucket: str) -> None:
    source.run(FACT.format("old", 0, 3))
    target = f"s3://{lake_bucket}/gold"
    source.one(target, aws)
    source.run(FACT.format("new", 2, 5))
    rule = Rule(r"PUT .*_delta_log/\d{20}\.json", "lost answer", times=1)
    with faulty_proxy(urlsplit(aws.endpoint_url or "").port or 0, rule) as (_, url):
        merged = source.one(target, Connection(url, region=aws.region), mode="merge", unique_key=("id",))
    assert (merged.version, merged.rows, rule.seen) == (1, 5, 1)
    assert rows(target, aws, "FROM fact ORDER BY id") == [(0, "old"), (1, "old"), (2, "new"), (3, "new"), (4, "new")]
