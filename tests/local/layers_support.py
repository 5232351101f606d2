"""The dbt runner's layers unpacked as in Lambda, and a warehouse with silver data behind them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lambdas.layers import PROJECT_LAYER, Artifact, Build, build_all
from lambdas.layers.rehearse import Stage, set_writable
from local.process import exclusive, free_port
from local.redshift.gateway import STRICT_VARIABLE
from runtime import sql
from runtime.aws import Connection
from runtime.sample import generate
from runtime.warehouse import Warehouse
from tests.local.dbt_support import silver_ddl
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Xy7localonly"
# The newest of the sample's days; within dim_date.
UNTIL = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """The handler's environment, and a warehouse behind it."""

    environment: Mapping[str, str]
    warehouse: Warehouse

    def query(self, statement: str) -> list[list[Any]]:
        """Run a statement as the administrator and return its rows."""
        with contextlib.closing(self.warehouse.connect()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []

    def rows(self, tables: tuple[str, ...]) -> dict[str, list[str]]:
        """Return all rows of gold tables, in an order that does not depend on how they were written."""
        return {
            table: sorted(repr(row) for row in self.query(f"select * from {sql.qualified('gold', table)}"))  # noqa: S608
            for table in tables
        }

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Keep everybody from reading a table, within the block: who tries waits."""
        with contextlib.closing(self.warehouse.connect()) as connection:
            connection.autocommit = False
            connection.cursor().execute(f"lock table {table} in access exclusive mode")
            yield
            connection.rollback()


@contextlib.contextmanager
def running_place(aws: Connection, work: Path, rows: int = 300) -> Iterator[Place]:
    """Start a local Redshift with so many postings in silver; its login and a bucket are in the emulator."""
    mark = uuid.uuid4().hex[:8]
    login = json.dumps({"username": "admin", "password": PASSWORD})
    aws.client("secretsmanager").create_secret(Name=f"layers-test/{mark}", SecretString=login)
    aws.client("s3").create_bucket(Bucket=f"layers-test-{mark}")
    # Not in pytest's folder: another pytest closes that to PostgreSQL's own user whenever it starts.
    with tempfile.TemporaryDirectory(prefix="goldlake-layers-") as data, _redshift(work, Path(data)) as port:
        place = Place(
            {
                "AWS_ENDPOINT_URL": str(aws.endpoint_url),
                "AWS_REGION": "us-east-1",
                "ARTIFACTS_LOCATION": f"s3://layers-test-{mark}/dbt",
                "REDSHIFT_HOST": "127.0.0.1",
                "REDSHIFT_PORT": str(port),
                "REDSHIFT_SSL": "false",
                "REDSHIFT_SECRET": f"layers-test/{mark}",
            },
            Warehouse(host="127.0.0.1", port=port, database="analytics", user="admin", password=PASSWORD, ssl=False),
        )
        load_silver(place.warehouse, rows)
        yield place


@contextlib.contextmanager
def _redshift(work: Path, data: Path) -> Iterator[int]:
    port, log = free_port(), work / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(data), "--port", str(port)],
            cwd=REPOSITORY,
            # DuckDB fills it with COPY … FROM STDIN, which the strict mode refuses as Redshift does.
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD, STRICT_VARIABLE: "off"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: "ready on" in log.read_text() or process.poll() is not None, "local Redshift", 60)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def load_silver(warehouse: Warehouse, rows: int) -> None:
    """Put a sample of so many postings into the warehouse's silver schemas."""
    import duckdb
    import duckdb_extension_postgres_scanner as package

    with contextlib.closing(warehouse.connect()) as connection:
        connection.autocommit = True
        for statement in silver_ddl():
            connection.cursor().execute(statement)
    extension = next(Path(str(package.__file__)).parent.rglob("postgres_scanner.duckdb_extension"))
    login = f"host={warehouse.host} port={warehouse.port} dbname={warehouse.database} user={warehouse.user}"
    with tempfile.TemporaryDirectory(prefix="goldlake-silver-") as folder, duckdb.connect() as database:
        database.execute(f"load {sql.literal(str(extension))}")
        database.execute(f"attach {sql.literal(f'{login} password={PASSWORD}')} as warehouse (type postgres)")
        for table, (path, _rows) in generate(Path(folder), rows=rows, until=UNTIL).items():
            name = sql.qualified("warehouse", table.schema, table.name)
            database.execute(f"insert into {name} from read_parquet({sql.literal(str(path))})")


def built_layers(folder: Path, project: Path | None = None) -> dict[str, Artifact]:
    """Return the artifacts of `make run`, built where they are not yet; or with a project of one's own."""
    with exclusive(REPOSITORY / ".goldlake"):
        build_all(Build(REPOSITORY, REPOSITORY / ".goldlake" / "build"))
        # Links: a build writes a new file beside the old one and never into it.
        shutil.copytree(REPOSITORY / ".goldlake" / "build", folder, copy_function=os.link)
    return {artifact.name: artifact for artifact in build_all(Build(REPOSITORY, folder, dbt_project=project))}


def with_project(stage: Stage, project: Artifact, folder: Path) -> Stage:
    """Return a stage with another project's layer; the rest is that of the first."""
    root = folder / PROJECT_LAYER
    with zipfile.ZipFile(project.path) as archive:
        archive.extractall(root)
    (folder / "tmp").mkdir()
    set_writable(root, writable=False)
    return replace(stage, path=(*stage.path[:2], root / "python", *stage.path[3:]), temporary=folder / "tmp")


def fresh(stage: Stage) -> Stage:
    """Empty what stands for /tmp: a new execution environment has nothing there."""
    shutil.rmtree(stage.temporary)
    stage.temporary.mkdir()
    return stage
