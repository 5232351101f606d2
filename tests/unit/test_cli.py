"""The `goldlake` command: exit codes, which stream says what, and help for every command."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import runtime.cli
import runtime.pipeline
import runtime.readiness
import runtime.secrets
from lambdas import cli as layers_cli
from lambdas.layers import Artifact
from runtime.aws import Connection
from runtime.cli import app, show_table
from runtime.errors import (
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    NotReadyError,
    UnreachableError,
)
from runtime.pipeline import RunReport, StepResult, TableCount
from runtime.secrets import SeedResult
from runtime.target import Target, save_target

# Commands whose use is plain without an example: no arguments, nothing to combine.
WITHOUT_EXAMPLE = {
    "goldlake local down",
    "goldlake local logs",
    "goldlake local reset",
    "goldlake local status",
    "goldlake run",
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said where."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with no stack deployed, on a machine without `pulumi`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("shutil.which", lambda _program: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line."""

    def goldlake(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, said.out, said.err)

    return goldlake


@pytest.fixture
def deployed() -> None:
    """Keep the description of a stack that is deployed."""
    save_target(Target("localstack", Connection("http://127.0.0.1:4566", "us-east-1"), {"lake_silver_bucket": "lake"}))


def commands(command: click.Command, path: str = "goldlake") -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with its path."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from commands(below, f"{path} {name}")


ALL = dict(commands(app))


def refusing(error: BaseException) -> Callable[..., Any]:
    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise error

    return refuse


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["secrets", "nonsense"], "No such command"),
        (["layers", "build", "--nonsense"], "No such option"),
        (["sample", "--rows", "many"], "'many' is not a valid integer"),
        (["run", "--output", "xml"], "'xml' is not one of"),
        (["local", "up", "--emulator-port", "80"], "1024<=x<=65535"),
        (["local", "logs"], "Missing argument"),
        (["register"], "Missing argument"),
        (["load", "file.csv"], "Missing option '--table'"),
        (["check", "superfluous"], "unexpected extra argument"),
    ],
)
def test_a_usage_error_is_64_with_a_message_and_where_the_help_is(run: Run, arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.code == 64
    assert ended.out == ""
    assert ended.err.startswith("goldlake: ")
    assert said in ended.err
    assert "  try: goldlake" in ended.err
    assert "--help" in ended.err


@pytest.mark.parametrize("arguments", [[], ["secrets"], ["local"], ["layers"], ["iam"]])
def test_a_group_without_a_command_shows_its_help_as_an_error(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 64
    assert ended.out == ""
    assert ended.err.startswith(" ".join(["Usage: goldlake", *arguments]))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("the message"), 64),
        (UnreachableError("the message"), 2),
        (AccessDeniedError("the message"), 2),
        (FailedError("the message"), 1),
        (NotReadyError("the message"), 1),
        (GoldlakeError("the message"), 1),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_an_error_of_ours_has_its_exit_code_and_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: GoldlakeError, code: int
) -> None:
    monkeypatch.setattr(runtime.secrets, "seed", refusing(error))
    assert run("secrets", "seed") == Outcome(code, "", "goldlake: the message\n")


@pytest.mark.usefixtures("deployed")
def test_a_hint_follows_the_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.secrets, "seed", refusing(FailedError("the message", hint="goldlake local up")))
    assert run("secrets", "seed").err == "goldlake: the message\n  try: goldlake local up\n"


@pytest.mark.usefixtures("deployed")
def test_an_interrupt_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.secrets, "seed", refusing(KeyboardInterrupt()))
    ended = run("secrets", "seed")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err.strip() == "goldlake: interrupted"


@pytest.mark.usefixtures("deployed")
def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.secrets, "seed", refusing(KeyError("a bug")))
    with pytest.raises(KeyError):
        app(["secrets", "seed"], prog_name="goldlake")


@pytest.mark.usefixtures("deployed")
def test_a_reader_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(runtime.cli, "_reader_is_gone", lambda: True)
    monkeypatch.setattr(runtime.secrets, "seed", refusing(BrokenPipeError(errno.EPIPE, "broken pipe")))
    assert run("secrets", "seed") == Outcome(0, "", "")


@pytest.mark.usefixtures("deployed")
def test_a_connection_that_broke_is_unreachable_and_not_taken_for_a_reader_that_has_gone(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(runtime.secrets, "seed", refusing(BrokenPipeError(errno.EPIPE, "broken pipe")))
    ended = run("secrets", "seed")
    assert ended.code == 2
    assert "a connection broke" in ended.err


def test_a_reader_has_gone_when_the_other_end_of_the_pipe_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert not runtime.cli._reader_is_gone()
        os.close(reader)
        assert runtime.cli._reader_is_gone()


def test_run_without_a_deployed_stack_is_64_and_says_how_to_deploy(run: Run) -> None:
    ended = run("run")
    assert (ended.code, ended.out) == (64, "")
    assert "stack 'localstack' is not deployed from this folder" in ended.err
    assert "  try: goldlake deploy --stack localstack\n" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["secrets", "seed"],
        ["sample"],
        ["load", "file.csv", "--table", "silver_companies.companies"],
        ["export"],
        ["register", "dim_company"],
        ["query", "select 1"],
    ],
)
def test_every_command_that_needs_a_stack_says_so(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments, "--stack", "nowhere")
    assert (ended.code, ended.out) == (64, "")
    assert "stack 'nowhere' is not deployed" in ended.err


def test_deploying_another_stack_than_the_laptops_is_left_to_pulumi(run: Run) -> None:
    ended = run("deploy", "--stack", "dev")
    assert ended.code == 64
    assert "  try: pulumi up --stack dev\n" in ended.err


def test_logs_of_a_service_that_was_never_started_are_a_usage_error(run: Run) -> None:
    ended = run("local", "logs", "emulator")
    assert ended.code == 64
    assert "  try: goldlake local up\n" in ended.err


def test_the_last_lines_of_a_log_are_shown(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "home" / "logs" / "redshift.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    assert run("local", "logs", "redshift", "--lines", "2") == Outcome(0, "two\nthree\n", "")


def test_the_status_of_a_platform_that_does_not_run_is_2_and_parseable(run: Run) -> None:
    ended = run("local", "status", "--output", "json")
    assert ended.code == 2
    assert {service["state"] for service in json.loads(ended.out)["services"]} == {"stopped"}
    assert run("local", "status").out.count("stopped") == 2


def test_commands_of_other_packages_are_found() -> None:
    assert {"goldlake deploy", "goldlake layers build", "goldlake local up", "goldlake run"} <= set(ALL)


def help_options() -> list[tuple[str, str]]:
    """Return every command with each of its options for help; a command may need -h for something else."""
    default = app.context_settings["help_option_names"]
    return [
        (path, option)
        for path, command in sorted(ALL.items())
        for option in command.context_settings.get("help_option_names", default)
    ]


@pytest.mark.parametrize(("path", "option"), help_options())
def test_every_command_has_help(run: Run, path: str, option: str) -> None:
    ended = run(*path.split()[1:], option)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {path}")
    text = (ALL[path].help or "").replace("\b", "")
    assert len(text.split()) > 2
    assert text.split()[0] in ended.out


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_option_of_every_command_is_described(path: str) -> None:
    options = [parameter for parameter in ALL[path].params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_every_command_with_arguments_to_combine_shows_an_example() -> None:
    leaves = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}
    without = {path for path, command in leaves.items() if "Example" not in (command.help or "")}
    assert without == WITHOUT_EXAMPLE


@pytest.mark.parametrize("path", sorted(path for path, command in ALL.items() if "Example" in (command.help or "")))
def test_an_example_is_shown_on_lines_of_its_own_and_can_be_typed(run: Run, path: str) -> None:
    shown = run(*path.split()[1:], "--help").out
    examples = [line.strip() for line in shown[shown.index("Example") :].splitlines() if f"{path} " in f"{line} "]
    assert examples
    known = {option for parameter in ALL[path].params for option in parameter.opts}
    for example in examples:
        own, _, _command = example.partition(" -- ")
        assert {word for word in own.split() if word.startswith("--")} <= known, example


def test_the_version_is_shown(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.err) == (0, "")
    assert "goldlake" in ended.out


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch, deployed: None) -> list[tuple[Connection, dict[str, Any]]]:
    """Answer every `seed`; return the list of what it was called with."""
    calls: list[tuple[Connection, dict[str, Any]]] = []

    def seed(aws: Connection, **options: Any) -> list[SeedResult]:
        calls.append((aws, options))
        return [SeedResult("goldlake/redshift-admin", "created", ("username", "password"))]

    monkeypatch.setattr(runtime.secrets, "seed", seed)
    return calls


def test_json_output_is_the_result_alone_on_standard_output(
    run: Run, seeds: list[tuple[Connection, dict[str, Any]]]
) -> None:
    ended = run("secrets", "seed", "--dry-run", "--output", "json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {
        "schema": "goldlake.seed/1",
        "dry_run": True,
        "secrets": [{"name": "goldlake/redshift-admin", "outcome": "created", "keys": ["username", "password"]}],
    }
    assert seeds[0][1]["dry_run"] is True


def test_text_output_is_a_table(run: Run, seeds: list[tuple[Connection, dict[str, Any]]]) -> None:
    ended = run("secrets", "seed")
    assert (ended.code, ended.err) == (0, "")
    assert "goldlake/redshift-admin" in ended.out
    assert "username, password" in ended.out
    assert "Dry run" not in ended.out
    assert seeds[0][1]["dry_run"] is False
    assert "Dry run" in run("secrets", "seed", "--dry-run").out


def test_endpoint_region_and_profile_are_those_of_the_command_line(
    run: Run, seeds: list[tuple[Connection, dict[str, Any]]]
) -> None:
    run("secrets", "seed", "--endpoint-url", "http://localhost:1", "--region", "eu-west-1", "--profile", "me")
    run("secrets", "seed")
    assert [connection for connection, _options in seeds] == [
        Connection("http://localhost:1", "eu-west-1", "me"),
        Connection("http://127.0.0.1:4566", "us-east-1"),
    ]


def test_building_layers_prints_one_json_object_and_progress_beside_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build_all(build: Any, say: Callable[[str], None]) -> list[Artifact]:
        say("duckdb: building")
        return [Artifact("duckdb", build.out / "duckdb-1.zip", "abc", 1_500_000, 4_000_000, reused=False)]

    monkeypatch.setattr(layers_cli, "build_all", build_all)
    ended = run("layers", "build", "--output", "json")
    assert (ended.code, ended.err) == (0, "duckdb: building\n")
    result = json.loads(ended.out)
    assert result["schema"] == "goldlake.layers/1"
    assert result["artifacts"][0]["path"] == str(tmp_path / "home" / "build" / "duckdb-1.zip")
    assert "1.5" in run("layers", "build").out


def test_a_python_that_lambda_does_not_have_is_a_usage_error(run: Run) -> None:
    ended = run("layers", "build", "--python-version", "3.9")
    assert ended.code == 64
    assert "3.11, 3.12 and 3.13 are allowed" in ended.err


def report(outcome: str) -> RunReport:
    steps = (StepResult("check", "ok", 1.5, 5000, "3 of 3 tables ready"),)
    return RunReport("run-1", outcome, f"it is {outcome}", steps, (TableCount("dim_company", 5, 5, 0, 5),))


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("skipped", 1), ("failed", 1), ("unreachable", 2)])
@pytest.mark.usefixtures("deployed")
def test_a_run_ends_with_the_reports_exit_code_and_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    monkeypatch.setattr(runtime.pipeline, "run", lambda _target, **_options: report(outcome))
    ended = run("run", "--output", "json")
    assert ended.code == code
    assert ended.err == ("" if code == 0 else f"goldlake: it is {outcome}\n")
    result = json.loads(ended.out)
    assert (result["schema"], result["outcome"]) == ("goldlake.run/1", outcome)
    assert result["tables"][0]["agrees"] is True


@pytest.mark.usefixtures("deployed")
def test_a_run_shows_steps_and_counts_as_tables_and_progress_beside_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(_target: Target, on_step: Callable[[str, StepResult | None], None], **_options: bool) -> RunReport:
        on_step("check", None)
        on_step("check", report("done").steps[0])
        return report("done")

    monkeypatch.setattr(runtime.pipeline, "run", follow)
    ended = run("run")
    assert ended.code == 0
    assert "5,000" in ended.out
    assert "dim_company" in ended.out
    started, finished = ended.err.splitlines()
    assert started.endswith("check    started")
    assert finished.endswith("1.5 s  3 of 3 tables ready")


@pytest.mark.parametrize(("arguments", "full_refresh"), [([], False), (["--full-refresh"], True)])
@pytest.mark.usefixtures("deployed")
def test_a_run_builds_incremental_models_anew_only_when_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], full_refresh: bool
) -> None:
    asked: list[bool] = []

    def follow(_target: Target, *, full_refresh: bool, **_options: Any) -> RunReport:
        asked.append(full_refresh)
        return report("done")

    monkeypatch.setattr(runtime.pipeline, "run", follow)
    run("run", *arguments)
    assert asked == [full_refresh]


def test_a_table_keeps_long_lines_whole_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    location = "s3://goldlake-lake-123456789012-us-east-1/gold/agg_company_hiring"
    show_table(("table", "rows", "location"), [("agg_company_hiring", 1234567, location), ("empty", None, "[red]x")])
    out = capsys.readouterr().out
    assert location in out
    assert "1,234,567" in out
    # Data is no markup, and nobody but a terminal gets colours.
    assert "[red]x" in out
    assert "\x1b" not in out
