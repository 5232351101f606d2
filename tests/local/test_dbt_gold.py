"""The dbt project, built by the real dbt on the local Redshift and on DuckDB."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import redshift_connector

from runtime import sql
from runtime.silver import SILVER_TABLES

REPOSITORY = Path(__file__).parents[2]
PROJECT = REPOSITORY / "dbt_gold"
PASSWORD = "Xy7localonly"
TYPES = {"string": "varchar", "double": "double precision"}

POSTINGS = """
    insert into silver_linkedin.job_postings
    select 'p' || i, case when i % 10 > 0 then 'c' || (i % 50) end, 'Title ' || i, 'd', 'Wien',
           case i % 3 when 0 then 'AT' when 1 then 'DE' end, 'Remote', 'Full-time', 'mid', 100, 200, 'eur',
           timestamp '2026-01-01' + (i % 100) * interval '1 day',
           timestamp '2026-06-01' + (i % 100) * interval '1 hour', 'u'
      from generate_series(1, 1000) as numbers(i)
"""
COMPANIES = """
    insert into silver_companies.companies
    select 'c' || i, 'Company ' || i, 'it', '1-10', 'Graz', 'w', timestamp '2026-01-01'
      from generate_series(1, 45) as numbers(i)
"""
ENRICHMENT = """
    insert into silver_ai.job_enrichment
    select 'p' || i, '[]', 'senior', 'data', 0.5, 'm', timestamp '2026-06-02'
      from generate_series(1, 400) as numbers(i)
"""
# Fifty postings come again with a new title, fifty are new; one comes late in a version older than what is there.
LATER_POSTINGS = """
    insert into silver_linkedin.job_postings
    select 'p' || i, 'c' || (i % 50), 'Later ' || i, 'd', 'Wien', 'AT', 'Remote', 'Full-time', 'mid', 100, 200,
           'eur', timestamp '2026-02-01', timestamp '2026-07-01', 'u'
      from generate_series(951, 1050) as numbers(i)
"""
STALE_POSTING = """
    insert into silver_linkedin.job_postings
    select 'p951', 'c1', 'Stale', 'd', 'Wien', 'AT', 'Remote', 'Full-time', 'mid', 100, 200, 'eur',
           timestamp '2026-02-01', timestamp '2026-06-30', 'u'
"""
LATER_ENRICHMENT = """
    insert into silver_ai.job_enrichment values
        ('p500', '[]', 'principal', 'data', 0.9, 'm', timestamp '2026-07-02')
"""


def silver_ddl() -> list[str]:
    """Return statements that make the silver schemas and tables."""
    statements = []
    for table in SILVER_TABLES:
        columns = ", ".join(
            f"{sql.identifier(column.name)} {TYPES.get(column.type, column.type)}" for column in table.columns
        )
        statements.append(f"create schema if not exists {sql.identifier(table.schema)}")
        statements.append(f"create table {sql.qualified(table.schema, table.name)} ({columns})")
    return statements


@dataclass
class Warehouse:
    """A local Redshift, and dbt runs against it."""

    port: int
    work: Path

    def query(self, statement: str) -> list[list[Any]]:
        with contextlib.closing(
            redshift_connector.connect(
                host="127.0.0.1", port=self.port, database="analytics", user="admin", password=PASSWORD, ssl=False
            )
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []

    def dbt(self, *arguments: str, **environment: str) -> str:
        """Run dbt, expect success, and return its output."""
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
        done = subprocess.run(
            [str(Path(sys.prefix) / "bin" / "dbt"), "--no-use-colors", *arguments],
            cwd=PROJECT,
            env=os.environ | own | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def artifact(self, name: str) -> Any:
        """Return one of dbt's JSON artifacts."""
        return json.loads((self.work / "target" / name).read_text())


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A local Redshift whose silver tables are filled by SQL."""
    work = tmp_path_factory.mktemp("dbt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = work / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(work / "data"), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 30
        while "ready on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        server = Warehouse(port, work)
        for statement in (*silver_ddl(), POSTINGS, COMPANIES, ENRICHMENT):
            server.query(statement)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def manifest(warehouse: Warehouse) -> Any:
    """dbt's manifest of the project, parsed with every warning and deprecation an error."""
    warehouse.dbt("--warn-error", "parse", "--show-all-deprecations", "--no-partial-parse")
    return warehouse.artifact("manifest.json")


def test_every_mart_has_an_enforced_contract_with_types_and_descriptions(manifest: Any) -> None:
    marts = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] != "ephemeral"
    ]
    assert {mart["schema"] for mart in marts} == {"gold"}
    for mart in marts:
        assert mart["config"]["contract"]["enforced"], mart["name"]
        assert mart["description"], mart["name"]
        for column in mart["columns"].values():
            assert column["data_type"], (mart["name"], column["name"])
            assert column["description"], (mart["name"], column["name"])


def test_every_model_has_a_unit_test(manifest: Any) -> None:
    models = {node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "model"}
    assert {test["model"] for test in manifest["unit_tests"].values()} == models


def test_the_sources_are_the_silver_tables_with_what_the_readiness_check_needs(manifest: Any) -> None:
    sources = manifest["sources"].values()
    assert {(source["config"]["meta"]["glue_database"], source["schema"], source["name"]) for source in sources} == {
        (table.database, table.schema, table.name) for table in SILVER_TABLES
    }
    for source in sources:
        assert source["description"], source["name"]
        assert source["loaded_at_field"], source["name"]
        assert source["freshness"]["warn_after"]["count"], source["name"]


def test_the_calendar_has_every_day_of_eleven_years() -> None:
    with (PROJECT / "seeds" / "dim_date.csv").open() as file:
        days = [datetime.date.fromisoformat(row["date_day"]) for row in csv.DictReader(file)]
    first = datetime.date(2020, 1, 1)
    assert days == [first + datetime.timedelta(days=number) for number in range(4018)]
    assert days[-1] == datetime.date(2030, 12, 31)


def test_a_second_build_takes_new_and_updated_rows_and_makes_no_duplicate(warehouse: Warehouse) -> None:
    counts = "select count(*), count(distinct job_posting_id) from gold.fact_job_posting"
    warehouse.dbt("build")
    assert warehouse.query(counts) == [[1000, 1000]]
    assert warehouse.query("select count(*) from gold.dim_date") == [[4018]]

    for statement in (LATER_POSTINGS, STALE_POSTING, LATER_ENRICHMENT):
        warehouse.query(statement)
    warehouse.dbt("build")

    assert warehouse.query(counts) == [[1050, 1050]]
    titles = "select count(*) from gold.fact_job_posting where title like "
    assert warehouse.query(titles + "'Later%'") == [[100]]
    assert warehouse.query(titles + "'Stale%'") == [[0]]
    enriched = "select seniority from gold.fact_job_posting where job_posting_id = 'p500'"
    assert warehouse.query(enriched) == [["principal"]]
    assert warehouse.query("select sum(postings) from gold.agg_daily_postings") == [[1050]]
    unknown = "select count(*) from gold.dim_company where company_id = 'unknown'"
    assert warehouse.query(unknown) == [[1]]

    warehouse.dbt("docs", "generate")
    catalog = warehouse.artifact("catalog.json")
    assert not catalog["errors"]
    assert {node["metadata"]["name"] for node in catalog["nodes"].values()} == {
        "agg_daily_postings",
        "dim_company",
        "dim_date",
        "fact_job_posting",
    }
    assert PASSWORD not in (warehouse.work / "logs" / "dbt.log").read_text()


def test_the_same_project_builds_twice_on_duckdb(warehouse: Warehouse, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(file)) as connection:
        for statement in (*silver_ddl(), POSTINGS, COMPANIES, ENRICHMENT):
            connection.execute(statement)
    warehouse.dbt("build", "--target", "duckdb", GOLD_DUCKDB=str(file))
    with duckdb.connect(str(file)) as connection:
        connection.execute(LATER_POSTINGS)
    warehouse.dbt("build", "--target", "duckdb", GOLD_DUCKDB=str(file))
    with duckdb.connect(str(file)) as connection:
        counts = "select count(*), count(distinct job_posting_id) from gold.fact_job_posting"
        assert connection.execute(counts).fetchall() == [(1050, 1050)]
