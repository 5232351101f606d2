"""What more than one unit calls by its name: functions, secrets, databases.

A name says where something is without an arrow between units; what exists is passed as outputs only.
"""

from __future__ import annotations

from collections.abc import Mapping

SILVER_DATABASES = ("silver_linkedin", "silver_companies", "silver_ai_enrichment")
GOLD_DATABASE = "gold"
GOLD_SCHEMA = "gold"

WAREHOUSE_LOGIN = "redshift-admin"
# The login of dbt and export, where functions sign in by password, and its user in the warehouse.
DBT_LOGIN = "redshift-dbt"
DBT_USER = "goldlake_dbt"
LOGINS = (WAREHOUSE_LOGIN, DBT_LOGIN)

# The pipeline's steps, and the function of each.
FUNCTION_NAMES: Mapping[str, str] = {
    "check": "check",
    "build": "dbt-runner",
    "export": "export",
    "register": "register",
}
# The functions that Secrets Manager calls, one for each login; they are no steps.
ROTATIONS: Mapping[str, str] = {WAREHOUSE_LOGIN: "rotate", DBT_LOGIN: "rotate-dbt"}
PIPELINE = "pipeline"
NAMESPACE = "gold"
WORKGROUP = "gold-workgroup"


def database_user(role_name: str) -> str:
    """Return the database user of a role that signs in by IAM (Redshift Serverless, GetCredentials)."""
    return f"IAMR:{role_name}"
