"""A build that ran out of time is gone on with: by the state machine in the emulator, and with dbt in its layers.

Where the functions only say what to do, it is the state machine that is tested.
"""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.pipeline import definition
from components.policies import allow, document
from lambdas.dbt_runner.runner import RESERVE_SECONDS
from lambdas.layers import FUNCTIONS, Artifact
from lambdas.layers.rehearse import LAYERS, Stage, rehearse, set_writable, unpack
from runtime.aws import DEFAULT_REGION, Connection
from tests.local.dbt_support import MARTS
from tests.local.layers_support import Place, built_layers, fresh, running_place
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


def role_of(aws: Connection, name: str, *more: str) -> str:
    """Return the ARN of a role that may call the functions of this test, and do what else is named."""
    iam = aws.client("iam")
    trusted = {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]}
    trust = document({"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"})
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])
    calls = document(allow(["lambda:InvokeFunction", *more], ["*"]))
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


# --- dbt itself, in its layers ---

# Every mart that has to do with postings waits for it, with more threads than there are such nodes at first.
HELD = "silver_linkedin.job_postings"
WIDE = {"threads": 16}
# The last is an exposure's.
GOOD_ENDS = {"success", "pass", "no-op"}


@dataclass(frozen=True)
class Dbt:
    """The dbt runner's layers, a warehouse, and the gold tables of a run that nothing has disturbed."""

    artifacts: dict[str, Artifact]
    stage: Stage
    place: Place
    undisturbed: dict[str, list[str]]

    def start_over(self) -> None:
        """Remove all that earlier runs have built."""
        self.place.query("drop schema if exists gold cascade")

    def recorded(self, run_id: str) -> dict[str, str]:
        """Return the status of each node in the run's results in S3, none while there are no results."""
        bucket, prefix = self.place.environment["ARTIFACTS_LOCATION"].removeprefix("s3://").split("/")
        s3 = Connection(self.place.environment["AWS_ENDPOINT_URL"], region=DEFAULT_REGION).client("s3")
        try:
            body = s3.get_object(Bucket=bucket, Key=f"{prefix}/{run_id}/run_results.json")["Body"].read()
        except s3.exceptions.NoSuchKey:
            return {}
        results = {result["unique_id"]: result["status"] for result in json.loads(body)["results"]}
        # Those whose models had not begun are in no retry: dbt makes its queue without them (dbt.task.retry).
        return {name: status for name, status in results.items() if not name.startswith("unit_test.")}


@pytest.fixture(scope="module")
def dbt(aws: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dbt]:
    artifacts = built_layers(tmp_path_factory.mktemp("layers") / "out")
    stage = unpack(artifacts, tmp_path_factory.mktemp("lambda"))
    with running_place(aws, tmp_path_factory.mktemp("redshift")) as place:
        (found,) = rehearse(stage, [{"command": "build", "run_id": "undisturbed"}], place.environment)["answers"]
        assert found["answer"]["outcome"] == "done", found["answer"]
        yield Dbt(artifacts, stage, place, place.rows(MARTS))
    set_writable(stage.root, writable=True)


def test_a_build_whose_time_ran_out_is_ended_by_another_process_with_the_same_rows(dbt: Dbt) -> None:
    dbt.start_over()
    events: list[dict[str, Any]] = [{"command": "compile"}, {"command": "build", "run_id": "cut", **WIDE}]
    with dbt.place.locked(HELD):
        # The first imports dbt, so that the few seconds of the second are for its nodes.
        ended = rehearse(fresh(dbt.stage), events, dbt.place.environment, remaining_seconds=(600, RESERVE_SECONDS + 15))
    cut = ended["answers"][1]["answer"]
    assert (cut["statusCode"], cut["outcome"]) == (1, "deadline"), cut
    assert "model.gold_layer.fact_job_posting" in cut["remaining"]
    assert GOOD_ENDS & set(dbt.recorded("cut").values())
    # Nothing is left of the first but what is in S3 and in the warehouse.
    event = {"command": "retry", "run_id": "cut"}
    (found,) = rehearse(fresh(dbt.stage), [event], dbt.place.environment)["answers"]
    assert found["answer"]["outcome"] == "done", found["answer"]
    assert found["answer"]["totals"]["nodes"] == len(cut["remaining"])
    assert dbt.recorded("cut").keys() == dbt.recorded("undisturbed").keys()
    assert set(dbt.recorded("cut").values()) <= GOOD_ENDS
    assert dbt.place.rows(MARTS) == dbt.undisturbed


# Lambda's time limit for one call: long enough to import dbt on a busy machine, and for the reserve before the limit.
SHORT_SECONDS = RESERVE_SECONDS + 25


@pytest.fixture
def deployed(aws: Connection, dbt: Dbt) -> Iterator[dict[str, str]]:
    """Return the ARNs of the four steps: dbt's is the real one in its layers, with a short time limit."""
    lambdas, mark = aws.client("lambda"), uuid.uuid4().hex[:8]
    reads = ("secretsmanager:GetSecretValue", "s3:GetObject", "s3:PutObject", "s3:ListBucket")
    role = role_of(aws, f"hand-over-{mark}", *reads)
    layers = [
        lambdas.publish_layer_version(
            LayerName=f"{name}-{mark}", Content={"ZipFile": dbt.artifacts[name].path.read_bytes()}
        )["LayerVersionArn"]
        for name in LAYERS
    ]
    real = {
        "Handler": "lambdas.dbt_runner.handler.handle",
        "Code": {"ZipFile": dbt.artifacts[FUNCTIONS].path.read_bytes()},
        "Layers": layers,
        "Environment": {"Variables": dict(dbt.place.environment)},
        "Timeout": SHORT_SECONDS,
        "MemorySize": 512,
    }
    stub = {"Handler": "step.handle", "Code": {"ZipFile": zipped(GOOD)}}
    arns = {}
    for step in ("check", "build", "export", "register"):
        made = lambdas.create_function(
            FunctionName=f"{step}-{mark}", Runtime="python3.11", Role=role, **(real if step == "build" else stub)
        )
        arns[step] = str(made["FunctionArn"])
    yield arns
    for step in arns:
        lambdas.delete_function(FunctionName=f"{step}-{mark}")
    aws.client("iam").delete_role_policy(RoleName=f"hand-over-{mark}", PolicyName="calls")
    aws.client("iam").delete_role(RoleName=f"hand-over-{mark}")


def test_the_state_machine_ends_a_build_whose_time_ran_out_with_the_same_rows(
    aws: Connection, dbt: Dbt, deployed: dict[str, str]
) -> None:
    dbt.start_over()
    states, name = aws.client("stepfunctions"), f"machine-{uuid.uuid4().hex[:8]}"
    machine = states.create_state_machine(
        name=name,
        definition=json.dumps(definition(deployed, 900, 10)),
        roleArn=role_of(aws, name),
    )["stateMachineArn"]

    def ended() -> Any:
        found = states.describe_execution(executionArn=arn)
        return found if found["status"] != "RUNNING" else None

    with dbt.place.locked(HELD):
        arn = states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(WIDE))["executionArn"]
        # The record of the run that was cut: only then may the rest begin.
        wait_for(lambda: dbt.recorded(name) or ended(), "end of the first call", 120)
        first = dbt.recorded(name)
    assert GOOD_ENDS & set(first.values()), ended()
    assert first["model.gold_layer.fact_job_posting"] == "skipped"
    end = wait_for(ended, "end of the execution", 300)
    assert end["status"] == "SUCCEEDED", end
    output = json.loads(end["output"])
    assert (output["build"]["answer"]["outcome"], output["retry"]["answer"]["outcome"]) == ("deadline", "done")
    assert dbt.recorded(name).keys() == dbt.recorded("undisturbed").keys()
    assert set(dbt.recorded(name).values()) <= GOOD_ENDS
    assert dbt.place.rows(MARTS) == dbt.undisturbed
