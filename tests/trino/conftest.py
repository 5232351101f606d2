"""The Trino of these tests: the one that TRINO_URL names, or the laptop's own on an emulator, or none.

With TRINO_URL (`http://user@host:port/catalog`) the tests go to that Trino, whose catalogue is to be as docs/trino.md
says, and AWS_ENDPOINT_URL and AWS_REGION name the emulator that it reads. Without it, a Trino that was downloaded
before is started beside an emulator of the tests' own, once per worker, and each test runs in its catalogue on Glue and
in the one with a metastore of its own. Without either the tests are skipped; REQUIRE_TRINO=1 makes that a failure.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform import Platform, ensure_emulator_environment
from local.process import LOOPBACK, exclusive, free_port
from local.trino.server import installed, url
from runtime.aws import DEFAULT_REGION, Connection
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError

GIVEN = os.environ.get("TRINO_URL")
CATALOGS = ("given",) if GIVEN else ("delta", "delta_file")


def quiet(_line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="session")
def own_trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform | None]:
    """The platform with emulator and Trino of this worker, running; None when TRINO_URL names another Trino."""
    if GIVEN:
        yield None
        return
    try:
        installed()
    except ConfigurationError as exc:
        reason = f"{exc.message}. What provides it: {exc.hint}. Or TRINO_URL names a running one"
        if os.environ.get("REQUIRE_TRINO", "0") not in ("", "0"):
            pytest.fail(f"REQUIRE_TRINO is set: {reason}")
        pytest.skip(reason)
    with exclusive(Path(tempfile.gettempdir()) / "goldlake-tests"):
        ensure_emulator_environment(quiet)
    platform = Platform(tmp_path_factory.mktemp("trino"))
    for folder in ("tmp", "state", "s3"):
        (platform.home / "emulator" / folder).mkdir(parents=True)
    try:
        platform.emulator.start(free_port(), quiet)
        platform.start_trino(free_port(), quiet)
        yield platform
    finally:
        platform.trino.stop(quiet)
        platform.emulator.stop(quiet)


@pytest.fixture(autouse=True, params=CATALOGS)
def _catalog(request: pytest.FixtureRequest, own_trino: Platform | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the catalogue and the emulator in the environment, as a user would."""
    if own_trino is None:
        return
    trino, emulator = own_trino.trino.record(), own_trino.emulator.record()
    assert trino is not None
    assert emulator is not None
    monkeypatch.setenv("TRINO_URL", url(trino.port, request.param))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:{emulator.port}")
    monkeypatch.setenv("AWS_REGION", DEFAULT_REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def lake() -> Lake:
    """A lake in a fresh bucket of the S3 that Trino reads."""
    aws = Connection.from_environment()
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=bucket)
    return Lake.at(f"s3://{bucket}/gold", aws)
