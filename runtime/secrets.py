"""The seeder of Secrets Manager: puts the values that the catalogue declares and that are not there yet.

Values never appear in reports, messages or logs: only names of secrets and keys do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from runtime.aws import Connection, nothing_of_the_wire_logged, translated
from runtime.catalogue import Catalogue, load_catalogue
from runtime.errors import ConfigurationError, GoldlakeError, UnreachableError
from runtime.generators import Fixed, Place
from runtime.secrets_entry import Entry, encoded, read_entry
from runtime.secrets_values import Rules, Values, overrides_in, rotating

Outcome = Literal["created", "updated", "unchanged", "restored", "not seeded"]
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


def local_default(secret: str, key: str) -> str:
    """Return a key's value for local development: fixed or derived, the same on every machine.

    It protects nothing and is refused for AWS itself. Raises ConfigurationError when there is no such key.
    """
    return load_catalogue().local_default(secret, key)


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
    rules = Rules(
        known,
        selected=[name for name in wanted if name not in made_elsewhere],
        overrides=overrides_in(known, os.environ if environment is None else environment, progress),
        rotating=rotating(known, rotate),
        generating=generate or not (aws.is_emulator or allow_development_defaults),
        emulated=aws.is_emulator,
    )
    rules.check_rotation()
    seeder = _Seeder(rules, aws.client("secretsmanager"), prefix, workers, progress)
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


@dataclass
class _Plan:
    """What the selected entries shall hold."""

    entries: dict[str, Entry]
    changes: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    """secret -> the keys whose values differ, with the new ones."""


@dataclass
class _Seeder:
    """One run: reads, plans and writes, again when another seeder was faster."""

    rules: Rules
    client: Any
    prefix: str
    workers: int
    progress: Callable[[str], None]
    tries: dict[tuple[str, str | None], int] = field(default_factory=dict)
    """How often an entry was to be written on top of a version."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)

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
            for name in self.rules.selected
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
                    for name in self.rules.selected
                ]
        raise UnreachableError("others keep writing the same secrets", hint="run it again")

    def _in_order(self, name: str, keys: Collection[str]) -> tuple[str, ...]:
        return tuple(key for key in self.rules.catalogue.secrets[name].keys if key in keys)

    def _round(self) -> bool:
        """Read, plan and write once; False when another seeder was faster with one entry at least."""
        entries = self._read()
        plan = self._plan(entries)
        deleted = [name for name in self.rules.selected if entries[name].state == "deleted"]
        if deleted:
            self._each(self._restore, deleted)
            plan = self._plan({**entries, **self._read(deleted)})
        due = [name for name in self.rules.selected if plan.changes[name]]
        # Before the first write, so that a value that cannot be put stops all of them.
        requests = {name: self._request(name, plan) for name in due}
        done = self._each(lambda name: self._write(name, plan, requests[name]), due)
        return all(done)

    def _read(self, names: Sequence[str] | None = None) -> dict[str, Entry]:
        """Return the entries, by default the selected ones and those that they are made of."""
        if names is None:
            sources = {
                source[0]
                for name in self.rules.selected
                for key in self.rules.catalogue.secrets[name].keys.values()
                for source in self.rules.all_sources(key)
            }
            names = [name for name in self.rules.catalogue.secrets if name in self.rules.selected or name in sources]
        read = self._each(
            lambda name: read_entry(self.client, self.rules.catalogue.secrets[name], f"{self.prefix}/{name}"), names
        )
        return dict(zip(names, read, strict=True))

    def _plan(self, entries: dict[str, Entry]) -> _Plan:
        """Return what is to be written. Raises ConfigurationError for all values at once that nobody gives."""
        values = Values(self.rules, entries)
        plan = _Plan(entries)
        for name in self.rules.selected:
            plan.changes[name] = {}
            for key in self.rules.catalogue.secrets[name].keys:
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
        for place, key in self.rules.catalogue.places():
            if place[0] not in self.rules.selected and changing.intersection(self.rules.all_sources(key)):
                yield place

    def _request(self, name: str, plan: _Plan) -> dict[str, Any]:
        values = {**plan.entries[name].values, **plan.changes[name]}
        return encoded(self.rules.catalogue.secrets[name], f"{self.prefix}/{name}", values)

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
        secret, changes = self.rules.catalogue.secrets[name], plan.changes[name]
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
        keys = self.rules.catalogue.secrets[name].keys
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
