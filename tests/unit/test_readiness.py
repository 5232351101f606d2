"""What dbt's sources mean to the check, and what the check's answer means to its caller."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from runtime import readiness, readiness_footer, readiness_parquet, readiness_tables
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError
from runtime.readiness import (
    CheckOptions,
    ReadinessReport,
    SourceTable,
    State,
    TableReadiness,
    metrics,
    wait_until_ready,
)
from runtime.readiness_footer import Footer
from runtime.readiness_sources import duration_text, parse_duration, source_from_text

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
TABLE = SourceTable("silver_linkedin", "job_postings")
ENTRY: dict[str, Any] = {
    "Name": "job_postings",
    "StorageDescriptor": {
        "Location": "s3://lake/silver/job_postings/",
        "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    },
}


def report(*states: State) -> ReadinessReport:
    """Return a report with these states."""
    return ReadinessReport(NOW, tuple(TableReadiness(f"a.t{n}", state, "") for n, state in enumerate(states)))


# --- the answer ---


@pytest.mark.parametrize(
    ("states", "exit_code"),
    [
        (("ready",), 0),
        (("ready", "ready"), 0),
        (("ready", "missing"), 1),
        (("ready", "empty"), 1),
        (("stale",), 1),
        (("unreadable",), 1),
        (("ready", "forbidden"), 2),
        (("missing", "unreachable"), 2),
        (("unreachable", "ready"), 2),
        (("missing", "empty", "stale", "unreadable", "ready", "forbidden"), 2),
        ((), 1),
    ],
)
def test_the_exit_code_is_the_worst_of_the_tables(states: tuple[State, ...], exit_code: int) -> None:
    assert report(*states).exit_code == exit_code
    assert report(*states).ready is (exit_code == 0)


def test_the_report_is_json_with_a_versioned_schema() -> None:
    table = TableReadiness("a.t", "ready", "", rows=3, modified=NOW)
    content = json.loads(json.dumps(ReadinessReport(NOW, (table,)).to_dict()))
    assert content["schema"] == "goldlake.check/1"
    assert content["ready"] is True
    assert content["tables"][0]["modified"] == "2026-01-15T12:00:00+00:00"


# --- dbt's sources ---


def project(tmp_path: Path, text: str, name: str = "models/staging/_sources.yml") -> Path:
    """Write a yml file into a dbt project and return the project."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return tmp_path


def test_sources_give_database_name_freshness_and_allow_empty(tmp_path: Path) -> None:
    text = """
version: 2
sources:
  - name: silver_ai
    schema: silver_ai
    meta: {glue_database: silver_ai_enrichment}
    freshness:
      warn_after: {count: 12, period: hour}
      error_after: {count: 2, period: day}
    tables:
      - name: job_enrichment
      - name: fixed
        identifier: Fixed_V2
        freshness: null
        config: {meta: {allow_empty: true, glue_database: other}}
  - name: plain
    tables: [{name: t, freshness: {error_after: {count: 30, period: minute}}}]
  - name: named
    schema: its_schema
    config: {freshness: {error_after: {count: 1, period: day}}}
    tables: [{name: t}]
"""
    assert readiness.sources_from_project(project(tmp_path, text)) == [
        SourceTable("its_schema", "t", error_after=timedelta(days=1)),
        SourceTable("other", "fixed_v2", allow_empty=True),
        SourceTable("plain", "t", error_after=timedelta(minutes=30)),
        SourceTable(
            "silver_ai_enrichment", "job_enrichment", warn_after=timedelta(hours=12), error_after=timedelta(days=2)
        ),
    ]


def test_disabled_sources_and_other_yml_files_are_passed_over(tmp_path: Path) -> None:
    project(tmp_path, "models: [{name: m}]", "models/m.yml")
    project(tmp_path, "", "models/empty.yml")
    project(tmp_path, "sources: [{name: x, tables: [{name: t}]}]", "target/x.yml")
    text = """
sources:
  - {name: a, config: {enabled: false}, tables: [{name: t}]}
  - {name: b, tables: [{name: t, config: {enabled: false}}, {name: u}]}
"""
    assert readiness.sources_from_project(project(tmp_path, text, "models/a.yaml")) == [SourceTable("b", "u")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models: []", "declares no enabled source tables"),
        ("sources: [{name: a, tables: []}]", "declares no enabled source tables"),
        ("sources: {a: b}", "expected a list"),
        ("sources: [{name: a, tables: [t]}]", "expected a list"),
        ("sources: [{tables: [{name: t}]}]", "None is no plain name"),
        ("sources: [{name: a, schema: \"{{ var('s') }}\", tables: [{name: t}]}]", "renders no Jinja"),
        ("sources: [{name: a, freshness: {error_after: {count: 1, period: week}}, tables: [{name: t}]}]", "period"),
        ("sources: [{name: a, freshness: {error_after: {count: x, period: day}}, tables: [{name: t}]}]", "period"),
        ("sources: [", "no readable YAML"),
    ],
)
def test_sources_that_cannot_be_understood_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        readiness.sources_from_project(project(tmp_path, text))


def test_a_folder_without_models_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no dbt project"):
        readiness.sources_from_project(tmp_path)


def test_declared_columns_are_required_unless_the_source_says_otherwise(tmp_path: Path) -> None:
    text = """
sources:
  - name: a
    tables:
      - {name: t, columns: [{name: Id}, {name: seen_at, data_tests: [not_null]}]}
      - {name: u, columns: [{name: id}], config: {meta: {require_columns: false}}}
"""
    assert readiness.sources_from_project(project(tmp_path, text)) == [
        SourceTable("a", "t", columns=("id", "seen_at")),
        SourceTable("a", "u"),
    ]


def test_of_two_descriptions_of_a_table_the_stricter_holds(tmp_path: Path) -> None:
    text = """
sources:
  - name: a
    schema: s
    meta: {allow_empty: true}
    freshness: {error_after: {count: 2, period: day}, warn_after: {count: 1, period: hour}}
    tables: [{name: t, columns: [{name: x}]}]
  - name: b
    schema: s
    freshness: {error_after: {count: 1, period: day}}
    tables: [{name: t, columns: [{name: y}, {name: x}]}]
"""
    assert readiness.sources_from_project(project(tmp_path, text)) == [
        SourceTable("s", "t", False, timedelta(hours=1), timedelta(days=1), ("x", "y"))
    ]


MANIFEST_NODE: dict[str, Any] = {
    "source_name": "silver_ai",
    "schema": "rendered",
    "name": "job_enrichment",
    "identifier": "Job_Enrichment",
    "source_meta": {"allow_empty": True},
    "meta": {"glue_database": "silver_ai_enrichment"},
    "config": {"enabled": True},
    "freshness": {"warn_after": {"count": 7, "period": "day"}, "error_after": {"count": None, "period": None}},
    "columns": {"id": {"name": "ID"}},
}


def test_a_manifest_gives_what_dbt_has_rendered(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    plain = {**MANIFEST_NODE, "meta": {}, "source_meta": {}, "freshness": None, "columns": {}}
    path.write_text(json.dumps({"sources": {"source.p.silver_ai.a": MANIFEST_NODE, "source.p.silver_ai.b": plain}}))
    assert readiness.sources_from_manifest(path) == [
        SourceTable("rendered", "job_enrichment"),
        SourceTable("silver_ai_enrichment", "job_enrichment", True, timedelta(days=7), columns=("id",)),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no readable manifest"),
        ("[]", "no dbt manifest"),
        ("{}", "no dbt manifest"),
        ('{"sources": []}', "no dbt manifest"),
        ('{"sources": {"a": 1}}', "no dbt manifest"),
        ('{"sources": {}}', "declares no enabled source tables"),
        ('{"sources": {"a": {"name": 5, "source_name": "s"}}}', "5 is no plain name"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        readiness.sources_from_manifest(path)


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no readable manifest"):
        readiness.sources_from_manifest(tmp_path / "manifest.json")


# --- tables named one by one ---


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("glue:Silver.Job_Postings", SourceTable("silver", "job_postings")),
        ("s3://lake/landing/events", SourceTable("", "", location="s3://lake/landing/events/")),
        ("s3a://lake/landing/events/", SourceTable("", "", location="s3://lake/landing/events/")),
        ("delta:s3://lake/gold/t", SourceTable("", "", location="s3://lake/gold/t/", delta=True)),
    ],
)
def test_a_table_is_named_by_catalogue_or_by_location(text: str, table: SourceTable) -> None:
    assert source_from_text(text) == table


def test_what_is_asked_of_named_tables_is_kept() -> None:
    found = source_from_text("glue:a.b", max_age=timedelta(hours=1), allow_empty=True, columns=("Id",))
    assert found == SourceTable("a", "b", True, error_after=timedelta(hours=1), columns=("id",))
    assert (found.full_name, source_from_text("s3://a/b").full_name) == ("a.b", "s3://a/b/")


@pytest.mark.parametrize(
    "text",
    ["", "glue:", "glue:a", "glue:.b", "glue:a.", "glue:a b.c", "s3://bucket", "s3://", "delta:a", "a.b", "/tmp/x"],
)
def test_a_table_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        source_from_text(text)


@given(st.integers(1, 36_525 * 86_400))
def test_a_duration_is_read_back_as_it_is_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(duration_text(duration)) == duration


@given(st.text(max_size=12) | st.from_regex(r"[0-9dhms]{1,12}", fullmatch=True))
def test_a_duration_is_understood_or_refused_and_never_another_one(text: str) -> None:
    parts = re.findall(r"([0-9]+)([dhms])", text)
    units = [unit for _, unit in parts]
    well_formed = "".join(map("".join, parts)) == text and units == sorted(set(units), key="dhms".index)
    seconds = sum(int(number) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)
    if well_formed and 1 <= seconds <= 36_525 * 86_400:
        assert parse_duration(text) == timedelta(seconds=seconds)
    else:
        with pytest.raises(ConfigurationError, match="expected a form such as"):
            parse_duration(text)


@pytest.mark.parametrize("text", ["", "10", "0s", "1.5h", "-5m", "5m1h", "10 m", "\u0661m", "9" * 5000 + "s", "1w"])
def test_a_duration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a form such as"):
        parse_duration(text)


# --- footers ---


def parquet_file(folder: Path, query: str, options: str = "") -> bytes:
    """Return a Parquet file with the rows of a query."""
    path = folder / "written.parquet"
    with duckdb.connect() as database:
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet{options})")
    return path.read_bytes()


def metadata(file: bytes) -> bytes:
    """Return a Parquet file's serialised metadata."""
    return file[-8 - int.from_bytes(file[-8:-4], "little") : -8]


@pytest.mark.parametrize(
    ("query", "footer"),
    [
        ("SELECT 1 AS a WHERE false", Footer(0, ("a",))),
        ('SELECT i AS a, i::VARCHAR AS "Größe" FROM range(70000) r(i)', Footer(70_000, ("a", "Größe"))),
        (
            "SELECT {'x': 1, 'y': {'z': [1, 2]}} AS s, [1] AS l, MAP {'k': 1} AS m, 1.5::DECIMAL(9, 2) AS d",
            Footer(1, ("s", "l", "m", "d")),
        ),
        (
            "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(40)),
            Footer(1, tuple(f"c{n}" for n in range(40))),
        ),
    ],
)
def test_a_footer_tells_rows_and_top_level_columns(tmp_path: Path, query: str, footer: Footer) -> None:
    assert readiness_footer.parse(metadata(parquet_file(tmp_path, query)), "f") == footer


def test_no_broken_footer_does_anything_but_say_so(tmp_path: Path) -> None:
    whole = metadata(parquet_file(tmp_path, "SELECT 1 AS a, {'b': [1]} AS s"))
    for cut in range(len(whole) // 2):
        with pytest.raises(FailedError, match=r"f\.parquet is not a readable Parquet file"):
            readiness_footer.parse(whole[: cut % 40], "f.parquet")
        changed = bytes(byte ^ (0xFF if at == cut else 0) for at, byte in enumerate(whole))
        with contextlib.suppress(FailedError):
            readiness_footer.parse(changed, "f.parquet")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_footer_are_refused(content: bytes) -> None:
    try:
        found = readiness_footer.parse(content, "f.parquet")
    except FailedError:
        return
    assert found.rows >= 0


@pytest.mark.parametrize(
    "content", [b"\x1c" * 2000, b"\x19\xfc\xff\xff\xff\xff\x0f", b"\x1d\x00", b"\x16" + b"\xff" * 20]
)
def test_a_footer_nested_or_long_without_end_is_refused_at_once(content: bytes) -> None:
    with pytest.raises(FailedError):
        readiness_footer.parse(content, "f")


# --- the check, against stubs ---


NOWHERE = Connection("http://127.0.0.1:9", region="us-east-1")


class Stubbed:
    """Clients of Glue and S3 that answer from stubs, in order."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self.clients = clients
        self.glue = Stubber(clients["glue"])
        self.s3 = Stubber(clients["s3"])

    def check(self, *tables: SourceTable, count: bool = False) -> ReadinessReport:
        # One worker: the stubs' answers have an order.
        options = CheckOptions(workers=1, count=count)
        return readiness.check(NOWHERE, tables or (TABLE,), now=NOW, options=options, clients=self.clients)

    def done(self) -> None:
        """Fail when an answer was not asked for."""
        self.glue.assert_no_pending_responses()
        self.s3.assert_no_pending_responses()


@pytest.fixture(scope="module")
def clients() -> dict[str, Any]:
    return {name: NOWHERE.client(name) for name in ("glue", "s3")}


@pytest.fixture
def aws(clients: dict[str, Any]) -> Iterator[Stubbed]:
    stubbed = Stubbed(clients)
    with stubbed.glue, stubbed.s3:
        yield stubbed


PREFIX = "silver/job_postings/"


def lists(
    aws: Stubbed, *keys: str, modified: datetime = NOW, token: str | None = None, more: str | None = None
) -> None:
    """Let S3 list the keys, as the page after `token`; `more` is the next page's token."""
    contents = [{"Key": f"{PREFIX}{key}", "Size": 9, "LastModified": modified} for key in keys]
    answer = {
        "Contents": contents,
        "IsTruncated": more is not None,
        **({"NextContinuationToken": more} if more else {}),
    }
    asked = {"Bucket": "lake", "Prefix": PREFIX, **({"ContinuationToken": token} if token else {})}
    aws.s3.add_response("list_objects_v2", answer, asked)


def has_no_log_beside(aws: Stubbed) -> None:
    """Let S3 say that there is no Delta log."""
    aws.s3.add_response("list_objects_v2", {}, {"Bucket": "lake", "Prefix": f"{PREFIX}_delta_log/", "MaxKeys": 1})


def rows_are(monkeypatch: pytest.MonkeyPatch, *rows: int, columns: Sequence[str] = ("a",)) -> list[str]:
    """Let footers say `rows`, one after another and the last for all others; return the keys that were read."""
    read: list[str] = []

    def footer(_store: Any, _bucket: str, key: str) -> Footer:
        read.append(key.removeprefix(PREFIX))
        return Footer(rows[min(len(read), len(rows)) - 1], tuple(columns))

    monkeypatch.setattr(readiness_parquet, "_footer", footer)
    return read


def test_a_missing_permission_on_glue_is_forbidden_and_exit_2(aws: Stubbed) -> None:
    aws.glue.add_client_error("get_table", "AccessDeniedException", "not allowed", 400)
    found = aws.check()
    assert [table.state for table in found.tables] == ["forbidden"]
    assert "not allowed" in found.tables[0].detail
    assert found.exit_code == 2


def test_a_missing_permission_on_the_bucket_is_forbidden_and_exit_2(aws: Stubbed) -> None:
    aws.glue.add_response("get_table", {"Table": ENTRY})
    aws.s3.add_client_error("list_objects_v2", "AccessDenied", "Access Denied", 403)
    found = aws.check()
    assert found.tables[0].state == "forbidden"
    assert found.tables[0].location == "s3://lake/silver/job_postings/"
    assert found.exit_code == 2


def test_a_table_that_glue_does_not_know_is_missing_and_exit_1(aws: Stubbed) -> None:
    aws.glue.add_client_error("get_table", "EntityNotFoundException", "absent", 400)
    found = aws.check()
    assert found.tables[0].state == "missing"
    assert found.exit_code == 1


def test_a_bucket_that_is_not_there_is_a_missing_table(aws: Stubbed) -> None:
    aws.glue.add_response("get_table", {"Table": ENTRY})
    aws.s3.add_client_error("list_objects_v2", "NoSuchBucket", "absent", 404)
    assert aws.check().tables[0].state == "missing"


def test_hidden_files_and_folder_markers_are_no_data(aws: Stubbed) -> None:
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "", ".a.crc", "_SUCCESS", "_temporary/0/part.parquet")
    found = aws.check()
    assert found.tables[0].state == "missing"
    assert "no files" in found.tables[0].detail


def test_one_table_that_cannot_be_reached_keeps_the_rest_from_being_tried(aws: Stubbed) -> None:
    aws.glue.add_client_error("get_table", "EntityNotFoundException", "absent", 400)
    aws.glue.add_client_error("get_table", "ThrottlingException", "slow down", 400)
    found = aws.check(SourceTable("a", "one"), SourceTable("a", "two"), SourceTable("a", "three"))
    assert [table.state for table in found.tables] == ["missing", "unreachable", "unreachable"]
    assert found.tables[2].detail == "not tried, since another table could not be reached"
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("entry", "detail"),
    [
        ({"Name": "t", "TableType": "VIRTUAL_VIEW"}, "view"),
        ({"Name": "t", "Parameters": {"table_type": "ICEBERG"}}, "no metadata_location"),
        ({"Name": "t"}, "no location"),
        ({"Name": "t", "StorageDescriptor": {"Location": "hdfs://a/b"}}, "expected s3://"),
        ({"Name": "t", "StorageDescriptor": {"Location": "s3://whole-bucket/"}}, "expected s3://"),
    ],
)
def test_what_the_check_does_not_understand_is_unreadable(aws: Stubbed, entry: dict[str, Any], detail: str) -> None:
    aws.glue.add_response("get_table", {"Table": entry})
    found = aws.check()
    assert found.tables[0].state == "unreadable"
    assert detail in found.tables[0].detail
    assert found.exit_code == 1


def test_a_format_that_is_neither_parquet_nor_delta_is_unreadable(aws: Stubbed) -> None:
    entry = {"Name": "t", "StorageDescriptor": {"Location": "s3://lake/silver/job_postings", "InputFormat": "Text"}}
    aws.glue.add_response("get_table", {"Table": entry})
    lists(aws, "a.csv")
    found = aws.check().tables[0]
    assert (found.state, found.detail) == ("unreadable", "the format is Text: expected Parquet, Delta or Iceberg")


@pytest.mark.parametrize(
    ("table", "rows", "age", "state"),
    [
        (SourceTable("a", "t"), 5, timedelta(days=900), "ready"),
        (SourceTable("a", "t"), 0, timedelta(), "empty"),
        (SourceTable("a", "t", allow_empty=True), 0, timedelta(), "ready"),
        (SourceTable("a", "t", error_after=timedelta(days=1)), 5, timedelta(hours=24), "ready"),
        (SourceTable("a", "t", error_after=timedelta(days=1)), 5, timedelta(hours=25), "stale"),
        (SourceTable("a", "t", error_after=timedelta(days=1), allow_empty=True), 0, timedelta(hours=25), "stale"),
        (SourceTable("a", "t", warn_after=timedelta(days=1)), 5, timedelta(hours=25), "ready"),
    ],
)
def test_rows_and_age_decide(
    aws: Stubbed, monkeypatch: pytest.MonkeyPatch, table: SourceTable, rows: int, age: timedelta, state: State
) -> None:
    rows_are(monkeypatch, rows)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet", modified=NOW - age)
    found = aws.check(table).tables[0]
    assert found.state == state
    assert (found.rows, found.age_seconds, found.exact) == (rows, age.total_seconds(), True)
    assert (found.warning is not None) is (table.warn_after is not None)


def test_a_late_table_is_ready_with_a_warning_that_says_how_late(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_are(monkeypatch, 5)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet", modified=NOW - timedelta(hours=30))
    found = aws.check(SourceTable("a", "t", warn_after=timedelta(days=1), error_after=timedelta(days=2)))
    assert found.tables[0].warning == "last written 30 h ago; expected within 24 h"
    assert found.exit_code == 0


def test_a_table_takes_one_listing_and_one_footer(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, 3)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet", "b.parquet", "c.parquet")
    found = aws.check().tables[0]
    aws.done()
    assert (found.state, found.rows, found.exact, found.files, len(read)) == ("ready", 3, False, 3, 1)
    assert found.detail == "at least 3 rows in 3 files"


def test_the_newest_file_is_looked_at_first(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, 3)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    contents = [
        {"Key": f"{PREFIX}{name}", "Size": 9, "LastModified": NOW - timedelta(hours=hours)}
        for name, hours in (("a", 3), ("b", 1), ("c", 2))
    ]
    aws.s3.add_response("list_objects_v2", {"Contents": contents})
    assert aws.check().tables[0].age_seconds == 3600
    assert read == ["b"]


def test_files_are_looked_at_until_one_has_a_row(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, *[0] * 65, 7)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, *(f"{number}.parquet" for number in range(200)))
    found = aws.check().tables[0]
    # The newest alone, and then by the batch.
    assert (found.state, found.exact, len(read)) == ("ready", False, 129)


def test_a_table_of_empty_files_is_empty_however_many(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, 0)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, *(f"a{number}.parquet" for number in range(100)), more="next")
    lists(aws, "z.parquet", token="next")
    found = aws.check().tables[0]
    assert (found.state, found.rows, found.exact, len(read)) == ("empty", 0, True, 101)


def test_an_allowed_emptiness_is_not_looked_into(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, 0)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet", "b.parquet")
    found = aws.check(SourceTable("a", "t", allow_empty=True)).tables[0]
    assert (found.state, found.detail, len(read)) == ("ready", "at least 0 rows in 2 files", 1)


def test_all_rows_are_counted_when_asked_for(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_are(monkeypatch, 2)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet", "b.parquet", more="next")
    lists(aws, "c.parquet", token="next")
    found = aws.check(count=True).tables[0]
    aws.done()
    assert (found.rows, found.exact, found.complete, len(read)) == (6, True, True, 3)


def test_a_long_listing_ends_where_enough_is_known(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_are(monkeypatch, 2)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "b.parquet", more="next")
    found = aws.check().tables[0]
    aws.done()
    assert (found.state, found.complete, found.detail) == ("ready", False, "at least 2 rows in at least 1 files")


def test_a_long_listing_goes_on_until_a_fresh_file_is_found(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_are(monkeypatch, 2)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "b.parquet", modified=NOW - timedelta(days=9), more="2")
    lists(aws, "c.parquet", modified=NOW - timedelta(hours=30), token="2", more="3")
    lists(aws, "d.parquet", modified=NOW - timedelta(hours=1), token="3", more="4")
    found = aws.check(SourceTable("a", "t", warn_after=timedelta(hours=2), error_after=timedelta(days=2))).tables[0]
    aws.done()
    assert (found.state, found.age_seconds, found.warning) == ("ready", 3600, None)


def test_a_listing_without_end_is_left_and_the_table_is_not_ready(
    aws: Stubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness_parquet, "LISTED_OBJECTS", 2)
    rows_are(monkeypatch, 0)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "b.parquet", more="2")
    lists(aws, "c.parquet", token="2", more="3")
    found = aws.check().tables[0]
    assert (found.state, found.detail) == ("unreadable", "the number of rows cannot be told")


def test_a_listing_of_hidden_files_without_end_is_left_too(aws: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness_parquet, "LISTED_OBJECTS", 2)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "_temporary/b.parquet", "_temporary/c.parquet", more="2")
    found = aws.check().tables[0]
    assert found.state == "missing"
    assert found.detail.endswith("among its first 2 objects")


@pytest.mark.parametrize(("last_key", "asks_again"), [("Z.parquet", True), ("b.parquet", False)])
def test_a_delta_log_is_asked_for_only_where_the_listing_ended_before_it(
    aws: Stubbed, monkeypatch: pytest.MonkeyPatch, last_key: str, asks_again: bool
) -> None:
    rows_are(monkeypatch, 2)
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, last_key, more="next")
    if asks_again:
        has_no_log_beside(aws)
    assert aws.check().tables[0].state == "ready"
    aws.done()


@pytest.mark.parametrize(
    ("declared", "written", "required", "missing"),
    [
        (["id", "seen_at"], ["ID", "Seen_At"], ("id", "seen_at"), None),
        (["id"], ["id", "seen_at"], ("id", "seen_at"), "seen_at"),
        (["id", "seen_at"], ["id"], ("id", "seen_at"), "seen_at"),
        ([], ["id"], ("id", "dt"), None),
        (["id"], ["id"], ("id.part",), None),
        (["id"], ["id"], ("other.part", "more"), "other.part, more"),
    ],
)
def test_a_table_without_a_required_column_is_unreadable(
    aws: Stubbed,
    monkeypatch: pytest.MonkeyPatch,
    declared: list[str],
    written: list[str],
    required: tuple[str, ...],
    missing: str | None,
) -> None:
    rows_are(monkeypatch, 2, columns=written)
    columns = [{"Name": name, "Type": "string"} for name in declared]
    entry = {
        **ENTRY,
        "StorageDescriptor": {**ENTRY["StorageDescriptor"], "Columns": columns},
        "PartitionKeys": [{"Name": "dt", "Type": "string"}],
    }
    aws.glue.add_response("get_table", {"Table": entry})
    lists(aws, "dt=1/a.parquet")
    found = aws.check(SourceTable("a", "t", columns=required)).tables[0]
    assert found.state == ("unreadable" if missing else "ready")
    if missing:
        assert found.detail == f"required columns are missing: {missing}"


def test_a_location_needs_no_catalogue_and_its_folders_name_columns(
    aws: Stubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_are(monkeypatch, 2)
    lists(aws, "Year=2026/a.parquet")
    table = SourceTable("", "", columns=("a", "year"), location=f"s3://lake/{PREFIX}")
    found = aws.check(table).tables[0]
    aws.done()
    assert (found.table, found.state, found.format) == (f"s3://lake/{PREFIX}", "ready", "parquet")


def test_an_emulator_that_does_not_run_is_unreachable_and_exit_2() -> None:
    options = CheckOptions(attempts=1)
    found = readiness.check(Connection("http://127.0.0.1:9", region="us-east-1"), [TABLE], options=options)
    assert found.tables[0].state == "unreachable"
    assert found.exit_code == 2


def test_nothing_to_check_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no tables"):
        readiness.check(Connection("http://127.0.0.1:9"), [])


def test_a_file_of_zero_bytes_is_unreadable_as_aws_answers_it(aws: Stubbed) -> None:
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet")
    aws.s3.add_client_error("get_object", "InvalidRange", "The requested range is not satisfiable", 416)
    found = aws.check().tables[0]
    assert found.state == "unreadable"
    assert "s3://lake/silver/job_postings/a.parquet is not a Parquet file" in found.detail


def test_a_file_that_may_not_be_read_is_forbidden(aws: Stubbed) -> None:
    aws.glue.add_response("get_table", {"Table": ENTRY})
    lists(aws, "a.parquet")
    aws.s3.add_client_error("get_object", "AccessDenied", "Access Denied", 403)
    assert aws.check().exit_code == 2


def test_every_client_has_a_connection_for_each_thread_and_a_limit_on_each_request() -> None:
    options = CheckOptions(workers=7, connect_seconds=1, read_seconds=2, attempts=4)
    for service in ("glue", "s3"):
        config = readiness.client(Connection("http://127.0.0.1:9"), service, options).meta.config
        assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (14, 1, 2)
        assert config.retries["total_max_attempts"] == 4


# --- many tables of a database ---

MANY = [SourceTable("silver", f"t{number}") for number in range(readiness_tables.LISTED_TABLES)]


def entries(*names: str) -> list[dict[str, Any]]:
    """Return Glue entries that end the check of each table: views."""
    return [{"Name": name, "TableType": "VIRTUAL_VIEW"} for name in names]


def test_many_tables_of_a_database_are_asked_for_by_the_page(aws: Stubbed) -> None:
    names = [table.name for table in MANY]
    pages: list[dict[str, Any]] = [
        {"TableList": entries(*names[:5], "other"), "NextToken": "n"},
        {"TableList": entries(*names[5:])},
    ]
    aws.glue.add_response("get_tables", pages[0], {"DatabaseName": "silver", "MaxResults": 100})
    aws.glue.add_response("get_tables", pages[1], {"DatabaseName": "silver", "MaxResults": 100, "NextToken": "n"})
    assert {table.detail for table in aws.check(*MANY).tables} == {
        "the Glue entry is of the kind view, which is not checked"
    }
    aws.done()


def test_a_list_that_has_all_is_not_read_on(aws: Stubbed) -> None:
    names = [table.name for table in MANY]
    aws.glue.add_response("get_tables", {"TableList": entries(*names), "NextToken": "n"})
    aws.check(*MANY)
    aws.done()


def test_a_table_that_is_not_in_the_list_is_asked_for_by_name(aws: Stubbed) -> None:
    """Lake Formation leaves tables out of a list without a word."""
    aws.glue.add_response("get_tables", {"TableList": entries(*(table.name for table in MANY[1:]))})
    aws.glue.add_client_error("get_table", "AccessDeniedException", "Lake Formation says no", 400)
    assert [table.state for table in aws.check(*MANY).tables][:2] == ["forbidden", "unreadable"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "EntityNotFoundException"])
def test_where_listing_is_refused_each_table_is_asked_for(aws: Stubbed, code: str) -> None:
    aws.glue.add_client_error("get_tables", code, "no", 400)
    for entry in entries(*(table.name for table in MANY)):
        aws.glue.add_response("get_table", {"Table": entry})
    assert {table.state for table in aws.check(*MANY).tables} == {"unreadable"}
    aws.done()


def test_a_catalogue_that_cannot_be_reached_is_asked_once(aws: Stubbed) -> None:
    aws.glue.add_client_error("get_tables", "ThrottlingException", "slow down", 400)
    found = aws.check(*MANY)
    assert {table.state for table in found.tables} == {"unreachable"}
    assert found.exit_code == 2
    aws.done()


# --- Iceberg ---

METADATA: dict[str, Any] = {
    "format-version": 2,
    "location": "s3://lake/ice/t",
    "current-schema-id": 1,
    "schemas": [
        {"schema-id": 0, "fields": [{"id": 1, "name": "old"}]},
        {"schema-id": 1, "fields": [{"id": 1, "name": "Id"}, {"id": 2, "name": "seen_at"}]},
    ],
    "current-snapshot-id": 8744736658442914487,
    "snapshots": [
        {"snapshot-id": 1, "timestamp-ms": 0, "summary": {"operation": "append", "total-records": "1"}},
        {
            "snapshot-id": 8744736658442914487,
            "timestamp-ms": int((NOW - timedelta(hours=3)).timestamp() * 1000),
            "summary": {"operation": "append", "total-records": "12", "total-data-files": "2"},
        },
    ],
}
ICEBERG_ENTRY = {
    "Name": "t",
    "Parameters": {"table_type": "ICEBERG", "metadata_location": "s3://lake/ice/t/metadata/2.metadata.json"},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the metadata with other values in the current snapshot's summary."""
    old, new = METADATA["snapshots"]
    summary = {key: value for key, value in {**new["summary"], **changes}.items() if value is not None}
    return {**METADATA, "snapshots": [old, {**new, "summary": summary}]}


def iceberg(aws: Stubbed, content: bytes | dict[str, Any], table: SourceTable = TABLE) -> TableReadiness:
    """Return the readiness of an Iceberg table with this metadata."""
    body = json.dumps(content).encode() if isinstance(content, dict) else content
    aws.glue.add_response("get_table", {"Table": ICEBERG_ENTRY})
    stream = StreamingBody(io.BytesIO(body), len(body))
    aws.s3.add_response("get_object", {"Body": stream}, {"Bucket": "lake", "Key": "ice/t/metadata/2.metadata.json"})
    return aws.check(table).tables[0]


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_an_iceberg_table_is_told_by_its_current_snapshot(aws: Stubbed, pack: Any) -> None:
    found = iceberg(aws, pack(json.dumps(METADATA).encode()), SourceTable("a", "t", columns=("id", "seen_at")))
    assert (found.state, found.format, found.rows, found.files) == ("ready", "iceberg", 12, 2)
    assert (found.snapshot, found.age_seconds, found.location) == ("8744736658442914487", 10_800, "s3://lake/ice/t")
    assert found.detail == "12 rows in 2 files"


@pytest.mark.parametrize(
    ("content", "state", "detail"),
    [
        ({**METADATA, "current-snapshot-id": -1}, "empty", "no rows in 0 files"),
        ({**METADATA, "current-snapshot-id": None, "snapshots": []}, "empty", "no rows in 0 files"),
        (changed(**{"total-records": "0"}), "empty", "no rows in 2 files"),
        (changed(**{"total-position-deletes": "12"}), "empty", "no rows in 2 files"),
        (changed(**{"total-position-deletes": "5"}), "ready", "7 rows in 2 files"),
        (changed(**{"total-equality-deletes": "5"}), "ready", "at most 12 rows in 2 files"),
        (changed(**{"total-records": None}), "unreadable", "the number of rows cannot be told"),
        (changed(**{"total-records": "many"}), "unreadable", "is broken"),
        ({**METADATA, "current-snapshot-id": 5}, "unreadable", "does not have its current snapshot"),
        ({**METADATA, "current-schema-id": 5}, "unreadable", "no schema 5"),
        ({"format-version": 2}, "unreadable", "is broken"),
        (b"", "unreadable", "is no JSON"),
        (b"[]", "unreadable", "is broken"),
        (b"\x1f\x8bgarbage", "unreadable", "is no JSON"),
    ],
)
def test_what_iceberg_metadata_says_decides(
    aws: Stubbed, content: bytes | dict[str, Any], state: State, detail: str
) -> None:
    found = iceberg(aws, content)
    assert found.state == state
    assert detail in found.detail


def test_the_first_iceberg_format_has_one_schema(aws: Stubbed) -> None:
    old = {key: value for key, value in METADATA.items() if key not in ("schemas", "current-schema-id")}
    found = iceberg(aws, {**old, "schema": {"fields": [{"name": "id"}]}}, SourceTable("a", "t", columns=("id", "no")))
    assert found.detail == "required columns are missing: no"


def test_an_iceberg_table_whose_last_snapshot_is_old_is_stale(aws: Stubbed) -> None:
    assert iceberg(aws, METADATA, SourceTable("a", "t", error_after=timedelta(hours=2))).state == "stale"


@pytest.mark.parametrize(
    ("code", "status", "state"),
    [("NoSuchKey", 404, "missing"), ("AccessDenied", 403, "forbidden"), ("SlowDown", 503, "unreachable")],
)
def test_iceberg_metadata_that_cannot_be_had_has_its_own_state(
    aws: Stubbed, code: str, status: int, state: State
) -> None:
    aws.glue.add_response("get_table", {"Table": ICEBERG_ENTRY})
    aws.s3.add_client_error("get_object", code, "no", status)
    assert aws.check().tables[0].state == state


# --- waiting ---


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def waited(*looks: tuple[State, ...], wait: int = 60, poll: int = 15) -> tuple[ReadinessReport, list[float], list[str]]:
    """Wait while tables are in these states, the last for ever; return report, pauses and what was said."""
    clock, said, left = Clock(), list[str](), list(looks)

    def look() -> ReadinessReport:
        return report(*(left.pop(0) if len(left) > 1 else left[0]))

    found = wait_until_ready(
        look,
        wait=timedelta(seconds=wait),
        poll=timedelta(seconds=poll),
        say=said.append,
        clock=lambda: clock.now,
        sleep=clock.sleep,
    )
    return found, clock.slept, said


def test_who_is_ready_at_once_does_not_wait() -> None:
    found, slept, said = waited(("ready",))
    assert (found.exit_code, slept, said) == (0, [], [])


def test_the_wait_ends_at_the_first_look_that_finds_all_ready() -> None:
    found, slept, said = waited(("missing",), ("empty",), ("ready",), ("missing",))
    assert (found.exit_code, slept) == (0, [15, 15])
    assert said[0] == "0 of 1 tables ready; a.t0 is missing; waiting up to 1m"
    assert said[1] == "0 of 1 tables ready; a.t0 is empty; waiting up to 45s"


def test_the_wait_ends_with_the_last_answer_when_the_time_is_over() -> None:
    found, slept, said = waited(("stale",), wait=40)
    assert (found.exit_code, slept, len(said)) == (1, [15, 15, 10], 3)


def test_a_store_that_cannot_be_reached_is_waited_for() -> None:
    found, slept, _ = waited(("unreachable",), ("missing",), ("ready",))
    assert (found.exit_code, len(slept)) == (0, 2)
    assert waited(("unreachable",))[0].exit_code == 2


def test_what_is_forbidden_is_not_waited_for() -> None:
    found, slept, _ = waited(("missing", "missing"), ("missing", "forbidden"), ("ready",))
    assert (found.exit_code, slept) == (2, [15])


# --- metrics ---


def test_metrics_are_one_document_of_cloudwatchs_embedded_format() -> None:
    states: tuple[State, ...] = ("ready", "ready", "missing", "forbidden")
    found = ReadinessReport(NOW, report(*states).tables, 1.25)
    document = json.loads(json.dumps(metrics(found, {"FunctionName": "gold-check"})))
    assert document["_aws"]["Timestamp"] == int(NOW.timestamp() * 1000)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert set(document["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert directive["Namespace"] == "Goldlake"
    assert directive["Dimensions"] == [["FunctionName"]]
    # Every reference has its target at the root: text for a dimension, a number for a metric.
    assert document["FunctionName"] == "gold-check"
    for definition in directive["Metrics"]:
        assert set(definition) == {"Name", "Unit"}
        assert type(document[definition["Name"]]) in (int, float)
    assert {name: value for name, value in document.items() if name not in ("_aws", "FunctionName")} == {
        "TablesReady": 2,
        "TablesNotReady": 2,
        "TablesMissing": 1,
        "TablesEmpty": 0,
        "TablesStale": 0,
        "TablesUnreadable": 0,
        "TablesForbidden": 1,
        "TablesUnreachable": 0,
        "Seconds": 1.25,
    }
    assert [item["Unit"] for item in directive["Metrics"]] == ["Count"] * 8 + ["Seconds"]


def test_the_function_prints_its_metrics_as_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lambdas.check import handler

    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "gold-check")
    monkeypatch.setattr(handler, "project_dir", Path)
    monkeypatch.setattr(handler, "sources_from_project", lambda _project: [])
    monkeypatch.setattr(handler, "check", lambda _aws, _tables: report("ready", "stale"))
    answer = handler.handle({}, None)
    out = capsys.readouterr().out
    assert out.count(os.linesep) == 1
    assert json.loads(out)["FunctionName"] == "gold-check"
    assert json.loads(out)["TablesStale"] == 1
    assert answer["statusCode"] == 1


def test_the_summary_names_the_tables_that_are_waited_for() -> None:
    assert report("ready", "stale").summary == "1 of 2 tables ready; a.t1 is stale"
    missing: list[State] = ["missing"] * 40
    many = report(*missing).summary
    assert many.endswith("a.t9 is missing, and 30 more")
