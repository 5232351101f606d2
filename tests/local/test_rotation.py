"""The rotation's handler against the emulator's Secrets Manager and a local Redshift: whose password is whose.

Both logins are rotated: the administrator's, and that of dbt, which the deployment's own statements create.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from components import warehouse_sql
from components.policies import document, trust
from components.rotation import rotate_secret
from lambdas.rotate import handler
from local.process import LOOPBACK, free_port
from runtime import sql
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, UnreachableError
from runtime.rotation import STEPS
from runtime.warehouse import Warehouse
from tests.local.support import REPOSITORY, wait_for

ADMIN_PASSWORD = "Admin-value-1"  # of a server that ends with the tests
FIRST_PASSWORD = "First-value-1"


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """The administrator of a local Redshift of this module's own."""
    folder = tmp_path_factory.mktemp("rotation")
    port, log = free_port(), folder / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(folder / "data"), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": ADMIN_PASSWORD},
            stdout=output,
            stderr=output,
        )
    wait_for(lambda: "ready on" in log.read_text() or process.poll() is not None, "ready line")
    yield Warehouse(host=LOOPBACK, port=port, user="admin", password=ADMIN_PASSWORD, ssl=False)
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@dataclass
class Login:
    """A user of the warehouse whose login is in an entry of Secrets Manager."""

    client: Any
    entry: str
    warehouse: Warehouse
    """Who the login is, with the password of the beginning."""
    gold: str
    """The schema that a login of dbt builds in."""

    @property
    def first(self) -> str:
        return self.warehouse.password

    def current(self) -> Warehouse:
        """Return the warehouse with the password that is in the entry."""
        return replace(self.warehouse, password=self.password("AWSCURRENT"))

    def begin(self) -> str:
        """Stage an empty version, as Secrets Manager does at the start of a rotation; the emulator does not."""
        token = str(uuid.uuid4())
        self.client.put_secret_value(SecretId=self.entry, ClientRequestToken=token, VersionStages=["AWSPENDING"])
        return token

    def call(self, token: str, *steps: str) -> None:
        for step in steps:
            with warnings.catch_warnings():
                # redshift_connector leaves the socket of a refused login to the garbage collector: that is here.
                warnings.simplefilter("ignore", ResourceWarning)
                try:
                    handler.handle({"SecretId": self.entry, "ClientRequestToken": token, "Step": step}, None)
                finally:
                    gc.collect()

    def password(self, stage: str) -> str:
        text = self.client.get_secret_value(SecretId=self.entry, VersionStage=stage)["SecretString"]
        found = json.loads(text)
        assert found["username"] == self.warehouse.user
        return str(found["password"])

    def has(self, stage: str) -> bool:
        stages = self.client.describe_secret(SecretId=self.entry)["VersionIdsToStages"]
        return any(stage in labels for labels in stages.values())

    def version(self, stage: str) -> str:
        stages = self.client.describe_secret(SecretId=self.entry)["VersionIdsToStages"]
        (version,) = [version for version, labels in stages.items() if stage in labels]
        return str(version)

    def signs_in(self, password: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            refusal = self._refusal(password)
            gc.collect()
        assert refusal == "" or "password authentication failed" in refusal
        return not refusal

    def _refusal(self, password: str) -> str:
        try:
            replace(self.warehouse, password=password).ping()
        except UnreachableError as error:
            return error.message
        return ""


def run(warehouse: Warehouse, *statements: str) -> list[Any]:
    """Run statements in a session; return the rows of the last."""
    with contextlib.closing(warehouse.connect()) as session:
        cursor = session.cursor()
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def deployment(gold: str, user: str) -> list[str]:
    """Return the statements by which a deployment makes dbt's user, the same at each `pulumi up`."""
    procedure = warehouse_sql.access_procedure(
        database="analytics", gold=gold, builders=[user], readers=[], external={}, login=user
    )
    call = warehouse_sql.call_access(gold, warehouse_sql.stored_password(user, FIRST_PASSWORD))
    return [warehouse_sql.gold_schema(gold), procedure, call]


@pytest.fixture
def dbt(aws: Connection, admin: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Login:
    """A login of dbt, as a deployment makes it, with a gold schema of its own."""
    name = uuid.uuid4().hex[:8]
    run(admin, *deployment(f"gold_{name}", f"dbt_{name}"))
    user = replace(admin, user=f"dbt_{name}", password=FIRST_PASSWORD)
    return rotated(aws, user, f"gold_{name}", monkeypatch)


@pytest.fixture(params=["dbt", "admin"])
def login(
    request: pytest.FixtureRequest, aws: Connection, admin: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Login]:
    """Either login; the administrator's gets the password back that the other tests know."""
    if request.param == "dbt":
        yield request.getfixturevalue("dbt")
        return
    made = rotated(aws, admin, "", monkeypatch)
    yield made
    values = [made.password(stage) for stage in ("AWSPENDING", "AWSCURRENT") if made.has(stage)]
    known = next(value for value in [admin.password, *values] if made.signs_in(value))
    statement = f"alter user admin password {sql.literal(admin.password)}"
    run(replace(admin, password=known), statement)


def rotated(aws: Connection, user: Warehouse, gold: str, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Return a user's login with its entry, rotated by hand, and set the handler's environment."""
    client = aws.client("secretsmanager")
    value = json.dumps({"username": user.user, "password": user.password})
    entry = str(client.create_secret(Name=f"goldlake/{uuid.uuid4().hex}", SecretString=value)["ARN"])
    # The emulator copies the value into a version of its own, calls nobody, and says from now on that there is one.
    client.rotate_secret(SecretId=entry, RotationLambdaARN="arn:aws:lambda:us-east-1:000000000000:function:rotate")
    for name in ("REDSHIFT_WORKGROUP", "AWS_PROFILE", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(name, raising=False)
    environment = {
        "AWS_ENDPOINT_URL": str(aws.endpoint_url),
        "AWS_REGION": str(aws.region),
        "REDSHIFT_HOST": user.host,
        "REDSHIFT_PORT": str(user.port),
        "REDSHIFT_DATABASE": user.database,
        "REDSHIFT_SSL": "false",
        "REDSHIFT_SECRET": entry,
    }
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    return Login(client, entry, user, gold)


def test_after_the_four_steps_the_new_password_signs_in_and_the_old_one_is_refused(login: Login) -> None:
    before, token = login.version("AWSCURRENT"), login.begin()
    login.call(token, *STEPS)
    assert login.version("AWSCURRENT") == token
    assert login.version("AWSPREVIOUS") == before
    assert login.password("AWSPREVIOUS") == login.first
    assert login.signs_in(login.password("AWSCURRENT"))
    assert not login.signs_in(login.first)


def test_until_the_second_step_the_old_password_signs_in(login: Login) -> None:
    token = login.begin()
    login.call(token, "createSecret")
    assert login.signs_in(login.first)
    assert not login.signs_in(login.password("AWSPENDING"))
    with pytest.raises(UnreachableError):
        login.call(token, "testSecret")
    login.call(token, "setSecret", "testSecret")
    assert login.password("AWSCURRENT") == login.first


def test_one_rotation_follows_the_other(login: Login) -> None:
    first, second = login.begin(), ""
    login.call(first, *STEPS)
    between = login.password("AWSCURRENT")
    second = login.begin()
    login.call(second, *STEPS)
    assert (login.version("AWSCURRENT"), login.version("AWSPREVIOUS")) == (second, first)
    assert login.password("AWSPREVIOUS") == between
    assert login.signs_in(login.password("AWSCURRENT"))
    assert not login.signs_in(between)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_rotation_that_ended_between_two_steps_is_begun_again_and_finished(done: int, login: Login) -> None:
    token = login.begin()
    login.call(token, *STEPS[:done])
    pending = login.password("AWSPENDING")
    assert login.signs_in(pending) is (done > 1)
    login.call(token, *STEPS)
    assert login.version("AWSCURRENT") == token
    assert login.password("AWSCURRENT") == pending
    assert login.signs_in(pending)
    assert not login.signs_in(login.first)


def test_a_rotation_that_is_killed_in_its_second_step_is_begun_again_and_finished(dbt: Login) -> None:
    token = dbt.begin()
    dbt.call(token, "createSecret")
    event = {"SecretId": dbt.entry, "ClientRequestToken": token, "Step": "setSecret"}
    # Ends as soon as the warehouse has taken the new password, before anyone is told.
    program = (
        "import json, os, signal, sys\n"
        "from lambdas.rotate import handler\n"
        "from runtime import rotation\n"
        "change = rotation._change_password\n"
        "def killed(*given):\n"
        "    change(*given)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "rotation._change_password = killed\n"
        "handler.handle(json.loads(sys.argv[1]), None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(event)], cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert dbt.signs_in(dbt.password("AWSPENDING"))
    dbt.call(token, *STEPS)
    assert dbt.version("AWSCURRENT") == token
    assert dbt.signs_in(dbt.password("AWSCURRENT"))
    assert not dbt.signs_in(dbt.first)


def test_a_deployment_after_a_rotation_leaves_the_password_alone(dbt: Login, admin: Warehouse) -> None:
    dbt.call(dbt.begin(), *STEPS)
    run(admin, *deployment(dbt.gold, dbt.warehouse.user))
    assert dbt.signs_in(dbt.password("AWSCURRENT"))
    assert not dbt.signs_in(dbt.first)


def test_dbt_builds_in_gold_after_a_rotation_and_takes_over_what_the_administrator_built(
    dbt: Login, admin: Warehouse
) -> None:
    run(admin, f"create table {dbt.gold}.older (id int)", *deployment(dbt.gold, dbt.warehouse.user))
    dbt.call(dbt.begin(), *STEPS)
    rows = run(
        dbt.current(),
        f"set search_path to {dbt.gold}",
        "create temporary table staged as select 1 as id",
        "create table newer as select id from staged",
        "drop table older",
        "alter table newer rename to older",
        "select id from older",
    )
    assert [list(row) for row in rows] == [[1]]


@pytest.mark.parametrize(
    "statement",
    [
        "create user another password 'Another-value-1'",
        "alter user admin password 'Another-value-1'",
        "alter user {user} createdb",
        "drop user admin",
        "create schema elsewhere",
        "create table {other}.mine (id int)",
        "select id from {other}.theirs",
        "create database another",
    ],
)
def test_dbt_cannot_do_what_only_the_administrator_can(statement: str, dbt: Login, admin: Warehouse) -> None:
    other = f"other_{uuid.uuid4().hex[:8]}"
    run(admin, f"create schema {other}", f"create table {other}.theirs (id int)")
    with pytest.raises(redshift_connector.Error) as refused:
        run(dbt.warehouse, statement.format(other=other, user=dbt.warehouse.user))
    assert refused.value.args[0]["C"] == "42501"


def test_each_step_can_be_called_twice(login: Login) -> None:
    token = login.begin()
    login.call(token, *(step for step in STEPS for _ in range(2)))
    assert login.signs_in(login.password("AWSCURRENT"))
    assert login.password("AWSPREVIOUS") == login.first


def test_the_functions_role_is_enough_and_lets_it_change_its_own_entry_only(
    login: Login, aws: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = str(login.client.create_secret(Name=f"goldlake/{uuid.uuid4().hex}", SecretString="{}")["ARN"])
    sign_in_as(aws, document(rotate_secret(login.entry)), monkeypatch)
    token = login.begin()
    login.call(token, *STEPS)
    assert login.version("AWSCURRENT") == token
    monkeypatch.setenv("REDSHIFT_SECRET", another)
    with pytest.raises(AccessDeniedError):
        handler.handle({"SecretId": another, "ClientRequestToken": token, "Step": "createSecret"}, None)


def sign_in_as(aws: Connection, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the handler run with the rights of a policy, as Lambda gives a function its role's keys."""
    iam, name = aws.client("iam"), f"rotate-{uuid.uuid4().hex[:8]}"
    trusted = json.dumps(trust("lambda.amazonaws.com", "000000000000"))
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="task", PolicyDocument=json.dumps(policy))
    keys = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="rotation")["Credentials"]
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "rotate")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])


def test_no_password_is_printed_or_logged(
    login: Login, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    # What the function logs; botocore's own debug lines hold what it sends, and a function never has them on.
    caplog.set_level(logging.DEBUG, "goldlake")
    caplog.set_level(logging.DEBUG, "redshift_connector")
    token = login.begin()
    login.call(token, *STEPS)
    passwords = [login.first, login.password("AWSCURRENT")]
    out, err = capfd.readouterr()
    assert "the version is current" in caplog.text
    for password in passwords:
        assert password not in out + err + caplog.text


def test_the_warehouses_log_has_no_password(login: Login, admin: Warehouse, tmp_path_factory: Any) -> None:
    token = login.begin()
    run(admin, f"alter database {sql.identifier(admin.database)} set log_statement = 'all'")
    if login.gold:
        run(admin, *deployment(login.gold, login.warehouse.user))
    login.call(token, *STEPS)
    administrator = admin if login.gold else login.current()
    run(administrator, f"alter database {sql.identifier(admin.database)} reset log_statement")
    logged = "".join(
        path.read_text(errors="replace")
        for path in Path(tmp_path_factory.getbasetemp()).glob("rotation*/**/*log*")
        if path.is_file()
    )
    assert f"ALTER USER {sql.identifier(login.warehouse.user)} PASSWORD 'md5" in logged
    assert login.password("AWSCURRENT") not in logged
    assert FIRST_PASSWORD not in logged
