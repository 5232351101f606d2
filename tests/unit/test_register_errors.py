"""URLs, options and errors of Trino servers."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import register_cli
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.trino import TrinoOptions, TrinoServer, query_error

URL = "https://etl:se%40cret@trino.example.org:8443/delta"


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRINO_JWT", "TRINO_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HIVE_METASTORE_ERROR", UnreachableError),
        ("SERVER_STARTING_UP", UnreachableError),
        ("EXCEEDED_TIME_LIMIT", UnreachableError),
        ("PERMISSION_DENIED", AccessDeniedError),
        ("CATALOG_NOT_FOUND", ConfigurationError),
        ("PROCEDURE_NOT_FOUND", ConfigurationError),
        ("ALREADY_EXISTS", FailedError),
        ("TABLE_NOT_FOUND", FailedError),
        ("DELTA_LAKE_FILESYSTEM_ERROR", FailedError),
    ],
)
def test_errors_are_told_apart_by_their_names(name: str, kind: type[GoldlakeError]) -> None:
    # A text that says something else: only the name counts.
    error = query_error("Trino", name, "Failed connecting to Hive metastore: table already exists")
    assert type(error) is kind
    assert error.code == name


def test_of_two_things_with_one_name_the_text_tells_which() -> None:
    error = query_error("Trino", "PERMISSION_DENIED", "register_table procedure is disabled")
    assert isinstance(error, ConfigurationError)
    assert error.code == "PROCEDURE_DISABLED"


def test_a_url_names_server_login_and_catalogue() -> None:
    server = TrinoServer.at(URL)
    assert (server.scheme, server.host, server.port, server.catalog) == ("https", "trino.example.org", 8443, "delta")
    assert (server.user, server.password) == ("etl", "se@cret")
    assert TrinoServer.at("http://127.0.0.1:8080/delta").user == "goldlake"


@pytest.mark.parametrize(
    "url",
    [
        "trino://127.0.0.1/delta",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/delta/gold",
        "http://127.0.0.1:port/delta",
        "http://admin:hidden@127.0.0.1:8080/delta",
    ],
)
def test_an_unusable_url_is_a_usage_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TrinoServer.at(url)
    assert "hidden" not in raised.value.message


def test_neither_password_nor_token_is_in_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "se@cret" not in repr(TrinoServer.at(URL))
    monkeypatch.setenv("TRINO_JWT", "eyJhidden")
    assert "eyJhidden" not in repr(TrinoServer.at("https://trino.example.org/delta"))


def test_a_token_comes_from_the_environment_goes_over_https_only_and_with_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRINO_JWT", "eyJhidden\n")
    assert TrinoServer.at("https://trino.example.org/delta").options.token == "eyJhidden"
    for url in ("http://trino.example.org/delta", URL):
        with pytest.raises(ConfigurationError) as raised:
            TrinoServer.at(url)
        assert "hidden" not in raised.value.message


@pytest.mark.parametrize("options", [{"timeout": -1}, {"ca_file": "/nowhere.pem"}, {"client_tags": ("a,b",)}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TrinoOptions(**options)


def test_the_authorities_are_those_of_the_file_whatever_requests_own_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import requests

    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().cafile or sys.executable)
    sent: list[Any] = []

    def send(_self: Any, _request: Any, **options: Any) -> requests.Response:
        sent.append(options["verify"])
        answer = requests.Response()
        answer.status_code = 401
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    for options, verify in (
        (TrinoOptions(ca_file=str(authorities)), str(authorities)),
        (TrinoOptions(verify=False), False),
    ):
        with pytest.raises(AccessDeniedError, match="refuses the login"):
            TrinoServer.at(URL, options).run("SELECT 1")
        assert sent.pop() == verify


def test_the_catalogue_for_iceberg_may_be_named_by_its_name() -> None:
    assert register_cli._iceberg_url("http://me@trino:8080/delta", "iceberg") == "http://me@trino:8080/iceberg"
    assert register_cli._iceberg_url(None, "http://me@trino/ice") == "http://me@trino/ice"
    with pytest.raises(ConfigurationError, match="no --trino-url"):
        register_cli._iceberg_url(None, "iceberg")
