"""The actions of a Delta commit, what an export may touch, and what vacuum and manifests decide, without a table."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.delta import actions, protocol, vacuum
from runtime.delta.actions import DataFile, LogFile, TableMetadata
from runtime.delta.commit import Change, _check_partitions, is_ours
from runtime.delta.lake import StoredFile, refuse_unsafe_rename
from runtime.delta.manifest import manifests
from runtime.delta.protocol import Protocol, new_protocol, obstacles
from runtime.errors import ConfigurationError


def a_field(name: str, kind: Any = "long", **metadata: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def mapped(name: str, number: int, physical: str, kind: Any = "long") -> dict[str, Any]:
    return {**a_field(name, kind), "metadata": {protocol.COLUMN_ID: number, protocol.PHYSICAL_NAME: physical}}


# No deadline: the machine that tests may be busy.
EXAMPLES = settings(deadline=None)
FIELDS = [a_field("id"), a_field("day", "date")]
FILE = DataFile("part é.parquet", 10, 2, '{"numRecords":2}')


# --- paths and values ---


@EXAMPLES
@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_a_path_in_the_log_gives_back_the_files_name(name: str) -> None:
    path = actions.log_path(name)
    assert actions.file_name(path) == name == unquote(path)
    assert path.isascii()
    assert not set(path) & set(' "#%<>?[]^`{|}\\:+&') - {"%"}


def test_a_path_keeps_folders_and_partitions_readable() -> None:
    assert actions.log_path("day=2024-02-29/a_b-c.1~.parquet") == "day=2024-02-29/a_b-c.1~.parquet"
    assert actions.log_path("p=a%2Fb c/x") == "p=a%252Fb%20c/x"


@EXAMPLES
@given(st.dictionaries(st.text(min_size=1), st.one_of(st.none(), st.text(min_size=1)), min_size=1))
def test_a_partitions_folder_has_a_level_for_each_column(values: dict[str, str | None]) -> None:
    folders = actions.partition_folder(list(values), values).split("/")
    assert len(folders) == len(values)
    for folder, (name, value) in zip(folders, values.items(), strict=True):
        left, _, right = folder.partition("=")
        assert (unquote(left, errors="strict"), unquote(right)) == (name, value or actions.NULL_PARTITION)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", None),
        ("a b", "a b"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("10.20"), "10.20"),
        (b"\x01\xff", "\x01\xff"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC).replace(tzinfo=None), "2024-02-29 01:02:03"),
        (datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC).replace(tzinfo=None), "2024-02-29 01:02:03.000004"),
        (datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), "2024-02-29T01:02:03.000000Z"),
    ],
)
def test_a_partition_value_has_deltas_text(value: object, text: str | None) -> None:
    assert actions.partition_text(value) == text


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("decimal(10,2)", "1.5", "1.50"),
        ("integer", "7", "+07"),
        ("double", "1.0", "1"),
        ("boolean", "TRUE", "true"),
        ("timestamp", "2024-02-29 01:02:03", "2024-02-29T01:02:03.000000Z"),
        ("timestamp", "2024-02-29T02:02:03+01:00", "2024-02-29 01:02:03"),
        ("string", "", None),
    ],
)
def test_two_texts_of_one_partition_value_are_the_same_partition(kind: str, one: str, other: str | None) -> None:
    assert actions.same_partition(kind, one) == actions.same_partition(kind, other)


@pytest.mark.parametrize(
    ("kind", "text", "stored"),
    [
        ("decimal(10,2)", "1.5", "1.50"),
        ("decimal(38,0)", "12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("long", "+07", "7"),
        ("boolean", "TRUE", "true"),
        ("date", "2024-02-29", "2024-02-29"),
        ("timestamp", "2024-02-29 01:02:03", "2024-02-29 01:02:03"),
        ("string", " a ", " a "),
        ("string", None, None),
    ],
)
def test_a_partition_value_is_stored_as_readers_parse_it(kind: str, text: str | None, stored: str | None) -> None:
    assert actions.stored_partition(kind, text) == stored


@pytest.mark.parametrize(
    ("kind", "text"),
    [("decimal(10,2)", "1.555"), ("decimal(10,2)", "x"), ("long", "1.0"), ("date", "29.2.2024"), ("boolean", "1")],
)
def test_a_partition_value_that_is_none_of_its_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        actions.stored_partition(kind, text)


def test_texts_of_other_partition_values_are_not_the_same_partition() -> None:
    assert actions.same_partition("string", "1.5") != actions.same_partition("string", "1.50")
    assert actions.same_partition("date", "2024-02-29") != actions.same_partition("date", "2024-03-01")
    assert actions.same_partition("integer", "no number") == "no number"


@EXAMPLES
@given(st.one_of(st.integers(), st.dates(), st.datetimes(), st.decimals(allow_nan=False, allow_infinity=False)))
def test_a_value_read_from_the_log_is_the_partition_that_it_was(value: object) -> None:
    kinds = {int: "long", date: "date", datetime: "timestamp_ntz", Decimal: "decimal(38,2)"}
    same = actions.same_partition(kinds[type(value)], actions.partition_text(value))
    assert same == (value.replace(tzinfo=UTC) if isinstance(value, datetime) else value)


# --- actions ---


def lines(content: bytes) -> list[dict[str, Any]]:
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def test_a_commit_has_one_action_a_line_and_says_first_who_made_it() -> None:
    info = actions.commit_info(
        "WRITE", {"mode": "Append", "partitionBy": ["p"]}, {"numFiles": 1},
        engine="goldlake/1", now_ms=5, blind_append=True, extras={"goldlake.runId": "é\nx", "operation": "not this"},
    )  # fmt: skip
    content = actions.commit_content(info, None, None, [], [actions.add(FILE, {}, 3)])
    first, second = lines(content)
    assert first["commitInfo"] == {
        "timestamp": 5,
        "operation": "WRITE",
        "operationParameters": {"mode": "Append", "partitionBy": '["p"]'},
        "operationMetrics": {"numFiles": "1"},
        "engineInfo": "goldlake/1",
        "isBlindAppend": True,
        "goldlake.runId": "é\nx",
    }
    assert second["add"] == {
        "path": "part%20%C3%A9.parquet",
        "partitionValues": {},
        "size": 10,
        "modificationTime": 3,
        "dataChange": True,
        "stats": '{"numRecords":2}',
    }


def test_a_remove_has_the_logs_own_path_and_physical_partition_columns() -> None:
    found = actions.remove(LogFile("p=a%2fb/x", 7, None, {"p": None}), {"p": "col-1"}, 9)
    assert found["remove"] == {
        "path": "p=a%2fb/x",
        "deletionTimestamp": 9,
        "dataChange": True,
        "extendedFileMetadata": True,
        "partitionValues": {"col-1": None},
        "size": 7,
    }


def test_protocol_and_metadata_come_before_files() -> None:
    details = TableMetadata("the-id", FIELDS, ("day",), {"a": "b"}, description="d", created_ms=1)
    info = {"commitInfo": {"timestamp": 1}}
    found = lines(actions.commit_content(info, new_protocol(()), details, [], []))
    assert [next(iter(line)) for line in found] == ["commitInfo", "protocol", "metaData"]
    assert found[1]["protocol"] == {"minReaderVersion": 1, "minWriterVersion": 2}
    assert json.loads(found[2]["metaData"].pop("schemaString")) == {"type": "struct", "fields": FIELDS}
    assert found[2]["metaData"] == {
        "id": "the-id",
        "name": None,
        "description": "d",
        "format": {"provider": "parquet", "options": {}},
        "partitionColumns": ["day"],
        "configuration": {"a": "b"},
        "createdTime": 1,
    }


def test_a_commit_is_known_by_its_export() -> None:
    ours = b'{"commitInfo":{"goldlake.exportId":"e1"}}\n{"add":{}}\n'
    assert is_ours(ours, "e1")
    assert not is_ours(ours, "e2")
    assert not is_ours(b'{"add":{}}\n', "e1")


# --- the protocol ---


def test_plain_types_need_the_lowest_protocol() -> None:
    assert new_protocol(()).action == {"minReaderVersion": 1, "minWriterVersion": 2}


def test_a_new_table_with_features_lists_them_for_readers_and_writers() -> None:
    action = new_protocol({"timestampNtz", "columnMapping"}).action
    assert (action["minReaderVersion"], action["minWriterVersion"]) == (3, 7)
    assert action["readerFeatures"] == ["columnMapping", "timestampNtz"]
    assert {"columnMapping", "timestampNtz"} <= set(action["writerFeatures"])


@pytest.mark.parametrize(
    ("reader", "writer", "readers", "writers"),
    [
        (1, 1, [], []),
        (1, 2, [], ["appendOnly", "invariants"]),
        (1, 4, [], ["appendOnly", "changeDataFeed", "checkConstraints", "generatedColumns", "invariants"]),
        (
            2,
            5,
            ["columnMapping"],
            ["appendOnly", "changeDataFeed", "checkConstraints", "columnMapping", "generatedColumns", "invariants"],
        ),
    ],
)
def test_a_raised_protocol_keeps_what_its_versions_stood_for(
    reader: int, writer: int, readers: list[str], writers: list[str]
) -> None:
    raised = Protocol(reader, writer).with_features({"timestampNtz"}).action
    assert raised == {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": sorted([*readers, "timestampNtz"]),
        "writerFeatures": sorted([*writers, "timestampNtz"]),
    }


def test_a_protocol_that_has_the_features_stays() -> None:
    has = Protocol(3, 7, frozenset({"timestampNtz"}), frozenset({"timestampNtz"}))
    assert has.with_features({"timestampNtz"}) is has
    assert Protocol(2, 5).with_features({"columnMapping"}) == Protocol(2, 5)
    assert Protocol(1, 1).with_features(()) == Protocol(1, 1)


@pytest.mark.parametrize(
    "feature", ["rowTracking", "clustering", "icebergCompatV2", "typeWidening", "catalogManaged", "x"]
)
def test_an_unknown_or_unserved_feature_is_named(feature: str) -> None:
    listed = Protocol(1, 7, frozenset(), frozenset({feature, "appendOnly", "domainMetadata"}))
    assert obstacles(listed, {}, FIELDS, mode="append") == [feature]


@pytest.mark.parametrize(
    ("configuration", "metadata", "name"),
    [
        ({"delta.constraints.positive": "id > 0"}, {}, "checkConstraints"),
        ({"delta.enableInCommitTimestamps": "true"}, {}, "inCommitTimestamp"),
        ({"delta.enableRowTracking": "TRUE"}, {}, "rowTracking"),
        ({"delta.columnMapping.mode": "id"}, {}, "columnMapping by id"),
        ({}, {"delta.invariants": "{}"}, "invariants"),
        ({}, {"delta.generationExpression": "1"}, "generatedColumns"),
        ({}, {"delta.identity.start": 1}, "identityColumns"),
        ({}, {"CURRENT_DEFAULT": "1"}, "allowColumnDefaults"),
    ],
)
def test_a_feature_in_use_is_named_also_inside_nested_columns(
    configuration: dict[str, str], metadata: dict[str, Any], name: str
) -> None:
    inner = {"type": "struct", "fields": [{**a_field("x"), "metadata": metadata}]}
    deep = {"type": "map", "keyType": "string", "valueType": {"type": "array", "elementType": inner}}
    for fields in ([{**a_field("x"), "metadata": metadata}], [a_field("m", deep)]):
        assert obstacles(Protocol(1, 6), configuration, fields, mode="append") == [name]


def test_a_feature_that_is_listed_and_not_in_use_is_no_obstacle() -> None:
    names = frozenset({"appendOnly", "checkConstraints", "generatedColumns", "identityColumns", "inCommitTimestamp"})
    off = {"delta.appendOnly": "false", "delta.enableInCommitTimestamps": "false", "delta.columnMapping.mode": "none"}
    assert obstacles(Protocol(1, 7, frozenset(), names), off, FIELDS, mode="overwrite") == []


def test_append_only_takes_appends_only() -> None:
    only = {"delta.appendOnly": "true"}
    assert obstacles(Protocol(1, 2), only, FIELDS, mode="append") == []
    for mode in ("overwrite", "replace-where"):
        assert obstacles(Protocol(1, 2), only, FIELDS, mode=mode) == ["appendOnly"]


def test_versions_of_a_later_protocol_are_refused() -> None:
    assert obstacles(Protocol(4, 8), {}, FIELDS, mode="append") == ["protocol versions 4 and 8"]


def test_properties_that_ask_for_a_feature_are_refused_by_name() -> None:
    protocol.check_properties({"delta.checkpointInterval": "5", "owner": "gold", "delta.appendOnly": "true"})
    for name in ("delta.enableDeletionVectors", "delta.columnMapping.mode", "delta.checkpointIntervall"):
        with pytest.raises(ConfigurationError, match=name):
            protocol.check_properties({name: "true"})


# --- column mapping ---


def test_mapped_fields_turn_mapping_on_with_the_highest_id() -> None:
    inner = {"type": "struct", "fields": [mapped("x", 9, "col-9")]}
    found = protocol.mapped_configuration({}, (), [mapped("a b", 1, "col-1"), mapped("s", 2, "col-2", inner)])
    assert found == {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "9"}


def test_the_highest_id_never_sinks() -> None:
    has = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "12"}
    found = protocol.mapped_configuration(has, [mapped("a", 1, "col-1")], [mapped("a", 1, "col-1")])
    assert found["delta.columnMapping.maxColumnId"] == "12"


def test_plain_fields_need_no_mapping() -> None:
    assert protocol.mapped_configuration({}, FIELDS, FIELDS) == {}


@pytest.mark.parametrize(
    "fields", [[a_field("a")], [mapped("a", 1, "col-1"), a_field("b")], [mapped("a", 1, "another")]]
)
def test_fields_that_do_not_fit_a_mapped_table_are_refused(fields: list[dict[str, Any]]) -> None:
    has = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"}
    with pytest.raises(ConfigurationError, match="columnMapping"):
        protocol.mapped_configuration(has, [mapped("a", 1, "col-1")], fields)


# --- partitions of a change ---


def in_day(day: str | None) -> DataFile:
    return DataFile("x.parquet", 1, 1, "{}", {"day": day})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("overwrite", FIELDS, [], "e", ("nope",)), "have to be some of the columns"),
        (Change("overwrite", FIELDS, [], "e", ("id", "day")), "not all"),
        (Change("replace-where", FIELDS, [], "e", ("day",)), "replace-where names nothing"),
        (Change("replace-where", FIELDS, [], "e", ("day",), {"id": ["1"]}), "replace-where names id"),
        (Change("append", FIELDS, [], "e", ("day",), {"day": ["2024-01-01"]}), "only it does"),
        (Change("append", FIELDS, [FILE], "e", ("day",)), "no value for each partition column"),
        (Change("append", FIELDS, [in_day("")], "e", ("day",)), "empty text"),
        (
            Change("replace-where", FIELDS, [in_day("2024-01-02")], "e", ("day",), {"day": ["2024-01-01", None]}),
            "does not name",
        ),
    ],
)
def test_a_change_with_unfit_partitions_is_refused_with_the_reason(change: Change, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        _check_partitions(change)


def test_files_of_the_named_partitions_are_accepted_null_too() -> None:
    files = [in_day("2024-01-01"), in_day(None)]
    _check_partitions(Change("replace-where", FIELDS, files, "e", ("day",), {"day": ["2024-01-01", None]}))


# --- stores ---


@pytest.mark.parametrize("name", ["AWS_S3_ALLOW_UNSAFE_RENAME", "aws_s3_allow_unsafe_rename"])
def test_unsafe_renames_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"loses its rows silently"):
        refuse_unsafe_rename({name: "True"})
    refuse_unsafe_rename({name: "false", "AWS_REGION": "eu-central-1"})


# --- vacuum ---


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("interval 7 days", timedelta(days=7)),
        ("INTERVAL 1 week", timedelta(weeks=1)),
        ("12 hours", timedelta(hours=12)),
        ("interval 1 day 6 hours", timedelta(hours=30)),
        ("interval 0 seconds", timedelta()),
    ],
)
def test_retention_properties_are_read_as_delta_writes_them(text: str, duration: timedelta) -> None:
    assert vacuum._duration({"x": text}, "x", timedelta(days=99)) == duration


@pytest.mark.parametrize("text", ["", "7", "interval 1 month", "interval days", "forever", "interval -1 days"])
def test_a_retention_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a form like"):
        vacuum._duration({"x": text}, "x", timedelta())


def test_a_log_kept_shorter_than_removed_files_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="keeps its log for"):
        vacuum._retention({"delta.logRetentionDuration": "interval 1 day"}, "there")


@pytest.mark.parametrize(
    ("name", "is_data"),
    [
        ("a.parquet", True),
        ("day=1/a.parquet", True),
        ("_p=1/a.parquet", True),
        ("_delta_log/00000000000000000010.checkpoint.parquet", False),
        ("_change_data/a.parquet", False),
        ("_symlink_format_manifest/manifest", False),
        (".tmp/a.parquet", False),
        ("_a.parquet", False),
        ("deletion_vector_1.bin", False),
        ("notes.txt", False),
    ],
)
def test_vacuum_knows_the_files_that_exports_write(name: str, is_data: bool) -> None:
    assert vacuum._is_data(StoredFile(name, 1, datetime.now(UTC)), ["_p"]) is is_data


# --- manifests ---


def test_a_table_without_partitions_has_one_manifest_also_without_files() -> None:
    files = (LogFile("b%20c.parquet", 1, 1, {}), LogFile("a.parquet", 1, 1, {}))
    assert manifests("s3://lake/t", (), files) == {
        "_symlink_format_manifest/manifest": "s3://lake/t/a.parquet\ns3://lake/t/b c.parquet\n"
    }
    assert manifests("s3://lake/t", (), ()) == {"_symlink_format_manifest/manifest": ""}


def test_each_partition_has_a_manifest_in_its_folder() -> None:
    files = (LogFile("x/1.parquet", 1, 1, {"p": "a/b"}), LogFile("x/2.parquet", 1, 1, {"p": None}))
    assert manifests("s3://lake/t", ("p",), files) == {
        "_symlink_format_manifest/p=a%2Fb/manifest": "s3://lake/t/x/1.parquet\n",
        "_symlink_format_manifest/p=__HIVE_DEFAULT_PARTITION__/manifest": "s3://lake/t/x/2.parquet\n",
    }
