"""What drivers do with Redshift, in the clients' environment; each step prints its results as JSON."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import os
import sys
from typing import Any

import psycopg  # type: ignore[import-not-found]
import redshift_connector
import sqlalchemy as sa  # type: ignore[import-not-found]

HOST, PORT = os.environ["REDSHIFT_HOST"], int(os.environ["REDSHIFT_PORT"])
LOGIN = {"user": os.environ["REDSHIFT_USER"], "password": os.environ["REDSHIFT_PASSWORD"]}
DATABASE = os.environ["REDSHIFT_DATABASE"]


def connector() -> dict[str, Any]:
    """redshift_connector's calls, with TLS in its strictest form."""
    answers: dict[str, Any] = {}
    place = {"host": HOST, "port": PORT, "database": DATABASE}
    with contextlib.closing(redshift_connector.connect(**place, **LOGIN, sslmode="verify-full")) as con:
        con.autocommit = True
        cursor = con.cursor()
        cursor.execute("create schema if not exists driven")
        cursor.execute("drop table if exists driven.t")
        cursor.execute("create table driven.t (id int not null primary key, name varchar(20), n numeric(10, 2))")
        con.autocommit = False
        cursor.executemany("insert into driven.t values (%s, %s, %s)", [(1, "a", 1.5), (2, None, decimal.Decimal(2))])
        con.rollback()
        cursor.execute("select count(*) from driven.t")
        answers["rollback"] = cursor.fetchone()[0]
        styles = {
            "format": ("insert into driven.t values (%s, %s, %s)", (1, "x%", 1)),
            "qmark": ("insert into driven.t values (?, ?, ?)", (2, "y?", 2)),
            "numeric": ("insert into driven.t values (:1, :2, :3)", (3, "z", 3)),
            "named": ("insert into driven.t values (:id, :name, :n)", {"id": 4, "name": ":n", "n": 4}),
            "pyformat": ("insert into driven.t values (%(id)s, %(name)s, %(n)s)", {"id": 5, "name": "v", "n": 5}),
        }
        for style, (text, values) in styles.items():
            cursor.paramstyle = style
            cursor.execute(text, values)
        con.commit()
        cursor.paramstyle = "format"
        cursor.insert_data_bulk(
            filename=bulk(), table_name="driven.t", parameter_indices=[0, 1, 2], column_names=["id", "name", "n"],
            delimiter=",", batch_size=2,
        )  # fmt: skip
        con.commit()
        cursor.execute("select id, name, n from driven.t order by id")
        answers["rows"] = [list(row) for row in cursor.fetchall()]
        answers["description"] = [column[0] for column in cursor.description]
        answers["frame"] = [list(cursor.fetch_dataframe().columns) if again(cursor) else [], cursor.rowcount]
        again(cursor)
        answers["numpy"] = cursor.fetch_numpy_array().shape
        answers["types"] = types(cursor)
        answers["schemas"] = "driven" in [row[0] for row in cursor.get_schemas()]
        answers["tables"] = [row[2] for row in cursor.get_tables(schema_pattern="driven", types=["TABLE"])]
        answers["columns"] = [row[3] for row in cursor.get_columns(schema_pattern="driven", tablename_pattern="t")]
        answers["primary_keys"] = [row[3] for row in cursor.get_primary_keys(schema="driven", table="t")]
        answers["catalogs"] = DATABASE in [row[0] for row in cursor.get_catalogs()]
        con.commit()
    iam = redshift_connector.connect(
        iam=True, is_serverless=True, serverless_work_group=os.environ["WORKGROUP"], serverless_acct_id="0" * 12,
        database=DATABASE, region="us-east-1", access_key_id="test", secret_access_key="test",
        endpoint_url=os.environ["AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS"],
    )  # fmt: skip
    with contextlib.closing(iam):
        cursor = iam.cursor()
        cursor.execute("select current_user")
        answers["iam"] = cursor.fetchone()[0]
    return answers


def bulk() -> str:
    """Return the name of a CSV file with two rows."""
    name = os.path.join(os.environ["HOME"], "bulk.csv")  # noqa: PTH118 - the driver takes text
    with open(name, "w") as file:  # noqa: PTH123
        file.write("id,name,n\n6,six,6\n7,seven,7\n")
    return name


def again(cursor: Any) -> bool:
    """Ask for the rows once more."""
    cursor.execute("select id, name from driven.t order by id")
    return True


def types(cursor: Any) -> list[str]:
    """Return the Python types of a row with Redshift's types."""
    cursor.execute(
        "select 1::smallint, 2::int, 3::bigint, 1.5::real, 2.5::float8, 1.10::numeric(5, 2), true, 'a'::char(3),"
        " 'b'::varchar, date '2026-11-01', timestamp '2026-11-01 12:00', timestamptz '2026-11-01 12:00+00',"
        " json_parse('{\"a\": [1, 2]}')"
    )
    return [type(value).__name__ for value in cursor.fetchone()]


def alchemy() -> dict[str, Any]:
    """SQLAlchemy's dialects for Redshift, over both of its drivers."""
    answers: dict[str, Any] = {}
    for driver in ("redshift_connector", "psycopg2"):
        url = sa.URL.create(f"redshift+{driver}", host=HOST, port=PORT, database=DATABASE,
                            username=LOGIN["user"], password=LOGIN["password"])  # fmt: skip
        arguments = {"sslmode": "verify-full"}
        if driver == "psycopg2":
            arguments["sslrootcert"] = os.environ["SSL_CERT_FILE"]
        engine = sa.create_engine(url, connect_args=arguments)
        answers[driver] = filled(engine, f"alchemy_{driver}")
        engine.dispose()
    return answers


def filled(engine: Any, schema: str) -> dict[str, Any]:
    """Make a table with Redshift's attributes and a view, fill and read them."""
    table = sa.Table(
        "facts", sa.MetaData(schema=schema),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(20)), sa.Column("at", sa.DateTime),
        redshift_diststyle="KEY", redshift_distkey="id", redshift_sortkey="at",
    )  # fmt: skip
    with engine.begin() as connection:
        connection.execute(sa.text(f"drop schema if exists {schema} cascade"))
        connection.execute(sa.text(f"create schema {schema}"))
        table.create(connection)
        connection.execute(table.insert(), [{"id": 1, "name": "a", "at": datetime.datetime(2026, 11, 1)}])  # noqa: DTZ001
        names = connection.execute(sa.select(table.c.name).where(table.c.id == 1)).scalars().all()
        connection.execute(sa.text(f"create view {schema}.shown as select id from {schema}.facts"))  # noqa: S608 - ours
        shown = connection.execute(sa.text(f"select id from {schema}.shown")).scalars().all()  # noqa: S608 - ours
    return {"rows": list(names), "shown": list(shown), "schemas": schema in sa.inspect(engine).get_schema_names()}


def libpq() -> dict[str, Any]:
    """psycopg, that is libpq as psql has it, in each of its TLS modes."""
    answers: dict[str, Any] = {}
    place = {"host": HOST, "port": PORT, "dbname": DATABASE, "sslrootcert": os.environ["SSL_CERT_FILE"], **LOGIN}
    for mode in ("disable", "prefer", "require", "verify-ca", "verify-full"):
        try:
            with psycopg.connect(**place, sslmode=mode, client_encoding="utf8") as con:
                answers[mode] = [con.pgconn.ssl_in_use, con.execute("select 'ü' || repeat('x', 100000)").fetchone()]
                answers[mode][1] = len(answers[mode][1][0])
        except psycopg.OperationalError as exc:
            answers[mode] = str(exc)
    return answers


if __name__ == "__main__":
    steps = {"connector": connector, "alchemy": alchemy, "libpq": libpq}
    sys.stdout.write(json.dumps(steps[sys.argv[1]](), default=str))
