"""The shape of a creatable resource type, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from runtime.aws import Connection

Inputs = Mapping[str, Any]
"""A resource's resolved inputs, under the provider's (camelCase) names."""

ACCOUNT = "000000000000"


@dataclass(frozen=True)
class Applied:
    """A resource as it is in the emulator: its physical id and the outputs that others refer to."""

    id: str
    outputs: dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """How to create or update one resource type.

    `apply(aws, inputs, id)` brings the resource into the state that the inputs describe: it creates it when
    `id` is None and updates it otherwise. Calling it again changes nothing. `exists(aws, id, inputs)` says
    whether the emulator still knows the resource.
    """

    apply: Callable[[Connection, Inputs, str | None], Applied]
    exists: Callable[[Connection, str, Inputs], bool]


def found(call: Callable[[], Any], *absent: str) -> bool:
    """Return whether `call` finds something. The error codes in `absent` mean that it does not."""
    try:
        call()
    except ClientError as exc:
        if exc.response["Error"]["Code"] in absent:
            return False
        raise
    return True


def unless(call: Callable[[], Any], *existing: str) -> bool:
    """Run a create call and return True, or False when one of the error codes says that it exists already."""
    try:
        call()
    except ClientError as exc:
        if exc.response["Error"]["Code"] in existing:
            return False
        raise
    return True


def tag_list(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Return tags as the list of Key/Value objects that most of AWS wants."""
    return [{"Key": key, "Value": value} for key, value in (tags or {}).items()]


def pascal(value: Any) -> Any:
    """Return nested inputs with their keys in PascalCase, as most AWS APIs spell them; absent values drop out."""
    if isinstance(value, Mapping):
        return {key[0].upper() + key[1:]: pascal(item) for key, item in value.items() if item is not None}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [pascal(item) for item in value]
    return value
