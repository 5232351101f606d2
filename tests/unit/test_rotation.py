"""Rotation of the warehouse's login: four steps, each of which may be called again, and killed anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redshift_connector
from botocore.exceptions import ClientError

from lambdas.rotate import handler
from runtime import rotation
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.rotation import STEPS, new_password, password_hash, rotate
from runtime.warehouse import Warehouse
from stacks.transform import ROTATION_HANDLER

ENTRY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:goldlake/redshift-admin-abcdef"
FIRST, SECOND, THIRD = (f"{number}" * 8 + "-0000-0000-0000-000000000000" for number in (1, 2, 3))
OLD = "Old-password-1"
USER = 'ad"min'


class Killed(BaseException):
    """The function ends here, as Lambda ends one that ran too long."""


@dataclass
class Clock:
    """Counts the calls that leave the function, and kills it at one of them: before it has worked, or after."""

    kill_at: int = -1
    after: bool = False
    calls: int = 0

    def during(self, work: Callable[[], Any]) -> Any:
        self.calls += 1
        killed = self.calls - 1 == self.kill_at
        if killed and not self.after:
            raise Killed
        try:
            return work()
        finally:
            if killed:
                raise Killed


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Call")


@dataclass
class SecretsManager:
    """What Secrets Manager does with versions and labels; a rotation's own version is there before its value."""

    clock: Clock
    values: dict[str, str] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    enabled: bool | None = True
    denied: bool = False

    def begin(self, token: str) -> None:
        for labels in self.labels.values():
            if "AWSPENDING" in labels:
                labels.remove("AWSPENDING")
        self.labels[token] = ["AWSPENDING"]

    def describe_secret(self, **given: str) -> dict[str, Any]:
        def describe() -> dict[str, Any]:
            if self.denied:
                raise refused("AccessDeniedException")
            enabled = {} if self.enabled is None else {"RotationEnabled": self.enabled}
            return {"VersionIdsToStages": {key: list(value) for key, value in self.labels.items()}, **enabled}

        assert given == {"SecretId": ENTRY}
        return dict(self.clock.during(describe))

    def get_secret_value(self, **given: str) -> dict[str, str]:
        def get() -> dict[str, str]:
            holders = [version for version, labels in self.labels.items() if given["VersionStage"] in labels]
            if not holders or given.get("VersionId") not in (None, holders[0]) or holders[0] not in self.values:
                raise refused("ResourceNotFoundException")
            return {"SecretString": self.values[holders[0]]}

        assert given["SecretId"] == ENTRY
        return dict(self.clock.during(get))

    def put_secret_value(self, **given: Any) -> None:
        def put() -> None:
            if self.values.setdefault(given["ClientRequestToken"], given["SecretString"]) != given["SecretString"]:
                raise refused("ResourceExistsException")

        assert (given["SecretId"], given["VersionStages"]) == (ENTRY, ["AWSPENDING"])
        self.clock.during(put)

    def update_secret_version_stage(self, **given: str) -> None:
        def move() -> None:
            source, target = given["RemoveFromVersionId"], given["MoveToVersionId"]
            assert "AWSCURRENT" in self.labels[source]
            for labels in self.labels.values():
                if "AWSPREVIOUS" in labels:
                    labels.remove("AWSPREVIOUS")
            self.labels[source].remove("AWSCURRENT")
            self.labels[source].append("AWSPREVIOUS")
            self.labels[target].append("AWSCURRENT")

        assert (given["SecretId"], given["VersionStage"]) == (ENTRY, "AWSCURRENT")
        self.clock.during(move)

    def login(self, label: str) -> dict[str, str]:
        (version,) = [version for version, labels in self.labels.items() if label in labels]
        return dict(json.loads(self.values[version]))


@dataclass
class Database:
    """A warehouse with one user, whose password it keeps as Redshift does."""

    clock: Clock
    stored: str = field(default_factory=lambda: password_hash(USER, OLD))
    statements: list[str] = field(default_factory=list)
    open_sessions: int = 0
    failure: Exception | None = None
    down: bool = False

    def sign_in(self, user: str, password: str) -> Database:
        def check() -> Database:
            if self.down:
                raise UnreachableError("the warehouse does not answer")
            if user != USER or self.stored != password_hash(user, password):
                raise UnreachableError("password authentication failed")
            self.open_sessions += 1
            return self

        return self.clock.during(check)  # type: ignore[no-any-return]  # what `check` returns

    def cursor(self) -> Database:
        return self

    def execute(self, statement: str) -> None:
        def run() -> None:
            self.statements.append(statement)
            if self.failure is not None:
                raise self.failure
            changed = re.fullmatch(r"ALTER USER \"ad\"\"min\" PASSWORD '(md5[0-9a-f]{32})'", statement)
            if changed:
                self.stored = changed[1]
            else:
                assert statement == "select 1"

        self.clock.during(run)

    def close(self) -> None:
        self.open_sessions -= 1


@dataclass
class World:
    clock: Clock
    secrets: SecretsManager
    database: Database

    def call(self, step: str, token: str = SECOND) -> None:
        event = {"SecretId": ENTRY, "ClientRequestToken": token, "Step": step}
        rotate(event, self.secrets, self.database.sign_in, secret_id=ENTRY)

    def rotate(self, token: str = SECOND) -> None:
        for step in STEPS:
            self.call(step, token)


def before_a_rotation() -> World:
    """Return an entry whose password signs in, and the version of the rotation that begins."""
    clock = Clock()
    secrets = SecretsManager(clock, {FIRST: json.dumps({"username": USER, "password": OLD})}, {FIRST: ["AWSCURRENT"]})
    secrets.begin(SECOND)
    return World(clock, secrets, Database(clock))


@pytest.fixture
def world() -> World:
    return before_a_rotation()


# --- the password ---


def test_a_new_password_keeps_redshifts_rules() -> None:
    passwords = {new_password() for _ in range(300)}
    assert len(passwords) == 300
    for password in passwords:
        assert re.fullmatch(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[a-zA-Z0-9]{32}", password)


def test_a_password_without_a_digit_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter("aB" * 16 + "a1" * 16 + "B1" * 16 + "aB1x" * 8)
    monkeypatch.setattr("runtime.rotation.secrets.choice", lambda _alphabet: next(draws))
    assert new_password() == "aB1x" * 8


def test_the_warehouse_is_given_the_hash_that_redshift_documents() -> None:
    # CREATE USER, "PASSWORD": md5 of the password and the user name, one after the other.
    hashed = hashlib.md5(b"ez" + b"jane", usedforsecurity=False).hexdigest()
    assert password_hash("jane", "ez") == f"md5{hashed}"


# --- the four steps ---


def test_the_four_steps_change_the_password_in_the_warehouse_and_in_the_entry(world: World) -> None:
    world.rotate()
    now = world.secrets.login("AWSCURRENT")
    assert now["username"] == USER
    assert now["password"] != OLD
    assert world.database.stored == password_hash(USER, now["password"])
    assert world.secrets.login("AWSPREVIOUS")["password"] == OLD
    assert world.database.open_sessions == 0


def test_create_puts_a_version_that_differs_in_the_password_only(world: World) -> None:
    world.secrets.values[FIRST] = json.dumps({"username": USER, "password": OLD, "engine": "redshift"})
    world.call("createSecret")
    assert {**world.secrets.login("AWSPENDING"), "password": OLD} == json.loads(world.secrets.values[FIRST])
    assert world.secrets.login("AWSCURRENT")["password"] == OLD
    assert world.database.stored == password_hash(USER, OLD)


def test_create_keeps_the_password_that_the_version_has(world: World) -> None:
    world.call("createSecret")
    first = world.secrets.login("AWSPENDING")
    world.call("createSecret")
    assert world.secrets.login("AWSPENDING") == first


def test_of_two_creates_at_once_the_first_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = json.dumps({"username": USER, "password": "Their-password-1"})
    get = world.secrets.get_secret_value

    def slow(**wanted: Any) -> dict[str, str]:
        try:
            return get(**wanted)
        except ClientError:
            world.secrets.values[SECOND] = theirs
            raise

    monkeypatch.setattr(world.secrets, "get_secret_value", slow)
    world.call("createSecret")
    assert world.secrets.values[SECOND] == theirs


def test_set_twice_changes_the_password_once(world: World) -> None:
    world.call("createSecret")
    world.call("setSecret")
    world.call("setSecret")
    assert [statement.split()[0] for statement in world.database.statements] == ["ALTER"]
    assert world.database.open_sessions == 0


def test_set_signs_in_with_the_previous_password_if_the_current_is_not_the_warehouses(world: World) -> None:
    world.rotate()
    # Somebody put the old password back into the warehouse.
    world.database.stored = password_hash(USER, OLD)
    world.secrets.begin(THIRD)
    world.rotate(THIRD)
    assert world.database.stored == password_hash(USER, world.secrets.login("AWSCURRENT")["password"])


def test_set_fails_if_no_password_signs_in_and_changes_nothing(world: World) -> None:
    world.database.stored = password_hash(USER, "Another-1")
    world.call("createSecret")
    with pytest.raises(UnreachableError, match="signs in, neither new nor old: password authentication failed"):
        world.call("setSecret")
    assert world.database.statements == []


def test_a_version_for_another_user_is_refused(world: World) -> None:
    world.secrets.values[SECOND] = json.dumps({"username": "somebody", "password": "Other-password-1"})
    with pytest.raises(ConfigurationError, match="a rotation changes the password alone"):
        world.call("setSecret")
    assert world.database.statements == []


def test_a_warehouse_that_takes_no_password_fails_the_step_with_its_code_only(world: World) -> None:
    world.call("createSecret")
    stored = password_hash(USER, world.secrets.login("AWSPENDING")["password"])
    world.database.failure = redshift_connector.ProgrammingError({"C": "42501", "M": f"denied: PASSWORD '{stored}'"})
    with pytest.raises(FailedError) as failed:
        world.call("setSecret")
    assert failed.value.message == "the warehouse takes no new password: SQLSTATE 42501"
    assert failed.value.code == "42501"
    assert failed.value.__cause__ is None
    assert world.database.open_sessions == 0


def test_a_connection_that_breaks_fails_the_step(world: World) -> None:
    world.call("createSecret")
    world.database.failure = BrokenPipeError()
    with pytest.raises(FailedError, match="takes no new password: BrokenPipeError"):
        world.call("setSecret")


def test_test_fails_if_the_new_password_does_not_sign_in(world: World) -> None:
    world.call("createSecret")
    with pytest.raises(UnreachableError):
        world.call("testSecret")
    world.call("setSecret")
    world.call("testSecret")
    world.call("testSecret")
    assert world.database.statements[-2:] == ["select 1", "select 1"]
    assert world.database.open_sessions == 0


def test_test_fails_if_the_session_answers_no_query(world: World) -> None:
    world.call("createSecret")
    world.call("setSecret")
    world.database.failure = redshift_connector.InterfaceError("connection is closed")
    with pytest.raises(FailedError, match="no query after the sign-in: InterfaceError"):
        world.call("testSecret")


def test_the_trial_that_secrets_manager_makes_of_a_new_schedule_passes(world: World) -> None:
    # RotateSecret without a rotation at once: a pending copy of the current value, and testSecret alone.
    world.secrets.values[SECOND] = world.secrets.values[FIRST]
    world.secrets.enabled = None
    world.call("testSecret")
    assert world.database.statements == ["select 1"]


def test_finish_does_not_make_an_empty_version_current(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no value under AWSPENDING"):
        world.call("finishSecret")
    assert world.secrets.labels[FIRST] == ["AWSCURRENT"]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_a_rotation_that_is_done_does_nothing(world: World, step: str) -> None:
    world.rotate()
    values, labels, stored = dict(world.secrets.values), world.secrets.labels.copy(), world.database.stored
    world.call(step)
    assert (world.secrets.values, world.secrets.labels, world.database.stored) == (values, labels, stored)


def test_each_step_called_twice_ends_as_when_called_once(world: World) -> None:
    for step in STEPS:
        world.call(step)
        world.call(step)
    assert world.database.stored == password_hash(USER, world.secrets.login("AWSCURRENT")["password"])
    assert world.secrets.login("AWSPREVIOUS")["password"] == OLD


def test_one_rotation_after_the_other_keeps_the_last_two_passwords(world: World) -> None:
    world.rotate(SECOND)
    second = world.secrets.login("AWSCURRENT")
    world.secrets.begin(THIRD)
    world.rotate(THIRD)
    assert world.secrets.login("AWSPREVIOUS") == second
    assert world.secrets.login("AWSCURRENT") != second
    assert world.database.stored == password_hash(USER, world.secrets.login("AWSCURRENT")["password"])


def calls_of_a_rotation() -> int:
    world = before_a_rotation()
    world.rotate()
    return world.clock.calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(calls_of_a_rotation()))
def test_a_rotation_killed_at_any_call_is_finished_by_calling_its_steps_again(call: int, after: bool) -> None:
    world = before_a_rotation()
    world.clock.kill_at, world.clock.after = call, after
    with pytest.raises(Killed):
        world.rotate()
    # Whatever happened, one of the passwords that Secrets Manager keeps signs in.
    kept = {password_hash(USER, json.loads(value)["password"]) for value in world.secrets.values.values()}
    assert world.database.stored in kept
    world.rotate()
    now = world.secrets.login("AWSCURRENT")["password"]
    assert now != OLD
    assert world.database.stored == password_hash(USER, now)
    assert world.secrets.login("AWSPREVIOUS")["password"] == OLD
    assert sum(statement.startswith("ALTER") for statement in world.database.statements) == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Step": "deleteSecret"}, "Step = 'deleteSecret': one of createSecret, setSecret, testSecret, finishSecret"),
        ({"Step": ""}, "the event has no Step"),
        ({"ClientRequestToken": None}, "the event has no ClientRequestToken"),
        ({"SecretId": 1, "Step": None}, "the event has no SecretId, Step"),
        ({"SecretId": f"{ENTRY}x"}, f"this function rotates {ENTRY} alone"),
    ],
)
def test_an_event_that_is_no_rotation_of_this_entry_is_refused_before_any_call(
    world: World, change: dict[str, Any], reason: str
) -> None:
    event = {"SecretId": ENTRY, "ClientRequestToken": SECOND, "Step": "createSecret", **change}
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        rotate(event, world.secrets, world.database.sign_in, secret_id=ENTRY)
    assert world.clock.calls == 0


@pytest.mark.parametrize("step", STEPS)
def test_an_entry_whose_rotation_is_off_is_left_alone(world: World, step: str) -> None:
    world.secrets.enabled = False
    with pytest.raises(ConfigurationError, match="its rotation is off"):
        world.call(step)
    assert world.clock.calls == 1


@pytest.mark.parametrize(
    ("labels", "named"), [({}, "none"), ({SECOND: []}, "none"), ({SECOND: ["AWSPREVIOUS"]}, "AWSPREVIOUS")]
)
def test_a_version_that_is_not_being_rotated_to_is_refused(
    world: World, labels: dict[str, list[str]], named: str
) -> None:
    world.secrets.labels = {FIRST: ["AWSCURRENT"], **labels}
    with pytest.raises(ConfigurationError, match=f"has the labels {named}: a rotation's own has AWSPENDING"):
        world.call("createSecret")


def test_an_entry_without_a_value_has_nothing_to_rotate(world: World) -> None:
    del world.secrets.values[FIRST]
    with pytest.raises(ConfigurationError, match="no value under AWSCURRENT"):
        world.call("createSecret")


@pytest.mark.parametrize("value", ["Plain-Text-1", "[]", '{"username": "Hidden-1"}', '{"username": "", "password": 1}'])
def test_an_entry_of_another_form_is_refused_without_its_value(world: World, value: str) -> None:
    world.secrets.values[FIRST] = value
    with pytest.raises(ConfigurationError, match="no JSON object with the texts username and password") as error:
        world.call("createSecret")
    assert value not in error.value.message
    assert "Hidden-1" not in error.value.message
    assert error.value.__cause__ is None


def test_a_missing_right_is_said_to_be_one(world: World) -> None:
    world.secrets.denied = True
    with pytest.raises(AccessDeniedError):
        world.call("createSecret")


# --- what is told ---


def test_no_password_and_no_hash_is_in_a_log_an_error_or_a_repr(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.rotate()
    world.secrets.begin(THIRD)
    world.call("createSecret", THIRD)
    world.database.stored = password_hash(USER, "Another-1")
    with pytest.raises(UnreachableError) as failed:
        world.call("setSecret", THIRD)
    told = (
        caplog.text + repr(failed.value) + repr(rotation.Rotation(world.secrets, ENTRY, THIRD, world.database.sign_in))
    )
    assert len(caplog.records) == 5
    for value in world.secrets.values.values():
        password = json.loads(value)["password"]
        assert password not in told
        assert password_hash(USER, password) not in told


def test_no_statement_holds_a_password(world: World) -> None:
    world.rotate()
    assert world.secrets.login("AWSCURRENT")["password"] not in "".join(world.database.statements)


# --- the handler ---


@pytest.fixture
def wired(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The handler between the stand-ins for Secrets Manager and the warehouse."""
    for name in ("REDSHIFT_WORKGROUP", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "REDSHIFT_HOST": "warehouse.example.com",
        "REDSHIFT_DATABASE": "analytics",
        "REDSHIFT_SECRET": ENTRY,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Connection, "client", lambda _aws, _service: world.secrets)
    monkeypatch.setattr("runtime.warehouse.read_login", lambda _aws, _id: (USER, "not used"))

    def connect(warehouse: Warehouse, timeout_seconds: int) -> Database:
        assert (warehouse.host, warehouse.database, timeout_seconds) == ("warehouse.example.com", "analytics", 60)
        return world.database.sign_in(warehouse.user, warehouse.password)

    monkeypatch.setattr(Warehouse, "connect", connect)
    return world


def test_the_handler_rotates_the_login_of_the_warehouse_in_its_environment(wired: World) -> None:
    for step in STEPS:
        answer: Any = handler.handle({"SecretId": ENTRY, "ClientRequestToken": SECOND, "Step": step}, None)  # type: ignore[func-returns-value]  # that it has none is what is tested
        assert answer is None
    assert wired.database.stored == password_hash(USER, wired.secrets.login("AWSCURRENT")["password"])


def test_the_handler_fails_when_the_step_fails_and_hides_what_is_behind(
    wired: World, caplog: pytest.LogCaptureFixture
) -> None:
    wired.secrets.denied = True
    with pytest.raises(GoldlakeError) as failed:
        handler.handle({"SecretId": ENTRY, "ClientRequestToken": SECOND, "Step": "createSecret"}, None)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    assert "AccessDeniedError: secret" in caplog.text


def test_the_handler_needs_to_know_its_entry(wired: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDSHIFT_SECRET")
    with pytest.raises(ConfigurationError, match="REDSHIFT_SECRET is missing"):
        handler.handle({"SecretId": ENTRY, "ClientRequestToken": SECOND, "Step": "createSecret"}, None)
    assert wired.clock.calls == 0


def test_the_stack_names_the_handler() -> None:
    assert f"{handler.handle.__module__}.{handler.handle.__name__}" == ROTATION_HANDLER
