"""Sign-in through the gateway, refused in Redshift's words: SQLSTATE 28000, and a text of its own for an expired login.

PostgreSQL says 28P01 and does not tell an expired password from a wrong one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from local.redshift import server
from local.redshift.wire import message
from runtime import sql
from runtime.errors import GoldlakeError

REFUSED = "28000"
# GetCredentials' names: of an IAM user, and of a role's session.
IAM_PREFIXES = ("IAM:", "IAMR:", "IAMA:")
# Seen in aws/amazon-redshift-jdbc-driver#97.
EXPIRED = "IAM Authentication token has expired"
_POSTGRES_REFUSALS = frozenset({"28P01", REFUSED})
# An error with its context; what comes before a session has begun is short.
_MAX_MESSAGE_BYTES = 1 << 20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(client: Streams, upstream: Streams, refuse: Callable[[bytes], bytes]) -> bool:
    """Relay the messages of a login until PostgreSQL accepts it; return False when it refuses, or hangs up.

    `refuse` has the body of the ErrorResponse and returns the one that the client gets; it is run in a thread.
    Raises IncompleteReadError when the client goes away.
    """
    while True:
        try:
            kind, body = await _message(upstream[0])
        except asyncio.IncompleteReadError:
            return False
        if kind == b"E":
            body = await asyncio.to_thread(refuse, body)
        client[1].write(message(kind, body))
        await client[1].drain()
        if kind == b"E":
            return False
        if kind == b"R":
            if struct.unpack_from("!i", body)[0] == 0:
                return True
            # Each request of ours has one answer: pg_hba.conf knows no method with more (server.py).
            upstream[1].write(message(*await _message(client[0])))
            await upstream[1].drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    if not 4 <= length <= _MAX_MESSAGE_BYTES:
        raise asyncio.IncompleteReadError(b"", length)
    return kind, await reader.readexactly(length - 4)


def refused(body: bytes, user: str, expired: Callable[[str], bool]) -> bytes:
    """Return the body of an ErrorResponse to a login as Redshift has it; another error's body unchanged."""
    fields = [(field[:1], field[1:]) for field in body.split(b"\x00") if field]
    if dict(fields).get(b"C", b"").decode() not in _POSTGRES_REFUSALS:
        return body
    changed = {b"C": REFUSED.encode()}
    if user.startswith(IAM_PREFIXES) and expired(user):
        changed[b"M"] = EXPIRED.encode()
    return b"".join(name + changed.get(name, value) + b"\x00" for name, value in fields) + b"\x00"


def without_tls(peer: Any, parameters: Mapping[str, str]) -> str:
    """Return Redshift's words to a client that does not encrypt where require_ssl is true."""
    host = peer[0] if isinstance(peer, tuple) and peer else "local"
    user, database = parameters.get("user", ""), parameters.get("database", parameters.get("user", ""))
    return f'no pg_hba.conf entry for host "{host}", user "{user}", database "{database}", SSL off'


def expiry_of(postgres: server.Postgres) -> Callable[[str], bool]:
    """Return what tells whether a user's password is good no more, by PostgreSQL's catalogue."""

    def expired(user: str) -> bool:
        text = f"select extract(epoch from rolvaliduntil) from pg_roles where rolname = {sql.literal(user)}::name"  # noqa: S608 - quoted
        try:
            until = server.run_sql(postgres, text).strip()
            return bool(until) and float(until) < datetime.now(UTC).timestamp()
        except (GoldlakeError, ValueError):
            return False

    return expired
