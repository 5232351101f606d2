"""dbt on the local Redshift and on DuckDB, for the tests of the gold project."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redshift_connector

from runtime import sql
from runtime.silver import SILVER_TABLES
from tests.local.support import REPOSITORY

PROJECT = REPOSITORY / "dbt_gold"
PASSWORD = "Xy7localonly"
MARTS = (
    "agg_company_hiring",
    "agg_daily_postings",
    "agg_skill_demand",
    "bridge_job_skill",
    "dim_company",
    "dim_company_history",
    "dim_date",
    "dim_location",
    "dim_skill",
    "fact_job_posting",
)
_TYPES = {"string": "varchar", "double": "double precision"}


def silver_ddl() -> list[str]:
    """Return statements that make the silver schemas and tables, on Redshift and DuckDB."""
    statements = []
    for table in SILVER_TABLES:
        columns = ", ".join(
            f"{sql.identifier(column.name)} {_TYPES.get(column.type, column.type)}" for column in table.columns
        )
        statements.append(f"create schema if not exists {sql.identifier(table.schema)}")
        statements.append(f"create table {sql.qualified(table.schema, table.name)} ({columns})")
    return statements


@dataclass
class Warehouse:
    """A local Redshift, and dbt runs against it."""

    port: int
    work: Path

    def query(self, *statements: str) -> list[list[Any]]:
        """Run statements in one session as the administrator; return the last one's rows."""
        with contextlib.closing(
            redshift_connector.connect(
                host="127.0.0.1", port=self.port, database="analytics", user="admin", password=PASSWORD, ssl=False
            )
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []

    def start_dbt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run dbt and return what it said, however it ended."""
        own = {
            "REDSHIFT_HOST": "127.0.0.1",
            "REDSHIFT_PORT": str(self.port),
            "REDSHIFT_USER": "admin",
            "REDSHIFT_SSLMODE": "disable",
            "DBT_ENV_SECRET_REDSHIFT_PASSWORD": PASSWORD,
            "DBT_PROFILES_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(self.work / "target"),
            "DBT_LOG_PATH": str(self.work / "logs"),
        }
        return subprocess.run(
            [str(Path(sys.prefix) / "bin" / "dbt"), "--no-use-colors", *arguments],
            cwd=PROJECT,
            env=os.environ | own | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def dbt(self, *arguments: str, **environment: str) -> str:
        """Run dbt, expect success, and return its output."""
        done = self.start_dbt(*arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def artifact(self, name: str) -> Any:
        """Return one of dbt's JSON artifacts."""
        return json.loads((self.work / "target" / name).read_text())


@contextlib.contextmanager
def running_warehouse(work: Path) -> Iterator[Warehouse]:
    """Start a local Redshift for dbt runs that write to `work`, and stop it in the end."""
    # Not in pytest's folder: another pytest closes that to PostgreSQL's own user whenever it starts.
    with tempfile.TemporaryDirectory(prefix="goldlake-dbt-") as data:
        yield from _running(work, Path(data))


def _running(work: Path, data: Path) -> Iterator[Warehouse]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = work / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(data), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while "ready on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Warehouse(port, work)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
