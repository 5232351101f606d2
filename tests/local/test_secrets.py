"""Seeding, listing and the doctor on the emulator, with its own account's keys and with a role's."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from runtime.aws import Connection
from runtime.catalogue import load_catalogue
from runtime.cli import GoldlakeGroup
from runtime.errors import AccessDeniedError
from runtime.generators import Place
from runtime.secrets import SeedResult, seed
from runtime.secrets_cli import secrets
from runtime.secrets_doctor import Check, Reply, ask, diagnose, exit_code
from runtime.secrets_states import states
from runtime.target import Target, save_target

OVERRIDES = {"OVERRIDE_USERNAME": "somebody-nobody-may-see", "OVERRIDE_PASSWORD": "an-override-nobody-may-see"}
SEEDERS = 4


@pytest.fixture
def prefix(aws: Connection) -> str:
    """Return a prefix that no entry has yet."""
    assert aws.is_emulator
    return f"goldlake-{uuid.uuid4().hex[:8]}"


def values(aws: Connection, prefix: str, name: str) -> dict[str, str]:
    answer = aws.client("secretsmanager").get_secret_value(SecretId=f"{prefix}/{name}")
    found: dict[str, str] = json.loads(answer["SecretString"])
    return found


def everything(aws: Connection, prefix: str) -> dict[Place, str]:
    return {(name, key): value for name in load_catalogue().secrets for key, value in values(aws, prefix, name).items()}


def versions(aws: Connection, prefix: str, name: str) -> int:
    listed = aws.client("secretsmanager").list_secret_version_ids(SecretId=f"{prefix}/{name}", IncludeDeprecated=True)
    return len(listed["Versions"])


def together(count: int, do: Callable[[int], list[SeedResult]]) -> list[list[SeedResult]]:
    """Do it in so many threads at the same moment, and return what each answered."""
    start, found = threading.Barrier(count), []

    def one(number: int) -> None:
        start.wait()
        found.append(do(number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == count
    return found


def test_seeding_twice_writes_once(aws: Connection, prefix: str) -> None:
    assert {result.outcome for result in seed(aws, prefix=prefix, environment={})} == {"created"}
    assert {result.outcome for result in seed(aws, prefix=prefix, environment={})} == {"unchanged"}
    assert {versions(aws, prefix, name) for name in load_catalogue().secrets} == {1}
    catalogue = load_catalogue()
    assert everything(aws, prefix) == {place: catalogue.local_default(*place) for place, _key in catalogue.places()}


def test_a_deleted_entry_is_restored_with_its_values(aws: Connection, prefix: str) -> None:
    seed(aws, prefix=prefix, environment={}, generate=True)
    before = everything(aws, prefix)
    aws.client("secretsmanager").delete_secret(SecretId=f"{prefix}/minio", RecoveryWindowInDays=7)
    assert {state.state for state in states(aws, prefix=prefix) if state.name == f"{prefix}/minio"} == {
        "scheduled for deletion"
    }
    results = {result.name: result.outcome for result in seed(aws, prefix=prefix, environment={}, generate=True)}
    assert results.pop(f"{prefix}/minio") == "restored"
    assert set(results.values()) == {"unchanged"}
    assert everything(aws, prefix) == before


def test_a_rotation_leaves_the_version_before_it(aws: Connection, prefix: str) -> None:
    seed(aws, prefix=prefix, environment={}, generate=True)
    before = everything(aws, prefix)
    results = seed(aws, prefix=prefix, environment={}, generate=True, rotate=["airflow.FERNET_KEY"])
    assert [(result.name, result.keys) for result in results if result.keys] == [(f"{prefix}/airflow", ("FERNET_KEY",))]
    after = everything(aws, prefix)
    assert {place for place in before if before[place] != after[place]} == {("airflow", "FERNET_KEY")}
    client = aws.client("secretsmanager")
    previous = client.get_secret_value(SecretId=f"{prefix}/airflow", VersionStage="AWSPREVIOUS")
    assert json.loads(previous["SecretString"])["FERNET_KEY"] == before["airflow", "FERNET_KEY"]


@pytest.mark.parametrize("held", ["nothing", "an empty entry", "half of the keys", "a deleted entry"])
def test_seeders_at_once_end_with_the_same_values(aws: Connection, prefix: str, held: str) -> None:
    client = aws.client("secretsmanager")
    if held != "nothing":
        client.create_secret(Name=f"{prefix}/airflow")
    if held in {"half of the keys", "a deleted entry"}:
        client.put_secret_value(SecretId=f"{prefix}/airflow", SecretString='{"FERNET_KEY": "kept"}')
    if held == "a deleted entry":
        client.delete_secret(SecretId=f"{prefix}/airflow", RecoveryWindowInDays=7)
    found = together(SEEDERS, lambda _n: seed(aws, prefix=prefix, environment={}, generate=True, workers=4))
    final = everything(aws, prefix)
    assert held in {"nothing", "an empty entry"} or final["airflow", "FERNET_KEY"] == "kept"
    outcomes = [{result.name: result for result in results} for results in found]
    for name in load_catalogue().secrets:
        created = [report for report in outcomes if report[f"{prefix}/{name}"].outcome == "created"]
        assert len(created) == (0 if name == "airflow" and held != "nothing" else 1), name
    # Who comes later changes nothing any more.
    assert {result.outcome for result in seed(aws, prefix=prefix, environment={}, generate=True)} == {"unchanged"}
    assert everything(aws, prefix) == final


def test_seeders_with_different_overrides_end_with_those_of_one_of_them(aws: Connection, prefix: str) -> None:
    def one(number: int) -> list[SeedResult]:
        given = {"OVERRIDE_USERNAME": f"user-{number}", "OVERRIDE_PASSWORD": f"password-{number}"}
        return seed(aws, prefix=prefix, environment=given, only=["redshift-admin"])

    together(SEEDERS, one)
    final = values(aws, prefix, "redshift-admin")
    assert final["username"].removeprefix("user-") == final["password"].removeprefix("password-")


def test_no_value_is_in_what_the_command_says(
    aws: Connection, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path))
    for name, value in OVERRIDES.items():
        monkeypatch.setenv(name, value)
    save_target(Target("localstack", aws, {"warehouse_login_owner": "seed"}))

    def goldlake(*arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            GoldlakeGroup("goldlake", {"secrets": secrets}).main(["secrets", *arguments, "--prefix", prefix])
        return ended.value.code

    codes = [
        goldlake("seed", "--dry-run"),
        goldlake("seed", "--generate"),
        goldlake("seed", "--output", "json", "--rotate", "minio", "--generate"),
        goldlake("seed", "--only", "nope"),
        goldlake("list", "--output", "json", "--stack", "localstack"),
        goldlake("list", "--stack", "localstack"),
        goldlake("doctor", "--stack", "localstack"),
    ]
    said = capfd.readouterr()
    text = said.out + said.err
    assert codes == [0, 0, 0, 64, 0, 0, 0], text
    assert "MINIO_ROOT_PASSWORD" in text
    assert f"{prefix}/minio: created" in said.err
    # Names of users are declared openly.
    found = {value for value in everything(aws, prefix).values() if len(value) > 10}
    assert len(found) > 8
    assert {value for value in found if value in text} == set()


def test_no_value_is_in_a_log_at_any_level(aws: Connection, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seed(aws, prefix=prefix, environment=OVERRIDES, generate=True)
    states(aws, prefix=prefix)
    found = everything_quietly(aws, prefix, caplog)
    assert {value for value in found if len(value) > 10 and value in caplog.text} == set()


def everything_quietly(aws: Connection, prefix: str, caplog: pytest.LogCaptureFixture) -> set[str]:
    with caplog.at_level(logging.INFO):
        return set(everything(aws, prefix).values())


class Throttled(Connection):
    """A connection whose every operation is refused once as one call too many, and then goes through."""

    refused: set[str]

    def client(self, service: str) -> Any:
        from botocore.awsrequest import AWSResponse
        from botocore.compat import HTTPHeaders

        client = super().client(service)

        def refuse(request: Any, **_event: Any) -> AWSResponse | None:
            operation = request.headers["X-Amz-Target"].decode()
            if operation in self.refused:
                return None
            self.refused.add(operation)
            answer = io.BytesIO(b'{"__type": "ThrottlingException", "message": "Rate exceeded"}')
            answer.stream = lambda: iter([answer.read()])  # type: ignore[attr-defined] # as urllib3's response
            return AWSResponse(request.url, 400, HTTPHeaders(), answer)

        client.meta.events.register("before-send.secrets-manager", refuse)
        return client


def test_throttled_calls_are_tried_again(aws: Connection, prefix: str) -> None:
    throttled = Throttled(aws.endpoint_url, aws.region)
    object.__setattr__(throttled, "refused", set())
    # One at a time, so that no operation is refused twice in a row.
    (result,) = seed(throttled, prefix=prefix, environment={}, only=["minio"], workers=1)
    assert result.outcome == "created"
    assert {operation.split(".")[1] for operation in throttled.refused} == {
        "GetSecretValue",
        "DescribeSecret",
        "CreateSecret",
    }


# --- A role's permissions


class Role(Connection):
    """A connection with keys of its own on the emulator, which takes them for a role's."""

    keys: tuple[str, str, str]

    def client(self, service: str) -> Any:
        from boto3 import Session

        access, secret, token = self.keys
        session = Session(access, secret, token, region_name=self.region)
        make: Any = session.client
        return make(service, endpoint_url=self.endpoint_url)


@pytest.fixture
def role(aws: Connection) -> Iterator[Callable[[list[str], str], Role]]:
    """Return a function that makes a role with a policy of such actions on a resource, and signs in as it."""
    iam, made = aws.client("iam"), []

    def sign_in(actions: list[str], resource: str) -> Role:
        name = f"seeder-{uuid.uuid4().hex[:8]}"
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))["Role"]["Arn"]
        made.append(name)
        allow = {"Effect": "Allow", "Action": actions, "Resource": resource}
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document(allow))
        found = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        connection = Role(aws.endpoint_url, aws.region)
        object.__setattr__(connection, "keys", (found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]))
        return connection

    yield sign_in
    for name in made:
        iam.delete_role_policy(RoleName=name, PolicyName="own")
        iam.delete_role(RoleName=name)


def document(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


ENTRIES = "arn:aws:secretsmanager:*:*:secret:{prefix}/*"
SEEDING = ["secretsmanager:" + action for action in ("GetSecretValue", "DescribeSecret", "CreateSecret")]
SEEDING += ["secretsmanager:" + action for action in ("PutSecretValue", "RestoreSecret")]
SignIn = Callable[[list[str], str], Role]


def test_a_role_with_five_permissions_on_the_prefix_can_seed(aws: Connection, prefix: str, role: SignIn) -> None:
    seeder = role(SEEDING, ENTRIES.format(prefix=prefix))
    assert {result.outcome for result in seed(seeder, prefix=prefix, environment={})} == {"created"}
    aws.client("secretsmanager").delete_secret(SecretId=f"{prefix}/trino", RecoveryWindowInDays=7)
    again = seed(seeder, prefix=prefix, environment=OVERRIDES)
    assert {result.outcome for result in again} == {"restored", "updated", "unchanged"}
    with pytest.raises(AccessDeniedError):
        seed(seeder, prefix="another", environment={})


@pytest.mark.parametrize("without", ["GetSecretValue", "CreateSecret", "PutSecretValue", "RestoreSecret"])
def test_a_missing_permission_is_named_and_no_value_with_it(
    aws: Connection, prefix: str, role: SignIn, without: str
) -> None:
    seed(aws, prefix=prefix, environment={}, only=["redshift-admin", "minio"])
    if without == "RestoreSecret":
        aws.client("secretsmanager").delete_secret(SecretId=f"{prefix}/redshift-admin", RecoveryWindowInDays=7)
    actions = [action for action in SEEDING if not action.endswith(without)]
    seeder = role(actions, ENTRIES.format(prefix=prefix))
    with pytest.raises(AccessDeniedError) as refused:
        seed(seeder, prefix=prefix, environment=OVERRIDES, only=["redshift-admin", "minio", "trino"])
    assert without in refused.value.message
    assert not any(value in f"{refused.value!r} {refused.value.__cause__!r}" for value in OVERRIDES.values())


def checks(connection: Connection, prefix: str) -> tuple[dict[str, Check], int]:
    found = list(diagnose(connection, prefix=prefix))
    return {check.name: check for check in found}, exit_code(found)


def test_the_doctor_finds_nothing_wrong_with_the_emulator(aws: Connection, prefix: str) -> None:
    found, code = checks(aws, prefix)
    assert code == 0
    assert {name for name, check in found.items() if check.state != "ok"} <= {"clock"}
    assert "an emulator on this machine" in found["endpoint"].detail


def test_the_doctor_names_the_permissions_that_a_role_lacks(aws: Connection, prefix: str, role: SignIn) -> None:
    fetcher = role([*SEEDING[:2], "iam:SimulatePrincipalPolicy"], "*")
    found, code = checks(fetcher, prefix)
    assert code == 2
    assert found["GetSecretValue"].state == found["DescribeSecret"].state == "ok"
    for action in ("ListSecrets", "CreateSecret", "PutSecretValue", "RestoreSecret"):
        assert found[action].state == "failed", found[action]
        assert f"allow secretsmanager:{action}" in (found[action].hint or "")
    assert "role/seeder-" in found["credentials"].detail or "assumed-role/seeder-" in found["credentials"].detail


def test_the_doctor_tries_no_write_when_iam_does_not_tell(aws: Connection, prefix: str, role: SignIn) -> None:
    found, _code = checks(role(SEEDING, "*"), prefix)
    assert {found[action].state for action in ("CreateSecret", "PutSecretValue", "RestoreSecret")} == {"not tried"}
    assert aws.client("secretsmanager").list_secrets(Filters=[{"Key": "name", "Values": [prefix]}])["SecretList"] == []


# --- What the doctor asks an endpoint


@contextlib.contextmanager
def server(status: int, date: bool) -> Iterator[str]:
    """A server on loopback that answers each request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            if date:
                self.send_header("Date", "Sat, 21 Nov 2026 12:00:00 GMT")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        thread.join()


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_any_answer_is_one_and_tells_the_time(status: int) -> None:
    with server(status, date=True) as url:
        assert ask(url) == Reply(("127.0.0.1",), datetime(2026, 11, 21, 12, tzinfo=UTC))
    with server(status, date=False) as url:
        assert ask(url).date is None


def test_a_port_that_nobody_listens_on_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            ask(f"http://127.0.0.1:{taken.getsockname()[1]}")
