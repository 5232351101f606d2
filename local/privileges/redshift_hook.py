"""The local Redshift, with a record of the calls of its control plane: `python -m local.privileges.redshift_hook`.

The control plane verifies no signature. Whose an access key is stands in the same record: the emulator wrote it there
when it made the key. A role's session gets the database user that AWS gives it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.privileges.emulator_hook import VARIABLE, write
from local.redshift import __main__ as redshift
from local.redshift import aws_json, control
from local.redshift.aws_json import Caller, Endpoint, caller_of
from local.redshift.control import ACCOUNT, Control


def role_of(access_key: str | None) -> str:
    """Return the ARN of the role's session that has the key; empty for none."""
    for line in Path(os.environ[VARIABLE]).read_text().splitlines():
        known = json.loads(line)
        if access_key and known.get("access_key") == access_key:
            return str(known["principal"])
    return ""


class RecordedEndpoint(Endpoint):
    """Answers, and records who called what."""

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer a request; see `Endpoint`."""
        status, result = super().answer(headers, body)
        caller = caller_of(headers)
        prefix, _, operation = headers.get("X-Amz-Target", "").partition(".")
        service = "redshift-data" if prefix == "RedshiftData" else "redshift-serverless"
        workgroup = json.loads(body or b"{}").get("workgroupName", "*")
        write(
            {
                "principal": role_of(caller.access_key),
                "action": f"{service}:{operation}",
                "resource": f"arn:aws:redshift-serverless:{caller.region}:{ACCOUNT}:workgroup/{workgroup}",
                "context": {},
                "allowed": status == 200,
            }
        )
        return status, result


class RecordedControl(Control):
    """Gives a role's session the database user that AWS gives it."""

    def _user(self, caller: Caller) -> str:
        """Return `IAMR:` and the role's name (Redshift Serverless API reference, GetCredentials)."""
        role = role_of(caller.access_key)
        return f"IAMR:{role.split('/')[1]}" if ":assumed-role/" in role else super()._user(caller)


if __name__ == "__main__":
    control.Control = RecordedControl  # type: ignore[misc]
    aws_json.Endpoint = RecordedEndpoint  # type: ignore[misc]
    sys.exit(redshift.main(sys.argv[1:]))
