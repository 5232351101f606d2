"""A local Redshift as a process of its own, and roles that it may take."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # it has no annotations
import redshift_connector

from local.process import free_port
from runtime.aws import Connection
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Xy7-local only"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "redshift.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


def role(aws: Connection, actions: list[str], trust: dict[str, Any] | None = None) -> str:
    """Return a new role that may do these actions everywhere."""
    iam, name = aws.client("iam"), f"r-{uuid.uuid4().hex[:10]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust or TRUST))["Role"]["Arn"]
    if actions:
        allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(allowed))
    return str(arn)


@dataclass
class LocalRedshift:
    """A local Redshift as a process of its own, started and stopped by the test."""

    data: Path
    endpoint_url: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        path = self.data.with_suffix(".log")
        return path.read_text() if path.exists() else ""

    @property
    def postmaster(self) -> int:
        return int((self.data / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> LocalRedshift:
        command = [sys.executable, "-m", "local.redshift", "--data", str(self.data), "--port", str(self.port)]
        if self.endpoint_url:
            command += ["--endpoint-url", self.endpoint_url]
        environment = os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD}
        with self.data.with_suffix(".log").open("a") as log:
            offset = log.tell()
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, text=True)
        wait_for(lambda: "ready on" in self.log[offset:] or self.exited, "ready line")
        return self

    @property
    def exited(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def connect(self, user: str = "admin", password: str = PASSWORD) -> Any:
        connection = redshift_connector.connect(
            host="127.0.0.1", port=self.port, database="analytics", user=user, password=password, ssl=False
        )
        connection.autocommit = True
        return connection

    def simple(self) -> Any:
        """Return a session of psycopg, which speaks the simple protocol."""
        return psycopg2.connect(host="127.0.0.1", port=self.port, dbname="analytics", user="admin", password=PASSWORD)

    def query(self, statement: str) -> list[list[Any]]:
        """Return the rows of a statement, run in a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []
