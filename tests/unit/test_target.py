"""A deployed stack as it is kept on this machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import target as target_module
from runtime.aws import Connection
from runtime.errors import ConfigurationError, UnreachableError
from runtime.target import Target, home, load_target, save_target, target_file, write_atomically

OUTPUTS: dict[str, Any] = {
    "lake_silver_bucket": "goldlake-silver",
    "lake_gold_bucket": "goldlake-gold",
    "pipeline_state_machine_arn": "arn:machine",
    "transform_warehouse_login_arn": "arn:login",
    "transform_warehouse_host": "127.0.0.1",
    "transform_warehouse_port": 5439,
    "transform_warehouse_database": "analytics",
}
KEPT = Connection("http://127.0.0.1:4566", region="us-east-1")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep everything under a folder of the test's own, on a machine without `pulumi`."""
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("shutil.which", lambda _program: None)
    return tmp_path / "home"


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer every login; return the list of the secrets that were asked for."""
    asked: list[str] = []

    def read(_aws: Connection, secret: str) -> tuple[str, str]:
        asked.append(secret)
        return "admin", "a-password"

    monkeypatch.setattr(target_module, "read_login", read)
    return asked


def stack(**changes: Any) -> Target:
    outputs = {**OUTPUTS, **changes}
    return Target("dev", KEPT, {name: value for name, value in outputs.items() if value is not None})


def test_everything_is_kept_in_dot_goldlake_of_the_current_folder_unless_a_variable_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home() == tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", "")
    assert home() == tmp_path / ".goldlake"
    monkeypatch.delenv("GOLDLAKE_HOME")
    assert home() == tmp_path / ".goldlake"


def test_a_relative_home_is_resolved_so_that_it_holds_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", "elsewhere")
    assert home() == tmp_path / "elsewhere"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outputs=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_what_was_saved_is_loaded(outputs: dict[str, Any]) -> None:
    saved = Target("dev", KEPT, outputs)
    save_target(saved)
    assert load_target("dev") == saved


def test_stacks_are_kept_apart(own_home: Path) -> None:
    save_target(stack())
    save_target(Target("localstack", KEPT, {}))
    assert load_target("localstack").outputs == {}
    assert load_target("dev").outputs == OUTPUTS
    assert target_file("dev") == own_home / "stacks" / "dev.json"


def test_what_the_command_line_says_wins_over_what_was_kept() -> None:
    save_target(stack())
    assert load_target("dev").connection == KEPT
    assert load_target("dev", overrides=Connection(region="eu-west-1")).connection == Connection(
        KEPT.endpoint_url, "eu-west-1"
    )
    given_all = Connection("http://localhost:1", "eu-west-1", "someone")
    assert load_target("dev", overrides=given_all).connection == given_all


def test_a_stack_that_was_never_deployed_is_a_configuration_error_that_says_how_to_deploy_it() -> None:
    with pytest.raises(ConfigurationError, match="'nowhere' is not deployed") as refused:
        load_target("nowhere")
    assert refused.value.hint == "goldlake deploy --stack nowhere"


def test_a_stack_that_pulumi_deployed_has_its_outputs_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(OUTPUTS), stderr="")

    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr("subprocess.run", run)
    assert load_target("acme/dev") == Target("acme/dev", Connection(), OUTPUTS)
    assert asked[0][:4] == ["pulumi", "stack", "output", "--json"]
    assert asked[0][-2:] == ["--stack", "acme/dev"]


def test_a_stack_that_pulumi_does_not_know_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(
        "subprocess.run",
        lambda command, **_options: subprocess.CompletedProcess(command, 255, stdout="", stderr="no stack"),
    )
    with pytest.raises(ConfigurationError, match="not deployed"):
        load_target("dev")


def test_a_pulumi_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr("subprocess.run", hang)
    with pytest.raises(UnreachableError, match="within 120 s"):
        load_target("dev")


def test_a_kept_description_that_is_cut_off_is_a_configuration_error_that_names_the_file() -> None:
    save_target(stack())
    path = target_file("dev")
    path.write_text(path.read_text()[:-10])
    with pytest.raises(ConfigurationError, match=r"dev\.json cannot be read") as refused:
        load_target("dev")
    assert refused.value.hint == "goldlake deploy --stack dev"


@pytest.mark.parametrize("value", [None, 5, ["a"]])
def test_a_missing_output_names_stack_and_output(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"stack 'dev' has no output 'lake_silver_bucket'"):
        _ = stack(lake_silver_bucket=value).silver_bucket


@pytest.mark.parametrize("port", [None, "many", [5439]])
def test_a_missing_port_names_stack_and_output(login: list[str], port: object) -> None:
    with pytest.raises(ConfigurationError, match=r"stack 'dev' has no output 'transform_warehouse_port'"):
        stack(transform_warehouse_port=port).warehouse()
    assert login == ["arn:login"]


def test_gold_tables_lie_in_their_bucket_under_gold() -> None:
    assert stack().gold_location == "s3://goldlake-gold/gold"
    assert stack().state_machine_arn == "arn:machine"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_warehouse_on_loopback_needs_no_tls(login: list[str], host: str) -> None:
    warehouse = stack(transform_warehouse_host=host).warehouse()
    assert not warehouse.ssl
    assert (warehouse.host, warehouse.port, warehouse.database) == (host, 5439, "analytics")
    assert login == ["arn:login"]


@pytest.mark.parametrize(
    "host", ["gold.123.us-east-1.redshift-serverless.amazonaws.com", "10.0.0.1", "localhost.example.com", "10.0.0.0"]
)
@pytest.mark.usefixtures("login")
def test_every_other_warehouse_has_tls(host: str) -> None:
    assert stack(transform_warehouse_host=host).warehouse().ssl


@pytest.mark.parametrize("port", [5439, 5439.0, "5439"])
@pytest.mark.usefixtures("login")
def test_a_port_is_taken_in_each_form_that_an_engine_gives_it(port: object) -> None:
    assert stack(transform_warehouse_port=port).warehouse().port == 5439


@pytest.mark.usefixtures("login")
def test_the_password_is_in_no_repr_of_the_warehouse() -> None:
    warehouse = stack().warehouse()
    assert warehouse.password == "a-password"
    assert "a-password" not in repr(warehouse)


def test_a_file_is_for_its_owner_only_unless_another_mode_is_asked_for(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_atomically(tmp_path / "folder" / "private", "text")
        write_atomically(tmp_path / "folder" / "public", "text", mode=0o644)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "folder" / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder" / "public").stat().st_mode) == 0o644


def test_the_description_of_a_stack_is_for_its_owner_only() -> None:
    save_target(stack())
    assert stat.S_IMODE(target_file("dev").stat().st_mode) == 0o600


@pytest.mark.parametrize("failing", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if failing == "fsync" else Path, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.glob("file*")) == [path]
    assert list(tmp_path.glob(".file*")) == []


def test_the_new_content_is_complete_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    seen: list[tuple[str, str]] = []
    replace = Path.replace

    def watching(self: Path, target: Path) -> Path:
        seen.append((target.read_text(), self.read_text()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watching)
    write_atomically(path, "new")
    assert seen == [("old", "new")]
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("outputs", "seeded"),
    [
        ({"warehouse_login_owner": "seed"}, True),
        ({"transform_warehouse_login_owner": "seed"}, True),
        ({"warehouse_login_owner": "pulumi"}, False),
        ({"transform_warehouse_login_owner": "aws"}, False),
        ({}, False),
    ],
)
def test_the_warehouses_login_is_seeded_only_where_the_stack_says_that_nobody_else_made_it(
    outputs: dict[str, str], seeded: bool
) -> None:
    assert Target("dev", KEPT, outputs).seeds_warehouse_login is seeded


def test_service_endpoints_are_kept_with_the_endpoint_they_belong_to(own_home: Path) -> None:
    connection = Connection(
        "http://127.0.0.1:1", "us-east-1", service_endpoints={"redshift-data": "http://127.0.0.1:2"}
    )
    save_target(Target("dev", connection, {}))
    assert load_target("dev").connection == connection
    elsewhere = load_target("dev", overrides=Connection("http://127.0.0.1:3"))
    assert elsewhere.connection.service_endpoints == {}
