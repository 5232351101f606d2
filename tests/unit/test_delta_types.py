"""Schemas: nested types, what may change between two commits, and the names of column mapping."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pytest
from deltalake import Schema
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import duck, sql
from runtime.delta import types as delta_types
from runtime.delta.types import Column, DeltaType
from runtime.errors import ConfigurationError

EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duck.connect() as connection:
        yield connection


def struct(**fields: DeltaType) -> dict[str, Any]:
    """Return a struct of nullable fields."""
    return struct_of(fields)


def struct_of(fields: Mapping[str, DeltaType]) -> dict[str, Any]:
    """Return a struct of nullable fields of any names."""
    return {"type": "struct", "fields": [field(name, kind) for name, kind in fields.items()]}


def array(element: DeltaType, *, nulls: bool = True) -> dict[str, Any]:
    return {"type": "array", "elementType": element, "containsNull": nulls}


def mapping(key: DeltaType, value: DeltaType) -> dict[str, Any]:
    return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}


def field(name: str, kind: DeltaType, *, nullable: bool = True, **metadata: object) -> dict[str, Any]:
    return {"name": name, "type": kind, "nullable": nullable, "metadata": metadata}


# --- From DuckDB's types to Delta's ---


@pytest.mark.parametrize(
    ("duckdb_type", "delta_type", "cast"),
    [
        ("BOOLEAN", "boolean", None),
        ("UTINYINT", "short", "SMALLINT"),
        ("USMALLINT", "integer", "INTEGER"),
        ("UINTEGER", "long", "BIGINT"),
        ("HUGEINT", "decimal(38,0)", "DECIMAL(38,0)"),
        ("UHUGEINT", "decimal(38,0)", "DECIMAL(38,0)"),
        ("TIMESTAMP_S", "timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("TIMESTAMP_MS", "timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("JSON", "string", "VARCHAR"),
        ("INTEGER[3]", array("integer"), "INTEGER[]"),
        ("UUID[2][]", array(array("string")), "VARCHAR[][]"),
        ("ENUM('a', ')', 'it''s [')[]", array("string"), "VARCHAR[]"),
        ("TIMESTAMP[]", array("timestamp"), "TIMESTAMP WITH TIME ZONE[]"),
        ("DECIMAL(5,2)[]", array("decimal(5,2)"), None),
        ("STRUCT(a INTEGER, b VARCHAR)", struct(a="integer", b="string"), None),
        (
            'STRUCT("in" UUID, b MAP(VARCHAR, STRUCT("q""u" JSON)[]))',
            struct_of({"in": "string", "b": mapping("string", array(struct_of({'q"u': "string"})))}),
            'STRUCT("in" VARCHAR, "b" MAP(VARCHAR, STRUCT("q""u" VARCHAR)[]))',
        ),
        ("MAP(INTEGER, BIGINT)", mapping("integer", "long"), None),
        ("MAP(UUID, UHUGEINT)", mapping("string", "decimal(38,0)"), "MAP(VARCHAR, DECIMAL(38,0))"),
    ],
)
def test_a_type_is_mapped_and_cast_at_any_depth(duckdb_type: str, delta_type: DeltaType, cast: str | None) -> None:
    assert delta_types.column("a", duckdb_type) == Column("a", delta_type, cast)


@pytest.mark.parametrize(
    ("duckdb_type", "delta_type", "cast"),
    [
        ("TIMESTAMP", "timestamp_ntz", None),
        ("TIMESTAMP_S", "timestamp_ntz", "TIMESTAMP"),
        ("TIMESTAMP_MS[]", array("timestamp_ntz"), "TIMESTAMP[]"),
        ("TIMESTAMP WITH TIME ZONE", "timestamp", None),
    ],
)
def test_timestamps_stay_without_a_zone_when_that_is_asked_for(
    duckdb_type: str, delta_type: DeltaType, cast: str | None
) -> None:
    assert delta_types.column("a", duckdb_type, ntz=True) == Column("a", delta_type, cast)


@pytest.mark.parametrize(
    ("duckdb_type", "kind", "hint"),
    [
        ("TIME", "TIME", "varchar"),
        ("TIME_NS", "TIME_NS", "varchar"),
        ("STRUCT(a TIME WITH TIME ZONE[])", "TIME WITH TIME ZONE", "varchar"),
        ("TIMESTAMP_NS", "TIMESTAMP_NS", "microseconds"),
        ("MAP(VARCHAR, INTERVAL)", "INTERVAL", "epoch"),
        ("BIT[2]", "BIT", "varchar"),
        ("BIGNUM", "BIGNUM", "decimal"),
        ("UNION(a INTEGER, b VARCHAR)", "UNION", "members"),
        ("VARIANT", "VARIANT", "json"),
        ("GEOMETRY('OGC:CRS84')", "GEOMETRY", "ST_AsWKB"),
        ('"NULL"', "NULL", "CAST(NULL AS varchar)"),
        ("STRUCT(INTEGER, VARCHAR)", "a struct whose fields have no names", "struct_pack"),
        ("STRUCT(INTEGER[])", "a struct whose fields have no names", "struct_pack"),
        ("DECIMAL", "DECIMAL", None),
        ("STRUCT(a INTEGER", "STRUCT(a INTEGER", None),
        ("INTEGER)", "INTEGER)", None),
        ("MAP(INTEGER)", "MAP(INTEGER)", None),
        ("NEWTYPE(", "NEWTYPE(", None),
        ("", "", None),
    ],
)
def test_a_type_without_a_delta_type_is_refused_by_its_innermost_name_with_a_way_out(
    duckdb_type: str, kind: str, hint: str | None
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        delta_types.column("a", duckdb_type)
    assert raised.value.message == f"column 'a' has type {duckdb_type}, and Delta Lake has no type for {kind}"
    assert hint is None or hint in str(raised.value.hint)


def test_fields_of_a_struct_that_are_one_to_delta_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="fields 'a' and 'A' differ in case only"):
        delta_types.column("s", "STRUCT(a INTEGER, A INTEGER)")


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
scalars = st.sampled_from(
    [
        *("BOOLEAN", "TINYINT", "UBIGINT", "HUGEINT", "DOUBLE", "DECIMAL(38,10)", "VARCHAR", "BLOB", "DATE", "UUID"),
        *("TIMESTAMP", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE", "ENUM('a', 'b'')(', '[,\"')"),
    ]
)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return types that hold others."""
    fields = st.lists(st.tuples(names, inner), min_size=1, max_size=3, unique_by=lambda pair: pair[0].lower())
    return st.one_of(
        st.builds("{}[]".format, inner),
        st.builds("{}[3]".format, inner),
        st.builds("MAP({}, {})".format, scalars, inner),
        fields.map(lambda pairs: f"STRUCT({', '.join(f'{sql.identifier(n)} {kind}' for n, kind in pairs)})"),
    )


@EXAMPLES
@given(duckdb_type=st.recursive(scalars, nested, max_leaves=6))
def test_every_type_is_read_as_duckdb_prints_it_and_written_as_the_delta_type_says(
    engine: duckdb.DuckDBPyConnection, duckdb_type: str
) -> None:
    """The printed type, the cast and the renaming of column mapping are DuckDB's to accept."""
    try:
        engine.execute(f"CREATE OR REPLACE TABLE source (v {duckdb_type})")
    except duckdb.BinderException:
        return  # names that are one to DuckDB too: it folds more letters than Python's lower()
    engine.execute("INSERT INTO source VALUES (NULL)")
    ((_, printed, *_),) = engine.execute("DESCRIBE source").fetchall()
    item = delta_types.column("v", printed, mapped=True)
    fields, last = delta_types.assign_mapping(delta_types.schema_fields([item]))
    (mapped,) = delta_types.map_columns([item], fields)
    written = engine.sql(f"SELECT {mapped.expression} FROM source")  # noqa: S608 - quoted by runtime.sql
    again = delta_types.column("v", str(written.types[0]), ntz=True)
    assert again.cast is None, "what is written needs no other cast"
    assert shape(again.type) == shape(mapped.type)
    assert written.columns == [mapped.physical]
    assert written.fetchall() == [(None,)]
    assert last == str(fields).count(delta_types.MAPPING_ID)


def shape(delta_type: DeltaType) -> DeltaType:
    """Return a type with its fields' physical names as their names."""
    if isinstance(delta_type, str):
        return delta_type
    if delta_type["type"] == "struct":
        return struct_of({delta_types.physical_name(item): shape(item["type"]) for item in delta_type["fields"]})
    return {name: shape(part) if name.endswith("Type") else part for name, part in delta_type.items()}


# --- Schemas ---


def test_a_schema_has_comments_and_nullability_and_delta_rs_reads_it() -> None:
    columns = [Column("a", "long", comment="the key", nullable=False), delta_types.column("s", "STRUCT(x UUID[])")]
    fields = delta_types.schema_fields(columns)
    assert fields == [
        field("a", "long", nullable=False, comment="the key"),
        field("s", struct(x=array("string"))),
    ]
    by_delta_rs = Schema.from_json(json.dumps({"type": "struct", "fields": fields}))
    assert delta_types.fields_of(by_delta_rs) == fields


def test_features_are_found_at_any_depth() -> None:
    plain = delta_types.schema_fields([delta_types.column("a", "TIMESTAMP[]")])
    kept = delta_types.schema_fields([delta_types.column("a", "MAP(VARCHAR, STRUCT(t TIMESTAMP))", ntz=True)])
    assert delta_types.features_of(plain) == frozenset()
    assert delta_types.features_of(kept) == {"timestampNtz"}
    assert delta_types.features_of(delta_types.assign_mapping(kept)[0]) == {"timestampNtz", "columnMapping"}


def test_a_change_of_zone_or_nullability_is_told_though_hive_has_one_word_for_both() -> None:
    old = [field("a", "timestamp"), field("b", "long"), field("c", array("long"))]
    new = [field("a", "timestamp_ntz"), field("b", "long", nullable=False), field("c", array("long", nulls=False))]
    assert delta_types.schema_changes(old, new) == [
        "~ a timestamp -> timestamp_ntz",
        "~ b bigint -> bigint not null",
        "~ c array<bigint> -> array<bigint not null>",
    ]
    assert delta_types.type_text("timestamp_ntz") == "timestamp"
    assert delta_types.type_text(array("long", nulls=False)) == "array<bigint>"


# --- What may change ---


def refusal(existing: list[dict[str, Any]], wanted: list[dict[str, Any]], *, merge: bool = True) -> list[str]:
    """Return the lines of the refusal."""
    with pytest.raises(ConfigurationError) as raised:
        delta_types.evolve(existing, wanted, merge=merge)
    first, *lines = raised.value.message.splitlines()
    assert first == "the schema differs from the table's:"
    assert "overwrite" in str(raised.value.hint)
    return [line.removeprefix("  ") for line in lines]


def test_an_equal_schema_in_another_order_leaves_the_table_as_it_is() -> None:
    existing = [field("a", "long", comment="old"), field("b", struct(x="date"), physical="p")]
    wanted = [field("b", struct(x="date")), field("a", "long", comment="new")]
    assert delta_types.evolve(existing, wanted, merge=False) == existing


def test_a_merge_adds_nullable_columns_behind_and_takes_comments_over() -> None:
    existing = [field("a", "long", comment="old"), field("s", struct(x="date"))]
    wanted = [field("new", "string"), field("a", "long", comment="new"), field("s", struct(y="long", x="date"))]
    assert delta_types.evolve(existing, wanted, merge=True) == [
        field("a", "long", comment="new"),
        field("s", struct(x="date", y="long")),
        field("new", "string"),
    ]


def test_a_merge_reaches_structs_within_lists_and_maps() -> None:
    existing = [field("l", array(struct(x="date"))), field("m", mapping("string", struct(x="date")))]
    wanted = [field("l", array(struct(x="date", y="long"))), field("m", mapping("string", struct(x="date", z="long")))]
    assert delta_types.evolve(existing, wanted, merge=True) == wanted
    assert refusal(existing, wanted, merge=False) == ["+ l.element.y bigint", "+ m.value.z bigint"]


@pytest.mark.parametrize(
    ("existing", "wanted", "line"),
    [
        ([field("a", "integer")], [field("a", "long")], "~ a int -> bigint"),
        ([field("a", "timestamp")], [field("a", "timestamp_ntz")], "~ a timestamp -> timestamp_ntz"),
        ([field("a", "long"), field("b", "date")], [field("a", "long")], "- b date"),
        ([field("a", "long", nullable=False)], [field("a", "long")], "~ a bigint not null -> bigint"),
        ([field("a", "long")], [field("a", "long", nullable=False)], "~ a bigint -> bigint not null"),
        ([field("a", "long")], [field("a", "long"), field("b", "date", nullable=False)], "+ b date not null"),
        ([field("a", "long")], [field("A", "long")], "~ a bigint -> A bigint"),
        ([field("s", struct(x="date", y="long"))], [field("s", struct(x="string"))], "~ s.x date -> string"),
        ([field("s", struct(x="date", y="long"))], [field("s", struct(x="date"))], "- s.y bigint"),
        ([field("l", array("long"))], [field("l", array("date"))], "~ l.element bigint -> date"),
        ([field("m", mapping("long", "date"))], [field("m", mapping("string", "date"))], "~ m.key bigint -> string"),
        ([field("l", array("long"))], [field("l", "long")], "~ l array<bigint> -> bigint"),
        (
            [field("l", array("long", nulls=False))],
            [field("l", array("long"))],
            "~ l array<bigint not null> -> array<bigint>",
        ),
    ],
)
def test_all_other_changes_are_refused_with_a_line_each(
    existing: list[dict[str, Any]], wanted: list[dict[str, Any]], line: str
) -> None:
    assert line in refusal(existing, wanted)
    assert line in refusal(existing, wanted, merge=False)


def test_an_added_column_is_refused_without_merge() -> None:
    assert refusal([field("a", "long")], [field("a", "long"), field("b", "date")], merge=False) == ["+ b date"]


def test_evolving_changes_neither_of_its_arguments() -> None:
    existing, wanted = [field("s", struct(x="date"))], [field("s", struct(x="date", y="long"), comment="new")]
    before = json.dumps([existing, wanted])
    delta_types.evolve(existing, wanted, merge=True)
    delta_types.assign_mapping(wanted, existing)
    assert json.dumps([existing, wanted]) == before


# --- Column mapping ---


def mapped(
    fields: list[dict[str, Any]], *existing: dict[str, Any], max_id: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Return the fields mapped by names p1, p2…, and the last id."""
    numbers = iter(range(1, 100))
    return delta_types.assign_mapping(fields, existing, max_id=max_id, new_name=lambda: f"p{next(numbers)}")


def test_every_field_gets_an_id_and_a_name_in_structs_lists_and_maps_too() -> None:
    inner = array(struct(b=mapping("string", struct(c="long"))))
    (found,), last = mapped([field("a", inner)])
    assert last == 3
    ids = [delta_types.MAPPING_ID, delta_types.PHYSICAL_NAME]
    b = found["type"]["elementType"]["fields"][0]
    c = b["type"]["valueType"]["fields"][0]
    assert sorted([item["metadata"][name] for name in ids] for item in (found, b, c)) == [
        [1, "p1"],
        [2, "p2"],
        [3, "p3"],
    ]


def test_mapped_fields_keep_their_ids_and_names_and_new_ones_count_on() -> None:
    before, last = mapped([field("a", "long"), field("s", struct(x="date"))])
    wanted = [field("new", "long"), field("s", struct(y="long", x="date")), field("a", "long", comment="new")]
    fields, grown = mapped(wanted, *before, max_id=7)
    assert (last, grown) == (3, 9)
    by_name = {item["name"]: item for item in fields}
    assert by_name["a"]["metadata"] == {**before[0]["metadata"], "comment": "new"}
    assert by_name["s"]["metadata"] == before[1]["metadata"]
    y, x = by_name["s"]["type"]["fields"]
    assert x == before[1]["type"]["fields"][0]
    assert y["metadata"][delta_types.MAPPING_ID] > 7
    assert by_name["new"]["metadata"][delta_types.MAPPING_ID] > 7


def test_a_column_of_another_type_is_another_column() -> None:
    before, last = mapped([field("a", "long")])
    (changed,), grown = mapped([field("a", "string")], *before, max_id=last)
    assert (changed["metadata"][delta_types.MAPPING_ID], grown) == (2, 2)


def test_mapping_a_mapped_schema_changes_nothing() -> None:
    fields, last = mapped([field("a", array(struct(x="date")))])
    assert mapped(fields, max_id=last) == (fields, last)


def test_physical_names_are_new_ones_in_the_form_of_deltas_writers() -> None:
    first, second = delta_types.new_physical_name(), delta_types.new_physical_name()
    assert first != second
    assert first.startswith("col-")
    assert not delta_types.needs_mapping(first)


def test_a_mapped_column_is_selected_under_its_physical_name_and_its_structs_fields_too(
    engine: duckdb.DuckDBPyConnection,
) -> None:
    engine.execute("""CREATE OR REPLACE TABLE source AS SELECT * FROM (VALUES
        ({'c d': 1, 'e': [{'f': 2}, NULL], 'g': MAP {'k': {'h': 3}}}), (NULL), ({'c d': NULL, 'e': NULL, 'g': NULL})
        ) t("a b")""")
    ((name, kind, *_),) = engine.execute("DESCRIBE source").fetchall()
    item = delta_types.column(name, kind, mapped=True)
    fields, _ = mapped(delta_types.schema_fields([item]))
    (item,) = delta_types.map_columns([item], fields)
    found = engine.execute(f"SELECT {item.expression} FROM source")  # noqa: S608 - quoted by runtime.sql
    assert [entry[0] for entry in found.description or []] == [item.physical]
    text = json.dumps(found.fetchall())
    for number, logical in enumerate(("a b", "c d", "e", "f", "g", "h"), 1):
        physical = next(entry for entry in flat(fields) if entry["name"] == logical)["metadata"]
        text = text.replace(f'"{physical[delta_types.PHYSICAL_NAME]}"', f'"{logical}"')
        assert number in [entry["metadata"][delta_types.MAPPING_ID] for entry in flat(fields)]
    assert json.loads(text) == [
        [{"c d": 1, "e": [{"f": 2}, None], "g": {"k": {"h": 3}}}],
        [None],
        [{"c d": None, "e": None, "g": None}],
    ]


def flat(fields: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield all fields, at any depth."""
    for item in fields:
        yield item
        kind = item["type"]
        while isinstance(kind, dict) and "fields" not in kind:
            kind = kind.get("elementType", kind.get("valueType"))
        yield from flat(kind["fields"] if isinstance(kind, dict) else [])


def test_a_column_without_mapping_is_selected_as_it_is() -> None:
    fields = delta_types.schema_fields([delta_types.column("s", "STRUCT(a INTEGER)")])
    (item,) = delta_types.map_columns([delta_types.column("s", "STRUCT(a INTEGER)")], fields)
    assert item.expression == '"s"'
