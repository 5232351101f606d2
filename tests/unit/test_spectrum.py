"""What Glue says of a table, and what statements say of tables: pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.redshift import options, statements, unload
from local.redshift.spectrum import tables
from local.redshift.spectrum.tables import Part, StoredObject
from local.redshift.statements import split, tokens
from local.redshift.wire import RedshiftError


@pytest.mark.parametrize(
    ("glue", "duckdb"),
    [
        ("string", "VARCHAR"),
        (" BigInt ", "BIGINT"),
        ("varchar(20)", "VARCHAR"),
        ("decimal", "DECIMAL(10,0)"),
        ("decimal(12,2)", "DECIMAL(12,2)"),
        ("decimal(38, 10)", "DECIMAL(38,10)"),
    ],
)
def test_a_glue_type_becomes_a_type_of_the_copy(glue: str, duckdb: str) -> None:
    assert tables.duckdb_type(glue) == duckdb


@pytest.mark.parametrize(
    "glue", ["", "array<string>", "struct<a:int>", "decimal(39,2)", "decimal(2,5)", "int); drop table x; --"]
)
def test_an_unsupported_or_hostile_glue_type_is_not_shown(glue: str) -> None:
    assert tables.duckdb_type(glue) is None


def test_types_are_shown_in_words_that_a_cast_takes() -> None:
    shown = [tables.redshift_type(kind) for kind in ("string", "decimal(12, 2)", "double", "array<int>", "varchar(9)")]
    assert shown == ["varchar(65535)", "numeric(12,2)", "double precision", "array<int>", "varchar(9)"]


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("s3://lake/silver/t", ("lake", "silver/t/")),
        ("s3a://lake/silver/t/", ("lake", "silver/t/")),
        ("s3://lake/a?b#c", ("lake", "a?b#c/")),
        ("s3://lake", ("lake", "")),
        ("hdfs://lake/silver", None),
        ("", None),
    ],
)
def test_only_s3_locations_are_read(location: str, place: tuple[str, str] | None) -> None:
    assert tables.bucket_and_prefix(location) == place


def described(columns: dict[str, str], **members: Any) -> dict[str, Any]:
    listed = [{"Name": name, "Type": kind} for name, kind in columns.items()]
    return {"Name": "t", "StorageDescriptor": {"Location": "s3://lake/t/", "Columns": listed}} | members


def test_fingerprints_tell_new_rows_from_new_columns() -> None:
    narrow = tables.external_table("x", described({"a": "string"}))
    wide = tables.external_table("x", described({"a": "string", "b": "date"}))
    first, second = StoredObject("lake", "t/1", "e1", 10), StoredObject("lake", "t/2", "e2", 10)
    part = Part("s3://lake/t/")
    assert narrow.columns_fingerprint != wide.columns_fingerprint
    before = narrow.content_fingerprint([(part, [first])])
    assert before != narrow.content_fingerprint([(part, [first, second])])
    assert narrow.content_fingerprint([(part, [second, first])]) == narrow.content_fingerprint(
        [(part, [first, second])]
    )
    assert before != wide.content_fingerprint([(part, [first])])
    assert before != narrow.content_fingerprint([(Part("s3://lake/t/", {"k": "1"}), [first])])


def test_iceberg_and_unknown_formats_are_not_taken_for_files() -> None:
    iceberg = tables.external_table("x", described({"a": "string"}, Parameters={"table_type": "ICEBERG"}))
    assert iceberg.format is None
    assert tables.external_table("x", described({"a": "string"})).format == tables.PARQUET


def test_hidden_and_empty_objects_hold_no_rows() -> None:
    for key, size, is_data in (("t/a", 1, True), ("t/a", 0, False), ("t/_x/a", 1, False), ("t/.a", 1, False)):
        assert tables.is_data(StoredObject("b", key, "e", size), "t/") is is_data


@given(st.text(), st.text())
def test_a_text_between_quotes_never_ends_a_statement(before: str, inside: str) -> None:
    quoted = "'" + inside.replace("'", "''") + "'"
    assert len(split(f"select {quoted} as a; select 2")) == 2
    assert tokens(f"select {quoted}")[1].value == inside
    tokens(before)


def test_statements_are_split_where_they_end_and_nowhere_else() -> None:
    body = "create procedure p() as $$ begin a; b; end $$ language plpgsql"
    assert split(f"-- one; two\n{body}; /* ; */ select ';' ;; ") == [f"-- one; two\n{body}", " /* ; */ select ';' "]
    assert split(" ; -- nothing") == []


def test_tables_of_external_schemas_are_found_by_their_names() -> None:
    text = """select s.a, "Odd".x from Silver.T s join "Odd" . "Ta""b" on true -- silver.comment
              where b = 'silver.literal'"""
    assert set(statements.qualified_names(tokens(text), {"silver", "Odd"})) == {
        ("silver", "t"),
        ("Odd", "x"),
        ("Odd", 'Ta"b'),
    }


@pytest.mark.parametrize(
    ("text", "limited"),
    [
        ("select 1 limit 1", True),
        ("select top 5 a from t", True),
        ("select * from (select 1 limit 1)", False),
        ("select 'limit'", False),
    ],
)
def test_only_an_outer_limit_counts(text: str, limited: bool) -> None:
    assert statements.has_outer_limit(tokens(text)) is limited


def test_a_location_that_is_none_of_s3_is_refused() -> None:
    assert options.bucket_and_key("s3://b/k/x") == ("b", "k/x")
    for wrong in ("s3://", "b/k", "s3:///k"):
        with pytest.raises(RedshiftError):
            options.bucket_and_key(wrong)


def test_a_numeric_of_more_digits_than_redshift_has_is_refused() -> None:
    from local.redshift.wire import Field

    with pytest.raises(RedshiftError, match="38 digits"):
        unload._column(Field("n", 1700, (39 << 16) + 4))


def test_a_backslash_in_a_text_escapes_what_ends_it() -> None:
    text = r"unload ('select \'a\' || ''b\\d''') to 's3://x\\y' null as '\N'"
    values = [token.value for token in statements.tokens(text) if token.value is not None]
    assert values == [r"select 'a' || 'b\d'", r"s3://x\y", r"\N"]
