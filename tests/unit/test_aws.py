"""Where AWS is, with which keys, and how its errors become ours."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
)

from runtime.aws import Connection, is_loopback, translated
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

REAL_KEY = "AKIAREALREALREALREAL"
REAL_SECRET = "real-secret-that-must-not-leave"
EMULATOR = "http://127.0.0.1:4566"


@pytest.fixture(autouse=True)
def real_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put keys into the environment that look real, and nothing else of AWS."""
    for name in (
        *("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_LAMBDA_FUNCTION_NAME"),
        *("AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS", "AWS_ENDPOINT_URL_REDSHIFT_DATA"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", REAL_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", REAL_SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:4566", "http://localhost", "https://127.8.9.10/x", "http://[::1]:80", "http://LOCALHOST:1"],
)
def test_loopback_addresses_are_loopback(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@evil.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "127.0.0.1:4566",
        "",
    ],
)
def test_other_hosts_are_not_loopback(url: str) -> None:
    assert not is_loopback(url)


def test_real_keys_never_go_to_an_emulator() -> None:
    connection = Connection(EMULATOR)
    credentials = connection.session.get_credentials()
    assert credentials is not None
    assert credentials.access_key == "test"
    assert REAL_KEY not in connection.storage_options().values()
    assert REAL_SECRET not in connection.storage_options().values()


def test_in_a_lambda_function_the_roles_keys_are_used_on_the_emulator_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "goldlake-dbt-runner")
    assert Connection(EMULATOR, region="us-east-1").storage_options()["AWS_ACCESS_KEY_ID"] == REAL_KEY


def test_secrets_are_in_no_repr() -> None:
    connection = Connection(region="eu-west-1")
    connection.storage_options()
    assert REAL_SECRET not in repr(connection)
    assert REAL_SECRET not in repr(connection.client("s3"))
    assert REAL_SECRET not in repr(connection.session)


def test_storage_options_of_an_emulator_allow_plain_http_to_it_alone() -> None:
    options = Connection(EMULATOR, region="us-west-2").storage_options()
    assert options["AWS_ENDPOINT_URL"] == EMULATOR
    assert options["AWS_ALLOW_HTTP"] == "true"
    assert options["AWS_REGION"] == "us-west-2"


def test_storage_options_of_aws_have_no_endpoint_and_carry_the_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    options = Connection(region="eu-west-1").storage_options()
    assert options == {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": REAL_KEY,
        "AWS_SECRET_ACCESS_KEY": REAL_SECRET,
        "AWS_SESSION_TOKEN": "token",
    }


def test_storage_options_never_turn_delta_rs_lock_off() -> None:
    assert "AWS_S3_ALLOW_UNSAFE_RENAME" not in Connection(EMULATOR).storage_options()


def test_missing_credentials_are_a_missing_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDeniedError, match="no AWS credentials"):
        Connection(region="eu-west-1").storage_options()


def test_an_unknown_profile_and_a_missing_region_are_configuration_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'nobody'"):
        _ = Connection(profile="nobody").session
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigurationError, match="region"):
        _ = Connection().session


def test_the_environment_names_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", EMULATOR)
    monkeypatch.setenv("AWS_PROFILE", "")
    assert Connection.from_environment() == Connection(EMULATOR, region="eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    assert Connection.from_environment() == Connection(region="eu-west-1")


def test_s3_on_an_emulator_is_addressed_by_path() -> None:
    client = Connection(EMULATOR).client("s3")
    assert client.generate_presigned_url("get_object", {"Bucket": "lake", "Key": "a"}).startswith(f"{EMULATOR}/lake/a")


CONTROL_PLANE = "http://127.0.0.1:5440"
REDSHIFT = ("redshift-serverless", "redshift-data")


def test_a_service_with_an_endpoint_of_its_own_is_asked_there_and_the_others_are_not() -> None:
    connection = Connection(EMULATOR, service_endpoints=dict.fromkeys(REDSHIFT, CONTROL_PLANE))
    assert [connection.client(service).meta.endpoint_url for service in REDSHIFT] == [CONTROL_PLANE] * 2
    assert connection.client("sts").meta.endpoint_url == EMULATOR
    assert connection.storage_options()["AWS_ENDPOINT_URL"] == EMULATOR


def test_boto3s_variables_of_the_redshift_services_hold_beside_an_endpoint_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS", CONTROL_PLANE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_REDSHIFT_DATA", "http://127.0.0.1:5441")
    for connection in (Connection(EMULATOR), Connection(region="eu-west-1")):
        found = [connection.client(service).meta.endpoint_url for service in REDSHIFT]
        assert found == [CONTROL_PLANE, "http://127.0.0.1:5441"]
    given = Connection(EMULATOR, service_endpoints={"redshift-data": CONTROL_PLANE})
    assert given.client("redshift-data").meta.endpoint_url == CONTROL_PLANE


def test_without_them_the_redshift_services_are_where_all_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_REDSHIFT_DATA", "")
    assert Connection(EMULATOR).client("redshift-data").meta.endpoint_url == EMULATOR
    aws = Connection(region="eu-west-1").client("redshift-data").meta.endpoint_url
    assert aws == "https://redshift-data.eu-west-1.amazonaws.com"


def test_connections_are_compared_by_all_they_say_and_can_be_keys() -> None:
    there = {"redshift-data": CONTROL_PLANE}
    assert Connection(EMULATOR, service_endpoints=there) == Connection(EMULATOR, service_endpoints=dict(there))
    assert Connection(EMULATOR, service_endpoints=there) != Connection(EMULATOR)
    assert len({Connection(EMULATOR, service_endpoints=there), Connection(EMULATOR, service_endpoints=there)}) == 1


@pytest.mark.parametrize(
    ("code", "expected", "exit_code"),
    [
        ("AccessDenied", AccessDeniedError, 2),
        ("AccessDeniedException", AccessDeniedError, 2),
        ("403", AccessDeniedError, 2),
        ("ExpiredToken", AccessDeniedError, 2),
        ("SlowDown", UnreachableError, 2),
        ("ThrottlingException", UnreachableError, 2),
        ("503", UnreachableError, 2),
        ("NoSuchBucket", FailedError, 1),
        ("ValidationException", FailedError, 1),
    ],
)
def test_a_services_error_keeps_its_code_and_gets_its_exit_code(
    code: str, expected: type[GoldlakeError], exit_code: int
) -> None:
    with pytest.raises(GoldlakeError) as caught, translated("read s3://lake/a"):
        raise ClientError({"Error": {"Code": code, "Message": "the reason"}}, "GetObject")
    assert type(caught.value) is expected
    assert caught.value.code == code
    assert caught.value.exit_code == exit_code
    assert caught.value.message == f"read s3://lake/a: the reason ({code})"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url=EMULATOR), UnreachableError),
        (ConnectTimeoutError(endpoint_url=EMULATOR), UnreachableError),
        (NoCredentialsError(), AccessDeniedError),
    ],
)
def test_trouble_on_the_way_is_unreachable(error: BotoCoreError, expected: type[GoldlakeError]) -> None:
    with pytest.raises(GoldlakeError) as caught, translated("read"):
        raise error
    assert type(caught.value) is expected


def test_other_errors_are_not_touched() -> None:
    with pytest.raises(KeyError), translated("read"):
        raise KeyError("a bug")
