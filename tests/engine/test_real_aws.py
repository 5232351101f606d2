"""The laptop's stack by the real engine, with a real AWS provider, into the local platform.

What the echo provider of the other module cannot tell: that the provider takes every argument, that what it reads back
is what was asked for, and that the in-process deployment makes the same things.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from local.deploy import Deployed
from tests.engine import real
from tests.engine.conftest import Project, copy_of_the_project
from tests.engine.listing import differences, listing

# What changes though nothing was changed, `<type>::<name>` -> what the emulator does not give back.
KNOWN_DRIFT: Mapping[str, str] = {
    "aws:cloudwatch/metricAlarm:MetricAlarm::*": (
        "the XML answer, which the provider reads, lacks description, dimensions, period, statistic and missing data"
    ),
    "aws:ec2/flowLog:FlowLog::network-flow-logs": "role, tags and interval are forgotten",
    "aws:ec2/vpcEndpoint:VpcEndpoint::*": "policy and private DNS are forgotten",
    "aws:redshiftserverless/workgroup:Workgroup::warehouse": "the port is where the local gateway listens, not 5439",
}
# Seen only once the engine has read everything anew.
KNOWN_DRIFT_AFTER_REFRESH: Mapping[str, str] = {
    **KNOWN_DRIFT,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule::groups-function-to-s3": "the prefix list is forgotten",
}
# What a destroy leaves, `<kind> <name>` -> why.
KEPT: Mapping[str, str] = {
    "layer *": "skip_destroy: a function that runs with an older version must still find it",
}
# Where the two ways differ, `<kind> <name>: <setting>` -> why.
KNOWN_DIFFERENCES: Mapping[str, str] = {
    "flow logs": "the emulator keeps tags that are given afterwards, not those of the creation",
    "function *: CodeSha256": "the engine packs an archive anew",
    "function *: CodeSize": "the engine packs an archive anew",
    "function *: VpcConfig": "the provider says that IPv6 is off, which is the default",
    "queue *: MaximumMessageSize": "the provider writes its own default, which was Amazon's",
    "rules of goldlake-*": "the emulator takes no rule away that is named with ports 0 to 0, as the provider names it",
    "security group goldlake-*: IpPermissionsEgress": "the same",
    "state machine goldlake-pipeline: loggingConfiguration": "the provider leaves a false out",
    "topic *: *FeedbackSampleRate": "the provider writes zeros, which are the default",
}


@dataclass(frozen=True)
class Life:
    """A stack from its plan to its end; each test looks at one part of it."""

    planned: Deployed
    first: Deployed
    made: dict[str, Any]
    said_in_process: dict[str, Any]
    made_in_process: dict[str, Any]
    second: Deployed
    refreshed: subprocess.CompletedProcess[str]
    preview: subprocess.CompletedProcess[str]
    destroyed: subprocess.CompletedProcess[str]
    resources: list[dict[str, Any]]
    left: dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def plugin() -> Path:
    """The AWS provider; without one everything here is skipped."""
    reason = real.why_not()
    if reason:
        pytest.skip(reason)
    found = real.aws_plugin()
    assert found is not None
    return found


@pytest.fixture(scope="module", autouse=True)
def _environment(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the user's own AWS and Pulumi settings; everything else goes through to the provider."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "PULUMI_")):
                patch.delenv(name)
        patch.setenv("PULUMI_HOME", str(tmp_path_factory.mktemp("pulumi")))
        patch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
        # The echo provider of `random` is started with the first python3 on PATH, and needs the SDK there.
        patch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def laptop(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Laptop]:
    """A running platform and a copy of the program with the real provider."""
    folder = tmp_path_factory.mktemp("real")
    project = copy_of_the_project(folder / "project")
    real.use(project, plugin)
    platform = real.start(folder / "home")
    yield real.Laptop(platform, project)
    platform.down()


@pytest.fixture(scope="module")
def life(laptop: real.Laptop, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The stack planned, deployed twice, refreshed, planned again and destroyed; beside it, deployed in process."""
    planned = laptop.deploy(dry_run=True)
    with ThreadPoolExecutor(1) as pool:
        # The provider sleeps for half a minute in each of four rounds of statements.
        other = pool.submit(real.deploy_in_process, tmp_path_factory.mktemp("other") / "home", laptop.project)
        first = laptop.deploy()
        said_in_process, made_in_process = other.result()
    made = listing(laptop.platform.connection())
    second = laptop.deploy()
    refreshed = laptop.pulumi("refresh", "--yes", "--skip-preview")
    preview = laptop.pulumi("preview", "--json")
    destroyed = laptop.pulumi("destroy", "--yes", "--skip-preview")
    return Life(
        planned=planned,
        first=first,
        made=made,
        said_in_process=said_in_process,
        made_in_process=made_in_process,
        second=second,
        refreshed=refreshed,
        preview=preview,
        destroyed=destroyed,
        resources=laptop.resources(),
        left=listing(laptop.platform.connection()),
    )


def unknown(found: set[str], known: Mapping[str, str]) -> list[str]:
    """Return what no entry of a list of known ones accounts for."""
    return sorted(one for one in found if not any(fnmatchcase(one, pattern) for pattern in known))


def test_a_preview_creates_everything_and_makes_nothing(life: Life) -> None:
    assert set(real.counts(life.planned)) == {"created"}
    assert {(step.type, step.name) for step in life.planned.steps} == {
        (step.type, step.name) for step in life.first.steps
    }


def test_the_first_deployment_creates_what_was_planned(life: Life) -> None:
    assert real.counts(life.first) == real.counts(life.planned)
    kinds = {label.rsplit(" ", 1)[0] for label in life.made}
    assert {"bucket", "secret", "role", "function", "layer", "state machine", "schedule", "workgroup"} <= kinds


def test_a_second_deployment_changes_only_what_the_emulator_forgets(life: Life) -> None:
    assert set(real.counts(life.second)) <= {"unchanged", "updated"}
    changed = {f"{step.type}::{step.name}" for step in life.second.steps if step.action != "unchanged"}
    assert unknown(changed, KNOWN_DRIFT) == []


def test_a_refresh_finds_only_what_the_emulator_forgets(life: Life) -> None:
    assert life.refreshed.returncode == 0, life.refreshed.stdout + life.refreshed.stderr
    assert unknown(real.changes(life.preview), KNOWN_DRIFT_AFTER_REFRESH) == []


def test_a_destroy_leaves_nothing(life: Life) -> None:
    assert life.destroyed.returncode == 0, life.destroyed.stdout + life.destroyed.stderr
    assert life.resources == []
    assert unknown({label for label, facts in life.left.items() if facts}, KEPT) == []


def test_both_ways_make_the_same(life: Life) -> None:
    steps = {(step["type"], step["name"]) for step in life.said_in_process["resources"] if step["action"] == "created"}
    assert steps == {(step.type, step.name) for step in life.first.steps}
    found = differences(life.made, life.made_in_process)
    assert {label: found[label] for label in unknown(set(found), KNOWN_DIFFERENCES)} == {}


@pytest.fixture
def another(plugin: Path, laptop: real.Laptop, tmp_path: Path) -> Project:
    """A copy of the program with the real provider, to be changed."""
    project = copy_of_the_project(tmp_path / "project")
    real.use(project, plugin)
    project.configure(real.STACK, artifactsDir=str(laptop.platform.home / "build"))
    return project


def test_a_wrong_setting_is_refused_at_preview_by_the_program(another: Project, laptop: real.Laptop) -> None:
    another.configure(real.STACK, dbtMemoryMb=100)
    done = laptop.preview(another)
    assert done.returncode != 0
    assert "goldlake:dbtMemoryMb" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ('ec2.Vpc("wrong", cidr_block="10.0.0.0/33")', "invalid CIDR address"),
        ('cloudwatch.LogGroup("wrong", retention_in_days=2)', "expected retention_in_days to be one of"),
    ],
)
def test_a_value_that_only_the_provider_knows_to_be_wrong_is_refused_at_preview(
    another: Project, laptop: real.Laptop, resource: str, words: str
) -> None:
    (another.folder / "__main__.py").write_text(f"import pulumi_aws as aws\n\naws.{resource}\n")
    done = laptop.preview(another)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
