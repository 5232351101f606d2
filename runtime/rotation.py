"""Rotation of a login of the warehouse, the admin's or dbt's: Secrets Manager's four steps.

Secrets Manager calls createSecret, setSecret, testSecret and finishSecret with one token, the id of the new version. A
step that fails or is killed is called again, from createSecret on; so each looks first whether it is done already.
Source: Secrets Manager user guide, "Rotation by Lambda function", strategy "single user": the login changes its own
password. What has read the old one before can open no session after setSecret; open sessions go on.

    createSecret   a new password into the version, under AWSPENDING
    setSecret      ALTER USER in the warehouse
    testSecret     sign in with it
    finishSecret   AWSCURRENT to the version; Secrets Manager itself moves AWSPREVIOUS to the one before

No password is in a statement, an error or a log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime import sql
from runtime.aws import translated
from runtime.errors import ConfigurationError, FailedError, UnreachableError

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"
# Redshift, CREATE USER: 8 to 64 characters, an upper-case letter, a lower-case letter and a digit at least, and some
# signs are refused. 32 letters and digits hold 190 bits without any.
PASSWORD_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits

logger = logging.getLogger("goldlake")

SignIn = Callable[[str, str], Any]
"""Opens a connection to the warehouse for a user and a password. Raises UnreachableError, also when it is refused."""


def rotate(event: Mapping[str, Any], client: Any, sign_in: SignIn, *, secret_id: str) -> None:
    """Do the step that the event asks for: `{SecretId, ClientRequestToken, Step}`.

    `client` is Secrets Manager's, `secret_id` the ARN of the one entry that is rotated. Raises ConfigurationError for
    an event or an entry that does not fit, FailedError when the warehouse does not take the new password,
    UnreachableError when no password that we know signs in.
    """
    named = {name: event.get(name) for name in ("SecretId", "ClientRequestToken", "Step")}
    wrong = [name for name, value in named.items() if not isinstance(value, str) or not value]
    if wrong:
        raise ConfigurationError(f"the event has no {', '.join(wrong)}: it is no call of Secrets Manager's rotation")
    if named["Step"] not in STEPS:
        raise ConfigurationError(f"Step = {named['Step']!r}: one of {', '.join(STEPS)} is known")
    if named["SecretId"] != secret_id:
        raise ConfigurationError(f"SecretId = {named['SecretId']!r}: this function rotates {secret_id} alone")
    Rotation(client, secret_id, str(named["ClientRequestToken"]), sign_in).run(str(named["Step"]))


def new_password() -> str:
    """Return a random password that keeps Redshift's rules."""
    while True:
        password = "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))
        if any(map(str.isupper, password)) and any(map(str.islower, password)) and any(map(str.isdigit, password)):
            return password


def password_hash(user: str, password: str) -> str:
    """Return the password in the form that ALTER USER takes and the warehouse stores: md5 of password and user.

    Redshift makes the same of a password in clear text (CREATE USER, "PASSWORD"), so nothing is weaker for it, and
    the clear text stays out of SYS_QUERY_HISTORY and the audit log. The local Redshift, a PostgreSQL, knows this form
    and not Redshift's other one, a salted SHA-256. A patched client could sign in with either: logs stay confidential.
    """
    return "md5" + hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Rotation:
    """One rotation of an entry to the version `token`."""

    client: Any = field(repr=False)
    secret_id: str
    token: str
    sign_in: SignIn = field(repr=False)

    def run(self, step: str) -> None:
        """Do a step; nothing when the version is current already."""
        versions = self._versions()
        if CURRENT in versions[self.token]:
            self._log(step, "the version is current already")
            return
        if step == "createSecret":
            self._create()
        elif step == "setSecret":
            self._set()
        elif step == "testSecret":
            self._test()
        else:
            self._finish(versions)

    def _versions(self) -> dict[str, list[str]]:
        """Return the labels of each version. Raises ConfigurationError when this one is not being rotated to."""
        with translated(f"secret {self.secret_id}"):
            described = self.client.describe_secret(SecretId=self.secret_id)
        # An entry that never had a rotation has none of this field, e.g. while RotateSecret tries the function out.
        if described.get("RotationEnabled") is False:
            raise ConfigurationError(f"secret {self.secret_id} is not rotated: its rotation is off")
        versions = dict(described.get("VersionIdsToStages") or {})
        labels = versions.get(self.token, [])
        if CURRENT not in labels and PENDING not in labels:
            raise ConfigurationError(
                f"version {self.token} of secret {self.secret_id} has the labels {', '.join(labels) or 'none'}: "
                f"a rotation's own has {PENDING}"
            )
        return versions

    def _create(self) -> None:
        current = self._known(CURRENT)
        if self._login(PENDING, self.token) is not None:
            self._log("createSecret", "the version has a password already")
            return
        text = json.dumps({**current, "password": new_password()})
        try:
            with translated(f"secret {self.secret_id}, {PENDING}"):
                self.client.put_secret_value(
                    SecretId=self.secret_id,
                    ClientRequestToken=self.token,
                    SecretString=text,
                    VersionStages=[PENDING],
                )
        except FailedError as error:
            # A version's value is never replaced: that of a call at the same time was first, and counts.
            if error.code != "ResourceExistsException":
                raise
        self._log("createSecret", "the version has a new password")

    def _set(self) -> None:
        pending = self._known(PENDING, self.token)
        user = pending["username"]
        session, reason = self._session(pending)
        if session is not None:
            session.close()
            self._log("setSecret", "the warehouse has the password already")
            return
        for stage in (CURRENT, PREVIOUS):
            login = self._login(stage)
            if login is None:
                continue
            if login["username"] != user:
                raise ConfigurationError(
                    f"secret {self.secret_id} names one user under {PENDING} and another under {stage}: "
                    "a rotation changes the password alone"
                )
            session, reason = self._session(login)
            if session is not None:
                with contextlib.closing(session):
                    _change_password(session, user, pending["password"])
                self._log("setSecret", f"the password was changed, signed in with {stage}")
                return
        raise UnreachableError(f"no password of secret {self.secret_id} signs in, neither new nor old: {reason}")

    def _test(self) -> None:
        pending = self._known(PENDING, self.token)
        with contextlib.closing(self.sign_in(pending["username"], pending["password"])) as session:
            _execute(session, "select 1", "the warehouse answers no query after the sign-in")
        self._log("testSecret", "the password signs in")

    def _finish(self, versions: Mapping[str, list[str]]) -> None:
        self._known(PENDING, self.token)
        current = next((version for version, labels in versions.items() if CURRENT in labels), None)
        with translated(f"secret {self.secret_id}, {CURRENT}"):
            self.client.update_secret_version_stage(
                SecretId=self.secret_id,
                VersionStage=CURRENT,
                MoveToVersionId=self.token,
                **({"RemoveFromVersionId": current} if current else {}),
            )
        self._log("finishSecret", "the version is current")

    def _session(self, login: Mapping[str, str]) -> tuple[Any, str]:
        """Return an open connection, or None and why there is none."""
        try:
            return self.sign_in(login["username"], login["password"]), ""
        except UnreachableError as error:
            return None, error.message

    def _known(self, stage: str, version: str | None = None) -> dict[str, str]:
        """Return the login under a label. Raises ConfigurationError when there is none."""
        login = self._login(stage, version)
        if login is None:
            raise ConfigurationError(f"secret {self.secret_id} has no value under {stage}: there is nothing to rotate")
        return login

    def _login(self, stage: str, version: str | None = None) -> dict[str, str] | None:
        """Return the login under a label, of a version if it is given; None where there is no value."""
        wanted = {"SecretId": self.secret_id, "VersionStage": stage, **({"VersionId": version} if version else {})}
        try:
            with translated(f"secret {self.secret_id}, {stage}"):
                text = self.client.get_secret_value(**wanted).get("SecretString")
        except FailedError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise
        return None if text is None else self._parsed(text, stage)

    def _parsed(self, text: str, stage: str) -> dict[str, str]:
        try:
            login = json.loads(text)
        except ValueError:
            login = None
        usable = isinstance(login, dict) and all(
            isinstance(login.get(key), str) and login[key] for key in ("username", "password")
        )
        if not usable:
            raise ConfigurationError(
                f"secret {self.secret_id} is no JSON object with the texts username and password under {stage}"
            )
        return dict(login)

    def _log(self, step: str, what: str) -> None:
        logger.info("%s of %s, version %s: %s", step, self.secret_id, self.token, what)


def _change_password(session: Any, user: str, password: str) -> None:
    stored = sql.literal(password_hash(user, password))
    _execute(
        session,
        f"ALTER USER {sql.identifier(user)} PASSWORD {stored}",
        "the warehouse takes no new password",
    )


def _execute(session: Any, statement: str, refusal: str) -> None:
    """Run a statement. Raises FailedError with the SQLSTATE only: the server's words may quote the statement."""
    import redshift_connector

    try:
        session.cursor().execute(statement)
    except (redshift_connector.Error, OSError) as exc:
        first = exc.args[0] if exc.args else None
        code = str(first["C"]) if isinstance(first, dict) and first.get("C") else None
        raise FailedError(f"{refusal}: {f'SQLSTATE {code}' if code else type(exc).__name__}", code=code) from None
