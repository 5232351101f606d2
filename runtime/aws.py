"""The one place that builds AWS clients, and translates what they raise.

A `Connection` says where AWS is: the real one, or an emulator on loopback. Everything else takes
clients or a `Connection` as an argument.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError

if TYPE_CHECKING:
    import boto3

DEFAULT_REGION = "us-east-1"
# What the emulator takes for the account's root; it holds for no real account.
EMULATOR_ACCESS_KEY = "test"
EMULATOR_SECRET_KEY = "test"  # noqa: S105 - the emulator's fixed, public value
# boto3's own variables. It ignores them as soon as an endpoint is given, as a Connection's is.
_SERVICE_VARIABLES = {
    "redshift-serverless": "AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS",
    "redshift-data": "AWS_ENDPOINT_URL_REDSHIFT_DATA",
}
_NO_CONFIGURATION = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
        "403",
    }
)
_BUSY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "InternalServiceError",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "500",
        "502",
        "503",
        "504",
    }
)


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine's loopback, by address or by the name localhost."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Connection:
    """Where AWS is, and who we are there.

    `endpoint_url` None is AWS itself. `region` and `profile` None mean what boto3 finds in the environment and
    in ~/.aws, as the AWS CLI does. `service_endpoints` names the services (as boto3 does) that are elsewhere than
    `endpoint_url`: the emulator has no Redshift Serverless, the laptop's own stands beside it.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    service_endpoints: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse an endpoint that is no URL: boto3 and delta-rs end with a stack trace of their own."""
        url = self.endpoint_url
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ConfigurationError("the AWS endpoint is no URL: it has the form http[s]://host:port")

    @classmethod
    def from_environment(cls) -> Connection:
        """Return the connection that AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE describe."""
        return cls(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL") or None,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            profile=os.environ.get("AWS_PROFILE") or None,
        )

    @property
    def is_emulator(self) -> bool:
        """Whether the endpoint is on loopback."""
        return self.endpoint_url is not None and is_loopback(self.endpoint_url)

    @cached_property
    def session(self) -> boto3.Session:
        """The boto3 session. On an emulator the keys are fixed, so that real ones never go there.

        Inside a Lambda function the keys are the role's own, on the emulator too.
        """
        import boto3
        import botocore.session
        from botocore.exceptions import ProfileNotFound

        if self.is_emulator and "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
            # Nothing of the user's own: neither AWS_PROFILE, which may name one that is not here, nor ~/.aws.
            nothing = {name: (None, None, value, None) for name, value in _NO_CONFIGURATION.items()}
            return boto3.Session(
                botocore_session=botocore.session.Session(session_vars=nothing),
                aws_access_key_id=EMULATOR_ACCESS_KEY,
                aws_secret_access_key=EMULATOR_SECRET_KEY,
                region_name=self.region or DEFAULT_REGION,
            )
        try:
            session = boto3.Session(region_name=self.region, profile_name=self.profile)
        except ProfileNotFound as exc:
            raise ConfigurationError(f"AWS profile {self.profile!r} is not in ~/.aws") from exc
        if session.region_name is None:
            raise ConfigurationError("no AWS region is set", hint="give --region or set AWS_REGION")
        return session

    def endpoint_of(self, service: str) -> str | None:
        """Return where a service is, None for AWS: its own endpoint, the one in its variable, that of all."""
        named = self.service_endpoints.get(service) or os.environ.get(_SERVICE_VARIABLES.get(service, ""))
        return named or self.endpoint_url

    def client(self, service: str) -> Any:
        """Return a boto3 client for `service`, with path-style S3 and few retries on an emulator."""
        from botocore.config import Config

        config = Config(
            connect_timeout=5,
            retries={"mode": "standard", "max_attempts": 2 if self.is_emulator else 5},
            s3={"addressing_style": "path"} if self.is_emulator else {},
        )
        make: Any = self.session.client  # boto3's own annotation has one overload per service name
        return make(service, endpoint_url=self.endpoint_of(service), config=config)

    def limited_client(
        self, service: str, *, connect_seconds: float, read_seconds: float, attempts: int, connections: int
    ) -> Any:
        """Return a boto3 client with so many connections for threads, and limits on each request."""
        from botocore.config import Config

        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            s3={"addressing_style": "path"} if self.is_emulator else {},
        )
        make: Any = self.session.client  # as above
        return make(service, endpoint_url=self.endpoint_of(service), config=config)

    def storage_options(self) -> dict[str, str]:
        """Return delta-rs' storage options for this connection: endpoint, region and keys.

        delta-rs makes its log commits conditional (`If-None-Match`); the option that turns that off
        (AWS_S3_ALLOW_UNSAFE_RENAME) loses rows with two writers and is never set here.
        """
        from botocore.exceptions import BotoCoreError

        try:
            credentials = self.session.get_credentials()
        except BotoCoreError as exc:
            raise AccessDeniedError(f"AWS credentials cannot be had: {exc}") from exc
        if credentials is None:
            raise AccessDeniedError("no AWS credentials are set", hint="run `aws configure` or set AWS_PROFILE")
        frozen = credentials.get_frozen_credentials()
        options = {
            "AWS_REGION": self.session.region_name or DEFAULT_REGION,
            "AWS_ACCESS_KEY_ID": frozen.access_key or "",
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key or "",
        }
        if frozen.token:
            options["AWS_SESSION_TOKEN"] = frozen.token
        if self.endpoint_url is not None:
            options["AWS_ENDPOINT_URL"] = self.endpoint_url
            options["AWS_ALLOW_HTTP"] = "true" if self.endpoint_url.startswith("http:") else "false"
        return options


@contextlib.contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise what boto3 raises inside the block as Goldlake's own errors; `action` says what was tried.

    Connection trouble, time-outs, throttling and the service's 5xx become UnreachableError, missing permissions
    AccessDeniedError, everything else FailedError. `code` keeps AWS's error code.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
    )

    try:
        yield
    except ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", ""))
        message = f"{action}: {exc.response.get('Error', {}).get('Message') or code} ({code})"
        if code in _DENIED:
            raise AccessDeniedError(message, code=code) from exc
        if code in _BUSY:
            raise UnreachableError(message, code=code) from exc
        raise FailedError(message, code=code) from exc
    except NoCredentialsError as exc:
        raise AccessDeniedError(f"{action}: no AWS credentials are set") from exc
    except (ConnectionError, HTTPClientError) as exc:
        raise UnreachableError(f"{action}: {exc}", code=type(exc).__name__) from exc
    except BotoCoreError as exc:
        raise FailedError(f"{action}: {exc}", code=type(exc).__name__) from exc


@contextlib.contextmanager
def nothing_of_the_wire_logged() -> Iterator[None]:
    """Keep boto3 from logging requests and answers inside the block: at level DEBUG it logs their content."""
    loggers = [logging.getLogger("botocore")]
    loggers += [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith(("botocore.", "urllib3")) and isinstance(logger, logging.Logger) and logger.level
    ]
    levels = [(logger, logger.level) for logger in loggers]
    for logger, level in levels:
        logger.setLevel(max(level, logging.INFO))
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
