"""The emulator, with a record of each decision that it makes: `python emulator_hook.py`, in the emulator's environment.

The emulator authorises every request in one function, and has by then told the caller from the signature, the action
from the service's own model and the resource from the request; whoever made the request (boto3, DuckDB, delta-rs) is
all the same to it. This process wraps that function and starts the emulator as `python -m ministack` does. What the
emulator does itself in a role's name, without a request, is recorded where it does it: a state machine and a schedule
that call something, and Lambda, which writes the functions' logs.

It imports nothing of the project: its environment has only the emulator. Each call is a line of JSON in the file that
the environment variable names.
"""

from __future__ import annotations

import contextvars
import functools
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "GOLDLAKE_RECORD_CALLS"
# What AWS asks for, and the recorder keeps: the condition keys that the program's policies use.
CONTEXT_KEYS = ("s3:prefix",)

_lock = threading.Lock()
# A state machine's tasks run in threads of their own, which inherit the context.
_machine: contextvars.ContextVar[str | None] = contextvars.ContextVar("machine", default=None)


def write(line: Mapping[str, Any]) -> None:
    """Append a line to the record."""
    text = json.dumps(line, sort_keys=True) + "\n"
    with _lock, Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(text)


def note(role: str, action: str, resource: str, context: Mapping[str, Any] | None = None) -> None:
    """Record a call that the emulator makes in a role's name."""
    write({"principal": role, "action": action, "resource": resource, "context": dict(context or {}), "allowed": True})


def wrap(module: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a function of the emulator by one that records and then does the same."""
    original = getattr(module, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(module, name, replaced)


def decision(original: Any, access_key: str, action: str, service: str, region: str, *args: Any, **kwargs: Any) -> Any:
    """Record who asks for what, and whether the emulator lets it through."""
    from ministack.core.iam_evaluator import resolve_principal  # type: ignore[import-not-found,unused-ignore]
    from ministack.core.responses import get_account_id  # type: ignore[import-not-found,unused-ignore]

    refused = original(access_key, action, service, region, *args, **kwargs)
    found = resolve_principal(access_key or "", get_account_id())
    given = {**dict(zip(("resource_arn", "service_context"), args, strict=False)), **kwargs}
    context = {key: value for key, value in (given.get("service_context") or {}).items() if key in CONTEXT_KEYS}
    write(
        {
            "principal": getattr(found, "arn", ""),
            "action": action,
            "resource": given.get("resource_arn", "*"),
            "context": context,
            "allowed": refused is None,
        }
    )
    return refused


def session(original: Any, access_key: str, known: dict[str, Any]) -> Any:
    """Record whose a temporary key is: the other services of the laptop see only the key."""
    write({"access_key": access_key, "principal": known.get("Arn", "")})
    return original(access_key, known)


def task(original: Any, state: Any, given: Any, execution: Any, context: Any) -> Any:
    """Remember which state machine a task belongs to."""
    _machine.set((execution or {}).get("stateMachineArn"))
    return original(state, given, execution, context)


def called_by_machine(original: Any, function: Any, event: Any) -> Any:
    """Record that a state machine's role invokes a function."""
    from ministack.services import stepfunctions  # type: ignore[import-not-found,unused-ignore]

    machine = stepfunctions._state_machines.get(_machine.get()) or {}
    note(machine.get("roleArn", ""), "lambda:InvokeFunction", str(function))
    return original(function, event)


def called_by_schedule(original: Any, target: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Record that a schedule's role starts its target."""
    if ":states:" in target.get("Arn", "") and target.get("RoleArn"):
        note(target["RoleArn"], "states:StartExecution", target["Arn"])
    return original(target, *args, **kwargs)


def logged(original: Any, function: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Record that Lambda writes a function's log in its role's name: a stream first, then the lines."""
    settings = function.get("config") or function
    region, account = settings["FunctionArn"].split(":")[3:5]
    stream = f"arn:aws:logs:{region}:{account}:log-group:/aws/lambda/{settings['FunctionName']}:log-stream:*"
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        note(settings["Role"], action, stream)
    return original(function, *args, **kwargs)


def main() -> None:
    """Wrap what decides, and run the emulator."""
    from ministack import app  # type: ignore[import-not-found,unused-ignore]
    from ministack.core import iam_evaluator  # type: ignore[import-not-found,unused-ignore]
    from ministack.services import eventbridge, lambda_svc, stepfunctions, sts

    wrap(iam_evaluator, "enforce", decision)
    wrap(sts, "register_session", session)
    wrap(stepfunctions, "_execute_task", task)
    wrap(stepfunctions, "_call_lambda", called_by_machine)
    wrap(eventbridge, "_invoke_target", called_by_schedule)
    wrap(lambda_svc, "_emit_lambda_logs", logged)
    app.main()


if __name__ == "__main__":
    main()
