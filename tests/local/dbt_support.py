"""dbt on the local Redshift and on DuckDB, for the tests of the gold project.

Run as a module it is a process that runs dbt as often as it is told: importing dbt takes longer than most of what the
tests ask of it, and what dbt leaves in a process (environment, log handlers, connections) stays out of the tests'.
"""

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

from local.redshift.gateway import STRICT_VARIABLE
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
# As Spectrum shows a string.
_TYPES = {"string": "varchar(65535)", "double": "double precision"}


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


@dataclass(frozen=True)
class Done:
    """What a dbt command came to: the exit code that dbt would have, and what it said."""

    returncode: int
    output: str


class Dbt:
    """dbt in a process of its own, which keeps its modules between commands. Its artifacts are in `work`."""

    def __init__(self, work: Path, **environment: str) -> None:
        self.target = work / "target"
        work.mkdir(exist_ok=True)
        own = {
            "DBT_PROFILES_DIR": str(PROJECT),
            "DBT_PROJECT_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(work / "logs"),
            "DBT_USE_COLORS": "false",
        }
        self._said = work / "dbt.out"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.local.dbt_support", str(self._said)],
            cwd=REPOSITORY,
            env=os.environ | own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str) -> None:
        """Give a command; `end` waits for it."""
        assert self._process.stdin
        print(json.dumps(arguments), file=self._process.stdin, flush=True)

    def end(self) -> Done:
        """Wait for the command that was given last."""
        assert self._process.stdout
        answer = self._process.stdout.readline()
        return Done(int(answer or -1), self._said.read_text())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _serve(said: str) -> None:
    """Run the commands that come in as JSON, a line each, and answer with their exit codes."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        with Path(said).open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            result = dbtRunner().invoke(json.loads(line))
            if result.exception:
                print(repr(result.exception))
            sys.stdout.flush()
            # The file of a DuckDB connection is closed to the tests.
            DuckDBConnectionManager.close_all_connections()
        print(0 if result.success else 2 if result.exception else 1, file=answers)


@dataclass
class Warehouse:
    """A local Redshift, and dbt runs against it."""

    port: int
    work: Path
    _dbt: Dbt

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

    def start_dbt(self, *arguments: str) -> None:
        """Give dbt a command; `end_dbt` waits for it."""
        self._dbt.start(*arguments)

    def end_dbt(self) -> Done:
        """Return what the command came to, however it ended."""
        return self._dbt.end()

    def dbt(self, *arguments: str) -> str:
        """Run dbt, expect success, and return its output."""
        self.start_dbt(*arguments)
        done = self.end_dbt()
        assert done.returncode == 0, done.output
        return done.output

    def artifact(self, name: str) -> Any:
        """Return one of dbt's JSON artifacts."""
        return json.loads((self.work / "target" / name).read_text())


@contextlib.contextmanager
def running_dbt(work: Path, **environment: str) -> Iterator[Dbt]:
    """Start a process for dbt, and end it in the end."""
    dbt = Dbt(work, **environment)
    try:
        yield dbt
    finally:
        dbt.close()


@contextlib.contextmanager
def running_warehouse(work: Path, *, strict: bool = True) -> Iterator[Warehouse]:
    """Start a local Redshift for dbt runs that write to `work`, and stop it in the end.

    Not strict, it takes COPY … FROM STDIN, by which DuckDB fills tables, as Redshift does not.
    """
    # Not in pytest's folder: another pytest closes that to PostgreSQL's own user whenever it starts.
    with (
        tempfile.TemporaryDirectory(prefix="goldlake-dbt-") as data,
        _redshift(work, Path(data), strict=strict) as port,
        running_dbt(
            work,
            REDSHIFT_HOST="127.0.0.1",
            REDSHIFT_PORT=str(port),
            REDSHIFT_USER="admin",
            REDSHIFT_SSLMODE="disable",
            DBT_ENV_SECRET_REDSHIFT_PASSWORD=PASSWORD,
        ) as dbt,
    ):
        yield Warehouse(port, work, dbt)


@contextlib.contextmanager
def _redshift(work: Path, data: Path, *, strict: bool) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = work / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(data), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD, STRICT_VARIABLE: "on" if strict else "off"},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while "ready on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


if __name__ == "__main__":
    _serve(sys.argv[1])
