"""Deployment without the Pulumi engine: the program runs in this process, and each resource that it registers is
created in the emulator.

The SDK's mock monitor calls `new_resource` in dependency order and with resolved inputs; what it returns
is what later resources see. So the very program that `pulumi up` runs is deployed, by boto3 instead of the
provider. A record of ids and input digests makes it idempotent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import json
import runpy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pulumi
import yaml
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.settings import ROOT, SETTINGS
from pulumi.runtime.stack import run_pulumi_func

from local.resources import KINDS, RECORDED_ONLY, REFUSED, Kind
from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError, GoldlakeError
from runtime.target import write_atomically

# `deleted` happens by the engine only; this deployment lists what is left behind.
Action = Literal["created", "updated", "unchanged", "recorded only", "deleted"]
ACTIONS: tuple[Action, ...] = ("created", "updated", "unchanged", "recorded only", "deleted")

# How long the outputs of a program are waited for together, before the SDK waits for them one by one.
_OUTPUTS_SECONDS = 2

# How the SDK marks a secret input on the wire (pulumi.runtime.rpc).
_SIGNATURE = "4dabf18193072939515e22adb298388d"


@dataclass(frozen=True)
class Step:
    """What was done, or would be done, with one resource."""

    type: str
    name: str
    action: Action
    reason: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the step for JSON output."""
        return {"type": self.type, "name": self.name, "action": self.action, "reason": self.reason}


@dataclass
class Deployment:
    """The result of a deployment: one step per resource in the order of registration, and the stack's outputs."""

    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    """Resources of an earlier deployment that the program no longer registers; they are not deleted."""


class Record:
    """What an in-process deployment left in the emulator: `<type>::<name>` -> id, digest of inputs, outputs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                self.entries = json.loads(path.read_text())
            except ValueError as exc:
                raise FailedError(f"{path} cannot be read: {exc}", hint="goldlake local reset") from exc

    def put(self, key: str, entry: dict[str, Any]) -> None:
        """Keep an entry at once: a deployment that is killed afterwards finds it."""
        self.entries[key] = entry
        write_atomically(self._path, json.dumps(self.entries, indent=1))


class EmulatorMocks(Mocks):
    """Creates what the program registers. With `dry_run` it only compares."""

    def __init__(self, aws: Connection, record: Record, *, dry_run: bool, on_step: Callable[[Step], None]) -> None:
        self._aws = aws
        self._record = record
        self._dry_run = dry_run
        self._on_step = on_step
        self.seen: set[str] = set()
        self._ids: set[str] = set()
        self._new_ids: set[str] = set()
        self.error: GoldlakeError | None = None

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Answer a provider function that the program calls."""
        if args.token == "aws:index/getCallerIdentity:getCallerIdentity":  # noqa: S105 - a function's name
            try:
                with translated("who am I"):
                    identity = self._aws.client("sts").get_caller_identity()
            except GoldlakeError as exc:
                raise self._failed(exc) from exc
            return {
                "accountId": identity["Account"],
                "arn": identity["Arn"],
                "userId": identity["UserId"],
                "id": identity["Account"],
            }, []
        if args.token == "aws:ec2/getSubnet:getSubnet":  # noqa: S105 - a function's name
            return self._subnet(str(args.args["id"])), []
        raise self._failed(ConfigurationError(f"the program calls {args.token}, which local/inprocess.py can't answer"))

    def _subnet(self, id: str) -> dict[str, Any]:
        """Return a subnet that is adopted, as far as the program looks at it."""
        try:
            with translated(f"subnet {id}"):
                found = self._aws.client("ec2").describe_subnets(SubnetIds=[id])["Subnets"][0]
        except GoldlakeError as exc:
            raise self._failed(exc) from exc
        return {
            "id": id,
            "vpcId": found["VpcId"],
            "availabilityZone": found["AvailabilityZone"],
            "availableIpAddressCount": found["AvailableIpAddressCount"],
        }

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """Bring one resource into the emulator and return its id and outputs."""
        if not args.custom and not args.resource_id:
            return "", {}
        if self.error is not None:
            # The program goes on after a failed registration; nothing more is created.
            raise self.error
        try:
            return self._apply(args)
        except GoldlakeError as exc:
            raise self._failed(exc) from exc
        except Exception as exc:
            # A defect stops further creation, too.
            raise self._failed(FailedError(f"{args.typ} {args.name}: {type(exc).__name__}: {exc}")) from exc

    def _failed(self, error: GoldlakeError) -> GoldlakeError:
        self.error = self.error or error
        return error

    def _apply(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        inputs = {key: unwrapped(value) for key, value in args.inputs.items()}
        key = f"{args.typ}::{args.name}"
        self.seen.add(key)
        if args.resource_id:
            return self._read(args, inputs)
        if args.typ in REFUSED:
            raise ConfigurationError(f"{args.typ} {args.name}: {REFUSED[args.typ]}")
        kind = KINDS.get(args.typ)
        if kind is None:
            reason = RECORDED_ONLY.get(args.typ, "no emulated API for this type")
            self._on_step(Step(args.typ, args.name, "recorded only", reason))
            return f"{args.name}-recorded", inputs
        digest = digest_of(inputs)
        action, id = self._plan(kind, key, digest, inputs, f"{args.typ} {args.name}")
        if action != "unchanged" and not self._dry_run:
            with translated(f"{args.typ} {args.name}"):
                applied = kind.apply(self._aws, inputs, id)
            self._record.put(key, {"id": applied.id, "digest": digest, "outputs": applied.outputs})
        self._on_step(Step(args.typ, args.name, action))
        entry = self._record.entries.get(key) or planned(args.typ, args.name, inputs)
        # A part of another resource has that one's id: the settings of a bucket are called as the bucket is.
        if action == "created" and entry["id"] not in self._ids:
            self._new_ids.add(entry["id"])
        self._ids.add(entry["id"])
        return entry["id"], {**inputs, **entry["outputs"]}

    def _read(self, args: MockResourceArgs, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a resource that the program adopts by its id. Raises ConfigurationError when it is not there."""
        id, label = str(args.resource_id), f"{args.typ} {args.resource_id}"
        kind = KINDS.get(args.typ)
        with translated(label):
            if kind is None or not kind.exists(self._aws, id, inputs):
                raise ConfigurationError(f"{label} is not there, and the settings say that it is")
        return id, dict(inputs)

    def _plan(
        self, kind: Kind, key: str, digest: str, inputs: Mapping[str, Any], label: str
    ) -> tuple[Action, str | None]:
        """Return what is to be done with a resource, and its id in the emulator if it is there."""
        entry = self._record.entries.get(key)
        if entry is None:
            return "created", None
        with translated(label):
            there = kind.exists(self._aws, entry["id"], inputs)
        if not there:
            return "created", None
        # Settings of a resource that was made just now are read as defaults, and are not what the program says.
        same = entry["digest"] == digest and self._new_ids.isdisjoint(_texts(inputs))
        return ("unchanged" if same else "updated"), entry["id"]


def _texts(value: Any) -> Iterator[str]:
    """Return all texts in nested inputs."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def planned(type_token: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stand-in for a resource that a dry run would create: its id and ARN are not known yet."""
    shown = f"<{type_token.rsplit(':', 1)[-1]} {name}>"
    return {"id": inputs.get("bucket") or inputs.get("name") or shown, "outputs": {"arn": f"<arn of {name}>"}}


def unwrapped(value: Any) -> Any:
    """Return an input as the program wrote it, at any depth: secrets out of the SDK's wrapping, whole numbers as int.

    Numbers cross the SDK's wire as floats (protobuf's Struct has no other).
    """
    if isinstance(value, Mapping):
        if _SIGNATURE in value:
            return unwrapped(value.get("value"))
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def digest_of(inputs: Mapping[str, Any]) -> str:
    """Return a digest of a resource's inputs, with files by their content. No value can be read back from it."""

    def plain(value: Any) -> Any:
        if isinstance(value, pulumi.FileAsset | pulumi.FileArchive):
            return hashlib.sha256(Path(str(value.path)).read_bytes()).hexdigest()
        raise TypeError(f"an input of type {type(value).__name__} has no digest")

    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=plain).encode()).hexdigest()


def stack_configuration(project_dir: Path, stack: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration that the engine would give the program, with `overrides` on top.

    Defaults come from Pulumi.yaml, values from Pulumi.<stack>.yaml; arrays are JSON, as Pulumi passes them.
    Raises ConfigurationError when the stack has no file.
    """
    path = project_dir / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        files = (file.name.split(".") for file in project_dir.glob("Pulumi.*.yaml"))
        known = sorted(parts[1] for parts in files if "example" not in parts)
        raise ConfigurationError(f"stack {stack!r} has no {path.name}: known stacks are {', '.join(known)}")
    declared = yaml.safe_load((project_dir / "Pulumi.yaml").read_text()).get("config", {})
    defaults = {key: entry["default"] for key, entry in declared.items() if "default" in entry}
    values = {**defaults, **(yaml.safe_load(path.read_text()) or {}).get("config", {})}
    return {key: _text(value) for key, value in values.items()} | dict(overrides)


def _text(value: Any) -> str:
    # A day without quotes is one to YAML; the engine makes a time of it, which the settings refuse.
    return value if isinstance(value, str) else json.dumps(value, default=lambda day: f"{day} 00:00:00 +0000 UTC")


def run_program(
    project_dir: Path,
    stack: str,
    configuration: Mapping[str, str],
    mocks: Mocks,
    *,
    monitor: MockMonitor | None = None,
) -> dict[str, Any]:
    """Run the program of `project_dir` under mocks and return its resolved outputs, after all registrations.

    Raises what the program raises; the mocks' own errors come wrapped by the SDK, so ask the mocks.
    """
    project = yaml.safe_load((project_dir / "Pulumi.yaml").read_text())["name"]
    outputs: dict[str, Any] = {}

    def program() -> None:
        root: Any = pulumi.runtime.get_root_resource()
        root.outputs.clear()
        runpy.run_path(str(project_dir / "__main__.py"), run_name="__main__")
        pulumi.Output.all(**root.outputs).apply(outputs.update)

    run_in_loop(program, mocks, project=project, stack=stack, configuration=configuration, monitor=monitor)
    return outputs


def run_in_loop(
    program: Callable[[], None],
    mocks: Mocks,
    *,
    project: str,
    stack: str,
    configuration: Mapping[str, str] | None = None,
    monitor: MockMonitor | None = None,
) -> None:
    """Run a function as a Pulumi program under mocks, and wait for all that it registers."""
    with _event_loop() as loop:
        # set_mocks keeps a root that is there, and it is another stack's when a program was run before.
        ROOT.set(None)
        pulumi.runtime.set_mocks(mocks, project=project, stack=stack, preview=False, monitor=monitor)
        pulumi.runtime.set_all_config(dict(configuration or {}))
        # What a program that failed left waiting; the SDK's own decorator for tests clears both, too.
        SETTINGS.rpc_manager.clear()
        SETTINGS.outputs.clear()

        def body() -> Awaitable[None]:
            program()
            return _most_outputs()

        loop.run_until_complete(run_pulumi_func(body))


async def _most_outputs() -> None:
    """Wait until all outputs so far are there, or until one fails.

    The SDK waits by itself, but for the first of all that are left, and then anew for the rest: of a few thousand
    outputs that takes longer than everything else. The limit is for a failed registration that no output shows; the
    SDK's own waiting raises it.
    """
    outputs = list(SETTINGS.outputs)
    if outputs:
        await asyncio.wait(outputs, timeout=_OUTPUTS_SECONDS, return_when=asyncio.FIRST_EXCEPTION)


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give the SDK an event loop, and close everything that it opens.

    The SDK binds what it creates to the current loop, the root stack of set_mocks included. It calls the mocks from the
    loop's executor, and there it wants a loop in every thread, which it never closes. One thread: resources are
    registered one after the other, always in the same order.
    """
    loop, in_thread = asyncio.new_event_loop(), asyncio.new_event_loop()
    executor = concurrent.futures.ThreadPoolExecutor(
        max_workers=1, initializer=asyncio.set_event_loop, initargs=(in_thread,)
    )
    loop.set_default_executor(executor)
    # The first error of a program is raised by it; asyncio would print it again for each output that waits for it.
    loop.set_exception_handler(lambda *_: None)
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        # A failed program leaves tasks that wait for what never comes, and the SDK would wait for them in the next run.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        executor.shutdown()
        loop.close()
        in_thread.close()
        asyncio.set_event_loop(None)


def deploy_in_process(
    *,
    project_dir: Path,
    stack: str,
    configuration: Mapping[str, str],
    aws: Connection,
    record_file: Path,
    dry_run: bool = False,
    on_step: Callable[[Step], None] = lambda _step: None,
) -> Deployment:
    """Deploy the program into the emulator and return what was done.

    Raises ConfigurationError for settings that the program refuses, UnreachableError when the emulator does not
    answer. What was created until then stays recorded, so the next deployment goes on from there.
    """
    record = Record(record_file)
    result = Deployment()

    def keep(step: Step) -> None:
        result.steps.append(step)
        on_step(step)

    mocks = EmulatorMocks(aws, record, dry_run=dry_run, on_step=keep)
    try:
        result.outputs = run_program(project_dir, stack, configuration, mocks)
    except Exception as exc:
        if mocks.error is not None:
            raise mocks.error from exc
        if isinstance(exc, pulumi.RunError):
            raise ConfigurationError(str(exc)) from exc
        if isinstance(exc, GoldlakeError):
            raise
        raise FailedError(f"the program failed: {exc}") from exc
    if mocks.error is not None:
        raise mocks.error
    result.left_behind = sorted(set(record.entries) - mocks.seen)
    return result
