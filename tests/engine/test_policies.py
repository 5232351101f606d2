"""The policy pack under the real engine: what it stops, what it only mentions, and what it lets pass."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.limits import REQUIRED_TAGS
from policies.registry import RULES
from tests.engine.conftest import ROOT, Project, copy_of_the_project

ENVIRONMENT = ROOT / ".venv-policies"
PYTHON = ENVIRONMENT / "bin" / "python"
TAGS = dict.fromkeys(REQUIRED_TAGS, "x")
KEEPS_FOR_EVER = f'aws.cloudwatch.LogGroup("quiet", name="quiet", retention_in_days=0, tags={TAGS})'


@pytest.fixture(autouse=True)
def _environment() -> None:
    if not PYTHON.exists():
        pytest.skip("the policy pack has no environment: make policy-env")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the program with the pack beside it, and its environment where PulumiPolicy.yaml says."""
    copy = copy_of_the_project(tmp_path / "project")
    shutil.copytree(ROOT / "policies", copy.folder / "policies", ignore=shutil.ignore_patterns("__pycache__"))
    (copy.folder / ENVIRONMENT.name).symlink_to(ENVIRONMENT)
    copy.init("dev")
    return copy


def preview(project: Project, program: str = "") -> tuple[int, str]:
    """Return the exit code and the words of a preview with the pack, of a small program if one is given."""
    if program:
        (project.folder / "__main__.py").write_text(f"import json\nimport pulumi_aws as aws\n{program}\n")
    done = project.pulumi("preview", "--stack", "dev", "--policy-pack", "policies")
    return done.returncode, done.stdout + done.stderr


def exempt(project: Project, **changes: Any) -> None:
    """Let the log group keep its lines for ever."""
    entry = {"rule": "log-retention", "resource": "quiet", "reason": "kept for the auditors", "until": "2999-12-31"}
    project.configure("dev", policyExemptions=[{**entry, **changes}])


def test_the_program_passes(project: Project) -> None:
    code, words = preview(project)
    assert code == 0, words
    assert "goldlake@v1.0.0" in words
    assert "mandatory" not in words
    assert "can't run policy" not in words


def test_a_bad_change_is_stopped_with_the_rules_that_it_breaks_and_what_to_do(project: Project) -> None:
    program = project.folder / "__main__.py"
    program.write_text(
        f"""{program.read_text()}
import pulumi_aws as aws

aws.s3.Bucket("open", bucket="open", force_destroy=True)
aws.vpc.SecurityGroupIngressRule(
    "wide", security_group_id="sg-1", cidr_ipv4="0.0.0.0/0", ip_protocol="tcp", from_port=5439, to_port=5439
)
"""
    )
    code, words = preview(project)
    assert code != 0
    stopped = " ".join(line for line in words.splitlines() if "[mandatory]" in line)
    for rule in ("bucket-public-access-blocked", "bucket-versioned", "data-store-protected", "no-open-ingress"):
        assert f"  {rule}  " in stopped
    assert "wide lets in 0.0.0.0/0" in words
    assert "Name the security group" in words


def test_a_warning_stops_nothing(project: Project) -> None:
    code, words = preview(project, f'aws.ec2.NatGateway("way-out", subnet_id="subnet-1", tags={TAGS})')
    assert code == 0, words
    assert "no-nat-gateway" in words


def test_an_exemption_in_the_stacks_file_lets_a_change_pass_up_to_its_last_day(project: Project) -> None:
    assert preview(project, KEEPS_FOR_EVER)[0] != 0
    exempt(project)
    code, words = preview(project, KEEPS_FOR_EVER)
    assert code == 0, words
    exempt(project, until="2020-01-31")
    code, words = preview(project, KEEPS_FOR_EVER)
    assert code != 0
    assert "its exemption ended on 2020-01-31" in words


def test_an_exemption_from_a_rule_that_there_is_not_stops_a_preview(project: Project) -> None:
    exempt(project, rule="log-retentoin")
    code, words = preview(project, KEEPS_FOR_EVER)
    assert code != 0
    assert "there is no rule 'log-retentoin'" in words


def test_what_is_not_known_in_a_preview_is_judged_during_the_update(project: Project) -> None:
    statement = '[{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{arn}/*"}]'
    # An ARN, and with it the policy, is known only when the network is there.
    code, words = preview(
        project,
        f"""
network = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16", tags={TAGS})
policy = network.arn.apply(lambda arn: json.dumps({{"Version": "2012-10-17", "Statement": {statement}}}))
aws.s3.BucketPolicy("open", bucket="b", policy=policy)
""",
    )
    assert code == 0, words
    done = project.pulumi("up", "--yes", "--skip-preview", "--stack", "dev", "--policy-pack", "policies")
    assert done.returncode != 0
    assert "allows everybody s3:GetObject" in done.stdout + done.stderr
    assert "aws:s3/bucketPolicy:BucketPolicy" not in {found["type"] for found in project.resources("dev")}


def test_the_pack_holds_every_rule_and_its_environment_is_where_make_puts_it(project: Project) -> None:
    pack = yaml.safe_load((project.folder / "policies" / "PulumiPolicy.yaml").read_text())
    assert pack["runtime"]["options"]["virtualenv"] == f"../{ENVIRONMENT.name}"
    listing = "from policies.pack import policies; print(*(policy.name for policy in policies()))"
    done = subprocess.run([PYTHON, "-c", listing], cwd=project.folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [rule.id for rule in RULES]
