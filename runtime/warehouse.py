"""Connections to the warehouse: Redshift Serverless, or the local one that speaks the same protocol."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, UnreachableError

DEFAULT_PORT = 5439
DEFAULT_DATABASE = "analytics"
# Redshift Serverless API, GetCredentials, durationSeconds: 900 to 3600.
CREDENTIAL_SECONDS = 3600
# Only these may be reached without TLS.
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Warehouse:
    """Where the warehouse listens and how we sign in. The password is in no repr."""

    host: str
    user: str
    password: str = field(repr=False)
    port: int = DEFAULT_PORT
    database: str = DEFAULT_DATABASE
    ssl: bool = True

    @classmethod
    def from_environment(cls, aws: Connection) -> Warehouse:
        """Return the warehouse that REDSHIFT_HOST, REDSHIFT_PORT and REDSHIFT_DATABASE name, and a login for it.

        REDSHIFT_WORKGROUP is the workgroup that hands out temporary credentials to the caller's IAM identity. Without
        it, REDSHIFT_SECRET is the id of a Secrets Manager entry holding a JSON object with `username` and `password`.
        REDSHIFT_SSL=false turns TLS off, for loopback hosts only. Raises ConfigurationError for a missing
        or unusable variable, UnreachableError when no login can be had.
        """
        workgroup = os.environ.get("REDSHIFT_WORKGROUP", "")
        required = ("REDSHIFT_HOST",) if workgroup else ("REDSHIFT_HOST", "REDSHIFT_SECRET")
        missing = [name for name in required if not os.environ.get(name)]
        if missing:
            raise ConfigurationError(f"environment variables are missing: {', '.join(missing)}")
        host = os.environ["REDSHIFT_HOST"]
        ssl = os.environ.get("REDSHIFT_SSL", "true") != "false"
        if not ssl and host not in LOOPBACK_HOSTS:
            raise ConfigurationError(f"REDSHIFT_SSL=false with host {host!r}: only a loopback host may go without TLS")
        database = os.environ.get("REDSHIFT_DATABASE", DEFAULT_DATABASE)
        if workgroup:
            user, password = temporary_login(aws, workgroup, database)
        else:
            user, password = read_login(aws, os.environ["REDSHIFT_SECRET"])
        return cls(
            host=host,
            port=int(os.environ.get("REDSHIFT_PORT", DEFAULT_PORT)),
            database=database,
            user=user,
            password=password,
            ssl=ssl,
        )

    def connect(self, timeout_seconds: int = 300) -> Any:
        """Return an open redshift_connector connection with autocommit on.

        Raises UnreachableError when the warehouse does not answer or refuses the login.
        """
        import redshift_connector

        try:
            connection = redshift_connector.connect(
                host=self.host,
                port=self.port,
                database=self.database,
                user=self.user,
                password=self.password,
                ssl=self.ssl,
                sslmode="verify-full",
                timeout=timeout_seconds,
            )
        except (redshift_connector.Error, OSError) as exc:
            # redshift_connector's own text can hold the connection's arguments: keep the server's words only.
            raise UnreachableError(
                f"warehouse {self.host}:{self.port}/{self.database} cannot be reached as {self.user!r}: {_reason(exc)}",
            ) from exc
        connection.autocommit = True
        return connection

    def ping(self, timeout_seconds: int = 10) -> None:
        """Open a connection and close it again; raises as `connect` does."""
        self.connect(timeout_seconds).close()


def temporary_login(aws: Connection, workgroup: str, database: str) -> tuple[str, str]:
    """Return user and password that the workgroup gives the caller's IAM identity for an hour.

    An hour is the longest that GetCredentials allows; a dbt run opens connections until its end.
    """
    with translated(f"credentials of workgroup {workgroup}"):
        granted = aws.client("redshift-serverless").get_credentials(
            workgroupName=workgroup, dbName=database, durationSeconds=CREDENTIAL_SECONDS
        )
    return str(granted["dbUser"]), str(granted["dbPassword"])


def read_login(aws: Connection, secret_id: str) -> tuple[str, str]:
    """Return user and password from a Secrets Manager entry (JSON with `username` and `password`).

    Raises ConfigurationError when the entry has another form; its content is never part of the message.
    """
    with translated(f"secret {secret_id}"):
        text = aws.client("secretsmanager").get_secret_value(SecretId=secret_id).get("SecretString", "")
    try:
        entry = json.loads(text)
        return str(entry["username"]), str(entry["password"])
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"secret {secret_id} is not a JSON object with the keys username and password"
        ) from None


def _reason(exc: BaseException) -> str:
    """Return the server's or the operating system's message without the driver's wrapping."""
    first = exc.args[0] if exc.args else exc
    if isinstance(first, dict):
        return str(first.get("M", "refused"))
    if isinstance(first, tuple) and len(first) > 1:
        return str(first[1])
    return str(first) or type(exc).__name__
