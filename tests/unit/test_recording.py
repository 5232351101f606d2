"""Programs under mocks are waited for, errors in them are raised, and no test goes another way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pytest

from components.secret import SecretEntry, SecretEntryArgs
from local.recording import ACCOUNT, record, record_stack

TESTS = Path(__file__).parents[1]
# Ways to run a program under mocks that a test must await by itself: forgotten, it passes and has asked nothing.
UNAWAITED = ("set_mocks", "run_pulumi_func", "pulumi.runtime.test")


def secret(name: str) -> SecretEntry:
    args = SecretEntryArgs(secret_name=name, description="d", recovery_days=7, tags={}, protect=True)
    return SecretEntry(name, args)


def test_resources_that_are_registered_late_are_recorded() -> None:
    def second(_arn: str) -> None:
        secret("second").arn.apply(third)

    def third(_arn: str) -> None:
        secret("third")

    def program() -> None:
        secret("first").arn.apply(second)

    assert set(record(program).of(":Secret")) == {"first", "second", "third"}


def test_an_error_that_comes_late_is_raised() -> None:
    def fail(_arn: str) -> None:
        raise ValueError("too late")

    with pytest.raises(Exception, match="too late"):
        record(lambda: {"never": secret("first").arn.apply(fail)})


def test_a_failed_program_leaves_nothing_for_the_next_one() -> None:
    def failing() -> None:
        secret("first")
        raise ValueError("half done")

    with pytest.raises(ValueError, match="half done"):
        record(failing)
    assert set(record(lambda: {"arn": secret("second").arn}).of(":Secret")) == {"second"}


def test_a_stack_is_recorded_under_its_own_name_whatever_was_recorded_before(project_root: Path) -> None:
    for stack, root in (("prod.example", "goldlake-prod"), ("dev", "goldlake-dev")):
        resources = record_stack(project_root, stack, calls={}).resources
        assert root in {found.parent for found in resources}
        assert not {found.parent for found in resources} & {"goldlake-prod", "goldlake-dev"} - {root}


def test_exports_are_resolved_and_secrets_unwrapped() -> None:
    recording = record(lambda: {"arn": secret("first").arn, "hidden": pulumi.Output.secret("x")})
    assert recording.exports == {"arn": f"arn:aws:made-up:eu-west-1:{ACCOUNT}:first", "hidden": "x"}


def test_protection_parents_and_dependencies_are_recorded() -> None:
    def program() -> None:
        made = secret("first")
        aws.secretsmanager.SecretVersion("value", secret_id=made.arn, secret_string="v")

    recording = record(program)
    entry = recording.resource("first", ":Secret")
    assert (entry.protect, entry.parent) == (True, "first")
    assert recording.resource("first", ":SecretEntry").parent == "goldlake-dev"
    assert recording.resource("value").depends_on == {"first"}


def test_a_provider_function_that_nothing_answers_is_named() -> None:
    with pytest.raises(Exception, match="aws:index/getRegion:getRegion, and nothing was given to answer it"):
        record(lambda: {"region": aws.get_region_output().name})


def ways(source: str) -> Iterator[str]:
    """Yield the ways of UNAWAITED that a module takes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute):
            text = ast.unparse(node)
            yield from (way for way in UNAWAITED if text == way or text.endswith(f".{way}"))
        if isinstance(node, ast.ImportFrom):
            full = (f"{node.module}.{name.name}" for name in node.names)
            yield from (way for name in full for way in UNAWAITED if name == way or name.endswith(f".{way}"))


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_runs_a_program_that_it_could_forget_to_await(path: Path) -> None:
    assert list(ways(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pulumi\n@pulumi.runtime.test\ndef test_x(): ...",
        "from pulumi.runtime import test",
        "import pulumi\npulumi.runtime.set_mocks(None)",
        "from pulumi.runtime.mocks import set_mocks",
        "from pulumi.runtime.stack import run_pulumi_func",
    ],
)
def test_such_a_way_is_found(source: str) -> None:
    assert list(ways(source))


def test_a_test_that_returns_something_is_an_error(pytestconfig: pytest.Config) -> None:
    """A test that returns an Output has asked nothing; pytest warns of it, and warnings are errors here."""
    assert pytestconfig.getini("filterwarnings")[0] == "error"
