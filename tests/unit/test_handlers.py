"""The handlers: what they answer to the state machine, whatever happens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.pipeline import STEPS, definition
from lambdas.answers import Answer, Event, answering, project_dir, required
from lambdas.check import handler as check
from lambdas.export import handler as export
from lambdas.register import handler as register
from runtime.aws import Connection
from runtime.errors import (
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    NotReadyError,
    UnreachableError,
)
from runtime.export import ExportReport, TableExport
from runtime.readiness import ReadinessReport, State, TableReadiness
from runtime.register import RegisterReport, TableRegistration
from runtime.warehouse import Warehouse

NOW = datetime(2026, 1, 5, 5, 0, tzinfo=UTC)
LOCATION = "s3://lake/gold"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the stack sets for the functions, and nothing else."""
    for name in ("DBT_PROJECT_DIR", "TRINO_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("GOLD_LOCATION", LOCATION)
    monkeypatch.setenv("GOLD_DATABASE", "gold")


CONNECTION = Connection("http://127.0.0.1:4566", "eu-west-1")


# --- what all share ---


def failing(error: Exception) -> Callable[[Event, Any], Answer]:
    @answering
    def handle(_event: Event, _context: Any) -> Answer:
        """Do what the test says."""
        raise error

    return handle


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FailedError("the message"), 1),
        (NotReadyError("the message"), 1),
        (GoldlakeError("the message"), 1),
        (ConfigurationError("the message"), 1),
        (UnreachableError("the message"), 2),
        (AccessDeniedError("the message"), 2),
    ],
)
def test_an_error_of_ours_is_answered_and_logged(
    error: GoldlakeError, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert failing(error)({}, None) == {"statusCode": code, "message": "the message"}
    assert [record.message for record in caplog.records] == [f"{type(error).__name__}: the message"]
    assert caplog.records[0].levelno == logging.ERROR


def test_a_defect_is_raised_so_that_lambda_shows_it() -> None:
    with pytest.raises(KeyError):
        failing(KeyError("a bug"))({}, None)


def test_an_answer_is_handed_on_as_it_is() -> None:
    @answering
    def handle(event: Event, context: Any) -> Answer:
        """Return what came in."""
        return {"statusCode": 0, "event": event, "context": context}

    assert handle({"a": 1}, "context") == {"statusCode": 0, "event": {"a": 1}, "context": "context"}
    assert handle.__doc__ == "Return what came in."


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_or_empty_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setenv("GOLDLAKE_TEST", "here")
    assert required("GOLDLAKE_TEST") == "here"
    if value is None:
        monkeypatch.delenv("GOLDLAKE_TEST")
    else:
        monkeypatch.setenv("GOLDLAKE_TEST", value)
    with pytest.raises(ConfigurationError, match="environment variable GOLDLAKE_TEST is missing"):
        required("GOLDLAKE_TEST")


def a_project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "dbt_project.yml").touch()
    return folder


def test_the_project_is_found_where_its_layer_lies_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty" / "dbt_gold").mkdir(parents=True)
    first = a_project(tmp_path / "opt" / "python" / "dbt_gold")
    a_project(tmp_path / "later" / "dbt_gold")
    monkeypatch.setattr(sys, "path", [str(tmp_path / name) for name in ("empty", "opt/python", "later")])
    assert project_dir() == first


def test_an_empty_entry_of_the_path_is_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_project(tmp_path / "dbt_gold")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [""])
    assert project_dir().resolve() == tmp_path / "dbt_gold"


def test_a_project_that_is_named_is_the_only_one_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_project(tmp_path / "opt" / "dbt_gold")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "opt")])
    monkeypatch.setenv("DBT_PROJECT_DIR", str(tmp_path / "mine"))
    with pytest.raises(ConfigurationError, match=f"no dbt project in {tmp_path / 'mine'}"):
        project_dir()
    mine = a_project(tmp_path / "mine")
    assert project_dir() == mine


def test_a_missing_project_layer_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigurationError, match="the layer dbt_project is missing"):
        project_dir()


# --- check ---


def checked(*states: State) -> Answer:
    """Return the check's answer when its tables are in these states."""
    tables = tuple(TableReadiness(f"silver.t{index}", state, "") for index, state in enumerate(states))
    asked: list[Any] = []

    def look(aws: Connection, sources: Any) -> ReadinessReport:
        asked.append((aws, sources))
        return ReadinessReport(NOW, tables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "project_dir", lambda: Path("/opt/python/dbt_gold"))
        patch.setattr(check, "sources_from_project", lambda project: f"sources of {project}")
        patch.setattr(check, "check", look)
        answer = check.handle({"run_id": "run-1"}, None)
    assert asked == [(CONNECTION, "sources of /opt/python/dbt_gold")]
    return answer


@pytest.mark.parametrize(
    ("states", "code", "message"),
    [
        (("ready", "ready"), 0, "2 of 2 tables ready"),
        (("ready", "missing"), 1, "1 of 2 tables ready; silver.t1 is missing"),
        (("empty",), 1, "0 of 1 tables ready; silver.t0 is empty"),
        (("ready", "unreachable"), 2, "1 of 2 tables ready; silver.t1 is unreachable"),
    ],
)
def test_the_check_answers_its_reports_exit_code_and_summary(
    states: tuple[State, ...], code: int, message: str
) -> None:
    answer = checked(*states)
    assert (answer["statusCode"], answer["message"]) == (code, message)
    assert answer["report"]["schema"] == "goldlake.check/1"
    assert [table["state"] for table in answer["report"]["tables"]] == list(states)


# --- export ---


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Answer every export with two tables; return the list of what was asked."""
    asked: list[tuple[Any, ...]] = []

    def export_tables(warehouse: Warehouse, aws: Connection, target: str, **options: Any) -> ExportReport:
        asked.append((warehouse, aws, target, options))
        tables = tuple(
            TableExport(name, f"{target}/{name}", 3, created=False, schema_changes=(), rows=5)
            for name in ("dim_company", "dim_skill")
        )
        return ExportReport("gold", target, "run-1", False, 1.0, 1, tables)

    monkeypatch.setattr(export, "export_tables", export_tables)
    monkeypatch.setattr(
        Warehouse, "from_environment", classmethod(lambda _cls, _aws: Warehouse("127.0.0.1", "admin", "secret"))
    )
    return asked


def test_the_export_takes_all_tables_by_default_and_names_what_it_exported(exports: list[tuple[Any, ...]]) -> None:
    answer = export.handle({"run_id": "run-1"}, None)
    assert (answer["statusCode"], answer["message"]) == (0, "2 tables exported")
    assert answer["table_names"] == ["dim_company", "dim_skill"]
    assert answer["report"]["rows"] == 10
    warehouse, aws, target, options = exports[0]
    assert (warehouse.host, aws, target) == ("127.0.0.1", CONNECTION, LOCATION)
    assert options == {"tables": None, "run_id": "run-1"}


def test_the_export_takes_the_events_tables(exports: list[tuple[Any, ...]]) -> None:
    export.handle({"tables": ["dim_skill"]}, None)
    assert exports[0][3] == {"tables": ["dim_skill"], "run_id": None}


@pytest.mark.parametrize("tables", ["dim_company", [1], {"a": 1}, 5])
def test_tables_to_export_that_are_no_list_of_names_are_refused(exports: list[tuple[Any, ...]], tables: object) -> None:
    answer = export.handle({"tables": tables}, None)
    assert answer["statusCode"] == 1
    assert "a list of table names is needed" in answer["message"]
    assert exports == []


@pytest.mark.usefixtures("exports")
def test_an_export_without_a_location_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLD_LOCATION")
    assert export.handle({}, None) == {"statusCode": 1, "message": "environment variable GOLD_LOCATION is missing"}


# --- register ---


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Answer every registration; return the list of what was asked."""
    asked: list[tuple[Any, ...]] = []

    def register_tables(aws: Connection, target: str, tables: list[str], **options: Any) -> RegisterReport:
        asked.append((aws, target, tables, options))
        done = tuple(TableRegistration(name, f"{target}/{name}", "registered") for name in tables)
        return RegisterReport(options["database"], target, False, done)

    monkeypatch.setattr(register, "register_tables", register_tables)
    return asked


def test_the_registration_takes_the_tables_that_were_exported(registrations: list[tuple[Any, ...]]) -> None:
    answer = register.handle({"tables": ["dim_company", "dim_skill"], "run_id": "run-1"}, None)
    assert (answer["statusCode"], answer["message"]) == (0, "2 tables registered")
    assert [table["table"] for table in answer["report"]["tables"]] == ["dim_company", "dim_skill"]
    assert registrations == [
        (CONNECTION, LOCATION, ["dim_company", "dim_skill"], {"database": "gold", "trino_url": None})
    ]


def test_trino_is_registered_in_when_the_environment_names_one(
    registrations: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRINO_URL", "http://me@trino:8080/delta")
    register.handle({"tables": ["dim_company"]}, None)
    assert registrations[0][3]["trino_url"] == "http://me@trino:8080/delta"


@pytest.mark.parametrize("tables", [None, "dim_company", [1], ["a", None], {"a": 1}, 5])
def test_tables_to_register_that_are_no_list_of_names_are_refused(
    registrations: list[tuple[Any, ...]], tables: object
) -> None:
    answer = register.handle({"tables": tables}, None)
    assert answer["statusCode"] == 1
    assert f"tables = {tables!r}: a list of table names is needed" in answer["message"]
    assert registrations == []


# --- with the state machine ---


def test_every_handler_answers_what_the_state_machine_reads(
    exports: list[tuple[Any, ...]], registrations: list[tuple[Any, ...]]
) -> None:
    states = definition({step: f"arn:{step}" for step in STEPS})["States"]
    answers = {"check": checked("ready"), "export": export.handle({"run_id": "run-1"}, None)}
    payload = states["Register"]["Parameters"]["Payload"]
    # What JSONPath reads from the export's answer is what the registration takes.
    assert payload["tables.$"] == "$.export.answer.table_names"
    answers["register"] = register.handle({"tables": answers["export"]["table_names"]}, None)
    for step, answer in answers.items():
        verdict = states[f"{step.capitalize()}Verdict"]["Choices"][0]
        assert verdict["Variable"] == f"$.{step}.answer.statusCode"
        assert answer["statusCode"] == verdict["NumericEquals"] == 0, step
        assert isinstance(answer["message"], str), step
    assert registrations[0][2] == ["dim_company", "dim_skill"]
    assert len(exports) == 1
