"""The seeder of Secrets Manager: what it writes, what it leaves alone, and that no value gets out."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import runtime.secrets
import runtime.secrets_cli
from runtime.aws import Connection, nothing_of_the_wire_logged
from runtime.catalogue import Catalogue, load_catalogue
from runtime.cli import GoldlakeGroup
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError
from runtime.secrets import SeedResult, local_default, seed
from runtime.secrets_cli import secrets as commands
from runtime.secrets_entry import MAX_BYTES, read_entry
from runtime.secrets_states import states
from runtime.secrets_values import override_name
from runtime.target import Target, save_target

EMULATOR = Connection("http://127.0.0.1:4566")
AWS = Connection(region="eu-west-1")
LOGIN = "goldlake/redshift-admin"
OVERRIDES = {"OVERRIDE_USERNAME": "someone", "OVERRIDE_PASSWORD": "an-override-nobody-may-see"}


class _Error(ClientError):
    code = ""

    def __init__(self, message: str = "made up") -> None:
        super().__init__({"Error": {"Code": self.code, "Message": message}}, "Operation")


class NotFoundError(_Error):
    code = "ResourceNotFoundException"


class InvalidRequestError(_Error):
    code = "InvalidRequestException"


class ExistsError(_Error):
    code = "ResourceExistsException"


class Exceptions:
    """The client's attribute of that name."""

    ResourceNotFoundException = NotFoundError
    InvalidRequestException = InvalidRequestError
    ResourceExistsException = ExistsError


@dataclass
class Stored:
    """An entry: versions by id, the current one's id, and whether it is scheduled for deletion."""

    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    current: str | None = None
    deleted: bool = False


@dataclass
class Manager:
    """Secrets Manager in memory, as its API reference says it behaves. Writes are listed."""

    entries: dict[str, Stored] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda _call, _name: None
    exceptions: type[Exceptions] = Exceptions
    lock: Any = field(default_factory=threading.RLock)

    def _stored(self, call: str, name: str) -> Stored:
        self.calls.append(call)
        self.before(call, name)
        if name not in self.entries:
            raise NotFoundError
        return self.entries[name]

    def describe_secret(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803 - AWS spells it so
        with self.lock:
            stored = self._stored("describe", SecretId)
            stages = {version: ["AWSCURRENT"] for version in stored.versions if version == stored.current}
            deleted = {"DeletedDate": datetime(2026, 1, 1, tzinfo=UTC)} if stored.deleted else {}
            return {"Name": SecretId, "VersionIdsToStages": stages, **deleted}

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803
        with self.lock:
            stored = self._stored("get", SecretId)
            if stored.deleted:
                raise InvalidRequestError
            if stored.current is None:
                raise NotFoundError
            return {"VersionId": stored.current, **stored.versions[stored.current]}

    def create_secret(self, *, Name: str, ClientRequestToken: str, Description: str, **value: Any) -> None:  # noqa: N803
        with self.lock:
            assert Description
            self.calls.append("create")
            self.before("create", Name)
            if Name in self.entries:
                raise ExistsError
            self.writes.append(("create", Name))
            self.entries[Name] = Stored()
            self._put(self.entries[Name], ClientRequestToken, value)

    def put_secret_value(self, *, SecretId: str, ClientRequestToken: str, **value: Any) -> None:  # noqa: N803
        with self.lock:
            stored = self._stored("put", SecretId)
            assert not stored.deleted
            kept = stored.versions.get(ClientRequestToken)
            if kept is not None:
                if {k: v for k, v in kept.items() if k.startswith("Secret")} != value:
                    raise ExistsError
                return
            self.writes.append(("put", SecretId))
            self._put(stored, ClientRequestToken, value)

    def restore_secret(self, *, SecretId: str) -> None:  # noqa: N803
        with self.lock:
            stored = self._stored("restore", SecretId)
            if not stored.deleted:
                raise InvalidRequestError
            self.writes.append(("restore", SecretId))
            stored.deleted = False

    def _put(self, stored: Stored, token: str, value: dict[str, Any]) -> None:
        assert 32 <= len(token) <= 64
        stored.versions[token] = {**value, "CreatedDate": datetime.now(UTC) - timedelta(days=2)}
        stored.current = token

    def hold(self, name: str, value: Any, *, deleted: bool = False) -> None:
        """Let an entry hold a JSON value, text or bytes, None for none yet."""
        stored = self.entries.setdefault(name, Stored())
        stored.deleted = deleted
        if value is not None:
            kind = "SecretBinary" if isinstance(value, bytes) else "SecretString"
            content = value if isinstance(value, bytes | str) else json.dumps(value)
            self._put(stored, f"by-hand-{len(stored.versions):032}", {kind: content})

    def raw(self, name: str) -> Any:
        stored = self.entries[name]
        assert stored.current is not None
        kept = stored.versions[stored.current]
        return kept.get("SecretString", kept.get("SecretBinary"))

    def value(self, name: str = LOGIN) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads(self.raw(name))
        return kept


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Return the memory that every connection leads to. Nothing waits."""
    fake = Manager()
    monkeypatch.setattr(Connection, "client", lambda _self, service: {"secretsmanager": fake}[service])
    monkeypatch.setattr("runtime.secrets.time.sleep", lambda _seconds: None)
    return fake


Declare = Callable[[dict[str, Any]], Catalogue]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Return a function that makes a catalogue of secrets."""

    def from_file(secrets: dict[str, Any]) -> Catalogue:
        whole = {name: {"description": "d", "profiles": ["core"], **entry} for name, entry in secrets.items()}
        path = tmp_path / "secrets.yml"
        path.write_text(yaml.safe_dump({"version": 1, "profiles": ["core"], "secrets": whole}, sort_keys=False))
        return load_catalogue(path)

    return from_file


@pytest.fixture
def small(declare: Declare) -> Catalogue:
    """Return a catalogue of a user and a generated password, and a key made of both."""
    return declare(
        {
            "db": {"keys": {"USER": {"generate": {"fixed": "me"}}, "PASSWORD": {"generate": {"password": 20}}}},
            "app": {
                "keys": {
                    "DB": {"generate": {"template": "pg://{db.USER}:{db.PASSWORD:url}@db"}},
                    "SAME": {"generate": {"from": "db.PASSWORD"}},
                    "KEY": {"generate": "fernet"},
                }
            },
        }
    )


def login(**options: Any) -> SeedResult:
    """Seed the warehouse's login into the emulator, and return the outcome."""
    (result,) = seed(EMULATOR, **{"environment": {}, "only": ["redshift-admin"], **options})
    return result


def outcomes(results: list[SeedResult]) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {result.name.split("/", 1)[1]: (result.outcome, result.keys) for result in results}


def local_defaults(secret: str = "redshift-admin") -> dict[str, str]:  # noqa: S107 - its name
    return {key: local_default(secret, key) for key in load_catalogue().secrets[secret].keys}


# --- Values of a laptop


def test_local_defaults_are_the_same_on_every_machine() -> None:
    # Written down here: a change of the derivation locks people out of the warehouse that they have.
    assert local_default("redshift-admin", "username") == "admin"
    assert local_default("redshift-admin", "password") == "eGLvQcSqn7xDWZ3KZC7OlnJjFiBuE9Hk"
    assert local_default("airflow", "FERNET_KEY") == "4Vyt73mkII-I3ktEO17NXh2sSmbZN6gfk47Q0Xjf994="
    assert local_default("minio", "MINIO_ROOT_PASSWORD") == "DMDw2wdHRe7KSJrEtstmlqA6LKuqdtwGp0Y06VlJ"


def test_the_emulator_gets_every_secret_with_its_local_defaults(manager: Manager) -> None:
    results = seed(EMULATOR, environment={})
    assert {result.outcome for result in results} == {"created"}
    for name in load_catalogue().secrets:
        assert manager.value(f"goldlake/{name}") == local_defaults(name)


def test_the_prefix_is_the_first_part_of_every_id(manager: Manager) -> None:
    assert login(prefix="acme").name == "acme/redshift-admin"
    assert set(manager.entries) == {"acme/redshift-admin"}


def test_seeding_again_writes_nothing(manager: Manager) -> None:
    seed(EMULATOR, environment={})
    manager.writes.clear()
    assert {(result.outcome, result.keys) for result in seed(EMULATOR, environment={})} == {("unchanged", ())}
    assert manager.writes == []


# --- What is there already


@pytest.mark.parametrize("connection", [EMULATOR, AWS])
def test_a_value_that_is_there_stays(manager: Manager, connection: Connection) -> None:
    manager.hold("goldlake/minio", {"MINIO_ROOT_USER": "ours", "MINIO_ROOT_PASSWORD": "chosen by somebody"})
    (result,) = seed(connection, environment={}, only=["minio"])
    assert (result.outcome, result.keys) == ("unchanged", ())
    assert manager.writes == []


def test_only_the_keys_that_are_missing_are_added_and_named(manager: Manager) -> None:
    manager.hold(LOGIN, {"password": "another"})
    assert login() == SeedResult(LOGIN, "updated", ("username",))
    assert manager.value() == {"password": "another", "username": "admin"}


def test_keys_that_the_catalogue_does_not_have_stay(manager: Manager) -> None:
    manager.hold(LOGIN, {"host": "there", "port": 5432, "tags": ["a"], "password": ""})
    login()
    assert manager.value() == {**local_defaults(), "host": "there", "port": 5432, "tags": ["a"]}


def test_a_value_that_is_no_text_stays_as_it_is(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": 7, "password": "x"})
    assert login().outcome == "unchanged"


def test_an_entry_without_a_value_yet_gets_one(manager: Manager) -> None:
    manager.hold(LOGIN, None)
    assert login().outcome == "updated"
    assert manager.value() == local_defaults()


def test_an_entry_with_an_empty_value_as_an_emulator_makes_it_gets_one(manager: Manager) -> None:
    manager.hold(LOGIN, "")
    assert login().outcome == "updated"


def test_an_entry_that_is_scheduled_for_deletion_is_restored_and_keeps_its_values(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "old", "password": "old"}, deleted=True)
    said: list[str] = []
    assert login(progress=said.append) == SeedResult(LOGIN, "restored", ())
    assert said == [f"{LOGIN}: restored"]
    assert manager.writes == [("restore", LOGIN)]
    assert manager.value() == {"username": "old", "password": "old"}


def test_a_restored_entry_gets_the_keys_that_it_lacks(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "old"}, deleted=True)
    assert login() == SeedResult(LOGIN, "restored", ("password",))
    assert manager.writes == [("restore", LOGIN), ("put", LOGIN)]


def test_an_entry_that_another_seeder_restores_first_is_not_said_to_be_restored(manager: Manager) -> None:
    manager.hold(LOGIN, local_defaults(), deleted=True)

    def other(call: str, _name: str) -> None:
        if call == "restore":
            manager.entries[LOGIN].deleted = False

    manager.before = other
    assert login() == SeedResult(LOGIN, "unchanged", ())


@pytest.mark.parametrize("held", ["a plain text nobody may see", '["nobody may see"]', b"nobody may see"])
def test_an_entry_that_is_no_json_object_is_left_alone_and_not_shown(manager: Manager, held: Any) -> None:
    manager.hold(LOGIN, held)
    with pytest.raises(FailedError, match="holds no JSON object; it is left as it is") as refused:
        seed(EMULATOR, environment={})
    assert "nobody may see" not in str(refused.value)
    assert manager.raw(LOGIN) == held
    assert manager.writes == []


def test_entries_that_are_made_elsewhere_are_neither_read_nor_written(manager: Manager) -> None:
    results = seed(EMULATOR, environment={}, only=["redshift-admin"], made_elsewhere=["redshift-admin"])
    assert results == [SeedResult(LOGIN, "not seeded", ())]
    assert manager.calls == []


# --- AWS itself


def test_aws_itself_gets_generated_values(manager: Manager, small: Catalogue) -> None:
    results = seed(AWS, environment={}, catalogue=small)
    assert outcomes(results) == {
        "db": ("created", ("USER", "PASSWORD")),
        "app": ("created", ("DB", "SAME", "KEY")),
    }
    password = manager.value("goldlake/db")["PASSWORD"]
    assert password != small.local_default("db", "PASSWORD")
    assert manager.value("goldlake/db")["USER"] == "me"
    assert manager.value("goldlake/app")["DB"] == f"pg://me:{password}@db"
    assert manager.value("goldlake/app")["SAME"] == password
    assert outcomes(seed(AWS, environment={}, catalogue=small)) == {"db": ("unchanged", ()), "app": ("unchanged", ())}


def test_two_accounts_never_get_the_same_generated_value(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small)
    seed(AWS, environment={}, catalogue=small, prefix="other")
    assert manager.value("goldlake/db")["PASSWORD"] != manager.value("other/db")["PASSWORD"]
    assert manager.value("goldlake/app")["KEY"] != manager.value("other/app")["KEY"]


def test_an_emulator_gets_generated_values_when_they_are_asked_for(manager: Manager) -> None:
    seed(EMULATOR, environment={}, generate=True)
    assert manager.value("goldlake/minio")["MINIO_ROOT_PASSWORD"] != local_defaults("minio")["MINIO_ROOT_PASSWORD"]
    # Nothing generates these.
    assert manager.value() == local_defaults()


def test_keys_whose_value_nobody_gives_are_refused_on_aws_itself_before_anything_is_written(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match="which everyone knows") as refused:
        seed(AWS, environment={})
    logins = ("redshift-admin", "redshift-dbt")
    nobodys = ", ".join(f"{name}.{key}" for name in logins for key in ("username", "password"))
    assert refused.value.message.startswith(f"{nobodys} would get")
    assert "set OVERRIDE_USERNAME and OVERRIDE_PASSWORD" in (refused.value.hint or "")
    assert "--allow-development-defaults" in (refused.value.hint or "")
    assert manager.writes == []


def test_only_those_that_nobody_gives_are_named(manager: Manager) -> None:
    with pytest.raises(ConfigurationError) as refused:
        seed(AWS, environment={"OVERRIDE_USERNAME": "someone", "OVERRIDE_PASSWORD": ""}, only=["redshift-admin"])
    assert refused.value.message.startswith("redshift-admin.password would")
    manager.hold(LOGIN, {"password": "there"})
    with pytest.raises(ConfigurationError, match=r"^redshift-admin\.username would"):
        seed(AWS, environment={}, only=["redshift-admin"])


@pytest.mark.parametrize("endpoint", ["https://secretsmanager.eu-west-1.amazonaws.com", "http://10.0.0.1:4566"])
def test_an_endpoint_off_this_machine_is_no_emulator(manager: Manager, endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        seed(Connection(endpoint), environment={}, only=["redshift-admin"])
    assert manager.writes == []


def test_aws_itself_takes_overrides_for_every_key_and_development_defaults_when_allowed(manager: Manager) -> None:
    seed(AWS, environment=OVERRIDES, only=["redshift-admin"])
    assert manager.value() == {"username": "someone", "password": OVERRIDES["OVERRIDE_PASSWORD"]}
    seed(AWS, environment={}, allow_development_defaults=True, prefix="other")
    assert manager.value("other/redshift-admin") == local_defaults()
    assert manager.value("other/minio") == local_defaults("minio")


def test_what_a_restore_may_bring_back_is_not_refused_before(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "u", "password": "p"}, deleted=True)
    (result,) = seed(AWS, environment={}, only=["redshift-admin"])
    assert result == SeedResult(LOGIN, "restored", ())
    manager.hold(LOGIN, {"username": "u"}, deleted=True)
    with pytest.raises(ConfigurationError, match=r"^redshift-admin\.password would"):
        seed(AWS, environment={}, only=["redshift-admin"])


# --- Overrides


def test_an_override_replaces_one_value_and_leaves_the_others(manager: Manager) -> None:
    login()
    assert login(environment={"OVERRIDE_PASSWORD": "custom"}) == SeedResult(LOGIN, "updated", ("password",))
    assert manager.value() == {**local_defaults(), "password": "custom"}
    assert login().outcome == "unchanged"


def test_overrides_come_from_the_process_environment_by_default(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERRIDE_USERNAME", "someone")
    seed(EMULATOR)
    assert manager.value()["username"] == "someone"


@pytest.mark.parametrize(
    ("key", "name"), [("password", "OVERRIDE_PASSWORD"), ("tls.key", "OVERRIDE_TLS_KEY"), ("A_B", "OVERRIDE_A_B")]
)
def test_the_variable_of_a_key_is_in_capitals_and_can_be_set(key: str, name: str) -> None:
    assert override_name(key) == name


def test_an_override_of_a_key_in_several_secrets_replaces_all_and_says_so(manager: Manager) -> None:
    said: list[str] = []
    seed(EMULATOR, environment={"OVERRIDE_POSTGRES_USER": "both"}, progress=said.append)
    assert manager.value("goldlake/postgres-airflow")["POSTGRES_USER"] == "both"
    assert manager.value("goldlake/postgres-metastore")["POSTGRES_USER"] == "both"
    expected = "OVERRIDE_POSTGRES_USER replaces postgres-airflow.POSTGRES_USER and postgres-metastore.POSTGRES_USER"
    assert expected in said


@pytest.mark.parametrize("name", ["OVERRIDE_POSTGRES_AIRFLOW_POSTGRES_USER", "OVERRIDE_POSTGRES_AIRFLOW_USER"])
def test_an_override_with_the_secrets_name_wins_for_that_one(manager: Manager, name: str) -> None:
    seed(EMULATOR, environment={name: "one", "OVERRIDE_POSTGRES_USER": "both"})
    assert manager.value("goldlake/postgres-airflow")["POSTGRES_USER"] == "one"
    assert manager.value("goldlake/postgres-metastore")["POSTGRES_USER"] == "both"


def test_an_override_that_could_mean_two_keys_is_refused_with_both(manager: Manager, declare: Declare) -> None:
    key = {"generate": "token"}
    catalogue = declare({"a": {"keys": {"B_C": key}}, "a-b": {"keys": {"C": key}}})
    with pytest.raises(ConfigurationError, match=r"OVERRIDE_A_B_C could mean a-b\.C or a\.B_C"):
        seed(EMULATOR, environment={"OVERRIDE_A_B_C": "x"}, catalogue=catalogue)
    assert manager.writes == []
    seed(EMULATOR, environment={"OVERRIDE_C": "x"}, catalogue=catalogue)
    assert manager.value("goldlake/a-b") == {"C": "x"}


def test_an_override_that_is_the_name_of_no_key_is_said(manager: Manager) -> None:
    said: list[str] = []
    login(environment={"OVERRIDE_PASWORD": "oops"}, progress=said.append)
    assert "OVERRIDE_PASWORD is the name of no key, and replaces nothing" in said
    assert "oops" not in " ".join(said)


# --- Rotation


def test_a_rotated_key_gets_another_value_and_what_is_made_of_it_follows(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small)
    before = {name: manager.value(f"goldlake/{name}") for name in ("db", "app")}
    results = seed(AWS, environment={}, catalogue=small, rotate=["db.PASSWORD"])
    assert outcomes(results) == {"db": ("updated", ("PASSWORD",)), "app": ("updated", ("DB", "SAME"))}
    password = manager.value("goldlake/db")["PASSWORD"]
    assert password != before["db"]["PASSWORD"]
    assert manager.value("goldlake/app") == {**before["app"], "DB": f"pg://me:{password}@db", "SAME": password}


def test_rotating_a_secret_rotates_what_is_generated_and_leaves_names_alone(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={"OVERRIDE_USER": "chosen"}, catalogue=small)
    results = seed(AWS, environment={}, catalogue=small, rotate=["db", "app"])
    assert outcomes(results)["db"] == ("updated", ("PASSWORD",))
    assert manager.value("goldlake/db")["USER"] == "chosen"


def test_on_an_emulator_a_rotated_key_goes_back_to_its_local_default(manager: Manager) -> None:
    login(environment=OVERRIDES)
    assert login(rotate=["redshift-admin.password"]).keys == ("password",)
    assert manager.value() == {"username": "someone", "password": local_defaults()["password"]}


def test_an_entry_that_is_restored_is_rotated_too(manager: Manager, small: Catalogue) -> None:
    manager.hold("goldlake/db", {"USER": "me", "PASSWORD": "old"}, deleted=True)
    results = seed(AWS, environment={}, catalogue=small, rotate=["db"])
    assert outcomes(results)["db"] == ("restored", ("PASSWORD",))
    assert manager.value("goldlake/db")["PASSWORD"] != "old"


def test_a_text_that_is_overridden_may_be_named_for_rotation(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={"OVERRIDE_USER": "chosen"}, catalogue=small, rotate=["db.USER"])
    assert manager.value("goldlake/db")["USER"] == "chosen"


@pytest.mark.parametrize(
    ("rotate", "reason", "hint"),
    [
        ("app.SAME", r"app\.SAME cannot be rotated: it is made of db\.PASSWORD", "--rotate db.PASSWORD"),
        ("app.DB", r"app\.DB cannot be rotated: it is made of db\.USER and db\.PASSWORD", "set OVERRIDE_DB"),
        ("db.USER", r"db\.USER cannot be rotated: it is a fixed text", "set OVERRIDE_USER"),
        ("nope", "the catalogue has no secret nope; it has db, app", None),
        ("db.NOPE", r"the catalogue has no key db\.NOPE", None),
    ],
)
def test_what_cannot_be_rotated_is_refused(
    manager: Manager, small: Catalogue, rotate: str, reason: str, hint: str | None
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refused:
        seed(AWS, environment={}, catalogue=small, rotate=[rotate])
    assert refused.value.hint == hint
    assert manager.calls == []


def test_a_secret_that_is_not_seeded_here_cannot_be_rotated(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match=r"redshift-admin\.username cannot be rotated"):
        seed(EMULATOR, environment={}, rotate=["redshift-admin"], made_elsewhere=["redshift-admin"])
    with pytest.raises(ConfigurationError, match=r"redshift-admin\.username cannot be rotated"):
        seed(EMULATOR, environment={}, rotate=["redshift-admin"], only=["minio"])
    assert manager.calls == []


def test_rotating_what_nobody_generates_is_refused_on_aws_itself(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "u", "password": "p"})
    with pytest.raises(ConfigurationError, match=r"^redshift-admin\.password would"):
        seed(AWS, environment={}, only=["redshift-admin"], rotate=["redshift-admin.password"])
    assert manager.writes == []


def test_a_key_that_follows_another_is_put_right_after_a_run_that_was_killed(
    manager: Manager, small: Catalogue
) -> None:
    seed(AWS, environment={}, catalogue=small)
    manager.hold("goldlake/db", {"USER": "me", "PASSWORD": "rotated, then killed"})
    assert outcomes(seed(AWS, environment={}, catalogue=small))["app"] == ("updated", ("DB", "SAME"))
    assert manager.value("goldlake/app")["SAME"] == "rotated, then killed"


# --- Selections


def test_only_what_is_named_is_seeded(manager: Manager) -> None:
    assert [result.name for result in seed(EMULATOR, environment={}, only=["minio"])] == ["goldlake/minio"]
    assert set(manager.entries) == {"goldlake/minio"}


def test_a_name_that_is_not_declared_is_refused(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match="no secret minoi; it has postgres-airflow"):
        seed(EMULATOR, environment={}, only=["minoi"])
    assert manager.calls == []


def test_a_source_that_is_not_seeded_is_read_and_one_without_a_value_refused(
    manager: Manager, small: Catalogue
) -> None:
    with pytest.raises(ConfigurationError, match=r"app\.SAME is made of db\.PASSWORD, which has no value"):
        seed(AWS, environment={}, catalogue=small, only=["app"])
    manager.hold("goldlake/db", {"USER": "me", "PASSWORD": "theirs"}, deleted=True)
    with pytest.raises(ConfigurationError, match=r"app\.DB is made of db\.USER, which has no value"):
        seed(AWS, environment={}, catalogue=small, only=["app"])
    manager.entries["goldlake/db"].deleted = False
    seed(AWS, environment={}, catalogue=small, only=["app"])
    assert manager.value("goldlake/app")["SAME"] == "theirs"
    assert manager.writes == [("create", "goldlake/app")]


def test_a_change_that_others_have_to_follow_is_refused_without_them(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small)
    manager.writes.clear()
    with pytest.raises(ConfigurationError, match=r"app\.DB is made of a value that changes") as refused:
        seed(AWS, environment={}, catalogue=small, only=["db"], rotate=["db"])
    assert refused.value.hint == "add --only app"
    assert manager.writes == []


def test_a_first_value_is_no_change_that_others_have_to_follow(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small, only=["db"])
    assert set(manager.entries) == {"goldlake/db"}


@pytest.mark.parametrize("workers", [0, 11])
def test_a_number_of_workers_out_of_range_is_refused(workers: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 10"):
        seed(EMULATOR, workers=workers)


# --- Dry run


@pytest.mark.parametrize(
    ("held", "deleted", "outcome", "keys"),
    [
        ("none", False, "created", ("username", "password")),
        ({"username": "old"}, False, "updated", ("password",)),
        ({"username": "old", "password": "old"}, False, "unchanged", ()),
        # What it holds cannot be read before it is restored.
        ({"username": "old"}, True, "restored", ("username", "password")),
    ],
)
def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    manager: Manager, held: Any, deleted: bool, outcome: str, keys: tuple[str, ...]
) -> None:
    if held != "none":
        manager.hold(LOGIN, held, deleted=deleted)
    result = login(dry_run=True)
    assert (result.outcome, result.keys) == (outcome, keys)
    assert manager.writes == []
    assert set(manager.calls) <= {"get", "describe"}


# --- Secrets that are no JSON object


def test_a_text_and_bytes_are_put_as_such_and_kept(manager: Manager, declare: Declare) -> None:
    catalogue = declare(
        {
            "token": {"kind": "text", "keys": {"TOKEN": {"generate": "token"}}},
            "blob": {"kind": "binary", "keys": {"BLOB": {"generate": "fernet"}}},
            "copy": {"keys": {"BLOB_COPY": {"generate": {"from": "blob.BLOB"}}}},
        }
    )
    seed(AWS, environment={}, catalogue=catalogue)
    text, content = manager.raw("goldlake/token"), manager.raw("goldlake/blob")
    assert len(bytes.fromhex(text)) == 32
    assert len(content) == 32
    assert base64.urlsafe_b64decode(manager.value("goldlake/copy")["BLOB_COPY"]) == content
    assert {result.outcome for result in seed(AWS, environment={}, catalogue=catalogue)} <= {"unchanged", "updated"}
    assert {result.outcome for result in seed(AWS, environment={}, catalogue=catalogue)} == {"unchanged"}
    assert manager.raw("goldlake/blob") == content
    seed(AWS, environment={"OVERRIDE_BLOB": base64.b64encode(b"\xff\xfe").decode()}, catalogue=catalogue)
    assert manager.raw("goldlake/blob") == b"\xff\xfe"


@pytest.mark.parametrize(("kind", "held"), [("text", b"bytes"), ("binary", "text")])
def test_a_text_where_bytes_are_declared_is_left_alone_and_the_other_way_round(
    manager: Manager, declare: Declare, kind: str, held: Any
) -> None:
    catalogue = declare({"s": {"kind": kind, "keys": {"K": {"generate": "fernet"}}}})
    manager.hold("goldlake/s", held)
    with pytest.raises(FailedError, match=f"holds no {'text' if kind == 'text' else 'bytes'}; it is left"):
        seed(AWS, environment={}, catalogue=catalogue)
    assert manager.writes == []


def test_bytes_that_are_no_base64_are_refused_without_the_value(manager: Manager, declare: Declare) -> None:
    catalogue = declare({"s": {"kind": "binary", "keys": {"K": {"generate": "fernet"}}}})
    with pytest.raises(ConfigurationError, match=r"s\.K is no base64") as refused:
        seed(AWS, environment={"OVERRIDE_K": "not base64!"}, catalogue=catalogue)
    assert "not base64!" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert manager.writes == []


def test_a_value_that_is_too_long_stops_all_before_the_first_write(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match=f"Secrets Manager takes {MAX_BYTES:,}"):
        seed(EMULATOR, environment={"OVERRIDE_PASSWORD": "é" * MAX_BYTES})
    assert manager.writes == []


# --- Several seeders


def _overtaken(manager: Manager, call: str, name: str, value: dict[str, Any]) -> None:
    """Let another seeder put a value just before the first such call."""
    done: list[str] = []

    def other(made: str, to: str) -> None:
        if (made, to) == (call, name) and not done:
            done.append(made)
            stored = manager.entries.setdefault(name, Stored())
            token = hashlib.sha256(f"{name}\n{stored.current}\n0".encode()).hexdigest()
            manager._put(stored, token, {"SecretString": json.dumps(value)})

    manager.before = other


@pytest.mark.parametrize("call", ["create", "put"])
def test_who_comes_second_keeps_the_values_of_the_first(manager: Manager, small: Catalogue, call: str) -> None:
    if call == "put":
        manager.hold("goldlake/db", {"USER": "me"})
    _overtaken(manager, call, "goldlake/db", {"USER": "me", "PASSWORD": "of the first"})
    results = seed(AWS, environment={}, catalogue=small)
    assert manager.value("goldlake/db")["PASSWORD"] == "of the first"
    # What is made of it follows, though it may have been written with our own before.
    assert manager.value("goldlake/app")["SAME"] == "of the first"
    assert manager.value("goldlake/app")["DB"] == "pg://me:of%20the%20first@db"
    assert outcomes(results)["db"] == ("unchanged", ())
    assert outcomes(results)["app"] == ("created", ("DB", "SAME", "KEY"))


def test_a_key_that_another_rotated_meanwhile_is_not_rotated_again(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small)
    _overtaken(manager, "put", "goldlake/db", {"USER": "me", "PASSWORD": "rotated by the first"})
    results = seed(AWS, environment={}, catalogue=small, rotate=["db.PASSWORD"])
    assert manager.value("goldlake/db")["PASSWORD"] == "rotated by the first"
    assert outcomes(results)["db"] == ("unchanged", ())
    assert manager.value("goldlake/app")["SAME"] == "rotated by the first"


def test_a_rotation_that_is_overtaken_by_another_key_is_still_made(manager: Manager, small: Catalogue) -> None:
    seed(AWS, environment={}, catalogue=small)
    old = manager.value("goldlake/db")
    _overtaken(manager, "put", "goldlake/db", {**old, "USER": "renamed"})
    results = seed(AWS, environment={}, catalogue=small, rotate=["db.PASSWORD"])
    assert outcomes(results)["db"] == ("updated", ("PASSWORD",))
    assert manager.value("goldlake/db")["USER"] == "renamed"
    assert manager.value("goldlake/db")["PASSWORD"] != old["PASSWORD"]


def test_a_version_that_was_gone_back_to_can_be_seeded_over_again(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "u"})
    first = manager.entries[LOGIN].current
    login(environment={"OVERRIDE_PASSWORD": "one"})
    manager.entries[LOGIN].current = first
    assert login(environment={"OVERRIDE_PASSWORD": "two"}) == SeedResult(LOGIN, "updated", ("password",))
    assert manager.value()["password"] == "two"
    manager.entries[LOGIN].current = first
    # The very request of then: Secrets Manager says yes and does nothing.
    assert login(environment={"OVERRIDE_PASSWORD": "one"}).outcome == "updated"
    assert manager.value()["password"] == "one"


def test_a_read_that_comes_late_with_the_news_does_not_make_a_second_value(
    manager: Manager, small: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.hold("goldlake/db", {"USER": "me"})
    old = manager.get_secret_value(SecretId="goldlake/db")
    real, stale = manager.get_secret_value, [old, old]

    def late(*, SecretId: str) -> dict[str, Any]:  # noqa: N803
        written = ("put", "goldlake/db") in manager.writes
        return stale.pop() if written and stale and SecretId == "goldlake/db" else real(SecretId=SecretId)

    monkeypatch.setattr(manager, "get_secret_value", late)
    results = seed(AWS, environment={}, catalogue=small, workers=1)
    assert manager.writes.count(("put", "goldlake/db")) == 1
    assert outcomes(results)["db"] == ("updated", ("PASSWORD",))
    assert manager.value("goldlake/app")["SAME"] == manager.value("goldlake/db")["PASSWORD"]


def test_an_entry_that_appears_between_two_calls_is_read_again(manager: Manager) -> None:
    def other(call: str, _name: str) -> None:
        if call == "describe" and not manager.entries:
            manager.hold(LOGIN, {"username": "theirs", "password": "theirs"})

    manager.before = other
    assert login() == SeedResult(LOGIN, "unchanged", ())


def test_a_value_that_never_can_be_read_is_the_services_refusal(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.hold(LOGIN, local_defaults())
    monkeypatch.setattr(manager, "get_secret_value", refuse(InvalidRequestError("another reason")))
    with pytest.raises(FailedError, match="another reason"):
        login()


def test_a_seeder_that_never_gets_its_turn_gives_up_and_says_so(manager: Manager) -> None:
    manager.hold(LOGIN, {"username": "u", "password": "p"})

    def other(call: str, _name: str) -> None:
        if call == "get":
            manager.hold(LOGIN, {"username": "u", "password": f"theirs {len(manager.calls)}"})

    manager.before = other
    with pytest.raises(UnreachableError, match="others keep writing the same secrets"):
        login(environment={"OVERRIDE_PASSWORD": "ours"})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 6), st.sampled_from([None, {}, {"USER": "me"}]), st.booleans())
@example(6, None, False)
def test_seeders_at_once_end_with_one_value_and_say_who_wrote_it(
    small: Catalogue, manager: Manager, seeders: int, held: dict[str, str] | None, deleted: bool
) -> None:
    manager.entries.clear()
    if held is not None:
        manager.hold("goldlake/db", held, deleted=deleted)
    start = threading.Barrier(seeders)
    found: list[dict[str, tuple[str, tuple[str, ...]]]] = []
    seen: list[dict[str, Any]] = []

    def one() -> None:
        start.wait()
        found.append(outcomes(seed(AWS, environment={}, catalogue=small)))
        seen.append(manager.value("goldlake/db"))

    threads = [threading.Thread(target=one) for _ in range(seeders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == seeders
    final = manager.value("goldlake/db")
    # Nobody who was done saw another value than the one of the end.
    assert all(value == final for value in seen)
    assert manager.value("goldlake/app")["SAME"] == final["PASSWORD"]
    assert sum("PASSWORD" in report["db"][1] for report in found) == 1
    assert sum(report["db"][0] == "created" for report in found) == (1 if held is None else 0)
    assert sum(report["db"][0] == "restored" for report in found) == (1 if held is not None and deleted else 0)


# --- Trouble, and what gets out


def refuse(error: Exception) -> Callable[..., Any]:
    def call(**_request: Any) -> None:
        raise error

    return call


def aws_error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def test_a_refusal_keeps_the_services_words(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "create_secret", refuse(aws_error("AccessDeniedException", "not you")))
    with pytest.raises(AccessDeniedError) as refused:
        login(environment=OVERRIDES)
    assert refused.value.message == f"secret {LOGIN}: not you (AccessDeniedException)"


def test_the_services_words_are_left_out_when_they_quote_a_value(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoting = aws_error("ValidationException", f"Value '{OVERRIDES['OVERRIDE_PASSWORD']}' is wrong")
    monkeypatch.setattr(manager, "create_secret", refuse(quoting))
    with pytest.raises(
        FailedError, match=r"^secret goldlake/redshift-admin: refused \(ValidationException\)"
    ) as refused:
        login(environment=OVERRIDES)
    assert refused.value.code == "ValidationException"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_user_that_the_catalogue_names_may_be_in_the_services_words(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "create_secret", refuse(aws_error("AccessDeniedException", "user/admin may not")))
    with pytest.raises(AccessDeniedError, match="user/admin may not"):
        login()


def test_all_entries_are_worked_on_and_all_refusals_told(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    real = manager.create_secret

    def some(*, Name: str, **request: Any) -> None:  # noqa: N803
        if "postgres" in Name:
            raise aws_error("ThrottlingException" if "metastore" in Name else "LimitExceededException", "no")
        real(Name=Name, **request)

    monkeypatch.setattr(manager, "create_secret", some)
    with pytest.raises(UnreachableError) as refused:
        seed(EMULATOR, environment={})
    assert "goldlake/postgres-airflow: no" in refused.value.message
    assert "goldlake/postgres-metastore: no" in refused.value.message
    assert len(manager.entries) == len(load_catalogue().secrets) - 2


def test_what_is_done_is_said_as_it_is_done(manager: Manager) -> None:
    said: list[str] = []
    login(progress=said.append)
    assert said == [f"{LOGIN}: created"]


def test_values_are_in_no_result_repr_log_or_line(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    manager.hold("goldlake/minio", {"MINIO_ROOT_PASSWORD": "the-old-one"})
    lines: list[str] = []
    results = seed(EMULATOR, environment=OVERRIDES, rotate=["minio"], progress=lines.append)
    entry = read_entry(manager, load_catalogue().secrets["minio"], "goldlake/minio")
    plan = runtime.secrets._Plan({"minio": entry}, {"minio": {"MINIO_ROOT_PASSWORD": "the-new-one"}})
    said = f"{results!r} {[r.to_dict() for r in results]} {caplog.text} {lines} {entry!r} {plan!r}"
    assert "MINIO_ROOT_PASSWORD" in said
    for value in ("the-old-one", "the-new-one", *OVERRIDES.values(), *local_defaults("minio").values()):
        if value != "goldlake":
            assert value not in said


def test_the_wire_is_logged_again_afterwards_and_not_inside() -> None:
    parent, child = logging.getLogger("botocore"), logging.getLogger("botocore.endpoint")
    before = parent.level, child.level
    try:
        parent.setLevel(logging.NOTSET)
        child.setLevel(logging.DEBUG)
        with nothing_of_the_wire_logged():
            assert not child.isEnabledFor(logging.DEBUG)
            assert not parent.isEnabledFor(logging.DEBUG)
        assert (parent.level, child.level) == (logging.NOTSET, logging.DEBUG)
    finally:
        parent.setLevel(before[0])
        child.setLevel(before[1])


# --- How entries are


def test_the_list_says_of_every_entry_how_it_is(manager: Manager) -> None:
    seed(EMULATOR, environment={}, only=["minio", "trino"])
    manager.hold("goldlake/airflow", {"FERNET_KEY": "x"})
    manager.hold("goldlake/grafana", {}, deleted=True)
    manager.hold("goldlake/postgres-airflow", None)
    manager.hold(LOGIN, "nobody may see")
    found = {state.name.removeprefix("goldlake/"): state for state in states(EMULATOR)}
    assert {name: state.state for name, state in found.items()} == {
        "postgres-airflow": "no value yet",
        "postgres-metastore": "missing",
        "minio": "there",
        "airflow": "keys missing",
        "redshift-admin": "unreadable",
        "redshift-dbt": "missing",
        "grafana": "scheduled for deletion",
        "trino": "there",
    }
    assert found["airflow"].keys_missing == ("SECRET_KEY", "JWT_SECRET", "ADMIN_USER", "ADMIN_PASSWORD")
    assert found["postgres-metastore"].keys_missing == ("POSTGRES_USER", "POSTGRES_PASSWORD")
    assert found["minio"].profiles == ("core", "data-pipeline", "spark-testing")
    assert found["minio"].age_seconds is not None
    assert 2 * 86400 <= found["minio"].age_seconds < 2 * 86400 + 60
    assert found["redshift-admin"].reason == f"secret {LOGIN} holds no JSON object; it is left as it is"
    assert "nobody may see" not in json.dumps([state.to_dict() for state in found.values()])


def test_a_list_of_nothing_that_could_be_read_is_an_error(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = EndpointConnectionError(endpoint_url="https://nowhere")
    monkeypatch.setattr(manager, "get_secret_value", refuse(unreachable))
    with pytest.raises(UnreachableError):
        states(EMULATOR)


# --- The commands


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """Return a function that runs `goldlake secrets …` where the stack localstack is deployed."""
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    save_target(Target("localstack", EMULATOR, {"warehouse_login_owner": "seed"}))

    def goldlake(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            GoldlakeGroup("goldlake", {"secrets": commands}).main(["secrets", *arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return goldlake


Run = Callable[..., tuple[object, str, str]]


def test_every_option_of_the_seed_command_reaches_the_seeder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def take(_aws: Connection, **options: Any) -> list[SeedResult]:
        calls.append(options)
        return []

    monkeypatch.setattr(runtime.secrets, "seed", take)
    options = ["--only", "a", "--only", "b", "--rotate", "a.X", "--generate", "--workers", "3", "--prefix", "acme"]
    assert run("seed", *options, "--allow-development-defaults", "--dry-run")[0] == 0
    (given,) = calls
    assert given.pop("progress")
    assert given == {
        "prefix": "acme",
        "allow_development_defaults": True,
        "made_elsewhere": (),
        "dry_run": True,
        "only": ("a", "b"),
        "rotate": ("a.X",),
        "generate": True,
        "workers": 3,
    }


def test_a_login_that_the_stack_made_is_left_alone(run: Run, manager: Manager) -> None:
    save_target(Target("localstack", EMULATOR, {"warehouse_login_owner": "pulumi"}))
    code, out, _err = run("seed", "--output", "json")
    found = {secret["name"]: secret["outcome"] for secret in json.loads(out)["secrets"]}
    assert (code, found[LOGIN], found["goldlake/minio"]) == (0, "not seeded", "created")
    assert LOGIN not in manager.entries


def test_the_seed_command_says_on_standard_error_what_it_does(run: Run, manager: Manager) -> None:
    code, out, err = run("seed", "--only", "minio")
    assert (code, err) == (0, "goldlake/minio: created\n")
    assert "MINIO_ROOT_USER, MINIO_ROOT_PASSWORD" in out


@pytest.mark.parametrize("arguments", [["--rotate", "nope"], ["--only", "nope"], ["--workers", "0"]])
def test_a_wrong_name_or_number_is_a_usage_error(run: Run, manager: Manager, arguments: list[str]) -> None:
    code, out, err = run("seed", *arguments)
    assert (code, out) == (64, "")
    assert err
    assert manager.calls == []


def test_the_list_command_shows_states_and_ages(run: Run, manager: Manager) -> None:
    manager.hold("goldlake/airflow", {"FERNET_KEY": "nobody may see"})
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert "keys missing" in out
    assert "2 d" in out
    assert "nobody may see" not in out
    code, out, _err = run("list", "--output", "json")
    result = json.loads(out)
    assert (code, result["schema"]) == (0, "goldlake.secrets/1")
    assert result["secrets"][0] == {
        "name": "goldlake/postgres-airflow",
        "state": "missing",
        "keys_missing": ["POSTGRES_USER", "POSTGRES_PASSWORD"],
        "profiles": ["core", "data-pipeline"],
        "age_seconds": None,
        "reason": None,
    }


def test_a_list_with_an_entry_that_cannot_be_read_ends_with_2(run: Run, manager: Manager) -> None:
    manager.hold(LOGIN, "no JSON")
    code, out, _err = run("list")
    assert code == 2
    assert "unreadable" in out


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(None, ""), (-3, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (86399, "23 h"), (86400 * 400, "400 d")],
)
def test_an_age_is_in_the_largest_unit_that_it_fills(seconds: int | None, age: str) -> None:
    assert runtime.secrets_cli._age(seconds) == age
