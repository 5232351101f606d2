"""What the recorders saw, as it is each time and in any stack: names, ids and keys replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from local.privileges.recording import OPERATOR, Call, SignIn
from local.redshift.roles import DOUBLE

PREFIX = "goldlake"
# What a person or CI does with goldlake on AWS, too, and the service that it is about: the other calls of the same keys
# are the emulator's and the local Redshift's own.
_OPERATED = {"seed": "secretsmanager:", "publish": "s3:"}

# AWS answers it to everybody, whatever policies say (AWS STS API reference, GetCallerIdentity).
_WITHOUT_RIGHT = ("sts:GetCallerIdentity",)

_ROLE = re.compile(r":(?:assumed-role|role)/([^/]+)")
_BUCKET = re.compile(rf"^arn:aws:s3:::{PREFIX}-(bronze|silver|gold|artifacts)-\d{{12}}-[a-z0-9-]+")
_GLUE = ("CreateTable", "GetTable", "GetTables", "UpdateTable")


@dataclass(frozen=True)
class Seen:
    """A line of the record."""

    principal: str
    action: str
    resource: str
    allowed: bool
    phase: str
    sign_in: SignIn
    context: dict[str, Any] = field(default_factory=dict)


def calls(seen: Iterable[Seen]) -> list[Call]:
    """Return the calls of the roles, and of the operator where they are his own; each once, with all its ways."""
    ways: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], set[SignIn]] = {}
    for line in seen:
        role = _role(line)
        if role is None or line.action in _WITHOUT_RIGHT:
            continue
        for resource in _resources(line.action, line.resource, any_secret=role == OPERATOR):
            context = tuple(sorted((key, _prefix(str(value))) for key, value in line.context.items()))
            ways.setdefault((role, line.action, resource, context), set()).add(line.sign_in)
    return sorted(Call(*key, sign_in=_ways(key[0], key[1], found)) for key, found in ways.items())


def _ways(role: str, action: str, found: set[SignIn]) -> tuple[SignIn, ...]:
    """Return with which sign-in a call is made. Only the sign-in itself depends on it; the rest was seen with one."""
    by_login = {"secretsmanager:GetSecretValue", "redshift-serverless:GetCredentials"}
    return tuple(sorted(found)) if action in by_login and role != OPERATOR else ("iam", "password")


def _role(line: Seen) -> str | None:
    """Return whose call it is: a role's name without the stack's prefix, the operator's, or nobody's that matters."""
    found = _ROLE.search(line.principal)
    if found:
        return found[1].removeprefix(f"{PREFIX}-").removesuffix(DOUBLE)
    return OPERATOR if line.action.startswith(_OPERATED.get(line.phase, "none")) else None


def _resources(action: str, resource: str, *, any_secret: bool) -> Iterator[str]:
    """Return the resources that AWS asks for in a call.

    The emulator names a table's database for each Glue call; AWS wants catalogue, database and table ("Actions,
    resources, and condition keys for AWS Glue", Glue developer guide, "Specifying AWS Glue resource ARNs").
    """
    plain = _plain(resource)
    if action.startswith("glue:") and ":database/" in plain:
        root, _, database = plain.partition(":database/")
        yield f"{root}:catalog"
        yield f"{root}:database/{database}"
        if action.partition(":")[2] in _GLUE:
            yield f"{root}:table/{database}/*"
        return
    # Which entries a stack has is a setting.
    yield re.sub(r"(?<=:secret:\{prefix\}/).*", "*", plain) if any_secret else plain


def _plain(resource: str) -> str:
    bucket = _BUCKET.match(resource)
    if bucket:
        key = resource[bucket.end() :].removeprefix("/")
        return f"arn:aws:s3:::{{{bucket[1]}}}" + (f"/{_key(key)}" if key else "")
    plain = re.sub(r"(?<=:)\d{12}(?=:)", "{account}", resource)
    plain = re.sub(r"(?<=:)[a-z]{2}-[a-z]+-\d(?=:)", "{region}", plain)
    plain = re.sub(rf"\b{PREFIX}(?=[-/])", "{prefix}", plain)
    # AWS ends a secret's ARN with a hyphen and six characters of its own.
    plain = re.sub(r"(:secret:\{prefix\}/.+?)(-[0-9A-Za-z]{6})?$", r"\1-*", plain)
    return re.sub(r"((?:database|table)/silver)_\w+", r"\1_*", plain)


def _key(key: str) -> str:
    """Return an object's key by its first folder: what lies below differs by table and run."""
    folder, slash, _rest = key.partition("/")
    return f"{folder}/*" if slash else folder


_prefix = _key
