"""Names of the environment variables that functions and containers read. The stacks set them by these names."""

from __future__ import annotations

REDSHIFT_HOST = "REDSHIFT_HOST"
REDSHIFT_PORT = "REDSHIFT_PORT"
REDSHIFT_DATABASE = "REDSHIFT_DATABASE"
# Id of the Secrets Manager entry with `username` and `password`.
REDSHIFT_SECRET = "REDSHIFT_SECRET"  # noqa: S105 - the variable's name
# Name of the workgroup that hands out temporary credentials; instead of a secret, for sign-in by IAM.
REDSHIFT_WORKGROUP = "REDSHIFT_WORKGROUP"
# "false" turns TLS off, for a host on loopback only.
REDSHIFT_SSL = "REDSHIFT_SSL"
# s3:// URL under which each gold table has a folder of its name.
GOLD_LOCATION = "GOLD_LOCATION"
# Glue database that gold tables are registered in.
GOLD_DATABASE = "GOLD_DATABASE"
# s3:// URL under which each dbt run leaves its artifacts.
ARTIFACTS_LOCATION = "ARTIFACTS_LOCATION"
# Names of the macros that dbt's `run-operation` may call, separated by commas; without it, none.
DBT_OPERATIONS = "DBT_OPERATIONS"
# http(s)://user@host:port/catalog
TRINO_URL = "TRINO_URL"
