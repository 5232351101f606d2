"""What awswrangler does with Redshift, in the clients' environment; each step prints its results as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from typing import Any

import awswrangler as wr  # type: ignore[import-not-found]
import boto3
import pandas as pd  # type: ignore[import-untyped]

FRAME = {"id": [1, 2, 3], "name": ["a", None, "ü'x"], "price": [1.5, None, -2.0], "day": ["2026-11-01"] * 3}
ROLE = "arn:aws:iam::000000000000:role/lake"


def frame(**columns: list[Any]) -> pd.DataFrame:
    """Return the frame, with other columns in place of its own."""
    found = pd.DataFrame(FRAME | columns)
    found["day"] = pd.to_datetime(found["day"]).dt.date
    return found


def secret() -> str:
    """Return a secret with the login as awswrangler reads it."""
    login = {
        "engine": "redshift",
        "host": os.environ["REDSHIFT_HOST"],
        "port": os.environ["REDSHIFT_PORT"],
        "dbname": os.environ["REDSHIFT_DATABASE"],
        "username": os.environ["REDSHIFT_USER"],
        "password": os.environ["REDSHIFT_PASSWORD"],
    }
    name = f"wrangler-{uuid.uuid4().hex}"
    boto3.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(login))
    return name


def rows(found: pd.DataFrame) -> list[list[Any]]:
    """Return a frame's rows as JSON has them, in order."""
    ordered = found.sort_values(found.columns[0])
    return [[None if pd.isna(value) else value for value in row] for row in ordered.astype(object).values.tolist()]


def wire() -> dict[str, Any]:
    """Read and write over the wire, with TLS."""
    answers: dict[str, Any] = {}
    with contextlib.closing(wr.redshift.connect(secret_id=secret())) as con:
        one = wr.redshift.read_sql_query("select 1 as one, current_user::varchar as who", con=con)
        answers["connect"] = rows(one)
        to_sql = {"con": con, "schema": "public", "table": "wrangled", "use_column_names": True}
        wr.redshift.to_sql(df=frame(), mode="overwrite", primary_keys=["id"], sortkey=["id"], **to_sql)
        wr.redshift.to_sql(df=frame(id=[4, 5, 6]), mode="append", **to_sql)
        answers["append"] = rows(wr.redshift.read_sql_query("select id, name, price from public.wrangled", con=con))
        changed = frame(id=[1, 7, 8], name=["new", "n", "n"])
        wr.redshift.to_sql(df=changed, mode="upsert", primary_keys=["id"], **to_sql)
        answers["upsert"] = rows(wr.redshift.read_sql_query("select id, name from public.wrangled", con=con))
        wr.redshift.to_sql(df=frame(), mode="overwrite", overwrite_method="truncate", **to_sql)
        whole = wr.redshift.read_sql_table("wrangled", schema="public", con=con)
        answers["overwrite"] = [list(whole.columns), len(whole)]
        pieces = wr.redshift.read_sql_query("select id from public.wrangled order by 1", con=con, chunksize=2)
        answers["chunks"] = [len(piece) for piece in pieces]
        arguments = wr.redshift.read_sql_query("select name from wrangled where id = %s", con=con, params=[3])
        answers["params"] = rows(arguments)
    return answers


def data_api() -> dict[str, Any]:
    """Read by the Data API."""
    con = wr.data_api.redshift.connect(
        workgroup_name=os.environ["WORKGROUP"], database="analytics", secret_arn=secret()
    )
    text = "select 1 as one, 'x' as two, true as three, null as four, 2.5::float8 as five"
    found = wr.data_api.redshift.read_sql_query(text, con=con)
    empty = wr.data_api.redshift.read_sql_query("select 1 as one where false", con=con)
    return {"columns": list(found.columns), "rows": rows(found), "empty": len(empty)}


def lake() -> dict[str, Any]:
    """UNLOAD and COPY through S3."""
    answers: dict[str, Any] = {}
    bucket = f"wrangler-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    role = os.environ.get("ROLE", ROLE)
    with contextlib.closing(wr.redshift.connect(secret_id=secret())) as con:
        path = f"s3://{bucket}/copied/"
        table = {"con": con, "schema": "public", "table": "copied", "iam_role": role}
        wr.redshift.copy(df=frame(), path=path, mode="overwrite", **table)
        answers["copy"] = rows(wr.redshift.read_sql_query("select id, name, price from copied", con=con))
        wr.s3.to_parquet(frame(id=[4, 5, 6]), path=f"s3://{bucket}/files/", dataset=True)
        wr.redshift.copy_from_files(path=f"s3://{bucket}/files/", mode="append", **table)
        answers["copy_from_files"] = rows(wr.redshift.read_sql_query("select count(*) from copied", con=con))
        text = "select id, name, price, day from copied where id < 4 and name <> 'it''s'"
        unloaded = wr.redshift.unload(text, path=f"s3://{bucket}/unloaded/", con=con, iam_role=role)
        answers["unload"] = rows(unloaded[["id", "name", "price"]])
        wr.redshift.unload_to_files("select id, name from copied", path=f"s3://{bucket}/kept/", con=con, iam_role=role)
        answers["unload_to_files"] = len(wr.s3.read_parquet(f"s3://{bucket}/kept/"))
    return answers


if __name__ == "__main__":
    steps = {"wire": wire, "data_api": data_api, "lake": lake}
    sys.stdout.write(json.dumps(steps[sys.argv[1]](), default=str))
