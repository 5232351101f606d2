"""`goldlake policy`: its exit codes, its forms, and the page about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.pages import filled
from local.policy_documentation import texts
from local.recording import Recording, record_stack
from policies.registry import RULES
from runtime.cli import app

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """What the dev stack registers, recorded once."""
    return record_stack(ROOT, "dev")


@pytest.fixture
def run(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command in a copy of the settings; what the program registers is the same each time."""
    for path in ROOT.glob("Pulumi*.yaml"):
        shutil.copy2(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("local.policy.record_stack", lambda _folder, _stack: recording)

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app.main(["policy", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return command


def settings(**values: Any) -> None:
    """Set settings of the copy's dev stack."""
    path = Path("Pulumi.dev.yaml")
    content = yaml.safe_load(path.read_text())
    content["config"] |= {f"goldlake:{key}": value for key, value in values.items()}
    path.write_text(yaml.safe_dump(content))


@pytest.fixture
def opened(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody into the warehouse."""
    inputs = recording.resource("groups-warehouse-from-function").inputs
    monkeypatch.setitem(inputs, "cidrIpv4", "0.0.0.0/0")


def exemption(**changes: str) -> dict[str, str]:
    entry = {"rule": "no-open-ingress", "resource": "groups-*", "reason": "the office moves", "until": "2999-12-31"}
    return {**entry, **changes}


def test_a_stack_that_breaks_no_rule_is_0_with_what_is_exempted_and_why(run: Run) -> None:
    code, out, err = run("--stack", "dev")
    assert code == 0
    assert "lake-artifacts" in out
    assert "built again by" in out
    assert f"{len(RULES)} rules over" in err
    assert "0 errors, 0 warnings" in err


@pytest.mark.usefixtures("opened")
def test_a_violation_is_1_with_what_to_do(run: Run) -> None:
    code, out, err = run("--stack", "dev")
    assert code == 1
    words = " ".join(out.split())
    assert "no-open-ingress" in words
    assert "lets in 0.0.0.0/0" in words
    assert "1 errors" in err


@pytest.mark.usefixtures("opened")
def test_json_has_every_part_of_a_violation(run: Run) -> None:
    code, out, _err = run("--stack", "dev", "--output", "json")
    report = json.loads(out)
    assert code == 1
    assert (report["schema"], report["stack"], report["errors"], report["warnings"]) == (
        "goldlake.policy/1",
        "dev",
        1,
        0,
    )
    (violation,) = report["violations"]
    assert set(violation) == {"rule", "severity", "resource", "type", "message", "remediation"}
    assert all(found["reason"] for found in report["exempted"])


@pytest.mark.usefixtures("opened")
def test_markdown_is_a_line_and_a_table(run: Run) -> None:
    code, out, _err = run("--stack", "dev", "--output", "markdown")
    assert code == 1
    assert out.startswith(f"{len(RULES)} rules over ")
    assert "| error | `no-open-ingress` | `groups-warehouse-from-function` | lets in 0.0.0.0/0. " in out


@pytest.mark.usefixtures("opened")
def test_only_the_rules_that_are_named_are_asked(run: Run) -> None:
    code, _out, err = run("--stack", "dev", "--rule", "log-retention", "--rule", "queue-encrypted")
    assert code == 0
    assert "2 rules over" in err


def test_a_rule_that_there_is_not_is_64(run: Run) -> None:
    code, out, err = run("--rule", "log-retentoin")
    assert (code, out) == (64, "")
    assert "there is no rule log-retentoin" in err
    assert "goldlake policy --list" in err


def test_a_stack_that_there_is_not_is_64(run: Run) -> None:
    assert run("--stack", "nowhere")[0] == 64


@pytest.mark.usefixtures("opened")
def test_an_exemption_in_the_stacks_file_is_used_and_shown(run: Run) -> None:
    settings(policyExemptions=[exemption()])
    code, out, err = run("--stack", "dev")
    assert code == 0
    assert "2999-12-31" in out
    assert "the office moves" in " ".join(out.split())
    assert "0 errors, 0 warnings" in err


@pytest.mark.usefixtures("opened")
def test_an_exemption_that_ended_is_1_and_said(run: Run) -> None:
    settings(policyExemptions=[exemption(until="2020-01-31")])
    code, out, _err = run("--stack", "dev", "--output", "json")
    assert code == 1
    assert json.loads(out)["violations"][0]["message"].endswith("(its exemption ended on 2020-01-31)")


def test_an_exemption_that_nothing_needs_is_a_warning_and_0(run: Run) -> None:
    settings(policyExemptions=[exemption()])
    code, out, err = run("--stack", "dev")
    assert code == 0
    assert "exemption-unused" in out
    assert "1 warnings" in err


def test_a_day_without_quotes_is_64_as_the_engine_refuses_it(run: Run) -> None:
    path = Path("Pulumi.dev.yaml")
    entry = "{rule: no-open-ingress, resource: x, reason: the office moves, until: 2999-12-31}"
    path.write_text(f"{path.read_text()}  goldlake:policyExemptions: [{entry}]\n")
    code, _out, err = run("--stack", "dev")
    assert code == 64
    assert "in quotes" in err


def test_an_exemption_from_an_unknown_rule_is_64(run: Run) -> None:
    settings(policyExemptions=[exemption(rule="no-such-rule")])
    code, out, err = run("--stack", "dev")
    assert (code, out) == (64, "")
    assert "goldlake:policyExemptions" in err
    assert "no-such-rule" in err


@pytest.mark.parametrize("output", ["text", "json", "markdown"])
def test_the_list_names_every_rule_and_checks_nothing(run: Run, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("local.policy.record_stack")
    code, out, _err = run("--list", "--output", output)
    assert code == 0
    assert all(rule.id in out for rule in RULES)
    if output == "json":
        assert [rule["rule"] for rule in json.loads(out)["rules"]] == [rule.id for rule in RULES]


def test_the_page_about_policies_is_up_to_date() -> None:
    for page, parts in texts().items():
        text = (ROOT / page).read_text()
        assert filled(text, parts) == text, "run `make docs`"
