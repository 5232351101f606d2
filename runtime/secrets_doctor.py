"""What is wrong when secrets cannot be seeded or fetched: checks one after the other, each with what to do.

Nothing is written, and no value is read: the permission to read is tried on an entry that cannot be there.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from runtime.aws import Connection, translated
from runtime.catalogue import load_catalogue
from runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, AccessDeniedError, FailedError, GoldlakeError

# AWS refuses a signature that is five minutes off (Signature Version 4, "Elements of an AWS API request signature").
MAX_SKEW_SECONDS = 300
ENDPOINT_SECONDS = 5
# An id that is in use nowhere: who may read it gets ResourceNotFound, and no value is read.
_PROBE = "goldlake-doctor-probe"
_READING = ("ListSecrets", "DescribeSecret", "GetSecretValue", "BatchGetSecretValue")
_WRITING = ("CreateSecret", "PutSecretValue", "RestoreSecret")
_VPC_HINT = (
    "in a VPC without a way out it takes an interface endpoint for {service} with private DNS, and a security group "
    "that lets port 443 in"
)

State = Literal["ok", "failed", "not tried"]


@dataclass(frozen=True)
class Check:
    """One check: how it went, why, and what to do."""

    name: str
    state: State
    detail: str
    hint: str | None = None
    exit_code: int = EXIT_DONE
    """The exit code that a failure asks for."""

    def to_dict(self) -> dict[str, Any]:
        """Return the check for JSON output."""
        return {"name": self.name, "state": self.state, "detail": self.detail, "hint": self.hint}


@dataclass(frozen=True)
class Reply:
    """How an endpoint answered a plain request."""

    addresses: tuple[str, ...]
    date: datetime | None
    """Its clock; None when it does not say."""


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 when nothing failed, 1 when this machine is to be set right, 2 when AWS is out of reach or refuses."""
    return max((check.exit_code for check in checks if check.state == "failed"), default=EXIT_DONE)


def ask(url: str) -> Reply:
    """Send a plain request without credentials, and return who answered. Raises OSError when nobody does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(address[4][0]) for address in found))
    try:
        with urllib.request.urlopen(url, timeout=ENDPOINT_SECONDS) as answer:  # noqa: S310 - an endpoint of boto3's
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as refused:
        # Any answer is one.
        date = refused.headers.get("Date")
        refused.close()
    return Reply(addresses, parsedate_to_datetime(date) if date else None)


def diagnose(
    aws: Connection,
    *,
    prefix: str = "goldlake",
    ask: Callable[[str], Reply] = ask,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Check]:
    """Yield the checks as they are made. What needs something that failed is not tried."""
    yield _catalogue()
    region = _region(aws)
    yield region
    if region.state == "failed":
        yield from _not_tried("a region", "endpoint", "clock", "credentials", *_READING, *_WRITING)
        return
    client = aws.client("secretsmanager")
    endpoint, reply = _endpoint(aws, client.meta.endpoint_url, ask)
    yield endpoint
    yield _clock(reply, now())
    credentials, caller = _credentials(aws)
    yield credentials
    if endpoint.state == "failed" or credentials.state == "failed":
        needed = "an endpoint that answers" if endpoint.state == "failed" else "credentials"
        yield from _not_tried(needed, *_READING, *_WRITING)
        return
    yield from _reading(client, f"{prefix}/{_PROBE}")
    yield from _writing(aws, caller, prefix)


def _not_tried(needed: str, *names: str) -> Iterator[Check]:
    for name in names:
        yield Check(name, "not tried", f"needs {needed}")


def _catalogue() -> Check:
    try:
        catalogue = load_catalogue()
    except GoldlakeError as error:
        return Check("catalogue", "failed", error.message, "mend runtime/secrets.yml", EXIT_FAILED)
    return Check("catalogue", "ok", f"{len(catalogue.secrets)} secrets, {len(catalogue.profiles)} profiles")


def _region(aws: Connection) -> Check:
    try:
        return Check("region", "ok", str(aws.session.region_name))
    except GoldlakeError as error:
        hint = error.hint or "give --region, or set AWS_REGION or AWS_DEFAULT_REGION"
        return Check("region", "failed", error.message, hint, EXIT_FAILED)


def _endpoint(aws: Connection, url: str, ask: Callable[[str], Reply]) -> tuple[Check, Reply | None]:
    try:
        reply = ask(url)
    except OSError as exc:
        reason = getattr(exc, "reason", exc)
        return Check("endpoint", "failed", f"{url}: {reason}", _endpoint_hint(aws, reason), EXIT_UNREACHABLE), None
    private = all(ipaddress.ip_address(address).is_private for address in reply.addresses)
    if aws.is_emulator:
        kind = "an emulator on this machine"
    elif (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        kind = "AWS itself, through a VPC endpoint (private address)" if private else "AWS itself, over the internet"
    else:
        kind = "neither AWS nor an emulator on this machine; it is treated as AWS"
    return Check("endpoint", "ok", f"{url}: {kind}"), reply


def _endpoint_hint(aws: Connection, reason: object) -> str:
    if aws.is_emulator:
        return "goldlake local up"
    if isinstance(reason, ssl.SSLError):
        return "behind a proxy that opens TLS, set AWS_CA_BUNDLE and SSL_CERT_FILE to its certificate"
    if isinstance(reason, socket.gaierror):
        return "no such name: check the region's and the endpoint's spelling, and DNS"
    return _VPC_HINT.format(service="secretsmanager")


def _clock(reply: Reply | None, now: datetime) -> Check:
    if reply is None or reply.date is None:
        return Check("clock", "not tried", "the endpoint does not say what time it is")
    skew = (now - reply.date).total_seconds()
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Check("clock", "ok", f"{abs(skew):.0f} s off")
    direction = "fast" if skew > 0 else "slow"
    detail = f"this machine's clock is {abs(skew):,.0f} s {direction}; AWS refuses more than {MAX_SKEW_SECONDS}"
    return Check("clock", "failed", detail, "set the clock, and start its synchronisation (NTP)", EXIT_FAILED)


def _credentials(aws: Connection) -> tuple[Check, str | None]:
    """Return the check, and the caller's ARN."""
    hint = "run `aws configure` or `aws sso login`, or set AWS_PROFILE"
    try:
        with translated("credentials"):
            found = aws.session.get_credentials()
            if found is None:
                return Check("credentials", "failed", "there are none", hint, EXIT_UNREACHABLE), None
            arn = str(aws.client("sts").get_caller_identity()["Arn"])
    except AccessDeniedError as error:
        return Check("credentials", "failed", error.message, hint, EXIT_UNREACHABLE), None
    except GoldlakeError as error:
        # The token service may be out of reach where Secrets Manager is not.
        detail = f"found by {found.method if found else 'boto3'}; whose they are is not known: {error.message}"
        return Check("credentials", "not tried", detail, _VPC_HINT.format(service="sts")), None
    return Check("credentials", "ok", arn), arn


def _reading(client: Any, name: str) -> Iterator[Check]:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.list_secrets(MaxResults=1),
        lambda: client.describe_secret(SecretId=name),
        lambda: client.get_secret_value(SecretId=name),
        lambda: client.batch_get_secret_value(SecretIdList=[name]),
    )
    for action, call in zip(_READING, calls, strict=True):
        yield _tried(action, call)


def _tried(action: str, call: Callable[[], Any]) -> Check:
    denied = Check(action, "failed", "", f"allow secretsmanager:{action}", EXIT_UNREACHABLE)
    try:
        with translated(action):
            answer = call()
    except AccessDeniedError as error:
        return Check(action, "failed", error.message, denied.hint, EXIT_UNREACHABLE)
    except FailedError as error:
        if error.code == "ResourceNotFoundException":
            return Check(action, "ok", "allowed")
        return Check(action, "failed", error.message, None, EXIT_UNREACHABLE)
    except GoldlakeError as error:
        hint = _VPC_HINT.format(service="secretsmanager")
        return Check(action, "failed", error.message, hint, EXIT_UNREACHABLE)
    # A batch has its refusals inside.
    for refusal in answer.get("Errors", ()):
        if refusal.get("ErrorCode") == "AccessDeniedException":
            return Check(action, "failed", "the calls inside a batch are refused", denied.hint, EXIT_UNREACHABLE)
    return Check(action, "ok", "allowed")


def _writing(aws: Connection, caller: str | None, prefix: str) -> Iterator[Check]:
    """Yield whether IAM would allow the writes; none is made."""
    if caller is None:
        yield from _not_tried("to know the caller", *_WRITING)
        return
    if caller.endswith(":root"):
        yield from (Check(action, "ok", "the account's root may do everything") for action in _WRITING)
        return
    partition, account = caller.split(":")[1], caller.split(":")[4]
    # A session of a role has an ARN of its own; policies are the role's.
    source = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", caller)
    entries = f"arn:{partition}:secretsmanager:{aws.session.region_name}:{account}:secret:{prefix}/{_PROBE}-abcdef"
    try:
        with translated("simulation"):
            answer = aws.client("iam").simulate_principal_policy(
                PolicySourceArn=source,
                ActionNames=[f"secretsmanager:{action}" for action in _WRITING],
                ResourceArns=[entries],
            )
    except GoldlakeError as error:
        for action in _WRITING:
            yield Check(action, "not tried", f"only IAM's simulation could tell: {error.message}")
        return
    decisions = {
        result["EvalActionName"].split(":")[1].lower(): result["EvalDecision"] for result in answer["EvaluationResults"]
    }
    for action in _WRITING:
        decision = decisions.get(action.lower(), "not evaluated")
        if decision == "allowed":
            yield Check(action, "ok", "allowed, says IAM's simulation of the caller's policies")
        else:
            hint = f"allow secretsmanager:{action}, which seeding needs and fetching does not"
            yield Check(action, "failed", f"{decision}, says IAM's simulation", hint, EXIT_UNREACHABLE)
