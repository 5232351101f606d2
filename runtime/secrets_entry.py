"""Entries of Secrets Manager as the catalogue means them: read and told apart, and put into a request."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from runtime.aws import translated
from runtime.catalogue import Secret
from runtime.errors import ConfigurationError, FailedError

# Secrets Manager API reference: SecretString and SecretBinary of PutSecretValue.
MAX_BYTES = 65536


@dataclass(frozen=True)
class Entry:
    """One entry as Secrets Manager has it."""

    state: Literal["missing", "deleted", "empty", "there"]
    """`deleted` is scheduled for deletion and can be restored; `empty` has no value yet."""
    version: str | None = None
    """The id of the current version."""
    made_at: datetime | None = None
    """When the current version was made."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """key -> value; also keys that the catalogue does not have."""

    def value(self, key: str) -> str | None:
        """Return a key's value as text; None for one that is not there or empty."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        return value if isinstance(value, str) else json.dumps(value)


def read_entry(client: Any, secret: Secret, name: str) -> Entry:
    """Return the entry `name` of a secret of the catalogue.

    Raises FailedError, without the value, when it holds something else than the catalogue says, and what `translated`
    raises.
    """
    with translated(f"secret {name}"):
        answer = _answer(client, name)
    if isinstance(answer, Entry):
        return answer
    values = _decoded(secret, name, answer)
    state: Literal["empty", "there"] = "there" if values else "empty"
    return Entry(state, answer.get("VersionId"), answer.get("CreatedDate"), values)


def _answer(client: Any, name: str) -> Entry | Mapping[str, Any]:
    """Return what GetSecretValue answers, or the entry that has nothing to answer."""
    missing, invalid = client.exceptions.ResourceNotFoundException, client.exceptions.InvalidRequestException
    for last in (False, False, True):
        try:
            answer: Mapping[str, Any] = client.get_secret_value(SecretId=name)
        except (missing, invalid):
            # No such entry, no value in it yet, or scheduled for deletion: only its description tells.
            try:
                described = client.describe_secret(SecretId=name)
            except missing:
                return Entry("missing")
            if described.get("DeletedDate"):
                return Entry("deleted")
            if not any("AWSCURRENT" in stages for stages in described.get("VersionIdsToStages", {}).values()):
                return Entry("empty")
            # It has a value: another seeder made or restored it in between.
            if last:
                raise
        else:
            return answer
    raise AssertionError("the last round ends the loop")


def _decoded(secret: Secret, name: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    text, content = answer.get("SecretString"), answer.get("SecretBinary")
    if not text and not content:
        return {}
    only = next(iter(secret.keys))
    if secret.kind == "binary" and content:
        return {only: base64.b64encode(content).decode()}
    if secret.kind == "text" and text:
        return {only: text}
    value = None
    if secret.kind == "json" and text:
        with contextlib.suppress(ValueError):
            value = json.loads(text)
    if not isinstance(value, dict):
        expected = {"json": "JSON object", "text": "text", "binary": "bytes"}[secret.kind]
        raise FailedError(f"secret {name} holds no {expected}; it is left as it is")
    return value


def encoded(secret: Secret, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry's values as PutSecretValue takes them. Raises ConfigurationError when it would not."""
    only = next(iter(secret.keys))
    request: dict[str, Any]
    if secret.kind == "binary":
        try:
            content = base64.b64decode(values[only].translate(str.maketrans("-_", "+/")), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(f"the value of {secret.name}.{only} is no base64, as that of bytes is") from None
        request, size = {"SecretBinary": content}, len(content)
    else:
        text = json.dumps(values) if secret.kind == "json" else values[only]
        request, size = {"SecretString": text}, len(text.encode())
    if size > MAX_BYTES:
        raise ConfigurationError(f"secret {name} would have {size:,} bytes: Secrets Manager takes {MAX_BYTES:,}")
    return request
