"""UNLOAD: the statement's text, the Data API's answers, and manifests turned into files for the commit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from runtime import sql
from runtime.delta.commit import DataFile
from runtime.delta.lake import Lake
from runtime.delta.types import Column
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.export import unload
from runtime.export.engine import Order, TablePlan
from runtime.export.unload import DataApi, Manifest, RedshiftColumn, UnloadEngine
from tests.unit.memory_lake import MemoryLake, memory

DATA = Path(__file__).parent / "data" / "unload"
ROLE = "arn:aws:iam::123456789012:role/goldlake-unload"
EXPORT = "0f0e"
NAMES = st.text(st.characters(exclude_characters="\x00\\", exclude_categories=["Cs"])).filter(
    lambda text: 0 < len(text.encode()) <= sql.MAX_IDENTIFIER_BYTES
)


def plan_of(*columns: Column, table: str = "fact", lake: Lake | None = None, **rest: Any) -> TablePlan:
    return TablePlan(schema="gold", table=table, lake=lake or memory(), export_id=EXPORT, columns=columns, **rest)


ID, NAME = Column("id", "long"), Column("name", "string")
SOURCES = {"id": RedshiftColumn("id", "bigint"), "name": RedshiftColumn("name", "character varying", 200)}


def recorded(name: str) -> Manifest:
    return unload.read_manifest((DATA / f"{name}.json").read_bytes(), name)


def sizes(manifest: Manifest, location: str = "s3://lake/gold/fact/") -> dict[str, int]:
    """What a listing says when it agrees with the manifest."""
    return {entry.url.removeprefix(location): entry.size for entry in manifest.entries}


# --- the statement ---


def test_unload_writes_parquet_with_a_verbose_manifest_below_a_folder_of_its_own() -> None:
    text = unload.unload_statement("SELECT 1", "s3://lake/gold/fact/0f0e/", ROLE, file_bytes=256_000_000)
    assert text == (
        f"UNLOAD ('SELECT 1') TO 's3://lake/gold/fact/0f0e/' IAM_ROLE '{ROLE}'"
        " FORMAT PARQUET MANIFEST VERBOSE MAXFILESIZE 256 MB"
    )


def test_partitions_region_and_key_are_said_when_they_are_needed() -> None:
    text = unload.unload_statement(
        "SELECT 1", "s3://lake/f/", ROLE, partition_by=["day", 'a"b'], region="eu-west-1", kms_key="1234-abcd"
    )
    assert 'PARTITION BY ("day", "a""b")' in text
    assert "REGION 'eu-west-1'" in text
    assert "KMS_KEY_ID '1234-abcd' ENCRYPTED" in text


@pytest.mark.parametrize(("asked", "written"), [(1, 32), (512_000_000, 512), (10**11, 6200)])
def test_file_sizes_stay_within_what_unload_takes(asked: int, written: int) -> None:
    assert f"MAXFILESIZE {written} MB" in unload.unload_statement("SELECT 1", "s3://l/f/", ROLE, file_bytes=asked)


@pytest.mark.parametrize("role", ["", "default", "goldlake-unload", "arn:aws:iam::1:role/x", f"{ROLE}' FORMAT CSV --"])
def test_what_is_no_role_is_refused_with_the_option_that_names_it(role: str) -> None:
    with pytest.raises(ConfigurationError, match="ARN of a role") as caught:
        unload.unload_statement("SELECT 1", "s3://l/f/", role)
    assert "--unload-role" in str(caught.value.hint)


def literals(text: str) -> list[str]:
    """The text literals of a statement as Redshift reads them: a quote inside is doubled, a backslash is none."""
    outside_of_names = re.compile(r"""'((?:[^']|'')*)'|"(?:[^"]|"")*\"""")
    return [found[1].replace("''", "'") for found in outside_of_names.finditer(text) if found[1] is not None]


@given(name=NAMES, partition=NAMES)
def test_any_name_survives_the_text_inside_the_text(name: str, partition: str) -> None:
    plan = plan_of(ID, table="fact", physical={"id": name})
    select = unload.select_statement(plan, SOURCES)
    statement = unload.unload_statement(select, f"s3://lake/{EXPORT}/", ROLE, partition_by=[partition])
    assert literals(statement)[:3] == [select, f"s3://lake/{EXPORT}/", ROLE]
    assert select.startswith(f'SELECT "id" AS {sql.identifier(name)} FROM ')  # noqa: S608 - what is tested


def test_a_backslash_is_refused_since_it_may_be_an_escape() -> None:
    with pytest.raises(ConfigurationError, match="backslash"):
        unload.select_statement(plan_of(ID, physical={"id": "i\\d"}), SOURCES)


def test_rows_are_sorted_by_the_plans_keys() -> None:
    plan = plan_of(ID, NAME, order_by=(Order("name"), Order("id", descending=True)))
    assert unload.select_statement(plan, SOURCES).endswith(' ORDER BY "name", "id" DESC')


# --- types ---


@pytest.mark.parametrize(
    ("source", "delta", "written"),
    [
        (RedshiftColumn("c", "smallint"), "short", '"c"'),
        (RedshiftColumn("c", "integer"), "integer", '"c"'),
        (RedshiftColumn("c", "bigint"), "long", '"c"'),
        (RedshiftColumn("c", "real"), "float", '"c"'),
        (RedshiftColumn("c", "double precision"), "double", '"c"'),
        (RedshiftColumn("c", "numeric", None, 38, 37), "decimal(38,37)", '"c"'),
        (RedshiftColumn("c", "numeric", None, 18, None), "decimal(18,0)", '"c"'),
        (RedshiftColumn("c", "boolean"), "boolean", '"c"'),
        (RedshiftColumn("c", "date"), "date", '"c"'),
        (RedshiftColumn("c", "character varying", 20), "string", '"c"'),
        (RedshiftColumn("c", "character", 4), "string", 'RPAD("c", 4)'),
        (RedshiftColumn("c", "super"), "string", 'JSON_SERIALIZE("c")'),
        (RedshiftColumn("c", "timestamp without time zone"), "timestamp", '"c"'),
        (RedshiftColumn("c", "timestamp with time zone"), "timestamp", "\"c\" AT TIME ZONE 'UTC'"),
    ],
    ids=lambda value: value.type if isinstance(value, RedshiftColumn) else None,
)
def test_each_type_that_unload_writes_has_one_delta_type(source: RedshiftColumn, delta: str, written: str) -> None:
    assert (unload.delta_type(source), unload.expression(source)) == (delta, written)


@pytest.mark.parametrize(
    "kind",
    ["binary varying", "geometry", "geography", "hllsketch", "time without time zone", "time with time zone", "xml",
     "interval day to second", "numeric"],
)  # fmt: skip
def test_a_type_that_unload_cannot_write_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'c' has type {kind}") as caught:
        unload.delta_type(RedshiftColumn("c", kind))
    assert "--engine duckdb" in str(caught.value.hint)


def test_a_column_that_is_gone_or_another_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no column 'id'"):
        unload.select_statement(plan_of(ID), {})
    with pytest.raises(ConfigurationError, match="integer by UNLOAD, and long was planned"):
        unload.select_statement(plan_of(ID), {"id": RedshiftColumn("id", "integer")})


def test_timestamp_ntz_is_refused() -> None:
    source = {"at": RedshiftColumn("at", "timestamp without time zone")}
    with pytest.raises(ConfigurationError, match="timestamp_ntz"):
        unload.select_statement(plan_of(Column("at", "timestamp_ntz")), source)


@pytest.mark.parametrize("kind", ["timestamp without time zone", "double precision", "real"])
def test_partitions_whose_text_is_not_certain_are_refused(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot partition"):
        unload.partition_expression(RedshiftColumn("c", kind))


# --- the manifest ---


def test_a_manifest_becomes_files_with_row_counts_and_empty_files_are_left_out() -> None:
    manifest = recorded("plain")
    files = unload.data_files(plan_of(ID, NAME), manifest, sizes(manifest))
    assert files == (
        DataFile("0f0e/0000_part_00.parquet", 4096, 600, '{"numRecords": 600}'),
        DataFile("0f0e/0001_part_00.parquet", 3072, 400, '{"numRecords": 400}'),
    )


def test_partition_folders_become_values_with_null_and_odd_texts() -> None:
    manifest = recorded("partitioned")
    plan = plan_of(ID, Column("day", "date"), Column("country", "string"), partition_by=("day", "country"))
    files = unload.data_files(plan, manifest, sizes(manifest))
    assert [dict(file.partition_values) for file in files] == [
        {"day": "2026-01-31", "country": "NL"},
        {"day": "2026-01-31", "country": "Côte '"},
        {"day": None, "country": None},
    ]


def test_a_table_without_rows_has_no_files() -> None:
    manifest = recorded("empty")
    assert manifest.rows == 0
    assert unload.data_files(plan_of(ID, NAME), manifest, sizes(manifest)) == ()


def test_the_recorded_types_are_those_of_the_select() -> None:
    kinds = {
        "small": ("short", "smallint"),
        "whole": ("integer", "integer"),
        "id": ("long", "bigint"),
        "price": ("decimal(18,2)", "numeric"),
        "ratio": ("float", "real"),
        "score": ("double", "double precision"),
        "remote": ("boolean", "boolean"),
        "day": ("date", "date"),
        "local": ("timestamp", "timestamp without time zone"),
        "at": ("timestamp", "timestamp with time zone"),
        "code": ("string", "character"),
        "name": ("string", "character varying"),
        "skills": ("string", "super"),
    }
    plan = plan_of(*(Column(name, delta) for name, (delta, _) in kinds.items()), table="typed")
    sources = {name: RedshiftColumn(name, kind, 4, 18, 2) for name, (_, kind) in kinds.items()}
    manifest = recorded("types")
    assert unload.select_statement(plan, sources).count(" AS ") == len(manifest.columns)
    assert len(unload.data_files(plan, manifest, sizes(manifest, "s3://lake/gold/typed/"))) == 1


def test_a_url_encoded_name_is_found_as_s3_has_it() -> None:
    manifest = Manifest((unload.ManifestEntry("s3://lake/gold/fact/0f0e/day%3D2026-01-31/0.parquet", 5, 1),), ("id",))
    plan = plan_of(ID, Column("day", "date"), partition_by=("day",))
    (file,) = unload.data_files(plan, manifest, {"0f0e/day=2026-01-31/0.parquet": 5})
    assert (file.name, file.partition_values) == ("0f0e/day=2026-01-31/0.parquet", {"day": "2026-01-31"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda listed: listed.update({"0f0e/0000_part_00.parquet": 4095}), "says 4096 bytes, and the file has 4095"),
        (lambda listed: listed.pop("0f0e/0001_part_00.parquet"), "is not there"),
        (lambda listed: listed.update({"0f0e/0009_part_00.parquet": 1}), "not in its manifest: 0f0e/0009"),
    ],
    ids=["size", "missing", "extra"],
)
def test_a_listing_that_does_not_agree_is_refused(change: Callable[[dict[str, int]], None], message: str) -> None:
    manifest = recorded("plain")
    listed = sizes(manifest)
    change(listed)
    with pytest.raises(FailedError, match=message):
        unload.data_files(plan_of(ID, NAME), manifest, listed)


def test_files_of_another_place_are_refused() -> None:
    manifest = Manifest((unload.ManifestEntry("s3://lake/gold/other/0f0e/0.parquet", 5, 1),), ("id",))
    with pytest.raises(FailedError, match="not below s3://lake/gold/fact/0f0e/"):
        unload.data_files(plan_of(ID), manifest, {})


def test_names_that_redshift_folded_are_refused() -> None:
    manifest = recorded("plain")
    with pytest.raises(FailedError, match="columns id, name in place of Id, name") as caught:
        unload.data_files(plan_of(Column("Id", "long"), NAME), manifest, sizes(manifest))
    assert "enable_case_sensitive_identifier" in str(caught.value.hint)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"entries": []}', b'{"entries": [{"url": "s3://l/f"}], "schema": {"elements": []}, "meta": {}}'],
)
def test_what_is_no_verbose_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(FailedError, match="s3://l/manifest is not a manifest"):
        unload.read_manifest(content, "s3://l/manifest")


def test_a_manifest_whose_sums_do_not_hold_is_refused() -> None:
    found = json.loads((DATA / "plain.json").read_text())
    found["meta"]["record_count"] = 1001
    with pytest.raises(FailedError, match=r"\(7680, 1000\).*\(7680, 1001\)"):
        unload.read_manifest(json.dumps(found).encode(), "m")


@pytest.mark.parametrize(
    ("kind", "folder", "value"),
    [
        ("long", "-5", "-5"),
        ("decimal(9,2)", "1.50", "1.50"),
        ("boolean", "true", "true"),
        ("date", "2026-01-31", "2026-01-31"),
        ("string", "v1.0-rc_2", "v1.0-rc_2"),
        ("string", "_x5f5f", "__"),
        ("long", "__HIVE_DEFAULT_PARTITION__", None),
    ],
)
def test_a_folder_stands_for_its_value(kind: str, folder: str, value: str | None) -> None:
    assert unload.partition_value(Column("c", kind), folder) == value


@pytest.mark.parametrize(
    ("kind", "folder"), [("long", "1.0"), ("date", "Jan"), ("boolean", "t"), ("string", "_xzz"), ("double", "1")]
)
def test_a_folder_that_is_no_value_of_its_column_is_refused(kind: str, folder: str) -> None:
    with pytest.raises(FailedError, match="partition column 'c'"):
        unload.partition_value(Column("c", kind), folder)


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_back_from_its_folder(text: str) -> None:
    plain = re.fullmatch(unload._PLAIN_TEXT, text) and not text.endswith("\n")
    folder = text if plain else f"_x{text.encode().hex()}"
    assert "/" not in folder
    assert unload.partition_value(Column("c", "string"), folder) == text


@pytest.mark.parametrize("name", ["0f0e/0.parquet", "0f0e/other=1/0.parquet", "0f0e/day=2026-01-31/x=1/0.parquet"])
def test_folders_that_are_not_the_plans_are_refused(name: str) -> None:
    plan = plan_of(ID, Column("day", "date"), partition_by=("day",))
    with pytest.raises(FailedError, match="not in folders of the partition columns day"):
        unload.partition_values(plan, name)


# --- the Data API ---


@dataclass
class Clock:
    """A clock that sleeping moves."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def read(self) -> float:
        return self.now


@dataclass(frozen=True)
class Stub:
    """The Data API with recorded answers, and its clock."""

    api: DataApi
    answers: Stubber
    clock: Clock

    def starts(self, statement: Any = ANY, **login: str) -> None:
        expected = {
            "WorkgroupName": "gold",
            "Database": "analytics",
            "Sql": statement,
            "StatementName": "goldlake-export",
            "ClientToken": ANY,
            **login,
        }
        self.answers.add_response("execute_statement", {"Id": IDENTIFIER}, expected)

    def describes(self, *states: str, **rest: Any) -> None:
        for state in states:
            self.answers.add_response(
                "describe_statement", {"Id": IDENTIFIER, "Status": state, **rest}, {"Id": IDENTIFIER}
            )

    def cancels(self) -> None:
        self.answers.add_response("cancel_statement", {"Status": True}, {"Id": IDENTIFIER})

    def returns(self, *rows: list[dict[str, Any]]) -> None:
        self.answers.add_response("get_statement_result", {"Records": list(rows)}, {"Id": IDENTIFIER})


IDENTIFIER = "d9b6c0c9-0747-4bf4-b142-e8883122f766"


@pytest.fixture
def stub() -> Iterator[Stub]:
    client = boto3.client(
        "redshift-data", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    clock = Clock()
    api = DataApi(client=client, workgroup="gold", database="analytics", sleep=clock.sleep, clock=clock.read)
    with Stubber(client) as answers:
        yield Stub(api, answers, clock)
        answers.assert_no_pending_responses()


def test_a_statement_is_asked_after_less_and_less_often(stub: Stub) -> None:
    stub.starts("SELECT 1")
    stub.describes(*["SUBMITTED", "PICKED", *["STARTED"] * 12, "FINISHED"], ResultRows=7)
    assert stub.api.run("SELECT 1", "t")["ResultRows"] == 7
    assert stub.clock.slept[:2] == [0.25, 0.375]
    assert stub.clock.slept[-1] == unload.LONGEST_POLL_SECONDS


def test_a_login_from_a_secret_is_named(stub: Stub) -> None:
    stub.starts(SecretArn="arn:aws:secretsmanager:us-east-1:123456789012:secret:x")
    stub.describes("FINISHED")
    replace(stub.api, secret_arn="arn:aws:secretsmanager:us-east-1:123456789012:secret:x").run("SELECT 1", "t")


def test_the_same_statement_has_the_same_token_and_another_another(stub: Stub) -> None:
    tokens = []
    stub.api.client.meta.events.register(
        "provide-client-params.redshift-data.ExecuteStatement",
        lambda params, **_: tokens.append(params["ClientToken"]),
    )
    for statement in ("SELECT 1", "SELECT 1", "SELECT 2"):
        stub.starts(statement)
        stub.describes("FINISHED")
        stub.api.run(statement, "f" * 32)
    assert tokens[0] == tokens[1] != tokens[2]
    assert len(tokens[0]) <= 64


def test_a_statement_that_does_not_end_is_cancelled_at_the_deadline(stub: Stub) -> None:
    stub.starts()
    stub.describes("STARTED", "STARTED")
    stub.cancels()
    stub.describes("STARTED", "ABORTED")
    with pytest.raises(FailedError, match=r"has not ended within 0\.5 s") as caught:
        replace(stub.api, deadline_seconds=0.5).run("SELECT 1", "t")
    assert caught.value.code == unload.TIMED_OUT


def test_ctrl_c_cancels_the_statement(stub: Stub) -> None:
    stub.starts()
    stub.describes("STARTED")
    stub.cancels()
    stub.describes("ABORTED")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(stub.api, sleep=interrupt).run("SELECT 1", "t")


def test_too_many_statements_are_waited_for(stub: Stub) -> None:
    stub.answers.add_client_error("execute_statement", "ActiveStatementsExceededException")
    stub.starts()
    stub.describes("FINISHED")
    stub.api.run("SELECT 1", "t")
    assert stub.clock.slept == [0.25]


def test_a_throttled_question_does_not_lose_the_statement(stub: Stub) -> None:
    stub.starts()
    for _ in range(unload.POLLS_LOST):
        stub.answers.add_client_error("describe_statement", "ThrottlingException", http_status_code=400)
    stub.describes("FINISHED")
    stub.api.run("SELECT 1", "t")


def test_a_service_that_stays_away_is_unreachable(stub: Stub) -> None:
    stub.starts()
    for _ in range(unload.POLLS_LOST + 1):
        stub.answers.add_client_error("describe_statement", "InternalServerException", http_status_code=500)
    stub.cancels()
    stub.describes("ABORTED")
    with pytest.raises(UnreachableError):
        stub.api.run("SELECT 1", "t")


def test_a_statement_over_the_services_limit_is_not_sent(stub: Stub) -> None:
    with pytest.raises(ConfigurationError, match=r"100003 bytes.*100000 at most"):
        stub.api.run("SELECT" + " " * 99_997, "t")


@pytest.mark.parametrize(
    ("status", "text", "kind", "code"),
    [
        ("FAILED", "ERROR: permission denied for relation fact", AccessDeniedError, "42501"),
        (
            "FAILED",
            "ERROR: S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid 0,CanRetry 1",
            AccessDeniedError,
            "AccessDenied",
        ),
        (
            "FAILED",
            "ERROR: Not authorized to get credentials of role arn:aws:iam::123456789012:role/goldlake-unload",
            AccessDeniedError,
            "AssumeRole",
        ),
        (
            "FAILED",
            "ERROR: User arn:aws:redshift:us-east-1:1:dbuser:x/y is not authorized to assume IAM Role arn:aws:iam::1:x",
            AccessDeniedError,
            "AssumeRole",
        ),
        ("FAILED", "ERROR: S3ServiceException:Please reduce,Status 503,Error SlowDown", UnreachableError, None),
        ("ABORTED", "", FailedError, "ABORTED"),
        ("FAILED", 'ERROR: relation "gold.fact" does not exist', FailedError, "FAILED"),
    ],
)
def test_a_failed_statement_says_why(
    stub: Stub, status: str, text: str, kind: type[GoldlakeError], code: str | None
) -> None:
    stub.starts()
    stub.describes(status, Error=text)
    with pytest.raises(kind) as caught:
        stub.api.run("SELECT 1", "t")
    assert type(caught.value) is kind
    assert text.removeprefix("ERROR: ")[:30] in caught.value.message
    assert code in (None, caught.value.code)


def test_rows_come_back_as_values(stub: Stub) -> None:
    stub.starts()
    stub.describes("FINISHED")
    stub.returns([{"stringValue": "id"}, {"longValue": 0}, {"isNull": True}, {"booleanValue": False}])
    assert stub.api.rows("SELECT 1", "t") == [("id", 0, None, False)]


def test_a_tables_size_comes_from_redshifts_blocks(stub: Stub) -> None:
    stub.starts()
    stub.describes("FINISHED")
    stub.returns([{"longValue": 3}])
    assert unload.estimated_bytes(stub.api, "gold", ["fact", "dim"], "t") == 3 << 20


def test_tables_that_redshift_does_not_list_have_no_size(stub: Stub) -> None:
    stub.starts()
    stub.describes("FINISHED")
    stub.returns([{"isNull": True}])
    assert unload.estimated_bytes(stub.api, "gold", ["a_view"], "t") is None


def test_a_size_that_may_not_be_read_is_unknown(stub: Stub) -> None:
    stub.starts()
    stub.describes("FAILED", Error="ERROR: permission denied for relation svv_table_info")
    assert unload.estimated_bytes(stub.api, "gold", ["fact"], "t") is None


# --- the engine ---


def describes_columns(stub: Stub) -> None:
    """Let the catalogue have the table's two columns."""
    stub.starts()
    stub.describes("FINISHED")
    none = {"isNull": True}
    stub.returns(
        [{"stringValue": "id"}, {"stringValue": "bigint"}, none, {"longValue": 64}, {"longValue": 0}],
        [{"stringValue": "name"}, {"stringValue": "character varying"}, {"longValue": 200}, none, none],
    )


def lay(lake: MemoryLake, name: str) -> None:
    """Put a recorded manifest, and files of its sizes, into the lake."""
    content = (DATA / f"{name}.json").read_bytes()
    lake.files[f"{EXPORT}/manifest"] = content
    for file, size in sizes(unload.read_manifest(content, name)).items():
        lake.files[file] = b"x" * size


def test_the_engine_gives_the_files_with_rows_and_leaves_nothing_else(stub: Stub) -> None:
    lake = memory()
    describes_columns(stub)
    select = unload.select_statement(plan_of(ID, NAME), SOURCES)
    stub.starts(unload.unload_statement(select, "s3://lake/gold/fact/0f0e/", ROLE))
    stub.describes("FINISHED")
    lay(lake, "plain")
    files = UnloadEngine(api=stub.api, role=ROLE).stage(plan_of(ID, NAME, lake=lake))
    assert [file.rows for file in files] == [600, 400]
    assert sorted(lake.files) == [file.name for file in files]


def test_a_failed_unload_leaves_nothing_behind_but_others_files(stub: Stub) -> None:
    lake = memory()
    lay(lake, "plain")
    lake.files["another/0000_part_00.parquet"] = b""
    describes_columns(stub)
    stub.starts()
    stub.describes("FAILED", Error="ERROR: S3ServiceException:Access Denied,Status 403,Error AccessDenied")
    with pytest.raises(AccessDeniedError):
        UnloadEngine(api=stub.api, role=ROLE).stage(plan_of(ID, NAME, lake=lake))
    assert list(lake.files) == ["another/0000_part_00.parquet"]


def test_a_missing_manifest_is_a_failure_unless_there_were_no_rows(stub: Stub) -> None:
    for rows, expected in ((5, None), (0, ())):
        describes_columns(stub)
        stub.starts()
        stub.describes("FINISHED", ResultRows=rows)
        engine, plan = UnloadEngine(api=stub.api, role=ROLE), plan_of(ID, NAME)
        if expected is not None:
            assert engine.stage(plan) == expected
            continue
        with pytest.raises(FailedError, match="manifest s3://lake/gold/fact/0f0e/manifest is not there"):
            engine.stage(plan)


def test_a_local_target_and_a_table_of_partitions_only_are_refused(stub: Stub, tmp_path: Path) -> None:
    engine = UnloadEngine(api=stub.api, role=ROLE)
    with pytest.raises(ConfigurationError, match="writes to S3 only"):
        engine.stage(plan_of(ID, lake=Lake.at(str(tmp_path), None)))
    with pytest.raises(ConfigurationError, match="all columns are partitions"):
        engine.stage(plan_of(ID, partition_by=("id",)))
