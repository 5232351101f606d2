"""The local control plane without a process: the protocol, the service's own refusals, the Data API's decisions."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.redshift.aws_json import CONTENT_TYPE, Caller, Endpoint, ServiceError, caller_of, model, shaped
from local.redshift.control import DEFAULT_PARAMETERS, STATE_FILE, Control, Deployed, deployed, sets_password_of
from local.redshift.data_api import DataApi, bound, reason
from local.redshift.gateway import postgres_sql

PASSWORD = "Hidden-Value1"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROLE = "arn:aws:iam::000000000000:role/spectrum"
SIGNED = "AWS4-HMAC-SHA256 Credential={key}/20261101/{region}/redshift-serverless/aws4_request, Signature=0"


class RecordedRoles:
    """Keeps what would be done in PostgreSQL."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {}
        self.until: dict[str, datetime] = {}
        self.databases: list[str] = []

    def set_administrator(self, user: str, password: str) -> None:
        self.passwords[user] = password

    def retire_administrator(self, user: str) -> None:
        del self.passwords[user]

    def set_temporary(self, user: str, password: str, until: datetime) -> None:
        self.passwords[user] = password
        self.until[user] = until

    def create_database(self, name: str) -> None:
        self.databases.append(name)


class RecordedEmulator:
    """An emulator with subnets s-a … s-c in three zones and s-a2 in the first, and one known key."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def zones(self, region: str, subnets: Collection[str]) -> dict[str, str]:
        known = {"s-a": "a", "s-a2": "a", "s-b": "b", "s-c": "c"}
        return {subnet: region + known[subnet] for subnet in subnets if subnet in known}

    def put_secret(self, region: str, name: str, value: str) -> str:
        self.secrets[name] = value
        return f"arn:aws:secretsmanager:{region}:000000000000:secret:{name}"

    def delete_secret(self, _region: str, name: str) -> None:
        del self.secrets[name]

    def user_of(self, access_key: str) -> str | None:
        return "ann" if access_key == "AKIAKNOWN" else None


class Plane:
    """A control plane in a folder, asked over its protocol."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / STATE_FILE
        self.roles, self.emulator = RecordedRoles(), RecordedEmulator()
        self.now = NOW
        self.restart()

    def restart(self) -> None:
        self.control = Control(self.file, self.roles, self.emulator, port=15439, clock=lambda: self.now)
        self.endpoint = Endpoint([self.control.service()])

    def ask(self, operation: str, *, region: str = "eu-west-1", key: str = "test", **members: Any) -> tuple[int, Any]:
        headers = {
            "Content-Type": CONTENT_TYPE,
            "X-Amz-Target": f"RedshiftServerless.{operation}",
            "Authorization": SIGNED.format(key=key, region=region),
        }
        return self.endpoint.answer(headers, json.dumps(members).encode())

    def done(self, operation: str, **members: Any) -> Any:
        """Return the answer of an operation that succeeds."""
        status, answer = self.ask(operation, **members)
        assert status == 200, answer
        return answer

    def refused(self, operation: str, **members: Any) -> tuple[str, str]:
        """Return code and text of an operation that is refused."""
        status, answer = self.ask(operation, **members)
        assert status == 400, answer
        return answer["__type"], answer["message"]

    def pair(self) -> Any:
        """Create a namespace and a workgroup; return the workgroup."""
        login = {"adminUsername": "admin", "adminUserPassword": PASSWORD}
        self.done("CreateNamespace", namespaceName="gold", dbName="analytics", **login)
        created = self.done("CreateWorkgroup", namespaceName="gold", workgroupName="gold-wg", baseCapacity=8)
        return created["workgroup"]


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


# The protocol


def test_an_unknown_operation_and_an_unknown_service_have_the_services_own_error(plane: Plane) -> None:
    assert plane.refused("CreateMiracle")[0] == "UnknownOperationException"
    status, answer = plane.endpoint.answer({"X-Amz-Target": "DynamoDB_20120810.ListTables"}, b"{}")
    assert (status, answer["__type"]) == (400, "UnknownOperationException")
    assert plane.endpoint.answer({}, b"")[1]["__type"] == "UnknownOperationException"


def test_a_known_operation_that_is_not_emulated_says_so(plane: Plane) -> None:
    # 400: some SDKs try again whatever has a status of 500 and more.
    assert plane.ask("CreateSnapshot", namespaceName="gold", snapshotName="s")[0] == 400
    assert plane.refused("CreateSnapshot") == ("NotImplemented", "not emulated: CreateSnapshot")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_no_json_object_is_a_serialization_error(plane: Plane, body: bytes) -> None:
    status, answer = plane.endpoint.answer({"X-Amz-Target": "RedshiftServerless.ListWorkgroups"}, body)
    assert (status, answer["__type"]) == (400, "SerializationException")


def test_a_member_of_the_wrong_type_is_a_serialization_error(plane: Plane) -> None:
    for members in ({"maxResults": "3"}, {"maxResults": True}, {"maxResults": 1.5}):
        assert plane.refused("ListWorkgroups", **members)[0] == "SerializationException"


def test_all_violated_constraints_are_told_at_once(plane: Plane) -> None:
    code, text = plane.refused("CreateWorkgroup", workgroupName="A", ipAddressType="ipv5\n")
    assert code == "ValidationException"
    assert "4 validation errors" in text
    for part in ("'namespaceName'", "pattern: ^[a-z0-9-]+$", "greater than or equal to 3", "'ipAddressType'"):
        assert part in text


@pytest.mark.parametrize("name", ["ab", "a" * 65, "Gold", "gold_wg", "gold\n", "gold'; drop", "", "gøld", "a/../b"])
def test_names_outside_the_services_pattern_are_refused(plane: Plane, name: str) -> None:
    assert plane.refused("CreateNamespace", namespaceName=name)[0] == "ValidationException"


def test_unknown_members_are_ignored_as_aws_ignores_them(plane: Plane) -> None:
    assert plane.done("CreateNamespace", namespaceName="gold", brandNew=1)["namespace"]["namespaceName"] == "gold"


def test_a_fault_of_ours_is_a_server_error_without_details(plane: Plane) -> None:
    def broken(user: str, password: str) -> None:
        raise RuntimeError(password)

    plane.roles.set_administrator = broken  # type: ignore[method-assign] # a fault to provoke
    status, answer = plane.ask(
        "CreateNamespace", namespaceName="gold", adminUsername="admin", adminUserPassword=PASSWORD
    )
    assert (status, answer["__type"]) == (500, "InternalServerException")
    assert PASSWORD not in json.dumps(answer)


def test_the_region_is_the_credential_scopes_and_only_if_it_looks_like_one() -> None:
    assert caller_of({"Authorization": SIGNED.format(key="AK", region="us-gov-west-1")}) == Caller(
        "us-gov-west-1", "AK"
    )
    for hostile in ("../../x", "us-east-1'", "x"):
        assert caller_of({"Authorization": SIGNED.format(key="AK", region=hostile)}) == Caller()


def test_timestamps_are_written_as_each_model_wants_them() -> None:
    serverless = model("redshift-serverless")
    assert shaped(serverless.shape_for("Namespace"), {"creationDate": NOW}) == {
        "creationDate": "2026-11-01T12:00:00.000000Z"
    }
    granted = serverless.operation_model("GetCredentials").output_shape
    assert shaped(granted, {"expiration": NOW, "ours": 1}) == {"expiration": NOW.timestamp()}


# Namespaces


def test_a_namespace_is_created_once_read_changed_and_deleted(plane: Plane) -> None:
    created = plane.done("CreateNamespace", namespaceName="gold", iamRoles=[ROLE], defaultIamRoleArn=ROLE)["namespace"]
    assert re.fullmatch(
        r"arn:aws:redshift-serverless:eu-west-1:000000000000:namespace/[0-9a-f-]{36}", created["namespaceArn"]
    )
    assert (created["dbName"], created["adminUsername"], created["kmsKeyId"]) == ("dev", "admin", "AWS_OWNED_KMS_KEY")
    assert created["iamRoles"] == [f"IamRole(applyStatus=in-sync, iamRoleArn={ROLE})"]
    assert plane.refused("CreateNamespace", namespaceName="gold")[0] == "ConflictException"
    plane.done("UpdateNamespace", namespaceName="gold", logExports=["userlog"])
    assert plane.done("GetNamespace", namespaceName="gold")["namespace"] == created | {"logExports": ["userlog"]}
    assert plane.done("DeleteNamespace", namespaceName="gold")["namespace"]["status"] == "DELETING"
    for operation in ("GetNamespace", "UpdateNamespace", "DeleteNamespace"):
        assert plane.refused(operation, namespaceName="gold")[0] == "ResourceNotFoundException"


def test_regions_have_namespaces_of_their_own(plane: Plane) -> None:
    plane.done("CreateNamespace", namespaceName="gold")
    plane.done("CreateNamespace", namespaceName="gold", region="us-east-1")
    assert len(plane.done("ListNamespaces")["namespaces"]) == 1
    assert plane.refused("GetNamespace", namespaceName="gold", region="us-west-2")[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"adminUsername": "postgres", "adminUserPassword": PASSWORD}, "adminUsername"),
        ({"adminUsername": "goldlake_data_api", "adminUserPassword": PASSWORD}, "adminUsername"),
        ({"adminUsername": "pg_monitor", "adminUserPassword": PASSWORD}, "adminUsername"),
        ({"adminUsername": 'x" superuser', "adminUserPassword": PASSWORD}, "adminUsername"),
        ({"adminUsername": "a" * 64, "adminUserPassword": PASSWORD}, "adminUsername"),
        ({"adminUsername": "admin"}, "needs adminUserPassword"),
        ({"adminUserPassword": PASSWORD, "manageAdminPassword": True}, "can't be used if manageAdminPassword"),
        ({"adminPasswordSecretKmsKeyId": "k"}, "needs manageAdminPassword"),
        ({"dbName": "template1"}, "dbName"),
        ({"dbName": 'x"y'}, "dbName"),
        ({"logExports": ["everything"]}, "logExports"),
        ({"iamRoles": ["role"]}, "not the ARN of an IAM role"),
        ({"defaultIamRoleArn": ROLE}, "must be one of iamRoles"),
    ],
)
def test_a_namespace_that_the_service_refuses_is_refused(plane: Plane, members: dict[str, Any], text: str) -> None:
    code, told = plane.refused("CreateNamespace", namespaceName="gold", **members)
    assert code == "ValidationException"
    assert text in told
    assert (plane.roles.passwords, plane.roles.databases) == ({}, [])


@pytest.mark.parametrize(
    "password",
    ["Short1a", "nouppercase1", "NOLOWERCASE1", "NoDigitsHere", "With space1A", 'Quo"te1Aaa', "A1" + "a" * 63],
)
def test_a_weak_password_is_refused_and_not_repeated(plane: Plane, password: str) -> None:
    code, text = plane.refused("CreateNamespace", namespaceName="gold", adminUserPassword=password)
    assert code == "ValidationException"
    assert password not in text


def test_a_password_is_in_no_answer_and_not_in_the_state_file(plane: Plane) -> None:
    answers = [plane.pair(), plane.done("ListNamespaces"), plane.done("GetNamespace", namespaceName="gold")]
    assert PASSWORD not in json.dumps(answers)
    assert PASSWORD not in plane.file.read_text()
    assert plane.file.stat().st_mode & 0o777 == 0o600
    assert plane.roles.passwords == {"admin": PASSWORD}


def test_a_password_of_a_namespace_outlives_a_restart_and_ends_with_it(plane: Plane) -> None:
    assert not sets_password_of(plane.file, "admin")
    plane.done("CreateNamespace", namespaceName="plain")
    assert not sets_password_of(plane.file, "admin")
    plane.pair()
    assert sets_password_of(plane.file, "admin")
    assert not sets_password_of(plane.file, "someone")
    plane.done("DeleteWorkgroup", workgroupName="gold-wg")
    plane.done("DeleteNamespace", namespaceName="gold")
    assert not sets_password_of(plane.file, "admin")
    assert plane.roles.passwords == {}


def test_two_namespaces_cannot_set_the_password_of_one_administrator(plane: Plane) -> None:
    plane.pair()
    login = {"adminUsername": "admin", "adminUserPassword": "Another-Value1"}
    assert "give another adminUsername" in plane.refused("CreateNamespace", namespaceName="other", **login)[1]
    assert plane.roles.passwords == {"admin": PASSWORD}


def test_a_managed_password_is_in_secrets_manager_until_it_is_managed_no_more(plane: Plane) -> None:
    created = plane.done("CreateNamespace", namespaceName="gold", manageAdminPassword=True)["namespace"]
    assert created["adminPasswordSecretArn"].endswith(":secret:redshift!gold-admin")
    login = json.loads(plane.emulator.secrets["redshift!gold-admin"])
    assert login == {"username": "admin", "password": plane.roles.passwords["admin"]}
    assert login["password"] not in plane.file.read_text()
    members = {"adminUserPassword": PASSWORD, "adminUsername": "admin", "manageAdminPassword": False}
    updated = plane.done("UpdateNamespace", namespaceName="gold", **members)["namespace"]
    assert "adminPasswordSecretArn" not in updated
    assert plane.emulator.secrets == {}
    assert plane.roles.passwords == {"admin": PASSWORD}


def test_two_kinds_of_settings_in_one_update_are_refused(plane: Plane) -> None:
    plane.pair()
    for operation, members in (
        ("UpdateNamespace", {"namespaceName": "gold", "kmsKeyId": "k", "logExports": []}),
        ("UpdateWorkgroup", {"workgroupName": "gold-wg", "baseCapacity": 16, "port": 5440}),
    ):
        assert "multiple" in plane.refused(operation, **members)[1]


# Workgroups


def test_a_workgroup_is_creating_then_available_at_the_gateways_port(plane: Plane) -> None:
    created = plane.pair()
    assert created["status"] == "CREATING"
    read = plane.done("GetWorkgroup", workgroupName="gold-wg")["workgroup"]
    assert read == created | {"status": "AVAILABLE"}
    assert (read["endpoint"]["address"], read["endpoint"]["port"]) == ("127.0.0.1", 15439)
    assert plane.refused("CreateWorkgroup", namespaceName="gold", workgroupName="gold-wg")[0] == "ConflictException"
    changed = plane.done("UpdateWorkgroup", workgroupName="gold-wg", baseCapacity=16)["workgroup"]
    assert (changed["status"], changed["baseCapacity"]) == ("MODIFYING", 16)
    plane.done("DeleteWorkgroup", workgroupName="gold-wg")
    assert plane.refused("GetWorkgroup", workgroupName="gold-wg")[0] == "ResourceNotFoundException"


def test_a_workgroup_needs_a_namespace_that_has_none_yet(plane: Plane) -> None:
    missing = plane.refused("CreateWorkgroup", namespaceName="nope", workgroupName="second")
    assert missing[0] == "ResourceNotFoundException"
    plane.pair()
    assert plane.refused("CreateWorkgroup", namespaceName="gold", workgroupName="second")[0] == "ConflictException"


def test_a_namespace_with_a_workgroup_cannot_be_deleted(plane: Plane) -> None:
    plane.pair()
    code, text = plane.refused("DeleteNamespace", namespaceName="gold")
    assert (code, "gold-wg" in text) == ("ConflictException", True)


def test_what_was_not_declared_has_the_services_defaults(plane: Plane) -> None:
    created = plane.pair()
    parameters = {item["parameterKey"]: item["parameterValue"] for item in created["configParameters"]}
    assert parameters == DEFAULT_PARAMETERS
    given = [{"parameterKey": "require_ssl", "parameterValue": "false"}]
    changed = plane.done("UpdateWorkgroup", workgroupName="gold-wg", configParameters=given)["workgroup"]
    parameters = {item["parameterKey"]: item["parameterValue"] for item in changed["configParameters"]}
    assert parameters == DEFAULT_PARAMETERS | {"require_ssl": "false"}


@pytest.mark.parametrize("capacity", [4, 8, 16, 504, 512, 544, 1024])
def test_capacities_that_the_service_has_are_accepted(plane: Plane, capacity: int) -> None:
    plane.pair()
    updated = plane.done("UpdateWorkgroup", workgroupName="gold-wg", baseCapacity=capacity)
    assert updated["workgroup"]["baseCapacity"] == capacity


@pytest.mark.parametrize(
    ("members", "text"),
    [
        *(({"baseCapacity": capacity}, "baseCapacity") for capacity in (-8, 0, 1, 5, 12, 511, 520, 1032, 2048)),
        ({"baseCapacity": 544, "region": "eu-north-1"}, "baseCapacity 544 is not 4"),
        ({"baseCapacity": 16, "maxCapacity": 8}, "less than baseCapacity"),
        ({"baseCapacity": 8, "maxCapacity": 12}, "maxCapacity 12"),
        ({"baseCapacity": 8, "maxCapacity": 5640}, "maxCapacity 5640"),
        *(({"port": port}, f"port {port}") for port in (1, 5430, 5456, 8190, 8216, 70000)),
        ({"configParameters": [{"parameterKey": "hax", "parameterValue": "1"}]}, "unknown configParameters: hax"),
        ({"subnetIds": ["s-a", "s-b"]}, "at least 3 subnets, 2 given"),
        ({"subnetIds": ["s-a", "s-b", "s-b"]}, "at least 3 subnets, 2 given"),
        ({"subnetIds": ["s-a", "s-b", "s-a2"]}, "at least 3 Availability Zones"),
        ({"subnetIds": ["s-a", "s-b", "s-z"]}, "do not exist: s-z"),
    ],
)
def test_a_workgroup_that_the_service_refuses_is_refused(plane: Plane, members: dict[str, Any], text: str) -> None:
    region = members.get("region", "eu-west-1")
    plane.done("CreateNamespace", namespaceName="gold", region=region)
    code, told = plane.refused("CreateWorkgroup", namespaceName="gold", workgroupName="gold-wg", **members)
    assert code == "ValidationException"
    assert text in told
    assert plane.done("ListWorkgroups", region=region)["workgroups"] == []


def test_three_subnets_in_three_zones_are_accepted(plane: Plane) -> None:
    plane.pair()
    updated = plane.done("UpdateWorkgroup", workgroupName="gold-wg", subnetIds=["s-a", "s-b", "s-c"])
    assert updated["workgroup"]["subnetIds"] == ["s-a", "s-b", "s-c"]


# Usage limits, tags, lists


def test_a_usage_limit_belongs_to_a_workgroup_and_goes_with_it(plane: Plane) -> None:
    arn = plane.pair()["workgroupArn"]
    limit = {"resourceArn": arn, "usageType": "serverless-compute", "amount": 10}
    created = plane.done("CreateUsageLimit", **limit)["usageLimit"]
    assert (created["period"], created["breachAction"]) == ("monthly", "log")
    assert plane.refused("CreateUsageLimit", **limit)[0] == "ConflictException"
    changed = plane.done("UpdateUsageLimit", usageLimitId=created["usageLimitId"], amount=20, breachAction="deactivate")
    assert changed["usageLimit"] == created | {"amount": 20, "breachAction": "deactivate"}
    assert plane.refused("UpdateUsageLimit", usageLimitId=created["usageLimitId"], amount=0)[0] == "ValidationException"
    assert plane.done("ListUsageLimits", resourceArn=arn)["usageLimits"] == [changed["usageLimit"]]
    plane.done("DeleteWorkgroup", workgroupName="gold-wg")
    assert plane.refused("GetUsageLimit", usageLimitId=created["usageLimitId"])[0] == "ResourceNotFoundException"


def test_a_usage_limit_of_nothing_or_of_no_amount_is_refused(plane: Plane) -> None:
    limit = {"resourceArn": plane.pair()["workgroupArn"], "usageType": "serverless-compute", "amount": -1}
    assert plane.refused("CreateUsageLimit", **limit)[0] == "ValidationException"
    limit |= {"resourceArn": "arn:aws:redshift-serverless:eu-west-1:000000000000:workgroup/other", "amount": 1}
    assert plane.refused("CreateUsageLimit", **limit)[0] == "ResourceNotFoundException"


def test_tags_are_added_replaced_and_removed(plane: Plane) -> None:
    tags = [{"key": "unit", "value": "warehouse"}, {"key": "owner", "value": "a"}]
    arn = plane.done("CreateNamespace", namespaceName="gold", tags=tags)["namespace"]["namespaceArn"]
    plane.done("TagResource", resourceArn=arn, tags=[{"key": "owner", "value": "b"}])
    plane.done("UntagResource", resourceArn=arn, tagKeys=["unit", "absent"])
    assert plane.done("ListTagsForResource", resourceArn=arn)["tags"] == [{"key": "owner", "value": "b"}]
    assert plane.refused("ListTagsForResource", resourceArn=arn + "x")[0] == "ResourceNotFoundException"


def test_lists_come_in_pages(plane: Plane) -> None:
    names = [f"space-{number}" for number in range(5)]
    for name in names:
        plane.done("CreateNamespace", namespaceName=name)
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = plane.done("ListNamespaces", maxResults=2, **token)
        seen += [item["namespaceName"] for item in page["namespaces"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert seen == names
    assert plane.refused("ListNamespaces", nextToken="-1")[0] == "ValidationException"


def test_a_restart_keeps_everything(plane: Plane) -> None:
    workgroup = plane.pair()
    plane.done("TagResource", resourceArn=workgroup["workgroupArn"], tags=[{"key": "a", "value": "b"}])
    before = [plane.done("ListNamespaces"), plane.done("ListWorkgroups")]
    plane.restart()
    assert [plane.done("ListNamespaces"), plane.done("ListWorkgroups")] == before
    assert plane.done("ListTagsForResource", resourceArn=workgroup["workgroupArn"])["tags"]


def test_what_is_deployed_is_told_from_the_file(plane: Plane) -> None:
    assert deployed(plane.file) == []
    plane.pair()
    plane.done("CreateNamespace", namespaceName="bare", region="eu-north-1")
    assert deployed(plane.file) == [
        Deployed("eu-north-1", "bare", "dev", None, None, "AVAILABLE"),
        Deployed("eu-west-1", "gold", "analytics", "gold-wg", 8, "AVAILABLE"),
    ]


# Temporary logins


def test_temporary_credentials_are_the_callers_and_end(plane: Plane) -> None:
    plane.pair()
    granted = plane.done("GetCredentials", workgroupName="gold-wg", key="AKIAKNOWN")
    assert granted["dbUser"] == "IAM:ann"
    assert granted["dbPassword"] == plane.roles.passwords["IAM:ann"]
    assert granted["expiration"] == (NOW + timedelta(seconds=900)).timestamp()
    assert plane.roles.until["IAM:ann"] == NOW + timedelta(seconds=900)
    assert plane.done("GetCredentials", workgroupName="gold-wg", key="AKIAOTHER")["dbUser"] == "IAM:local"
    assert granted["dbPassword"] not in plane.file.read_text()


def test_two_who_ask_at_once_can_both_sign_in(plane: Plane) -> None:
    plane.pair()
    first = plane.done("GetCredentials", workgroupName="gold-wg", durationSeconds=3600)
    second = plane.done("GetCredentials", workgroupName="gold-wg")
    assert second["dbPassword"] == first["dbPassword"]
    assert plane.roles.until["IAM:local"] == NOW + timedelta(seconds=3600)
    plane.now = NOW + timedelta(seconds=3601)
    assert plane.done("GetCredentials", workgroupName="gold-wg")["dbPassword"] != first["dbPassword"]


def test_credentials_need_a_workgroup_and_a_time_that_the_service_gives(plane: Plane) -> None:
    plane.pair()
    assert plane.refused("GetCredentials", workgroupName="other")[0] == "ResourceNotFoundException"
    assert plane.refused("GetCredentials")[0] == "ValidationException"
    for seconds in (0, 899, 3601):
        refused = plane.refused("GetCredentials", workgroupName="gold-wg", durationSeconds=seconds)
        assert refused[0] == "ValidationException"


# The Data API's decisions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select :a", "select 'v''1'"),
        ("select :a::int, ':a', \":a\", x::a", "select 'v''1'::int, ':a', \":a\", x::a"),
        ("select $$:a$$, $t$ $$ :a $t$ -- :a\n, :a /* :a */", "select $$:a$$, $t$ $$ :a $t$ -- :a\n, 'v''1' /* :a */"),
        ("select 'it''s :a', :a", "select 'it''s :a', 'v''1'"),
    ],
)
def test_parameters_are_placed_where_they_are_parameters(text: str, expected: str) -> None:
    assert bound(text, [{"name": "a", "value": "v'1"}]) == expected


def test_a_backslash_in_a_value_stays_one() -> None:
    assert bound("select :a", [{"name": "a", "value": "c:\\x"}]) == r"select 'c:\\x'"


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
@settings(max_examples=50)
def test_no_value_of_a_parameter_leaves_its_literal(value: str) -> None:
    placed = bound("select :a, 1", [{"name": "a", "value": value}])
    assert re.fullmatch(r"select '(?:[^']|'')*', 1", placed, re.DOTALL)


def test_parameters_without_value_and_values_without_parameter_are_refused() -> None:
    for text, names in (("select :a, :b", ["a"]), ("select 1", ["a"]), ("select ':a'", ["a"])):
        with pytest.raises(ServiceError, match=r"value|unused"):
            bound(text, [{"name": name, "value": "1"} for name in names])
    for text, value in (("select '\x00'", "1"), ("select :a", "\x00"), ("x" * 100_001, "1")):
        with pytest.raises(ServiceError, match=r"NUL|bytes"):
            bound(text, [{"name": "a", "value": value}])


def test_statements_without_parameters_are_left_as_they_are() -> None:
    assert bound("select :a, 'x%'", []) == "select :a, 'x%'"


def test_an_error_is_told_in_the_databases_words() -> None:
    assert reason(Exception({"S": "ERROR", "C": "42601", "M": "syntax error"})) == "ERROR: syntax error"
    assert reason(Exception({"M": "no", "D": "why"})) == "ERROR: no\n  Detail: why"


class BrokenSession:
    """A session that cannot be opened."""

    def __call__(self, login: Any) -> Any:
        raise OSError(f"refused for {login.user}")


def data_api(folder: Path) -> DataApi:
    return DataApi(
        folder / "data-api.json",
        BrokenSession(),
        lambda _region, workgroup: ("admin", "analytics") if workgroup == "gold-wg" else None,
        password="secret-of-the-data-api",
    )


def test_statements_of_no_workgroup_or_with_settings_that_are_not_emulated_are_refused(tmp_path: Path) -> None:
    api = data_api(tmp_path)
    asked = {"Sql": "select 1", "WorkgroupName": "gold-wg", "Database": "analytics"}
    for members, code in (
        ({"WorkgroupName": "other"}, "ValidationException"),
        ({"SessionKeepAliveSeconds": 5}, "NotImplemented"),
        ({"ClusterIdentifier": "c"}, "ValidationException"),
        ({"DbUser": "ann"}, "ValidationException"),
        ({"SecretArn": "arn"}, "NotImplemented"),
    ):
        with pytest.raises(ServiceError) as caught:
            api.execute_statement(Caller(), asked | members)
        assert caught.value.code == code
    with pytest.raises(ServiceError, match="Query does not exist"):
        api.describe_statement(Caller(), {"Id": "0" * 8})
    api.close()


def test_a_session_that_cannot_be_opened_is_a_failed_statement_and_is_remembered(tmp_path: Path) -> None:
    api = data_api(tmp_path)
    asked = {"Sql": "select 1", "WorkgroupName": "gold-wg", "Database": "analytics", "WaitTimeSeconds": 20}
    first = api.execute_statement(Caller(), asked | {"ClientToken": "t"})
    assert api.execute_statement(Caller(), asked | {"ClientToken": "t"})["Id"] == first["Id"]
    with pytest.raises(ServiceError, match="ClientToken"):
        api.execute_statement(Caller(), asked | {"ClientToken": "t", "Sql": "select 2"})
    hidden = api.execute_statement(Caller(), asked | {"Sql": f"create user x password '{PASSWORD}'"})
    api.close()
    later = data_api(tmp_path)
    described = later.describe_statement(Caller(), {"Id": first["Id"]})
    assert (described["Status"], described["Error"]) == ("FAILED", "refused for goldlake_data_api")
    with pytest.raises(ServiceError, match="Query does not exist"):
        later.describe_statement(Caller(), {"Id": hidden["Id"]})
    assert PASSWORD not in (tmp_path / "data-api.json").read_text()
    later.close()


# Redshift's statements in PostgreSQL's words


@pytest.mark.parametrize(
    "text",
    [
        "select 'create external schema x from data catalog database ''d'''",
        "insert into t values ('PASSWORD DISABLE')",
        "-- create user\nselect 'password disable'",
        "create table external_schema (a int)",
    ],
)
def test_other_statements_are_left_alone(text: str) -> None:
    assert postgres_sql(text) == text


def test_a_user_without_password_gets_none_within_a_procedure_too() -> None:
    assert postgres_sql('create user "IAMR:x" password disable').rstrip() == 'create user "IAMR:x" PASSWORD NULL'
    procedure = (
        "create or replace procedure p() as $$ begin execute 'CREATE USER x PASSWORD  DISABLE'; end $$ language plpgsql"
    )
    assert "PASSWORD NULL" in postgres_sql(procedure)
