"""The gateway's view of the wire protocol, and the mirror's of Glue: pure functions only."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.redshift import external, gateway

NAMES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)
VALUES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
PROTOCOL = 3 << 16


def body_of(packet: bytes) -> bytes:
    """Return a start-up packet's body after checking its length."""
    length, protocol = struct.unpack("!ii", packet[:8])
    assert (length, protocol) == (len(packet), PROTOCOL)
    return packet[8:]


@given(st.dictionaries(NAMES, VALUES))
def test_a_startup_packet_survives_being_parsed_and_built(parameters: dict[str, str]) -> None:
    assert gateway.parse_startup(body_of(gateway.build_startup(PROTOCOL, parameters))) == parameters


@given(st.binary(max_size=200))
def test_any_bytes_are_a_startup_packet_or_a_protocol_error(body: bytes) -> None:
    try:
        parameters = gateway.parse_startup(body)
    except gateway.ProtocolError:
        return
    # What was accepted means the same to PostgreSQL after it was rebuilt.
    rebuilt = body_of(gateway.build_startup(PROTOCOL, parameters))
    assert gateway.parse_startup(rebuilt) == parameters


@given(st.dictionaries(NAMES, VALUES))
def test_only_parameters_that_postgresql_knows_pass(parameters: dict[str, str]) -> None:
    passed = gateway.postgres_parameters(parameters | {"user": "admin", "driver_version": "2.1"})
    assert passed["user"] == "admin"
    assert "driver_version" not in passed
    assert passed.items() <= (parameters | {"user": "admin"}).items()


def test_what_redshift_connector_sends_is_reduced_to_what_postgresql_takes() -> None:
    sent = {
        "user": "admin",
        "database": "analytics",
        "application_name": "dbt",
        "client_protocol_version": "2",
        "driver_version": "Redshift Python Driver 2.1",
        "os_version": "Linux",
        "driver_discovery_version": "1",
        "plugin_name": "x",
        "_pq_.x": "1",
        "TimeZone": "UTC",
    }
    assert set(gateway.postgres_parameters(sent)) == {
        "user",
        "database",
        "application_name",
        "_pq_.x",
        "TimeZone",
    }


def test_the_last_of_equal_parameters_wins_so_that_no_reserved_user_hides_behind_another() -> None:
    body = b"user\x00admin\x00user\x00postgres\x00\x00"
    assert gateway.parse_startup(body) == {"user": "postgres"}
    assert gateway.parse_startup(body)["user"] in gateway.RESERVED_USERS


@pytest.mark.parametrize(
    "body", [b"", b"user", b"user\x00", b"user\x00admin", b"user\x00\x00admin\x00\x00", b"\x00a\x00\x00"]
)
def test_a_malformed_startup_packet_is_refused(body: bytes) -> None:
    with pytest.raises(gateway.ProtocolError):
        gateway.parse_startup(body)


@given(VALUES)
def test_the_server_version_is_reported_as_redshifts_whatever_it_was(version: str) -> None:
    body = b"server_version\x00" + version.encode() + b"\x00"
    assert gateway.rewrite_status(body) == b"server_version\x008.0.2\x00"


@given(NAMES.filter(lambda name: name != "server_version"), VALUES)
def test_other_parameter_statuses_pass_unchanged(name: str, value: str) -> None:
    body = f"{name}\x00{value}\x00".encode()
    assert gateway.rewrite_status(body) == body


def test_a_fatal_error_carries_severity_code_and_text() -> None:
    packet = gateway.fatal("57P03", "it is down")
    assert packet[:1] == b"E"
    assert struct.unpack("!i", packet[1:5])[0] == len(packet) - 1
    assert packet[5:] == b"SFATAL\x00VFATAL\x00C57P03\x00Mit is down\x00\x00"


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
def test_a_glue_type_becomes_a_type_of_the_mirror(glue: str, duckdb: str) -> None:
    assert external.duckdb_type(glue) == duckdb


@pytest.mark.parametrize(
    "glue", ["", "array<string>", "struct<a:int>", "decimal(39,2)", "decimal(2,5)", "int); drop table x; --"]
)
def test_an_unsupported_or_hostile_glue_type_is_not_mirrored(glue: str) -> None:
    assert external.duckdb_type(glue) is None


@given(st.text(), st.text())
def test_no_object_key_names_a_file_outside_the_download_directory(prefix: str, rest: str) -> None:
    base = Path("/base")
    path = base / external.local_name(prefix, prefix + rest, 1)
    assert path.is_relative_to(base)
    assert ".." not in path.parts
    assert path.name == "000001.parquet"


def test_partition_directories_of_a_key_are_kept() -> None:
    path = external.local_name("silver/t/", "silver/t/../day=2026-01-01/x.parquet", 7)
    assert path == Path("day=2026-01-01/000007.parquet")


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("s3://lake/silver/t", ("lake", "silver/t/")),
        ("s3a://lake/silver/t/", ("lake", "silver/t/")),
        ("s3://lake", ("lake", "")),
        ("hdfs://lake/silver", None),
        ("", None),
    ],
)
def test_only_s3_locations_are_read(location: str, place: tuple[str, str] | None) -> None:
    assert external.bucket_and_prefix(location) == place


def table(*objects: external.StoredObject, columns: tuple[external.ExternalColumn, ...]) -> external.ExternalTable:
    return external.ExternalTable("silver_x", "t", "s3://lake/t/", columns, objects)


def test_fingerprints_tell_new_rows_from_new_columns() -> None:
    narrow = (external.ExternalColumn("a", "VARCHAR"),)
    wide = (*narrow, external.ExternalColumn("b", "DATE"))
    first, second = external.StoredObject("t/1", "e1", 10), external.StoredObject("t/2", "e2", 10)
    before, rows, columns = (
        table(first, columns=narrow),
        table(first, second, columns=narrow),
        table(first, columns=wide),
    )
    assert before.columns_fingerprint == rows.columns_fingerprint
    assert before.content_fingerprint != rows.content_fingerprint
    assert before.columns_fingerprint != columns.columns_fingerprint
    assert table(second, first, columns=narrow).content_fingerprint == rows.content_fingerprint
