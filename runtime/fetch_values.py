"""Profiles' variables, out of Secrets Manager: each secret is read once, 20 at a call.

Reports, messages and `repr` have names only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from runtime.aws import Connection, nothing_of_the_wire_logged, translated
from runtime.catalogue import Catalogue, Secret, load_catalogue
from runtime.env_formats import environment_faults
from runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    UnreachableError,
)

# BatchGetSecretValue takes no more ids at a time.
BATCH = 20
# Secrets Manager throttles at thousands of calls a second; this is for the latency.
WORKERS = 8
# The identity may read secrets one by one only.
_BATCH_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_SEED = "goldlake secrets seed"

Held = str | bytes | GoldlakeError
"""What there is of a secret: its text, its bytes, or why it cannot be had."""
Faults = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Says which variables cannot be carried: name -> why."""


# --- reading from Secrets Manager ---


@dataclass(frozen=True)
class SecretValues:
    """What Secrets Manager answered for each id, and the calls that it took."""

    held: Mapping[str, Held] = field(repr=False)
    calls: Mapping[str, int]


def read_secrets(aws: Connection, ids: Sequence[str]) -> SecretValues:
    """Return the current values of secrets: 20 at a call, or one where secretsmanager:BatchGetSecretValue is missing.

    What is wrong with one secret stands in its place. Raises UnreachableError, AccessDeniedError or FailedError when
    none can be read.
    """
    with translated("read secrets"):
        client = aws.client("secretsmanager")
    chunks = [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
    with nothing_of_the_wire_logged(), ThreadPoolExecutor(WORKERS) as pool:
        try:
            answers = list(pool.map(lambda chunk: _batch(client, chunk), chunks))
        except AccessDeniedError as exc:
            if exc.code not in _BATCH_DENIED:
                raise
            held = dict(zip(ids, pool.map(lambda name: _single(client, name), ids), strict=True))
            return SecretValues(held, {"GetSecretValue": len(ids)})
    found = {name: value for values, _pages in answers for name, value in values.items()}
    return SecretValues(found, {"BatchGetSecretValue": sum(pages for _values, pages in answers)})


def _batch(client: Any, ids: list[str]) -> tuple[dict[str, Held], int]:
    """Return what there is of up to 20 secrets, and the number of pages that it came in."""
    found: dict[str, Held] = {name: _absent(name) for name in ids}
    page: dict[str, str] = {}
    pages = 0
    while True:
        pages += 1
        with translated("read secrets"):
            answer = client.batch_get_secret_value(SecretIdList=ids, **page)
        for value in answer.get("SecretValues", []):
            found[value["Name"]] = _value(value)
        for error in answer.get("Errors", []):
            found[_name_in(error["SecretId"])] = _error(error)
        if not answer.get("NextToken"):
            return found, pages
        page = {"NextToken": answer["NextToken"]}


def _single(client: Any, name: str) -> Held:
    try:
        with translated(f"secret {name}"):
            return _value(client.get_secret_value(SecretId=name))
    except GoldlakeError as exc:
        return _absent(name) if exc.code == "ResourceNotFoundException" else exc


def _value(answer: Mapping[str, Any]) -> Held:
    value: str | bytes = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"]
    return value


def _error(error: Mapping[str, str]) -> GoldlakeError:
    """Return an error of one secret within a batch as if its own call had failed."""
    from botocore.exceptions import ClientError

    name, code = _name_in(error["SecretId"]), error.get("ErrorCode", "")
    if code == "ResourceNotFoundException":
        return _absent(name)
    try:
        with translated(f"secret {name}"):
            raise ClientError({"Error": {"Code": code, "Message": error.get("Message", "")}}, "BatchGetSecretValue")
    except GoldlakeError as exc:
        return exc


def _absent(name: str) -> FailedError:
    return FailedError(f"secret {name} is not there, or has no value", hint=_SEED, code="ResourceNotFoundException")


def _name_in(secret_id: str) -> str:
    """Return the name in an id; an ARN ends with the name, a hyphen and six characters."""
    return re.sub(r"\Aarn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.*)-[A-Za-z0-9]{6}\Z", r"\1", secret_id)


# --- from secrets to variables ---


@dataclass(frozen=True)
class ProfileValues:
    """A profile's variables, or what is wrong with them."""

    profile: str
    values: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str]
    """The secret that each variable is from."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unreachable: bool = False
    """Whether a problem is that something cannot be reached or is forbidden, rather than missing."""

    @property
    def exit_code(self) -> int:
        """2 when infrastructure is to blame, 1 for other problems, 0 without."""
        return EXIT_UNREACHABLE if self.unreachable else EXIT_FAILED if self.problems else EXIT_DONE


def collect(
    aws: Connection, profiles: Sequence[str], catalogue: Catalogue, prefix: str
) -> tuple[list[ProfileValues], Mapping[str, int]]:
    """Return the variables of profiles, each secret read once, and the number of calls by name."""
    needed = dict.fromkeys(secret.name for profile in profiles for secret in catalogue.of_profile(profile))
    read = read_secrets(aws, [f"{prefix}/{name}" for name in needed])
    return [_of_profile(catalogue, profile, prefix, read.held) for profile in profiles], read.calls


def _of_profile(catalogue: Catalogue, profile: str, prefix: str, held: Mapping[str, Held]) -> ProfileValues:
    problems: list[str] = []
    notes: list[str] = []
    keys: dict[tuple[str, str], str] = {}
    unreachable = False
    for secret in catalogue.of_profile(profile):
        name = f"{prefix}/{secret.name}"
        value = held[name]
        if isinstance(value, GoldlakeError):
            problems.append(value.message)
            unreachable = unreachable or isinstance(value, UnreachableError)
            continue
        found, wrong = _keys(secret, name, value)
        keys.update({(secret.name, key): text for key, text in found.items()})
        problems += wrong
        if secret.kind == "binary":
            notes.append(f"secret {name} is binary: its variable has its base64")
    places = catalogue.variables(profile)
    values = {} if problems else {variable: keys[place] for variable, place in places.items()}
    sources = {variable: f"{prefix}/{place[0]}" for variable, place in places.items()}
    return ProfileValues(profile, values, sources, tuple(problems), tuple(notes), unreachable)


def _keys(secret: Secret, name: str, value: str | bytes) -> tuple[dict[str, str], list[str]]:
    """Return the keys of a secret, and what is wrong with them."""
    if isinstance(value, bytes) != (secret.kind == "binary"):
        holds = "bytes" if isinstance(value, bytes) else "text"
        return {}, [f"secret {name} holds {holds}, the catalogue says {secret.kind}"]
    if isinstance(value, bytes):
        return dict.fromkeys(secret.keys, base64.b64encode(value).decode()), []
    if secret.kind == "text":
        return dict.fromkeys(secret.keys, value), []
    held = json_object(value)
    if held is None:
        return {}, [f"secret {name} holds no JSON object"]
    missing = [key for key in secret.keys if key not in held]
    no_text = [key for key in secret.keys if key in held and not isinstance(held[key], str)]
    wrong = [f"secret {name} has no key {', '.join(missing)}"] if missing else []
    # A number or a nested object has no one form as text.
    wrong += [f"secret {name}: {', '.join(no_text)} is no JSON string"] if no_text else []
    return {key: held[key] for key in secret.keys if isinstance(held.get(key), str)}, wrong


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a text, None when it holds none."""
    # The decoder's own error keeps the whole text, so it must not become the context of ours.
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, dict) else None
    return None


def known_profiles(profiles: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Return the profiles that are wanted, each once: all without any. Raises ConfigurationError for an unknown one."""
    wanted = list(dict.fromkeys(profiles)) or list(catalogue.profiles)
    for profile in wanted:
        catalogue.of_profile(profile)
    return wanted


def problems_of(values: ProfileValues, faults_of: Faults) -> tuple[str, ...]:
    """Return what is wrong with a profile, with the variables that cannot be carried, each with its secret."""
    named = (f"{fault} (secret {values.secrets[name]})" for name, fault in faults_of(values.values).items())
    return (*values.problems, *named)


def variables(
    aws: Connection,
    profiles: Sequence[str],
    *,
    prefix: str = "goldlake",
    catalogue: Catalogue | None = None,
    faults_of: Faults = environment_faults,
) -> dict[str, str]:
    """Return the variables of profiles together; `faults_of` says which of them their use cannot carry.

    Raises UnreachableError when infrastructure is to blame that a secret cannot be had, FailedError with every other
    problem, ConfigurationError when two profiles have one name for different keys.
    """
    declared = catalogue or load_catalogue()
    wanted = known_profiles(profiles, declared)
    places: dict[str, tuple[str, str]] = {}
    for profile in wanted:
        for variable, place in declared.variables(profile).items():
            if places.setdefault(variable, place) != place:
                raise ConfigurationError(
                    f"{variable} is {'.'.join(places[variable])} and, in profile {profile}, {'.'.join(place)}: "
                    "take one profile at a time"
                )
    found, _calls = collect(aws, wanted, declared, prefix)
    problems = list(dict.fromkeys(problem for values in found for problem in problems_of(values, faults_of)))
    if problems:
        kind = UnreachableError if any(values.unreachable for values in found) else FailedError
        raise kind("; ".join(problems), hint=None if kind is UnreachableError else _SEED)
    return {name: value for values in found for name, value in values.values.items()}
