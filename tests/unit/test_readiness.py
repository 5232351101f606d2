"""What dbt's sources mean to the check, and what the check's answer means to its caller."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from runtime import readiness
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.readiness import ReadinessReport, SourceTable, State, TableReadiness

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


# --- the check, against stubs ---


class Stubbed:
    """A connection whose Glue and S3 answer from stubs."""

    def __init__(self) -> None:
        connection = Connection("http://127.0.0.1:9", region="us-east-1")
        self.clients = {name: connection.client(name) for name in ("glue", "s3")}
        self.glue = Stubber(self.clients["glue"])
        self.s3 = Stubber(self.clients["s3"])
        self.glue.activate()
        self.s3.activate()

    def client(self, name: str) -> Any:
        return self.clients[name]

    def check(self, *tables: SourceTable) -> ReadinessReport:
        connection: Any = self
        return readiness.check(connection, tables or (TABLE,), now=NOW)


@pytest.fixture
def aws() -> Stubbed:
    return Stubbed()


def lists(aws: Stubbed, *keys: str, modified: datetime = NOW) -> None:
    """Let S3 say that there is no Delta log, and then list the keys."""
    aws.s3.add_response("list_objects_v2", {}, {"Bucket": "lake", "Prefix": ANY, "MaxKeys": 1})
    contents = [{"Key": f"silver/job_postings/{key}", "Size": 9, "LastModified": modified} for key in keys]
    aws.s3.add_response(
        "list_objects_v2",
        {"Contents": contents, "IsTruncated": False},
        {"Bucket": "lake", "Prefix": "silver/job_postings/"},
    )


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
    lists(aws, "", "_SUCCESS", ".a.crc", "_temporary/0/part.parquet")
    found = aws.check()
    assert found.tables[0].state == "missing"
    assert "no files" in found.tables[0].detail


def test_a_throttled_service_is_unreachable_and_the_rest_is_not_tried(aws: Stubbed) -> None:
    aws.glue.add_client_error("get_table", "EntityNotFoundException", "absent", 400)
    aws.glue.add_client_error("get_table", "ThrottlingException", "slow down", 400)
    found = aws.check(SourceTable("a", "one"), SourceTable("a", "two"), SourceTable("a", "three"))
    assert [table.state for table in found.tables] == ["missing", "unreachable", "unreachable"]
    assert found.tables[2].detail == "not tried, since a.two could not be reached"
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("entry", "detail"),
    [
        ({"Name": "t", "TableType": "VIRTUAL_VIEW"}, "view"),
        ({"Name": "t", "Parameters": {"table_type": "ICEBERG"}}, "iceberg"),
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


def rows_are(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let every footer say `rows`; return the sizes of the batches that were read."""
    batches: list[int] = []

    def footer_rows(_: Any, __: str, keys: list[str], **___: Any) -> dict[str, int]:
        batches.append(len(keys))
        return dict.fromkeys(keys, rows)

    monkeypatch.setattr("runtime.parquet.footer_rows", footer_rows)
    return batches


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
    assert (found.rows, found.age_seconds) == (rows, age.total_seconds())
    assert (found.warning is not None) is (table.warn_after is not None)


def test_a_thousand_files_are_counted_and_of_more_only_until_a_row_is_found(
    aws: Stubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for files, exact, batches in ((1000, True, 16), (1001, False, 1)):
        read = rows_are(monkeypatch, 2)
        aws.glue.add_response("get_table", {"Table": ENTRY})
        lists(aws, *(f"{number}.parquet" for number in range(files)))
        found = aws.check().tables[0]
        assert (found.state, found.exact, len(read)) == ("ready", exact, batches)
        assert found.rows == 2 * sum(read)


def test_an_emulator_that_does_not_run_is_unreachable_and_exit_2() -> None:
    found = readiness.check(Connection("http://127.0.0.1:9", region="us-east-1"), [TABLE])
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


def test_the_summary_names_the_tables_that_are_waited_for() -> None:
    assert report("ready", "stale").summary == "1 of 2 tables ready; a.t1 is stale"
