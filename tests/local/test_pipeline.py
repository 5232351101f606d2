"""The whole way on the local platform, by the command a user types: deploy, sample, run, and what goes wrong.

The tests of this file share one platform and leave it in working order, so each stands alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from local.platform import Platform
from local.process import exclusive, free_port
from runtime.target import load_target
from tests.local.dbt_support import MARTS
from tests.local.support import REPOSITORY, is_alive, wait_for

GOLDLAKE = str(Path(sys.prefix) / "bin" / "goldlake")
GOLD_TABLES = set(MARTS)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out)
        return result


@dataclass(frozen=True)
class Laptop:
    """A deployed local platform and the command line that works on it."""

    platform: Platform

    @property
    def environment(self) -> dict[str, str]:
        # Without `pulumi` on PATH: the engine's way has tests of its own.
        folders = os.environ["PATH"].split(os.pathsep)
        path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "pulumi").exists())
        return {**os.environ, "GOLDLAKE_HOME": str(self.platform.home), "PATH": path}

    def goldlake(self, *arguments: str, code: int = 0) -> Ended:
        """Run a command and check its exit code."""
        done = subprocess.run(
            [GOLDLAKE, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run the pipeline and return its report."""
        return self.goldlake("run", "--output", "json", *options, code=code).json

    def sql(self, *statements: str) -> list[Any]:
        """Run statements in the warehouse; return the rows of the last."""
        target = load_target("localstack")
        with contextlib.closing(target.warehouse().connect()) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def delta(self, table: str, version: int | None = None) -> DeltaTable:
        """Return a gold table as delta-rs reads it."""
        target = load_target("localstack")
        options = target.connection.storage_options()
        return DeltaTable(f"{target.gold_location}/{table}", version=version, storage_options=options)

    def restore(self) -> None:
        """Put the sample back in place of whatever a test left, and build gold from it alone."""
        self.goldlake("sample", "--rows", "300", "--force")
        assert self.run("--full-refresh")["outcome"] == "done"

    def executions(self) -> int:
        """Return how often the dbt runner was invoked, from its log."""
        target = load_target("localstack")
        group = "/aws/lambda/goldlake-dbt-runner"
        events = target.connection.client("logs").filter_log_events(logGroupName=group)["events"]
        return sum(event["message"].startswith("START") for event in events)


def rows_of(table: DeltaTable) -> int:
    return int(sum(table.get_add_actions(flatten=True)["num_records"].to_pylist()))


@pytest.fixture(scope="module")
def built() -> Path:
    """The layers, built once for all checkouts' tests and `make run`."""
    with exclusive(REPOSITORY / ".goldlake"):
        subprocess.run(
            [GOLDLAKE, "layers", "build", "--out", ".goldlake/build"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            timeout=300,
        )
    return REPOSITORY / ".goldlake" / "build"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Iterator[Laptop]:
    """A deployed platform with secrets and sample data."""
    home = tmp_path_factory.mktemp("laptop")
    (home / "build").symlink_to(built)
    made = Laptop(Platform(home))
    made.platform.up(emulator_port=free_port(), redshift_port=free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDLAKE_HOME", str(home))
        made.goldlake("deploy")
        made.goldlake("secrets", "seed")
        made.goldlake("sample", "--rows", "300")
        yield made
    made.platform.down()


@dataclass(frozen=True)
class FirstRun:
    """The report of the platform's first run, and how another one ended that was asked for meanwhile."""

    report: dict[str, Any]
    another: Ended


@pytest.fixture(scope="module")
def first_run(laptop: Laptop) -> FirstRun:
    """The platform's first run, with a second one while it is under way."""
    running = subprocess.Popen(
        [GOLDLAKE, "run", "--output", "json"],
        cwd=REPOSITORY,
        env=laptop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    try:
        until(running.stderr.readline, lambda line: "check" in line and "started" in line)
        another = laptop.goldlake("run", code=1)
    finally:
        said, shown = running.stderr.read(), running.stdout.read()
        code = running.wait(timeout=180)
        running.stderr.close()
        running.stdout.close()
    assert code == 0, said
    return FirstRun(json.loads(shown), another)


@pytest.fixture(scope="module")
def ready(laptop: Laptop, first_run: FirstRun) -> Laptop:
    """The platform after a good run."""
    assert first_run.report["outcome"] == "done"
    return laptop


def test_the_pipeline_leaves_equal_counts_in_warehouse_log_and_catalogue(laptop: Laptop, first_run: FirstRun) -> None:
    report = first_run.report
    assert report["outcome"] == "done"
    assert [(step["step"], step["result"]) for step in report["steps"]] == [
        ("check", "ok"),
        ("build", "ok"),
        ("export", "ok"),
        ("register", "ok"),
    ]
    assert {table["table"] for table in report["tables"]} == GOLD_TABLES
    for table in report["tables"]:
        assert table["agrees"], table
        assert table["warehouse_rows"] == table["delta_rows"] == rows_of(laptop.delta(table["table"])) > 0
    # By dbt's own user, and not by the administrator whom `sql` signs in as.
    owners = laptop.sql("select distinct tableowner from pg_tables where schemaname = 'gold'")
    assert [list(row) for row in owners] == [["goldlake_dbt"]]
    counted = laptop.goldlake("query", "select count(*) from gold.fact_job_posting", "--output", "json").json
    assert counted["rows"] == [[rows_of(laptop.delta("fact_job_posting"))]]


def test_new_silver_rows_make_the_facts_grow_without_duplicates_and_keep_the_old_version(ready: Laptop) -> None:
    before = ready.delta("fact_job_posting")
    old_rows, old_version = rows_of(before), before.version()
    ready.goldlake("sample", "--rows", "200", "--seed", "2", "--append")
    assert ready.run()["outcome"] == "done"
    after = ready.delta("fact_job_posting")
    assert rows_of(after) > old_rows
    assert after.version() == old_version + 1
    assert rows_of(ready.delta("fact_job_posting", version=old_version)) == old_rows
    ((rows, ids),) = ready.sql("select count(*), count(distinct job_posting_id) from gold.fact_job_posting")
    assert rows == ids == rows_of(after)
    ready.restore()
    assert rows_of(ready.delta("fact_job_posting")) == old_rows


def test_a_second_deployment_changes_nothing(laptop: Laptop) -> None:
    again = laptop.goldlake("deploy", "--output", "json").json
    assert {resource["action"] for resource in again["resources"]} == {"unchanged"}
    assert again["way"].startswith("in-process (`pulumi` is not on PATH")


def test_a_dry_run_of_the_deployment_changes_nothing(laptop: Laptop) -> None:
    lambdas = load_target("localstack").connection.client("lambda")
    lambdas.delete_function(FunctionName="goldlake-check")
    plan = laptop.goldlake("deploy", "--dry-run", "--output", "json").json
    changed = [(item["name"], item["action"]) for item in plan["resources"] if item["action"] != "unchanged"]
    assert changed == [("check", "created")]
    with pytest.raises(lambdas.exceptions.ResourceNotFoundException):
        lambdas.get_function(FunctionName="goldlake-check")
    done = laptop.goldlake("deploy", "--output", "json").json
    assert [item["name"] for item in done["resources"] if item["action"] == "created"] == ["check"]


def test_missing_silver_tables_skip_the_run_and_dbt_is_not_started(laptop: Laptop) -> None:
    started = laptop.executions()
    glue = load_target("localstack").connection.client("glue")
    glue.delete_table(DatabaseName="silver_companies", Name="companies")
    try:
        report = laptop.run(code=1)
    finally:
        laptop.goldlake("sample", "--rows", "300")
    assert report["outcome"] == "skipped"
    assert report["message"].startswith("skipped: not ready")
    assert "silver_companies.companies is missing" in report["message"]
    assert [step["step"] for step in report["steps"]] == ["check"]
    assert laptop.executions() == started
    assert laptop.goldlake("check", "--output", "json").json["ready"] is True


def test_a_dbt_model_that_fails_ends_the_run_with_its_name_and_the_next_run_works(ready: Laptop) -> None:
    versions = {table: ready.delta(table).version() for table in GOLD_TABLES}
    # A company dimension that dbt cannot replace, since it is somebody else's.
    ((owner,),) = ready.sql("select tableowner from pg_tables where schemaname = 'gold' and tablename = 'dim_company'")
    ready.sql("create user stranger password disable", "alter table gold.dim_company owner to stranger")
    try:
        report = ready.run(code=1)
    finally:
        ready.sql(f'alter table gold.dim_company owner to "{owner}"', "drop user stranger")
    assert report["outcome"] == "failed"
    assert "model.gold_layer.dim_company" in report["message"]
    assert [step["step"] for step in report["steps"]] == ["check", "build"]
    assert {table: ready.delta(table).version() for table in GOLD_TABLES} == versions
    assert ready.run()["outcome"] == "done"


def test_a_warehouse_that_stops_in_mid_run_is_exit_code_2_and_the_next_run_works(ready: Laptop) -> None:
    running = subprocess.Popen(
        [GOLDLAKE, "run"], cwd=REPOSITORY, env=ready.environment, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert running.stderr is not None
    try:
        until(running.stderr.readline, lambda line: "build" in line and "started" in line)
        wait_for(lambda: busy(ready), "dbt in the warehouse", 60)
        ready.platform.redshift.stop(lambda _line: None)
        rest = running.stderr.read()
        assert running.wait(timeout=120) == 2
    finally:
        running.stderr.close()
        ready.platform.up()
    assert "Traceback" not in rest
    assert "goldlake: build: warehouse 127.0.0.1" in rest
    assert "cannot be reached" in rest
    assert ready.run()["outcome"] == "done"


def busy(laptop: Laptop) -> bool:
    """Return whether dbt has a connection to the warehouse."""
    ((sessions,),) = laptop.sql("select count(*) from pg_stat_activity where datname = 'analytics'")
    return int(sessions) > 1


def until(read: Callable[[], str], wanted: Callable[[str], bool]) -> None:
    """Read lines until the wanted one; fail when there are no more."""
    while line := read():
        if wanted(line):
            return
    pytest.fail("the command ended before the expected line")


def test_an_emulator_that_does_not_run_is_exit_code_2_with_one_message(laptop: Laptop) -> None:
    laptop.platform.emulator.stop(lambda _line: None)
    try:
        ended = laptop.goldlake("run", code=2)
        deployed = laptop.goldlake("deploy", code=2)
    finally:
        laptop.platform.up()
    assert ended.err.startswith("goldlake: start the pipeline: Could not connect")
    assert deployed.err.startswith("goldlake: the local emulator is stopped")
    assert "goldlake local up" in deployed.err


def test_a_killed_emulator_is_filled_again_by_up_and_deploy(ready: Laptop) -> None:
    record = ready.platform.emulator.record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(record.pid), "end of the emulator")
    # It saves its state when it is stopped; killed before the first time, it has forgotten everything.
    shutil.rmtree(ready.platform.home / "emulator")
    ready.goldlake("local", "up")
    done = ready.goldlake("deploy", "--output", "json").json
    assert {item["action"] for item in done["resources"]} == {"created", "updated", "unchanged"}
    # What the local Redshift keeps did not go with the emulator.
    kept = {item["type"].split("/")[0] for item in done["resources"] if item["action"] == "unchanged"}
    assert kept == {"aws:redshiftserverless", "aws:redshiftdata"}
    s3, bucket = load_target("localstack").connection.client("s3"), load_target("localstack").silver_bucket
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    ready.goldlake("secrets", "seed")
    ready.restore()


def test_a_second_run_while_one_is_under_way_is_refused(first_run: FirstRun) -> None:
    assert "under way" in first_run.another.err
    # The one that was under way went on.
    assert first_run.report["outcome"] == "done"


def test_data_with_a_wrong_column_is_refused_with_all_faults_and_nothing_is_written(
    laptop: Laptop, tmp_path: Path
) -> None:
    s3 = load_target("localstack").connection.client("s3")
    bucket = load_target("localstack").silver_bucket

    def objects() -> list[str]:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix="silver/").get("Contents", [])
        return sorted(item["ETag"] + item["Key"] for item in listed)

    before = objects()
    file = tmp_path / "companies.csv"
    file.write_text("company_id,name,updated_at\nc1,Acme,yesterday\n")
    refused = laptop.goldlake("load", str(file), "--table", "silver_companies.companies", code=64)
    assert "industry" in refused.err
    assert "yesterday" in refused.err
    assert objects() == before


def test_a_users_own_file_goes_the_same_way(laptop: Laptop, tmp_path: Path) -> None:
    file = tmp_path / "companies.csv"
    file.write_text(
        "company_id,name,industry,size_band,headquarters,website,updated_at\n"
        'own-1,"Own, ""Ltd""",it,1-10,Graz,https://example.com,2026-01-01 00:00:00\n'
    )
    # One company more is in nobody's way: it stays.
    laptop.goldlake("load", str(file), "--table", "silver_companies.companies", "--append")
    assert laptop.run()["outcome"] == "done"
    found = laptop.sql("select company_name from gold.dim_company where company_id = 'own-1'")
    assert [list(row) for row in found] == [['Own, "Ltd"']]


def invoked(function: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a deployed function, or its error."""
    answer = (
        load_target("localstack")
        .connection.client("lambda")
        .invoke(FunctionName=function, Payload=json.dumps(event).encode())
    )
    payload: dict[str, Any] = json.loads(answer["Payload"].read())
    return payload


def test_the_functions_run_from_their_layers_alone(ready: Laptop) -> None:
    lambdas = load_target("localstack").connection.client("lambda")
    event = {"tables": ["dim_date"]}
    assert invoked("goldlake-register", event)["statusCode"] == 0
    lambdas.update_function_configuration(FunctionName="goldlake-register", Layers=[])
    try:
        wait_for(lambda: "No module named 'deltalake'" in str(invoked("goldlake-register", event)), "missing layer")
    finally:
        lambdas.delete_function(FunctionName="goldlake-register")
        ready.goldlake("deploy")
    assert invoked("goldlake-register", event)["statusCode"] == 0


def test_a_function_may_not_do_what_its_role_does_not_allow(ready: Laptop) -> None:
    """The emulator evaluates the roles' policies: without its rights, check cannot tell how the tables are."""
    iam = load_target("localstack").connection.client("iam")
    assert invoked("goldlake-check", {})["statusCode"] == 0
    iam.delete_role_policy(RoleName="goldlake-check", PolicyName="task")
    try:
        refused = invoked("goldlake-check", {})
    finally:
        ready.goldlake("deploy")
    assert refused["statusCode"] == 2
    assert "forbidden" in refused["message"]
    assert invoked("goldlake-check", {})["statusCode"] == 0
