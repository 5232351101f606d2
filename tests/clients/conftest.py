"""Fixtures of the tests with clients that none of us wrote: a platform, and a way to run programs with the clients."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.platform import WAREHOUSE_LOGIN, Platform
from local.process import LOOPBACK, free_port
from local.redshift.tls import Files
from runtime.aws import DEFAULT_REGION
from runtime.secrets import local_default
from tests.clients import environment

PROGRAMS = Path(__file__).with_name("programs")
WORKGROUP = "clients"
Run = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _clients() -> None:
    """Skip what needs the clients where they are not installed."""
    if not environment.is_there():
        pytest.skip(f"the clients are not installed: {environment.COMMAND}")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform with a workgroup."""
    platform = Platform(tmp_path_factory.mktemp("clients"))
    platform.up(emulator_port=free_port(), redshift_port=free_port())
    client = platform.connection().client("redshift-serverless")
    client.create_namespace(namespaceName=WORKGROUP, dbName="analytics")
    client.create_workgroup(workgroupName=WORKGROUP, namespaceName=WORKGROUP, baseCapacity=8)
    yield platform
    platform.down()


@pytest.fixture(scope="session")
def settings(platform: Platform) -> dict[str, str]:
    """The environment of a client: where everything is, by the variables that AWS's SDKs and OpenSSL read."""
    control = f"http://{LOOPBACK}:{platform.control_port()}"
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(platform.home),
        "LANG": "C.UTF-8",
        "AWS_ENDPOINT_URL": str(platform.connection().endpoint_url),
        "AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS": control,
        "AWS_ENDPOINT_URL_REDSHIFT_DATA": control,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": DEFAULT_REGION,
        "SSL_CERT_FILE": str(Files.of(platform.home / "redshift").authority),
        "WORKGROUP": WORKGROUP,
        "REDSHIFT_HOST": LOOPBACK,
        "REDSHIFT_PORT": str(platform.warehouse_port()),
        "REDSHIFT_DATABASE": "analytics",
        "REDSHIFT_USER": local_default(WAREHOUSE_LOGIN, "username"),
        "REDSHIFT_PASSWORD": local_default(WAREHOUSE_LOGIN, "password"),
    }


@pytest.fixture(scope="session")
def run(settings: dict[str, str]) -> Run:
    """Runs a step of a program with the clients; returns what it prints, read as JSON."""

    def result(program: str, step: str, **variables: str) -> Any:
        done = subprocess.run(
            [str(environment.PYTHON), str(PROGRAMS / program), step],
            env=settings | variables,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return result


@pytest.fixture
def lake_role(platform: Platform) -> str:
    """A role that Redshift may take and that may read and write in S3; return its ARN."""
    iam = platform.connection().client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "redshift.amazonaws.com"}, "Action": "sts:AssumeRole"}
    version = {"Version": "2012-10-17"}
    name = f"lake-{uuid.uuid4().hex[:8]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(version | {"Statement": [trust]}))
    allowed = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}
    policy = json.dumps(version | {"Statement": [allowed]})
    iam.put_role_policy(RoleName=name, PolicyName="lake", PolicyDocument=policy)
    return str(arn["Role"]["Arn"])
