"""The dbt runner with the real dbt, against the local Redshift and the emulator's S3, on a small project of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lambdas.dbt_runner import artifacts, engine, imports, runner
from lambdas.dbt_runner.event import DbtCommand
from lambdas.dbt_runner.handler import answering
from lambdas.dbt_runner.runner import RESERVE_SECONDS, Job, run_dbt
from local.process import free_port
from runtime.aws import Connection
from runtime.warehouse import Warehouse
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Xy7-runner only"
PROJECT = """
name: small
version: 1.0.0
config-version: 2
profile: small
models:
  small:
    +materialized: table
"""
PROFILE = """
small:
  target: redshift
  outputs:
    redshift: &redshift
      type: redshift
      method: database
      host: "{{ env_var('REDSHIFT_HOST') }}"
      port: "{{ env_var('REDSHIFT_PORT') | as_number }}"
      user: "{{ env_var('REDSHIFT_USER') }}"
      password: "{{ env_var('DBT_ENV_SECRET_REDSHIFT_PASSWORD') }}"
      dbname: "{{ env_var('REDSHIFT_DATABASE') }}"
      schema: small
      sslmode: "{{ env_var('REDSHIFT_SSLMODE') }}"
      threads: 2
      ra3_node: true
    other:
      <<: *redshift
      schema: other
"""
# One chain: the second naps as long as it is told, the third depends on it.
MODELS = {
    "first": "select 1 as id, '{{ target.schema }}' as place, '{{ var('word', 'none') }}' as word",
    "second": "select a.id from {{ ref('first') }} a, pg_sleep({{ var('nap', 0) }})",
    "third": "select id / {{ var('divisor', 1) }} as id from {{ ref('second') }}",
    "fourth": "select id from {{ ref('third') }}",
}
NAMES = [f"model.small.{name}" for name in MODELS]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "profiles.yml").write_text(PROFILE)
    (folder / "models").mkdir()
    for name, text in MODELS.items():
        (folder / "models" / f"{name}.sql").write_text(text)
    return folder


@dataclass
class Server:
    """A local Redshift that can be stopped and started again."""

    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.data.with_suffix(f".{time.monotonic_ns()}.log")
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.redshift", "--data", str(self.data), "--port", str(self.port)],
                cwd=REPOSITORY,
                env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
                stdout=output,
                stderr=output,
            )
        wait_for(lambda: "ready on" in log.read_text(), "local Redshift", 60)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("redshift") / "data", free_port())
    made.start()
    yield made
    made.stop()


@dataclass
class Bench:
    """What a test runs commands with."""

    project: Path
    warehouse: Warehouse
    aws: Connection
    bucket: str
    lines: list[str]

    def run(self, seconds: float = 900, **event: Any) -> dict[str, Any]:
        """Run a command in this process, as a warm function does; dbt gets so many seconds."""
        remaining = seconds + RESERVE_SECONDS
        command = DbtCommand.from_event(event)
        job = Job(command, self.project, self.warehouse, self.aws, remaining, "request-1", self.lines.append)
        return answering(lambda: run_dbt(job))

    def query(self, statement: str) -> list[Any]:
        with contextlib.closing(self.warehouse.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []

    def napping(self) -> list[Any]:
        """Return the sessions that nap."""
        return self.query(
            "select pid from pg_stat_activity where query like '%pg_sleep%' and state = 'active'"
            " and pid <> pg_backend_pid()"
        )

    def in_fresh_process(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with `goldlake transform`."""
        environment = {
            **os.environ,
            "REDSHIFT_HOST": self.warehouse.host,
            "REDSHIFT_PORT": str(self.warehouse.port),
            "REDSHIFT_SSL": "false",
            "REDSHIFT_SECRET": "runner-test",
            "ARTIFACTS_LOCATION": f"s3://{self.bucket}/dbt",
            "AWS_ENDPOINT_URL": self.aws.endpoint_url or "",
            "AWS_REGION": "us-east-1",
        }
        command = [str(Path(sys.prefix) / "bin" / "goldlake"), "transform", *arguments]
        done = subprocess.run(
            [*command, "--project", str(self.project), "--output", "json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def bench(
    project: Path, server: Server, aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Bench:
    monkeypatch.setenv("ARTIFACTS_LOCATION", f"s3://{lake_bucket}/dbt")
    monkeypatch.delenv("DBT_PROFILES_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    warehouse = Warehouse("127.0.0.1", "admin", PASSWORD, port=server.port, ssl=False)
    return Bench(project, warehouse, aws, lake_bucket, [])


@pytest.fixture
def login(aws: Connection) -> Iterator[None]:
    """The warehouse's login in Secrets Manager, for processes of their own."""
    secret = json.dumps({"username": "admin", "password": PASSWORD})
    aws.client("secretsmanager").create_secret(Name="runner-test", SecretString=secret)
    yield
    aws.client("secretsmanager").delete_secret(SecretId="runner-test", ForceDeleteWithoutRecovery=True)


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {item["unique_id"].rsplit(".", 1)[-1]: item["status"] for item in answer["results"]}


def artifact(bench: Bench, key: str) -> Any:
    return json.loads(bench.aws.client("s3").get_object(Bucket=bench.bucket, Key=key)["Body"].read())


def test_a_good_run_answers_with_nodes_totals_timings_logs_and_artifacts(bench: Bench) -> None:
    answer = bench.run(run_id="good")
    assert (answer["statusCode"], answer["outcome"], answer["message"]) == (0, "done", "dbt build: 4 nodes done")
    assert set(statuses(answer).values()) == {"success"}
    assert answer["totals"] == {"nodes": 4, "ok": 4, "failed": 0, "skipped": 0, "rows": answer["totals"]["rows"]}
    assert set(answer["timings"]) == {"import", "parse", "connect", "run"}
    assert answer["artifacts"] == f"s3://{bench.bucket}/dbt/good"
    kept = bench.aws.client("s3").list_objects_v2(Bucket=bench.bucket)["Contents"]
    assert {item["Key"] for item in kept} == {
        *(f"dbt/good/{name}" for name in ("manifest.json", "run_results.json", "dbt.log")),
        *(f"dbt/latest/{name}" for name in ("manifest.json", "run_results.json")),
    }
    lines = [json.loads(line) for line in bench.lines]
    *events, summary, metrics = lines
    assert {line["function_request_id"] for line in events} == {"request-1"}
    assert len({line["invocation_id"] for line in events}) == 1
    assert {line["node"] for line in events if line["event"] == "LogModelResult"} == set(NAMES)
    assert summary["message"] == answer["message"]
    assert (metrics["ModelsOk"], metrics["ModelsFailed"], metrics["Command"]) == (4, 0, "build")


def test_a_model_that_fails_is_named_and_what_depends_on_it_is_skipped(bench: Bench) -> None:
    answer = bench.run(vars={"divisor": 0}, run_id="failing")
    assert (answer["statusCode"], answer["outcome"]) == (1, "failed")
    assert statuses(answer) == {"first": "success", "second": "success", "third": "error", "fourth": "skipped"}
    assert answer["message"].startswith("dbt build: 1 of 4 nodes failed, first model.small.third")
    assert "division by zero" in answer["message"]
    retried = bench.run(command="retry", run_id="failing", vars={"divisor": 1})
    assert (retried["outcome"], statuses(retried)) == ("done", {"third": "success", "fourth": "success"})
    whole = artifact(bench, "dbt/failing/run_results.json")["results"]
    assert {item["unique_id"]: item["status"] for item in whole} == dict.fromkeys(NAMES, "success")


def test_at_the_deadline_queries_are_ended_and_retries_finish_what_remains(bench: Bench) -> None:
    # So that the seconds are not gone before dbt has parsed the project, on a busy machine either.
    bench.run(command="compile", vars={"nap": 60})
    begin = time.monotonic()
    stopped = bench.run(8, vars={"nap": 60}, run_id="slow")
    assert time.monotonic() - begin < 8 + RESERVE_SECONDS
    assert (stopped["statusCode"], stopped["outcome"]) == (1, "deadline"), (stopped["timings"], stopped["stdout"])
    assert statuses(stopped) == {"first": "success", "second": "skipped", "third": "skipped", "fourth": "skipped"}
    assert sorted(stopped["remaining"]) == sorted(NAMES[1:])
    assert "3 nodes remain" in stopped["message"]
    assert bench.napping() == []
    assert threading.active_count() == len(threading.enumerate())
    again = bench.run(8, command="retry", run_id="slow")
    assert (again["outcome"], sorted(again["remaining"])) == ("deadline", sorted(NAMES[1:]))
    last = bench.run(command="retry", run_id="slow", vars={"nap": 0})
    assert last["outcome"] == "done", last
    assert statuses(last) == {"second": "success", "third": "success", "fourth": "success"}
    whole = artifact(bench, "dbt/slow/run_results.json")["results"]
    assert {item["unique_id"]: item["status"] for item in whole} == dict.fromkeys(NAMES, "success")


def test_a_dbt_that_does_not_end_its_queries_is_helped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbt.adapters.redshift.connections import RedshiftConnectionManager

    bench.run(command="compile", vars={"nap": 60})
    monkeypatch.setattr(RedshiftConnectionManager, "cancel", lambda _self, _connection: None)
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 1.0)
    begin = time.monotonic()
    stopped = bench.run(8, vars={"nap": 60})
    assert time.monotonic() - begin < 8 + RESERVE_SECONDS
    assert stopped["outcome"] == "deadline"
    wait_for(lambda: not bench.napping(), "end of the query", 10)


def test_a_warehouse_that_stops_in_mid_run_is_2_and_the_next_run_works(bench: Bench, server: Server) -> None:
    def stop() -> None:
        wait_for(bench.napping, "a running query", 60)
        server.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        answer = bench.run(vars={"nap": 60}, run_id="stopped")
    finally:
        stopper.join()
        server.start()
    assert (answer["statusCode"], answer["outcome"]) == (2, "unreachable"), answer
    assert "cannot be reached" in answer["message"]
    assert statuses(answer).get("first") == "success", (answer["stderr"], answer["stdout"])
    assert bench.run(command="retry", run_id="stopped", vars={"nap": 0})["outcome"] == "done"


def test_two_invocations_at_once_are_one_run_and_one_busy_answer(bench: Bench, login: None) -> None:
    answers: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: answers.append(bench.run(vars={"nap": 15})))
    first.start()
    wait_for(bench.napping, "a running query", 60)
    second = bench.in_fresh_process("build", code=2)
    first.join()
    assert (second["statusCode"], second["outcome"]) == (2, "busy")
    assert "another dbt run is under way here" in second["message"]
    assert answers[0]["outcome"] == "done"


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in ("statusCode", "outcome", "message", "command", "totals", "remaining")} | {
        "results": sorted((item["unique_id"], item["status"]) for item in answer["results"])
    }


def test_a_warm_process_answers_as_a_fresh_one_does_whatever_ran_before(bench: Bench, login: None) -> None:
    environment = dict(os.environ)
    one = {"target": "other", "vars": {"word": "one"}, "threads": 1, "select": ["first"]}
    two: dict[str, Any] = {"select": ["first"]}
    found = []
    for event, place, word in ((one, "other", "one"), (two, "small", "none"), (one, "other", "one")):
        warm = bench.run(**event)
        assert os.environ == environment
        rows = bench.query(f"select place, word from {place}.first")  # noqa: S608 - a name of this test
        assert rows == [[place, word]]
        found.append(comparable(warm))
    fresh = [bench.in_fresh_process("--event", json.dumps(event)) for event in (one, two)]
    assert [comparable(answer) for answer in fresh] == found[:2]
    assert found[2] == found[0]
    assert bench.query("select count(*) from pg_stat_activity where usename = 'admin'") == [[1]]
    left = {path.name for path in Path(os.environ["TMPDIR"], "dbt").rglob("*") if path.is_file()}
    assert left <= {"lock", "partial_parse.msgpack"}


def test_only_what_changed_is_built_when_the_last_run_is_compared_with(bench: Bench) -> None:
    refused = bench.run(select="state:modified+", run_id="too-early")
    assert (refused["statusCode"], refused["outcome"]) == (2, "refused")
    assert "run latest has left no manifest.json" in refused["message"]
    assert bench.run()["outcome"] == "done"
    model = bench.project / "models" / "third.sql"
    before = model.read_text()
    try:
        model.write_text(f"{before} where true")
        answer = bench.run(select="state:modified+")
    finally:
        model.write_text(before)
    assert statuses(answer) == {"third": "success", "fourth": "success"}


@pytest.mark.parametrize("command", ["debug", "compile", "docs", "test", "snapshot", "source freshness"])
def test_the_other_commands_run_too(bench: Bench, command: str) -> None:
    assert bench.run()["outcome"] == "done"
    answer = bench.run(command=command, run_id="other")
    assert (answer["statusCode"], answer["outcome"]) == (0, "done"), answer
    if command == "docs":
        assert len(artifact(bench, "dbt/other/catalog.json")["nodes"]) == 4


def test_an_operation_on_the_list_runs_and_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    macros = bench.project / "macros"
    macros.mkdir(exist_ok=True)
    (macros / "say.sql").write_text("{% macro say(word) %}{{ log('said ' ~ word, info=True) }}{% endmacro %}")
    monkeypatch.setenv("DBT_OPERATIONS", "say")
    assert bench.run(command="run-operation", operation="say", args={"word": "hello"})["outcome"] == "done"
    assert any("said hello" in line for line in bench.lines)


def test_a_project_that_cannot_be_parsed_is_2_and_says_why(bench: Bench) -> None:
    broken = bench.project / "models" / "broken.sql"
    broken.write_text("select * from {{ ref('nowhere') }}")
    try:
        answer = bench.run()
    finally:
        broken.unlink()
    assert (answer["statusCode"], answer["outcome"]) == (2, "broken"), answer
    assert "nowhere" in answer["message"] + answer["stderr"]


def test_amazons_authorities_come_with_the_driver_and_dbt_checks_the_hosts_name() -> None:
    import redshift_connector
    from dbt.adapters.redshift.connections import RedshiftSSLConfig, UserSSLMode

    bundle = Path(redshift_connector.__file__).parent / "files" / "redshift-ca-bundle.crt"
    assert "BEGIN CERTIFICATE" in bundle.read_text()
    config = RedshiftSSLConfig.parse(UserSSLMode("verify-full"))
    assert (config.ssl, config.sslmode) == (True, "verify-full")


# What a project's parse and its checks come to, with dbt imported by the runner and as dbt's own command line does.
IMPORTED = """
import json, sys
from lambdas.dbt_runner import imports
from lambdas.dbt_runner.workspace import replace_process_locks

replace_process_locks()
if sys.argv[1] == "late":
    imports.load()
late = [name for name in imports.LATE if getattr(getattr(sys.modules.get(name), "__loader__", None), "waits", False)]
from dbt.cli.main import dbtRunner
from dbt.contracts.project import ProjectFlags
import networkx

manifest = dbtRunner().invoke(["parse", "--quiet", "--project-dir", sys.argv[2], "--target-path", sys.argv[3]]).result
nodes = {name: node.to_dict(omit_none=True) for name, node in manifest.nodes.items()}
for node in nodes.values():
    node.pop("created_at")
try:
    ProjectFlags.validate({"send_anonymous_usage_stats": "perhaps"})
    fault = None
except Exception as error:
    # The rest of its text quotes the schema, in which defaults are left out.
    fault = error.message
graph = networkx.DiGraph([("a", "b"), ("b", "c")])
taken = {name: getattr(networkx, name) for name in imports.NETWORKX}
print(json.dumps({
    "late": late,
    "nodes": nodes,
    "again": {name: type(node).from_dict(node.to_dict()) == node for name, node in manifest.nodes.items()},
    "fault": fault,
    "sorted": list(networkx.topological_sort(graph)),
    "below": sorted(networkx.descendants(graph, "a")),
    # Only all of networkx has this one; then all must be what the table said.
    "other": networkx.density(networkx.path_graph(3)) and networkx.shortest_path(graph, "a", "c"),
    "same": all(getattr(networkx, name) is value for name, value in taken.items()),
    "calls": [
        all(callable(getattr(__import__(name, fromlist=["x"]), call)) for call in late.calls)
        for name, late in imports.LATE.items()
    ],
}))
"""


def test_what_is_imported_late_works_as_what_dbt_imports_itself(bench: Bench, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": str(bench.project),
        "REDSHIFT_HOST": "127.0.0.1",
        "REDSHIFT_PORT": "5439",
        "REDSHIFT_USER": "admin",
        "REDSHIFT_DATABASE": "analytics",
        "REDSHIFT_SSLMODE": "disable",
        "DBT_ENV_SECRET_REDSHIFT_PASSWORD": "none",
        "DBT_LOG_PATH": str(tmp_path / "logs"),
    }
    found = {}
    for way in ("late", "whole"):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTED, way, str(bench.project), str(tmp_path / way)],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found[way] = json.loads(done.stdout.splitlines()[-1])
    assert found["late"].pop("late") == list(imports.LATE), "each is in the pinned dbt, and nothing at import needs it"
    assert found["whole"].pop("late") == []
    assert found["late"] == found["whole"]
    assert set(found["late"]["nodes"]) == set(NAMES)
    assert all(found["late"]["again"].values())
    assert found["late"]["fault"] == "'perhaps' is not of type 'boolean'"
    assert (found["late"]["same"], found["late"]["sorted"], found["late"]["below"]) == (
        True,
        ["a", "b", "c"],
        ["b", "c"],
    )


def test_a_connection_has_a_name_in_the_warehouse(bench: Bench) -> None:
    bench.run(command="debug")
    assert bench.query("select application_name from pg_stat_activity where pid = pg_backend_pid()") == [["goldlake"]]


def test_a_stopped_warehouse_is_waited_for_and_then_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOPBACK_WAKE_SECONDS", 0.2)
    gone = Bench(
        bench.project, Warehouse("127.0.0.1", "admin", PASSWORD, port=free_port(), ssl=False), bench.aws, "", []
    )
    assert gone.run()["outcome"] == "unreachable"
    assert artifacts.LOG == "dbt.log"
