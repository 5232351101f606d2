"""What the program registers, recorded under the SDK's mocks: no engine, no provider, no network.

Tests, `goldlake endpoints` and everything else that looks at a stack before it exists look at this.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from google.protobuf import struct_pb2
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks

from local.inprocess import run_in_loop, run_program, stack_configuration, unwrapped
from stacks.outputs import OUTPUTS as UNIT_OUTPUTS
from stacks.settings import NAMESPACE
from stacks.transform import FUNCTIONS_CODE, LAYERS

# Stand-ins for what only AWS knows.
ACCOUNT = "123456789012"
REGION = "eu-west-1"

# What AWS answers, and the program reads, beside ids and ARNs.
OUTPUTS: Mapping[str, Mapping[str, Any]] = {
    "aws:redshiftserverless/workgroup:Workgroup": {"endpoints": [{"address": "warehouse.example.com", "port": 5439}]},
    "aws:redshiftserverless/namespace:Namespace": {"adminPasswordSecretArn": "arn:aws:made-up:managed-password"},
    "aws:lambda/function:Function": {"version": "7"},
    "random:index/randomPassword:RandomPassword": {"result": "made-up-password"},
}

Answer = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Registered:
    """A resource as the program registered it: inputs under the provider's camelCase names, secrets unwrapped."""

    type: str
    name: str
    inputs: dict[str, Any]
    custom: bool
    """False for a component, which has no inputs."""
    protect: bool
    parent: str
    """Name of the component that it belongs to; the stack's own for none."""
    depends_on: frozenset[str]
    """Names of the resources that must be there first: those it takes inputs from, and those it was told to await."""
    urn: str
    parent_urn: str
    ignore_changes: frozenset[str] = frozenset()
    """Names of the inputs whose later values the engine leaves alone."""
    retain_on_delete: bool = False
    """Whether deleting it only takes it out of the state."""
    secret_inputs: frozenset[str] = frozenset()
    """Names of the inputs that hold a secret, at whatever depth: `inputs` has their values in the clear."""
    dependencies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """URN of each resource of `depends_on` -> names of the inputs that come from it; none where it is only awaited."""


@dataclass
class Recording(Mocks):
    """Records every resource and invents its outputs: an id `<name>-id`, an ARN, and what `outputs` adds by type."""

    calls: Mapping[str, Answer] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resources: list[Registered] = field(default_factory=list)
    exports: dict[str, Any] = field(default_factory=dict)

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Answer a provider function: one of `calls`, or the caller's identity."""
        if args.token in self.calls:
            return self.calls[args.token](args.args), []
        if args.token != "aws:index/getCallerIdentity:getCallerIdentity":  # noqa: S105 - a function's name
            raise LookupError(f"the program calls {args.token}, and nothing was given to answer it")
        return {"accountId": ACCOUNT, "id": ACCOUNT, "arn": f"arn:aws:iam::{ACCOUNT}:root", "userId": "u"}, []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """Return the invented id and outputs of a resource."""
        inputs = {key: unwrapped(value) for key, value in args.inputs.items()}
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {"name": args.name, "outputs": _exports_of_another_stack()}
        invented = {"arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:{args.name}", "prefixListId": "pl-1"}
        return f"{args.name}-id", {**invented, **inputs, **self.outputs.get(args.typ, {})}

    def of(self, suffix: str) -> dict[str, dict[str, Any]]:
        """Return the inputs of all resources whose type ends with `suffix`, by name: `of(":Bucket")`."""
        return {found.name: found.inputs for found in self.resources if found.type.endswith(suffix)}

    def one(self, suffix: str) -> dict[str, Any]:
        """Return the inputs of the only resource of a type. Raises LookupError when there are none or more."""
        found = self.of(suffix)
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources of type {suffix}: {sorted(found)}")
        return next(iter(found.values()))

    def resource(self, name: str, suffix: str = "") -> Registered:
        """Return the resource of this name (and type). Raises LookupError when there are none or more."""
        found = [known for known in self.resources if known.name == name and known.type.endswith(suffix)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources {name!r} of type {suffix or 'any'}")
        return found[0]


class RecordingMonitor(MockMonitor):
    """Keeps of each registration what the SDK's mocks do not pass on: protection, parent and dependencies."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self._recording = recording

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the name of the engine's call
        """Record and register."""
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call] # the SDK annotates no argument
        if request.type != "pulumi:pulumi:Stack":
            inputs = pulumi.runtime.rpc.deserialize_properties(request.object)
            # The SDK passes a secret inside an input up to the input's own name.
            secret = frozenset(key for key, value in inputs.items() if pulumi.runtime.rpc.is_rpc_secret(value))
            # As the engine does: what is made of a secret output is a secret input of the next resource.
            _mark_secret(answer.object, {*secret, *request.additionalSecretOutputs})
            self._recording.resources.append(
                Registered(
                    type=request.type,
                    name=request.name,
                    inputs={key: unwrapped(value) for key, value in inputs.items()},
                    custom=bool(request.custom),
                    protect=bool(request.protect),
                    parent=request.parent.rsplit("::", 1)[-1],
                    depends_on=frozenset(urn.rsplit("::", 1)[-1] for urn in request.dependencies),
                    urn=answer.urn,
                    parent_urn=request.parent,
                    ignore_changes=frozenset(request.ignoreChanges),
                    retain_on_delete=bool(request.retainOnDelete),
                    secret_inputs=secret,
                    dependencies=_dependencies(request),
                )
            )
        return answer


def _dependencies(request: Any) -> dict[str, frozenset[str]]:
    """Return the URNs that a registration depends on, each with the inputs that come from it."""
    by_input = {name: set(found.urns) for name, found in request.propertyDependencies.items()}
    return {urn: frozenset(name for name, urns in by_input.items() if urn in urns) for urn in request.dependencies}


def _mark_secret(outputs: Any, names: set[str]) -> None:
    """Mark outputs (a protobuf Struct) as secrets, in place."""
    for name in names & set(outputs.fields):
        secret = struct_pb2.Struct()
        secret.update(pulumi.runtime.rpc.wrap_rpc_secret(None))
        secret.fields["value"].CopyFrom(outputs.fields[name])
        outputs.fields[name].struct_value.CopyFrom(secret)


def record(
    program: Callable[[], Mapping[str, pulumi.Input[Any]] | None],
    *,
    calls: Mapping[str, Answer] | None = None,
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recording:
    """Run `program` as a Pulumi program, wait for all registrations, and return what it registered.

    What the program returns is resolved into `exports`. `calls` answers provider functions by token, `outputs` adds
    outputs to resources by type. An error in the program is raised here.
    """
    recording = Recording(calls or {}, outputs or {})

    def body() -> None:
        result = program()
        if result:
            pulumi.Output.all(**result).apply(recording.exports.update)

    run_in_loop(body, recording, project="goldlake", stack="dev", monitor=RecordingMonitor(recording))
    return recording


def record_stack(
    project_dir: Path,
    stack: str,
    *,
    settings: Mapping[str, str] | None = None,
    calls: Mapping[str, Answer] | None = None,
) -> Recording:
    """Run the whole program of `project_dir` for a stack and return what it registered and exports.

    Values in `settings` replace those of the stack's file, as texts (arrays and objects as JSON). Layers need not be
    built: empty files stand for them. Raises ConfigurationError for a stack without a file.
    """
    with tempfile.TemporaryDirectory() as folder, _collector_paused():
        for name in (*LAYERS, FUNCTIONS_CODE):
            (Path(folder) / f"{name}-0000000000000000.zip").touch()
        own = {f"{NAMESPACE}:artifactsDir": folder}
        overrides = {f"{NAMESPACE}:{key}": value for key, value in (settings or {}).items()}
        configuration = stack_configuration(project_dir, stack, {**own, **overrides})
        vpc_id = configuration.get(f"{NAMESPACE}:existingVpcId", "")
        recording = Recording({**_subnets(vpc_id), **(calls or {})}, OUTPUTS)
        monitor = RecordingMonitor(recording)
        # Pulumi.prod.example.yaml is the example of a stack named prod.
        name = stack.removesuffix(".example")
        recording.exports = run_program(project_dir, name, configuration, recording, monitor=monitor)
    return recording


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector: the program makes much and frees little, and a quarter of its time went there."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _exports_of_another_stack() -> dict[str, Any]:
    """Return every output that a stack can export, with a value that says where it is from."""
    subnets = [f"subnet-{zone}" for zone in "abc"]
    special: dict[str, Any] = {"subnet_ids": subnets, "entries": [], "port": 5439, "warehouse_port": 5439}
    return {
        kind.export_name(name): special.get(name, f"{kind.unit}-{name}")
        for kind in UNIT_OUTPUTS
        for name in kind.names()
    }


def _subnets(vpc_id: str) -> dict[str, Answer]:
    """Return the answer to a look at an adopted subnet: in that VPC, one zone after the other, with room."""
    zones = itertools.cycle("abc")

    def subnet(args: dict[str, Any]) -> dict[str, Any]:
        zone = f"{REGION}{next(zones)}"
        return {"id": args["id"], "vpcId": vpc_id, "availabilityZone": zone, "availableIpAddressCount": 200}

    return {"aws:ec2/getSubnet:getSubnet": subnet}
