"""A connection of the gateway's own to PostgreSQL, as its superuser over the socket: small questions, one at a time."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

from local.redshift import wire
from local.redshift.server import SUPERUSER
from local.redshift.wire import RedshiftError

_PROTOCOL = 3 << 16


class Link:
    """A database's connection, opened when it is needed and again when it was lost."""

    def __init__(self, socket: Path, database: str) -> None:
        self._socket, self._database = socket, database
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def rows(self, text: str) -> list[list[str | None]]:
        """Run a statement and return its rows; raises RedshiftError with PostgreSQL's error."""
        async with self._lock:
            lost = self._streams is not None
            try:
                return await self._asked(text)
            except (OSError, EOFError) as exc:
                # One that lay open may have been lost with the last restart of PostgreSQL.
                self.close()
                if not lost:
                    raise _gone(exc) from exc
            try:
                return await self._asked(text)
            except (OSError, EOFError) as exc:
                raise _gone(exc) from exc

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _asked(self, text: str) -> list[list[str | None]]:
        if self._streams is None:
            self._streams = await self._opened()
        reader, writer = self._streams
        try:
            return await _answered(reader, writer, wire.query(text))
        except asyncio.CancelledError:
            # Whoever comes next must not read the answer to this.
            self.close()
            raise

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        pairs = {"user": SUPERUSER, "database": self._database, "application_name": "goldlake-gateway"}
        body = b"".join(text.encode() + b"\x00" for pair in pairs.items() for text in pair) + b"\x00"
        try:
            await _answered(reader, writer, struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)
        except BaseException:
            writer.close()
            raise
        return reader, writer


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> list[list[str | None]]:
    """Send a message and take all answers up to ReadyForQuery."""
    writer.write(sent)
    await writer.drain()
    rows: list[list[str | None]] = []
    failure: RedshiftError | None = None
    while True:
        header = await reader.readexactly(5)
        body = await reader.readexactly(struct.unpack_from("!i", header, 1)[0] - 4)
        kind = header[:1]
        if kind == b"D":
            rows.append(wire.read_row(body))
        elif kind == b"E":
            failure = wire.read_error(body)
            if body.startswith(b"SFATAL"):
                raise failure
        elif kind == b"Z":
            if failure is not None:
                raise failure
            return rows


def _gone(exc: BaseException) -> RedshiftError:
    return RedshiftError("57P03", f"the local Redshift's PostgreSQL does not answer ({exc}): restart it")
