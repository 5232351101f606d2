"""Starting the pipeline, following it, and comparing what it left, against a Step Functions client in memory."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from components.pipeline import STEPS, definition, longest_run
from runtime import pipeline
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError
from runtime.pipeline import RunReport, StepResult, TableCount, _step_result, count_everywhere, run
from runtime.target import Target

START = datetime(2026, 1, 5, 5, 0, tzinfo=UTC)
TARGET = Target(
    "localstack",
    Connection("http://127.0.0.1:4566", "us-east-1"),
    {
        "pipeline_state_machine_arn": "arn:machine",
        "lake_gold_bucket": "lake",
        "lake_gold_database": "gold",
        "transform_warehouse_host": "10.0.0.1",
    },
)
DONE: dict[str, dict[str, Any]] = {
    "check": {
        "statusCode": 0,
        "message": "2 of 2 tables ready",
        "report": {"tables": [{"rows": 5}, {"rows": None}, {"rows": 7}]},
    },
    "build": {"statusCode": 0, "message": "dbt build: 9 nodes done"},
    "export": {
        "statusCode": 0,
        "message": "2 tables exported",
        "table_names": ["dim_company", "fact_job_posting"],
        "report": {"tables": [{"rows": 3}, {"rows": 5}]},
    },
    "register": {"statusCode": 0, "message": "2 tables registered", "report": {"tables": []}},
}
THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "DescribeExecution")
GONE = EndpointConnectionError(endpoint_url="http://127.0.0.1:4566")


def answers_until(step: str, code: int, message: str) -> dict[str, dict[str, Any]]:
    """Return the answers of an execution whose `step` has answered `code`."""
    before = list(DONE)[: list(DONE).index(step)]
    return {**{name: DONE[name] for name in before}, step: {"statusCode": code, "message": message}}


@dataclass
class StepFunctions:
    """An execution that takes one step with every poll, as the service shows it."""

    answers: dict[str, dict[str, Any]] = field(default_factory=lambda: DONE)
    end: dict[str, Any] = field(default_factory=lambda: {"status": "SUCCEEDED"})
    outcome: str = "done"
    running: list[dict[str, str]] = field(default_factory=list)
    trouble: list[Exception] = field(default_factory=list)
    """Raised by the next polls, one each."""
    page_size: int = 1000
    late: int = 0
    """By how many polls the history lags behind the status."""
    started: list[dict[str, str]] = field(default_factory=list)
    polls: int = 0

    def list_executions(self, **request: Any) -> dict[str, Any]:
        assert request == {"stateMachineArn": "arn:machine", "statusFilter": "RUNNING", "maxResults": 1}
        return {"executions": self.running}

    def start_execution(self, **request: str) -> dict[str, str]:
        self.started.append(request)
        return {"executionArn": f"{request['stateMachineArn']}:{request['name']}"}

    def describe_execution(self, **_request: str) -> dict[str, Any]:
        if self.trouble:
            raise self.trouble.pop(0)
        self.polls += 1
        if self.polls <= len(self.answers):
            return {"status": "RUNNING"}
        return {**self.end, "output": json.dumps({**self.data(len(self.answers)), "outcome": self.outcome})}

    def get_execution_history(self, *, nextToken: str = "0", **_request: Any) -> dict[str, Any]:  # noqa: N803
        events = self.events()
        first = int(nextToken)
        last = first + self.page_size
        more = {"nextToken": str(last)} if last < len(events) else {}
        return {"events": events[first:last], **more}

    def data(self, steps: int) -> dict[str, Any]:
        return {name: {"answer": answer} for name, answer in list(self.answers.items())[:steps]}

    def events(self) -> list[dict[str, Any]]:
        """Return what has happened: with every poll one step ends, and the next begins."""
        shown = self.polls - self.late
        events: list[dict[str, Any]] = [{"type": "ExecutionStarted", "timestamp": START}]
        for index, name in enumerate(list(self.answers)[: max(shown, 0)], 1):
            at = START + timedelta(seconds=10 * index)
            state = name.capitalize()
            events.append({"type": "TaskStateEntered", "timestamp": at, "stateEnteredEventDetails": {"name": state}})
            events.append({"type": "TaskScheduled", "timestamp": at})
            if index < shown:
                output = json.dumps(self.data(index))
                details = {"name": state, "output": output}
                after = at + timedelta(seconds=2.5)
                events.append({"type": "TaskStateExited", "timestamp": after, "stateExitedEventDetails": details})
                events.append({"type": "ChoiceStateEntered", "timestamp": after})
        if shown > len(self.answers):
            kind = "ExecutionSucceeded" if self.end["status"] == "SUCCEEDED" else "ExecutionFailed"
            events.append({"type": kind, "timestamp": START})
        return events


class Clock:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def gmtime(self) -> time.struct_time:
        return time.gmtime(self.now)

    def strftime(self, form: str, moment: time.struct_time) -> str:
        return time.strftime(form, moment)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # The module's own name for it: other threads of this process keep the real time.
    monkeypatch.setattr(pipeline, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> dict[str, TableCount]:
    """Return the counts that a run finds; change them before the run."""
    found = {name: TableCount(name, None, 5, 0, 5) for name in DONE["export"]["table_names"]}
    monkeypatch.setattr(pipeline, "count_everywhere", lambda _target, tables: [found[table] for table in tables])
    return found


def followed(states: StepFunctions, **options: Any) -> RunReport:
    """Run the pipeline of the state machine in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "client", lambda _self, service: {"stepfunctions": states}[service])
        return run(TARGET, **options)


def test_a_run_that_is_done_has_its_four_steps_with_times_rows_and_messages() -> None:
    report = followed(StepFunctions())
    assert (report.outcome, report.exit_code) == ("done", 0)
    assert report.message == "2 tables registered"
    assert report.steps == (
        StepResult("check", "ok", 2.5, 12, "2 of 2 tables ready"),
        StepResult("build", "ok", 2.5, None, "dbt build: 9 nodes done"),
        StepResult("export", "ok", 2.5, 8, "2 tables exported"),
        StepResult("register", "ok", 2.5, None, "2 tables registered"),
    )
    assert [table.table for table in report.tables] == ["dim_company", "fact_job_posting"]


def test_the_run_id_is_the_executions_name_and_another_each_time() -> None:
    states = StepFunctions()
    first = followed(states)
    states.polls = 0
    second = followed(states)
    assert [start["name"] for start in states.started] == [first.run_id, second.run_id]
    assert first.run_id != second.run_id
    assert all(len(start["name"]) <= 80 and json.loads(start["input"]) == {} for start in states.started)


@pytest.mark.parametrize(("options", "given"), [({}, {}), ({"full_refresh": True}, {"full_refresh": True})])
def test_a_full_refresh_is_asked_of_the_execution(options: dict[str, bool], given: dict[str, bool]) -> None:
    states = StepFunctions()
    followed(states, **options)
    assert json.loads(states.started[0]["input"]) == given


@pytest.mark.parametrize("page_size", [1, 3, 1000])
def test_steps_are_told_once_as_they_start_and_end_however_the_history_is_paged(page_size: int) -> None:
    told: list[tuple[str, str | None]] = []
    followed(
        StepFunctions(page_size=page_size),
        on_step=lambda name, result: told.append((name, result.result if result else None)),
    )
    assert told == [(name, result) for name in DONE for result in (None, "ok")]


def test_tables_that_are_not_ready_make_the_run_skipped_and_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "count_everywhere", lambda *_: pytest.fail("nothing was exported"))
    report = followed(StepFunctions(answers_until("check", 1, "0 of 3 tables ready"), outcome="skipped"))
    assert (report.outcome, report.exit_code) == ("skipped", 1)
    assert report.message == "skipped: not ready. 0 of 3 tables ready"
    assert [step.result for step in report.steps] == ["not ready"]


@pytest.mark.parametrize("step", ["build", "export", "register"])
@pytest.mark.parametrize(
    ("code", "error", "outcome", "exit_code"), [(1, "Failed", "failed", 1), (2, "Unreachable", "unreachable", 2)]
)
def test_a_step_that_fails_ends_the_run_with_its_message(
    step: str, code: int, error: str, outcome: str, exit_code: int
) -> None:
    end = {"status": "FAILED", "error": error, "cause": f"{step}: the reason"}
    report = followed(StepFunctions(answers_until(step, code, "the reason"), end))
    assert (report.outcome, report.exit_code, report.message) == (outcome, exit_code, f"{step}: the reason")
    assert (report.steps[-1].step, report.steps[-1].result) == (step, outcome)
    assert report.tables == ()


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
def test_an_execution_that_somebody_ended_is_a_failed_run(status: str) -> None:
    report = followed(StepFunctions({}, {"status": status}))
    assert (report.outcome, report.exit_code, report.steps) == ("failed", 1, ())
    assert report.message == f"the execution is {status}"


def test_another_run_under_way_is_refused_by_name_and_none_is_started() -> None:
    states = StepFunctions(running=[{"name": "run-of-the-schedule"}])
    with pytest.raises(FailedError, match="run run-of-the-schedule of this pipeline is under way"):
        followed(states)
    assert states.started == []


def test_steps_that_come_after_the_end_of_the_execution_are_waited_for() -> None:
    report = followed(StepFunctions(late=2))
    assert [step.step for step in report.steps] == list(DONE)


@pytest.mark.parametrize("error", [THROTTLED, GONE])
def test_polls_that_fail_for_a_while_do_no_harm(error: Exception) -> None:
    states = StepFunctions(trouble=[error] * 5)
    assert followed(states).outcome == "done"
    assert states.trouble == []


@pytest.mark.parametrize("error", [THROTTLED, GONE])
def test_polls_that_go_on_failing_are_unreachable(error: Exception, clock: Clock) -> None:
    begin = clock.now
    with pytest.raises(UnreachableError):
        followed(StepFunctions(trouble=[error] * 1000))
    assert pipeline.PATIENCE_SECONDS < clock.now - begin < pipeline.PATIENCE_SECONDS + 2


def test_patience_begins_anew_with_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PATIENCE_SECONDS", 2)
    states = StepFunctions()
    describe = states.describe_execution

    def stammering(**request: str) -> dict[str, Any]:
        # Three failures, or 1.5 seconds, before each answer: 7.5 seconds in all.
        states.trouble = [GONE] * 3 if stammering.calls % 4 == 0 else states.trouble  # type: ignore[attr-defined]
        stammering.calls += 1  # type: ignore[attr-defined]
        return describe(**request)

    stammering.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(states, "describe_execution", stammering)
    assert followed(states).outcome == "done"
    assert stammering.calls == 20  # type: ignore[attr-defined]


def test_an_execution_that_has_vanished_is_not_waited_for(clock: Clock) -> None:
    begin = clock.now
    vanished = ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": "gone"}}, "DescribeExecution")
    with pytest.raises(FailedError, match="gone"):
        followed(StepFunctions(trouble=[vanished]))
    assert clock.now == begin


def test_a_missing_permission_to_start_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    states = StepFunctions()

    def refuse(**_request: str) -> dict[str, str]:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not you"}}, "StartExecution")

    monkeypatch.setattr(states, "start_execution", refuse)
    with pytest.raises(AccessDeniedError, match="start the pipeline: not you"):
        followed(states)


def test_counts_that_disagree_make_the_run_fail_and_are_shown(counts: dict[str, TableCount]) -> None:
    counts["dim_company"] = TableCount("dim_company", 6, 5, 0, 5)
    report = followed(StepFunctions())
    assert (report.outcome, report.exit_code) == ("failed", 1)
    assert report.message == "row counts disagree for dim_company"
    assert len(report.steps) == 4
    assert [table["agrees"] for table in report.to_dict()["tables"]] == [False, True]


def test_the_report_is_plain_data() -> None:
    result = json.loads(json.dumps(followed(StepFunctions()).to_dict()))
    assert (result["schema"], result["outcome"]) == ("goldlake.run/1", "done")
    assert result["steps"][0] == {
        "step": "check",
        "result": "ok",
        "seconds": 2.5,
        "rows": 12,
        "message": "2 of 2 tables ready",
    }


@pytest.mark.parametrize(
    ("warehouse", "log", "catalogue", "agrees"),
    [
        (5, 5, 5, True),
        (0, 0, 0, True),
        (None, 5, 5, True),
        (None, 0, 0, True),
        (0, 5, 5, False),
        (5, 0, 0, False),
        (6, 5, 5, False),
        (5, 5, 0, False),
        (None, 5, 4, False),
        (None, 0, 4, False),
    ],
)
def test_counts_agree_when_all_places_that_could_be_asked_hold_the_same(
    warehouse: int | None, log: int, catalogue: int, agrees: bool
) -> None:
    assert TableCount("t", warehouse, log, 0, catalogue).agrees is agrees


_rows = st.integers(0, 3)


@given(st.none() | _rows, _rows, _rows)
def test_agreement_is_equality_of_all_known_counts(warehouse: int | None, log: int, catalogue: int) -> None:
    known = {count for count in (warehouse, log, catalogue) if count is not None}
    assert TableCount("t", warehouse, log, 0, catalogue).agrees is (len(known) == 1)


class DeltaLog:
    """A Delta table of which only rows and version are asked."""

    def __init__(self, rows: int | None) -> None:
        self.rows = rows

    def version(self) -> int:
        return 7


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> dict[str, DeltaLog]:
    """Return the Delta tables by location; every table of Glue's points to `s3://entries/<table>`."""
    logs: dict[str, DeltaLog] = {}
    monkeypatch.setattr(pipeline, "open_table", lambda location, _options: logs.get(location))
    monkeypatch.setattr(pipeline, "log_rows", lambda table: table.rows)
    monkeypatch.setattr(
        pipeline,
        "get_table",
        lambda _aws, database, name: {"StorageDescriptor": {"Location": f"s3://entries/{database}.{name}"}},
    )
    return logs


def test_the_log_and_what_the_catalogue_points_to_are_counted_each(lake: dict[str, DeltaLog]) -> None:
    lake["s3://lake/gold/dim_company"] = DeltaLog(5)
    lake["s3://entries/gold.dim_company"] = DeltaLog(4)
    # The warehouse of this stack is not on loopback: it isn't asked.
    assert count_everywhere(TARGET, ["dim_company"]) == [TableCount("dim_company", None, 5, 7, 4)]


def test_a_warehouse_on_loopback_is_counted_too(lake: dict[str, DeltaLog], monkeypatch: pytest.MonkeyPatch) -> None:
    lake["s3://lake/gold/dim_company"] = lake["s3://entries/gold.dim_company"] = DeltaLog(5)
    asked: list[str] = []

    class Warehouse:
        closed = False

        def connect(self, timeout_seconds: int) -> Warehouse:
            return self

        def cursor(self) -> Warehouse:
            return self

        def execute(self, statement: str) -> None:
            asked.append(statement)

        def fetchone(self) -> tuple[int]:
            return (0,)

        def close(self) -> None:
            self.closed = True

    warehouse = Warehouse()
    monkeypatch.setattr(Target, "warehouse", lambda _self: warehouse)
    near = Target("localstack", TARGET.connection, {**TARGET.outputs, "transform_warehouse_host": "127.0.0.1"})
    (count,) = count_everywhere(near, ["dim_company"])
    assert count == TableCount("dim_company", 0, 5, 7, 5)
    assert not count.agrees
    assert asked == ['select count(*) from "gold"."dim_company"']
    assert warehouse.closed


def test_a_table_without_a_log_or_without_an_entry_is_a_failure(
    lake: dict[str, DeltaLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FailedError, match="s3://lake/gold/dim_company has no Delta log"):
        count_everywhere(TARGET, ["dim_company"])
    lake["s3://lake/gold/dim_company"] = DeltaLog(5)
    monkeypatch.setattr(pipeline, "get_table", lambda _aws, _database, _name: None)
    with pytest.raises(FailedError, match="dim_company is not in the catalogue"):
        count_everywhere(TARGET, ["dim_company"])


def test_a_step_that_crashed_is_reported_with_its_error() -> None:
    state = {"check": {"answer": {}}, "error": {"Error": "Lambda.Unknown", "Cause": "out of memory"}}
    result = _step_result("build", 1.5, state)
    assert (result.result, result.message) == ("crashed", "Lambda.Unknown: out of memory")


def test_a_stack_without_gold_outputs_is_refused_before_the_pipeline_starts() -> None:
    class Untouched(Connection):
        def client(self, service: str) -> Any:
            raise AssertionError(f"asked {service}")

    lacking = Target(
        "app", Untouched("http://127.0.0.1:4566", "us-east-1"), {"pipeline_state_machine_arn": "arn:machine"}
    )
    with pytest.raises(ConfigurationError, match="lake_gold_bucket"):
        run(lacking)


# --- the state machine's hand-over ---


FUNCTIONS = {step: f"arn:{step}" for step in STEPS}


def walk(answers: list[tuple[str, int, str]], retries: int) -> list[str]:
    """Return the states that an execution passes when its tasks answer so (state, statusCode, outcome), in turn."""
    machine = definition(FUNCTIONS, hand_over_retries=retries)
    states, data, name, passed = machine["States"], dict[str, Any](), machine["StartAt"], list[str]()
    pending = list(answers)
    while True:
        passed.append(name)
        state = states[name]
        if state["Type"] == "Task":
            task, code, outcome = pending.pop(0)
            assert task == name
            data[name.lower()] = {"answer": {"statusCode": code, "outcome": outcome, "message": ""}}
        elif state["Type"] == "Pass" and "Parameters" in state:
            assert state["Parameters"] == {"attempt.$": "States.MathAdd($.hand_over.attempt, 1)"}
            data["hand_over"] = {"attempt": data["hand_over"]["attempt"] + 1}
        elif state["Type"] == "Pass":
            data[state["ResultPath"].removeprefix("$.")] = state["Result"]
        if state["Type"] == "Fail" or state.get("End"):
            assert pending == []
            return passed
        name = following(state, data)


def following(state: dict[str, Any], data: dict[str, Any]) -> str:
    for rule in state.get("Choices", []):
        value: Any = data
        for key in rule["Variable"].removeprefix("$.").split("."):
            value = value[key]
        if (
            rule.get("NumericEquals") == value
            or rule.get("StringEquals") == value
            or value < rule.get("NumericLessThan", value)
        ):
            return str(rule["Next"])
    return str(state.get("Next") or state["Default"])


READY = ("Check", 0, "done")
LATE = ("Retry", 1, "deadline")
REST = [("Export", 0, "done"), ("Register", 0, "done")]


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_build_that_ran_out_of_time_is_gone_on_with_until_it_is_done(late: int) -> None:
    answers = [READY, ("Build", 1, "deadline"), *[LATE] * late, ("Retry", 0, "done"), *REST]
    passed = walk(answers, retries=3)
    assert passed[-1] == "Done"
    assert passed.count("Retry") == late + 1


@pytest.mark.parametrize("retries", [1, 2, 3])
def test_a_build_that_never_ends_is_given_up_after_so_many_calls(retries: int) -> None:
    passed = walk([READY, ("Build", 1, "deadline"), *[LATE] * retries], retries)
    assert passed[-1] == "RetryFailed"


def test_without_hand_over_a_build_that_ran_out_of_time_has_failed() -> None:
    assert walk([READY, ("Build", 1, "deadline")], retries=0)[-1] == "BuildFailed"
    assert not any(name.startswith(("Retry", "HandOver")) for name in definition(FUNCTIONS, 60, 0)["States"])


@pytest.mark.parametrize("step", ["Build", "Retry"])
@pytest.mark.parametrize(
    ("code", "outcome", "end"),
    [
        (1, "failed", "Failed"),
        (2, "refused", "Failed"),
        (2, "busy", "Failed"),
        (2, "broken", "Failed"),
        (2, "unreachable", "Unreachable"),
    ],
)
def test_every_other_end_of_dbt_ends_the_execution(step: str, code: int, outcome: str, end: str) -> None:
    before = [READY] if step == "Build" else [READY, ("Build", 1, "deadline")]
    assert walk([*before, (step, code, outcome)], retries=3)[-1] == f"{step}{end}"


def test_a_retry_is_of_the_executions_own_run_and_takes_no_options() -> None:
    states = definition(FUNCTIONS)["States"]
    assert states["Retry"]["Parameters"] == {
        "FunctionName": "arn:build",
        "Payload": {"command": "retry", "run_id.$": "$$.Execution.Name"},
    }
    assert states["Build"]["Parameters"]["Payload"]["run_id.$"] == "$$.Execution.Name"


@pytest.mark.parametrize("retries", [0, 3, 20])
def test_an_execution_may_take_as_long_as_all_its_calls(retries: int) -> None:
    assert (4 + retries) * 900 < longest_run(retries) <= (4 + retries) * 900 + 300
