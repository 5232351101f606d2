"""A Pulumi provider that keeps nothing and calls nobody: what a resource is given is what it is.

The engine starts it as its `aws` and its `random` plugin: a whole program goes through the engine with plans, state,
secrets and protection, and no account, no plugin of AWS and no emulator. Ids and ARNs are invented from the name,
always the same.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

VERSION = "7.51.1"
ACCOUNT = "123456789012"
# How the engine writes a value that is not known before the resource is there.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# How a value is marked as secret on the wire (sdk/proto, "Special sig").
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
PASSWORD = "an-echoed-password"
# What the program reads beside the inputs, of any type and of some.
INVENTED = ("arn", "prefixListId")
INVENTED_OF: dict[str, dict[str, Any]] = {
    "aws:lambda/function:Function": {"version": "1"},
    "aws:redshiftserverless/namespace:Namespace": {"adminPasswordSecretArn": "arn:aws:made-up:managed-password"},
    "aws:redshiftserverless/workgroup:Workgroup": {"endpoints": [{"address": "warehouse.example.com", "port": 5439}]},
    "random:index/randomPassword:RandomPassword": {"result": {**SECRET, "value": PASSWORD}},
}
# Changes that the real provider makes by a new resource in the old one's place.
REPLACED_BY = {
    "aws:redshiftdata/statement:Statement": {"sql", "database", "workgroupName", "statementName"},
    "aws:redshiftserverless/namespace:Namespace": {"namespaceName"},
    "aws:ec2/subnet:Subnet": {"cidrBlock", "availabilityZone"},
    "aws:s3/bucket:Bucket": {"bucket"},
}


def outputs_of(urn: str, inputs: struct_pb2.Struct, *, known: bool) -> struct_pb2.Struct:
    """Return the inputs and, made up from the resource's name, what AWS would add."""
    outputs = struct_pb2.Struct()
    outputs.CopyFrom(inputs)
    for name in INVENTED:
        if name not in outputs:
            outputs[name] = f"arn:aws:made-up:us-east-1:{ACCOUNT}:{urn.rsplit('::', 1)[-1]}" if known else UNKNOWN
    for name, value in INVENTED_OF.get(type_of(urn), {}).items():
        outputs[name] = value if known else UNKNOWN
    return outputs


def type_of(urn: str) -> str:
    """Return a resource's own type: the last one of the chain of its parents' types."""
    return urn.split("::")[2].rsplit("$", 1)[-1]


class EchoProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The calls that an update makes, in the order of a resource's life."""

    def Handshake(self, _request: Any, _context: Any) -> provider_pb2.ProviderHandshakeResponse:  # noqa: N802
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, _request: Any, _context: Any) -> plugin_pb2.PluginInfo:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, _request: Any, _context: Any) -> provider_pb2.GetSchemaResponse:  # noqa: N802
        return provider_pb2.GetSchemaResponse(schema="{}")

    def CheckConfig(self, request: Any, _context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, _request: Any, _context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, _request: Any, _context: Any) -> provider_pb2.ConfigureResponse:  # noqa: N802
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Invoke(self, request: Any, context: Any) -> provider_pb2.InvokeResponse:  # noqa: N802
        if request.tok != "aws:index/getCallerIdentity:getCallerIdentity":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the echo provider has no {request.tok}")
        answer = struct_pb2.Struct()
        answer.update({"accountId": ACCOUNT, "id": ACCOUNT, "userId": "echo", "arn": f"arn:aws:iam::{ACCOUNT}:root"})
        response = provider_pb2.InvokeResponse()
        # `return` is a word of Python's own.
        getattr(response, "return").CopyFrom(answer)
        return response

    def Check(self, request: Any, _context: Any) -> provider_pb2.CheckResponse:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, _context: Any) -> provider_pb2.DiffResponse:  # noqa: N802
        changed = [
            name
            for name in sorted({*request.old_inputs, *request.news})
            if name not in request.old_inputs
            or name not in request.news
            or request.old_inputs.fields[name] != request.news.fields[name]
        ]
        kinds = provider_pb2.DiffResponse
        replaces = sorted(REPLACED_BY.get(type_of(request.urn), set()) & set(changed))
        return kinds(changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE, diffs=changed, replaces=replaces)

    def Create(self, request: Any, _context: Any) -> provider_pb2.CreateResponse:  # noqa: N802
        return provider_pb2.CreateResponse(
            id="" if request.preview else f"{request.urn.rsplit('::', 1)[-1]}-id",
            properties=outputs_of(request.urn, request.properties, known=not request.preview),
        )

    def Read(self, request: Any, _context: Any) -> provider_pb2.ReadResponse:  # noqa: N802
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Update(self, request: Any, _context: Any) -> provider_pb2.UpdateResponse:  # noqa: N802
        return provider_pb2.UpdateResponse(properties=outputs_of(request.urn, request.news, known=True))

    def Delete(self, _request: Any, _context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def Cancel(self, _request: Any, _context: Any) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()


def serve() -> None:
    """Listen on a free loopback port, print it as the engine expects, and end with the engine."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(EchoProvider(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    server.wait_for_termination()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: an engine that was killed stops nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
