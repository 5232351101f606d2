"""The AWS JSON 1.1 protocol over HTTP on loopback: requests are checked and answers shaped by botocore's own models.

Protocol: "AWS JSON 1.1" of the Smithy documentation. The operation is in the header X-Amz-Target, errors carry
`__type` and HTTP status 400, for what is not emulated, too: some SDKs try again whatever has a status of 500 and more,
which is for our own faults. Signatures are not verified: whoever reaches the laptop's loopback may call.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from runtime.aws import DEFAULT_REGION, is_loopback

LOG = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-amz-json-1.1"
# AWS refuses larger bodies of these services, too; a statement may have 100,000 bytes.
MAX_BODY_BYTES = 8 << 20
_IDLE_SECONDS = 60
_REGION = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d$")
_SCOPE = re.compile(r"Credential=([^/,\s]+)/\d{8}/([a-z0-9-]+)/[a-z0-9-]+/aws4_request")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "list": list,
    "map": dict,
    "structure": dict,
}


class ServiceError(Exception):
    """An answer of the service that is an error: AWS's code, a text for people, the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Caller:
    """Who calls, as far as the request's headers tell; nothing of it is verified."""

    region: str = DEFAULT_REGION
    access_key: str | None = None
    session_token: str | None = field(default=None, repr=False)


Operation = Callable[[Caller, dict[str, Any]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Service:
    """A service: botocore's name of it, and the operations that are emulated."""

    name: str
    operations: Mapping[str, Operation]


class Endpoint:
    """Answers the requests of several services, told apart by the prefix in X-Amz-Target."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = {str(model(service.name).metadata["targetPrefix"]): service for service in services}

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Return HTTP status and JSON body for a request; errors are answers, nothing is raised."""
        target = headers.get("X-Amz-Target", "")
        try:
            status, result = 200, self._called(target, caller_of(headers), body)
        except ServiceError as exc:
            # Both spellings: the two services' models differ in them.
            status, result = exc.status, {"__type": exc.code, "message": exc.message, "Message": exc.message}
            LOG.info("%s: %s %s", _printable(target), exc.code, _printable(exc.message))
        except Exception as exc:
            # No traceback: its lines could hold a password that was in the request.
            LOG.error("%s failed: %s", _printable(target), type(exc).__name__)
            code, text = "InternalServerException", f"the local control plane failed: {type(exc).__name__}"
            status, result = 500, {"__type": code, "message": text, "Message": text}
        return status, result

    def _called(self, target: str, caller: Caller, body: bytes) -> dict[str, Any]:
        prefix, _, name = target.partition(".")
        service = self._services.get(prefix)
        if service is None or name not in model(service.name).operation_names:
            raise ServiceError("UnknownOperationException", f"unknown operation: {_printable(target)}")
        described = model(service.name).operation_model(name)
        operation = service.operations.get(name)
        if operation is None:
            raise ServiceError("NotImplemented", f"not emulated: {name}")
        given = checked(described.input_shape, body)
        result = operation(caller, given) or {}
        return shaped(described.output_shape, result) if described.output_shape is not None else {}


@functools.cache
def model(service: str) -> Any:
    """Return botocore's model of a service."""
    import botocore.session

    return botocore.session.Session().get_service_model(service)


def caller_of(headers: Mapping[str, str]) -> Caller:
    """Return what the Authorization header's credential scope says; defaults where there is none."""
    scope = _SCOPE.search(headers.get("Authorization", ""))
    token = headers.get("X-Amz-Security-Token")
    if scope is None or not _REGION.match(scope[2]):
        return Caller()
    return Caller(region=scope[2], access_key=scope[1], session_token=token)


def checked(shape: Any, body: bytes) -> dict[str, Any]:
    """Return the request's members, as far as the model knows them: AWS ignores the others.

    Raises ServiceError: SerializationException for what is no JSON object or has wrong types,
    ValidationException with all violated constraints at once. Sensitive values are in no message.
    """
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        raise ServiceError("SerializationException", "the body is not JSON") from None
    if not isinstance(given, dict):
        raise ServiceError("SerializationException", "the body is not a JSON object")
    if shape is None:
        return {}
    faults: list[str] = []
    known: dict[str, Any] = _known(shape, given, "", faults)
    if faults:
        plural = "error" if len(faults) == 1 else "errors"
        raise ServiceError("ValidationException", f"{len(faults)} validation {plural} detected: {'; '.join(faults)}")
    return known


def _known(shape: Any, value: Any, path: str, faults: list[str]) -> Any:
    """Return the value without unknown members; note violated constraints."""
    kind = _TYPES.get(shape.type_name)
    if kind is None or not isinstance(value, kind) or (isinstance(value, bool) and shape.type_name != "boolean"):
        raise ServiceError("SerializationException", f"{path or 'input'} is not of the type {shape.type_name}")
    if shape.type_name == "structure":
        faults += [
            f"Value null at '{_at(path, name)}' failed to satisfy constraint: Member must not be null"
            for name in shape.required_members
            if value.get(name) is None
        ]
        return {
            name: _known(member, value[name], _at(path, name), faults)
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if shape.type_name == "list":
        _check_constraints(shape, value, path, faults)
        return [_known(shape.member, item, f"{path}.{index}", faults) for index, item in enumerate(value, 1)]
    _check_constraints(shape, value, path, faults)
    return value


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_constraints(shape: Any, value: Any, path: str, faults: list[str]) -> None:
    """Note which of the model's enum, pattern and range the value violates."""
    size = value if isinstance(value, int | float) else len(value)
    what = "value" if isinstance(value, int | float) else "length"
    rules = shape.metadata
    broken = []
    if "enum" in rules and value not in rules["enum"]:
        broken.append(f"satisfy enum value set: [{', '.join(rules['enum'])}]")
    # The whole text: `$` alone would let a newline at the end pass.
    if "pattern" in rules and not re.fullmatch(rules["pattern"].removeprefix("^").removesuffix("$"), value):
        broken.append(f"satisfy regular expression pattern: {rules['pattern']}")
    if "min" in rules and size < rules["min"]:
        broken.append(f"have {what} greater than or equal to {rules['min']}")
    if "max" in rules and size > rules["max"]:
        broken.append(f"have {what} less than or equal to {rules['max']}")
    shown = "" if rules.get("sensitive") else f" '{_printable(str(value))[:100]}'"
    faults += [f"Value{shown} at '{path}' failed to satisfy constraint: Member must {rule}" for rule in broken]


def shaped(shape: Any, value: Any) -> Any:
    """Return the value as JSON of the output shape: known members that have a value, timestamps formatted."""
    if shape.type_name == "structure":
        return {
            name: shaped(member, value[name]) for name, member in shape.members.items() if value.get(name) is not None
        }
    if shape.type_name == "list":
        return [shaped(shape.member, item) for item in value]
    if shape.type_name == "timestamp":
        return _timestamp(value, shape.serialization.get("timestampFormat"))
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return value


def _timestamp(value: datetime, how: str | None) -> str | float:
    """Return a timestamp as the model wants it; JSON's default are seconds since 1970."""
    utc = value.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if how == "iso8601" else round(utc.timestamp(), 3)


def _printable(text: str) -> str:
    """Return the text on one line, without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)


class Server:
    """The HTTP listener: a thread that accepts, and one for each connection."""

    def __init__(self, listener: socket.socket, endpoint: Endpoint) -> None:
        # bind_and_activate False: the socket is bound already, so that a taken port shows before anything starts.
        self._http = ThreadingHTTPServer(listener.getsockname(), _handler(endpoint), bind_and_activate=False)
        self._http.socket.close()
        self._http.socket = listener
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, name="control-plane", daemon=True)

    def start(self) -> None:
        """Accept requests from now on."""
        self._http.server_activate()
        self._thread.start()

    def close(self) -> None:
        """Accept no more requests; those in work end with the process."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    """Return the request handler that lets `endpoint` answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "goldlake-local-redshift"
        sys_version = ""
        timeout = _IDLE_SECONDS
        # Headers and body go out together: apart, the body waits 40 ms for the headers' acknowledgement.
        wbufsize = -1

        def do_POST(self) -> None:
            # A page in a browser whose name was made to point here would say that name: no statement is for it.
            if not is_loopback(f"http://{self.headers.get('Host', '')}"):
                self.close_connection = True
                self._send(403, {"__type": "AccessDeniedException", "message": "the Host is not this machine"})
                return
            try:
                length = int(self.headers.get("Content-Length", "0"))
            except ValueError:
                length = -1
            if not 0 <= length <= MAX_BODY_BYTES:
                self.close_connection = True
                self._send(413, {"__type": "RequestEntityTooLarge", "message": "the body is too large"})
                return
            self._send(*endpoint.answer(dict(_titled(self.headers)), self.rfile.read(length)))

        def do_GET(self) -> None:
            self._send(200, {"status": "running"})

        def _send(self, status: int, answer: Mapping[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: what matters is logged where it is answered."""

    return Handler


def _titled(headers: Any) -> list[tuple[str, str]]:
    """Return the headers with names in one spelling, whatever the client's HTTP library made of them."""
    return [("-".join(part.capitalize() for part in name.split("-")), value) for name, value in headers.items()]
