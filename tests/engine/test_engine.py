"""The program through the real Pulumi engine, with a provider that only echoes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from local.deploy import Deployed, deploy_stack
from local.platform import Platform
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError
from runtime.target import load_target
from stacks.settings import DEFAULT_UNITS
from tests.engine.conftest import Project
from tests.engine.echo_provider.echo import PASSWORD


def test_a_preview_of_the_dev_stack_lists_resources_of_every_unit(project: Project) -> None:
    project.init("dev")
    done = project.pulumi("preview", "--json", "--stack", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert {step["op"] for step in steps} == {"create"}
    kinds = {step["newState"]["type"].rsplit(":", 1)[-1] for step in steps}
    assert {
        "Vpc",
        "Bucket",
        "Secret",
        "CatalogDatabase",
        "Function",
        "LayerVersion",
        "StateMachine",
        "Schedule",
        "Namespace",
        "Workgroup",
        "RandomPassword",
    } <= kinds


def test_a_second_up_changes_nothing(deployed: Project) -> None:
    done = deployed.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes", "--stack", "dev")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stack_exports_outputs_of_every_unit(deployed: Project) -> None:
    outputs = json.loads(deployed.pulumi("stack", "output", "--json", "--stack", "dev").stdout)
    assert {name.split("_", 1)[0] for name in outputs} == set(DEFAULT_UNITS)
    # AWS keys instead of a customer key, sign-in by IAM instead of a login, no dashboard.
    absent = {"foundation_key_arn", "foundation_dashboard_name", "secrets_dbt_login_arn", "warehouse_dbt_login_arn"}
    assert {name for name, value in outputs.items() if not value} == absent


def test_a_destroy_of_the_dev_stack_is_refused_while_its_data_is_protected(deployed: Project) -> None:
    before = deployed.state("dev")["checkpoint"]["latest"]["resources"]
    # With its preview, as people run it: --skip-preview would delete what is not protected before it fails.
    done = deployed.pulumi("destroy", "--yes", "--stack", "dev")
    assert done.returncode != 0
    words = done.stdout + done.stderr
    assert "protected" in words
    kept = deployed.state("dev")["checkpoint"]["latest"]["resources"]
    protected = {resource["urn"].rsplit("::", 1)[-1] for resource in kept if resource.get("protect")}
    assert protected == {"lake-bronze", "lake-silver", "lake-gold", "redshift-admin", "warehouse"}
    assert len(kept) == len(before)


def test_the_generated_password_is_in_the_state_encrypted_only(deployed: Project) -> None:
    resources = deployed.resources("dev")
    (password,) = [resource for resource in resources if resource["type"].endswith(":RandomPassword")]
    assert password["outputs"]["result"]["ciphertext"]
    (namespace,) = [resource for resource in resources if resource["type"].endswith(":Namespace")]
    assert namespace["inputs"]["adminUserPassword"]["ciphertext"]
    assert PASSWORD not in json.dumps(deployed.state("dev"))
    # Nor in what the backend keeps of earlier states, and nor in its history.
    files = [path for path in (deployed.folder / "state").rglob("*") if path.is_file()]
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_no_function_holds_a_secret_value(deployed: Project) -> None:
    variables = [
        resource["inputs"]["environment"]["variables"]
        for resource in deployed.resources("dev")
        if resource["type"] == "aws:lambda/function:Function"
    ]
    assert len(variables) == 4
    assert not [name for names in variables for name in names if "PASSWORD" in name]


def test_a_changed_setting_updates_what_it_is_about_and_nothing_else(project: Project) -> None:
    project.init("dev")
    created = project.up("dev")
    assert set(created) == {"create"}
    project.configure("dev", dbtMemoryMb=2048)
    assert project.up("dev") == {"update": 1, "same": created["create"] - 1}
    # Changed SQL runs again: a statement cannot be updated.
    before = {r["urn"]: r["id"] for r in project.resources("dev") if r["type"].endswith(":Statement")}
    schemas = {"silver_linkedin": "silver_linkedin_v2", "silver_companies": "silver_companies"}
    project.configure("dev", externalSchemas={**schemas, "silver_ai": "silver_ai_enrichment"})
    changed = project.up("dev")
    # The schema, the procedure that looks at its database, the procedure's call, and the grants on the schema.
    assert changed["create-replacement"] == 4
    assert "create" not in changed
    assert before.keys() == {r["urn"] for r in project.resources("dev") if r["type"].endswith(":Statement")}


def test_split_stacks_give_each_other_their_outputs(project: Project) -> None:
    imports = {"foundation": "base", "lake": "base", "secrets": "base", "warehouse": "wh"}
    project.configure("base", units=["foundation", "lake", "secrets"])
    project.configure(
        "wh", units=["warehouse"], imports={unit: imports[unit] for unit in ("foundation", "lake", "secrets")}
    )
    project.configure("app", units=["transform", "pipeline"], imports=imports)
    for stack in ("base", "wh", "app"):
        project.init(stack)
        assert set(project.up(stack)) <= {"create", "read"}
    assert project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes", "--stack", "app").returncode == 0
    (runner,) = [
        resource
        for resource in project.resources("app")
        if resource["type"] == "aws:lambda/function:Function" and resource["urn"].endswith("::dbt-runner")
    ]
    assert runner["inputs"]["environment"]["variables"]["REDSHIFT_HOST"] == "warehouse.example.com"
    assert len(runner["inputs"]["vpcConfig"]["subnetIds"]) == 3
    assert not [r for r in project.resources("app") if r["type"].endswith((":Vpc", ":Bucket", ":Workgroup"))]


def test_a_stack_that_imports_what_another_lacks_is_refused_with_stack_and_output(project: Project) -> None:
    project.configure("base", units=["secrets"])
    project.configure("lonely", units=["warehouse"], imports=dict.fromkeys(("foundation", "lake", "secrets"), "base"))
    project.init("base")
    project.up("base")
    project.init("lonely")
    done = project.pulumi("preview", "--stack", "lonely")
    words = done.stdout + done.stderr
    assert done.returncode != 0
    assert "stack 'base' has no output 'foundation_" in words
    assert project.resources("lonely") == []


def test_a_destroy_with_both_keys_leaves_nothing(project: Project) -> None:
    project.configure("dev", protectData=False, forceDestroy=True)
    project.init("dev")
    project.up("dev")
    done = project.pulumi("destroy", "--yes", "--skip-preview", "--stack", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.resources("dev") == []


def test_the_state_unit_is_a_stack_of_its_own(project: Project) -> None:
    project.configure("state", units=["state"])
    project.init("state")
    project.up("state")
    outputs = json.loads(project.pulumi("stack", "output", "--json", "--stack", "state").stdout)
    assert outputs["state_login_url"].startswith("s3://goldlake-state-123456789012-us-east-1")
    assert outputs["state_secrets_provider"] == "awskms://alias/goldlake-pulumi?region=us-east-1"
    assert project.up("state", "--expect-no-changes").keys() == {"same"}


def test_settings_out_of_range_fail_the_preview_with_all_faults_and_no_traceback(project: Project) -> None:
    path = project.folder / "Pulumi.dev.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["config"] |= {"goldlake:dbtMemoryMb": 100, "goldlake:vpcCidr": "8.8.8.0/24"}
    path.write_text(yaml.safe_dump(settings))
    project.init("dev")
    done = project.pulumi("preview", "--stack", "dev")
    words = done.stdout + done.stderr
    assert done.returncode != 0
    assert "2 settings of stack 'dev' cannot be used" in words
    assert "goldlake:dbtMemoryMb" in words
    assert "goldlake:vpcCidr" in words
    assert "Traceback" not in words


def test_layers_that_are_not_built_fail_the_preview_with_the_command_that_builds_them(project: Project) -> None:
    for layer in project.artifacts.iterdir():
        layer.unlink()
    project.init("dev")
    done = project.pulumi("preview", "--stack", "dev")
    words = done.stdout + done.stderr
    assert done.returncode != 0
    assert "goldlake layers build" in words
    assert "Traceback" not in words


class RunningPlatform(Platform):
    """A platform that looks as if it ran: the echo provider asks no emulator anything."""

    def connection(self) -> Connection:
        return Connection(endpoint_url="http://127.0.0.1:9", region="us-east-1")

    def warehouse_port(self) -> int:
        return 15439


@pytest.fixture
def platform(project: Project, monkeypatch: pytest.MonkeyPatch) -> RunningPlatform:
    """The stand-in with its home in the copy, which the engine's environment points to."""
    monkeypatch.setattr("local.engine._has_forgotten", lambda *_: False)
    monkeypatch.setenv("GOLDLAKE_HOME", str(project.folder / ".goldlake"))
    for name in ("PATH", "PULUMI_HOME"):
        monkeypatch.setenv(name, project.environment[name])
    return RunningPlatform(project.folder / ".goldlake")


def counts(deployed: Deployed) -> dict[str, int]:
    actions = [step.action for step in deployed.steps]
    return {action: actions.count(action) for action in set(actions)}


def leave_a_lock(state: Path) -> None:
    """Leave what an engine that was killed leaves: the next one refuses to go on."""
    locks = state / ".pulumi" / "locks" / "organization" / "goldlake" / "localstack"
    locks.mkdir(parents=True, exist_ok=True)
    holder = {"pid": 1, "username": "me", "hostname": "here", "timestamp": "2026-01-01T00:00:00Z"}
    (locks / "0b4e0b0e-0000-4000-8000-000000000000.json").write_text(json.dumps(holder))


def test_goldlake_deploy_takes_the_engines_way_and_leaves_the_stack_file_alone(
    project: Project, platform: RunningPlatform
) -> None:
    files = {path: path.read_bytes() for path in project.folder.glob("Pulumi*.yaml")}
    said: list[str] = []

    planned = deploy_stack(platform, project.folder, "localstack", dry_run=True, say=said.append)
    assert not (platform.home / "stacks" / "localstack.json").exists()
    first = deploy_stack(platform, project.folder, "localstack", say=said.append)
    leave_a_lock(platform.home / "stacks" / "engine" / "state")
    second = deploy_stack(platform, project.folder, "localstack", say=said.append)

    assert first.way == "by the Pulumi engine"
    assert said == ["deploying localstack by the Pulumi engine"] * 3
    assert set(counts(first)) == {"created"}
    assert counts(planned) == counts(first)
    assert counts(second) == {"unchanged": len(first.steps)}
    assert {path: path.read_bytes() for path in project.folder.glob("Pulumi*.yaml")} == files
    target = load_target("localstack")
    assert target.silver_bucket == "goldlake-silver-123456789012-us-east-1"
    assert target.outputs["transform_warehouse_port"] == 5439
    # `goldlake local reset` deletes this folder: state must not outlive what it describes.
    assert (platform.home / "stacks" / "engine" / "state").is_dir()


def test_goldlake_deploy_refuses_settings_before_the_engine_starts(project: Project, platform: RunningPlatform) -> None:
    path = project.folder / "Pulumi.localstack.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["config"]["goldlake:dbtMemoryMb"] = 100
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigurationError, match="goldlake:dbtMemoryMb"):
        deploy_stack(platform, project.folder, "localstack")
    assert not (platform.home / "stacks").exists()


def test_goldlake_deploy_gives_the_engines_words_when_the_program_fails(
    project: Project, platform: RunningPlatform
) -> None:
    program = project.folder / "__main__.py"
    program.write_text(program.read_text() + '\nraise pulumi.RunError("the wolf is in the fold")\n')
    with pytest.raises(FailedError, match="the wolf is in the fold"):
        deploy_stack(platform, project.folder, "localstack")


def test_an_engine_without_its_aws_plugin_is_not_taken(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from local import engine

    path = project.folder / "Pulumi.yaml"
    without = yaml.safe_load(path.read_text())
    del without["plugins"]
    path.write_text(yaml.safe_dump(without))
    monkeypatch.setenv("PULUMI_HOME", project.environment["PULUMI_HOME"])
    reason = engine.missing(project.folder)
    assert reason is not None
    assert "pulumi plugin install resource aws" in reason


def test_the_providers_of_these_tests_are_executable() -> None:
    for name in ("aws", "random"):
        path = Path(__file__).parent / "echo_provider" / f"pulumi-resource-{name}"
        assert path.stat().st_mode & 0o100
