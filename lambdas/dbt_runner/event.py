"""The event that the dbt runner takes, checked before dbt is imported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import ConfigurationError

COMMANDS = ("build", "compile", "debug", "run", "seed", "test")
_KEYS = ("command", "select", "exclude", "full_refresh", "vars", "run_id")


@dataclass(frozen=True)
class DbtCommand:
    """One dbt invocation."""

    command: str = "build"
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    full_refresh: bool = False
    vars: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> DbtCommand:
        """Return the command of an event `{command, select, exclude, full_refresh, vars, run_id, options}`.

        `select` and `exclude` are a text or a list of texts in dbt's selection syntax. `options` is an object with
        more of these keys; the state machine puts its execution's input there. Raises ConfigurationError that lists
        every fault.
        """
        options = event.get("options") or {}
        if not isinstance(options, dict):
            raise ConfigurationError(f"the event cannot be run: options = {options!r}: an object is needed")
        event = {**options, **{key: value for key, value in event.items() if key != "options"}}
        faults = [f"{key} is no known key ({', '.join(_KEYS)})" for key in event if key not in _KEYS]
        command = event.get("command", "build")
        if command not in COMMANDS:
            faults.append(f"command = {command!r}: one of {', '.join(COMMANDS)} is allowed")
        if not isinstance(event.get("full_refresh", False), bool):
            faults.append(f"full_refresh = {event['full_refresh']!r}: true or false is allowed")
        if not isinstance(event.get("vars") or {}, dict):
            faults.append(f"vars = {event['vars']!r}: an object is needed")
        run_id = event.get("run_id")
        if run_id is not None and not _is_run_id(run_id):
            faults.append(f"run_id = {run_id!r}: 1 to 100 letters, digits, dashes and underscores are allowed")
        selections = {key: _selection(key, event.get(key), faults) for key in ("select", "exclude")}
        if faults:
            raise ConfigurationError("the event cannot be run: " + "; ".join(faults))
        return cls(
            command=command,
            select=selections["select"],
            exclude=selections["exclude"],
            full_refresh=event.get("full_refresh", False),
            vars=event.get("vars") or {},
            run_id=run_id,
        )

    def arguments(self) -> list[str]:
        """Return dbt's command line for this command, without folders and target."""
        arguments = [self.command]
        # One option per value, so that a value that starts with a dash stays a value.
        arguments += [f"--select={value}" for value in self.select]
        arguments += [f"--exclude={value}" for value in self.exclude]
        if self.full_refresh:
            arguments.append("--full-refresh")
        if self.vars:
            arguments += ["--vars", json.dumps(self.vars)]
        return arguments


def _is_run_id(value: Any) -> bool:
    # It becomes part of an S3 key.
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value) is not None


def _selection(key: str, value: Any, faults: list[str]) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(item, str) and item for item in values):
        faults.append(f"{key} = {value!r}: a text or a list of texts is needed")
        return ()
    return tuple(values)
