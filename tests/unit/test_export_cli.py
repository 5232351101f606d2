"""`goldlake export` and `goldlake vacuum`: what of the command line becomes which argument, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import runtime.export
from runtime import export_cli
from runtime.aws import Connection
from runtime.cli import app
from runtime.errors import ConfigurationError
from runtime.export import ExportReport, Selection, TableExport, sources
from runtime.export.engine import CTAS, DUCKDB, UNLOAD, UNLOAD_FROM_BYTES, choose_engine
from runtime.export.sources import DuckDBFile, Server, parse_source

Goldlake = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder with one file, no stack deployed, and nothing of AWS in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "gold.duckdb").touch()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Answer every export; return the list of what was asked."""
    calls: list[dict[str, Any]] = []

    def export_tables(source: Any, aws: Any, target: str, **options: Any) -> ExportReport:
        calls.append({"source": source, "aws": aws, "target": target, **options})
        table = TableExport("f", f"{target}/f", 3, False, ("+ name string",), rows=5, notes=("a note",))
        return ExportReport("gold", target, "run-1", False, 1.0, 1, (table,))

    monkeypatch.setattr(runtime.export, "export_tables", export_tables)
    return calls


@pytest.fixture
def goldlake(capsys: pytest.CaptureFixture[str]) -> Goldlake:
    """Return a function that runs a command line."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


SOURCE = ("--source", "duckdb:///gold.duckdb", "--target", "s3://lake/gold")


def test_with_source_and_target_no_stack_is_needed(goldlake: Goldlake, asked: list[dict[str, Any]]) -> None:
    code, out, err = goldlake("export", "f", "dim_*", *SOURCE, "--schema", "marts", "--region", "eu-central-1")
    assert code == 0, err
    (call,) = asked
    assert isinstance(call["source"], DuckDBFile)
    assert (call["target"], call["tables"], call["schema"]) == ("s3://lake/gold", ["f", "dim_*"], "marts")
    assert call["aws"] == Connection(region="eu-central-1")
    assert call["options"].mode is None
    assert "s3://lake/gold/f" in out
    assert "f: a note" in err
    assert "f: schema + name string" in err


def test_aws_is_what_the_environment_says_unless_an_option_does(
    goldlake: Goldlake, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    goldlake("export", *SOURCE, "--region", "us-west-2")
    assert asked[0]["aws"] == Connection("http://127.0.0.1:1", "us-west-2")


def test_every_option_reaches_the_export(goldlake: Goldlake, asked: list[dict[str, Any]]) -> None:
    code, _, err = goldlake(
        "export", *SOURCE, "--mode", "merge", "--unique-key", "id,day", "--partition-by", "a", "--partition-by", "b",
        "--order-by", "x desc, y", "--file-size", "128MB", "--row-group-rows", "10240", "--schema-mode", "merge",
        "--property", "delta.logRetentionDuration=interval 3 days", "--property", "owner=a=b", "--timestamps", "ntz",
        "--column-mapping", "never", "--symlink-manifest", "--if-changed", "--verify-written", "--engine", "duckdb",
        "--select", "tag:x", "--exclude", "dim_*", "--dry-run",
    )  # fmt: skip
    assert code == 0, err
    options = asked[0]["options"]
    assert (options.unique_key, options.partition_by, options.order_by) == (("id", "day"), ("a", "b"), ("x desc", "y"))
    assert options.properties == {"delta.logRetentionDuration": "interval 3 days", "owner": "a=b"}
    assert (options.mode, options.file_size, options.row_group_rows) == ("merge", "128MB", 10240)
    assert (options.schema_mode, options.timestamps, options.column_mapping) == ("merge", "ntz", "never")
    assert (options.symlink_manifest, options.if_changed, options.verify, options.engine) == (
        True,
        True,
        True,
        "duckdb",
    )
    assert asked[0]["selection"] == Selection(("tag:x",), ("dim_*",))
    assert asked[0]["dry_run"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--property", "novalue"), "--property 'novalue': it takes name=value"),
        (("--row-group-rows", "1"), "row groups of 1 rows"),
        (("--unload-role", "arn:aws:iam::123456789012:role/r"), "UNLOAD needs"),
        (("--verify",), "--verify writes nothing"),
        (("--mode", "upsert"), "'upsert'"),
        (("--manifest", "nope.json"), "'nope.json' does not exist"),
    ],
)
def test_wrong_usage_is_64_and_exports_nothing(
    goldlake: Goldlake, asked: list[dict[str, Any]], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = goldlake("export", *SOURCE, *arguments)
    assert (code, out, asked) == (64, "", [])
    assert message in err


def test_vacuum_names_the_tables_that_are_there(goldlake: Goldlake) -> None:
    code, _, err = goldlake("vacuum", "nope", "--target", "lake")
    assert code == 64
    assert "has no Delta table 'nope'; it has none" in err


@pytest.mark.parametrize("command", [export_cli.export, export_cli.vacuum])
def test_help_has_examples(command: click.Command) -> None:
    assert "Examples:" in str(command.help)


# --- sources ---


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "redshift"])
def test_a_password_in_the_url_is_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="list of processes") as raised:
        parse_source(f"{scheme}://user:topsecret@host/db")
    assert "topsecret" not in f"{raised.value!r} {raised.value.hint}"


def test_a_servers_password_comes_from_the_environment_and_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "topsecret")
    source = parse_source("postgresql://us%40er@db.example.com:6543/an%20alytics")
    assert isinstance(source, Server)
    found = source.warehouse
    assert (found.host, found.port, found.database, found.user) == ("db.example.com", 6543, "an alytics", "us@er")
    assert (found.password, found.ssl, source.kind) == ("topsecret", True, "postgres")
    assert "topsecret" not in f"{source!r} {source.label}"


def test_a_servers_login_can_come_from_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "read_login", lambda _aws, secret: ("admin", f"of {secret}"))
    source = parse_source("redshift://host/db", Connection(), secret_id="s-1")
    assert isinstance(source, Server)
    assert (source.kind, source.warehouse.port, source.warehouse.password) == ("redshift", 5439, "of s-1")
    with pytest.raises(ConfigurationError, match="another user"):
        parse_source("redshift://me@host/db", Connection(), secret_id="s-1")


@pytest.mark.parametrize(
    ("url", "ssl"),
    [("//u@127.0.0.1/d", False), ("//u@h/d", True), ("//u@127.0.0.1/d?sslmode=verify-ca", True)],
)
def test_only_loopback_goes_without_tls(url: str, ssl: bool) -> None:
    source = parse_source(f"postgresql:{url}")
    assert isinstance(source, Server)
    assert source.warehouse.ssl is ssl


@pytest.mark.parametrize(
    "url",
    [
        "gold.duckdb", "duckdb://", "duckdb:///", "duckdb:///gold.duckdb?x=1", "mysql://u@h/d", "postgresql://u@h",
        "postgresql://u@h/a/b", "postgresql://h/d", "postgresql://u@h:port/d", "postgresql://u@h/d?sslmode=disable",
        "postgresql://u@h/d?options=x", "duckdb:///.",
    ],
)  # fmt: skip
def test_other_forms_of_sources_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_source(url)


# --- engines ---


@pytest.mark.parametrize(
    ("kind", "target", "size", "engine"),
    [
        ("duckdb", "s3://lake/gold", None, DUCKDB),
        ("postgres", "s3://lake/gold", 10**12, DUCKDB),
        ("redshift", "s3://lake/gold", None, DUCKDB),
        ("redshift", "s3://lake/gold", UNLOAD_FROM_BYTES - 1, DUCKDB),
        ("redshift", "s3://lake/gold", UNLOAD_FROM_BYTES, UNLOAD),
        ("redshift", "/tmp/lake", UNLOAD_FROM_BYTES, DUCKDB),
        ("trino", "s3://lake/gold", None, CTAS),
    ],
)
def test_the_engine_is_chosen_by_source_target_and_size(kind: str, target: str, size: int | None, engine: str) -> None:
    choice = choose_engine(kind, target, size)
    assert choice.engine == engine
    assert choice.reason


@pytest.mark.parametrize(
    ("kind", "target", "override"),
    [
        ("duckdb", "s3://lake/gold", UNLOAD),
        ("trino", "s3://lake/gold", DUCKDB),
        ("redshift", "/tmp/lake", UNLOAD),
        ("trino", "/tmp/lake", None),
    ],
)
def test_an_engine_that_cannot_is_refused(kind: str, target: str, override: str | None) -> None:
    with pytest.raises(ConfigurationError):
        choose_engine(kind, target, None, override)
