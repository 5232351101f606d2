"""The wire gateway: takes Redshift's clients on TCP and relays them to PostgreSQL's Unix socket.

It changes three things and is transparent otherwise: parameters that only Redshift knows are dropped from the
start-up packet, `server_version` is reported as Redshift reports it, and the three statements that PostgreSQL cannot
read at all are put into its words (`postgres_sql`). Message formats: "Frontend/Backend
Protocol" in PostgreSQL's manual, protocol 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from runtime import sql
from runtime.errors import ConfigurationError

LOG = logging.getLogger(__name__)

REPORTED_SERVER_VERSION = "8.0.2"
# Trusted on the socket (server.py), so nobody may come in under this name from outside.
RESERVED_USERS = frozenset({"postgres"})

_SSL_REQUEST = 80877103
_GSSENC_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_PROTOCOL_MAJOR = 3
# PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH).
_MAX_STARTUP_BYTES = 10_000
# ParameterStatus and its neighbours are tiny; an error message with its context may be longer.
_MAX_GREETING_MESSAGE_BYTES = 1 << 20
_CHUNK = 1 << 16
# Longer statements are passed on as they are: what is rewritten is short.
_MAX_STATEMENT_BYTES = 1 << 20
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

_REWRITTEN = re.compile(rb"external\s+schema|password\s+disable|diststyle|distkey|sortkey", re.IGNORECASE)
_START = r"(?P<start>(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*)"
_LITERAL = r"'(?:[^']|'')*'"
_EXTERNAL_SCHEMA = re.compile(
    rf"""{_START}create\s+external\s+schema\s+(?P<lenient>if\s+not\s+exists\s+)?
         (?P<schema>"(?:[^"]|"")+"|[a-z_]\w*)\s+from\s+data\s+catalog\s+database\s+(?P<database>{_LITERAL})
         (?:\s+(?:(?:region|iam_role|catalog_role|catalog_id)\s+(?:{_LITERAL}|default)
             |create\s+external\s+database\s+if\s+not\s+exists))*\s*(?=;|$)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_DEFINES_USER = re.compile(
    rf"{_START}(?:create|alter)\s+(?:or\s+replace\s+)?(?:user|procedure)\b", re.IGNORECASE | re.DOTALL
)
# CREATE TABLE to its end; texts, quoted names and comments may hold a semicolon.
_QUOTED = rf"""{_LITERAL}|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/"""
_CREATES_TABLE = re.compile(
    rf"{_START}create\s+(?:(?:local\s+)?temp(?:orary)?\s+)?table\b(?:{_QUOTED}|[^;])*", re.IGNORECASE | re.DOTALL
)
_TABLE_ATTRIBUTE = re.compile(
    rf"""(?P<kept>{_QUOTED})|\bdiststyle\s+(?:auto|even|key|all)\b|\bdistkey\s*\([^()]*\)
         |\b(?:(?:compound|interleaved)\s+)?sortkey\s*\([^()]*\)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NO_PASSWORD = re.compile(r"\bpassword\s+disable\b", re.IGNORECASE)
# A schema whose tables the mirror fills (external.py): its tables are PostgreSQL's superuser's, for everyone to read.
_MIRRORED_SCHEMA = """begin
  if exists (select from goldlake_local.external_schema s join pg_namespace n on n.nspname = s.schema_name
              where s.glue_database = {database} and s.schema_name <> {name}) then
    raise exception 'the local Redshift shows the Glue database % in another schema', {database};
  end if;
  if {strict} and exists (select from pg_namespace where nspname = {name}) and not exists
      (select from goldlake_local.external_schema where schema_name = {name} and glue_database = {database}) then
    raise duplicate_schema using message = 'schema "' || {name} || '" already exists';
  end if;
  if not exists (select from pg_namespace where nspname = {name}) then
    create schema {schema};
    alter default privileges for role postgres in schema {schema} grant select on tables to public;
    delete from goldlake_local.external_table where schema_name = {name};
  end if;
  insert into goldlake_local.external_schema values ({name}, {database})
      on conflict (schema_name) do update set glue_database = excluded.glue_database;
end"""


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
    """Return Redshift's SQL text with what PostgreSQL cannot read in its words.

    CREATE EXTERNAL SCHEMA becomes a block that makes a schema for the mirror to fill; PASSWORD DISABLE of a user,
    also within a procedure that creates one, PASSWORD NULL. CREATE TABLE loses DISTSTYLE, DISTKEY and SORTKEY: there
    is one node, and PostgreSQL sorts nothing.
    """
    if _DEFINES_USER.search(text):
        text = _NO_PASSWORD.sub("PASSWORD NULL", text)
    text = _CREATES_TABLE.sub(lambda table: _TABLE_ATTRIBUTE.sub(lambda found: found["kept"] or "", table[0]), text)
    return _EXTERNAL_SCHEMA.sub(_mirrored, text)


def _mirrored(statement: re.Match[str]) -> str:
    """Return the block for a CREATE EXTERNAL SCHEMA; the statement itself when its names are unusable."""
    written = statement["schema"]
    name = written[1:-1].replace('""', '"') if written.startswith('"') else written.lower()
    database = statement["database"][1:-1].replace("''", "'")
    try:
        block = _MIRRORED_SCHEMA.format(
            name=sql.literal(name),
            schema=sql.identifier(name),
            database=sql.literal(database),
            strict="false" if statement["lenient"] else "true",
        )
    except ConfigurationError:
        return statement[0]
    return f"{statement['start']}DO {sql.literal(block)}"


class Statements:
    """Rewrites the statements in what a client sends after its start-up packet; everything else passes unchanged."""

    def __init__(self, on_external_schema: Callable[[], None] = lambda: None) -> None:
        self._on_external_schema = on_external_schema
        self._held = b""
        self._passing = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return what to send on; an unfinished statement is held back until its rest comes."""
        data, self._held = self._held + chunk, b""
        ready, position = [], 0
        while position < len(data):
            if not self._passing and len(data) - position < 5:
                break
            if not self._passing:
                length = struct.unpack_from("!i", data, position + 1)[0]
                is_statement = data[position : position + 1] in (b"Q", b"P") and 4 <= length <= _MAX_STATEMENT_BYTES
                end = position + 1 + length
                if is_statement and len(data) < end:
                    break
                if is_statement:
                    ready.append(self._rewritten(data[position:end]))
                    position = end
                    continue
                # No protocol at all is PostgreSQL's to refuse.
                self._passing = 1 + length if length >= 4 else len(data)
            ready.append(data[position : position + self._passing])
            position += len(ready[-1])
            self._passing -= len(ready[-1])
        self._held = data[position:]
        return b"".join(ready)

    def rest(self) -> bytes:
        """Return what is still held back at the end of the connection."""
        return self._held

    def _rewritten(self, statement: bytes) -> bytes:
        """Return a Query or Parse message with its text rewritten."""
        if not _REWRITTEN.search(statement):
            return statement
        kind, fields = statement[:1], statement[5:].split(b"\x00")
        # Parse: a name before the text.
        at = 0 if kind == b"Q" else 1
        if len(fields) <= at + 1:
            return statement
        before = fields[at].decode("utf-8", "surrogateescape")
        after = postgres_sql(before)
        if _EXTERNAL_SCHEMA.search(before):
            self._on_external_schema()
        fields[at] = after.encode("utf-8", "surrogateescape")
        return message(kind, b"\x00".join(fields))


def message(kind: bytes, body: bytes) -> bytes:
    """Return a protocol message: its kind, its length, its body."""
    return kind + struct.pack("!i", len(body) + 4) + body


def fatal(code: str, text: str) -> bytes:
    """Return an ErrorResponse of severity FATAL with a SQLSTATE and a text."""
    fields = {b"S": "FATAL", b"V": "FATAL", b"C": code, b"M": text}
    body = b"".join(name + value.encode() + b"\x00" for name, value in fields.items())
    return message(b"E", body + b"\x00")


class Gateway:
    """Relays connections to the PostgreSQL socket `upstream`.

    `before_login` is awaited once per new connection, before PostgreSQL sees it; what it raises is logged and
    the connection goes on.
    """

    def __init__(self, upstream: Path, before_login: Callable[[], Awaitable[None]] | None = None) -> None:
        self._upstream = upstream
        self.before_login = before_login
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self.external_schemas_changed = False
        """Set when a client sent CREATE EXTERNAL SCHEMA; whoever acts on it clears it."""

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
            protocol, body = await _first_packet(reader, writer)
        if protocol == _CANCEL_REQUEST:
            await self._cancel(body)
            return
        parameters = postgres_parameters(parse_startup(body))
        if parameters.get("user") in RESERVED_USERS:
            raise ProtocolError(f'password authentication failed for user "{parameters["user"]}"', "28P01")
        await self._prepare()
        upstream_reader, upstream_writer = await self._connect()
        try:
            upstream_writer.write(build_startup(protocol, parameters))
            await _both_ways(reader, writer, upstream_reader, upstream_writer, Statements(self._note_external_schema))
        finally:
            await _closed(upstream_writer)

    def _note_external_schema(self) -> None:
        self.external_schemas_changed = True

    async def _prepare(self) -> None:
        if self.before_login is None:
            return
        try:
            await self.before_login()
        except Exception:
            LOG.exception("preparing a connection failed; it goes on with the state there is")

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
        reader, writer = await self._connect()
        try:
            writer.write(struct.pack("!ii", len(body) + 8, _CANCEL_REQUEST) + body)
            await writer.drain()
            await reader.read(1)
        finally:
            await _closed(writer)


async def _first_packet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bytes]:
    """Return protocol number and body of the packet that starts a connection, after declining encryption."""
    declined: set[int] = set()
    while True:
        length, code = struct.unpack("!ii", await reader.readexactly(8))
        if not 8 <= length <= _MAX_STARTUP_BYTES:
            raise ProtocolError("invalid length of startup packet")
        body = await reader.readexactly(length - 8)
        if code in (_SSL_REQUEST, _GSSENC_REQUEST) and code not in declined:
            declined.add(code)
            writer.write(b"N")
            await writer.drain()
        elif code == _CANCEL_REQUEST or code >> 16 == _PROTOCOL_MAJOR:
            return code, body
        else:
            raise ProtocolError(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}", "0A000")


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
    statements: Statements,
) -> None:
    """Relay until PostgreSQL ends the connection, which it does when the client has.

    Both directions run from the first moment: the password travels before the greeting is over.
    """
    upward = asyncio.create_task(_copy(reader, upstream_writer, statements))
    try:
        if await _greeting(upstream_reader, writer):
            await _copy(upstream_reader, writer)
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)


async def _greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Relay PostgreSQL's messages up to the first ReadyForQuery; return False when it hung up before."""
    while True:
        try:
            header = await reader.readexactly(5)
        except asyncio.IncompleteReadError:
            return False
        kind, length = header[:1], struct.unpack("!i", header[1:])[0]
        if not 4 <= length <= _MAX_GREETING_MESSAGE_BYTES:
            raise ProtocolError("the local Redshift's PostgreSQL answers in another protocol")
        body = await reader.readexactly(length - 4)
        writer.write(message(kind, rewrite_status(body) if kind == b"S" else body))
        await writer.drain()
        if kind == b"Z":
            return True


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, statements: Statements | None = None
) -> None:
    """Copy bytes until the end, no faster than the receiver takes them, and pass the end on."""
    # A sender that broke off has ended too: PostgreSQL would keep the session of a vanished client.
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk if statements is None else statements.feed(chunk))
            await writer.drain()
        if statements is not None:
            writer.write(statements.rest())
    with contextlib.suppress(OSError):
        writer.write_eof()


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
