"""The control plane of the local Redshift as deployments use it: boto3 on one side, PostgreSQL on the other."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import redshift_connector
from botocore.exceptions import ClientError

from components import warehouse_sql
from local.platform import WAREHOUSE_LOGIN, Platform
from local.process import LOOPBACK, free_port
from local.redshift.data_api import EVENT_SOURCE
from runtime.aws import Connection
from runtime.errors import UnreachableError
from runtime.secrets import local_default
from tests.local.support import wait_for

PASSWORD = "Deployed-Value1"
ROLE = "arn:aws:iam::000000000000:role/spectrum"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform of this module's own."""
    platform = Platform(tmp_path_factory.mktemp("platform"))
    platform.up(emulator_port=free_port(), redshift_port=free_port())
    yield platform
    platform.down()


@pytest.fixture
def serverless(platform: Platform) -> Iterator[Any]:
    """A client of Redshift Serverless; what a test leaves behind is deleted."""
    client = platform.connection().client("redshift-serverless")
    yield client
    for workgroup in client.list_workgroups()["workgroups"]:
        client.delete_workgroup(workgroupName=workgroup["workgroupName"])
    for namespace in client.list_namespaces()["namespaces"]:
        client.delete_namespace(namespaceName=namespace["namespaceName"])


@pytest.fixture
def workgroup(serverless: Any) -> str:
    """A workgroup whose administrator signs in with the laptop's own password."""
    name = f"wg-{uuid.uuid4().hex[:8]}"
    serverless.create_namespace(namespaceName=f"ns-{name}", dbName="analytics")
    serverless.create_workgroup(workgroupName=name, namespaceName=f"ns-{name}", baseCapacity=8)
    return name


@pytest.fixture
def run(platform: Platform, workgroup: str) -> Callable[..., dict[str, Any]]:
    """Runs a statement, or a list as a batch, by the Data API; returns its description at the end."""
    client = platform.connection().client("redshift-data")

    def ended(text: str | list[str], **members: Any) -> dict[str, Any]:
        members = {"WorkgroupName": workgroup, "Database": "analytics", "WaitTimeSeconds": 30} | members
        if isinstance(text, str):
            identifier = client.execute_statement(Sql=text, **members)["Id"]
        else:
            identifier = client.batch_execute_statement(Sqls=text, **members)["Id"]
        described: dict[str, Any] = client.describe_statement(Id=identifier)
        return described

    return ended


@pytest.fixture
def rows(platform: Platform, run: Callable[..., dict[str, Any]]) -> Callable[..., list[list[Any]]]:
    """Returns the values of a statement's rows."""
    client = platform.connection().client("redshift-data")

    def values(text: str, **members: Any) -> list[list[Any]]:
        described = run(text, **members)
        assert described["Status"] == "FINISHED", described
        records = client.get_statement_result(Id=described["Id"])["Records"]
        return [[None if "isNull" in field else next(iter(field.values())) for field in row] for row in records]

    return values


def signed_in_as(platform: Platform, user: str, password: str, database: str = "analytics") -> str:
    """Sign in over the wire; return who the database says we are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        answer, refusal = _answer(platform, user, password, database)
        # redshift_connector leaves the socket of a refused login to the garbage collector: that is here.
        gc.collect()
    if refusal:
        raise PermissionError(refusal)
    return answer


def _answer(platform: Platform, user: str, password: str, database: str) -> tuple[str, str]:
    """Return who the database says we are, or its words to a login that it refuses."""
    try:
        connection = redshift_connector.connect(
            host=LOOPBACK, port=platform.warehouse_port(), database=database, user=user, password=password, ssl=False
        )
    except redshift_connector.Error as exc:
        return "", str(exc)
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.execute("select current_user")
        return str(cursor.fetchone()[0]), ""


def code_of(operation: Callable[..., Any], **members: Any) -> str:
    """Return the error code of an operation that is refused."""
    with pytest.raises(ClientError) as caught:
        operation(**members)
    return str(caught.value.response["Error"]["Code"])


# The listener


def test_the_control_plane_listens_on_loopback_at_the_port_that_another_process_finds(platform: Platform) -> None:
    record = platform.redshift.record()
    assert record is not None
    listening = {
        connection.laddr
        for connection in psutil.Process(record.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in listening} == {LOOPBACK}
    assert {address.port for address in listening} == {
        platform.warehouse_port(),
        Platform(platform.home).control_port(),
    }


def test_a_platform_that_does_not_run_has_no_control_port(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="the local redshift is stopped"):
        Platform(tmp_path / "platform").control_port()


@pytest.mark.parametrize("length", ["999999999999", "-1", "x"])
def test_a_request_of_absurd_length_is_refused_and_the_next_one_answered(platform: Platform, length: str) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, platform.control_port(), timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 413
    assert platform.connection().client("redshift-serverless").list_workgroups()["workgroups"] == []


@pytest.mark.parametrize(("host", "status"), [("rebound.example.com", 403), ("", 403), ("localhost", 400)])
def test_a_request_for_another_host_is_refused(platform: Platform, host: str, status: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, platform.control_port(), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/", b"{}", {"Host": host, "X-Amz-Target": "RedshiftServerless.Nothing"})
        assert connection.getresponse().status == status


# Namespaces and workgroups


def test_a_warehouse_is_created_read_changed_and_deleted(platform: Platform, serverless: Any) -> None:
    serverless.create_namespace(namespaceName="gold", iamRoles=[ROLE], tags=[{"key": "unit", "value": "warehouse"}])
    assert code_of(serverless.create_namespace, namespaceName="gold") == "ConflictException"
    created = serverless.create_workgroup(workgroupName="gold-wg", namespaceName="gold", baseCapacity=8)["workgroup"]
    assert created["status"] == "CREATING"
    read = serverless.get_workgroup(workgroupName="gold-wg")["workgroup"]
    assert read["status"] == "AVAILABLE"
    assert (read["endpoint"]["address"], read["endpoint"]["port"]) == (LOOPBACK, platform.warehouse_port())
    assert serverless.update_workgroup(workgroupName="gold-wg", baseCapacity=16)["workgroup"]["baseCapacity"] == 16
    limit = serverless.create_usage_limit(resourceArn=read["workgroupArn"], usageType="serverless-compute", amount=9)
    serverless.delete_usage_limit(usageLimitId=limit["usageLimit"]["usageLimitId"])
    assert code_of(serverless.delete_namespace, namespaceName="gold") == "ConflictException"
    serverless.delete_workgroup(workgroupName="gold-wg")
    serverless.delete_namespace(namespaceName="gold")
    assert code_of(serverless.get_namespace, namespaceName="gold") == "ResourceNotFoundException"
    assert code_of(serverless.get_workgroup, workgroupName="gold-wg") == "ResourceNotFoundException"


def test_subnets_of_two_zones_are_refused_and_of_three_accepted(platform: Platform, serverless: Any) -> None:
    ec2 = platform.connection().client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"]
        for number, zone in enumerate("aabc")
    ]
    first, same, second, third = (subnet["SubnetId"] for subnet in subnets)
    serverless.create_namespace(namespaceName="gold")
    create = serverless.create_workgroup
    for refused in ([first, same, second], [first, second], [first, second, "subnet-0123456789abcdef0"]):
        members = {"workgroupName": "gold-wg", "namespaceName": "gold", "subnetIds": refused}
        assert code_of(create, **members) == "ValidationException"
    create(workgroupName="gold-wg", namespaceName="gold", subnetIds=[first, second, third])


def test_an_administrator_signs_in_with_the_namespaces_password_until_it_is_deleted(
    platform: Platform, serverless: Any
) -> None:
    login = {"adminUsername": "chief", "adminUserPassword": PASSWORD}
    serverless.create_namespace(namespaceName="gold", dbName="own-db", **login)
    assert signed_in_as(platform, "chief", PASSWORD, "own-db") == "chief"
    serverless.update_namespace(namespaceName="gold", adminUsername="chief", adminUserPassword="Another-Value1")
    with pytest.raises(PermissionError, match="28000"):
        signed_in_as(platform, "chief", PASSWORD)
    serverless.delete_namespace(namespaceName="gold")
    with pytest.raises(PermissionError, match="28"):
        signed_in_as(platform, "chief", "Another-Value1")


def test_a_restart_keeps_warehouse_statements_and_the_password_that_a_namespace_gave(
    platform: Platform, serverless: Any, run: Callable[..., dict[str, Any]]
) -> None:
    serverless.create_namespace(namespaceName="gold", adminUsername="admin", adminUserPassword=PASSWORD)
    before = [serverless.list_namespaces()["namespaces"], serverless.list_workgroups()["workgroups"]]
    statement = run("select 1")["Id"]
    port = platform.control_port()
    platform.redshift.stop(lambda _line: None)
    with pytest.raises(UnreachableError):
        platform.control_port()
    platform.up()
    assert platform.control_port() == port
    assert [serverless.list_namespaces()["namespaces"], serverless.list_workgroups()["workgroups"]] == before
    described = platform.connection().client("redshift-data").describe_statement(Id=statement)
    assert (described["Status"], described["QueryString"]) == ("FINISHED", "select 1")
    assert signed_in_as(platform, "admin", PASSWORD) == "admin"
    serverless.delete_namespace(namespaceName="gold")
    assert signed_in_as(platform, "admin", local_default(WAREHOUSE_LOGIN, "password")) == "admin"


def test_a_managed_password_is_in_secrets_manager_and_signs_in(platform: Platform, serverless: Any) -> None:
    secrets = platform.connection().client("secretsmanager")
    members = {"namespaceName": "gold", "adminUsername": "chief", "manageAdminPassword": True}
    arn = serverless.create_namespace(**members)["namespace"]["adminPasswordSecretArn"]
    login = json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])
    assert signed_in_as(platform, login["username"], login["password"]) == "chief"
    serverless.delete_namespace(namespaceName="gold")
    assert code_of(secrets.get_secret_value, SecretId=arn) == "ResourceNotFoundException"
    # And once more, over what the first one left.
    serverless.create_namespace(**members)


def test_no_password_is_in_a_file_or_a_log_of_the_platform(platform: Platform, serverless: Any, workgroup: str) -> None:
    login = {"adminUsername": "chief", "adminUserPassword": PASSWORD}
    serverless.create_namespace(namespaceName="gold", **login)
    granted = serverless.get_credentials(workgroupName=workgroup)["dbPassword"]
    data = platform.connection().client("redshift-data")
    told = f"create user told password '{PASSWORD}'"
    data.execute_statement(Sql=told, WorkgroupName=workgroup, Database="analytics", WaitTimeSeconds=30)
    folders = [platform.home / "logs", platform.home / "run", *(platform.home / "redshift").glob("*.json")]
    files = [file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])]
    texts = [file.read_text(errors="replace") for file in [*files, platform.home / "redshift/postgres/log"]]
    assert len(texts) > 4
    assert not any(password in text for text in texts for password in (PASSWORD, granted))
    data.execute_statement(Sql="drop user told", WorkgroupName=workgroup, Database="analytics", WaitTimeSeconds=30)


# Temporary logins


def test_temporary_credentials_sign_in_and_expire(
    platform: Platform, serverless: Any, workgroup: str, run: Callable[..., dict[str, Any]]
) -> None:
    granted = serverless.get_credentials(workgroupName=workgroup, dbName="analytics")
    user, password = granted["dbUser"], granted["dbPassword"]
    assert signed_in_as(platform, user, password) == user == "IAM:local"
    with pytest.raises(PermissionError, match="28000"):
        signed_in_as(platform, user, password + "x")
    assert run(f"alter user \"{user}\" valid until '2020-01-01'")["Status"] == "FINISHED"
    with pytest.raises(PermissionError, match="IAM Authentication token has expired"):
        signed_in_as(platform, user, password)
    assert serverless.get_credentials(workgroupName=workgroup)["dbUser"] == user
    assert signed_in_as(platform, user, password) == user


def test_an_iam_user_gets_a_database_user_of_his_name(platform: Platform, workgroup: str) -> None:
    iam = platform.connection().client("iam")
    name = "ann+o'neil@example.com".replace("'", "")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    client = platform.connection().session.client(
        "redshift-serverless",
        endpoint_url=f"http://{LOOPBACK}:{platform.control_port()}",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    granted = client.get_credentials(workgroupName=workgroup)
    assert signed_in_as(platform, granted["dbUser"], granted["dbPassword"]) == f"IAM:{name}"


# The Data API


def test_a_statement_runs_as_the_administrator_and_its_fields_are_typed(
    platform: Platform, run: Callable[..., dict[str, Any]]
) -> None:
    described = run("select current_user::varchar as who, 1, 2.5::float8, true, null, 1.10::numeric(5,2), 'a?%s:b'")
    result = platform.connection().client("redshift-data").get_statement_result(Id=described["Id"])
    assert result["Records"] == [
        [
            {"stringValue": "admin"},
            {"longValue": 1},
            {"doubleValue": 2.5},
            {"booleanValue": True},
            {"isNull": True},
            {"stringValue": "1.10"},
            {"stringValue": "a?%s:b"},
        ]
    ]
    assert [column["typeName"] for column in result["ColumnMetadata"]][:4] == ["varchar", "int4", "float8", "bool"]
    assert result["ColumnMetadata"][0]["name"] == "who"
    assert (described["ResultRows"], described["HasResultSet"], result["TotalNumRows"]) == (1, True, 1)


def test_execute_returns_before_the_statement_has_ended(platform: Platform, workgroup: str) -> None:
    client = platform.connection().client("redshift-data")
    members = {"WorkgroupName": workgroup, "Database": "analytics"}
    identifier = client.execute_statement(Sql="select pg_sleep(60)", **members)["Id"]
    described = client.describe_statement
    wait_for(lambda: described(Id=identifier)["Status"] == "STARTED", "start of the statement")
    assert code_of(client.get_statement_result, Id=identifier) == "ResourceNotFoundException"
    assert client.cancel_statement(Id=identifier)["Status"] is True
    assert described(Id=identifier)["Status"] == "ABORTED"
    assert code_of(client.cancel_statement, Id=identifier) == "ValidationException"
    sleeping = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"
    counted = client.execute_statement(Sql=sleeping, WaitTimeSeconds=30, **members)["Id"]
    assert client.get_statement_result(Id=counted)["Records"] == [[{"longValue": 0}]]


def test_an_error_of_the_database_is_told_in_its_words(platform: Platform, run: Callable[..., dict[str, Any]]) -> None:
    described = run("select * from nowhere")
    assert (described["Status"], described["Error"]) == ("FAILED", 'ERROR: relation "nowhere" does not exist')
    client = platform.connection().client("redshift-data")
    assert code_of(client.get_statement_result, Id=described["Id"]) == "ResourceNotFoundException"
    assert run("select 1; select 2")["Status"] == "FAILED"
    assert run("select 1", Database="no-such-database")["Status"] == "FAILED"


def test_a_batch_is_one_transaction(
    platform: Platform, run: Callable[..., dict[str, Any]], rows: Callable[..., list[list[Any]]]
) -> None:
    failed = run(["create table batch_one (a int)", "select * from nowhere", "select 1"])
    assert [sub["Status"] for sub in failed["SubStatements"]] == ["FINISHED", "FAILED", "ABORTED"]
    assert (failed["Status"], "nowhere" in failed["Error"]) == ("FAILED", True)
    assert rows("select count(*) from pg_class where relname = 'batch_one'") == [[0]]
    done = run(["create table batch_one (a int)", "insert into batch_one values (7)", "select a from batch_one"])
    assert done["Status"] == "FINISHED"
    client = platform.connection().client("redshift-data")
    assert client.get_statement_result(Id=done["SubStatements"][2]["Id"])["Records"] == [[{"longValue": 7}]]
    assert run("drop table batch_one")["Status"] == "FINISHED"


def test_parameters_take_the_type_of_their_place_and_stay_values(rows: Callable[..., list[list[Any]]]) -> None:
    hostile = "x'); drop schema public cascade; -- :b \\ $$"
    parameters = [{"name": "a", "value": hostile}, {"name": "b", "value": "41"}]
    assert rows("select :a::varchar, 1 + :b where 41 = :b limit :b", Parameters=parameters) == [[hostile, 42]]


def test_a_long_result_comes_in_pages(platform: Platform, run: Callable[..., dict[str, Any]]) -> None:
    identifier = run("select generate_series(1, 2500)")["Id"]
    client = platform.connection().client("redshift-data")
    pages = list(client.get_paginator("get_statement_result").paginate(Id=identifier))
    assert [len(page["Records"]) for page in pages] == [1000, 1000, 500]
    assert [row[0]["longValue"] for page in pages for row in page["Records"]] == list(range(1, 2501))


def test_the_same_client_token_runs_a_statement_once(
    run: Callable[..., dict[str, Any]], rows: Callable[..., list[list[Any]]]
) -> None:
    run("create table once (a int)")
    token = uuid.uuid4().hex
    first, second = (run("insert into once values (1)", ClientToken=token) for _ in range(2))
    assert first["Id"] == second["Id"]
    assert rows("select count(*) from once") == [[1]]
    run("drop table once")


def test_statements_are_listed_by_name_and_status(platform: Platform, run: Callable[..., dict[str, Any]]) -> None:
    name = uuid.uuid4().hex
    failed, done = run("selec", StatementName=name), run(["select 1", "select 2"], StatementName=name)
    client = platform.connection().client("redshift-data")
    listed = client.list_statements(StatementName=name)["Statements"]
    assert [item["Id"] for item in listed] == [done["Id"]]
    listed = client.list_statements(StatementName=name, Status="ALL")["Statements"]
    assert [item["Id"] for item in listed] == [done["Id"], failed["Id"]]
    assert client.list_statements(StatementName=name, ClusterIdentifier="c")["Statements"] == []
    assert listed[0]["QueryStrings"] == ["select 1", "select 2"]
    found = client.list_statements(StatementName=name, Status="FAILED")["Statements"]
    assert [item["QueryString"] for item in found] == ["selec"]


def test_a_statement_with_a_secret_runs_as_its_login(
    platform: Platform, serverless: Any, run: Callable[..., dict[str, Any]], rows: Callable[..., list[list[Any]]]
) -> None:
    secrets = platform.connection().client("secretsmanager")
    assert run("create user reader password 'Reader-Value1'")["Status"] == "FINISHED"
    login = json.dumps({"username": "reader", "password": "Reader-Value1"})
    arn = secrets.create_secret(Name=f"login-{uuid.uuid4().hex}", SecretString=login)["ARN"]
    assert rows("select current_user::varchar", SecretArn=arn) == [["reader"]]
    wrong = secrets.create_secret(Name=f"login-{uuid.uuid4().hex}", SecretString='{"username": "reader"}')["ARN"]
    data = platform.connection().client("redshift-data").execute_statement
    workgroup = serverless.list_workgroups()["workgroups"][0]["workgroupName"]
    members = {"Sql": "select 1", "WorkgroupName": workgroup, "Database": "analytics"}
    assert code_of(data, SecretArn=wrong, **members) == "ValidationException"
    assert run("drop user reader")["Status"] == "FINISHED"


def test_databases_schemas_tables_and_columns_are_listed(
    platform: Platform, workgroup: str, run: Callable[..., dict[str, Any]]
) -> None:
    column = "id int not null primary key, name varchar(20) default 'x', price numeric(10, 2)"
    made = run(["create schema told", f"create table told.t ({column})", "create view told.v as select id from told.t"])
    assert made["Status"] == "FINISHED", made
    client = platform.connection().client("redshift-data")
    where = {"WorkgroupName": workgroup, "Database": "analytics"}
    assert "analytics" in client.list_databases(**where)["Databases"]
    assert client.list_schemas(**where, SchemaPattern="tol%")["Schemas"] == ["told"]
    tables = [{"name": "t", "schema": "told", "type": "TABLE"}, {"name": "v", "schema": "told", "type": "VIEW"}]
    pages = client.get_paginator("list_tables").paginate(
        **where, SchemaPattern="told", PaginationConfig={"PageSize": 1}
    )
    assert [page["Tables"] for page in pages] == [[table] for table in tables]
    assert client.list_tables(**where, SchemaPattern="told", TablePattern="v")["Tables"] == tables[1:]
    system = client.list_tables(**where, SchemaPattern="pg_catalog", TablePattern="pg_class")["Tables"]
    assert [table["type"] for table in system] == ["SYSTEM TABLE"]
    described = client.describe_table(**where, Schema="told", Table="t")
    columns = described["ColumnList"]
    assert (described["TableName"], [item["name"] for item in columns]) == ("t", ["id", "name", "price"])
    assert [item["typeName"] for item in columns] == ["int4", "varchar", "numeric"]
    assert [item["nullable"] for item in columns] == [0, 1, 1]
    assert columns[1]["length"] == 20
    assert "'x'" in columns[1]["columnDefault"]
    assert (columns[2]["precision"], columns[2]["scale"]) == (10, 2)
    assert client.describe_table(**where, Schema="told", Table="none")["ColumnList"] == []
    assert code_of(client.list_tables, **where | {"Database": "nowhere"}) == "ValidationException"
    assert run("drop schema told cascade")["Status"] == "FINISHED"


def test_a_result_may_be_had_as_csv(platform: Platform, run: Callable[..., dict[str, Any]]) -> None:
    text = "select 1 as a, 'x,\"y' as b, null as c, true as d"
    identifier = run(text, ResultFormat="CSV")["Id"]
    client = platform.connection().client("redshift-data")
    result = client.get_statement_result_v2(Id=identifier)
    assert result["Records"] == [{"CSVRecords": '1,"x,""y",,true\r\n'}]
    assert [column["name"] for column in result["ColumnMetadata"]] == ["a", "b", "c", "d"]
    assert (result["ResultFormat"], result["TotalNumRows"]) == ("CSV", 1)
    assert code_of(client.get_statement_result, Id=identifier) == "ValidationException"
    assert code_of(client.get_statement_result_v2, Id=run("select 1")["Id"]) == "ValidationException"


def test_the_end_of_a_statement_is_put_on_the_event_bus(platform: Platform, run: Callable[..., dict[str, Any]]) -> None:
    events, sqs = platform.connection().client("events"), platform.connection().client("sqs")
    queue = sqs.create_queue(QueueName="ended")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="ended", EventPattern=json.dumps({"source": [EVENT_SOURCE]}))
    events.put_targets(Rule="ended", Targets=[{"Id": "1", "Arn": arn}])
    run("select 1")
    done = run("select 1 as told", WithEvent=True, StatementName="told")
    message = wait_for(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"), "event")[0]
    detail = json.loads(message["Body"])["detail"]
    assert (detail["statementId"], detail["state"], detail["statementName"]) == (done["Id"], "FINISHED", "told")


# What a deployment sends


def deployment(builder: str, external: dict[str, str]) -> list[str]:
    """Return the statements that the deployment program sends."""
    access = warehouse_sql.access_procedure(
        database="analytics", gold="gold", builders=[builder], readers=["IAM:grafana"], external=external
    )
    return [
        *(warehouse_sql.external_schema(schema, database, ROLE, "us-east-1") for schema, database in external.items()),
        warehouse_sql.gold_schema("gold"),
        access,
        warehouse_sql.call_access("gold"),
        warehouse_sql.external_grants([builder], list(external)),
    ]


@pytest.mark.parametrize("builder", ["IAMR:runner", "IAMR:o'\"neil+=,.@-" + "x" * 50])
def test_the_statements_of_a_deployment_are_accepted_and_may_be_sent_again(
    platform: Platform,
    run: Callable[..., dict[str, Any]],
    rows: Callable[..., list[list[Any]]],
    builder: str,
) -> None:
    external = {"silver_ai": "silver_ai_enrichment", "silver_more": "more"}
    for _ in range(2):
        for statement in deployment(builder, external):
            described = run(statement)
            assert described["Status"] == "FINISHED", described
    found = rows("select schemaname, databasename from svv_external_schemas")
    assert [list(item) for item in external.items() if list(item) not in found] == []
    user = [{"name": "user", "value": builder}]
    rights = "has_schema_privilege(usename, 'gold', 'create'), has_schema_privilege(usename, 'silver_more', 'usage')"
    assert rows(f"select {rights} from pg_user where usename = :user", Parameters=user) == [[True, True]]  # noqa: S608
    with pytest.raises(PermissionError):
        signed_in_as(platform, builder, "")
    *_, procedure, call, _grants = deployment(builder, {"silver_ai": "another"})
    assert run([procedure, call])["Error"].startswith("ERROR: schema silver_ai shows another Glue database")


def role_that_may(connection: Connection, *actions: str) -> str:
    """Return a role that Redshift may assume, with these rights."""
    iam, name = connection.client("iam"), f"spectrum-{uuid.uuid4().hex[:8]}"
    trust = {"Effect": "Allow", "Principal": {"Service": "redshift.amazonaws.com"}, "Action": "sts:AssumeRole"}
    allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    first, second = (json.dumps({"Version": "2012-10-17", "Statement": [item]}) for item in (trust, allowed))
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=first)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="spectrum", PolicyDocument=second)
    return arn


def test_a_new_external_schema_shows_the_glue_tables_of_its_database(
    platform: Platform, run: Callable[..., dict[str, Any]], rows: Callable[..., list[list[Any]]]
) -> None:
    connection = platform.connection()
    glue, s3 = connection.client("glue"), connection.client("s3")
    s3.create_bucket(Bucket="fresh")
    glue.create_database(DatabaseInput={"Name": "fresh"})
    columns = [{"Name": "id", "Type": "bigint"}]
    storage = {"Location": "s3://fresh/t/", "Columns": columns}
    glue.create_table(DatabaseName="fresh", TableInput={"Name": "t", "StorageDescriptor": storage})
    role = role_that_may(connection, "glue:GetTable", "s3:ListBucket")
    created = f"create external schema silver_fresh from data catalog database 'fresh' iam_role '{role}'"
    assert run(created)["Status"] == "FINISHED"
    assert rows("select count(*) from silver_fresh.t") == [[0]]
    assert run(created.replace("silver_fresh", "other"))["Status"] == "FINISHED"
    assert rows("select count(*) from other.t") == [[0]]
    assert run("create schema taken")["Status"] == "FINISHED"
    assert "already exists" in run(created.replace("silver_fresh", "taken").replace("'fresh'", "'x'"))["Error"]


def test_a_connection_to_another_region_sees_only_that_regions_warehouses(platform: Platform, workgroup: str) -> None:
    away: Connection = replace(platform.connection(), region="eu-west-1")
    assert away.client("redshift-serverless").list_workgroups()["workgroups"] == []
    refused = away.client("redshift-serverless").get_workgroup
    assert code_of(refused, workgroupName=workgroup) == "ResourceNotFoundException"
