"""Which way the functions' calls take: `goldlake endpoints explain`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from local.cli import endpoints
from local.paths import CallPath, call_paths, whole_stack
from local.recording import Recording, Registered, record_stack
from runtime.cli import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dev() -> Recording:
    return record_stack(ROOT, "dev")


@pytest.fixture(scope="module")
def rotating() -> Recording:
    """The same with rotated logins, and with a NAT gateway, which each test takes or leaves out."""
    settings = {"signIn": "password", "rotateLoginDays": "30", "natGateways": "single"}
    return record_stack(ROOT, "dev", settings=settings)


def is_nat(found: Registered) -> bool:
    return found.type.endswith(":NatGateway")


def by_call(paths: list[CallPath], function: str) -> dict[str, CallPath]:
    return {path.call: path for path in paths if path.function == function}


def test_every_call_of_the_dev_stack_has_a_path(dev: Recording) -> None:
    paths = call_paths(dev)
    assert len(paths) > 20
    assert all(path.reachable for path in paths)


def test_calls_from_inside_the_network_are_private(dev: Recording) -> None:
    runner = by_call(call_paths(dev), "dbt-runner")
    assert runner["s3:PutObject"].path == "gateway endpoint s3"
    assert runner["redshift-serverless:GetCredentials"].path == "interface endpoint redshift-serverless"
    assert runner["logs:PutLogEvents"].private
    assert runner["connection to the warehouse"].private
    assert all(path.private for path in runner.values())


def test_functions_outside_the_network_use_public_endpoints(dev: Recording) -> None:
    register = by_call(call_paths(dev), "register")
    assert not register["glue:CreateTable"].private
    assert register["glue:CreateTable"].reachable
    assert "connection to the warehouse" not in register


def test_a_call_without_an_endpoint_has_no_path_unless_there_is_a_nat_gateway(
    dev: Recording, rotating: Recording
) -> None:
    kept = [found for found in dev.resources if not found.inputs.get("serviceName", "").endswith("redshift-serverless")]
    without = by_call(call_paths(Recording(resources=kept)), "dbt-runner")["redshift-serverless:GetCredentials"]
    assert not without.reachable
    assert "no endpoint redshift-serverless" in without.path
    gateway = [found for found in rotating.resources if is_nat(found)]
    with_nat = by_call(call_paths(Recording(resources=[*kept, *gateway])), "dbt-runner")
    assert with_nat["redshift-serverless:GetCredentials"].reachable
    assert not with_nat["redshift-serverless:GetCredentials"].private


def test_a_call_that_the_endpoints_policy_does_not_let_through_has_no_path(dev: Recording) -> None:
    def closed(found: Registered) -> Registered:
        if not found.inputs.get("serviceName", "").endswith(".s3"):
            return found
        policy = found.inputs["policy"].replace("s3:PutObject", "s3:GetObject")
        return dataclasses.replace(found, inputs={**found.inputs, "policy": policy})

    paths = by_call(call_paths(Recording(resources=[closed(found) for found in dev.resources])), "export")
    assert not paths["s3:PutObject"].reachable
    assert paths["s3:PutObject"].path == "gateway endpoint s3, whose policy does not let it through"
    assert paths["s3:GetObject"].reachable


def test_the_rotation_of_a_login_has_its_paths(rotating: Recording) -> None:
    without_nat = Recording(resources=[found for found in rotating.resources if not is_nat(found)])
    rotation = by_call(call_paths(without_nat), "rotate")
    assert rotation["secretsmanager:PutSecretValue"].reachable
    assert all(path.reachable for path in rotation.values())


def test_a_stack_that_imports_its_network_is_explained_with_it(tmp_path: Path, dev: Recording) -> None:
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    config = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]
    imports = dict.fromkeys(("foundation", "lake", "secrets", "warehouse"), "base")
    split = {**config, "goldlake:units": ["transform", "pipeline"], "goldlake:imports": imports}
    (tmp_path / "Pulumi.app.yaml").write_text(yaml.safe_dump({"config": split}))
    assert call_paths(whole_stack(tmp_path, "app")) == call_paths(dev)


def test_a_stack_that_imports_can_be_recorded_by_itself() -> None:
    imports = json.dumps(dict.fromkeys(("foundation", "lake", "secrets", "warehouse"), "base"))
    app = record_stack(ROOT, "dev", settings={"units": '["transform", "pipeline"]', "imports": imports})
    assert not app.of(":Vpc")
    assert app.of("function:Function")["dbt-runner"]["vpcConfig"]["subnetIds"] == ["subnet-a", "subnet-b", "subnet-c"]


def test_the_command_prints_the_paths_as_json_and_ends_with_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert endpoints in (app.get_command(None, "endpoints"),)  # type: ignore[arg-type] # no context is needed
    with pytest.raises(SystemExit) as ended:
        app.main(["endpoints", "explain", "--stack", "dev", "--output", "json"])
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "goldlake.endpoints/1"
    assert {call["function"] for call in shown["calls"]} == {"check", "dbt-runner", "export", "register"}


def test_a_stack_without_a_file_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        app.main(["endpoints", "explain", "--stack", "nope"])
    assert ended.value.code == 64
    assert "known stacks are dev, localstack" in capsys.readouterr().err
