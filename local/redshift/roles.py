"""AWS as a role of the warehouse sees it: the emulator evaluates the role's policies for every call.

`IAM_ROLE '<arn>'` is assumed with STS after its trust policy was looked at, and a chain of roles (`'<arn>,<arn>'`) one
after the other. `IAM_ROLE default` is the default role of a namespace. Errors are Redshift's, as far as its
documentation and users' reports have them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from local.redshift.wire import RedshiftError, not_emulated
from runtime.aws import Connection, translated
from runtime.errors import GoldlakeError

_SERVICES = ("redshift.amazonaws.com", "redshift-serverless.amazonaws.com")
# Of the hour for which credentials hold, so much is used.
_KEPT_SECONDS = 1800.0
# A role with a double is looked at again after so many: its policies may have changed.
_KEPT_DOUBLE_SECONDS = 2.0
# Of the name of a role's double: it has the role's policies, and who records calls takes it for the role.
DOUBLE = "-for-local-redshift"
OWN = ""
"""The role of the external schemas that are there from the start: the emulator's own administrator."""


@dataclass
class _Session:
    """A session of a chain of roles: its keys, the role whose double was assumed instead, if any, and since when."""

    keys: Mapping[str, str]
    doubled: str
    begun: float
    looked_at: float = 0.0

    def __post_init__(self) -> None:
        self.looked_at = self.begun


class Roles:
    """Clients of the roles that statements name. Thread-safe."""

    def __init__(self, aws: Connection | None, default: Callable[[], str | None] = lambda: None) -> None:
        self._aws = aws
        self._default = default
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._sessions: dict[str, _Session] = {}
        # By access key, service and region: making one costs more than the call it is made for.
        self._clients: dict[tuple[str, str, str], Any] = {}

    @property
    def has_lake(self) -> bool:
        """Whether there is an emulator to ask."""
        return self._aws is not None

    def client(self, role: str, service: str, region: str | None = None) -> Any:
        """Return a boto3 client with the role's rights; raises RedshiftError for a role that cannot be assumed."""
        if self._aws is None:
            raise not_emulated("S3 and the data catalogue, without an AWS emulator beside (--endpoint-url)")
        if role == "default":
            found = self._default()
            if found is None:
                raise RedshiftError(
                    "XX000", "Default IAM role is not set for the namespace", hint="set its defaultIamRoleArn"
                )
            role = found
        return self._client(self._credentials(role) if role else {}, service, region)

    def _client(self, credentials: Mapping[str, str], service: str, region: str | None = None) -> Any:
        from botocore.config import Config

        assert self._aws is not None  # noqa: S101 - `client` has looked
        region = region or self._aws.region
        key = (credentials.get("aws_access_key_id", ""), service, region or "")
        config = Config(
            connect_timeout=5,
            retries={"mode": "standard", "max_attempts": 2},
            s3={"addressing_style": "path"},
            max_pool_connections=20,
        )
        make: Any = self._aws.session.client
        endpoint = self._aws.endpoint_of(service)
        # A session makes one client at a time; clients themselves may be shared by threads.
        with self._lock:
            if key not in self._clients:
                self._clients[key] = make(
                    service, endpoint_url=endpoint, region_name=region, config=config, **credentials
                )
            return self._clients[key]

    def _credentials(self, chain: str) -> Mapping[str, str]:
        """Return the keys of the last role in a chain."""
        with self._lock:
            turn = self._turns.setdefault(chain, threading.Lock())
        with turn:
            known, now = self._sessions.get(chain), time.monotonic()
            if known is not None and known.doubled and now - known.looked_at > _KEPT_DOUBLE_SECONDS:
                self._check_trust(known.doubled)
                self._double(known.doubled)
                known.looked_at = now
                # An emulator that lost its data has the role anew, and does not know the session.
                known = known if self._is_known(known.keys) else None
            if known is None or now - known.begun > _KEPT_SECONDS:
                known = self._sessions[chain] = self._session(chain)
            return known.keys

    def _is_known(self, keys: Mapping[str, str]) -> bool:
        try:
            with translated("sts"):
                return DOUBLE in self._client(keys, "sts").get_caller_identity()["Arn"]
        except GoldlakeError:
            return False

    def _session(self, chain: str) -> _Session:
        """Assume the roles of a chain one after the other."""
        keys: Mapping[str, str] = {}
        doubled = ""
        for number, arn in enumerate(item.strip() for item in chain.split(",")):
            if number == 0:
                self._check_trust(arn)
            found = self._assumed(arn, keys)
            if found is None and number == 0:
                # The trust policy, which we looked at, has a condition that only the service meets (aws:SourceAccount).
                doubled = arn
                found = self._assumed(self._double(arn), keys)
            if found is None:
                raise _not_authorized(arn)
            keys = found
        return _Session(keys, doubled, time.monotonic())

    def _check_trust(self, arn: str) -> None:
        """Raise unless the role lets Redshift assume it: STS is asked by the emulator's administrator here."""
        try:
            with translated(arn):
                role = self._client({}, "iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
        except GoldlakeError as exc:
            raise _not_authorized(arn) from exc
        document = role["AssumeRolePolicyDocument"]
        document = json.loads(document) if isinstance(document, str) else document
        statements = document.get("Statement", [])
        for statement in statements if isinstance(statements, list) else [statements]:
            services = statement.get("Principal", {})
            services = services.get("Service", []) if isinstance(services, dict) else services
            named = [services] if isinstance(services, str) else services
            trusted = statement.get("Effect") == "Allow" and any(item in (*_SERVICES, "*") for item in named)
            if trusted and _is_own_account(statement, arn):
                return
        raise _not_authorized(arn)

    def _double(self, arn: str) -> str:
        """Return a role with the same policies that the emulator's administrator may assume."""
        iam, name = self._client({}, "iam"), arn.rpartition("/")[2]
        double = f"{name[:40]}{DOUBLE}"
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        try:
            found = iam.create_role(RoleName=double, Path="/goldlake/", AssumeRolePolicyDocument=document)
        except iam.exceptions.EntityAlreadyExistsException:
            found = iam.get_role(RoleName=double)
        wanted = {
            policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
        }
        for policy in set(iam.list_role_policies(RoleName=double)["PolicyNames"]) - wanted.keys():
            iam.delete_role_policy(RoleName=double, PolicyName=policy)
        for policy, content in wanted.items():
            text = content if isinstance(content, str) else json.dumps(content)
            iam.put_role_policy(RoleName=double, PolicyName=policy, PolicyDocument=text)
        attached = {
            role: {item["PolicyArn"] for item in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]}
            for role in (name, double)
        }
        for policy in attached[double] - attached[name]:
            iam.detach_role_policy(RoleName=double, PolicyArn=policy)
        for policy in attached[name] - attached[double]:
            iam.attach_role_policy(RoleName=double, PolicyArn=policy)
        return str(found["Role"]["Arn"])

    def _assumed(self, arn: str, credentials: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return the keys of a session of the role, None when these credentials may not assume it."""
        sts = self._client(credentials, "sts")
        try:
            with translated(arn):
                keys = sts.assume_role(RoleArn=arn, RoleSessionName="redshift")
        except GoldlakeError:
            return None
        found = keys["Credentials"]
        return {
            "aws_access_key_id": found["AccessKeyId"],
            "aws_secret_access_key": found["SecretAccessKey"],
            "aws_session_token": found["SessionToken"],
        }


def _is_own_account(statement: Mapping[str, Any], arn: str) -> bool:
    """Return whether a trust policy's condition on the account that asks, if it has one, names the role's own."""
    for test in statement.get("Condition", {}).values():
        for key, value in test.items():
            accounts = [value] if isinstance(value, str) else value
            if key.lower() == "aws:sourceaccount" and arn.split(":")[4] not in accounts:
                return False
    return True


def _not_authorized(arn: str) -> RedshiftError:
    return RedshiftError("XX000", f"Not authorized to get credentials of role {arn}")


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise S3's own error where boto3's upload of several parts has put one of its own around it."""
    from boto3.exceptions import S3UploadFailedError

    try:
        yield
    except S3UploadFailedError as exc:
        raise exc.__cause__ or exc.__context__ or exc from None


@contextmanager
def s3_errors(place: str) -> Iterator[None]:
    """Raise what boto3 raises inside the block as UNLOAD and COPY report S3's errors."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with _unwrapped():
            yield
    except ClientError as exc:
        found, status = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = {"403": "AccessDenied", "404": "NotFound"}.get(str(found.get("Code")), str(found.get("Code")))
        again = "1" if status >= 500 else "0"
        text = "Access Denied" if code == "AccessDenied" else found.get("Message") or code
        message = f"S3ServiceException:{text},Status {status},Error {code},Rid 0,ExtRid 0,CanRetry {again}"
        raise RedshiftError("XX000", message, detail=f"{place}: {found.get('Message') or code}") from exc
    except BotoCoreError as exc:
        text = f"S3ServiceException:{exc},Status 503,Error ServiceUnavailable,Rid 0,ExtRid 0,CanRetry 1"
        raise RedshiftError("XX000", text, detail=place) from exc


@contextmanager
def spectrum_errors(what: str) -> Iterator[None]:
    """Raise what boto3 raises inside the block as a query of an external table reports it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        found, status = exc.response.get("Error", {}), exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code, text = str(found.get("Code")), str(found.get("Message") or found.get("Code"))
        if exc.operation_name.startswith(("Get", "Create", "Update", "Delete", "Batch")) and "Object" not in (
            exc.operation_name
        ):
            raise RedshiftError("XX000", f"{code}: {text}", detail=what) from exc
        raise scan_error(f"Forbidden: HTTP response error code: {status} Message: {code} {text}", what) from exc
    except BotoCoreError as exc:
        raise scan_error(str(exc), what) from exc


def scan_error(context: str, what: str) -> RedshiftError:
    """Return the error of a query whose files could not be read."""
    line = "-" * 47
    detail = f"\n  {line}\n  error:  Spectrum Scan Error\n  code:      15007\n  context:   {context}\n"
    return RedshiftError("XX000", "Spectrum Scan Error", detail=f"{detail}  location:  {what}\n  {line}")
