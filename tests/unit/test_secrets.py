"""The seeder of Secrets Manager: what it writes, what it leaves alone, and that no value gets out."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from runtime import secrets
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError
from runtime.secrets import catalogue, local_default, override_name, seed

ENTRY = "goldlake/redshift-admin"
EMULATOR = "http://127.0.0.1:4566"
OVERRIDES = {"OVERRIDE_USERNAME": "someone", "OVERRIDE_PASSWORD": "an-override-nobody-may-see"}


class NotFoundError(Exception):
    """What the service answers for an id that it does not know."""


class Exceptions:
    """The client's attribute of that name."""

    ResourceNotFoundException = NotFoundError


@dataclass
class Manager:
    """Secrets Manager in memory: id -> entry as the service answers it. Writes are listed."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)
    exceptions: type[Exceptions] = Exceptions

    def describe_secret(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803 - AWS spells it so
        if SecretId not in self.entries:
            raise NotFoundError
        return {key: value for key, value in self.entries[SecretId].items() if not key.startswith("Secret")}

    def create_secret(self, *, Name: str, SecretString: str) -> None:  # noqa: N803
        assert Name not in self.entries
        self.writes.append(("create", Name))
        self.entries[Name] = {"SecretString": SecretString}

    def restore_secret(self, *, SecretId: str) -> None:  # noqa: N803
        self.writes.append(("restore", SecretId))
        del self.entries[SecretId]["DeletedDate"]

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:  # noqa: N803
        entry = self.entries[SecretId]
        if "DeletedDate" in entry:
            raise ClientError({"Error": {"Code": "InvalidRequestException", "Message": "deleted"}}, "GetSecretValue")
        if not entry.keys() & {"SecretString", "SecretBinary"}:
            raise NotFoundError
        return entry

    def put_secret_value(self, *, SecretId: str, SecretString: str) -> None:  # noqa: N803
        self.writes.append(("put", SecretId))
        self.entries[SecretId]["SecretString"] = SecretString

    def value(self, name: str = ENTRY) -> dict[str, str]:
        kept: dict[str, str] = json.loads(self.entries[name]["SecretString"])
        return kept


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Return the memory that every connection leads to."""
    fake = Manager()
    monkeypatch.setattr(Connection, "client", lambda _self, service: {"secretsmanager": fake}[service])
    return fake


def seeded(**options: Any) -> secrets.SeedResult:
    """Seed the emulator, and return the outcome of the one entry that the catalogue declares."""
    (result,) = seed(Connection(EMULATOR), **{"environment": {}, **options})
    return result


def local_defaults() -> dict[str, str]:
    return {key: local_default("redshift-admin", key) for key in catalogue()["redshift-admin"]}


def test_local_defaults_are_the_same_on_every_machine() -> None:
    # Written down here: a change of the derivation locks people out of the warehouse that they have.
    assert local_default("redshift-admin", "username") == "admin"
    assert local_default("redshift-admin", "password") == "eGLvQcSqn7xDWZ3KZC7OlnJjFiBuE9Hk"


@given(st.text(), st.text(), st.integers(1, 128))
def test_a_derived_default_has_its_length_and_no_special_characters(secret: str, key: str, length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "catalogue", lambda: {secret: {key: {"local": {"derived": length}}}})
        derived = local_default(secret, key)
        assert derived == local_default(secret, key)
    assert len(derived) == length
    assert derived.isascii()
    assert derived.isalnum()


def test_two_keys_never_share_a_derived_default(monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"local": {"derived": 32}}
    monkeypatch.setattr(secrets, "catalogue", lambda: {"a": {"x": how, "y": how}, "b": {"x": how}})
    assert len({local_default("a", "x"), local_default("a", "y"), local_default("b", "x")}) == 3


def test_a_missing_entry_is_created_with_its_local_defaults(manager: Manager) -> None:
    result = seeded()
    assert (result.name, result.outcome, set(result.keys)) == (ENTRY, "created", {"username", "password"})
    assert manager.value() == local_defaults()


def test_the_prefix_is_the_first_part_of_every_id(manager: Manager) -> None:
    assert seeded(prefix="acme").name == "acme/redshift-admin"
    assert set(manager.entries) == {"acme/redshift-admin"}


def test_seeding_again_writes_nothing(manager: Manager) -> None:
    seeded()
    manager.writes.clear()
    result = seeded()
    assert (result.outcome, result.keys) == ("unchanged", ())
    assert manager.writes == []


def test_an_entry_with_another_value_is_updated_and_only_the_differing_keys_are_named(manager: Manager) -> None:
    manager.entries[ENTRY] = {"SecretString": json.dumps({**local_defaults(), "password": "another"})}
    result = seeded()
    assert (result.outcome, result.keys) == ("updated", ("password",))
    assert manager.value() == local_defaults()


def test_an_entry_without_a_value_yet_gets_one(manager: Manager) -> None:
    manager.entries[ENTRY] = {}
    assert seeded().outcome == "updated"
    assert manager.value() == local_defaults()


def test_an_entry_that_is_scheduled_for_deletion_is_restored(manager: Manager) -> None:
    manager.entries[ENTRY] = {"DeletedDate": "tomorrow", "SecretString": json.dumps(local_defaults())}
    result = seeded()
    assert (result.outcome, result.keys) == ("restored", ())
    assert manager.writes == [("restore", ENTRY)]


def test_a_restored_entry_with_an_old_value_gets_the_new_one(manager: Manager) -> None:
    manager.entries[ENTRY] = {"DeletedDate": "tomorrow", "SecretString": json.dumps({"username": "old"})}
    result = seeded()
    assert (result.outcome, set(result.keys)) == ("restored", {"username", "password"})
    assert manager.value() == local_defaults()


def test_an_override_replaces_one_value_and_leaves_the_others(manager: Manager) -> None:
    seeded(environment={"OVERRIDE_PASSWORD": "custom"})
    assert manager.value() == {**local_defaults(), "password": "custom"}


def test_overrides_come_from_the_process_environment_by_default(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERRIDE_USERNAME", "someone")
    seed(Connection(EMULATOR))
    assert manager.value()["username"] == "someone"


def test_the_variable_of_a_key_is_in_capitals() -> None:
    assert override_name("password") == "OVERRIDE_PASSWORD"


def test_local_defaults_are_refused_on_aws_itself_before_anything_is_written(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match="which everyone knows") as refused:
        seed(Connection(region="eu-west-1"), environment={"OVERRIDE_USERNAME": "someone"})
    assert "redshift-admin.password" in refused.value.message
    assert "redshift-admin.username" not in refused.value.message
    assert "--allow-development-defaults" in (refused.value.hint or "")
    assert manager.writes == []


def test_an_empty_override_is_none_on_aws_itself(manager: Manager) -> None:
    with pytest.raises(ConfigurationError, match=r"redshift-admin\.password"):
        seed(Connection(region="eu-west-1"), environment={"OVERRIDE_USERNAME": "someone", "OVERRIDE_PASSWORD": ""})
    assert manager.writes == []


@pytest.mark.parametrize("endpoint", ["https://secretsmanager.eu-west-1.amazonaws.com", "http://10.0.0.1:4566"])
def test_an_endpoint_off_this_machine_is_no_emulator(manager: Manager, endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        seed(Connection(endpoint), environment={})
    assert manager.writes == []


def test_aws_itself_takes_overrides_for_every_key_and_development_defaults_when_allowed(manager: Manager) -> None:
    seed(Connection(region="eu-west-1"), environment=OVERRIDES)
    assert manager.value() == {"username": "someone", "password": OVERRIDES["OVERRIDE_PASSWORD"]}
    seed(Connection(region="eu-west-1"), environment={}, allow_development_defaults=True)
    assert manager.value() == local_defaults()


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (None, "created"),
        ({"SecretString": '{"username": "old"}'}, "updated"),
        ({"DeletedDate": "tomorrow", "SecretString": "{}"}, "restored"),
    ],
)
def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    manager: Manager, entry: dict[str, Any] | None, outcome: str
) -> None:
    if entry is not None:
        manager.entries[ENTRY] = entry
    before = {name: dict(kept) for name, kept in manager.entries.items()}
    result = seeded(dry_run=True)
    assert (result.outcome, set(result.keys)) == (outcome, {"username", "password"})
    assert manager.writes == []
    assert manager.entries == before


@pytest.mark.parametrize(
    "entry",
    [
        {"SecretString": "a plain text nobody may see"},
        {"SecretString": '["a plain text nobody may see"]'},
        {"SecretBinary": b"a plain text nobody may see"},
    ],
)
def test_an_entry_that_is_no_json_object_is_left_alone_and_not_shown(manager: Manager, entry: dict[str, Any]) -> None:
    manager.entries[ENTRY] = dict(entry)
    with pytest.raises(FailedError, match="left as it is") as refused:
        seeded()
    assert "nobody may see" not in str(refused.value)
    assert manager.entries[ENTRY] == entry
    assert manager.writes == []


def test_values_are_in_no_result_repr_or_log(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    manager.entries[ENTRY] = {"SecretString": '{"password": "the-old-one"}'}
    result = seeded(environment=OVERRIDES)
    said = f"{result!r} {json.dumps(result.to_dict())} {caplog.text}"
    assert '"keys"' in said
    for value in (*OVERRIDES.values(), "the-old-one"):
        assert value not in said


def test_values_are_in_no_error(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_request: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not you"}}, "CreateSecret")

    monkeypatch.setattr(manager, "create_secret", refuse)
    with pytest.raises(AccessDeniedError) as refused:
        seeded(environment=OVERRIDES)
    assert refused.value.message == f"secret {ENTRY}: not you (AccessDeniedException)"


def test_every_declared_key_says_how_its_local_default_is_made() -> None:
    for name, keys in catalogue().items():
        assert keys, name
        for key in keys:
            assert local_default(name, key), f"{name}.{key}"
