"""A loopback HTTP proxy in front of the emulator that does what networks and busy services do.

It hands requests on as they are, host and signature included, and by rule answers 500 or 503, keeps silent, is slow,
drops the connection, or hands the request on and drops its answer. It counts what comes through.
`python -m tests.local.faulty_proxy PORT LATENCY` runs one as a process of its own and prints its port; the counts are
at /_proxy/counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

LOOPBACK = "127.0.0.1"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL_ERROR = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
Fault = Literal["slow down", "internal error", "reset", "lost answer", "delay"]
_ANSWERS: dict[Fault, tuple[bytes, bytes]] = {
    "slow down": (b"503 Slow Down", SLOW_DOWN),
    "internal error": (b"500 Internal Server Error", INTERNAL_ERROR),
}


@dataclass
class Rule:
    """What happens to requests whose `METHOD /path?query` the pattern is found in; for `times` of them, None for all.

    A delay is `seconds` before the request is handed on. `share` is the part of the requests that it happens to; which
    ones is decided by `dice`, which a test seeds.
    """

    pattern: str
    fault: Fault
    seconds: float = 0.0
    times: int | None = None
    share: float = 1.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - faults, not secrets
    seen: int = 0

    def applies(self, line: str) -> bool:
        """Return whether the rule is for this request, and count it."""
        if not re.search(self.pattern, line) or (self.times is not None and self.seen >= self.times):
            return False
        if self.share < 1 and self.dice.random() >= self.share:
            return False
        self.seen += 1
        return True


@dataclass
class FaultyProxy:
    """The proxy to a port on loopback. `latency` seconds come before every answer."""

    upstream: int
    latency: float = 0.0
    rules: Sequence[Rule] = ()
    lines: list[str] = field(default_factory=list)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def serve(self) -> asyncio.Server:
        """Start to listen on a free port."""
        return await asyncio.start_server(self._connected, LOOPBACK, 0, limit=2**20)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after another."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client has gone, or the proxy is ended.
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; return whether there may be another."""
        head = await reader.readuntil(b"\r\n\r\n")
        # A client with a body asks first (`Expect: 100-continue`, in no signature): the proxy takes every body.
        asked = re.search(rb"(?i)\r\nexpect: *100-continue", head)
        if asked:
            head = head[: asked.start()] + head[asked.end() :]
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(_length(head))
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        line = f"{method} {target}"
        if target == "/_proxy/counts":
            counts = json.dumps(dict(Counter(kind(line) for line in self.lines))).encode()
            self.lines.clear()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(counts), counts))
            return True
        self.lines.append(line)
        rule = next((rule for rule in self.rules if rule.applies(line)), None)
        await asyncio.sleep(self.latency + (rule.seconds if rule and rule.fault == "delay" else 0))
        if rule and rule.fault == "reset":
            writer.transport.abort()
            return False
        if rule and rule.fault in _ANSWERS:
            status, text = _ANSWERS[rule.fault]
            answer = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
            writer.write(answer % (status, len(text)) + (b"" if method == "HEAD" else text))
        else:
            answered = await self._handed_on(head + body, method)
            if rule and rule.fault == "lost answer":
                writer.transport.abort()
                return False
            writer.write(answered)
        await writer.drain()
        return True

    async def _handed_on(self, request: bytes, method: str) -> bytes:
        """Return the emulator's whole answer."""
        while True:
            kept = bool(self._idle)
            reader, writer = self._idle.pop() if kept else await asyncio.open_connection(LOOPBACK, self.upstream)
            try:
                writer.write(request)
                answer = await _answer(reader, method)
            except BaseException as exc:
                writer.close()
                if kept and isinstance(exc, OSError | asyncio.IncompleteReadError):
                    # The emulator had closed a connection that was idle.
                    continue
                raise
            self._idle.append((reader, writer))
            return answer


async def _answer(reader: asyncio.StreamReader, method: str) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if method == "HEAD" or status in (204, 304):
        return head
    if not re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        return head + await reader.readexactly(_length(head))
    parts = [head]
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        parts += [size, chunk]
        if chunk == b"\r\n":
            return b"".join(parts)


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def kind(line: str) -> str:
    """Return what a request is for: a listing, a log file, another object, or a call of a service."""
    method, target = line.split(" ", 1)
    if method == "POST":
        return "Glue"
    if "list-type=2" in target:
        return "list"
    return "Delta log" if "_delta_log" in target else "object"


@contextlib.contextmanager
def faulty_proxy(upstream: int, *rules: Rule, latency: float = 0.0) -> Iterator[tuple[FaultyProxy, str]]:
    """Run a proxy in a thread; yield it and its URL."""
    proxy = FaultyProxy(upstream, latency, rules)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()
    server = asyncio.run_coroutine_threadsafe(proxy.serve(), loop).result(10)
    try:
        yield proxy, f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(proxy, server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(proxy: FaultyProxy, server: asyncio.Server) -> None:
    """Close every connection; nothing is left for the loop's end to complain of."""
    server.close()
    for _, writer in proxy._idle:
        writer.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # A closed transport gives its socket back in the loop's next rounds.
    await asyncio.sleep(0.01)


async def _main(upstream: int, latency: float) -> None:
    server = await FaultyProxy(upstream, latency).serve()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
