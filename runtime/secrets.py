"""The seeder of Secrets Manager: puts the values that the catalogue declares and that are not there yet.

Values never appear in reports, messages or logs: only names of secrets and keys do.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from runtime.aws import Connection, nothing_of_the_wire_logged, translated
from runtime.catalogue import Catalogue, Fixed, Generator, Key, Place, Secret, load_catalogue, place_of, qualified_name
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, UnreachableError

OVERRIDE_PREFIX = "OVERRIDE_"
Outcome = Literal["created", "updated", "unchanged", "restored", "not seeded"]
# Secrets Manager API reference: SecretString and SecretBinary of PutSecretValue.
MAX_BYTES = 65536
# As many connections as a boto3 client keeps.
MAX_WORKERS = 10
# Rounds in which a seeder gives way to others. The pause between them doubles from the first to the last.
_ROUNDS = 9
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 2.0
_ROUNDS_OF_PATIENCE = 3

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class SeedResult:
    """What was done with one entry; `keys` are the keys whose values differ, never the values."""

    name: str
    outcome: Outcome
    keys: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON output."""
        return {"name": self.name, "outcome": self.outcome, "keys": list(self.keys)}


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


def local_default(secret: str, key: str) -> str:
    """Return a key's value for local development: fixed or derived, the same on every machine.

    It protects nothing and is refused for AWS itself. Raises ConfigurationError when there is no such key.
    """
    return load_catalogue().local_default(secret, key)


def override_name(key: str) -> str:
    """Return the environment variable that replaces a key's value."""
    return OVERRIDE_PREFIX + re.sub(r"[^A-Z0-9_]", "_", key.upper())


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


def _encoded(secret: Secret, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
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


def seed(
    aws: Connection,
    *,
    prefix: str = "goldlake",
    allow_development_defaults: bool = False,
    environment: Mapping[str, str] | None = None,
    made_elsewhere: Collection[str] = (),
    dry_run: bool = False,
    only: Collection[str] | None = None,
    rotate: Collection[str] = (),
    generate: bool = False,
    workers: int = 8,
    progress: Callable[[str], None] = lambda _line: None,
    catalogue: Catalogue | None = None,
) -> list[SeedResult]:
    """Put the declared values that are not there yet into Secrets Manager; what is equal is not written.

    A key's value is, in this order: `OVERRIDE_<KEY>` in `environment` (default: the process's); what is there already,
    unless `rotate` names the key (`secret.key`) or its secret; the local default on an emulator or with
    `allow_development_defaults`; a generated one, also on an emulator with `generate`. A key that is made of others
    (`from`, `template`) follows them. Keys that the catalogue does not have stay. An entry that is scheduled for
    deletion is restored first. Entries in `made_elsewhere` are left alone: Pulumi or AWS made their values.

    Several seeders at once end with the values of one of them. Raises ConfigurationError, before anything is written,
    for keys whose value nobody gives, all at once.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigurationError(f"{workers} workers: 1 to {MAX_WORKERS} are allowed")
    known = catalogue or load_catalogue()
    wanted = _selected(known, only)
    seeder = _Seeder(
        catalogue=known,
        client=aws.client("secretsmanager"),
        prefix=prefix,
        selected=[name for name in wanted if name not in made_elsewhere],
        overrides=_overrides(known, os.environ if environment is None else environment, progress),
        rotating=_rotating(known, rotate),
        generating=generate or not (aws.is_emulator or allow_development_defaults),
        emulated=aws.is_emulator,
        workers=workers,
        progress=progress,
    )
    seeder.check_rotation()
    with nothing_of_the_wire_logged():
        results = seeder.dry_run() if dry_run else seeder.run()
    left = [SeedResult(f"{prefix}/{name}", "not seeded", ()) for name in wanted if name in made_elsewhere]
    return [*results, *left]


def _selected(catalogue: Catalogue, only: Collection[str] | None) -> list[str]:
    """Return the names of the secrets that are meant. Raises ConfigurationError for one that is not declared."""
    unknown = [name for name in only or () if name not in catalogue.secrets]
    if unknown:
        raise ConfigurationError(
            f"the catalogue has no secret {', '.join(unknown)}; it has {', '.join(catalogue.secrets)}"
        )
    return [name for name in catalogue.secrets if not only or name in only]


def _rotating(catalogue: Catalogue, rotate: Collection[str]) -> dict[Place, bool]:
    """Return the keys that shall have another value; True for those that were named themselves."""
    found: dict[Place, bool] = {}
    for name in rotate:
        if name in catalogue.secrets:
            found = {**{(name, key): False for key in catalogue.secrets[name].keys}, **found}
            continue
        try:
            place = place_of(name)
        except ValueError:
            raise ConfigurationError(
                f"the catalogue has no secret {name}; it has {', '.join(catalogue.secrets)}"
            ) from None
        catalogue.key(place)
        found[place] = True
    return found


def _overrides(
    catalogue: Catalogue, environment: Mapping[str, str], progress: Callable[[str], None]
) -> dict[Place, str]:
    """Return the values that the environment gives. An empty one counts as none.

    OVERRIDE_<SECRET>_<KEY> is for one key (OVERRIDE_POSTGRES_AIRFLOW_USER, as in the variables of a profile, too),
    OVERRIDE_<KEY> for all of that name. Raises ConfigurationError for a variable that could mean either.
    """
    one: dict[str, list[Place]] = {}
    many: dict[str, list[Place]] = {}
    for place, _key in catalogue.places():
        own = override_name(place[1])
        many.setdefault(own, []).append(place)
        variable = own.removeprefix(OVERRIDE_PREFIX)
        for name in {override_name(f"{place[0]}_{variable}"), override_name(qualified_name(place[0], variable))}:
            one.setdefault(name, []).append(place)
    given = {name: value for name, value in environment.items() if name.startswith(OVERRIDE_PREFIX) and value}
    values: dict[Place, str] = {}
    for name in sorted(given.keys() & many.keys()):
        if len(many[name]) > 1:
            progress(f"{name} replaces {' and '.join('.'.join(place) for place in many[name])}")
        values |= dict.fromkeys(many[name], given[name])
    for name in sorted(given.keys() & one.keys()):
        if len({*one[name], *many.get(name, ())}) > 1:
            meant = sorted({".".join(place) for place in (*one[name], *many.get(name, ()))})
            raise ConfigurationError(f"{name} could mean {' or '.join(meant)}; name one of them otherwise")
        values[one[name][0]] = given[name]
    for name in sorted(given.keys() - one.keys() - many.keys()):
        progress(f"{name} is the name of no key, and replaces nothing")
    return values


@dataclass
class _Plan:
    """What the selected entries shall hold."""

    entries: dict[str, Entry]
    changes: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    """secret -> the keys whose values differ, with the new ones."""


@dataclass
class _Seeder:
    """One run: reads, plans and writes, again when another seeder was faster."""

    catalogue: Catalogue
    client: Any
    prefix: str
    selected: Sequence[str]
    overrides: Mapping[Place, str] = field(repr=False)
    rotating: Mapping[Place, bool]
    generating: bool
    emulated: bool
    workers: int
    progress: Callable[[str], None]
    first: dict[Place, str | None] = field(default_factory=dict, repr=False)
    """What was there when this run began: a key that has another value by now needs no rotation any more."""
    made: dict[Place, str] = field(default_factory=dict, repr=False)
    """What this run has generated, so that a second try writes the same."""
    tries: dict[tuple[str, str | None], int] = field(default_factory=dict)
    """How often an entry was to be written on top of a version."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)

    def check_rotation(self) -> None:
        """Raise ConfigurationError for a key that was named and cannot get another value."""
        for (secret, key), named in self.rotating.items():
            generator = self._generator(self.catalogue.key((secret, key)))
            if secret not in self.selected:
                raise ConfigurationError(f"{secret}.{key} cannot be rotated: its secret is not seeded here")
            if named and generator is not None and not generator.rotates and (secret, key) not in self.overrides:
                sources = " and ".join(".".join(source) for source in generator.sources)
                raise ConfigurationError(
                    f"{secret}.{key} cannot be rotated: it is {f'made of {sources}' if sources else 'a fixed text'}",
                    hint=f"--rotate {sources}" if len(generator.sources) == 1 else f"set {override_name(key)}",
                )

    def dry_run(self) -> list[SeedResult]:
        """Return what a run would do. What an entry that has to be restored holds is not known: all keys are named."""
        plan = self._plan(self._read())
        outcomes: dict[str, Outcome] = {"missing": "created", "deleted": "restored"}
        return [
            SeedResult(
                f"{self.prefix}/{name}",
                outcomes.get(plan.entries[name].state, "updated" if plan.changes[name] else "unchanged"),
                self._in_order(name, plan.changes[name]),
            )
            for name in self.selected
        ]

    def run(self) -> list[SeedResult]:
        """Write what differs, until nobody else writes in between."""
        pause = _FIRST_PAUSE
        for round_ in range(_ROUNDS):
            if round_:
                time.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
            if self._round():
                return [
                    SeedResult(
                        f"{self.prefix}/{name}",
                        self.outcomes.get(name, "unchanged"),
                        self._in_order(name, self.written.get(name, ())),
                    )
                    for name in self.selected
                ]
        raise UnreachableError("others keep writing the same secrets", hint="run it again")

    def _in_order(self, name: str, keys: Collection[str]) -> tuple[str, ...]:
        return tuple(key for key in self.catalogue.secrets[name].keys if key in keys)

    def _round(self) -> bool:
        """Read, plan and write once; False when another seeder was faster with one entry at least."""
        entries = self._read()
        plan = self._plan(entries)
        deleted = [name for name in self.selected if entries[name].state == "deleted"]
        if deleted:
            self._each(self._restore, deleted)
            plan = self._plan({**entries, **self._read(deleted)})
        due = [name for name in self.selected if plan.changes[name]]
        # Before the first write, so that a value that cannot be put stops all of them.
        requests = {name: self._request(name, plan) for name in due}
        done = self._each(lambda name: self._write(name, plan, requests[name]), due)
        return all(done)

    def _read(self, names: Sequence[str] | None = None) -> dict[str, Entry]:
        """Return the entries, by default the selected ones and those that they are made of."""
        if names is None:
            sources = {
                source[0]
                for name in self.selected
                for key in self.catalogue.secrets[name].keys.values()
                for source in self._all_sources(key)
            }
            names = [name for name in self.catalogue.secrets if name in self.selected or name in sources]
        read = self._each(
            lambda name: read_entry(self.client, self.catalogue.secrets[name], f"{self.prefix}/{name}"), names
        )
        return dict(zip(names, read, strict=True))

    def _all_sources(self, key: Key) -> Iterator[Place]:
        for source in key.sources:
            yield source
            yield from self._all_sources(self.catalogue.key(source))

    def _generator(self, key: Key) -> Generator | None:
        """Return what makes the key's value here; None when an operator has to give it."""
        if not self.generating:
            return key.local
        return key.generate or (key.local if self.emulated else None)

    def _plan(self, entries: dict[str, Entry]) -> _Plan:
        """Return what is to be written. Raises ConfigurationError for all values at once that nobody gives."""
        values = _Values(self, entries)
        plan = _Plan(entries)
        for name in self.selected:
            plan.changes[name] = {}
            for key in self.catalogue.secrets[name].keys:
                value = values.of(name, key)
                if value is not None and value != entries[name].value(key):
                    plan.changes[name][key] = value
        values.refuse()
        for place in self._following_elsewhere(plan):
            raise ConfigurationError(
                f"{'.'.join(place)} is made of a value that changes, and its secret is not seeded with it",
                hint=f"add --only {place[0]}",
            )
        return plan

    def _following_elsewhere(self, plan: _Plan) -> Iterator[Place]:
        """Yield the keys outside the selection whose sources change."""
        changing = {
            (name, key)
            for name, keys in plan.changes.items()
            for key in keys
            if plan.entries[name].value(key) is not None
        }
        for place, key in self.catalogue.places():
            if place[0] not in self.selected and changing.intersection(self._all_sources(key)):
                yield place

    def _request(self, name: str, plan: _Plan) -> dict[str, Any]:
        values = {**plan.entries[name].values, **plan.changes[name]}
        return _encoded(self.catalogue.secrets[name], f"{self.prefix}/{name}", values)

    def _restore(self, name: str) -> None:
        with translated(f"secret {self.prefix}/{name}"):
            try:
                self.client.restore_secret(SecretId=f"{self.prefix}/{name}")
            except self.client.exceptions.InvalidRequestException:
                # Another seeder was faster; when it is something else, reading it says what.
                return
        self.outcomes[name] = "restored"
        self.progress(f"{self.prefix}/{name}: restored")

    def _write(self, name: str, plan: _Plan, request: Mapping[str, Any]) -> bool:
        """Write one entry and read it back. False when it holds another's values by then.

        The token of a write is made of the version that it goes on top of. So of two that start from one version only
        the first is taken: Secrets Manager refuses the other content for the same token.
        """
        entry, full_name = plan.entries[name], f"{self.prefix}/{name}"
        secret, changes = self.catalogue.secrets[name], plan.changes[name]
        client, exceptions = self.client, self.client.exceptions
        token = self._token(full_name, entry.version)
        with _without_values(self._not_declared(name, changes)), translated(f"secret {full_name}"):
            try:
                if entry.state == "missing":
                    client.create_secret(
                        Name=full_name, Description=secret.description, ClientRequestToken=token, **request
                    )
                    self.outcomes[name] = "created"
                else:
                    client.put_secret_value(SecretId=full_name, ClientRequestToken=token, **request)
            except exceptions.ResourceExistsException:
                return False
        back = read_entry(client, secret, full_name)
        if any(back.value(key) != value for key, value in changes.items()):
            return False
        self.outcomes.setdefault(name, "updated")
        self.written.setdefault(name, set()).update(changes)
        self.progress(f"{full_name}: {self.outcomes[name]}")
        return True

    def _not_declared(self, name: str, changes: Mapping[str, str]) -> list[str]:
        """Return the values that the catalogue does not say openly, as it says that a user is `admin`."""
        keys = self.catalogue.secrets[name].keys
        return [
            value
            for key, value in changes.items()
            if not any(isinstance(made, Fixed) and made.text == value for made in (keys[key].local, keys[key].generate))
        ]

    def _token(self, name: str, version: str | None) -> str:
        """Return the id of the version that is to be written on top of `version`.

        When that is still the current one after some rounds, then nobody is about to replace it: the token was used
        before, and somebody went back to the version since.
        """
        tries = self.tries[name, version] = self.tries.get((name, version), -1) + 1
        material = f"{name}\n{version}\n{tries // _ROUNDS_OF_PATIENCE}"
        return hashlib.sha256(material.encode()).hexdigest()

    def _each(self, do: Callable[[_Item], _Made], items: Sequence[_Item]) -> list[_Made]:
        """Do it for every item at once, so many at a time, and raise when all are through."""
        if not items:
            return []
        with ThreadPoolExecutor(max_workers=min(self.workers, len(items))) as pool:
            futures = [pool.submit(do, item) for item in items]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if len(errors) > 1 and all(isinstance(error, GoldlakeError) for error in errors):
            # What cannot be reached counts more than an answer that is no.
            worst = max(errors, key=lambda error: isinstance(error, UnreachableError))
            assert isinstance(worst, GoldlakeError)  # noqa: S101 - all are
            raise type(worst)("; ".join(map(str, errors)), hint=worst.hint, code=worst.code)
        return [future.result() for future in futures]


class _Values:
    """The values that the keys shall have in one round, each worked out once."""

    def __init__(self, seeder: _Seeder, entries: Mapping[str, Entry]) -> None:
        self._seeder = seeder
        self._entries = entries
        self._found: dict[Place, str | None] = {}
        self._not_given: list[Place] = []
        self._without_source: list[str] = []

    def of(self, secret: str, key: str) -> str | None:
        """Return a key's value; None when nobody gives one, or when it cannot be known before a restore."""
        place = (secret, key)
        if place not in self._found:
            self._found[place] = self._value(place)
        return self._found[place]

    def refuse(self) -> None:
        """Raise ConfigurationError for all values that nobody gives."""
        if self._not_given:
            raise ConfigurationError(
                f"{', '.join('.'.join(place) for place in self._not_given)} would get a development default, which "
                "everyone knows, on AWS itself: nothing generates it",
                hint=f"set {' and '.join(override_name(key) for _secret, key in self._not_given)}, "
                "or pass --allow-development-defaults",
            )
        if self._without_source:
            raise ConfigurationError("; ".join(self._without_source))

    def _value(self, place: Place) -> str | None:
        seeder, (secret, key) = self._seeder, place
        entry = self._entries[secret]
        current = entry.value(key)
        if secret not in seeder.selected:
            return current
        if entry.state != "deleted":
            seeder.first.setdefault(place, current)
        override = seeder.overrides.get(place)
        if override is not None:
            return override
        generator = seeder._generator(seeder.catalogue.key(place))
        if generator is not None and generator.sources:
            return self._made_of_others(place, generator)
        if current is not None and not self._rotates(place, generator, current):
            return current
        if generator is None:
            if entry.state != "deleted":
                self._not_given.append(place)
            return None
        return self._new(place, generator)

    def _made_of_others(self, place: Place, generator: Generator) -> str | None:
        missing = [source for source in generator.sources if self.of(*source) is None]
        if not missing:
            return generator.generate(lambda secret, key: self.of(secret, key) or "")
        for source in missing:
            if source[0] not in self._seeder.selected:
                self._without_source.append(
                    f"{'.'.join(place)} is made of {'.'.join(source)}, which has no value and is not seeded here"
                )
        return None

    def _rotates(self, place: Place, generator: Generator | None, current: str) -> bool:
        seeder = self._seeder
        if place not in seeder.rotating or (generator is not None and not generator.rotates):
            return False
        # Another value by now: another seeder has rotated it.
        return current == seeder.first[place]

    def _new(self, place: Place, generator: Generator) -> str:
        """Return the default or a generated value; the one of the round before, if there was any."""
        seeder = self._seeder
        if place not in seeder.made:
            seeder.made[place] = (
                generator.generate(lambda secret, key: self.of(secret, key) or "")
                if seeder.generating and generator is seeder.catalogue.key(place).generate
                else generator.local(*place, lambda secret, key: self.of(secret, key) or "")
            )
        return seeder.made[place]


@contextlib.contextmanager
def _without_values(values: Iterable[str]) -> Iterator[None]:
    """Raise Goldlake's errors of the block without the values, should a service have quoted one."""
    try:
        yield
    except GoldlakeError as error:
        quoted = [value for value in values if value in error.message or repr(value)[1:-1] in error.message]
        if not quoted:
            raise
        # Without its cause, too.
        message = error.message.split(":", 1)[0] + f": refused ({error.code}); the service's words quote a value"
        raise type(error)(message, hint=error.hint, code=error.code) from None


@dataclass(frozen=True)
class SecretState:
    """How an entry of the catalogue is in Secrets Manager."""

    name: str
    state: Literal["there", "missing", "scheduled for deletion", "no value yet", "keys missing", "unreadable"]
    keys_missing: tuple[str, ...]
    profiles: tuple[str, ...]
    age_seconds: int | None
    """Age of the current version."""
    reason: str | None = None
    """Why it cannot be read."""

    def to_dict(self) -> dict[str, Any]:
        """Return the state for JSON output."""
        return {
            "name": self.name,
            "state": self.state,
            "keys_missing": list(self.keys_missing),
            "profiles": list(self.profiles),
            "age_seconds": self.age_seconds,
            "reason": self.reason,
        }


def states(
    aws: Connection, *, prefix: str = "goldlake", workers: int = 8, catalogue: Catalogue | None = None
) -> list[SecretState]:
    """Return how each declared entry is in Secrets Manager. One that cannot be read says why.

    Raises UnreachableError, AccessDeniedError among them, when none can be read.
    """
    known, client, now = catalogue or load_catalogue(), aws.client("secretsmanager"), datetime.now(UTC)

    def look(secret: Secret) -> tuple[SecretState, GoldlakeError | None]:
        name = f"{prefix}/{secret.name}"
        try:
            entry = read_entry(client, secret, name)
        except GoldlakeError as error:
            return SecretState(name, "unreadable", (), secret.profiles, None, error.message), error
        return _state(secret, name, entry, now), None

    with nothing_of_the_wire_logged(), ThreadPoolExecutor(max_workers=workers) as pool:
        found = list(pool.map(look, known.secrets.values()))
    unreachable = [error for _state, error in found if isinstance(error, UnreachableError)]
    if len(unreachable) == len(found):
        raise unreachable[0]
    return [state for state, _error in found]


def _state(secret: Secret, name: str, entry: Entry, now: datetime) -> SecretState:
    missing = tuple(key for key in secret.keys if entry.value(key) is None)
    age = int((now - entry.made_at).total_seconds()) if entry.made_at else None
    if entry.state == "there":
        return SecretState(name, "keys missing" if missing else "there", missing, secret.profiles, age)
    words: dict[str, Literal["missing", "scheduled for deletion", "no value yet"]] = {
        "missing": "missing",
        "deleted": "scheduled for deletion",
        "empty": "no value yet",
    }
    # What an entry that is scheduled for deletion holds cannot be read.
    return SecretState(name, words[entry.state], () if entry.state == "deleted" else missing, secret.profiles, age)
