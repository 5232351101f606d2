"""Whatever members a request has, both local services answer as services do: in the model's shape, or with an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.parsers import create_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.redshift.aws_json import CONTENT_TYPE, Endpoint, model
from local.redshift.control import STATE_FILE, Control
from local.redshift.data_api import DataApi

SIGNED = "AWS4-HMAC-SHA256 Credential=test/20261101/eu-west-1/redshift-serverless/aws4_request, Signature=0"
SERVICES = ("redshift-serverless", "redshift-data")
OPERATIONS = [(service, name) for service in SERVICES for name in model(service).operation_names]
# What exists: with such names a request comes further than to "does not exist".
NAMES = ("gold", "gold-wg", "analytics", "admin", "public", "FINISHED", "select 1", ":a", "0", "1", "%")


class NoRoles:
    """PostgreSQL takes everything."""

    def set_administrator(self, user: str, password: str) -> None: ...

    def retire_administrator(self, user: str) -> None: ...

    def set_temporary(self, user: str, password: str, until: datetime) -> None: ...

    def create_database(self, name: str) -> None: ...


def no_session(_login: Any) -> Any:
    """Open no session, as when PostgreSQL is gone."""
    raise OSError("connection refused")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    """Both services, with a namespace and a workgroup."""
    folder = tmp_path_factory.mktemp("fuzz")
    control = Control(folder / STATE_FILE, NoRoles(), None, clock=lambda: datetime(2026, 11, 1, tzinfo=UTC))
    data = DataApi(folder / "data.json", no_session, control.administrator, password="x")
    found = Endpoint([control.service(), data.service()])
    for name, members in (
        ("CreateNamespace", {"namespaceName": "gold", "dbName": "analytics"}),
        ("CreateWorkgroup", {"namespaceName": "gold", "workgroupName": "gold-wg", "baseCapacity": 8}),
    ):
        assert ask(found, "redshift-serverless", name, members)[0] == 200
    return found


def ask(endpoint: Endpoint, service: str, operation: str, members: Any) -> tuple[int, dict[str, Any]]:
    target = f"{model(service).metadata['targetPrefix']}.{operation}"
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": target, "Authorization": SIGNED}
    return endpoint.answer(headers, json.dumps(members).encode())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def member(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return values that are mostly of the shape, sometimes of none."""
    rules = shape.metadata
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "integer": st.integers(-10, 10_000),
        "long": st.integers(-10, 10**12),
        "double": st.floats(allow_nan=False),
        "timestamp": st.integers(0, 2**33),
    }
    if "enum" in rules:
        return st.sampled_from(rules["enum"])
    if shape.type_name == "structure":
        return structure(shape, depth + 1)
    if shape.type_name == "list":
        return st.lists(member(shape.member, depth + 1), max_size=3)
    if shape.type_name == "map":
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
    return kinds.get(shape.type_name, st.sampled_from(NAMES) | st.text(max_size=40))


def structure(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return objects with the required members and any of the others; strange ones now and then."""
    if depth > 3:
        return st.just({})
    values = {name: member(inner, depth) | anything for name, inner in shape.members.items()}
    required = {name: values[name] for name in shape.required_members}
    optional = {name: value for name, value in values.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_no_request_is_a_fault_of_the_server(endpoint: Endpoint, service: str, operation: str, data: Any) -> None:
    described = model(service).operation_model(operation)
    members = data.draw(structure(described.input_shape) | anything)
    # Deleting what the next requests need would make them shallow.
    if operation in ("DeleteWorkgroup", "DeleteNamespace") and isinstance(members, dict):
        members = {name: "other" if value in NAMES else value for name, value in members.items()}
    status, answer = ask(endpoint, service, operation, members)
    body = {"status_code": status, "headers": {}, "body": json.dumps(answer).encode()}
    parsed = create_parser("json").parse(body, described.output_shape)
    assert status in (200, 400), answer
    assert (status == 200) is ("Error" not in parsed), answer
    if status == 200:
        assert set(answer) <= set(described.output_shape.members)
    else:
        assert answer["__type"] in {error.name for error in described.error_shapes} | {
            "ValidationException",
            "SerializationException",
            "NotImplemented",
        }


@given(data=st.binary(max_size=200) | st.text().map(str.encode), target=st.text(max_size=60))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_no_bytes_are_a_fault_of_the_server(endpoint: Endpoint, data: bytes, target: str) -> None:
    for name in (target, "RedshiftData.ExecuteStatement", "RedshiftServerless.CreateNamespace"):
        status, answer = endpoint.answer({"X-Amz-Target": name}, data)
        assert status == 400
        assert answer["__type"]
