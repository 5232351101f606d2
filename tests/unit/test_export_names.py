"""Names, types and locations of exported tables; what Delta has no room for is refused by name."""

from __future__ import annotations

import pytest

from runtime.aws import Connection
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.delta.types import Column
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError

AWS = Connection("http://127.0.0.1:1", region="us-east-1")


@pytest.mark.parametrize(
    ("duckdb_type", "delta_type", "cast"),
    [
        ("BIGINT", "long", None),
        ("DECIMAL(18,3)", "decimal(18,3)", None),
        ("TIMESTAMP WITH TIME ZONE", "timestamp", None),
        ("TIMESTAMP", "timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("UUID", "string", "VARCHAR"),
        ("ENUM('a', 'b[]')", "string", "VARCHAR"),
        ("UBIGINT", "decimal(20,0)", "DECIMAL(20,0)"),
        ("VARCHAR[]", {"type": "array", "elementType": "string", "containsNull": True}, None),
        ("UUID[]", {"type": "array", "elementType": "string", "containsNull": True}, "VARCHAR[]"),
    ],
)
def test_a_duckdb_type_becomes_a_delta_type_without_loss(
    duckdb_type: str, delta_type: delta_types.DeltaType, cast: str | None
) -> None:
    assert delta_types.column("a", duckdb_type) == Column("a", delta_type, cast)


@pytest.mark.parametrize(
    "duckdb_type",
    [
        *(
            "INTERVAL",
            "TIME",
            "TIME WITH TIME ZONE",
            "BIT",
            "TIMESTAMP_NS",
            "INTERVAL[]",
        ),
        *("UNION(a INTEGER)", "STRUCT(INTEGER, INTEGER)", "TIME[3]"),
    ],
)
def test_a_type_that_delta_does_not_have_is_refused_with_column_and_type(duckdb_type: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        delta_types.column("duration", duckdb_type)
    assert "'duration'" in raised.value.message
    assert duckdb_type in raised.value.message


@pytest.mark.parametrize("name", ["a b", "a,b", "a;b", "a{b", "a)b", "a\nb", "a=b"])
def test_a_column_name_that_delta_refuses_is_refused_before_anything_is_written(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be exported"):
        delta_types.column(name, "INTEGER")
    with pytest.raises(ConfigurationError, match="cannot be exported"):
        delta_types.column("s", f'STRUCT("{name}" INTEGER)[]')


@pytest.mark.parametrize("name", ["", "a\x00b", "é" * 64])
def test_a_column_name_that_no_sql_identifier_holds_is_refused_with_column_mapping_too(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a usable SQL name"):
        delta_types.column(name, "INTEGER", mapped=True)


def test_columns_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'Id' and 'ID'"):
        delta_types.check_names([Column("Id", "long"), Column("ID", "long")])


def test_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'id' and 'id'"):
        delta_types.check_names([Column("id", "long"), Column("id", "long")])


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without columns"):
        delta_types.check_names([])


def test_the_select_casts_and_quotes() -> None:
    assert delta_types.column('a"b', "UUID").expression == 'CAST("a""b" AS VARCHAR) AS "a""b"'
    assert delta_types.column('a"b', "DATE").expression == '"a""b"'


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a#b", "a?b", "a%20b", "a\nb"])
def test_a_table_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be part of a location"):
        Lake.at("s3://lake/gold", AWS).location(name)


def test_a_target_in_s3_is_bucket_and_prefix() -> None:
    lake = Lake.at("s3://lake/gold/eu/", AWS)
    assert (lake.bucket, lake.prefix, lake.location("t")) == ("lake", "gold/eu", "s3://lake/gold/eu/t")
    assert lake.key("t", "f.parquet") == "gold/eu/t/f.parquet"
    assert Lake.at("s3://lake", AWS).key("t", "f.parquet") == "t/f.parquet"


@pytest.mark.parametrize(
    "target", ["gs://lake/gold", "s3a://lake", "s3://", "s3://Lake", "s3://lake/a%b", "s3://lake//a"]
)
def test_a_target_of_another_kind_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="not an S3 URL"):
        Lake.at(target, AWS)


def test_a_target_in_s3_needs_a_connection() -> None:
    with pytest.raises(ConfigurationError, match="no AWS connection"):
        Lake.at("s3://lake/gold", None)


def test_a_schema_change_is_told_line_by_line() -> None:
    old = [{"name": "a", "type": "integer"}, {"name": "b", "type": "string"}, {"name": "c", "type": "date"}]
    new = [
        {"name": "a", "type": "long"},
        {"name": "c", "type": "date"},
        {"name": "d", "type": "decimal(5,2)"},
    ]
    assert delta_types.schema_changes(old, new) == ["- b string", "+ d decimal(5,2)", "~ a int -> bigint"]


def test_delta_types_have_hive_names_in_glue() -> None:
    struct: delta_types.DeltaType = {
        "type": "struct",
        "fields": [{"name": "a", "type": {"type": "map", "keyType": "string", "valueType": "long"}}],
    }
    assert delta_types.type_text({"type": "array", "elementType": struct, "containsNull": True}) == (
        "array<struct<a:map<string,bigint>>>"
    )
    assert [
        delta_types.type_text(kind) for kind in ("byte", "short", "integer", "long", "decimal(5,2)", "timestamp")
    ] == [
        "tinyint",
        "smallint",
        "int",
        "bigint",
        "decimal(5,2)",
        "timestamp",
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Generic S3 error ↳ error sending request ↳ tcp connect error", UnreachableError),
        (
            "Server returned error status code: 503 Service Unavailable: <Code>SlowDown</Code>",
            UnreachableError,
        ),
        ("status code: 403 Forbidden <Code>AccessDenied</Code><Message>no</Message>", AccessDeniedError),
        ("404 Not Found <Code>NoSuchBucket</Code><Message>no such bucket</Message>", FailedError),
    ],
)
def test_what_delta_rs_says_becomes_an_error_with_the_right_exit_code(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised, delta_log.translated("read"):
        raise OSError(text)
    assert type(raised.value) is kind
