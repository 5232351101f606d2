"""The external schemas that are there from the start: those of Goldlake's silver tables."""

from __future__ import annotations

from local.redshift.server import Postgres, run_sql
from runtime import sql
from runtime.silver import SILVER_TABLES

SCHEMAS = {table.database: table.schema for table in SILVER_TABLES}
"""Glue database -> schema of the warehouse, as the external schemas on AWS have it."""


def ensure_schemas(postgres: Postgres) -> None:
    """Create the external schemas where they are missing, whatever Glue holds.

    They have no role until CREATE EXTERNAL SCHEMA IF NOT EXISTS gives them one: the emulator's administrator reads.
    """
    statements = ["set client_min_messages = warning;"]
    for database, schema in SCHEMAS.items():
        name = sql.identifier(schema)
        values = f"{sql.literal(schema)}, {sql.literal(database)}"
        statements += [
            f"create schema if not exists {name};",
            f"alter default privileges in schema {name} grant select on tables to public;",
            f"insert into goldlake_local.external_schema (schema_name, glue_database) values ({values})"  # noqa: S608
            " on conflict (schema_name) do nothing;",
        ]
    run_sql(postgres, "\n".join(statements))
