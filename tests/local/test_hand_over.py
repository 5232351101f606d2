"""The state machine in the emulator goes on with a build that ran out of time. Its functions only say what to do."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.pipeline import definition
from components.policies import allow, document
from runtime.aws import Connection
from tests.local.support import wait_for

# Answers of the dbt runner by turns, and what it was called with; both in files, for each call may be a new process.
BUILD = """
import json, os, pathlib
def handle(event, _context):
    told = pathlib.Path(os.environ["FOLDER"])
    answers = json.loads((told / "answers").read_text())
    (told / "answers").write_text(json.dumps(answers[1:]))
    with (told / "calls").open("a") as calls:
        calls.write(json.dumps(event) + "\\n")
    code, outcome = answers[0]
    return {"statusCode": code, "outcome": outcome, "message": f"dbt was {outcome}", "results": [{"a": 1}]}
"""
GOOD = """
def handle(event, _context):
    return {"statusCode": 0, "message": "done", "table_names": ["dim_date"]}
"""


def zipped(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("step.py", text)
    return content.getvalue()


def role_of(aws: Connection, name: str) -> str:
    """Return the ARN of a role that may call the functions of this test."""
    iam = aws.client("iam")
    trusted = {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]}
    trust = document({"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"})
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])
    calls = document(allow(["lambda:InvokeFunction"], ["*"]))
    iam.put_role_policy(RoleName=name, PolicyName="calls", PolicyDocument=json.dumps(calls))
    return arn


Run = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture
def run(aws: Connection, tmp_path: Path) -> Iterator[Run]:
    """Return a function that runs the state machine with a dbt that answers so; it returns the end and dbt's events."""
    lambdas, states = aws.client("lambda"), aws.client("stepfunctions")
    mark = uuid.uuid4().hex[:8]
    role = role_of(aws, f"hand-over-{mark}")
    arns = {
        step: lambdas.create_function(
            FunctionName=f"{step}-{mark}",
            Runtime="python3.11",
            Role=role,
            Handler="step.handle",
            Code={"ZipFile": zipped(BUILD if step == "build" else GOOD)},
            Environment={"Variables": {"FOLDER": str(tmp_path)}},
        )["FunctionArn"]
        for step in ("check", "build", "export", "register")
    }

    def start(answers: list[tuple[int, str]], retries: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        (tmp_path / "answers").write_text(json.dumps(answers))
        machine = states.create_state_machine(
            name=f"hand-over-{uuid.uuid4().hex[:8]}",
            definition=json.dumps(definition(arns, 600, retries)),
            roleArn=role,
        )["stateMachineArn"]
        arn = states.start_execution(stateMachineArn=machine, name="run-1", input='{"full_refresh": true}')[
            "executionArn"
        ]

        def ended() -> Any:
            found = states.describe_execution(executionArn=arn)
            return found if found["status"] != "RUNNING" else None

        end = wait_for(ended, "end of the execution", 60)
        return end, [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]

    yield start
    for step in arns:
        lambdas.delete_function(FunctionName=f"{step}-{mark}")
    aws.client("iam").delete_role_policy(RoleName=f"hand-over-{mark}", PolicyName="calls")
    aws.client("iam").delete_role(RoleName=f"hand-over-{mark}")


def test_a_build_that_ran_out_of_time_is_gone_on_with_until_it_is_done(run: Run) -> None:
    end, calls = run([(1, "deadline"), (1, "deadline"), (0, "done")])
    assert end["status"] == "SUCCEEDED", end
    assert json.loads(end["output"])["outcome"] == "done"
    build, *retries = calls
    assert build == {"command": "build", "options": {"full_refresh": True}, "run_id": "run-1"}
    assert retries == [{"command": "retry", "run_id": "run-1"}] * 2


def test_a_build_that_never_ends_is_given_up_with_dbts_message(run: Run) -> None:
    end, calls = run([(1, "deadline")] * 5, retries=2)
    assert (end["status"], end["error"], end["cause"]) == ("FAILED", "Failed", "retry: dbt was deadline")
    assert len(calls) == 3


@pytest.mark.parametrize(("outcome", "error"), [("unreachable", "Unreachable"), ("refused", "Failed")])
def test_a_retry_that_cannot_be_done_ends_the_execution(run: Run, outcome: str, error: str) -> None:
    end, calls = run([(1, "deadline"), (2, outcome)])
    assert (end["status"], end["error"], end["cause"]) == ("FAILED", error, f"retry: dbt was {outcome}")
    assert len(calls) == 2
