"""The doctor of the secrets: what each check finds, what it says to do, and the exit code."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

import runtime.secrets_doctor
from runtime.aws import Connection
from runtime.cli import GoldlakeGroup
from runtime.errors import ConfigurationError
from runtime.secrets_cli import secrets
from runtime.secrets_doctor import Check, Reply, diagnose, exit_code

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
AWS_URL = "https://secretsmanager.eu-west-1.amazonaws.com"
WRITES = ("CreateSecret", "PutSecretValue", "RestoreSecret")
READS = ("ListSecrets", "DescribeSecret", "GetSecretValue", "BatchGetSecretValue")
CALLER = "arn:aws:sts::111122223333:assumed-role/seeder/session"


def error(code: str, message: str = "made up") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class Clients:
    """Every client at once: answers from a table, method -> answer or exception; requests are listed."""

    def __init__(self) -> None:
        self.meta = SimpleNamespace(endpoint_url=AWS_URL)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "list_secrets": {"SecretList": []},
            "describe_secret": error("ResourceNotFoundException"),
            "get_secret_value": error("ResourceNotFoundException"),
            "batch_get_secret_value": {"SecretValues": [], "Errors": [{"ErrorCode": "ResourceNotFoundException"}]},
            "get_caller_identity": {"Arn": CALLER},
            "simulate_principal_policy": decisions("allowed"),
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            self.requests.append((name, request))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def decisions(decision: str) -> dict[str, Any]:
    return {
        "EvaluationResults": [
            {"EvalActionName": f"secretsmanager:{action}", "EvalDecision": decision} for action in WRITES
        ]
    }


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Return what every connection's clients are; its session has a region and credentials."""
    fake = Clients()
    session = SimpleNamespace(region_name="eu-west-1", get_credentials=lambda: SimpleNamespace(method="env"))
    monkeypatch.setattr(Connection, "client", lambda _self, _service: fake)
    monkeypatch.setattr(Connection, "session", session)
    return fake


def reply(address: str = "52.1.2.3", off: timedelta = timedelta()) -> Callable[[str], Reply]:
    return lambda _url: Reply((address,), NOW - off)


def silent(reason: OSError) -> Callable[[str], Reply]:
    def fail(_url: str) -> Reply:
        raise urllib.error.URLError(reason)

    return fail


def diagnosed(
    connection: Connection | None = None, ask: Callable[[str], Reply] | None = None
) -> tuple[dict[str, Check], int]:
    found = list(diagnose(connection or Connection(region="eu-west-1"), ask=ask or reply(), now=lambda: NOW))
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}, exit_code(found)


def test_all_is_well_on_aws_itself(clients: Clients) -> None:
    found, code = diagnosed()
    assert code == 0
    assert [check.state for check in found.values()] == ["ok"] * len(found)
    assert list(found) == ["catalogue", "region", "endpoint", "clock", "credentials", *READS, *WRITES]
    assert found["endpoint"].detail == f"{AWS_URL}: AWS itself, over the internet"
    assert found["credentials"].detail == CALLER


def test_no_write_is_made_and_no_declared_secret_is_read(clients: Clients) -> None:
    diagnosed()
    made = dict(clients.requests)
    assert set(made) == set(clients.answers)
    assert made["get_secret_value"] == {"SecretId": "goldlake/goldlake-doctor-probe"}


@pytest.mark.parametrize(
    ("connection", "url", "address", "kind"),
    [
        (Connection(region="r"), AWS_URL, "10.0.0.7", "AWS itself, through a VPC endpoint"),
        (Connection("http://127.0.0.1:4566"), "http://127.0.0.1:4566", "127.0.0.1", "an emulator on this machine"),
        (Connection("http://10.0.0.9:4566"), "http://10.0.0.9:4566", "10.0.0.9", "neither AWS nor an emulator"),
    ],
)
def test_the_endpoint_is_told_for_what_it_is(
    clients: Clients, connection: Connection, url: str, address: str, kind: str
) -> None:
    clients.meta.endpoint_url = url
    found, _code = diagnosed(connection, reply(address))
    assert kind in found["endpoint"].detail


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        (TimeoutError("timed out"), "interface endpoint for secretsmanager with private DNS"),
        (ssl.SSLCertVerificationError("self-signed"), "AWS_CA_BUNDLE"),
        (socket.gaierror(-2, "Name or service not known"), "spelling"),
    ],
)
def test_an_endpoint_that_does_not_answer_says_why_and_nothing_else_is_tried(
    clients: Clients, reason: OSError, hint: str
) -> None:
    found, code = diagnosed(ask=silent(reason))
    assert code == 2
    assert found["endpoint"].state == "failed"
    assert str(reason) in found["endpoint"].detail
    assert hint in (found["endpoint"].hint or "")
    assert {found[name].state for name in ("clock", *READS, *WRITES)} == {"not tried"}
    assert {name for name, _request in clients.requests} == {"get_caller_identity"}


def test_an_emulator_that_does_not_answer_is_to_be_started(clients: Clients) -> None:
    found, code = diagnosed(Connection("http://127.0.0.1:4566"), silent(ConnectionRefusedError("refused")))
    assert (found["endpoint"].hint, code) == ("goldlake local up", 2)


@pytest.mark.parametrize(
    ("off", "state", "words"),
    [
        (timedelta(seconds=300), "ok", "300 s off"),
        (timedelta(seconds=-300), "ok", "300 s off"),
        (timedelta(seconds=301), "failed", "301 s fast"),
        (timedelta(hours=-1), "failed", "3,600 s slow"),
    ],
)
def test_a_clock_that_is_more_than_five_minutes_off_fails(
    clients: Clients, off: timedelta, state: str, words: str
) -> None:
    found, code = diagnosed(ask=reply(off=off))
    assert (found["clock"].state, code) == (state, 1 if state == "failed" else 0)
    assert words in found["clock"].detail


def test_an_endpoint_that_does_not_tell_the_time_is_no_failure(clients: Clients) -> None:
    found, code = diagnosed(ask=lambda _url: Reply(("52.1.2.3",), None))
    assert (found["clock"].state, code) == ("not tried", 0)


def test_without_a_region_nothing_else_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_self: Connection) -> Any:
        raise ConfigurationError("no AWS region is set", hint="give --region or set AWS_REGION")

    monkeypatch.setattr(Connection, "session", property(none))
    found, code = diagnosed(Connection())
    assert code == 1
    assert found["region"].hint == "give --region or set AWS_REGION"
    assert {check.state for name, check in found.items() if name not in {"catalogue", "region"}} == {"not tried"}
    assert list(found) == ["catalogue", "region", "endpoint", "clock", "credentials", *READS, *WRITES]


def test_a_catalogue_with_faults_fails(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty() -> None:
        raise ConfigurationError("secrets.yml has 1 fault")

    monkeypatch.setattr(runtime.secrets_doctor, "load_catalogue", faulty)
    found, code = diagnosed()
    assert (found["catalogue"].state, code) == ("failed", 1)


def test_without_credentials_the_permissions_are_not_tried(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = SimpleNamespace(region_name="eu-west-1", get_credentials=lambda: None)
    monkeypatch.setattr(Connection, "session", nobody)
    found, code = diagnosed()
    assert (found["credentials"].state, found["credentials"].detail, code) == ("failed", "there are none", 2)
    assert {found[name].state for name in (*READS, *WRITES)} == {"not tried"}
    assert clients.requests == []


def test_credentials_that_have_expired_fail_with_what_to_do(clients: Clients) -> None:
    clients.answers["get_caller_identity"] = error("ExpiredToken", "expired")
    found, code = diagnosed()
    assert (found["credentials"].state, code) == ("failed", 2)
    assert "aws sso login" in (found["credentials"].hint or "")


def test_a_token_service_out_of_reach_does_not_keep_the_reads_from_being_tried(clients: Clients) -> None:
    clients.answers["get_caller_identity"] = ConnectTimeoutError(endpoint_url="https://sts")
    found, code = diagnosed()
    assert (found["credentials"].state, code) == ("not tried", 0)
    assert "interface endpoint for sts" in (found["credentials"].hint or "")
    assert {found[name].state for name in READS} == {"ok"}
    assert {found[name].state for name in WRITES} == {"not tried"}


@pytest.mark.parametrize("action", READS)
def test_a_read_that_is_refused_names_the_permission(clients: Clients, action: str) -> None:
    method = "".join(f"_{c.lower()}" if c.isupper() else c for c in action).removeprefix("_")
    clients.answers[method] = error("AccessDeniedException", f"not authorized to perform secretsmanager:{action}")
    found, code = diagnosed()
    assert (found[action].state, found[action].hint, code) == ("failed", f"allow secretsmanager:{action}", 2)
    assert {found[name].state for name in READS if name != action} == {"ok"}


def test_a_batch_whose_reads_are_refused_inside_fails(clients: Clients) -> None:
    clients.answers["batch_get_secret_value"] = {"Errors": [{"ErrorCode": "AccessDeniedException"}]}
    found, code = diagnosed()
    assert (found["BatchGetSecretValue"].state, code) == ("failed", 2)


def test_a_read_that_times_out_hints_at_the_vpcs_endpoint(clients: Clients) -> None:
    clients.answers["list_secrets"] = ConnectTimeoutError(endpoint_url=AWS_URL)
    found, code = diagnosed()
    assert (found["ListSecrets"].state, code) == ("failed", 2)
    assert "interface endpoint" in (found["ListSecrets"].hint or "")


def test_a_read_that_fails_otherwise_says_how(clients: Clients) -> None:
    clients.answers["get_secret_value"] = error("InvalidParameterException", "odd")
    found, code = diagnosed()
    assert (found["GetSecretValue"].state, code) == ("failed", 2)
    assert "odd" in found["GetSecretValue"].detail


def test_writes_are_asked_from_iam_for_the_role_of_a_session(clients: Clients) -> None:
    clients.answers["simulate_principal_policy"] = decisions("implicitDeny")
    found, code = diagnosed()
    assert code == 2
    assert found["PutSecretValue"].detail == "implicitDeny, says IAM's simulation"
    assert "secretsmanager:PutSecretValue" in (found["PutSecretValue"].hint or "")
    request = dict(clients.requests)["simulate_principal_policy"]
    assert request["PolicySourceArn"] == "arn:aws:iam::111122223333:role/seeder"
    assert request["ActionNames"] == [f"secretsmanager:{action}" for action in WRITES]
    (entry,) = request["ResourceArns"]
    assert entry.startswith("arn:aws:secretsmanager:eu-west-1:111122223333:secret:goldlake/")


def test_writes_that_iam_does_not_tell_about_are_not_tried(clients: Clients) -> None:
    clients.answers["simulate_principal_policy"] = error("AccessDenied", "not you")
    found, code = diagnosed()
    assert ({found[action].state for action in WRITES}, code) == ({"not tried"}, 0)
    assert "not you" in found["PutSecretValue"].detail


def test_the_accounts_root_is_not_simulated(clients: Clients) -> None:
    clients.answers["get_caller_identity"] = {"Arn": "arn:aws:iam::111122223333:root"}
    found, _code = diagnosed()
    assert {found[action].state for action in WRITES} == {"ok"}
    assert "simulate_principal_policy" not in dict(clients.requests)


def test_what_cannot_be_reached_counts_more_than_what_is_wrong_here() -> None:
    failed = [Check("a", "failed", "", exit_code=1), Check("b", "failed", "", exit_code=2), Check("c", "ok", "")]
    assert (exit_code(failed), exit_code(failed[:1]), exit_code(failed[2:]), exit_code([])) == (2, 1, 0, 0)


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_command_shows_every_check_and_ends_with_its_code(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    monkeypatch.setattr(
        "runtime.secrets_doctor.diagnose",
        lambda _aws, prefix: iter([Check("region", "ok", prefix), Check("clock", "failed", "slow", "set it", 1)]),
    )
    command = ["secrets", "doctor", "--endpoint-url", "http://127.0.0.1:1", "--prefix", "acme", "--output", output]
    with pytest.raises(SystemExit) as ended:
        GoldlakeGroup("goldlake", {"secrets": secrets}).main(command)
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (1, "")
    if output == "text":
        assert said.out == "ok         region: acme\nfailed     clock: slow\n           try: set it\n"
        return
    assert json.loads(said.out) == {
        "schema": "goldlake.doctor/1",
        "checks": [
            {"name": "region", "state": "ok", "detail": "acme", "hint": None},
            {"name": "clock", "state": "failed", "detail": "slow", "hint": "set it"},
        ],
    }
