"""External schemas of the local Redshift: the Glue catalogue and the lake of the emulator, as queries see them."""

# ruff: noqa: S608 - the statements are the tests' own
from __future__ import annotations

import contextlib
import json
import signal
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg2  # type: ignore[import-untyped]  # it has no annotations
import pytest
import redshift_connector
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, write_deltalake

from local.process import free_port
from runtime.aws import Connection
from tests.local.redshift_support import PASSWORD, TRUST, LocalRedshift, role

READS = ["glue:GetTable", "glue:GetTables", "glue:GetPartitions", "s3:GetObject", "s3:ListBucket"]
PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}
SYMLINK = PARQUET | {"InputFormat": "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat"}
Words = dict[str, str]


@dataclass(frozen=True)
class Lake:
    """A bucket and a Glue database of the test's own, shown by a schema of the warehouse."""

    redshift: LocalRedshift
    aws: Connection
    name: str = field(default_factory=lambda: f"lake{uuid.uuid4().hex[:10]}")

    def create(self, arn: str, schema: str | None = None) -> None:
        quoted = (
            f"create external schema {schema or self.name} from data catalog database '{self.name}' iam_role '{arn}'"
        )
        self.query(quoted)

    def put_table(
        self, table: str, columns: Words, form: dict[str, Any] | None = None, *, keys: Words | None = None, at: str = ""
    ) -> None:
        """Create the Glue table, or change it."""
        glue = self.aws.client("glue")
        described = {
            "Name": table,
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                "Location": f"s3://{self.name}/{at or table}/",
                "Columns": [{"Name": name, "Type": kind} for name, kind in columns.items()],
                **(form or PARQUET),
            },
            "PartitionKeys": [{"Name": name, "Type": kind} for name, kind in (keys or {}).items()],
        }
        try:
            glue.create_table(DatabaseName=self.name, TableInput=described)
        except glue.exceptions.AlreadyExistsException:
            glue.update_table(DatabaseName=self.name, TableInput=described)

    def put_rows(self, key: str, query: str) -> None:
        """Write the result of a DuckDB query as a Parquet object."""
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            duckdb.sql(f"COPY ({query}) TO '{file.name}' (FORMAT parquet)")
            self.put(key, Path(file.name).read_bytes())

    def put(self, key: str, body: bytes) -> None:
        self.aws.client("s3").put_object(Bucket=self.name, Key=key, Body=body)

    def query(self, statement: str) -> list[list[Any]]:
        return self.redshift.query(statement.replace("LAKE", self.name))


@pytest.fixture
def lake(redshift_on_aws: LocalRedshift, aws: Connection) -> Lake:
    made = Lake(redshift_on_aws, aws)
    aws.client("s3").create_bucket(Bucket=made.name)
    aws.client("glue").create_database(DatabaseInput={"Name": made.name})
    made.create(role(aws, READS))
    return made


def refused(lake: Lake, statement: str) -> str:
    """Return the words with which a statement is refused, detail and all."""
    with pytest.raises(redshift_connector.Error) as caught:
        lake.query(statement)
    return str(caught.value)


def test_a_query_sees_the_lake_as_it_is_now(lake: Lake) -> None:
    lake.put_table("t", {"id": "string", "score": "double"})
    assert lake.query("select * from LAKE.t") == []
    lake.put_rows("t/1.parquet", "select 'a' as id, 0.5 as score")
    with contextlib.closing(lake.redshift.connect()) as connection:
        cursor = connection.cursor()
        statement = f"select id, score from {lake.name}.t order by 1"
        for number, rows in ((2, [["a", 0.5], ["b", None]]), (3, [["a", 0.5], ["b", None], ["b", None]])):
            # The same text, which the driver has prepared: a Bind is enough to see what is new.
            lake.put_rows(f"t/{number}.parquet", "select 'b' as id")
            cursor.execute(statement)
            assert [list(row) for row in cursor.fetchall()] == rows
        lake.aws.client("s3").delete_object(Bucket=lake.name, Key="t/3.parquet")
        cursor.execute(statement)
        assert len(cursor.fetchall()) == 2
    lake.put_table("t", {"id": "string", "model": "string"})
    assert lake.query("select id, model from LAKE.t order by 1") == [["a", None], ["b", None]]
    lake.aws.client("glue").delete_table(DatabaseName=lake.name, Name="t")
    assert "does not exist" in refused(lake, "select * from LAKE.t")


def test_an_unchanged_table_is_not_loaded_again(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.put_rows("t/1.parquet", "select 'a' as id")
    for _ in range(3):
        assert lake.query("select * from LAKE.t") == [["a"]]
    assert lake.redshift.log.count(f"loaded external table {lake.name}.t") == 1


def test_the_catalogue_lists_tables_that_nobody_has_queried(lake: Lake) -> None:
    lake.put_table("t", {"id": "bigint", "tags": "array<string>"}, keys={"day": "date"})
    columns = (
        "select columnname, external_type, columnnum, part_key from svv_external_columns where schemaname = 'LAKE'"
    )
    expected = [["id", "bigint", 1, 0], ["tags", "array<string>", 2, 0], ["day", "date", 3, 1]]
    assert lake.query(f"{columns} order by columnnum") == expected
    assert lake.query("select tablename, location from svv_external_tables where schemaname = 'LAKE'") == [
        ["t", f"s3://{lake.name}/t/"]
    ]
    assert lake.query("select databasename from svv_external_schemas where schemaname = 'LAKE'") == [[lake.name]]


def test_only_partitions_that_glue_knows_are_read_from_their_own_places(lake: Lake) -> None:
    lake.put_table("p", {"id": "bigint"}, keys={"country": "string", "day": "date"})
    lake.put_rows("p/country=AT/day=2024-01-01/1.parquet", "select 1 as id")
    assert lake.query("select * from LAKE.p") == []
    places = [(["AT", "2024-01-01"], "p/country=AT/day=2024-01-01"), (["it's", "2024-01-02"], "elsewhere")]
    for values, place in places:
        storage = {"Location": f"s3://{lake.name}/{place}", "Columns": [{"Name": "id", "Type": "bigint"}], **PARQUET}
        given = {"Values": values, "StorageDescriptor": storage}
        lake.aws.client("glue").create_partition(DatabaseName=lake.name, TableName="p", PartitionInput=given)
    lake.put_rows("elsewhere/1.parquet", "select 2 as id")
    lake.put_rows("p/country=DE/day=2024-01-01/1.parquet", "select 3 as id")
    rows = lake.query("select id, country, day::varchar from LAKE.p order by id")
    assert rows == [[1, "AT", "2024-01-01"], [2, "it's", "2024-01-02"]]


def test_delimited_text_and_json_are_read_as_their_libraries_do(lake: Lake) -> None:
    csv = {"InputFormat": "org.apache.hadoop.mapred.TextInputFormat"}
    library = "org.apache.hadoop.hive.serde2"
    forms = {
        "quoted": (f"{library}.OpenCSVSerde", {"separatorChar": ";", "skip.header.line.count": "1"}),
        "plain": (f"{library}.lazy.LazySimpleSerDe", {"field.delim": "|"}),
        "json": ("org.openx.data.jsonserde.JsonSerDe", {}),
    }
    for name, (serde, parameters) in forms.items():
        lake.put_table(
            name,
            {"id": "int", "t": "string"},
            csv | {"SerdeInfo": {"SerializationLibrary": serde, "Parameters": parameters}},
        )
    lake.put("quoted/1.csv", b'id;t\n1;"a;""b"""\n2;\n')
    lake.put("plain/1.txt", b'1|"x"\n\\N|\\N\nbad|y\n')
    lake.put("json/1.json", b'{"id": 1, "t": "x", "more": {}}\n{"t": null}\n')
    assert lake.query("select id, t from LAKE.quoted order by id") == [[1, 'a;"b"'], [2, None]]
    assert lake.query("select id, t from LAKE.plain order by id, t") == [[1, '"x"'], [None, "y"], [None, None]]
    assert lake.query("select id, t from LAKE.json order by id") == [[1, "x"], [None, None]]


def test_types_zoned_timestamps_and_hidden_objects(lake: Lake) -> None:
    kinds = {"id": "bigint", "pay": "decimal(12,2)", "at": "timestamp", "day": "date", "ok": "boolean"}
    lake.put_table("typed", kinds | {"tags": "array<string>"})
    rows = (
        "select 1 as id, 12.50::decimal(12,2) as pay, make_timestamptz(1700000000000000) as at,"
        " date '2023-11-14' as day, true as ok, ['x'] as tags"
    )
    lake.put_rows("typed/part.parquet", rows)
    lake.put_rows("typed/_hidden/part.parquet", rows)
    lake.put("typed/.hidden", b"x")
    found = lake.query("select id, pay::varchar, at::varchar, day::varchar, ok from LAKE.typed")
    assert found == [[1, "12.50", "2023-11-14 22:13:20", "2023-11-14", True]]


def test_a_delta_table_is_read_through_its_manifest_and_fails_without(lake: Lake) -> None:
    options = lake.aws.storage_options()
    root = f"s3://{lake.name}/delta"
    for number in (1, 2):
        rows = Table({"id": Array([number], DataType.int64())})
        write_deltalake(root, rows, storage_options=options, mode="overwrite")
    lake.put_table("d", {"id": "bigint"}, SYMLINK, at="delta/_symlink_format_manifest")
    assert "Delta Lake manifest" in refused(lake, "select * from LAKE.d")
    DeltaTable(root, storage_options=options).generate()
    assert lake.query("select * from LAKE.d") == [[2]]
    file = DeltaTable(root, storage_options=options).file_uris()[0]
    lake.aws.client("s3").delete_object(Bucket=lake.name, Key=file.removeprefix(f"s3://{lake.name}/"))
    assert "listed in Delta Lake manifest" in refused(lake, "select * from LAKE.d")
    lake.put_table("raw", {"id": "bigint"}, at="delta")
    assert "this is a Delta table" in refused(lake, "select * from LAKE.raw")


def test_without_its_rights_a_role_reads_nothing_not_even_what_was_loaded(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.put_rows("t/1.parquet", "select 'secret' as id")
    assert lake.query("select * from LAKE.t") == [["secret"]]
    words = {"glue:GetTable": "not authorized to perform: glue:GetTable", "s3:GetObject": "AccessDenied"}
    for right, expected in words.items():
        schema = f"{lake.name}_{right[-5:].lower()}"
        lake.create(role(lake.aws, [item for item in READS if item != right]), schema)
        assert expected in refused(lake, f"select * from {schema}.t")
    iam = lake.aws.client("iam")
    arn = lake.query(
        "select json_extract_path_text(esoptions, 'IAM_ROLE') from svv_external_schemas where schemaname = 'LAKE'"
    )
    name = arn[0][0].rpartition("/")[2]
    allowed = {"Effect": "Allow", "Action": [item for item in READS if item != "s3:GetObject"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    assert "AccessDenied" in refused(lake, "select * from LAKE.t")


def test_a_role_that_only_redshift_of_its_account_may_assume_keeps_its_rights(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.put_rows("t/1.parquet", "select 'a' as id")
    for account, words in (("000000000000", ""), ("111111111111", "Not authorized to get credentials")):
        trust = json.loads(json.dumps(TRUST))
        trust["Statement"][0]["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
        for rights in (READS, READS[:3]):
            schema = f"{lake.name}_{uuid.uuid4().hex[:6]}"
            lake.create(role(lake.aws, rights, trust), schema)
            if words or rights != READS:
                assert (words or "AccessDenied") in refused(lake, f"select * from {schema}.t")
            else:
                assert lake.query(f"select * from {schema}.t") == [["a"]]


def test_views_and_procedures_over_external_tables_see_the_lake_too(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.query("create table if not exists copied (id varchar)")
    lake.query("truncate copied")
    lake.query("select * from LAKE.t")
    lake.query("create view inner_LAKE as select id from LAKE.t")
    lake.query("create view outer_LAKE as select id from inner_LAKE")
    body = "begin insert into copied select id from LAKE.t; end"
    lake.query(f"create or replace procedure load_LAKE() as $$ {body} $$ language plpgsql")
    lake.put_rows("t/1.parquet", "select 'a' as id")
    assert lake.query("select * from outer_LAKE") == [["a"]]
    lake.put_rows("t/2.parquet", "select 'b' as id")
    lake.query("call load_LAKE()")
    assert lake.query("select id from copied order by 1") == [["a"], ["b"]]


def test_a_session_that_has_read_the_table_does_not_wait_for_itself(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.put_rows("t/1.parquet", "select 'old' as id")
    with contextlib.closing(lake.redshift.simple()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"select * from {lake.name}.t")
        lake.put_rows("t/1.parquet", "select 'new' as id")
        cursor.execute(f"select * from {lake.name}.t")
        assert cursor.fetchall() == [("new",)]
        lake.put_table("t", {"other": "string"})
        with pytest.raises(psycopg2.Error, match="have changed while a transaction reads it"):
            cursor.execute(f"select * from {lake.name}.t")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("select 1")
    assert lake.query("select other from LAKE.t") == [[None]]


@pytest.mark.parametrize(
    "statement",
    ["insert into LAKE.t values ('x')", "delete from LAKE.t", "drop table if exists LAKE.t", "truncate table LAKE.t"],
)
def test_an_external_table_is_not_written(lake: Lake, statement: str) -> None:
    lake.put_table("t", {"id": "string"})
    lake.query("select * from LAKE.t")
    assert "of an external table" in refused(lake, statement)


def test_broken_and_hostile_tables_harm_no_other(lake: Lake) -> None:
    hostile = 'x"; drop schema gold; --'
    lake.put_table("broken", {"a": "string"})
    lake.put("broken/1.parquet", b"no parquet")
    lake.put_table("nested", {"a": "struct<b:int>"})
    lake.put_table(
        "orc", {"a": "int"}, {"SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.orc.OrcSerde"}}
    )
    lake.put_table("good", {hostile: "string"})
    lake.put_rows("good/1.parquet", """select 'fine' as "x""; drop schema gold; --" """)
    assert "Spectrum Scan Error" in refused(lake, "select * from LAKE.broken")
    assert "not emulated" in refused(lake, "select * from LAKE.nested")
    assert "not emulated" in refused(lake, "select * from LAKE.orc")
    assert lake.query("select * from LAKE.good") == [["fine"]]


def test_who_may_use_the_schema_may_read_its_tables(lake: Lake) -> None:
    lake.put_table("t", {"id": "string"})
    lake.put_rows("t/1.parquet", "select 'a' as id")
    user = f"reader_{lake.name}"
    lake.query(f"create user {user} password 'Reader12345'")
    statement = f"select id from {lake.name}.t"
    with contextlib.closing(lake.redshift.connect(user, "Reader12345")) as connection:
        with pytest.raises(redshift_connector.Error, match="42501"):
            connection.cursor().execute(statement)
        lake.query(f"grant usage on schema LAKE to {user}")
        connection.rollback()
        connection.cursor().execute(statement)


def test_schemas_are_created_and_dropped_as_redshift_does(lake: Lake) -> None:
    arn, glue = role(lake.aws, [*READS, "glue:CreateDatabase", "glue:DeleteDatabase"]), lake.aws.client("glue")
    made = f"from data catalog database '{lake.name}_new' region 'us-east-1' iam_role '{arn}'"
    lake.query(f"create external schema one_LAKE {made} create external database if not exists")
    lake.query(f"create external schema if not exists one_LAKE {made}")
    assert glue.get_database(Name=f"{lake.name}_new")
    assert "already exists" in refused(lake, f"create external schema one_LAKE {made}")
    lake.query(f"create external schema two_LAKE {made}")
    lake.query("drop schema one_LAKE")
    assert lake.query("select schemaname from svv_external_schemas where schemaname like '%e_LAKE'") == []
    lake.query("drop schema two_LAKE drop external database cascade")
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.get_database(Name=f"{lake.name}_new")
    for wrong in (
        "from data catalog database 'd'",
        "from kafka iam_role default",
        "from data catalog iam_role default",
    ):
        refused(lake, f"create external schema wrong_LAKE {wrong}")


def test_duckdb_reads_an_external_table_through_the_wire(lake: Lake) -> None:
    lake.put_table("t", {"id": "bigint"})
    lake.put_rows("t/1.parquet", "select 7::bigint as id")
    import duckdb_extension_postgres_scanner as package

    [extension] = Path(str(package.__file__)).parent.rglob("*.duckdb_extension")
    login = f"host=127.0.0.1 port={lake.redshift.port} user=admin password=''{PASSWORD}'' dbname=analytics"
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute(f"ATTACH '{login}' AS w (TYPE postgres, READ_ONLY)")
        assert connection.execute(f"SELECT id FROM w.{lake.name}.t").fetchall() == [(7,)]


def test_without_the_emulator_a_query_fails_and_data_of_the_warehouse_are_there(
    aws: Connection, tmp_path: Path
) -> None:
    alone = LocalRedshift(tmp_path / "alone", endpoint_url=f"http://127.0.0.1:{free_port()}").start()
    assert "Could not connect" in refused(Lake(alone, aws), "select * from silver_companies.companies")
    assert alone.query("select 1") == [[1]]
    alone.signal(signal.SIGTERM)


def test_a_restart_does_not_load_again_what_has_not_changed(aws: Connection, tmp_path: Path) -> None:
    own = LocalRedshift(tmp_path / "own", endpoint_url=aws.endpoint_url).start()
    made = Lake(own, aws)
    aws.client("s3").create_bucket(Bucket=made.name)
    aws.client("glue").create_database(DatabaseInput={"Name": made.name})
    made.create(role(aws, READS))
    made.put_table("t", {"id": "string"})
    made.put_rows("t/1.parquet", "select 'kept' as id")
    assert made.query("select * from LAKE.t") == [["kept"]]
    own.signal(signal.SIGTERM)
    own.start()
    assert made.query("select * from LAKE.t") == [["kept"]]
    assert own.log.count(f"loaded external table {made.name}.t") == 1
    own.signal(signal.SIGTERM)
