"""The gateway's view of the wire protocol: pure functions, and a session between two streams that are no sockets."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.redshift import gateway
from local.redshift.session import Session, Step
from local.redshift.wire import RedshiftError, message

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


# A session between a client and PostgreSQL


class Sink:
    """A writer that keeps what it gets."""

    def __init__(self) -> None:
        self.sent = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        return

    def write_eof(self) -> None:
        self.ended = True


class Plain:
    """A director to whom every text is plain, but for those with a word."""

    def steps(self, text: str) -> list[Step] | None:
        if "malformed" in text:
            raise RedshiftError("42601", "malformed")
        return None

    async def prepare(self, text: str) -> bool:
        if "denied" in text:
            raise RedshiftError("XX000", "access denied")
        return "external" in text

    def rewritten(self, text: str) -> str:
        return text.replace("redshift", "postgres")


def passed(sent: bytes, size: int) -> bytes:
    """Return what PostgreSQL gets of what a client sends in pieces of a size."""

    async def relay() -> bytes:
        client, upstream, sink = asyncio.StreamReader(), asyncio.StreamReader(), Sink()
        session = Session(cast(Any, (client, Sink())), cast(Any, (upstream, sink)), Plain())
        running = asyncio.create_task(session.run())
        for start in range(0, len(sent), size):
            client.feed_data(sent[start : start + size])
            await asyncio.sleep(0)
        client.feed_eof()
        while not sink.ended:
            await asyncio.sleep(0)
        upstream.feed_eof()
        await running
        return sink.sent

    return asyncio.run(relay())


@given(st.lists(st.sampled_from([b"x" * 40 + b"\x00", b"\x00"]), max_size=6), st.integers(1, 30))
@settings(max_examples=50)
def test_messages_pass_unchanged_however_they_are_cut(bodies: list[bytes], size: int) -> None:
    parses = [message(b"P", b"name\x00" + body + b"\x00\x00") for body in bodies]
    sent = b"".join(message(kind, body) for body in bodies for kind in (b"Q", b"p", b"d", b"X")) + b"".join(parses)
    assert passed(sent, size) == sent
    assert passed(sent + b"Q\x00", size) == sent + b"Q\x00"


def test_what_is_no_protocol_passes_for_postgresql_to_refuse() -> None:
    for sent in (b"Q\x00\x00\x00\x01abc", b"Q\xff\xff\xff\xffxyz", b"Q\x7f\xff\xff\xff" + b"a" * 100):
        assert passed(sent, 7) == sent


def test_a_statement_is_rewritten_in_both_protocols() -> None:
    assert passed(message(b"Q", b"select redshift\x00"), 99) == message(b"Q", b"select postgres\x00")
    parse = message(b"P", b"name\x00select redshift\x00\x00\x00")
    assert passed(parse, 99) == message(b"P", b"name\x00select postgres\x00\x00\x00")


@pytest.mark.parametrize(("text", "words"), [("denied", b"access denied"), ("malformed", b"malformed")])
def test_what_cannot_be_prepared_becomes_a_statement_that_raises_it(text: str, words: bytes) -> None:
    for sent in (message(b"Q", text.encode() + b"\x00"), message(b"P", b"\x00" + text.encode() + b"\x00\x00\x00")):
        done = passed(sent, 99)
        assert struct.unpack_from("!i", done, 1)[0] == len(done) - 1
        assert b"DO '" in done
        assert words in done
