"""The committed recording: which role made which call on what, with everything replaced that differs by stack."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PATH = Path(__file__).with_name("recording.json")
SCHEMA = "goldlake.recording/1"
COMMAND = "python -m local.privileges.record"

OPERATOR = "operator"
"""Whoever runs goldlake's commands, among the roles."""

SignIn = Literal["iam", "password"]
"""How the functions sign in to the warehouse: by its setting a role makes other calls."""


@dataclass(frozen=True, order=True)
class Call:
    """What a role was seen to do. In `resource` and `context`, `{account}`, `{silver}` and such stand for a stack's own
    names, and `*` for a part that is another each time."""

    role: str
    """Without the stack's prefix: `dbt-runner`."""
    action: str
    """As IAM knows it: `s3:ListBucket`, whatever the operation is called."""
    resource: str
    context: tuple[tuple[str, str], ...] = ()
    """Condition keys of the request, as far as policies ask for them."""
    sign_in: tuple[SignIn, ...] = ("iam", "password")
    """With which setting of `signIn` it was made."""

    def to_dict(self) -> dict[str, Any]:
        """Return the call for the file."""
        return {
            "role": self.role,
            "action": self.action,
            "resource": self.resource,
            **({"context": dict(self.context)} if self.context else {}),
            "sign_in": list(self.sign_in),
        }

    def __str__(self) -> str:
        """Return the call as people say it."""
        where = "".join(f" with {key} {value}" for key, value in self.context)
        return f"{self.role}: {self.action} on {self.resource}{where}"


def call_of(entry: Mapping[str, Any]) -> Call:
    """Return a call of the file."""
    context = tuple(sorted(entry.get("context", {}).items()))
    return Call(entry["role"], entry["action"], entry["resource"], context, tuple(entry["sign_in"]))


def read(path: Path = PATH) -> list[Call]:
    """Return the recorded calls."""
    return [call_of(entry) for entry in json.loads(path.read_text())["calls"]]


def text(calls: Iterable[Call]) -> str:
    """Return the file's text: a line for each call, sorted, so that a review sees what was added."""
    lines = ",\n".join(f"  {json.dumps(call.to_dict())}" for call in sorted(set(calls)))
    return f'{{"schema": "{SCHEMA}", "calls": [\n{lines}\n]}}\n'


def missing(committed: Iterable[Call], seen: Iterable[Call]) -> list[Call]:
    """Return what was seen and is not in the committed recording."""
    known = {(call.role, call.action, call.resource, call.context, way) for call in committed for way in call.sign_in}
    return sorted(
        {
            call
            for call in seen
            if any((call.role, call.action, call.resource, call.context, way) not in known for way in call.sign_in)
        }
    )
