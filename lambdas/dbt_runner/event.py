"""The event that the dbt runner takes, checked before dbt is imported."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import ConfigurationError
from runtime.settings import DBT_OPERATIONS

# What dbt's command line calls each of them. `deps` and `init` need the internet, `clean` deletes.
DBT_COMMANDS: dict[str, tuple[str, ...]] = {
    "build": ("build",),
    "compile": ("compile",),
    "debug": ("debug",),
    "docs": ("docs", "generate"),
    "retry": ("retry",),
    "run": ("run",),
    "run-operation": ("run-operation",),
    "seed": ("seed",),
    "snapshot": ("snapshot",),
    "source freshness": ("source", "freshness"),
    "test": ("test",),
}
COMMANDS = tuple(DBT_COMMANDS)
_SELECTING = frozenset(COMMANDS) - {"debug", "retry", "run-operation"}
# Which commands an option is for; the rest of the options are for all of them. dbt 1.11's own command line.
_ONLY_FOR = {
    "select": _SELECTING,
    "exclude": _SELECTING,
    "selector": _SELECTING,
    "state": _SELECTING,
    "full_refresh": frozenset({"build", "compile", "retry", "run", "seed"}),
    "threads": frozenset(COMMANDS) - {"debug"},
    "operation": frozenset({"run-operation"}),
    "args": frozenset({"run-operation"}),
}
MAX_THREADS = 16
DEFAULT_TARGET = "redshift"
# The artifacts of the last good run, for `state`.
LATEST = "latest"
_NEEDS_STATE = re.compile(r"\b(state|result|source_status):")
_NAME = r"[A-Za-z_][A-Za-z0-9_.]{0,99}"


@dataclass(frozen=True)
class _Key:
    """What a value of the event must be, and the words that say so."""

    holds: Callable[[Any], bool]
    allowed: str


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_threads(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_THREADS


def _is_object(value: Any) -> bool:
    return value is None or isinstance(value, dict)


_KEYS = {
    "command": _Key(lambda value: isinstance(value, str) and value in COMMANDS, f"one of {', '.join(COMMANDS)}"),
    "select": _Key(lambda _value: True, ""),
    "exclude": _Key(lambda _value: True, ""),
    "selector": _Key(_matches(_NAME), "the name of a selector in selectors.yml"),
    "state": _Key(_matches(r"[A-Za-z0-9_-]{1,100}"), f"{LATEST}, or the id of an earlier run"),
    "full_refresh": _Key(lambda value: isinstance(value, bool), "true or false"),
    "vars": _Key(_is_object, "an object"),
    "threads": _Key(_is_threads, f"1 to {MAX_THREADS}, each of which is a connection"),
    "target": _Key(_matches(_NAME), "the name of a target in profiles.yml"),
    "operation": _Key(_matches(_NAME), "the name of a macro"),
    "args": _Key(_is_object, "an object"),
    # It becomes part of an S3 key.
    "run_id": _Key(
        lambda value: value is None or (_matches(r"[A-Za-z0-9_-]{1,100}")(value) and value != LATEST),
        f"1 to 100 letters, digits, dashes and underscores, and not {LATEST},",
    ),
}


@dataclass(frozen=True)
class DbtCommand:
    """One dbt invocation."""

    command: str = "build"
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    full_refresh: bool = False
    vars: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    selector: str | None = None
    state: str | None = None
    """Whose artifacts `state:modified` and the like compare with: a run's id, or LATEST."""
    threads: int | None = None
    target: str = DEFAULT_TARGET
    operation: str | None = None
    args: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> DbtCommand:
        """Return the command of an event, whose keys are the fields of this class and `options`.

        `select` and `exclude` are a text or a list of texts in dbt's selection syntax. `options` is an object with
        more of these keys; the state machine puts its execution's input there. Raises ConfigurationError that lists
        every fault.
        """
        options = event.get("options") or {}
        if not isinstance(options, dict):
            raise ConfigurationError(f"the event cannot be run: options = {options!r}: an object is needed")
        event = {**options, **{key: value for key, value in event.items() if key != "options"}}
        faults = [f"{key} is no known key ({', '.join(_KEYS)})" for key in event if key not in _KEYS]
        faults += [
            f"{key} = {event[key]!r}: {rule.allowed} is allowed"
            for key, rule in _KEYS.items()
            if key in event and not rule.holds(event[key])
        ]
        selections = {key: _selection(key, event.get(key), faults) for key in ("select", "exclude")}
        if not faults:
            faults = _disagreements(event)
        if faults:
            raise ConfigurationError("the event cannot be run: " + "; ".join(faults))
        kept = {key: value for key, value in event.items() if value is not None}
        state = kept.get("state") or (LATEST if _compares(selections) else None)
        return cls(**{**kept, **selections, "state": state})

    def arguments(self) -> list[str]:
        """Return dbt's command line for this command, without folders and target."""
        arguments = [*DBT_COMMANDS[self.command]]
        if self.operation:
            arguments += [self.operation, "--args", json.dumps(self.args)]
        # One option per value, so that a value that starts with a dash stays a value.
        arguments += [f"--select={value}" for value in self.select]
        arguments += [f"--exclude={value}" for value in self.exclude]
        if self.selector:
            arguments += ["--selector", self.selector]
        if self.full_refresh:
            arguments.append("--full-refresh")
        if self.threads:
            arguments += ["--threads", str(self.threads)]
        if self.vars:
            arguments += ["--vars", json.dumps(self.vars)]
        return arguments


def _selection(key: str, value: Any, faults: list[str]) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(item, str) and item for item in values):
        faults.append(f"{key} = {value!r}: a text or a list of texts is needed")
        return ()
    return tuple(values)


def _compares(selections: dict[str, tuple[str, ...]]) -> bool:
    """Return whether a selection asks for what changed since another run."""
    return any(_NEEDS_STATE.search(value) for values in selections.values() for value in values)


def _disagreements(event: dict[str, Any]) -> list[str]:
    """Return what is wrong with values that are well formed, each by itself."""
    command = event.get("command", "build")
    faults = [
        f"{key} is not for {command} (it is for {', '.join(sorted(allowed))})"
        for key, allowed in _ONLY_FOR.items()
        if event.get(key) and command not in allowed
    ]
    if event.get("selector") and (event.get("select") or event.get("exclude")):
        faults.append("selector stands alone: dbt would ignore select and exclude beside it")
    if command == "retry" and not event.get("run_id"):
        faults.append("retry needs the run_id of the run that it goes on with")
    allowed = [name.strip() for name in os.environ.get(DBT_OPERATIONS, "").split(",") if name.strip()]
    if command == "run-operation" and event.get("operation") not in allowed:
        listed = ", ".join(allowed) or "none"
        faults.append(f"operation = {event.get('operation')!r}: {listed} is allowed by the setting dbtOperations")
    return faults
