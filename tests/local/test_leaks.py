"""The search for leaked values finds one wherever it is planted, and passes over the places where values belong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from runtime.catalogue import load_catalogue
from tests.local.leaks import Leaks, hearing, learning, of_report, open_texts
from tests.local.support import REPOSITORY, wait_for

VALUE = "planted-0123456789"
QUOTED = 'two "lines"\nand a $(sign) 0123456789abcdefghijklmnop'


@pytest.fixture
def leaks() -> Leaks:
    found = Leaks()
    found.learn("minio.PASSWORD", VALUE)
    found.learn("minio.QUOTED", QUOTED)
    return found


@pytest.mark.parametrize("name", ["emulator.log", "deep/down/state.json", "dbt/logs/dbt.log", "core.env", "state/x"])
@pytest.mark.parametrize("value", [VALUE, QUOTED, json.dumps(QUOTED), repr(QUOTED), f"...{VALUE}..."])
def test_a_planted_value_is_found_in_a_file_and_named_by_its_key(
    leaks: Leaks, tmp_path: Path, name: str, value: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\x00 before " + value.encode() + b"\n")
    (found,) = leaks.in_files(tmp_path)
    assert found.startswith(f"{path}: minio.")
    assert value not in found


def test_values_belong_into_the_emulators_state_and_into_what_fetch_writes(leaks: Leaks, tmp_path: Path) -> None:
    for name in ("home/emulator/state/secretsmanager.json", "s/core.env"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(VALUE)
        path.chmod(0o600)
    assert leaks.in_files(tmp_path) == []
    (tmp_path / "s" / "core.env").chmod(0o644)
    assert leaks.in_files(tmp_path) == [f"{tmp_path}/s/core.env: minio.PASSWORD"]


def program(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program that waits until its input ends."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)


def seen(leaks: Leaks, process: subprocess.Popen[bytes]) -> list[str]:
    """Return what is found of a process that is looked at while it runs."""
    with process, leaks.watching_processes():
        wait_for(lambda: [where for where, _text in leaks.said if f"process {process.pid} " in where], "look at it")
        wait_for(lambda: psutil.Process(process.pid).cmdline(), "arguments")
        assert process.stdin is not None
        process.stdin.close()
    return leaks.in_texts()


def test_a_value_among_the_arguments_of_a_process_is_found(leaks: Leaks) -> None:
    (found,) = seen(leaks, program("--password", VALUE))
    assert found.startswith("arguments of process ")
    assert VALUE not in found


def test_a_value_in_a_variable_is_found_unless_the_variable_is_meant_to_carry_it(leaks: Leaks) -> None:
    (found,) = seen(leaks, program(SOMETHING=VALUE, MINIO_ROOT_PASSWORD=VALUE, OVERRIDE_PASSWORD=VALUE))
    assert found.startswith("variable SOMETHING of process ")


def test_a_value_in_an_exception_or_in_output_is_found(leaks: Leaks, capsys: pytest.CaptureFixture[str]) -> None:
    report = SimpleNamespace(nodeid="a::b", sections=[("Captured log call", VALUE)])
    of_report(leaks, report, ValueError(VALUE))  # type: ignore[arg-type] # as much of a report as is read
    print(VALUE)
    captured: Any = SimpleNamespace(readouterr=capsys.readouterr, request=SimpleNamespace(node=report))
    assert hearing(leaks, lambda capture: capture.readouterr())(captured).out == f"{VALUE}\n"
    places = [found.partition(": ")[0] for found in leaks.in_texts()]
    assert places == ["Captured log call of a::b", "exception of a::b", "stdout of a::b"]


TESTS = """
import pytest
from runtime.secrets import local_default

PASSWORD = local_default("redshift-admin", "password")

def test_a(tmp_path):
    (tmp_path / "a.log").write_text({leak})

def test_b():
    print({leak})

def test_c(capsys):
    print({leak})
    capsys.readouterr()

def test_d():
    pytest.skip({leak})
"""


@pytest.mark.parametrize(
    ("leak", "places"),
    [
        ("'nothing'", ()),
        ("PASSWORD", ("a.log", "Captured stdout call of test_b", "stdout of test_c", "exception of test_d")),
    ],
)
def test_a_run_of_tests_fails_when_they_leak(tmp_path: Path, leak: str, places: tuple[str, ...]) -> None:
    (tmp_path / "conftest.py").write_text("from tests.local.conftest import _no_value_leaks, pytest_runtest_makereport")
    (tmp_path / "test_run.py").write_text(TESTS.format(leak=leak))
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "run"), "--rootdir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_run.py")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == bool(places), run.stdout
    said = run.stdout.replace("test_run.py::", "")
    assert [place for place in places if f"{place}: redshift-admin.password" not in said] == []
    # What this run leaves is searched, too.
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("operation", ["PutSecretValue", "GetSecretValue", "BatchGetSecretValue"])
def test_values_are_learned_from_calls_of_secrets_manager(operation: str) -> None:
    entry = {"Name": "goldlake-1/minio", "SecretString": json.dumps({"MINIO_ROOT_PASSWORD": VALUE})}
    asked = entry if operation.startswith("Put") else {}
    answer = {"BatchGetSecretValue": {"SecretValues": [entry]}, "GetSecretValue": entry}.get(operation, {})
    client = SimpleNamespace(meta=SimpleNamespace(service_model=SimpleNamespace(service_name="secretsmanager")))
    leaks = Leaks()
    assert learning(leaks, lambda *_: answer)(client, operation, asked) == answer
    assert leaks.values == {VALUE: "goldlake-1/minio.MINIO_ROOT_PASSWORD"}


def test_what_is_short_or_declared_openly_is_not_looked_for() -> None:
    leaks = Leaks()
    leaks.learn("a.b", "admin")
    for text in open_texts():
        leaks.learn("a.b", text)
    leaks.learn_entry("made-by-aws", json.dumps({"host": "a-host.example.com", "port": 5439}))
    assert leaks.values == {}
    assert leaks.in_texts() == []


def test_every_default_that_is_made_is_looked_for() -> None:
    leaks = Leaks()
    leaks.learn_defaults()
    password = load_catalogue().local_default("redshift-admin", "password")
    assert password in leaks.values
    assert len(leaks.values) > 10


def test_the_watcher_ends_with_the_run(leaks: Leaks) -> None:
    before = threading.active_count()
    with leaks.watching_processes():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
