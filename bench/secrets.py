"""How long it takes to read 60 secrets, and in how many calls: `python -m bench.secrets [--endpoint-url URL]`.

Side by side in one run: our batches, our way without the permission for batches, a loop of GetSecretValue, and AWS's
own caching client (aws-secretsmanager-caching) with a cold cache. Without an endpoint an emulator of its own is started
and stopped. On loopback an answer takes no time to travel, so each way is measured again with a wait before every
request, as long as one takes within a region. Prints a table and a JSON line; each figure is the median of several
rounds.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from botocore.exceptions import ClientError

from local.platform import Platform, ensure_emulator_environment
from local.process import free_port
from runtime.aws import DEFAULT_REGION, Connection, is_loopback
from runtime.cli import say, show_table
from runtime.fetch_values import read_secrets

COUNT = 60
ROUNDS = 5
TRAVEL_MILLISECONDS = 10


class Counted(Connection):
    """A connection with one client, which counts its requests and waits before each."""

    @cached_property
    def calls(self) -> list[str]:
        """The operations that were asked for since it was emptied."""
        return []

    @cached_property
    def wait(self) -> list[float]:
        """The seconds before each request, one number."""
        return [0.0]

    @cached_property
    def _client(self) -> Any:
        client = super().client("secretsmanager")
        client.meta.events.register("before-send.secrets-manager", self._on_request)
        return client

    def _on_request(self, event_name: str, **_: object) -> None:
        self.calls.append(event_name.rpartition(".")[2])
        time.sleep(self.wait[0])

    def client(self, service: str) -> Any:
        """Return the client."""
        assert service == "secretsmanager"  # noqa: S101 - a bench
        return self._client


class WithoutBatches(Counted):
    """The same for an identity without secretsmanager:BatchGetSecretValue."""

    def _on_request(self, event_name: str, **rest: object) -> None:
        super()._on_request(event_name, **rest)
        if event_name.endswith("BatchGetSecretValue"):
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "BatchGetSecretValue")


def ours(aws: Counted, names: Sequence[str]) -> dict[str, Any]:
    """Read as `goldlake secrets fetch` does."""
    return dict(read_secrets(aws, names).held)


def one_by_one(aws: Counted, names: Sequence[str]) -> dict[str, Any]:
    """Read in a loop, the first thing one writes with boto3."""
    client = aws.client("secretsmanager")
    return {name: client.get_secret_value(SecretId=name)["SecretString"] for name in names}


def caching_client(aws: Counted, names: Sequence[str]) -> dict[str, Any]:
    """Read with AWS's caching client, nothing in its cache: it describes each secret, then gets it."""
    from aws_secretsmanager_caching import SecretCache

    make: Any = SecretCache  # has no types
    cache = make(client=aws.client("secretsmanager"))
    return {name: cache.get_secret_string(name) for name in names}


WAYS: dict[str, tuple[type[Counted], Callable[[Counted, Sequence[str]], dict[str, Any]]]] = {
    "goldlake, batches": (Counted, ours),
    "goldlake, without the permission for batches": (WithoutBatches, ours),
    "boto3, one GetSecretValue after the other": (Counted, one_by_one),
    "aws-secretsmanager-caching, cold": (Counted, caching_client),
}


@contextmanager
def emulator(endpoint_url: str | None) -> Iterator[str]:
    """Give the endpoint, or that of an emulator that is stopped afterwards."""
    if endpoint_url:
        if not is_loopback(endpoint_url):
            raise click.UsageError("the bench writes secrets: it is for an emulator on loopback only")
        yield endpoint_url
        return
    ensure_emulator_environment(say)
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder))
        for name in ("tmp", "state", "s3"):
            (platform.home / "emulator" / name).mkdir(parents=True)
        port = platform.emulator.start(free_port(), lambda _line: None)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            platform.emulator.stop(lambda _line: None)


@contextmanager
def secrets_there(aws: Connection) -> Iterator[dict[str, str]]:
    """Give the values of secrets that are gone afterwards."""
    client = aws.client("secretsmanager")
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    values = {f"{prefix}/{index}": json.dumps({"password": uuid.uuid4().hex}) for index in range(COUNT)}
    try:
        for name, value in values.items():
            client.create_secret(Name=name, SecretString=value)
        yield values
    finally:
        for name in values:
            client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def measured(way: str, endpoint: str, values: dict[str, str], milliseconds: int) -> dict[str, Any]:
    """Return the median time of a way, and its calls."""
    connection, read = WAYS[way]
    aws = connection(endpoint, DEFAULT_REGION)
    aws.wait[0] = milliseconds / 1000
    taken = []
    # One round more, for the connections.
    for _ in range(ROUNDS + 1):
        aws.calls.clear()
        started = time.perf_counter()
        found = read(aws, list(values))
        taken.append(time.perf_counter() - started)
        if found != values:
            raise click.ClickException(f"{way} did not read what was written")
    median = round(statistics.median(taken[1:]) * 1000, 1)
    return {"way": way, "travel_ms": milliseconds, "median_ms": median, "calls": len(aws.calls)}


@click.command()
@click.option("--endpoint-url", help="An emulator that runs; without it one is started.")
def main(endpoint_url: str | None) -> None:
    """Measure and print."""
    with emulator(endpoint_url) as endpoint, secrets_there(Connection(endpoint, DEFAULT_REGION)) as values:
        results = [measured(way, endpoint, values, travel) for travel in (0, TRAVEL_MILLISECONDS) for way in WAYS]
    show_table(
        ("way", "wait before a request, ms", "median, ms", "calls"),
        [(r["way"], r["travel_ms"], r["median_ms"], r["calls"]) for r in results],
        f"{COUNT} secrets, median of {ROUNDS}",
    )
    click.echo(json.dumps({"bench": "secrets", "secrets": COUNT, "rounds": ROUNDS, "results": results}))


if __name__ == "__main__":
    main()
