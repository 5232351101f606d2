"""Deployment in this process: small programs, made-up resource types, and an emulator that is a dictionary."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from local import inprocess
from local.inprocess import (
    Deployment,
    Record,
    Step,
    deploy_in_process,
    digest_of,
    planned,
    stack_configuration,
    unwrapped,
)
from local.resources import Applied, Kind
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError, UnreachableError

EMULATOR = Connection("http://127.0.0.1:4566", "us-east-1")
BOX = "test:index/box:Box"
HEADER = """
import pulumi

def box(name, **inputs):
    return pulumi.CustomResource("test:index/box:Box", name, {"arn": None, "size": None, **inputs})
"""
ONE_BOX = "box('first', size=1)"


@dataclass
class Emulator:
    """What exists, by id; and the calls that changed it."""

    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    applied: list[tuple[str, str | None]] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    """What creating a thing of this label raises."""

    def apply(self, _aws: Connection, inputs: Any, id: str | None) -> Applied:
        label = inputs.get("label", "thing")
        if label in self.failing:
            raise self.failing[label]
        self.applied.append((label, id))
        id = id or f"box-{len(self.applied)}"
        self.things[id] = dict(inputs)
        return Applied(id, {"arn": f"arn:{id}"})

    def exists(self, _aws: Connection, id: str, _inputs: Any) -> bool:
        return id in self.things


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    fake = Emulator()
    monkeypatch.setattr(inprocess, "KINDS", {BOX: Kind(fake.apply, fake.exists)})
    return fake


@pytest.fixture
def record_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "stacks" / "localstack.resources.json"


Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path, record_file: Path) -> Deploy:
    """Return a function that deploys a program, given as its text."""
    (tmp_path / "Pulumi.yaml").write_text("name: boxes\nruntime: python\n")
    (tmp_path / "Pulumi.localstack.yaml").write_text("config: {}\n")

    def deploy(program: str, **options: Any) -> Deployment:
        (tmp_path / "__main__.py").write_text(HEADER + textwrap.dedent(program))
        return deploy_in_process(
            project_dir=tmp_path,
            stack="localstack",
            configuration=stack_configuration(tmp_path, "localstack", options.pop("configuration", {})),
            aws=EMULATOR,
            record_file=record_file,
            **options,
        )

    return deploy


def actions(deployment: Deployment) -> dict[str, str]:
    return {step.name: step.action for step in deployment.steps}


def records(record_file: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(record_file.read_text())
    return kept


def test_what_is_not_there_is_created_and_what_has_not_changed_is_left_alone(
    deploy: Deploy, emulator: Emulator
) -> None:
    assert actions(deploy(ONE_BOX)) == {"first": "created"}
    assert actions(deploy(ONE_BOX)) == {"first": "unchanged"}
    assert emulator.things == {"box-1": {"size": 1}}
    assert emulator.applied == [("thing", None)]


def test_a_changed_input_updates_the_resource_that_is_there(deploy: Deploy, emulator: Emulator) -> None:
    deploy(ONE_BOX)
    assert actions(deploy("box('first', size=2)")) == {"first": "updated"}
    assert emulator.things == {"box-1": {"size": 2}}
    assert actions(deploy("box('first', size=2)")) == {"first": "unchanged"}


def test_what_is_gone_from_the_emulator_is_created_again(deploy: Deploy, emulator: Emulator) -> None:
    deploy("box('first', size=1)\nbox('second', size=1)")
    del emulator.things["box-1"]
    assert actions(deploy("box('first', size=1)\nbox('second', size=1)")) == {"first": "created", "second": "unchanged"}
    assert set(emulator.things) == {"box-2", "box-3"}


def test_ids_and_outputs_of_a_resource_reach_those_that_refer_to_it(deploy: Deploy, emulator: Emulator) -> None:
    program = """
    first = box('first', size=1)
    box('second', size=2, inside=first.id, near=first.arn)
    pulumi.export('first_arn', first.arn)
    """
    deployment = deploy(program)
    assert emulator.things["box-2"] == {"size": 2, "inside": "box-1", "near": "arn:box-1"}
    assert deployment.outputs == {"first_arn": "arn:box-1"}
    # Nothing is applied the second time: they come from the record.
    again = deploy(program)
    assert again.outputs == {"first_arn": "arn:box-1"}
    assert actions(again) == {"first": "unchanged", "second": "unchanged"}


def test_a_resource_follows_what_it_refers_to_when_that_is_created_again(deploy: Deploy, emulator: Emulator) -> None:
    program = "box('second', size=2, inside=box('first', size=1).id)"
    deploy(program)
    del emulator.things["box-1"]
    assert actions(deploy(program)) == {"first": "created", "second": "updated"}
    assert emulator.things["box-2"]["inside"] == "box-3"


def test_a_part_of_a_resource_that_was_created_again_is_applied_again_though_it_reads_as_there(
    deploy: Deploy, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of a bucket: S3 answers with defaults for a bucket that has just been made."""

    def set_part(_aws: Connection, inputs: Any, _id: str | None) -> Applied:
        emulator.applied.append(("part", inputs["of"]))
        return Applied(inputs["of"], {})

    parts = Kind(set_part, lambda _aws, _id, _inputs: True)
    named = Kind(lambda aws, inputs, _id: emulator.apply(aws, inputs, inputs["label"]), emulator.exists)
    monkeypatch.setattr(inprocess, "KINDS", {BOX: named, "test:index/part:Part": parts})
    program = """
    whole = box('whole', label='whole')
    pulumi.CustomResource("test:index/part:Part", "part", {"of": whole.id})
    """
    deploy(program)
    assert actions(deploy(program)) == {"whole": "unchanged", "part": "unchanged"}
    del emulator.things["whole"]
    assert actions(deploy(program)) == {"whole": "created", "part": "updated"}
    assert emulator.applied[-1] == ("part", "whole")


def test_a_type_without_an_emulated_api_is_recorded_only_and_says_why(
    deploy: Deploy, emulator: Emulator, record_file: Path
) -> None:
    deployment = deploy(
        """
        far = pulumi.CustomResource('test:index/far:Far', 'far', {'size': 5})
        box('first', size=1, inside=far.id)
        """
    )
    assert deployment.steps[0] == Step("test:index/far:Far", "far", "recorded only", "no emulated API for this type")
    assert emulator.things == {"box-1": {"size": 1, "inside": "far-recorded"}}
    assert set(records(record_file)) == {f"{BOX}::first"}


def test_components_are_no_resources_of_their_own(deploy: Deploy, emulator: Emulator) -> None:
    deployment = deploy("pulumi.ComponentResource('test:index:Group', 'group')\nbox('first', size=1)")
    assert actions(deployment) == {"first": "created"}


def test_a_secret_reaches_the_emulator_as_it_is_and_stays_out_of_the_record(
    deploy: Deploy, emulator: Emulator, record_file: Path
) -> None:
    program = "box('first', size=1, login={'password': pulumi.Output.secret('nobody-may-see')})"
    deployment = deploy(program)
    assert emulator.things["box-1"]["login"] == {"password": "nobody-may-see"}
    assert "nobody-may-see" not in record_file.read_text()
    assert "nobody-may-see" not in repr(deployment)
    assert actions(deploy(program)) == {"first": "unchanged"}
    assert actions(deploy(program.replace("nobody", "somebody"))) == {"first": "updated"}


def test_an_error_stops_further_creation_and_what_was_created_stays_recorded(
    deploy: Deploy, emulator: Emulator, record_file: Path
) -> None:
    program = "\n".join(f"box('{name}', size=1, label='{name}')" for name in ("first", "second", "third"))
    emulator.failing["second"] = FailedError("no room for the second")
    with pytest.raises(FailedError, match="no room for the second"):
        deploy(program)
    assert set(emulator.things) == {"box-1"}
    assert set(records(record_file)) == {f"{BOX}::first"}
    emulator.failing.clear()
    # The next deployment goes on from there.
    assert actions(deploy(program)) == {"first": "unchanged", "second": "created", "third": "created"}


def test_an_emulator_that_does_not_answer_is_unreachable(deploy: Deploy, emulator: Emulator) -> None:
    emulator.failing["thing"] = EndpointConnectionError(endpoint_url="http://127.0.0.1:4566")
    with pytest.raises(UnreachableError, match=f"{BOX} first"):
        deploy(ONE_BOX)


def test_an_emulator_that_does_not_say_who_we_are_is_unreachable(
    deploy: Deploy, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sts:
        def get_caller_identity(self) -> dict[str, str]:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:4566")

    monkeypatch.setattr(Connection, "client", lambda _self, service: {"sts": Sts()}[service])
    with pytest.raises(UnreachableError, match="who am I"):
        deploy(
            """
            identity = pulumi.runtime.invoke_output('aws:index/getCallerIdentity:getCallerIdentity', {})
            box('first', size=identity.apply(lambda found: found['accountId']))
            box('second', size=1)
            """
        )
    assert emulator.things == {}


def test_a_defect_in_a_kind_stops_further_creation_and_names_the_resource(deploy: Deploy, emulator: Emulator) -> None:
    emulator.failing["first"] = KeyError("cidrBlock")
    with pytest.raises(FailedError, match=f"{BOX} first: KeyError: 'cidrBlock'"):
        deploy("box('first', size=1, label='first')\nbox('second', size=1)")
    assert emulator.things == {}


def test_a_provider_function_that_nobody_answers_is_refused_by_name(deploy: Deploy, emulator: Emulator) -> None:
    with pytest.raises(ConfigurationError, match="aws:index/getRegion:getRegion"):
        deploy("pulumi.runtime.invoke('aws:index/getRegion:getRegion', {})\nbox('first', size=1)")
    assert emulator.things == {}


def test_settings_that_the_program_refuses_are_a_configuration_error(deploy: Deploy, emulator: Emulator) -> None:
    with pytest.raises(ConfigurationError, match="3 settings cannot be used"):
        deploy("raise pulumi.RunError('3 settings cannot be used')")
    assert emulator.things == {}


def test_a_program_that_breaks_is_a_failure(deploy: Deploy, emulator: Emulator) -> None:
    with pytest.raises(FailedError, match="the program failed: division by zero"):
        deploy("1 / 0")
    assert emulator.things == {}


def test_a_dry_run_creates_nothing_and_records_nothing(deploy: Deploy, emulator: Emulator, record_file: Path) -> None:
    program = "box('second', size=2, inside=box('first', size=1).id)"
    assert actions(deploy(program, dry_run=True)) == {"first": "created", "second": "created"}
    assert emulator.things == {}
    assert not record_file.exists()


def test_a_dry_run_says_what_would_be_done(deploy: Deploy, emulator: Emulator, record_file: Path) -> None:
    deploy("box('first', size=1)\nbox('second', size=1)\nbox('third', size=1)")
    del emulator.things["box-3"]
    before = (record_file.read_text(), dict(emulator.things))
    deployment = deploy("box('first', size=1)\nbox('second', size=2)\nbox('third', size=1)", dry_run=True)
    assert actions(deployment) == {"first": "unchanged", "second": "updated", "third": "created"}
    assert (record_file.read_text(), emulator.things) == before


def test_resources_that_left_the_program_are_listed_and_not_deleted(deploy: Deploy, emulator: Emulator) -> None:
    deploy("box('first', size=1)\nbox('second', size=1)")
    deployment = deploy(ONE_BOX)
    assert deployment.left_behind == [f"{BOX}::second"]
    assert set(emulator.things) == {"box-1", "box-2"}
    assert deploy("box('first', size=1)\nbox('second', size=1)").left_behind == []


def test_steps_are_told_as_they_are_done(deploy: Deploy, emulator: Emulator) -> None:
    told: list[tuple[str, int]] = []
    deployment = deploy(
        "box('second', size=2, inside=box('first', size=1).id)",
        on_step=lambda step: told.append((step.name, len(emulator.things))),
    )
    assert told == [("first", 1), ("second", 2)]
    assert deployment.steps[0].to_dict() == {"type": BOX, "name": "first", "action": "created", "reason": ""}


def test_a_file_is_known_by_its_content_and_not_by_its_name_or_time(
    deploy: Deploy, emulator: Emulator, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    one.write_bytes(b"content")
    other.write_bytes(b"content")
    program = "box('first', size=1, code=pulumi.FileArchive({path!r}), source=pulumi.FileAsset({path!r}))"
    deploy(program.format(path=str(one)))
    assert actions(deploy(program.format(path=str(other)))) == {"first": "unchanged"}
    other.write_bytes(b"another")
    assert actions(deploy(program.format(path=str(other)))) == {"first": "updated"}
    assert len(emulator.applied) == 2


def test_a_record_that_is_cut_off_is_said_with_what_helps(
    deploy: Deploy, emulator: Emulator, record_file: Path
) -> None:
    deploy(ONE_BOX)
    record_file.write_text(record_file.read_text()[:-5])
    with pytest.raises(FailedError, match="cannot be read") as refused:
        deploy(ONE_BOX)
    assert refused.value.hint == "goldlake local reset"
    assert len(emulator.applied) == 1


def test_a_record_is_kept_with_every_resource(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = Record(path)
    assert record.entries == {}
    record.put("a", {"id": "1"})
    assert Record(path).entries == {"a": {"id": "1"}}
    record.put("b", {"id": "2"})
    assert Record(path).entries == {"a": {"id": "1"}, "b": {"id": "2"}}


def test_the_configuration_is_that_of_the_engine(deploy: Deploy, emulator: Emulator, tmp_path: Path) -> None:
    declared = {"goldlake:a": {"default": 1}, "goldlake:b": {"default": [1, 2]}, "goldlake:c": {"type": "string"}}
    (tmp_path / "Pulumi.yaml").write_text(json.dumps({"name": "boxes", "runtime": "python", "config": declared}))
    (tmp_path / "Pulumi.localstack.yaml").write_text(json.dumps({"config": {"goldlake:a": True, "aws:region": "x"}}))
    assert stack_configuration(tmp_path, "localstack", {"aws:region": "us-east-1"}) == {
        "goldlake:a": "true",
        "goldlake:b": "[1, 2]",
        "aws:region": "us-east-1",
    }
    deploy("box('first', size=pulumi.Config('goldlake').require_object('b')[1])")
    assert emulator.things == {"box-1": {"size": 2}}


def test_a_stack_without_a_file_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    for name in ("dev", "localstack"):
        (tmp_path / f"Pulumi.{name}.yaml").touch()
    with pytest.raises(ConfigurationError, match="known stacks are dev, localstack"):
        stack_configuration(tmp_path, "prod", {})


# --- pure parts ---


def wrapped(value: Any) -> Any:
    """Return a value as the SDK sends a secret."""
    return {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": value}


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def sent(value: Any) -> Any:
    """Return a value as it crosses the wire: everything a secret, numbers as floats."""
    if isinstance(value, dict):
        return wrapped({key: sent(item) for key, item in value.items()})
    if isinstance(value, list):
        return wrapped([sent(item) for item in value])
    return wrapped(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


@given(_plain)
def test_inputs_come_back_as_the_program_wrote_them(value: Any) -> None:
    back = unwrapped(sent(value))
    assert back == value
    assert json.dumps(back) == json.dumps(value)


def test_a_fraction_stays_one() -> None:
    assert unwrapped({"a": [0.5]}) == {"a": [0.5]}


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of({"a": ["1"]}) != digest_of({"a": [1]})


def test_an_input_without_a_digest_is_a_defect_and_not_ignored() -> None:
    with pytest.raises(TypeError, match="StringAsset has no digest"):
        digest_of({"a": pulumi.StringAsset("text")})


@pytest.mark.parametrize(
    ("inputs", "id"), [({"bucket": "lake"}, "lake"), ({"name": "role"}, "role"), ({}, "<Box first>")]
)
def test_what_a_dry_run_would_create_is_shown_by_its_name(inputs: dict[str, str], id: str) -> None:
    assert planned(BOX, "first", inputs) == {"id": id, "outputs": {"arn": "<arn of first>"}}
