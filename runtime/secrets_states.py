"""How the entries of the catalogue are in Secrets Manager."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runtime.aws import Connection, nothing_of_the_wire_logged
from runtime.catalogue import Catalogue, Secret, load_catalogue
from runtime.errors import GoldlakeError, UnreachableError
from runtime.secrets_entry import Entry, read_entry


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
