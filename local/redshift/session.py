"""One client's session: relays its messages, and holds some back while the gateway does something of its own.

What is held back, and what happens meanwhile:

* a statement that may read external tables (also through a view or a procedure): they are brought up to date first;
* UNLOAD and COPY from S3: the gateway sends statements of its own over the client's connection, inside its
  transaction, and answers in PostgreSQL's place.

Everything else passes unchanged and unbuffered. A statement in several pieces (`a; b`) is taken apart only if one of
them is UNLOAD, COPY from S3 or the like.

In the extended protocol UNLOAD and COPY never reach PostgreSQL: the gateway keeps their text at Parse, does the work
at Bind, and answers all messages up to Sync. Other statements cannot be in the same pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from local.redshift import wire
from local.redshift.wire import Field, RedshiftError, message

LOG = logging.getLogger(__name__)

CHUNK = 1 << 16
# Longer statements pass as they are; Redshift takes 16 MB.
MAX_STATEMENT_BYTES = 16 << 20
# What the client's messages are looked at for; all others (a password, data of a COPY) pass in pieces.
_HELD_KINDS = frozenset(b"QPBDECSF")
# Messages from PostgreSQL that are looked at.
_SEEN_KINDS = frozenset(b"ZKSE")
# They may come at any time and belong to no statement.
_ASYNCHRONOUS = frozenset(b"NSA")
_PATIENCE_SECONDS = 0.25
_CAPTURED = 64
_ABORTED = RedshiftError("25P02", "current transaction is aborted, commands ignored until end of transaction block")


class Work(Protocol):
    """A statement that the gateway carries out itself: UNLOAD, COPY from S3."""

    async def run(self, session: Session) -> str:
        """Carry it out; return the command's tag. Raises RedshiftError."""
        ...


@dataclass(frozen=True)
class Step:
    """One statement of a text: work of our own, or text for PostgreSQL."""

    text: str
    work: Work | None = None


class Director(Protocol):
    """Who knows what a text needs (director.py)."""

    def steps(self, text: str) -> list[Step] | None:
        """Return the statements of a text that needs the gateway, None for one that just passes. May raise."""
        ...

    async def prepare(self, text: str) -> bool:
        """Bring what the text reads up to date; return whether it reads anything external. Raises RedshiftError."""
        ...

    def rewritten(self, text: str) -> str:
        """Return the text in PostgreSQL's words."""
        ...


class Session:
    """A client's connection and the one to PostgreSQL that belongs to it."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        director: Director,
        *,
        user: str = "",
        rewrite_status: Callable[[bytes], bytes] = bytes,
        on_key: Callable[[bytes, Session], None] = lambda _key, _session: None,
        on_break: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._reader, self._writer = client
        self._upstream_reader, self._upstream_writer = upstream
        self._director = director
        self.user = user
        self._rewrite_status = rewrite_status
        self._on_key = on_key
        self._on_break = on_break or _nothing
        self._broken = False
        self._tag = ""
        # ReadyForQuery messages that PostgreSQL still owes; the first one ends the greeting.
        self._owed = 1
        self._idle = asyncio.Event()
        self._status = b"I"
        self._capture: asyncio.Queue[list[tuple[bytes, bytes]] | None] | None = None
        self._swallowed: list[bytes] = []
        # Messages of the extended protocol since the last Sync went to PostgreSQL.
        self._open = False
        self._works: dict[bytes, Step] = {}
        self._reads: dict[bytes, str] = {}
        self._fresh: set[bytes] = set()
        # Between a Bind of ours and its Sync: b"" while all is well, else the error's message.
        self._own_cycle = False
        self._failed = False
        self._working: asyncio.Task[str] | None = None
        self.key = b""
        """Process number and secret that a cancel request names."""

    @property
    def process(self) -> int:
        """The number of PostgreSQL's process behind the session."""
        return int.from_bytes(self.key[:4], "big") if self.key else 0

    def inform(self, text: str) -> None:
        """Tell the client something that is no error."""
        self._writer.write(wire.notice(text))

    @property
    def in_transaction(self) -> bool:
        """Whether the client has begun a transaction."""
        return self._status != b"I"

    async def run(self) -> None:
        """Relay until PostgreSQL ends the connection, which it does when the client has."""
        upward = asyncio.create_task(self._from_client())
        downward = asyncio.create_task(self._from_upstream())
        try:
            await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken:
                # The client went away in the middle of our work, whose answers nobody takes any more.
                await self._on_break(self.key)
            else:
                await asyncio.wait({downward})
        finally:
            for task in (upward, downward):
                task.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)

    def cancel(self) -> None:
        """End work of ours that is under way, as a cancel request asks."""
        if self._working is not None:
            self._working.cancel()

    # From PostgreSQL

    async def _from_upstream(self) -> None:
        """Relay PostgreSQL's messages; those that answer a statement of ours are kept from the client."""
        held, passing = b"", 0
        try:
            while chunk := await self._upstream_reader.read(CHUNK):
                data = held + chunk if held else chunk
                held, passing = await self._relayed(data, passing)
                await self._writer.drain()
            self._writer.write(held)
        except OSError:
            pass  # a receiver that broke off has ended too
        finally:
            if self._capture is not None:
                # A full queue has a reader that will find out by itself.
                with contextlib.suppress(asyncio.QueueFull):
                    self._capture.put_nowait(None)
            # TLS ends as a whole only: its writer cannot.
            with contextlib.suppress(OSError, NotImplementedError):
                self._writer.write_eof()

    async def _relayed(self, data: bytes, passing: int) -> tuple[bytes, int]:
        """Pass on what is whole; return the rest, and how many bytes of a long message are still to pass."""
        size, position, start = len(data), 0, 0
        captured: list[tuple[bytes, bytes]] = []
        while position < size:
            if passing:
                step = min(passing, size - position)
                position, passing = position + step, passing - step
                continue
            if size - position < 5:
                break
            kind, length = data[position], struct.unpack_from("!i", data, position + 1)[0]
            end = position + 1 + max(length, 4)
            kept = self._capture is not None and kind not in _ASYNCHRONOUS
            if not kept and kind not in _SEEN_KINDS and not self._swallowed:
                position, passing = min(end, size), max(0, end - size)
                continue
            if end > size:
                break
            body = data[position + 5 : end]
            instead = self._seen(kind, body)
            if kept:
                captured.append((bytes([kind]), body))
                instead = b""
            if instead is not None:
                self._writer.write(data[start:position] + instead)
                start = end
            position = end
        self._writer.write(data[start:position])
        if captured and self._capture is not None:
            await self._capture.put(captured)
        return data[position:], passing

    def _seen(self, kind: int, body: bytes) -> bytes | None:
        """Take note of a message; return what to send in its place, None for itself."""
        name = bytes([kind])
        if kind == ord("Z"):
            self._status = body
            self._owed -= 1
            self._swallowed.clear()
            if self._owed <= 0:
                self._idle.set()
        elif kind == ord("K"):
            self.key = body
            self._on_key(body, self)
        elif kind == ord("S"):
            return message(b"S", self._rewrite_status(body))
        elif self._swallowed and self._swallowed[0] == name:
            self._swallowed.pop(0)
            return b""
        elif kind == ord("E") and (words := wire.reworded(body)) is not None:
            return message(b"E", words)
        return None

    # From the client

    async def _from_client(self) -> None:
        """Take the client's messages one by one until its end, and pass the end on."""
        try:
            while True:
                header = await self._reader.readexactly(5)
                length = struct.unpack_from("!i", header, 1)[0]
                if length < 4:
                    # No protocol at all is PostgreSQL's to refuse.
                    await self._pass(header, None)
                elif header[0] in _HELD_KINDS and length <= MAX_STATEMENT_BYTES:
                    await self._take(header[:1], await self._reader.readexactly(length - 4))
                else:
                    await self._pass(header, length - 4)
        except asyncio.IncompleteReadError as exc:
            self._upstream_writer.write(exc.partial)
        except OSError:
            pass  # a sender that broke off has ended too: PostgreSQL would keep the session of a vanished client
        finally:
            with contextlib.suppress(OSError):
                self._upstream_writer.write_eof()

    async def _pass(self, start: bytes, size: int | None) -> None:
        """Pass on a message's beginning and `size` bytes more, or all that comes."""
        self._upstream_writer.write(start)
        while size is None or size > 0:
            chunk = await self._reader.read(CHUNK if size is None else min(size, CHUNK))
            if not chunk:
                raise asyncio.IncompleteReadError(b"", size)
            self._upstream_writer.write(chunk)
            await self._upstream_writer.drain()
            size = None if size is None else size - len(chunk)

    async def _send(self, kind: bytes, body: bytes) -> None:
        """Send a message on to PostgreSQL."""
        if kind in (b"Q", b"S", b"F"):
            self._owed += 1
            self._idle.clear()
        self._open = kind in (b"P", b"B", b"D", b"E", b"C") or (self._open and kind != b"S")
        self._upstream_writer.write(message(kind, body))
        await self._upstream_writer.drain()

    async def _take(self, kind: bytes, body: bytes) -> None:
        if self._own_cycle or (kind in b"BDC" and not self._open and self._is_ours(kind, body)):
            await self._answer(kind, body)
        elif kind == b"Q":
            await self._query(body)
        elif kind == b"P":
            await self._parse(body)
        elif kind == b"B":
            await self._bind(body)
        else:
            await self._send(kind, body)

    # The simple protocol

    async def _query(self, body: bytes) -> None:
        text = body.rstrip(b"\x00").decode("utf-8", "surrogateescape")
        try:
            steps = self._director.steps(text)
            if steps is None:
                await self._director.prepare(text)
        except RedshiftError as exc:
            await self._send_query(wire.raising(exc))
            return
        if steps is None:
            await self._send_query(self._director.rewritten(text))
        else:
            await self._run_steps(steps)

    async def _send_query(self, text: str) -> None:
        await self._send(b"Q", text.encode("utf-8", "surrogateescape") + b"\x00")

    async def _run_steps(self, steps: list[Step]) -> None:
        """Run the statements of one text, the last of which ends it for the client; an error ends it too."""
        await self._idle.wait()
        try:
            async with self._joined(len(steps) > 1 and not any(_controls(step.text) for step in steps)):
                for step in steps:
                    if step.work is not None:
                        self._writer.write(wire.command_complete(await self._worked(step.work)))
                    else:
                        await self._prepared(step.text)
                        await self._shown(self._director.rewritten(step.text))
        except RedshiftError as exc:
            self._writer.write(wire.error(exc))
        self._writer.write(wire.ready(self._status))
        await self._writer.drain()

    @contextlib.asynccontextmanager
    async def _joined(self, together: bool) -> AsyncIterator[None]:
        """Make one transaction of the statements of a text, as the protocol says, unless there is one."""
        begun = together and not self.in_transaction
        if begun:
            await self.ask("BEGIN")
        try:
            yield
        except BaseException:
            if begun:
                await self.ask("ROLLBACK")
            raise
        if begun:
            await self.ask("COMMIT")

    async def _prepared(self, text: str) -> None:
        try:
            await self._director.prepare(text)
        except RedshiftError as exc:
            await self._fail(exc)
            raise

    async def _fail(self, failure: RedshiftError) -> None:
        """Let the client's transaction fail with an error that is ours."""
        if self._status == b"T":
            with contextlib.suppress(RedshiftError):
                await self.ask(wire.raising(failure))

    async def _shown(self, text: str) -> None:
        """Run a statement of the client's, and show it all of the answer but its end."""
        failure: RedshiftError | None = None
        async for kind, body in self._exchange(wire.query(text)):
            if kind == b"E":
                failure = wire.read_error(wire.reworded(body) or body)
            else:
                self._writer.write(message(kind, body))
                await self._writer.drain()
        if failure is not None:
            raise failure

    # The extended protocol

    async def _parse(self, body: bytes) -> None:
        name, _, rest = body.partition(b"\x00")
        raw, _, types = rest.partition(b"\x00")
        text = raw.decode("utf-8", "surrogateescape")
        for known in (self._works, self._reads):
            known.pop(name, None)
        try:
            steps = self._director.steps(text)
            if steps is None:
                if await self._director.prepare(text):
                    self._reads[name] = text
                    self._fresh.add(name)
                await self._send_parse(name, self._director.rewritten(text), types)
                return
            if len(steps) != 1 or steps[0].work is None:
                raise RedshiftError("42601", "cannot insert multiple commands into a prepared statement")
            if self._open:
                raise wire.not_emulated("UNLOAD, COPY and external DDL in one pipeline with other statements")
        except RedshiftError as exc:
            await self._send_parse(name, wire.raising(exc), b"\x00\x00")
            return
        self._works[name] = steps[0]
        await self._answer(b"P", body)

    async def _send_parse(self, name: bytes, text: str, types: bytes) -> None:
        await self._send(b"P", name + b"\x00" + text.encode("utf-8", "surrogateescape") + b"\x00" + types)

    async def _bind(self, body: bytes) -> None:
        """Pass a Bind on, after what the statement reads was brought up to date: it may be an old one."""
        name = body.split(b"\x00", 2)[1]
        text = self._reads.get(name)
        if text is not None and name not in self._fresh:
            try:
                await self._director.prepare(text)
            except RedshiftError as exc:
                # A statement that raises the error, in its place; PostgreSQL then ignores the rest up to Sync.
                await self._send_parse(b"", wire.raising(exc), b"\x00\x00")
                self._swallowed += [b"1", b"2"]
                await self._send(b"B", b"\x00\x00" + b"\x00" * 6)
                await self._send(b"E", b"\x00" + b"\x00" * 4)
                return
        self._fresh.discard(name)
        await self._send(b"B", body)

    def _is_ours(self, kind: bytes, body: bytes) -> bool:
        """Return whether a Bind, Describe or Close is about a statement that the gateway keeps."""
        if kind == b"B":
            return body.split(b"\x00", 2)[1] in self._works
        return body[:1] == b"S" and body[1:].rstrip(b"\x00") in self._works

    async def _answer(self, kind: bytes, body: bytes) -> None:
        """Answer a message in PostgreSQL's place."""
        await self._idle.wait()
        self._own_cycle = kind != b"S"
        if kind == b"S":
            self._writer.write(wire.ready(self._status))
            self._failed = False
        elif not self._failed:
            try:
                self._writer.write(await self._answered(kind, body))
            except RedshiftError as exc:
                self._failed = True
                self._writer.write(wire.error(exc))
        await self._writer.drain()

    async def _answered(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"P" and body.partition(b"\x00")[0] in self._works:
            return message(b"1")
        if kind == b"B" and (name := body.split(b"\x00", 2)[1]) in self._works:
            work = self._works[name].work
            assert work is not None  # noqa: S101 - only statements with work are kept
            self._tag = await self._worked(work)
            return message(b"2")
        if kind == b"D":
            return (message(b"t", b"\x00\x00") if body[:1] == b"S" else b"") + message(b"n")
        if kind == b"E":
            return wire.command_complete(self._tag)
        if kind == b"C":
            self._works.pop(body[1:].rstrip(b"\x00"), None)
            return message(b"3")
        raise wire.not_emulated("UNLOAD, COPY and external DDL in one pipeline with other statements")

    # Work of our own

    async def _worked(self, work: Work) -> str:
        """Carry out work inside the client's transaction, or one of its own; return the command's tag."""
        if self._status == b"E":
            raise _ABORTED
        begun = not self.in_transaction
        if begun:
            await self.ask("BEGIN")
        try:
            tag = await self._guarded(work)
        except RedshiftError as exc:
            if begun:
                await self.ask("ROLLBACK")
            else:
                await self._fail(exc)
            raise
        if begun:
            await self.ask("COMMIT")
        return tag

    async def _guarded(self, work: Work) -> str:
        """Carry out work; end it when the client asks for that, or is gone."""
        self._working = asyncio.create_task(_running(work, self))
        try:
            while True:
                done, _ = await asyncio.wait({self._working}, timeout=_PATIENCE_SECONDS)
                if done:
                    return self._working.result()
                if self._reader.at_eof():
                    self._broken = True
                    raise ConnectionResetError("the client is gone")
        except asyncio.CancelledError:
            if not self._working.done():
                raise
            await self._quiet()
            raise RedshiftError("57014", "Query cancelled on user's request") from None
        finally:
            if not self._working.done():
                self._working.cancel()
                await asyncio.gather(self._working, return_exceptions=True)
            self._working = None

    async def _quiet(self) -> None:
        """Wait until PostgreSQL has answered what cancelled work had asked."""
        while self._capture is not None or not self._idle.is_set():
            if self._capture is None:
                self._capture = asyncio.Queue(_CAPTURED)
            if (batch := await self._capture.get()) is None:
                raise ConnectionResetError("PostgreSQL is gone")
            if any(kind == b"G" for kind, _body in batch):
                self._upstream_writer.write(message(b"f", b"cancelled\x00"))
            if self._owed <= 0:
                self._capture = None

    async def _exchange(self, sent: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        """Send messages that end in one ReadyForQuery; give the answers before it."""
        self._capture = asyncio.Queue(_CAPTURED)
        self._owed += 1
        self._idle.clear()
        self._upstream_writer.write(sent)
        await self._upstream_writer.drain()
        while True:
            batch = await self._capture.get()
            if batch is None:
                raise ConnectionResetError("PostgreSQL is gone")
            for kind, body in batch:
                if kind == b"Z":
                    self._capture = None
                    return
                yield kind, body

    async def ask(self, text: str) -> list[list[str | None]]:
        """Run a statement in the client's session; return its rows. Raises RedshiftError with PostgreSQL's error."""
        rows: list[list[str | None]] = []
        failure: RedshiftError | None = None
        async for kind, body in self._exchange(wire.query(text)):
            if kind == b"D":
                rows.append(wire.read_row(body))
            elif kind == b"E":
                failure = wire.read_error(body)
        if failure is not None:
            raise failure
        return rows

    async def describe(self, text: str) -> list[Field]:
        """Return the columns of a query in the client's session, without running it."""
        name = b"goldlake_described\x00"
        sent = message(b"P", name + text.encode("utf-8", "surrogateescape") + b"\x00\x00\x00")
        sent += message(b"D", b"S" + name) + message(b"C", b"S" + name) + message(b"S")
        fields: list[Field] = []
        failure: RedshiftError | None = None
        async for kind, body in self._exchange(sent):
            if kind == b"T":
                fields = wire.read_description(body)
            elif kind == b"E":
                failure = wire.read_error(body)
        if failure is not None:
            raise failure
        return fields

    async def copy_out(self, text: str, sink: Callable[[list[bytes]], Awaitable[None]]) -> None:
        """Run a COPY … TO STDOUT in the client's session and give what comes to `sink`, in bounded pieces."""
        pieces: list[bytes] = []
        size = 0
        failure: RedshiftError | None = None
        async for kind, body in self._exchange(wire.query(text)):
            if kind == b"d":
                pieces.append(body)
                size += len(body)
                if size >= 1 << 20:
                    await sink(pieces)
                    pieces, size = [], 0
            elif kind == b"E":
                failure = wire.read_error(body)
        if failure is not None:
            raise failure
        await sink(pieces)

    async def copy_in(self, text: str, source: AsyncIterator[bytes]) -> str:
        """Run a COPY … FROM STDIN in the client's session with the data of `source`; return the command's tag."""
        tag = ""
        failure: RedshiftError | None = None
        async for kind, body in self._exchange(wire.query(text)):
            if kind == b"G":
                await self._feed(source)
            elif kind == b"C":
                tag = body.rstrip(b"\x00").decode()
            elif kind == b"E":
                failure = wire.read_error(body)
        if failure is not None:
            raise failure
        return tag

    async def _feed(self, source: AsyncIterator[bytes]) -> None:
        """Send the data; stop when PostgreSQL has an error to tell."""
        async for piece in source:
            if self._capture is not None and not self._capture.empty():
                break
            self._upstream_writer.write(message(b"d", piece))
            await self._upstream_writer.drain()
        self._upstream_writer.write(message(b"c"))
        await self._upstream_writer.drain()


async def _running(work: Work, session: Session) -> str:
    """Carry out work; a fault of ours ends the statement, not the session."""
    try:
        return await work.run(session)
    except (RedshiftError, OSError):
        raise
    except Exception as exc:
        LOG.exception("the gateway failed at a statement")
        raise RedshiftError("XX000", f"the local Redshift failed: {type(exc).__name__}, see its log") from exc


async def _nothing(_key: bytes) -> None:
    return


def _controls(text: str) -> bool:
    """Return whether a statement begins or ends a transaction."""
    words = text.split(None, 1)
    return bool(words) and words[0].lower() in ("begin", "start", "commit", "end", "rollback", "abort")
