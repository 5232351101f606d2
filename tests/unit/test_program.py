"""The whole program under the SDK's mocks: what it registers, and rules that hold over all of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks

from local.inprocess import run_program, stack_configuration, unwrapped
from local.resources import KINDS
from stacks.transform import FUNCTIONS_CODE, LAYERS

# Actions on resources that do not exist yet, or that AWS gives no ARN; each with its reason in components/policies.py.
STAR_EXEMPT = ("ec2:", "logs:CreateLogDelivery")


@dataclass
class Recorder(Mocks):
    """Records every resource and invents outputs for it."""

    resources: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        assert args.token == "aws:index/getCallerIdentity:getCallerIdentity"
        account = "123456789012"
        return {"accountId": account, "id": account, "arn": f"arn:aws:iam::{account}:root", "userId": "u"}, []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = {key: unwrapped(value) for key, value in args.inputs.items()}
        if args.custom:
            self.resources.append((args.typ, args.name, inputs))
        made_up = {"arn": f"arn:aws:made-up:::{args.name}", "prefixListId": "pl-1"}
        return f"{args.name}-id", {**made_up, **inputs}

    def of(self, suffix: str) -> dict[str, dict[str, Any]]:
        return {name: inputs for typ, name, inputs in self.resources if typ.endswith(suffix)}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    for name in (*LAYERS, FUNCTIONS_CODE):
        (folder / f"{name}-0123456789abcdef.zip").write_bytes(b"zip")
    return folder


def recorded(project_root: Path, stack: str, artifacts: Path, **overrides: str) -> tuple[Recorder, dict[str, Any]]:
    recorder = Recorder()
    settings = {f"goldlake:{key}": value for key, value in overrides.items()}
    configuration = stack_configuration(project_root, stack, {"goldlake:artifactsDir": str(artifacts), **settings})
    outputs = run_program(project_root, stack, configuration, recorder)
    return recorder, outputs


@pytest.fixture(scope="module")
def dev(artifacts: Path) -> tuple[Recorder, dict[str, Any]]:
    return recorded(Path(__file__).parents[2], "dev", artifacts)


def statements(recorder: Recorder) -> list[tuple[str, dict[str, Any]]]:
    documents = [(name, inputs["policy"]) for name, inputs in recorder.of("rolePolicy:RolePolicy").items()]
    return [(name, statement) for name, text in documents for statement in json.loads(text)["Statement"]]


def test_the_program_registers_resources_of_every_unit(dev: tuple[Recorder, dict[str, Any]]) -> None:
    recorder, outputs = dev
    kinds = {typ.rsplit(":", 1)[-1] for typ, _name, _inputs in recorder.resources}
    expected = {"Vpc", "Bucket", "Secret", "CatalogDatabase", "Function", "LayerVersion", "StateMachine", "Schedule"}
    assert expected <= kinds
    assert {name.split("_", 1)[0] for name in outputs} == {"foundation", "lake", "secrets", "transform", "pipeline"}


def test_every_resource_type_of_the_program_can_be_created_in_the_emulator(
    dev: tuple[Recorder, dict[str, Any]],
) -> None:
    assert {typ for typ, _name, _inputs in dev[0].resources} <= set(KINDS)


def test_no_policy_allows_every_action_or_every_resource_without_an_exemption(
    dev: tuple[Recorder, dict[str, Any]],
) -> None:
    found = statements(dev[0])
    assert len(found) > 10
    for name, statement in found:
        assert not any("*" in action for action in statement["Action"]), name
        if "*" in statement["Resource"]:
            assert statement["Action"][0].startswith(STAR_EXEMPT), name


def test_every_bucket_is_private_encrypted_versioned_and_refuses_plain_http(
    dev: tuple[Recorder, dict[str, Any]],
) -> None:
    recorder = dev[0]
    buckets = {f"{name}-id" for name in recorder.of("bucket:Bucket")}
    assert buckets
    parts = ("PublicAccessBlock", "ServerSideEncryptionConfiguration", "Versioning", "Policy")
    for part in parts:
        assert {inputs["bucket"] for inputs in recorder.of(f":Bucket{part}").values()} == buckets, part
    for inputs in recorder.of(":BucketPublicAccessBlock").values():
        assert all(value is True for key, value in inputs.items() if key != "bucket")
    policy = json.loads(recorder.of(":BucketPolicy")["lake-tls"]["policy"])["Statement"][0]
    assert policy["Effect"] == "Deny"
    assert policy["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_laptop_registers_the_same_resources_without_the_tls_policy(
    project_root: Path, artifacts: Path, dev: tuple[Recorder, dict[str, Any]]
) -> None:
    laptop, _outputs = recorded(project_root, "localstack", artifacts)
    missing = {(typ, name) for typ, name, _ in dev[0].resources} - {(typ, name) for typ, name, _ in laptop.resources}
    assert missing == {("aws:s3/bucketPolicy:BucketPolicy", "lake-tls")}
    assert laptop.of(":Schedule")["pipeline-schedule"]["state"] == "DISABLED"


def test_every_function_has_its_own_role_and_a_log_group_that_expires(dev: tuple[Recorder, dict[str, Any]]) -> None:
    functions = dev[0].of("function:Function")
    assert len(functions) == 4
    assert len({inputs["role"] for inputs in functions.values()}) == 4
    groups = {inputs["name"]: inputs["retentionInDays"] for inputs in dev[0].of(":LogGroup").values()}
    assert all(groups[f"/aws/lambda/{inputs['name']}"] == 30 for inputs in functions.values())


def test_only_functions_that_need_the_warehouse_are_in_the_vpc(dev: tuple[Recorder, dict[str, Any]]) -> None:
    functions = dev[0].of("function:Function")
    assert {name for name, inputs in functions.items() if inputs.get("vpcConfig")} == {"dbt-runner", "export"}


def test_no_function_is_given_a_password(dev: tuple[Recorder, dict[str, Any]]) -> None:
    for inputs in dev[0].of("function:Function").values():
        variables = inputs["environment"].get("variables") or {}
        assert not any("password" in name.lower() for name in variables)
        assert variables.get("REDSHIFT_SECRET", "arn:").startswith("arn:")


def test_a_function_may_only_write_where_its_step_writes(dev: tuple[Recorder, dict[str, Any]]) -> None:
    writers: dict[str, set[str]] = {}
    for name, statement in statements(dev[0]):
        if "s3:PutObject" in statement["Action"]:
            writers.setdefault(name, set()).update(resource.split("/", 1)[1] for resource in statement["Resource"])
    assert writers == {"dbt-runner-policy": {"artifacts/dbt/*"}, "export-policy": {"gold/*"}}


def test_trino_is_registered_in_only_where_there_is_one(
    project_root: Path, artifacts: Path, dev: tuple[Recorder, dict[str, Any]]
) -> None:
    assert "trino" not in dev[0].of(":LayerVersion")
    with_trino, _outputs = recorded(project_root, "dev", artifacts, trinoUrl="https://goldlake@trino.example.com/delta")
    assert "trino" in with_trino.of(":LayerVersion")
    variables = with_trino.of("function:Function")["register"]["environment"]["variables"]
    assert variables["TRINO_URL"] == "https://goldlake@trino.example.com/delta"


def test_missing_artifacts_are_named_before_the_first_resource(project_root: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    configuration = stack_configuration(project_root, "dev", {"goldlake:artifactsDir": str(tmp_path)})
    with pytest.raises(Exception, match="goldlake layers build") as refused:
        run_program(project_root, "dev", configuration, recorder)
    assert all(name in str(refused.value) for name in (*LAYERS, FUNCTIONS_CODE))
    assert recorder.resources == []


def test_a_unit_without_what_it_needs_is_refused_before_the_first_resource(project_root: Path, artifacts: Path) -> None:
    recorder = Recorder()
    overrides = {"goldlake:artifactsDir": str(artifacts), "goldlake:units": '["lake", "pipeline"]'}
    with pytest.raises(Exception, match="pipeline needs transform"):
        run_program(project_root, "dev", stack_configuration(project_root, "dev", overrides), recorder)
    assert recorder.resources == []


def test_outputs_have_the_shape_unit_field(dev: tuple[Recorder, dict[str, Any]]) -> None:
    assert dev[1]["lake_bucket_name"] == "goldlake-lake-123456789012-us-east-1"
    assert dev[1]["pipeline_state_machine_arn"] == "arn:aws:made-up:::pipeline"
