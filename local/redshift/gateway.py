"""The wire gateway: takes Redshift's clients on TCP and relays them to PostgreSQL's Unix socket.

Parameters that only Redshift knows are dropped from the start-up packet, and `server_version` is reported as Redshift
reports it. What happens to the statements of a session is in session.py and director.py; `postgres_sql` puts what
PostgreSQL cannot read into its words. Message formats: "Frontend/Backend
Protocol" in PostgreSQL's manual, protocol 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import ssl
import struct
import weakref
from collections.abc import Callable
from pathlib import Path

from local.redshift import dialect, sign_in
from local.redshift.director import Director, Warehouse
from local.redshift.session import Session
from local.redshift.wire import message

LOG = logging.getLogger(__name__)

REPORTED_SERVER_VERSION = "8.0.2"
# Whether what PostgreSQL takes and Redshift refuses is refused: on by default.
STRICT_VARIABLE = "GOLDLAKE_LOCAL_REDSHIFT_STRICT"
# Trusted on the socket (server.py), so nobody may come in under this name from outside.
RESERVED_USERS = frozenset({"postgres"})

_SSL_REQUEST = 80877103
_GSSENC_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_PROTOCOL_MAJOR = 3
# PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH).
_MAX_STARTUP_BYTES = 10_000
_STARTUP_SECONDS = 60

# PostgreSQL ends the connection at a parameter it does not know. Redshift's drivers send several of their own
# (client_protocol_version, driver_version, os_version, plugin_name, …) and add more with each release: hence
# a list of what passes. The names are lower-case here, as PostgreSQL compares them.
_KNOWN_PARAMETERS = frozenset(
    {
        "user",
        "database",
        "options",
        "application_name",
        "client_encoding",
        "datestyle",
        "extra_float_digits",
        "geqo",
        "intervalstyle",
        "search_path",
        "statement_timeout",
        "timezone",
    }
)


class ProtocolError(Exception):
    """What the client sent is no start-up packet of protocol 3; `code` is the SQLSTATE to answer with."""

    def __init__(self, message: str, code: str = "08P01") -> None:
        super().__init__(message)
        self.code = code


def parse_startup(body: bytes) -> dict[str, str]:
    """Return the parameters of a start-up packet's body (what follows the protocol number).

    Of equal names the last wins, as in PostgreSQL. Bytes that are no UTF-8 come back out of `build_startup`
    unchanged. Raises ProtocolError for a malformed body.
    """
    if not body.endswith(b"\x00"):
        raise ProtocolError("invalid startup packet layout: expected terminator as last byte")
    fields = body[:-1].split(b"\x00")
    # "name\0value\0" pairs leave one empty piece behind; no pairs at all leave just that piece.
    if fields.pop() != b"" or len(fields) % 2:
        raise ProtocolError("invalid startup packet layout: a name without a value")
    texts = [field.decode("utf-8", "surrogateescape") for field in fields]
    names = texts[0::2]
    if "" in names:
        raise ProtocolError("invalid startup packet layout: an empty name")
    return dict(zip(names, texts[1::2], strict=True))


def build_startup(protocol: int, parameters: dict[str, str]) -> bytes:
    """Return a whole start-up packet, length first."""
    pairs = b"".join(text.encode("utf-8", "surrogateescape") + b"\x00" for pair in parameters.items() for text in pair)
    return struct.pack("!ii", len(pairs) + 9, protocol) + pairs + b"\x00"


def postgres_parameters(parameters: dict[str, str]) -> dict[str, str]:
    """Return the parameters that PostgreSQL knows; `_pq_.` is its own prefix for protocol options."""
    return {
        name: value
        for name, value in parameters.items()
        if name.lower() in _KNOWN_PARAMETERS or name.startswith("_pq_.")
    }


def rewrite_status(body: bytes) -> bytes:
    """Return the body of a ParameterStatus message with `server_version` replaced by Redshift's."""
    name, _, _ = body.partition(b"\x00")
    if name == b"server_version":
        return b"server_version\x00" + REPORTED_SERVER_VERSION.encode() + b"\x00"
    return body


def postgres_sql(text: str) -> str:
    """Return Redshift's SQL text in PostgreSQL's words, strict unless the environment says not."""
    strict = os.environ.get(STRICT_VARIABLE, "on").lower() not in ("0", "off", "false", "no")
    return dialect.translate(text, strict=strict)


def fatal(code: str, text: str) -> bytes:
    """Return an ErrorResponse of severity FATAL with a SQLSTATE and a text."""
    fields = {b"S": "FATAL", b"V": "FATAL", b"C": code, b"M": text}
    body = b"".join(name + value.encode() + b"\x00" for name, value in fields.items())
    return message(b"E", body + b"\x00")


class Gateway:
    """Relays connections to the PostgreSQL socket `upstream`; `warehouse` has the external tables of its databases."""

    def __init__(
        self,
        upstream: Path,
        warehouse: Warehouse,
        *,
        tls: ssl.SSLContext | None = None,
        require_tls: bool = False,
        expired: Callable[[str], bool] = lambda _user: False,
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._require_tls = require_tls
        self._expired = expired
        self._warehouse = warehouse
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        # By what a cancel request names.
        self._sessions: weakref.WeakValueDictionary[bytes, Session] = weakref.WeakValueDictionary()

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on the bound socket `listener`."""
        self._server = await asyncio.start_server(self._accept, sock=listener)

    def stop_listening(self) -> None:
        """Accept no more connections. Open ones go on until PostgreSQL ends them or `close` does."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        self.stop_listening()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this callback as a task
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except ProtocolError as exc:
            await _send_last(writer, fatal(exc.code, str(exc)))
        except (OSError, EOFError, TimeoutError):
            pass  # the client went away, or never said anything: nobody is there to be told
        except asyncio.CancelledError:
            pass  # only `close` cancels, and asyncio's own callback would log it as an error
        finally:
            self._clients.discard(task)
            await _closed(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from its first packet to its end."""
        async with asyncio.timeout(_STARTUP_SECONDS):
            protocol, body = await _first_packet(reader, writer, self._tls)
        if protocol == _CANCEL_REQUEST:
            await self._cancel(body)
            return
        parameters = postgres_parameters(parse_startup(body))
        if self._require_tls and writer.get_extra_info("ssl_object") is None:
            raise ProtocolError(sign_in.without_tls(writer.get_extra_info("peername"), parameters), sign_in.REFUSED)
        if parameters.get("user") in RESERVED_USERS:
            raise ProtocolError(f'password authentication failed for user "{parameters["user"]}"', sign_in.REFUSED)
        upstream_reader, upstream_writer = await self._connect()
        try:
            upstream_writer.write(build_startup(protocol, parameters))
            refuse = functools.partial(sign_in.refused, user=parameters.get("user", ""), expired=self._expired)
            if not await sign_in.relay((reader, writer), (upstream_reader, upstream_writer), refuse):
                return
            user = parameters.get("user", "")
            database = self._warehouse.database(parameters.get("database") or user)
            session = Session(
                (reader, writer),
                (upstream_reader, upstream_writer),
                Director(database, postgres_sql),
                user=user,
                rewrite_status=rewrite_status,
                on_key=self._sessions.__setitem__,
                on_break=self._cancel,
            )
            await session.run()
        finally:
            await _closed(upstream_writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(str(self._upstream))
        except OSError as exc:
            raise ProtocolError(
                f"the local Redshift's PostgreSQL does not answer ({exc.strerror or exc}): restart it",
                "57P03",
            ) from exc

    async def _cancel(self, body: bytes) -> None:
        """Forward a cancel request; PostgreSQL closes without an answer, and so do we."""
        session = self._sessions.get(body)
        if session is not None:
            session.cancel()
        reader, writer = await self._connect()
        try:
            writer.write(struct.pack("!ii", len(body) + 8, _CANCEL_REQUEST) + body)
            await writer.drain()
            await reader.read(1)
        finally:
            await _closed(writer)


async def _first_packet(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None
) -> tuple[int, bytes]:
    """Return protocol number and body of the packet that starts a connection, after answering requests for encryption.

    TLS is taken up where there is a certificate, GSSAPI always declined.
    """
    declined: set[int] = set()
    while True:
        length, code = struct.unpack("!ii", await reader.readexactly(8))
        if not 8 <= length <= _MAX_STARTUP_BYTES:
            raise ProtocolError("invalid length of startup packet")
        body = await reader.readexactly(length - 8)
        if code in (_SSL_REQUEST, _GSSENC_REQUEST) and code not in declined:
            declined.add(code)
            encrypted = code == _SSL_REQUEST and tls is not None
            writer.write(b"S" if encrypted else b"N")
            await writer.drain()
            if encrypted:
                assert tls is not None  # noqa: S101 - for the type checker
                await writer.start_tls(tls)
        elif code == _CANCEL_REQUEST or code >> 16 == _PROTOCOL_MAJOR:
            return code, body
        else:
            raise ProtocolError(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}", "0A000")


async def _send_last(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a farewell, as far as anyone still takes it."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(1):
            await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection; one that is broken already, or whose peer reads no more, does not keep us."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
