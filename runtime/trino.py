"""Statements on a Trino server: the one place that knows its URL, logins, time limits and error names.

Names of errors are those of Trino's StandardErrorCode and of its Hive, Delta Lake and Iceberg connectors (tried with
Trino 476). Texts are looked at in one case only, where one name stands for two things: PERMISSION_DENIED.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

TOKEN_VARIABLE = "TRINO_JWT"  # noqa: S105 - the name of the variable, no token
CA_VARIABLE = "TRINO_CA_FILE"
DEFAULT_TIMEOUT = 60.0
URL_FORM = "a Trino URL has the form http[s]://user[:password]@host:port/catalogue"

# What stands behind Trino does not answer, or Trino has no room: the same statement may work later.
_AWAY = frozenset(
    {
        "HIVE_METASTORE_ERROR",
        "SERVER_STARTING_UP",
        "SERVER_SHUTTING_DOWN",
        "NO_NODES_AVAILABLE",
        "REMOTE_HOST_GONE",
        "REMOTE_TASK_ERROR",
        "REMOTE_TASK_MISMATCH",
        "PAGE_TRANSPORT_ERROR",
        "PAGE_TRANSPORT_TIMEOUT",
        "TOO_MANY_REQUESTS_FAILED",
        "CLUSTER_OUT_OF_MEMORY",
        "QUERY_QUEUE_FULL",
        "EXCEEDED_TIME_LIMIT",
        "ABANDONED_QUERY",
        "ABANDONED_TASK",
    }
)
_NOT_THERE = frozenset({"TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "NOT_FOUND"})
# After the deadline the statement is still cancelled, which is one more request.
_CANCEL_SECONDS = 2.0

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class TrinoOptions:
    """How a server is talked to, apart from its URL.

    `token` is a JWT, in place of a password. `ca_file` is a PEM file of the authorities that the server's certificate
    is checked against; `verify` False checks nothing. `timeout` is how long one statement may take, in seconds;
    0 is no limit.
    """

    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    verify: bool = True
    client_tags: tuple[str, ...] = ()
    source: str = "goldlake"
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        if self.timeout < 0:
            raise ConfigurationError(f"time-out {self.timeout} s for Trino: 0 (none) or more seconds are needed")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ConfigurationError(f"{self.ca_file} is not a file: Trino's certificate authorities are read from it")
        for tag in self.client_tags:
            # They go into one header, by commas.
            if not re.fullmatch(r"[^\s,]+", tag) or not tag.isascii():
                raise ConfigurationError(f"client tag {tag!r}: ASCII without commas and spaces is needed")

    @classmethod
    def from_environment(cls, **options: Any) -> TrinoOptions:
        """Return options with the token of TRINO_JWT and the authorities of TRINO_CA_FILE."""
        token = (os.environ.get(TOKEN_VARIABLE) or "").strip() or None
        return cls(**{"token": token, "ca_file": os.environ.get(CA_VARIABLE) or None, **options})


@dataclass(frozen=True)
class TrinoServer:
    """A Trino server and one of its catalogues. It keeps no connection and may be used by several threads."""

    scheme: str
    host: str
    port: int | None
    catalog: str
    user: str = "goldlake"
    password: str | None = field(default=None, repr=False)
    options: TrinoOptions = field(default_factory=TrinoOptions)

    @classmethod
    def at(cls, url: str, options: TrinoOptions | None = None) -> TrinoServer:
        """Return the server and catalogue that `http[s]://user[:password]@host:port/catalogue` names.

        Without `options` they come from the environment. Raises ConfigurationError for another form, and for a
        password or token that would go over http; the message never holds the URL, which may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(URL_FORM) from None
        catalog = unquote(parts.path.strip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname or not catalog or "/" in catalog:
            raise ConfigurationError(URL_FORM)
        options = options or TrinoOptions.from_environment()
        password = unquote(parts.password) if parts.password else None
        if (password or options.token) and parts.scheme != "https":
            what = "password" if password else "token"
            raise ConfigurationError(f"a {what} for Trino goes over https only")
        if password and options.token:
            raise ConfigurationError(
                f"a password in Trino's URL and a token in {TOKEN_VARIABLE}: one of them says who we are"
            )
        return cls(
            parts.scheme, parts.hostname, port, catalog, unquote(parts.username or "goldlake"), password, options
        )

    @property
    def where(self) -> str:
        """The server, as messages name it."""
        return f"Trino {self.host}:{self.port or 'default port'}"

    def run(self, statement: str, *, timeout: float | None = None, properties: Mapping[str, str] | None = None) -> Rows:
        """Run one statement and return its rows.

        `timeout` takes the place of the options'; `properties` are session properties. Raises UnreachableError when
        the server, or what stands behind it, does not answer in time, AccessDeniedError without permission,
        FailedError for what Trino refuses otherwise; `code` is Trino's error name.
        """
        import trino

        seconds = self.options.timeout if timeout is None else timeout
        with _translated(self.where):
            connection = trino.dbapi.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                http_scheme=self.scheme,
                auth=self._auth(),
                source=self.options.source,
                client_tags=list(self.options.client_tags),
                session_properties=dict(properties or {}),
                http_session=self._session(seconds),
            )
            with contextlib.closing(connection):
                cursor = connection.cursor()
                try:
                    cursor.execute(statement)
                    return [tuple(row) for row in cursor.fetchall()]
                except BaseException:
                    # Also after Ctrl-C: Trino would go on with it. Why it failed counts more than that this did.
                    with contextlib.suppress(Exception):
                        cursor.cancel()
                    raise

    def _auth(self) -> Any:
        """Return how we sign in; None is by name only."""
        import trino

        if self.options.token:
            return trino.auth.JWTAuthentication(self.options.token)
        return trino.auth.BasicAuthentication(self.user, self.password) if self.password else None

    def _session(self, seconds: float) -> Any:
        """Return a requests session whose requests together take so long at most."""
        import requests

        end = time.monotonic() + seconds if seconds else None
        verify: bool | str = (
            self.options.ca_file if self.options.verify and self.options.ca_file else self.options.verify
        )
        where = self.where

        class Session(requests.Session):
            def request(self, method: Any, url: Any, **rest: Any) -> requests.Response:  # type: ignore[override] # all by name
                if end is not None:
                    left = end - time.monotonic()
                    if method.upper() == "DELETE":
                        left = _CANCEL_SECONDS
                    if left <= 0:
                        raise _too_late(where, seconds)
                    rest["timeout"] = min(left, rest.get("timeout") or left)
                # Given here and not to the session: REQUESTS_CA_BUNDLE would win over the session's own.
                rest["verify"] = verify
                try:
                    answer = super().request(method, url, **rest)
                except requests.exceptions.SSLError as exc:
                    # The client would try again, and again.
                    raise UnreachableError(
                        f"{where}: its certificate is not accepted: {exc}",
                        hint=f"name the authorities' PEM file in {CA_VARIABLE}",
                        code="SSLError",
                    ) from exc
                except requests.exceptions.Timeout:
                    if end is not None and time.monotonic() >= end:
                        raise _too_late(where, seconds) from None
                    raise
                if answer.status_code in (401, 403):
                    raise AccessDeniedError(f"{where} refuses the login", code=str(answer.status_code))
                return answer

        return Session()


def is_absent(error: GoldlakeError) -> bool:
    """Return whether an error says that a table or its schema is not there."""
    return error.code in _NOT_THERE


def _too_late(where: str, seconds: float) -> UnreachableError:
    """Return the error for a statement that took too long."""
    return UnreachableError(
        f"{where} has not answered a statement within {seconds:g} s",
        hint="look whether its metastore answers, or allow more time with --timeout",
        code="EXCEEDED_TIME_LIMIT",
    )


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Raise what the Trino client raises as Goldlake's errors; `code` keeps Trino's error name."""
    from trino import exceptions

    try:
        yield
    except exceptions.TrinoQueryError as exc:
        raise query_error(where, str(exc.error_name), exc.message) from exc
    except exceptions.TrinoAuthError as exc:
        raise AccessDeniedError(f"{where} refuses the login") from exc
    except exceptions.TrinoConnectionError as exc:
        raise UnreachableError(f"{where} cannot be reached: {exc}", code=type(exc).__name__) from exc
    except (exceptions.HttpError, OSError, ValueError) as exc:
        # Another kind of server answers there (HttpError, or JSON that is none), or the connection broke.
        raise UnreachableError(f"{where} cannot be reached: {str(exc)[:300]}", code=type(exc).__name__) from exc


def query_error(where: str, name: str, message: str) -> GoldlakeError:
    """Return the error for one that Trino reports by name."""
    text = f"{where}: {message} ({name})"
    if name == "PERMISSION_DENIED" and "procedure is disabled" in message:
        hint = "set the connector's register-table-procedure.enabled=true in the catalogue's properties"
        return ConfigurationError(text, hint=hint, code=PROCEDURE_DISABLED)
    if name in ("CATALOG_NOT_FOUND", "PROCEDURE_NOT_FOUND"):
        return ConfigurationError(text, code=name)
    if name == "PERMISSION_DENIED":
        return AccessDeniedError(text, code=name)
    if name in _AWAY:
        return UnreachableError(text, code=name)
    return FailedError(text, code=name)


# GoldlakeError.code for register_table where it is turned off; Trino itself says PERMISSION_DENIED.
PROCEDURE_DISABLED = "PROCEDURE_DISABLED"
