"""`goldlake check`: what is checked where, how long it waits, and with which code it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime import check_cli, readiness
from runtime.aws import Connection
from runtime.cli import app
from runtime.readiness import CheckOptions, ReadinessReport, SourceTable, State, TableReadiness
from runtime.target import Target, save_target

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
STACK = Connection("http://127.0.0.1:4566", "eu-west-1")


@dataclass
class Ended:
    """How the command ended, what it said where, and what it had checked."""

    code: int
    out: str
    err: str


@dataclass
class Looks:
    """The states that the looks find, the last for ever; and what was asked."""

    states: list[tuple[State, ...]] = field(default_factory=lambda: [("ready",)])
    asked: list[tuple[Connection, list[SourceTable], CheckOptions]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def check(self, aws: Connection, tables: list[SourceTable], *, options: CheckOptions) -> ReadinessReport:
        self.asked.append((aws, tables, options))
        states = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        found = (TableReadiness(f"a.t{n}", state, f"why {n}", rows=1234) for n, state in enumerate(states))
        return ReadinessReport(NOW, tuple(found), 0.5)

    def wait(self, look: Callable[[], ReadinessReport], **options: Any) -> ReadinessReport:
        """Wait on a clock that only sleeping moves."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            now[0] += seconds

        return readiness.wait_until_ready(look, **options, clock=lambda: now[0], sleep=sleep)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks()
    monkeypatch.setattr(check_cli, "check_tables", found.check)
    monkeypatch.setattr(check_cli, "wait_until_ready", found.wait)
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with a dbt project of one source, on a machine without `pulumi`, with no stack deployed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("shutil.which", lambda _program: None)
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    models = tmp_path / "dbt_gold" / "models"
    models.mkdir(parents=True)
    (models / "sources.yml").write_text("sources: [{name: silver, tables: [{name: t}]}]")
    return tmp_path


@pytest.fixture
def deployed() -> None:
    save_target(Target("localstack", STACK, {}))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Return a function that runs `goldlake check` with arguments."""
    monkeypatch.setitem(app.commands, "check", check_cli.check)

    def goldlake(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            app(["check", *arguments], prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, said.out, said.err)

    return goldlake


Run = Callable[..., Ended]


# --- exit codes and output ---


@pytest.mark.parametrize(
    ("states", "arguments", "code"),
    [
        (("ready", "ready"), [], 0),
        (("ready", "missing"), [], 1),
        (("missing", "forbidden"), [], 2),
        (("ready", "unreachable"), [], 2),
        (("ready", "stale"), ["--skip-exit-code", "99"], 99),
        (("ready",), ["--skip-exit-code", "99"], 0),
        (("ready", "unreachable"), ["--skip-exit-code", "99"], 2),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_the_exit_code_says_ready_not_ready_or_out_of_reach(
    run: Run, looks: Looks, states: tuple[State, ...], arguments: list[str], code: int
) -> None:
    looks.states = [states]
    assert run(*arguments).code == code


@pytest.mark.parametrize("code", ["0", "2", "64", "256", "-1", "x"])
@pytest.mark.usefixtures("deployed")
def test_a_skip_code_that_means_something_else_is_a_usage_error(run: Run, looks: Looks, code: str) -> None:
    ended = run("--skip-exit-code", code)
    assert (ended.code, looks.asked) == (64, [])


@pytest.mark.usefixtures("deployed")
def test_the_result_is_a_table_on_stdout_and_the_summary_on_stderr(run: Run, looks: Looks) -> None:
    looks.states = [("ready", "stale")]
    ended = run()
    assert "1,234" in ended.out
    assert "why 1" in ended.out
    assert ended.err == "1 of 2 tables ready; a.t1 is stale\n"


@pytest.mark.usefixtures("deployed")
def test_warnings_are_said_for_their_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    late = ReadinessReport(NOW, (TableReadiness("a.t", "ready", "", warning="written 3 d ago"),))
    monkeypatch.setattr(check_cli, "check_tables", lambda *_a, **_o: late)
    assert run().err.splitlines()[0] == "warning: a.t: written 3 d ago"


@pytest.mark.usefixtures("deployed")
def test_json_is_all_that_stdout_has(run: Run, looks: Looks) -> None:
    looks.states = [("missing",), ("ready",)]
    ended = run("--output", "json", "--wait", "1m")
    content = json.loads(ended.out)
    assert (content["schema"], content["ready"], content["exit_code"]) == ("goldlake.check/1", True, 0)
    assert ended.err == "0 of 1 tables ready; a.t0 is missing; waiting up to 1m\n"


def test_help_has_examples_and_exit_codes(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    assert "goldlake check --table glue:silver_linkedin.job_postings --max-age 1d" in ended.out
    assert "Exit 0 all are ready, 1 some are missing" in ended.out


# --- what is checked ---


@pytest.mark.usefixtures("deployed")
def test_the_sources_of_the_project_are_checked_on_the_stack(run: Run, looks: Looks) -> None:
    run()
    assert looks.asked == [(STACK, [SourceTable("silver", "t")], CheckOptions())]


@pytest.mark.usefixtures("deployed")
def test_a_manifest_takes_the_place_of_the_project(run: Run, looks: Looks, folder: Path) -> None:
    node = {"source_name": "s", "schema": "other", "name": "u"}
    (folder / "manifest.json").write_text(json.dumps({"sources": {"source.p.s.u": node}}))
    run("--manifest", "manifest.json", "--count")
    assert looks.asked == [(STACK, [SourceTable("other", "u")], CheckOptions(count=True))]


@pytest.mark.usefixtures("deployed")
def test_named_tables_are_checked_instead_of_the_sources(run: Run, looks: Looks) -> None:
    run("--table", "glue:a.b", "--table", "s3://lake/x", "--max-age", "1h30m", "--allow-empty", "--column", "Id")
    age = timedelta(minutes=90)
    assert looks.asked[0][1] == [
        SourceTable("a", "b", True, error_after=age, columns=("id",)),
        SourceTable("", "", True, error_after=age, columns=("id",), location="s3://lake/x/"),
    ]


@pytest.mark.usefixtures("deployed")
def test_a_project_that_is_given_is_checked_beside_named_tables(run: Run, looks: Looks) -> None:
    run("--table", "glue:a.b", "--project", "dbt_gold")
    assert looks.asked[0][1] == [SourceTable("silver", "t"), SourceTable("a", "b")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-age", "1h"],
        ["--allow-empty"],
        ["--column", "a"],
        ["--poll", "1s"],
        ["--wait", "10"],
        ["--wait", "soon"],
        ["--table", "a.b"],
        ["--table", "glue:a.b", "--max-age", "1 day"],
        ["--manifest", "m.json", "--project", "dbt_gold"],
        ["--manifest", "nowhere.json"],
        ["--project", "nowhere"],
        ["--output", "yaml"],
    ],
)
@pytest.mark.usefixtures("deployed")
def test_options_that_mean_nothing_are_usage_errors(run: Run, looks: Looks, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out, looks.asked) == (64, "", [])
    assert ended.err.startswith("goldlake: ")


# --- where it is checked ---


def test_sources_are_checked_on_a_deployed_stack_only(run: Run, looks: Looks) -> None:
    ended = run()
    assert (ended.code, looks.asked) == (64, [])
    assert "not deployed" in ended.err


def test_named_tables_need_no_stack(run: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    run("--table", "glue:a.b", "--region", "us-west-2")
    assert looks.asked[0][0] == Connection("http://127.0.0.1:9", "us-west-2")


def test_a_stack_that_is_named_must_be_there(run: Run, looks: Looks) -> None:
    assert run("--table", "glue:a.b", "--stack", "dev").code == 64
    assert looks.asked == []


# --- waiting ---


@pytest.mark.usefixtures("deployed")
def test_the_wait_looks_until_all_are_ready(run: Run, looks: Looks) -> None:
    looks.states = [("missing",), ("unreachable",), ("ready",)]
    ended = run("--wait", "10m", "--poll", "30s")
    assert (ended.code, looks.slept, len(looks.asked)) == (0, [30, 30], 3)


@pytest.mark.usefixtures("deployed")
def test_a_wait_in_vain_ends_with_the_last_answers_code(run: Run, looks: Looks) -> None:
    looks.states = [("missing",)]
    ended = run("--wait", "40s", "--skip-exit-code", "99")
    assert (ended.code, looks.slept) == (99, [15, 15, 10])


@pytest.mark.usefixtures("deployed")
def test_without_wait_there_is_one_look(run: Run, looks: Looks) -> None:
    looks.states = [("missing",)]
    assert run().code == 1
    assert (looks.slept, len(looks.asked)) == ([], 1)
