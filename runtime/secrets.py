"""Secrets: one catalogue (secrets.yml beside this file) and an idempotent seeder for Secrets Manager.

Values never appear in reports, messages or logs: only names of secrets and keys do.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError

CATALOGUE = Path(__file__).with_name("secrets.yml")
OVERRIDE_PREFIX = "OVERRIDE_"
Outcome = Literal["created", "updated", "unchanged", "restored", "not seeded"]


@dataclass(frozen=True)
class SeedResult:
    """What was done with one entry; `keys` are the keys whose values differ, never the values."""

    name: str
    outcome: Outcome
    keys: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON output."""
        return {"name": self.name, "outcome": self.outcome, "keys": list(self.keys)}


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the declared secrets: name -> key -> declaration."""
    import yaml

    declared = yaml.safe_load(CATALOGUE.read_text())["secrets"]
    return {name: dict(entry["keys"]) for name, entry in declared.items()}


def local_default(secret: str, key: str) -> str:
    """Return a key's value for local development: fixed or derived, the same on every machine.

    It protects nothing and is refused for AWS itself.
    """
    how = catalogue()[secret][key]["local"]
    if "fixed" in how:
        return str(how["fixed"])
    alphabet = string.ascii_letters + string.digits
    stream = hashlib.shake_256(f"goldlake-local:{secret}:{key}".encode()).digest(int(how["derived"]))
    return "".join(alphabet[byte % len(alphabet)] for byte in stream)


def seed(
    aws: Connection,
    *,
    prefix: str = "goldlake",
    allow_development_defaults: bool = False,
    environment: Mapping[str, str] | None = None,
    made_elsewhere: Collection[str] = (),
    dry_run: bool = False,
) -> list[SeedResult]:
    """Put each declared secret's value into Secrets Manager; an entry that is equal already is not written.

    `OVERRIDE_<KEY>` in `environment` (default: the process's) replaces one value. An entry that is scheduled for
    deletion is restored first. Entries in `made_elsewhere` are left alone: Pulumi or AWS made their values. Raises
    ConfigurationError, before anything is written, when a value would be a local default and the endpoint is AWS
    itself, unless `allow_development_defaults`.
    """
    variables = os.environ if environment is None else environment
    values = {
        name: {key: variables.get(override_name(key)) or local_default(name, key) for key in keys}
        for name, keys in catalogue().items()
        if name not in made_elsewhere
    }
    if not aws.is_emulator and not allow_development_defaults:
        # An override that is empty counts as none, as above.
        defaulted = [
            f"{name}.{key}" for name, keys in values.items() for key in keys if not variables.get(override_name(key))
        ]
        if defaulted:
            raise ConfigurationError(
                f"{', '.join(defaulted)} would get a development default, which everyone knows, on AWS itself",
                hint=f"set {OVERRIDE_PREFIX}<KEY>, or pass --allow-development-defaults",
            )
    left = [SeedResult(f"{prefix}/{name}", "not seeded", ()) for name in catalogue() if name in made_elsewhere]
    return [*(_upsert(aws, f"{prefix}/{name}", entry, dry_run=dry_run) for name, entry in values.items()), *left]


def override_name(key: str) -> str:
    """Return the environment variable that replaces a key's value."""
    return OVERRIDE_PREFIX + key.upper()


def _upsert(aws: Connection, name: str, wanted: Mapping[str, str], *, dry_run: bool) -> SeedResult:
    client = aws.client("secretsmanager")
    with translated(f"secret {name}"):
        try:
            described = client.describe_secret(SecretId=name)
        except client.exceptions.ResourceNotFoundException:
            if not dry_run:
                client.create_secret(Name=name, SecretString=json.dumps(wanted))
            return SeedResult(name, "created", tuple(wanted))
        restored = "DeletedDate" in described
        if restored and not dry_run:
            client.restore_secret(SecretId=name)
        present = {} if restored and dry_run else _present(client, name)
        differing = tuple(key for key in {**present, **wanted} if present.get(key) != wanted.get(key))
        if differing and not dry_run:
            client.put_secret_value(SecretId=name, SecretString=json.dumps(wanted))
    return SeedResult(name, "restored" if restored else "updated" if differing else "unchanged", differing)


def _present(client: Any, name: str) -> dict[str, Any]:
    """Return the entry's current value; empty when it has none yet."""
    try:
        answer = client.get_secret_value(SecretId=name)
    except client.exceptions.ResourceNotFoundException:
        return {}
    text = answer.get("SecretString", "")
    if not text and "SecretBinary" not in answer:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        raise FailedError(f"secret {name} holds no JSON object; it is left as it is") from None
    if not isinstance(value, dict):
        raise FailedError(f"secret {name} holds no JSON object; it is left as it is")
    return value
