"""The dbt runner: its event, and how it runs dbt, against a dbt in memory."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import multiprocessing.context
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
import sqlparse
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from lambdas.dbt_runner import engine, handler, imports, results, runner
from lambdas.dbt_runner.event import COMMANDS, DbtCommand
from lambdas.dbt_runner.runner import Job, run_dbt
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.warehouse import Warehouse

PASSWORD = "a-password-nobody-may-see"
KEYS = {
    *("statusCode", "outcome", "message", "command", "run_id", "stdout", "stderr", "results", "results_left_out"),
    *("totals", "remaining", "timings", "seconds", "artifacts"),
}

# --- the event ---


def test_an_empty_event_is_a_build_of_everything() -> None:
    command = DbtCommand.from_event({})
    assert command == DbtCommand("build", (), (), False, {}, None, None, None, None, "redshift", None, {})
    assert command.arguments() == ["build"]


def test_an_event_becomes_dbts_command_line() -> None:
    command = DbtCommand.from_event(
        {
            "command": "run",
            "select": ["dim_company+", "tag:daily"],
            "exclude": "fact_job_posting",
            "full_refresh": True,
            "vars": {"day": "2026-01-05"},
            "run_id": "run-1",
        }
    )
    assert command.run_id == "run-1"
    assert command.arguments() == [
        "run",
        "--select=dim_company+",
        "--select=tag:daily",
        "--exclude=fact_job_posting",
        "--full-refresh",
        "--vars",
        '{"day": "2026-01-05"}',
    ]


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"docs", "retry", "run-operation"}))
def test_these_commands_are_allowed(command: str) -> None:
    assert DbtCommand.from_event({"command": command}).arguments() == command.split()


def test_docs_are_generated_without_fetching_packages() -> None:
    assert DbtCommand.from_event({"command": "docs"}).arguments() == ["docs", "generate"]


@pytest.mark.parametrize("command", ["clean", "deps", "init", "source", "", "build --full-refresh", None, ["run"]])
def test_every_other_command_is_refused(command: object) -> None:
    with pytest.raises(ConfigurationError, match="one of build, compile, debug, docs, retry, run, run-operation, seed"):
        DbtCommand.from_event({"command": command})


def test_a_retry_needs_the_run_that_it_goes_on_with() -> None:
    with pytest.raises(ConfigurationError, match="retry needs the run_id"):
        DbtCommand.from_event({"command": "retry"})
    assert DbtCommand.from_event({"command": "retry", "run_id": "run-1"}).arguments() == ["retry"]


def test_an_operation_must_be_on_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"command": "run-operation", "operation": "grant_all", "args": {"to": "ann"}}
    with pytest.raises(ConfigurationError, match="none is allowed by the setting dbtOperations"):
        DbtCommand.from_event(event)
    monkeypatch.setenv("DBT_OPERATIONS", "vacuum, grant_all")
    assert DbtCommand.from_event(event).arguments() == ["run-operation", "grant_all", "--args", '{"to": "ann"}']
    with pytest.raises(ConfigurationError, match="operation = 'drop_all': vacuum, grant_all is allowed"):
        DbtCommand.from_event({**event, "operation": "drop_all"})


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ({"command": "debug", "select": "a"}, "select is not for debug"),
        ({"command": "test", "full_refresh": True}, "full_refresh is not for test"),
        ({"command": "debug", "threads": 2}, "threads is not for debug"),
        ({"operation": "a"}, "operation is not for build"),
        ({"selector": "daily", "select": "a"}, "selector stands alone"),
        ({"selector": "--x"}, "selector = '--x'"),
        ({"threads": 0}, "threads = 0: 1 to 16"),
        ({"threads": 17}, "threads = 17: 1 to 16"),
        ({"threads": True}, "threads = True: 1 to 16"),
        ({"target": "--full-refresh"}, "target = '--full-refresh'"),
        ({"state": "../x"}, "state = '../x'"),
        ({"run_id": "latest"}, "run_id = 'latest'"),
    ],
)
def test_an_option_out_of_place_or_range_is_refused(event: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        DbtCommand.from_event(event)
    assert fault in refused.value.message


def test_selector_threads_and_target_become_options() -> None:
    command = DbtCommand.from_event({"selector": "daily", "threads": 2, "target": "other"})
    assert command.arguments() == ["build", "--selector", "daily", "--threads", "2"]
    assert command.target == "other"


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ({"select": "state:modified+"}, "latest"),
        ({"exclude": ["a", "1+result:error"]}, "latest"),
        ({"select": "state:new", "state": "run-7"}, "run-7"),
        ({"selector": "changed", "state": "latest"}, "latest"),
        ({"select": "mystate:x tag:daily"}, None),
        ({}, None),
    ],
)
def test_a_selection_of_what_changed_is_compared_with_the_last_good_run(event: dict[str, Any], state: object) -> None:
    assert DbtCommand.from_event(event).state == state


def test_all_faults_of_an_event_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        DbtCommand.from_event(
            {
                "command": "clean",
                "select": [1],
                "exclude": {"a": 1},
                "full_refresh": "yes",
                "vars": "day",
                "run_id": "../x",
                "profile": "mine",
            }
        )
    for key in ("command", "select", "exclude", "full_refresh", "vars", "run_id"):
        assert f"{key} = " in refused.value.message
    assert "profile is no known key" in refused.value.message


@pytest.mark.parametrize("key", ["select", "exclude"])
def test_a_selection_is_a_text_or_a_list_of_texts(key: str) -> None:
    assert getattr(DbtCommand.from_event({key: "a b"}), key) == ("a b",)
    assert getattr(DbtCommand.from_event({key: ["a", "b"]}), key) == ("a", "b")
    assert getattr(DbtCommand.from_event({key: []}), key) == ()
    assert getattr(DbtCommand.from_event({key: None}), key) == ()


@pytest.mark.parametrize("value", [5, {"a": "b"}, [""], ["a", None], [["a"]], True])
def test_any_other_selection_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="a text or a list of texts is needed"):
        DbtCommand.from_event({"select": value})


@pytest.mark.parametrize("run_id", ["a", "run-20260105T050000-ab12cd", "0_1", "x" * 100])
def test_a_run_id_may_have_letters_digits_dashes_and_underscores(run_id: str) -> None:
    assert DbtCommand.from_event({"run_id": run_id}).run_id == run_id


@pytest.mark.parametrize("run_id", ["", "x" * 101, "a/b", "..", "a b", "a\n", "é", "²", 5, ["a"]])
def test_any_other_run_id_is_refused_for_it_becomes_part_of_a_key(run_id: object) -> None:
    with pytest.raises(ConfigurationError, match="1 to 100 letters, digits, dashes and underscores"):
        DbtCommand.from_event({"run_id": run_id})


def test_options_are_more_keys_and_what_the_event_itself_says_wins() -> None:
    options = {"full_refresh": True, "select": "dim_company", "run_id": "another"}
    assert DbtCommand.from_event({"run_id": "run-1", "options": options}) == DbtCommand(
        select=("dim_company",), full_refresh=True, run_id="run-1"
    )
    assert DbtCommand.from_event({"options": {}}) == DbtCommand()


@pytest.mark.parametrize("options", ["--full-refresh", ["full_refresh"], {"profile": "mine"}, {"options": {}}])
def test_options_are_checked_as_the_event_is(options: object) -> None:
    with pytest.raises(ConfigurationError, match="the event cannot be run"):
        DbtCommand.from_event({"options": options})


_any_text = st.text(min_size=1) | st.sampled_from(["--full-refresh", "-t", "--", "--target=x", "a --vars b", "=", "-"])


@given(st.lists(_any_text, max_size=3), st.lists(_any_text, max_size=3), st.booleans())
def test_any_value_of_a_selection_stays_one_value_and_never_becomes_an_option(
    select: list[str], exclude: list[str], full_refresh: bool
) -> None:
    command = DbtCommand.from_event({"select": select, "exclude": exclude, "full_refresh": full_refresh})
    parsed: dict[str, Any] = {}

    @click.command()
    @click.option("--select", multiple=True)
    @click.option("--exclude", multiple=True)
    @click.option("--full-refresh", is_flag=True)
    @click.option("--project-dir")
    def build(**values: Any) -> None:
        parsed.update(values)

    # As the runner continues the line.
    build.main([*command.arguments()[1:], "--project-dir", "/here"], standalone_mode=False)
    assert parsed == {
        "select": tuple(select),
        "exclude": tuple(exclude),
        "full_refresh": full_refresh,
        "project_dir": "/here",
    }


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), min_size=1))
def test_variables_are_one_argument_and_come_back_equal(variables: dict[str, Any]) -> None:
    arguments = DbtCommand.from_event({"vars": variables}).arguments()
    assert arguments[:2] == ["build", "--vars"]
    assert json.loads(arguments[2]) == variables
    assert len(arguments) == 3


# --- running it ---


class GraphTask:
    """Stands for dbt's task over a graph, which selects nodes."""

    def __init__(self, chosen: list[str]) -> None:
        self.chosen = chosen

    def _runtime_initialize(self) -> None:
        self._flattened_nodes = [types.SimpleNamespace(unique_id=name) for name in self.chosen]


@dataclass
class Dbt:
    """Stands for dbt: what its runner is called with, and what it does then."""

    action: Callable[[list[str]], Any] = lambda _arguments: outcome()
    calls: list[list[str]] = field(default_factory=list)
    cancelled: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    callbacks: list[Callable[[Any], None]] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)

    def invoke(self, arguments: list[str]) -> Any:
        self.calls.append(arguments)
        self.environment = dict(os.environ)
        if self.chosen:
            GraphTask(self.chosen)._runtime_initialize()
        try:
            return self.action(arguments)
        except KeyboardInterrupt as exc:
            # dbt.task.runnable cancels its connections on KeyboardInterrupt only; dbt.cli hands everything back.
            self.cancelled = True
            return outcome(success=False, exception=exc)
        except BaseException as exc:
            return outcome(success=False, exception=exc)

    def folder(self, option: str) -> Path:
        arguments = self.calls[-1]
        return Path(arguments[arguments.index(option) + 1])


def outcome(*nodes: Any, success: bool = True, exception: BaseException | None = None) -> Any:
    """Return what dbt's runner returns."""
    return types.SimpleNamespace(success=success, exception=exception, result=types.SimpleNamespace(results=nodes))


def node(name: str, status: str = "success", message: str | None = "INSERT 0 5", rows: int | None = 5) -> Any:
    """Return a node's result as dbt has it."""
    return types.SimpleNamespace(
        node=types.SimpleNamespace(unique_id=f"model.gold_layer.{name}"),
        status=status,
        execution_time=1.23456,
        adapter_response={"rows_affected": rows} if rows is not None else None,
        message=message,
    )


@dataclass
class Bucket:
    """An S3 client that keeps what is put."""

    objects: dict[str, bytes] = field(default_factory=dict)
    error: Exception | None = None

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - AWS spells it so
        url = f"s3://{Bucket}/{Key}"
        if url not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "none"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[url])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803 - AWS spells it so
        if self.error:
            raise self.error
        self.objects[f"s3://{Bucket}/{Key}"] = Body


@pytest.fixture(autouse=True)
def own_process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what the runner sets for its whole process: environment and multiprocessing's locks."""
    for name in ("Lock", "RLock"):
        monkeypatch.setattr(
            multiprocessing.context.BaseContext, name, getattr(multiprocessing.context.BaseContext, name)
        )
    with mock.patch.dict(os.environ):
        for name in ("ARTIFACTS_LOCATION", "DBT_PROFILES_DIR"):
            os.environ.pop(name, None)
        yield


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, Lambda's /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def dbt(monkeypatch: pytest.MonkeyPatch) -> Dbt:
    fake = Dbt()
    manager = types.SimpleNamespace(loggers=[])

    def made(callbacks: list[Callable[[Any], None]]) -> Dbt:
        fake.callbacks = callbacks
        return fake

    contents: dict[str, dict[str, Any]] = {
        "dbt.cli.main": {"dbtRunner": made},
        "dbt.task.runnable": {"GraphRunnableTask": GraphTask},
        "dbt_common.events.event_manager_client": {
            "get_event_manager": lambda: manager,
            "cleanup_event_logger": lambda: None,
        },
    }
    for name, names in contents.items():
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    fake = Bucket()
    monkeypatch.setattr(Connection, "client", lambda _self, service: {"s3": fake}[service])
    return fake


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "opt" / "dbt_gold"
    folder.mkdir(parents=True)
    (folder / "profiles.yml").write_text("redshift_gold: {}")
    return folder


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setattr(Warehouse, "connect", lambda _self, _timeout=0: mock.Mock())
    return Warehouse("gold.example.com", "admin", PASSWORD)


Start = Callable[..., dict[str, Any]]


@pytest.fixture
def lines() -> list[str]:
    """Return what the runner has written to its log."""
    return []


@pytest.fixture
def start(dbt: Dbt, project: Path, warehouse: Warehouse, lines: list[str]) -> Start:
    """Return a function that runs dbt in memory with an event."""

    def start(seconds: float = 900, **event: Any) -> dict[str, Any]:
        command = DbtCommand.from_event(event)
        job = Job(command, project, warehouse, Connection("http://127.0.0.1:4566"), seconds, "request-1", lines.append)
        return run_dbt(job)

    return start


def test_a_run_that_went_well_answers_0_with_one_result_per_node(start: Start, dbt: Dbt) -> None:
    dbt.action = lambda _arguments: outcome(node("dim_company"), node("not_null", "pass", None, None))
    answer = start(command="build")
    assert set(answer) == KEYS
    assert (answer["statusCode"], answer["command"], answer["stderr"]) == (0, "build", "")
    assert answer["message"] == "dbt build: 2 nodes done"
    assert answer["results"] == [
        {
            "unique_id": "model.gold_layer.dim_company",
            "status": "success",
            "seconds": 1.235,
            "rows": 5,
            "message": "INSERT 0 5",
        },
        {"unique_id": "model.gold_layer.not_null", "status": "pass", "seconds": 1.235, "rows": None, "message": None},
    ]
    assert json.loads(json.dumps(answer)) == answer


def test_a_command_without_nodes_has_no_results(start: Start, dbt: Dbt) -> None:
    dbt.action = lambda _arguments: types.SimpleNamespace(success=True, exception=None, result=True)
    assert start(command="debug")["results"] == []


def test_debug_asks_for_the_connection_and_not_for_git_which_lambda_does_not_have(start: Start, dbt: Dbt) -> None:
    start(command="debug")
    start(command="compile")
    assert ["--connection" in arguments for arguments in dbt.calls] == [True, False]


def test_dbt_is_imported_while_the_warehouse_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    importing, asked = threading.Event(), threading.Event()

    def load() -> None:
        importing.set()
        assert asked.wait(10)

    def ping(_warehouse: Warehouse, **_options: Any) -> None:
        assert importing.wait(10)
        asked.set()

    monkeypatch.setattr(imports, "load", load)
    monkeypatch.setattr(Warehouse, "ping", ping)
    answer = start()
    assert answer["outcome"] == "done"
    assert set(answer["timings"]) == {"import", "parse", "connect", "run"}


def test_a_dbt_that_cannot_be_imported_is_an_error_of_its_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("no dbt in this layer")

    monkeypatch.setattr(imports, "load", load)
    with pytest.raises(ImportError, match="no dbt in this layer"):
        start()


def test_after_a_warehouse_that_does_not_answer_no_import_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ping(_warehouse: Warehouse, **_options: Any) -> None:
        raise UnreachableError("nobody there")

    monkeypatch.setattr(Warehouse, "ping", ping)
    with pytest.raises(UnreachableError, match="nobody there"):
        start(seconds=0)
    assert [thread.name for thread in threading.enumerate() if thread.name == "import of dbt"] == []


def test_a_node_that_failed_answers_1_and_is_named_with_its_reason(start: Start, dbt: Dbt) -> None:
    failed = node("dim_company", "error", "Database Error in model\n  relation missing\n  LINE 1\n  more", None)
    dbt.action = lambda _arguments: outcome(node("dim_skill"), failed, node("fact", "skipped"), success=False)
    answer = start()
    assert answer["statusCode"] == 1
    assert answer["message"] == (
        "dbt build: 1 of 3 nodes failed, first model.gold_layer.dim_company: "
        "Database Error in model relation missing LINE 1"
    )


def test_what_went_wrong_besides_the_nodes_is_on_stderr(start: Start, dbt: Dbt) -> None:
    dbt.action = lambda _arguments: outcome(success=False, exception=RuntimeError("Compilation Error\n  in dim.sql"))
    answer = start()
    assert (answer["statusCode"], answer["outcome"]) == (2, "broken")
    assert answer["stderr"] == "Compilation Error\n  in dim.sql"
    assert answer["message"] == "dbt build failed: Compilation Error"


def test_a_warehouse_that_went_away_answers_2(start: Start, dbt: Dbt, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Warehouse, _timeout: int = 0) -> Any:
        raise UnreachableError("warehouse gold.example.com cannot be reached")

    def vanish(_arguments: list[str]) -> Any:
        monkeypatch.setattr(Warehouse, "connect", refuse)
        return outcome(node("dim_company", "error"), success=False)

    dbt.action = vanish
    answer = start()
    assert set(answer) == KEYS
    assert answer["statusCode"] == 2
    assert answer["message"] == "warehouse gold.example.com cannot be reached"
    assert len(answer["results"]) == 1


def test_standard_output_and_error_are_cut_to_their_ends(
    start: Start, dbt: Dbt, capsys: pytest.CaptureFixture[str]
) -> None:
    def talk(_arguments: list[str]) -> Any:
        print("a" * 5000 + "the end", end="")
        return outcome(success=False, exception=RuntimeError("b" * 3000 + "of it"))

    dbt.action = talk
    answer = start()
    assert answer["stdout"] == "a" * 3993 + "the end"
    assert answer["stderr"] == "b" * 1995 + "of it"
    assert capsys.readouterr().out == ""


def test_everything_is_written_below_the_temporary_folder(
    start: Start, dbt: Dbt, project: Path, temporary: Path
) -> None:
    before = sorted(project.parent.rglob("*"))
    start()
    assert dbt.folder("--project-dir") == project
    for option in ("--target-path", "--log-path"):
        assert dbt.folder(option).is_relative_to(temporary)
    assert sorted(project.parent.rglob("*")) == before


def test_dbt_gets_the_events_arguments_first_and_the_target_for_redshift(start: Start, dbt: Dbt) -> None:
    start(command="test", select="dim_company")
    assert dbt.calls[0][:2] == ["test", "--select=dim_company"]
    target = dbt.calls[0].index("--target")
    assert dbt.calls[0][target + 1] == "redshift"


def test_the_profile_finds_the_warehouse_in_the_environment(start: Start, dbt: Dbt, project: Path) -> None:
    before = dict(os.environ)
    start()
    assert (
        dbt.environment.items()
        >= {
            "REDSHIFT_HOST": "gold.example.com",
            "REDSHIFT_PORT": "5439",
            "REDSHIFT_DATABASE": "analytics",
            "REDSHIFT_USER": "admin",
            "REDSHIFT_SSLMODE": "verify-full",
            "DBT_PROFILES_DIR": str(project),
        }.items()
    )
    assert os.environ == before


def test_a_folder_of_profiles_of_ones_own_is_taken_when_it_has_one(
    start: Start, dbt: Dbt, tmp_path: Path, project: Path
) -> None:
    os.environ["DBT_PROFILES_DIR"] = str(tmp_path)
    start()
    assert dbt.environment["DBT_PROFILES_DIR"] == str(project)
    (tmp_path / "profiles.yml").touch()
    start()
    assert dbt.environment["DBT_PROFILES_DIR"] == str(tmp_path)


def test_the_password_is_where_dbt_keeps_it_out_of_its_logs_and_nowhere_else(start: Start, dbt: Dbt) -> None:
    start()
    # dbt scrubs the values of variables with this prefix.
    having = [name for name, value in dbt.environment.items() if value == PASSWORD]
    assert having == ["DBT_ENV_SECRET_REDSHIFT_PASSWORD"]
    assert PASSWORD not in os.environ.values()
    assert not any(PASSWORD in argument for argument in dbt.calls[0])


def test_the_password_is_neither_in_the_answer_nor_in_a_log(
    start: Start, dbt: Dbt, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def babble(_arguments: list[str]) -> Any:
        print(f"connecting with {PASSWORD}")
        dbt.callbacks[0](event(f"connecting with {PASSWORD}"))
        failed = node("dim_company", "error", f"cannot sign in with {PASSWORD}")
        return outcome(failed, success=False, exception=RuntimeError(f"connect(password='{PASSWORD}')"))

    dbt.action = babble
    caplog.set_level(logging.DEBUG)
    answer = start()
    assert "connecting with" in answer["stdout"]
    assert "cannot sign in with" in answer["message"]
    assert "nodes failed" in lines[-2]
    assert PASSWORD not in json.dumps(answer)
    assert PASSWORD not in caplog.text + "".join(lines)


def test_no_part_of_the_password_is_left_where_a_text_is_cut(start: Start, dbt: Dbt) -> None:
    def babble(_arguments: list[str]) -> Any:
        print(PASSWORD + "a" * 3990, end="")
        return outcome()

    dbt.action = babble
    assert start()["stdout"] == "*****" + "a" * 3990


def artifacts(dbt: Dbt) -> Callable[[list[str]], Any]:
    def write(_arguments: list[str]) -> Any:
        target = dbt.folder("--target-path")
        target.mkdir(exist_ok=True)
        (target / "run_results.json").write_text('{"results": []}')
        (target / "manifest.json").write_text("manifest")
        (target / "graph.gpickle").write_text("not asked for")
        return outcome()

    return write


@pytest.mark.parametrize(
    ("location", "below"),
    [("s3://lake/artifacts/dbt/", "s3://lake/artifacts/dbt/run-1"), ("s3://lake", "s3://lake/run-1")],
)
def test_artifacts_are_kept_under_the_run_id(start: Start, dbt: Dbt, bucket: Bucket, location: str, below: str) -> None:
    os.environ["ARTIFACTS_LOCATION"] = location
    dbt.action = artifacts(dbt)
    assert start(run_id="run-1")["artifacts"] == below
    latest = f"{below.rsplit('/', 1)[0]}/latest"
    contents = {"run_results.json": b'{"results": []}', "manifest.json": b"manifest"}
    assert bucket.objects == {
        f"{folder}/{name}": content for folder in (below, latest) for name, content in contents.items()
    }


def test_only_a_build_or_run_that_went_well_is_what_later_runs_compare_with(
    start: Start, dbt: Dbt, bucket: Bucket
) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/dbt"
    write = artifacts(dbt)
    dbt.action = write
    start(command="test", run_id="one")

    def fail(arguments: list[str]) -> Any:
        write(arguments)
        return outcome(node("dim_company", "error"), success=False)

    dbt.action = fail
    start(command="build", run_id="two")
    assert {key.split("/")[4] for key in bucket.objects} == {"one", "two"}


def test_runs_without_an_id_are_kept_apart(start: Start, dbt: Dbt, bucket: Bucket) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/artifacts"
    dbt.action = artifacts(dbt)
    assert start()["artifacts"] != start()["artifacts"]
    assert len({key.split("/")[4] for key in bucket.objects} - {"latest"}) == 2


def test_artifacts_that_cannot_be_kept_are_a_warning_and_no_failure(
    start: Start, dbt: Dbt, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/artifacts"
    dbt.action = artifacts(dbt)
    bucket.error = ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "PutObject")
    answer = start()
    assert (answer["statusCode"], answer["artifacts"]) == (0, None)
    assert ["not you" in record.message for record in caplog.records if record.levelname == "WARNING"] == [True]


def test_the_artifacts_of_the_run_before_are_not_kept_again(start: Start, dbt: Dbt, bucket: Bucket) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/artifacts"
    dbt.action = artifacts(dbt)
    start(run_id="first")
    dbt.action = lambda _arguments: outcome(success=False, exception=RuntimeError("Parsing Error"))
    assert start(run_id="second")["artifacts"] is None
    assert not any("second" in key for key in bucket.objects)


def test_without_a_location_artifacts_are_not_kept(start: Start, dbt: Dbt, bucket: Bucket) -> None:
    dbt.action = artifacts(dbt)
    assert start()["artifacts"] is None
    assert bucket.objects == {}


needs_main_thread = pytest.mark.skipif(
    "threading.current_thread() is not threading.main_thread()", reason="signals reach the main thread only"
)


@needs_main_thread
def test_dbt_is_stopped_before_the_time_limit_and_its_queries_are_cancelled(start: Start, dbt: Dbt) -> None:
    def hang(_arguments: list[str]) -> Any:
        threading.Event().wait(30)
        return outcome()

    dbt.action = hang
    begin = time.monotonic()
    answer = start(seconds=runner.RESERVE_SECONDS + 0.1)
    assert time.monotonic() - begin < 10
    assert answer["statusCode"] == 1
    assert answer["outcome"] == "failed", "the state machine goes on with a deadline only"
    assert answer["message"] == (
        "dbt build failed: stopped at its deadline of 0.1 s, before dbt had chosen its nodes: "
        "it needs more time than that"
    )
    assert dbt.cancelled


@needs_main_thread
def test_at_the_deadline_what_remains_is_named_and_kept_for_a_retry(
    start: Start, dbt: Dbt, bucket: Bucket, temporary: Path
) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/dbt"
    dbt.chosen = ["model.a", "model.b", "model.c"]
    ended = {"unique_id": "model.a", "status": "success", "execution_time": 1.0, "adapter_response": {}, "message": ""}

    def hang(_arguments: list[str]) -> Any:
        found = {"results": [ended], "args": {"which": "build"}, "elapsed_time": 2.0}
        (dbt.folder("--target-path") / "run_results.json").write_text(json.dumps(found))
        threading.Event().wait(30)

    dbt.action = hang
    answer = start(seconds=runner.RESERVE_SECONDS + 0.1, run_id="run-1")
    assert (answer["statusCode"], answer["outcome"]) == (1, "deadline")
    assert answer["remaining"] == ["model.b", "model.c"]
    assert answer["totals"] == {"nodes": 3, "ok": 1, "failed": 0, "skipped": 2, "rows": 0}
    assert answer["message"] == (
        "dbt build: stopped at its deadline of 0.1 s, 2 nodes remain, first model.b; retry goes on with them"
    )
    kept = json.loads(bucket.objects["s3://lake/dbt/run-1/run_results.json"])
    assert {item["unique_id"]: item["status"] for item in kept["results"]} == {
        "model.a": "success",
        "model.b": "skipped",
        "model.c": "skipped",
    }
    before: list[Any] = []

    def goes_on(_arguments: list[str]) -> Any:
        before.append(results.read(dbt.folder("--state")))
        again = {"results": [{**ended, "unique_id": name} for name in ("model.b", "model.c")], "args": {}}
        (dbt.folder("--target-path") / "run_results.json").write_text(json.dumps(again))
        return outcome(node("b"), node("c"))

    dbt.action = goes_on
    assert start(command="retry", run_id="run-1")["outcome"] == "done"
    assert before == [kept]
    whole = json.loads(bucket.objects["s3://lake/dbt/run-1/run_results.json"])
    assert {item["unique_id"]: item["status"] for item in whole["results"]} == dict.fromkeys(dbt.chosen, "success")


@needs_main_thread
def test_a_run_that_was_stopped_before_its_first_node_can_be_retried_whole(
    start: Start, dbt: Dbt, bucket: Bucket
) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/dbt"
    dbt.chosen = ["model.a"]
    dbt.action = lambda _arguments: threading.Event().wait(30)
    answer = start(seconds=runner.RESERVE_SECONDS + 0.1, run_id="run-1", command="run", vars={"a": 1})
    assert (answer["outcome"], answer["remaining"]) == ("deadline", ["model.a"])
    kept = json.loads(bucket.objects["s3://lake/dbt/run-1/run_results.json"])
    assert kept["args"] == {"which": "run", "vars": {"a": 1}, "full_refresh": False}


def test_a_retry_of_a_run_that_left_nothing_is_refused(start: Start, dbt: Dbt, bucket: Bucket) -> None:
    os.environ["ARTIFACTS_LOCATION"] = "s3://lake/dbt"
    with pytest.raises(ConfigurationError, match=r"run run-9 has left no run_results.json"):
        start(command="retry", run_id="run-9")
    assert dbt.calls == []
    assert bucket.objects == {}


@needs_main_thread
def test_with_no_time_left_dbt_is_stopped_at_once(start: Start, dbt: Dbt) -> None:
    dbt.action = lambda _arguments: threading.Event().wait(30)
    begin = time.monotonic()
    assert start(seconds=1)["statusCode"] == 1
    assert time.monotonic() - begin < 10


@needs_main_thread
def test_after_a_run_no_alarm_is_left(start: Start) -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    assert start(seconds=runner.RESERVE_SECONDS + 5)["statusCode"] == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_in_another_thread_dbt_runs_without_the_alarm(start: Start) -> None:
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(start()))
    thread.start()
    thread.join()
    assert [answer["statusCode"] for answer in answers] == [0]


def test_locks_between_processes_become_locks_between_threads(
    start: Start, dbt: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def semaphores(*_arguments: Any, **_options: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", semaphores)
    held: list[bool] = []

    def lock(_arguments: list[str]) -> Any:
        context = multiprocessing.get_context("spawn")
        with context.Lock(), context.RLock() as again:
            held.append(bool(again))
        return outcome()

    with pytest.raises(OSError, match="Function not implemented"):
        multiprocessing.get_context("spawn").Lock()
    dbt.action = lock
    assert start()["statusCode"] == 0
    assert held == [True]


# --- the log, the machine, the warehouse ---


def event(message: str, level: str = "info", name: str = "LogModelResult", node: str = "") -> Any:
    """Return an event as dbt hands it to its listeners."""
    info = types.SimpleNamespace(
        name=name, code="Q012", level=types.SimpleNamespace(value=level), msg=message, invocation_id="invocation-1"
    )
    return types.SimpleNamespace(info=info, data=types.SimpleNamespace(node_info=types.SimpleNamespace(unique_id=node)))


def test_dbts_events_are_lines_of_json_with_the_ids_of_request_and_invocation(
    start: Start, dbt: Dbt, lines: list[str]
) -> None:
    def talk(_arguments: list[str]) -> Any:
        dbt.callbacks[0](event("1 of 4 OK", node="model.a"))
        dbt.callbacks[0](event("select 1", level="debug"))
        dbt.callbacks[0](event("  "))
        dbt.callbacks[0](event("old syntax", level="warn", name="Deprecated"))
        return outcome(node("dim_company"), node("dim_skill", "warn"))

    dbt.action = talk
    start(command="build")
    first, second, summary, metrics = [json.loads(line) for line in lines]
    assert first == {
        "level": "INFO",
        "message": "1 of 4 OK",
        "timestamp": first["timestamp"],
        "service": "dbt-runner",
        "event": "LogModelResult",
        "code": "Q012",
        "node": "model.a",
        "function_request_id": "request-1",
        "invocation_id": "invocation-1",
    }
    assert (second["level"], second["message"]) == ("WARNING", "old syntax")
    assert (summary["level"], summary["message"]) == ("INFO", "dbt build: 2 nodes done")
    directive = metrics["_aws"]["CloudWatchMetrics"][0]
    assert directive["Namespace"] == "Goldlake"
    assert {item["Name"] for item in directive["Metrics"]} <= metrics.keys()
    assert (metrics["ModelsOk"], metrics["ModelsFailed"], metrics["Rows"]) == (2, 0, 10)
    assert [metrics[name] for name in directive["Dimensions"][0]] == ["local", "build"]


def test_nothing_is_left_in_the_temporary_folder_but_dbts_parse(start: Start, dbt: Dbt, temporary: Path) -> None:
    def leave(_arguments: list[str]) -> Any:
        target = dbt.folder("--target-path")
        for name in ("partial_parse.msgpack", "compiled/a.sql", "manifest.json"):
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).touch()
        (dbt.folder("--log-path") / "dbt.log").touch()
        return outcome()

    dbt.action = leave
    start()
    assert {path.name for path in temporary.rglob("*") if path.is_file()} == {"lock", "partial_parse.msgpack"}


def test_with_too_little_room_dbt_is_not_started(start: Start, dbt: Dbt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: types.SimpleNamespace(free=5_000_000))
    with pytest.raises(FailedError, match="has 5 MB left and dbt needs 64 MB"):
        start()
    assert dbt.calls == []


def test_a_second_run_at_the_same_time_is_refused(start: Start, dbt: Dbt) -> None:
    refused: list[str] = []

    def again(_arguments: list[str]) -> Any:
        dbt.action = lambda _again: outcome()
        with pytest.raises(FailedError) as busy:
            start()
        refused.append(busy.value.message)
        return outcome()

    dbt.action = again
    assert start()["statusCode"] == 0
    assert refused == ["another dbt run is under way here: two at once would build the same tables"]
    assert len(dbt.calls) == 1
    assert start()["statusCode"] == 0


class Sleeper:
    """A warehouse that answers the n-th ping; a clock that goes on only when somebody sleeps."""

    def __init__(self, answers: int, cause: Exception | None = None) -> None:
        self.left, self.cause, self.now, self.pauses = answers, cause, 0.0, list[float]()

    def ping(self, timeout_seconds: int) -> None:
        assert timeout_seconds >= 1
        self.left -= 1
        if self.left > 0:
            raise UnreachableError("no answer") from self.cause

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("answers", "pauses"), [(1, []), (3, [1, 2]), (8, [1, 2, 4, 8, 16, 16, 16])])
def test_an_idle_workgroup_is_waited_for_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, answers: int, pauses: list[float]
) -> None:
    warehouse: Any = Sleeper(answers)
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(monotonic=lambda: warehouse.now))
    runner.wake(warehouse, 120, warehouse.sleep)
    assert warehouse.pauses == pauses


def test_a_warehouse_that_does_not_wake_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse: Any = Sleeper(1000)
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(monotonic=lambda: warehouse.now))
    with pytest.raises(UnreachableError, match="no answer"):
        runner.wake(warehouse, 60, warehouse.sleep)
    assert 40 < warehouse.now <= 60


def test_a_refused_login_is_not_tried_again() -> None:
    warehouse: Any = Sleeper(2, RuntimeError({"C": "28000", "M": "password authentication failed"}))
    with pytest.raises(UnreachableError):
        runner.wake(warehouse, 120, warehouse.sleep)
    assert warehouse.pauses == []


def test_nothing_calls_home_whatever_the_projects_flags_say(start: Start, dbt: Dbt) -> None:
    start()
    assert "--no-send-anonymous-usage-stats" in dbt.calls[0]


@given(st.integers(0, 2000), st.integers(0, 20))
def test_results_fit_into_a_state_and_failures_are_kept(good: int, bad: int) -> None:
    def made(index: int, status: str) -> dict[str, Any]:
        return {"unique_id": f"model.{index}", "status": status, "seconds": 1, "rows": 1, "message": "m" * 300}

    nodes = [made(i, "success") for i in range(good)] + [made(i, "error") for i in range(bad)]
    kept, left_out = results.bounded(nodes)
    assert len(json.dumps(kept)) <= results.RESULTS_BYTES
    assert len(kept) + left_out == len(nodes)
    assert sum(item["status"] == "error" for item in kept) == bad


# --- the handler ---


class Context:
    """Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch, project: Path, warehouse: Warehouse) -> None:
    """Set up what the function has in the cloud."""
    monkeypatch.setenv("DBT_PROJECT_DIR", str(project))
    (project / "dbt_project.yml").touch()
    monkeypatch.setattr(Warehouse, "from_environment", classmethod(lambda _cls, _aws: warehouse))


@pytest.mark.usefixtures("function")
def test_the_function_answers_as_the_runner_does(dbt: Dbt, project: Path) -> None:
    answer = handler.handle({"command": "seed", "run_id": "run-1"}, Context())
    assert set(answer) == KEYS
    assert (answer["statusCode"], dbt.calls[0][0]) == (0, "seed")
    assert dbt.folder("--project-dir") == project


@pytest.mark.usefixtures("function")
def test_an_event_that_cannot_be_run_is_refused_and_dbt_is_not_started(dbt: Dbt) -> None:
    answer = handler.handle({"command": "clean"}, Context())
    assert (answer["statusCode"], answer["outcome"]) == (2, "refused")
    assert "command = 'clean'" in answer["message"]
    assert dbt.calls == []


@pytest.mark.usefixtures("function")
def test_an_unreachable_warehouse_is_answered_2_and_dbt_is_not_started(
    dbt: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Warehouse, _timeout: int = 0) -> Any:
        raise UnreachableError("warehouse gold.example.com cannot be reached")

    monkeypatch.setattr(Warehouse, "connect", refuse)
    monkeypatch.setattr(runner, "WAKE_SECONDS", 0)
    assert handler.handle({}, Context()) == {
        "statusCode": 2,
        "outcome": "unreachable",
        "message": "warehouse gold.example.com cannot be reached",
    }
    assert dbt.calls == []


# --- texts of one statement ---

_PIECES = (
    "select 1",
    "select a as go",
    "'x;y'",
    "-- it; is\n",
    "/* a; b */",
    " ",
    "\n",
    ";",
    "begin",
    "end",
    "$$",
    "é",
)


@given(st.lists(st.sampled_from(_PIECES), max_size=6).map("".join))
def test_a_text_is_taken_apart_as_sqlparse_takes_it_apart(text: str) -> None:
    expected = sqlparse.split(text)
    with engine._single_statements():
        assert sqlparse.split(text) == expected


def test_a_text_of_one_statement_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = mock.Mock(return_value=["a;", "b"])
    monkeypatch.setattr(sqlparse, "split", parser)
    with engine._single_statements():
        assert sqlparse.split("  select 1 ;\n") == ["select 1 ;"]
        parser.assert_not_called()
        assert sqlparse.split("a; b") == ["a;", "b"]
    assert vars(sqlparse)["split"] is parser
