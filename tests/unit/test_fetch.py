"""Fetching profiles: which calls are made, what is written and what is not, and that no value gets out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from botocore.exceptions import ClientError, EndpointConnectionError
from click.testing import CliRunner

from runtime import fetch as fetching
from runtime import fetch_cli, fetch_values
from runtime.aws import Connection
from runtime.catalogue import Catalogue, Key, Secret, load_catalogue
from runtime.cli import GoldlakeGroup
from runtime.env_formats import FORMATS, read_env
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError
from runtime.fetch import FetchReport, fetch
from runtime.fetch_diff import diff
from runtime.fetch_exec import run_with
from runtime.fetch_values import read_secrets, variables

AWS = Connection("http://127.0.0.1:4566")
VALUE = "a-value-nobody-may-see"
DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "BatchGetSecretValue")


@dataclass
class Manager:
    """Secrets Manager in memory: name -> what is answered. Calls are listed with the ids that they ask for."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Name -> the error code that it is answered with."""
    batch_error: Exception | None = None
    page: int = 20
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            self.entries[name] = {"SecretBinary": value} if isinstance(value, bytes) else {"SecretString": value}

    def _called(self, name: str, *ids: str) -> None:
        with self.lock:
            self.calls.append((name, ids))

    def batch_get_secret_value(self, *, SecretIdList: list[str], NextToken: str = "0") -> dict[str, Any]:  # noqa: N803 - AWS spells it so
        self._called("batch", *SecretIdList)
        if self.batch_error:
            raise self.batch_error
        start = int(NextToken)
        answer: dict[str, Any] = {"SecretValues": [], "Errors": []}
        for name in SecretIdList[start : start + self.page]:
            code = self.errors.get(name) or ("" if name in self.entries else "ResourceNotFoundException")
            if code:
                answer["Errors"].append({"SecretId": name, "ErrorCode": code, "Message": "why"})
            else:
                answer["SecretValues"].append({"Name": name, **self.entries[name]})
        if start + self.page < len(SecretIdList):
            answer["NextToken"] = str(start + self.page)
        return answer

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803
        self._called("single", SecretId)
        code = self.errors.get(SecretId) or ("" if SecretId in self.entries else "ResourceNotFoundException")
        if code:
            raise ClientError({"Error": {"Code": code, "Message": "why"}}, "GetSecretValue")
        return {"Name": SecretId, **self.entries[SecretId]}

    def made(self, name: str) -> list[tuple[str, ...]]:
        return sorted(ids for call, ids in self.calls if call == name)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Return the memory that every connection leads to."""
    fake = Manager()
    monkeypatch.setattr(Connection, "client", lambda _self, service: {"secretsmanager": fake}[service])
    return fake


def declared(**secrets: Any) -> Catalogue:
    """Return a catalogue: the secret's name -> its profiles, its keys with their variables, its kind."""
    made = {}
    for name, (profiles, keys, *kind) in secrets.items():
        how: Any = None
        made[name] = Secret(name, "", tuple(profiles), {k: Key(k, env, how, None) for k, env in keys.items()}, *kind)
    names = dict.fromkeys(profile for profiles, *_rest in secrets.values() for profile in profiles)
    return Catalogue(tuple(names), made)


TWO = declared(
    app=(["core", "jobs"], {"USER": "", "password": ""}),
    other=(["jobs"], {"TOKEN": "OTHER_TOKEN"}),
)


def held(manager: Manager) -> None:
    manager.put(
        {
            "goldlake/app": json.dumps({"USER": "someone", "password": VALUE, "not declared": "x"}),
            "goldlake/other": json.dumps({"TOKEN": "t"}),
        }
    )


def fetched(directory: Path, *profiles: str, catalogue: Catalogue = TWO, **options: Any) -> FetchReport:
    return fetch(AWS, profiles, directory=directory, catalogue=catalogue, **options)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- calls ---


def test_sixty_secrets_are_three_calls(manager: Manager) -> None:
    names = [f"goldlake/s{index}" for index in range(60)]
    manager.put(dict.fromkeys(names, "v"))
    read = read_secrets(AWS, names)
    assert read.held == dict.fromkeys(names, "v")
    assert read.calls == {"BatchGetSecretValue": 3}
    assert manager.made("batch") == sorted(tuple(names[start : start + 20]) for start in (0, 20, 40))
    assert manager.made("single") == []


def test_an_answer_in_pages_is_read_to_its_end(manager: Manager) -> None:
    names = [f"goldlake/s{index}" for index in range(45)]
    manager.put({name: name for name in names})
    manager.page = 8
    read = read_secrets(AWS, names)
    assert read.held == {name: name for name in names}
    assert read.calls == {"BatchGetSecretValue": 3 + 3 + 1}


def test_no_secrets_are_no_call(manager: Manager) -> None:
    assert read_secrets(AWS, []).held == {}
    assert manager.calls == []


def test_a_secret_of_several_profiles_is_read_once(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    assert fetched(tmp_path / "s").calls == {"BatchGetSecretValue": 1}
    assert manager.made("batch") == [("goldlake/app", "goldlake/other")]


def test_without_the_permission_for_batches_each_secret_is_read_by_itself(manager: Manager) -> None:
    names = [f"goldlake/s{index}" for index in range(30)]
    manager.put({name: name for name in names})
    manager.batch_error = DENIED
    read = read_secrets(AWS, names)
    assert read.held == {name: name for name in names}
    assert manager.made("single") == sorted((name,) for name in names)
    assert read.calls == {"GetSecretValue": 30}


def test_no_more_secrets_are_read_at_once_than_there_are_workers(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0
    barrier = threading.Barrier(fetch_values.WORKERS)

    def single(_self: Manager, *, SecretId: str) -> dict[str, Any]:  # noqa: N803
        nonlocal running, most
        with manager.lock:
            running += 1
            most = max(most, running)
        barrier.wait(10)
        with manager.lock:
            running -= 1
        return {"SecretString": SecretId}

    manager.batch_error = DENIED
    monkeypatch.setattr(Manager, "get_secret_value", single)
    read_secrets(AWS, [str(index) for index in range(3 * fetch_values.WORKERS)])
    assert most == fetch_values.WORKERS


def test_keys_that_aws_does_not_know_are_not_tried_one_by_one(manager: Manager) -> None:
    manager.batch_error = ClientError({"Error": {"Code": "UnrecognizedClientException"}}, "BatchGetSecretValue")
    with pytest.raises(AccessDeniedError):
        read_secrets(AWS, ["a", "b"])
    assert manager.made("single") == []


def test_a_service_that_does_not_answer_ends_it_and_leaves_the_files(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    folder = tmp_path / "s"
    fetched(folder)
    before = (folder / "core.env").read_bytes()
    manager.batch_error = EndpointConnectionError(endpoint_url=str(AWS.endpoint_url))
    with pytest.raises(UnreachableError):
        fetched(folder)
    assert (folder / "core.env").read_bytes() == before


def test_an_error_that_names_the_secret_by_its_arn_is_found(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:goldlake/a-b-Ab1Cd2"
    answer = {"SecretValues": [], "Errors": [{"SecretId": arn, "ErrorCode": "DecryptionFailure", "Message": "no key"}]}
    monkeypatch.setattr(Manager, "batch_get_secret_value", lambda _self, **_asked: answer)
    error = read_secrets(AWS, ["goldlake/a-b"]).held["goldlake/a-b"]
    assert isinstance(error, FailedError)
    assert error.message == "secret goldlake/a-b: no key (DecryptionFailure)"


def test_a_secret_that_the_answer_leaves_out_counts_as_missing(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manager, "batch_get_secret_value", lambda _self, **_asked: {})
    assert isinstance(read_secrets(AWS, ["goldlake/a"]).held["goldlake/a"], FailedError)


# --- files ---


def test_each_profile_gets_a_file_with_what_it_needs_and_no_more(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    folder = tmp_path / "new" / "secrets"
    report = fetched(folder)
    assert report.exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["core.env", "jobs.env"]
    core = {"USER": "someone", "PASSWORD": VALUE}
    assert read_env((folder / "core.env").read_text()) == core
    assert read_env((folder / "jobs.env").read_text()) == {**core, "OTHER_TOKEN": "t"}
    assert [(r.profile, r.outcome, r.variables) for r in report.profiles] == [
        ("core", "written", ("USER", "PASSWORD")),
        ("jobs", "written", ("USER", "PASSWORD", "OTHER_TOKEN")),
    ]


def test_only_the_profiles_that_were_named_are_written(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    fetched(tmp_path, "core", "core")
    assert [path.name for path in tmp_path.iterdir()] == ["core.env"]
    assert manager.made("batch") == [("goldlake/app",)]


def test_the_prefix_is_the_first_part_of_every_id(manager: Manager, tmp_path: Path) -> None:
    manager.put({"acme/app": json.dumps({"USER": "u", "password": "p"})})
    assert fetched(tmp_path, "core", prefix="acme").exit_code == 0


def test_the_projects_own_catalogue_can_be_fetched(manager: Manager, tmp_path: Path) -> None:
    catalogue = load_catalogue()
    manager.put({f"goldlake/{s.name}": json.dumps(dict.fromkeys(s.keys, "v")) for s in catalogue.secrets.values()})
    for fmt in FORMATS:
        assert fetch(AWS, directory=tmp_path / fmt, fmt=fmt).exit_code == 0
    core = read_env((tmp_path / "env" / "core.env").read_text())
    assert {"POSTGRES_AIRFLOW_USER", "POSTGRES_METASTORE_USER", "AIRFLOW__CORE__FERNET_KEY"} <= set(core)
    assert "POSTGRES_USER" not in core


def test_files_and_folder_are_for_their_owner_only_whatever_the_umask(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    before = os.umask(0)
    try:
        fetched(tmp_path / "s")
    finally:
        os.umask(before)
    assert mode(tmp_path / "s") == 0o700
    assert mode(tmp_path / "s" / "core.env") == 0o600


def test_an_equal_file_is_not_written_again(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    fetched(tmp_path)
    before = (tmp_path / "core.env").stat()
    assert {result.outcome for result in fetched(tmp_path).profiles} == {"unchanged"}
    after = (tmp_path / "core.env").stat()
    # Not the time of the last access: it was read.
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_an_equal_file_that_others_can_read_is_written_again(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    fetched(tmp_path, "core")
    (tmp_path / "core.env").chmod(0o644)
    assert fetched(tmp_path, "core").profiles[0].outcome == "written"
    assert mode(tmp_path / "core.env") == 0o600


def test_a_link_is_replaced_and_not_followed(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    (tmp_path / "elsewhere").write_text("not ours")
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    (folder / "core.env").symlink_to(tmp_path / "elsewhere")
    (folder / ".new-core.env").symlink_to(tmp_path / "elsewhere")
    fetched(folder, "core")
    assert (tmp_path / "elsewhere").read_text() == "not ours"
    assert not (folder / "core.env").is_symlink()
    assert [path.name for path in folder.iterdir()] == ["core.env"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(manager)
    done = []

    def fsync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def rename(source: str, target: str, **folders: int) -> None:
        done.append(f"{source} -> {target}")
        real(source, target, **folders)

    real = os.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    fetched(tmp_path, "core")
    assert done == [".new-core.env", ".new-core.env -> core.env", tmp_path.name]


def test_what_is_written_beside_is_gone_when_the_disk_is_full(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(manager)

    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    (core,) = fetched(tmp_path, "core").profiles
    assert core.problems == (f"{tmp_path / 'core.env'}: No space left on device",)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing_and_makes_no_folder(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    folder = tmp_path / "s"
    assert {result.outcome for result in fetched(folder, dry_run=True).profiles} == {"would be written"}
    assert not folder.exists()
    fetched(folder, "core")
    report = fetched(folder, dry_run=True)
    assert [result.outcome for result in report.profiles] == ["unchanged", "would be written"]
    assert not (folder / "jobs.env").exists()


# --- all or nothing ---


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "secret goldlake/other is not there, or has no value"),
        (json.dumps({}), "secret goldlake/other has no key TOKEN"),
        (json.dumps({"TOKEN": 5}), "secret goldlake/other: TOKEN is no JSON string"),
        (json.dumps({"TOKEN": {"a": VALUE}}), "secret goldlake/other: TOKEN is no JSON string"),
        (json.dumps([VALUE]), "secret goldlake/other holds no JSON object"),
        (VALUE, "secret goldlake/other holds no JSON object"),
        (b"bytes", "secret goldlake/other holds bytes, the catalogue says json"),
        (json.dumps({"TOKEN": VALUE + "\0"}), "OTHER_TOKEN: the value has a NUL character"),
        (json.dumps({"TOKEN": VALUE + "\ud800"}), "OTHER_TOKEN: the value is no valid Unicode"),
    ],
)
def test_a_profile_that_lacks_something_keeps_its_file_and_the_others_are_written(
    manager: Manager, tmp_path: Path, value: object, problem: str
) -> None:
    held(manager)
    fetched(tmp_path)
    before = (tmp_path / "jobs.env").read_bytes()
    manager.put({"goldlake/app": json.dumps({"USER": "new", "password": "new"}), "goldlake/other": value})
    if value is None:
        del manager.entries["goldlake/other"]
    report = fetched(tmp_path)
    core, jobs = report.profiles
    assert (core.outcome, jobs.outcome, report.exit_code) == ("written", "failed", 1)
    assert len(jobs.problems) == 1
    assert jobs.problems[0].startswith(problem)
    assert (tmp_path / "jobs.env").read_bytes() == before
    assert VALUE not in repr(report) + json.dumps(report.to_dict())


def test_every_problem_of_a_profile_is_named(manager: Manager, tmp_path: Path) -> None:
    manager.put({"goldlake/app": json.dumps({"USER": 1})})
    (jobs,) = fetched(tmp_path, "jobs").profiles
    assert jobs.problems == (
        "secret goldlake/app has no key password",
        "secret goldlake/app: USER is no JSON string",
        "secret goldlake/other is not there, or has no value",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("AccessDeniedException", 2),
        ("ThrottlingException", 2),
        ("InvalidRequestException", 1),
        ("DecryptionFailure", 1),
    ],
)
def test_a_secret_that_is_forbidden_or_busy_counts_as_infrastructure(
    manager: Manager, tmp_path: Path, code: str, exit_code: int, batches: bool
) -> None:
    held(manager)
    manager.errors["goldlake/other"] = code
    manager.batch_error = None if batches else DENIED
    report = fetched(tmp_path)
    assert [result.outcome for result in report.profiles] == ["written", "failed"]
    assert report.profiles[1].problems == (f"secret goldlake/other: why ({code})",)
    assert report.exit_code == exit_code


def test_a_file_that_cannot_be_written_is_a_problem_of_its_profile(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    (tmp_path / "core.env").mkdir()
    report = fetched(tmp_path)
    assert [result.outcome for result in report.profiles] == ["failed", "written"]
    assert report.profiles[0].problems == (f"{tmp_path / 'core.env'}: Is a directory",)
    assert report.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core.env", "jobs.env"]


# --- kinds ---


def test_a_text_and_a_binary_secret_are_one_variable_each(manager: Manager, tmp_path: Path) -> None:
    catalogue = declared(
        licence=(["core"], {"LICENCE": ""}, "text"), keystore=(["core"], {"value": "KEYSTORE"}, "binary")
    )
    manager.put({"goldlake/licence": '{"looks": "like JSON"}', "goldlake/keystore": b"\x00\xff"})
    (core,) = fetched(tmp_path, catalogue=catalogue).profiles
    assert read_env((tmp_path / "core.env").read_text()) == {"LICENCE": '{"looks": "like JSON"}', "KEYSTORE": "AP8="}
    assert core.notes == ("secret goldlake/keystore is binary: its variable has its base64",)


def test_a_binary_secret_that_holds_text_is_refused(manager: Manager, tmp_path: Path) -> None:
    manager.put({"goldlake/keystore": VALUE})
    (core,) = fetched(tmp_path, catalogue=declared(keystore=(["core"], {"K": ""}, "binary"))).profiles
    assert core.problems == ("secret goldlake/keystore holds text, the catalogue says binary",)


def test_a_name_that_is_no_variable_is_refused(manager: Manager, tmp_path: Path) -> None:
    manager.put({"goldlake/app": json.dumps({"a.b": VALUE})})
    (core,) = fetched(tmp_path, catalogue=declared(app=(["core"], {"a.b": ""}))).profiles
    assert core.problems == (
        "'A.B' is no name of an environment variable: letters, digits and _, no digit first (secret goldlake/app)",
    )


def test_a_kubernetes_secret_has_the_profiles_name(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    fetched(tmp_path, "core", fmt="k8s", namespace="data")
    manifest = yaml.safe_load((tmp_path / "core.secret.yaml").read_text())
    assert manifest["metadata"]["name"] == "goldlake-core"
    assert manifest["metadata"]["namespace"] == "data"


# --- folders ---


def test_an_unknown_profile_or_format_is_refused_before_anything_is_read(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'nobody'"):
        fetched(tmp_path, "nobody")
    with pytest.raises(ConfigurationError, match="'toml'"):
        fetched(tmp_path, fmt="toml")
    assert manager.calls == []


def test_an_empty_folder_that_others_can_enter_is_closed_and_it_is_said(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    tmp_path.chmod(0o755)
    report = fetched(tmp_path)
    assert mode(tmp_path) == 0o700
    assert report.notes == (f"{tmp_path} had mode 0755 and was empty; it has 0700 now",)


def test_a_folder_with_files_that_others_can_enter_is_refused(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    (tmp_path / "theirs").touch()
    tmp_path.chmod(0o750)
    with pytest.raises(ConfigurationError, match="has mode 0750 and is not empty"):
        fetched(tmp_path)
    assert mode(tmp_path) == 0o750
    assert manager.calls == []


def test_a_folder_of_another_user_is_refused(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        fetched(tmp_path)
    assert manager.calls == []


def test_a_file_in_the_folders_place_is_refused(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigurationError, match="is no folder"):
        fetched(tmp_path / "f")


def test_a_folder_that_the_file_system_refuses_is_a_failure(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="File name too long"):
        fetched(tmp_path / ("x" * 300))
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(FailedError, match="circle"):
        fetched(tmp_path / "circle")


def test_a_work_tree_is_refused_where_there_is_no_git_to_ask(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigurationError, match="without git nobody knows"):
        fetched(tmp_path / "deep" / "down")
    assert manager.calls == []


# --- without files ---


def test_variables_of_profiles_are_taken_together(manager: Manager) -> None:
    held(manager)
    assert variables(AWS, ["core", "jobs"], catalogue=TWO) == {"USER": "someone", "PASSWORD": VALUE, "OTHER_TOKEN": "t"}


def test_profiles_that_mean_different_keys_by_one_name_are_not_taken_together(manager: Manager) -> None:
    catalogue = declared(a=(["core"], {"X": ""}), b=(["jobs"], {"X": ""}))
    with pytest.raises(ConfigurationError, match=r"X is a\.X and, in profile jobs, b\.X"):
        variables(AWS, ["core", "jobs"], catalogue=catalogue)
    assert manager.calls == []


@pytest.mark.parametrize(("code", "error"), [("", FailedError), ("AccessDeniedException", UnreachableError)])
def test_variables_are_all_there_or_none(manager: Manager, code: str, error: type[Exception]) -> None:
    held(manager)
    del manager.entries["goldlake/other"]
    manager.errors["goldlake/other"] = code
    with pytest.raises(error, match="goldlake/other"):
        variables(AWS, ["jobs"], catalogue=TWO)


@dataclass
class Executed:
    """What the process would have become."""

    command: list[str] = field(default_factory=list)
    environment: dict[bytes, bytes] = field(default_factory=dict)
    signals: dict[int, Any] = field(default_factory=dict)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Executed:
    """Keep what the process would become."""
    kept = Executed()

    def execvpe(file: str, command: list[str], environment: dict[bytes, bytes]) -> None:
        assert file == command[0]
        kept.command, kept.environment = command, environment

    monkeypatch.setattr(os, "execvpe", execvpe)
    monkeypatch.setattr(signal, "signal", kept.signals.__setitem__)
    return kept


def test_a_command_gets_the_variables_and_they_win(executed: Executed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "before")
    monkeypatch.setenv("HOME", "kept")
    run_with({"USER": "é", "NEW": "n"}, ["env", "-0"])
    assert executed.command == ["env", "-0"]
    assert executed.environment[b"USER"] == "é".encode()
    assert executed.environment[b"NEW"] == b"n"
    assert executed.environment[b"HOME"] == b"kept"
    assert executed.signals == {signal.SIGPIPE: signal.SIG_DFL, signal.SIGXFSZ: signal.SIG_DFL}


def test_without_override_what_is_set_stays(executed: Executed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "before")
    run_with({"USER": "after", "NEW": "n"}, ["env"], override=False)
    assert (executed.environment[b"USER"], executed.environment[b"NEW"]) == (b"before", b"n")


def test_a_value_that_no_environment_can_hold_is_refused_with_its_secret(manager: Manager) -> None:
    manager.put({"goldlake/app": json.dumps({"USER": VALUE + "\0", "password": VALUE})})
    with pytest.raises(FailedError, match=r"^USER: the value has a NUL .* \(secret goldlake/app\)$") as failed:
        variables(AWS, ["core"], catalogue=TWO)
    assert VALUE not in failed.value.message


@pytest.mark.parametrize("error", [OSError(errno.E2BIG, "Argument list too long"), ValueError("embedded null byte")])
def test_a_command_that_cannot_be_started_is_named_without_its_variables(
    executed: Executed, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def execvpe(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "execvpe", execvpe)
    with pytest.raises(ConfigurationError) as refused:
        run_with({"A": VALUE}, ["env"])
    assert VALUE not in refused.value.message


# --- diff ---


def test_a_file_just_fetched_does_not_differ(manager: Manager, tmp_path: Path) -> None:
    manager.put({"goldlake/app": json.dumps({"USER": "`'\"$\r\\", "password": "\n"})})
    for fmt in ("env", "json"):
        fetched(tmp_path, "core", fmt=fmt)
        report = diff(AWS, "core", directory=tmp_path, catalogue=TWO, fmt=fmt)
        assert (report.exit_code, report.differing, report.missing, report.extra) == (0, (), (), ())


def test_a_diff_names_what_differs_is_missing_or_too_many(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    (tmp_path / "jobs.env").write_text(f"USER=someone\nOTHER_TOKEN='{VALUE}'\nOLD='{VALUE}'\n")
    report = diff(AWS, "jobs", directory=tmp_path, catalogue=TWO)
    assert (report.differing, report.missing, report.extra) == (("OTHER_TOKEN",), ("PASSWORD",), ("OLD",))
    assert report.exit_code == 1
    assert VALUE not in repr(report) + json.dumps(report.to_dict())


def test_a_file_that_is_not_there_differs(manager: Manager, tmp_path: Path) -> None:
    held(manager)
    report = diff(AWS, "core", directory=tmp_path, catalogue=TWO)
    assert (report.exists, report.missing, report.exit_code) == (False, ("USER", "PASSWORD"), 1)


@pytest.mark.parametrize(("fmt", "content"), [("env", f"A=$({VALUE})"), ("json", f'["{VALUE}"]'), ("json", VALUE)])
def test_a_file_that_cannot_be_read_is_said_without_its_content(
    manager: Manager, tmp_path: Path, fmt: str, content: str
) -> None:
    held(manager)
    (tmp_path / f"core.{fmt}").write_text(content)
    with pytest.raises(FailedError) as failed:
        diff(AWS, "core", directory=tmp_path, catalogue=TWO, fmt=fmt)
    assert VALUE not in failed.value.message
    assert str(tmp_path) in failed.value.message


# --- values stay inside ---


def test_no_repr_of_what_is_read_has_a_value(manager: Manager) -> None:
    held(manager)
    assert VALUE not in repr(read_secrets(AWS, ["goldlake/app"]))
    found, _calls = fetch_values.collect(AWS, ["core"], TWO, "goldlake")
    assert VALUE not in repr(found)


def test_an_error_about_a_value_does_not_carry_it_along(manager: Manager) -> None:
    # json's own error has the whole text in an attribute, and an exception keeps the one it was raised in.
    manager.put({"goldlake/app": VALUE})
    with pytest.raises(FailedError) as failed:
        variables(AWS, ["core"], catalogue=TWO)
    assert failed.value.__context__ is None


# --- commands ---


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> click.Group:
    """Return a group with the three commands, for a home without stacks and the small catalogue."""
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for module in (fetching, fetch_values):
        monkeypatch.setattr(module, "load_catalogue", lambda: TWO)
    commands = [fetch_cli.fetch_command, fetch_cli.exec_command, fetch_cli.diff_command]
    return GoldlakeGroup("secrets", {str(command.name): command for command in commands})


def test_fetch_says_what_it_wrote_and_no_value(manager: Manager, cli: click.Group, tmp_path: Path) -> None:
    held(manager)
    answer = CliRunner().invoke(cli, ["fetch"])
    assert answer.exit_code == 0
    assert "written" in answer.stdout
    assert VALUE not in answer.output
    assert (tmp_path / "home" / "secrets" / "core.env").is_file()


def test_fetch_as_json_has_a_schema_and_the_calls(manager: Manager, cli: click.Group, tmp_path: Path) -> None:
    held(manager)
    del manager.entries["goldlake/other"]
    answer = CliRunner().invoke(cli, ["fetch", "--dir", str(tmp_path / "s"), "--output", "json"])
    assert answer.exit_code == 1
    shown = json.loads(answer.stdout)
    assert shown["schema"] == "goldlake.fetch/1"
    assert [profile["outcome"] for profile in shown["profiles"]] == ["written", "failed"]
    assert shown["calls"] == {"BatchGetSecretValue": 1}


def test_stdout_has_the_file_and_nothing_else(manager: Manager, cli: click.Group, tmp_path: Path) -> None:
    held(manager)
    answer = CliRunner().invoke(cli, ["fetch", "core", "--stdout"])
    assert answer.exit_code == 0
    assert read_env(answer.stdout) == {"USER": "someone", "PASSWORD": VALUE}
    assert answer.stderr == ""
    assert not (tmp_path / "home").exists()


def test_stdout_has_nothing_when_a_value_cannot_be_carried(manager: Manager, cli: click.Group) -> None:
    manager.put({"goldlake/app": json.dumps({"USER": "u", "password": VALUE + "\ufeff"})})
    answer = CliRunner().invoke(cli, ["fetch", "core", "--stdout", "--format", "systemd"])
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "PASSWORD: the value has U+FEFF" in answer.stderr
    assert VALUE not in answer.stderr


def test_secrets_are_not_shown_on_a_terminal(
    manager: Manager, cli: click.Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held(manager)

    class Terminal:
        isatty = staticmethod(lambda: True)

    monkeypatch.setattr(fetch_cli, "sys", type("System", (), {"stdout": Terminal}))
    answer = CliRunner().invoke(cli, ["fetch", "core", "--stdout"])
    assert answer.exit_code == 64
    assert VALUE not in answer.output
    assert manager.calls == []


@pytest.mark.parametrize(
    "arguments",
    [["core", "jobs", "--stdout"], ["--stdout"], ["core", "--stdout", "--dir", "x"], ["core", "--stdout", "--dry-run"]],
)
def test_stdout_takes_one_profile_and_no_files(manager: Manager, cli: click.Group, arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["fetch", *arguments]).exit_code == 64
    assert manager.calls == []


def test_exec_runs_the_command_as_it_stands(manager: Manager, cli: click.Group, executed: Executed) -> None:
    held(manager)
    answer = CliRunner().invoke(
        cli, ["exec", "--profile", "core", "--profile", "jobs", "--", "cmd", "--profile", "x", "-h"]
    )
    assert answer.exit_code == 0, answer.output
    assert executed.command == ["cmd", "--profile", "x", "-h"]
    assert executed.environment[b"PASSWORD"] == VALUE.encode()
    assert answer.output == ""


@pytest.mark.parametrize("arguments", [["--profile", "core"], ["--", "cmd"], ["--profile", "core", "--"]])
def test_exec_needs_a_profile_and_a_command(manager: Manager, cli: click.Group, arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["exec", *arguments]).exit_code == 64
    assert manager.calls == []


def test_diff_shows_names_and_says_by_its_code_whether_they_are_equal(
    manager: Manager, cli: click.Group, tmp_path: Path
) -> None:
    held(manager)
    folder = tmp_path / "s"
    fetched(folder)
    arguments = ["diff", "jobs", "--against", str(folder)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    manager.put({"goldlake/other": json.dumps({"TOKEN": VALUE})})
    answer = CliRunner().invoke(cli, arguments)
    assert answer.exit_code == 1
    assert "OTHER_TOKEN" in answer.stdout
    assert VALUE not in answer.output
    shown = json.loads(CliRunner().invoke(cli, [*arguments, "--output", "json"]).stdout)
    assert (shown["schema"], shown["differing"]) == ("goldlake.secrets-diff/1", ["OTHER_TOKEN"])


def test_one_variable_says_where_the_secrets_are(
    cli: click.Group, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert fetch_cli.connection_of(None, Connection()) == Connection()
    kept = tmp_path / "home" / "stacks" / "localstack.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"endpoint_url": "http://127.0.0.1:1", "region": "us-east-1", "outputs": {}}))
    assert fetch_cli.connection_of(None, Connection()).endpoint_url == "http://127.0.0.1:1"
    assert fetch_cli.connection_of(None, Connection(profile="prod")).endpoint_url is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    assert fetch_cli.connection_of(None, Connection()).endpoint_url == "http://127.0.0.1:2"
    assert fetch_cli.connection_of("localstack", Connection()).endpoint_url == "http://127.0.0.1:1"
    assert fetch_cli.connection_of(None, Connection("http://127.0.0.1:3")).endpoint_url == "http://127.0.0.1:3"


def test_the_commands_load_no_heavy_library_until_they_run() -> None:
    source = Path(str(sys.modules[fetch_cli.__name__].__file__)).read_text()
    assert "\nfrom runtime.fetch" not in source
