"""Unit `warehouse`: Redshift Serverless with its limits, its view of silver, and the grants of the functions."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.redshift import BuilderLogin, RedshiftServerless, RedshiftServerlessArgs, UsageLimit
from runtime.catalogue import load_catalogue
from stacks.names import DBT_LOGIN, DBT_USER, FUNCTION_NAMES, GOLD_SCHEMA, NAMESPACE, WORKGROUP, database_user
from stacks.outputs import FoundationOutputs, LakeOutputs, SecretsOutputs, WarehouseOutputs, required_login
from stacks.settings import Settings

# Who puts the admin's password into its secret, by the setting adminPassword.
LOGIN_OWNERS = {"generated": "pulumi", "managed": "aws", "none": "seed"}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    foundation: FoundationOutputs
    lake: LakeOutputs
    secrets: SecretsOutputs


def deploy(settings: Settings, inputs: Inputs) -> WarehouseOutputs:
    """Register namespace, workgroup, limits, Spectrum's role, schemas, users and grants."""
    names = settings.names("warehouse")
    by_iam = settings.sign_in == "iam"
    login_owner = LOGIN_OWNERS[settings.admin_password]
    dbt_login_arn = pulumi.Output.from_input("") if by_iam else required_login(inputs.secrets.dbt_login_arn, "secrets")
    limits = (
        [
            UsageLimit(
                hours=settings.usage_limit_hours,
                period=settings.usage_limit_period,
                action=settings.usage_limit_action,
            )
        ]
        if settings.usage_limit_hours
        else []
    )
    warehouse = RedshiftServerless(
        "warehouse",
        RedshiftServerlessArgs(
            namespace_name=names.name(NAMESPACE),
            workgroup_name=names.name(WORKGROUP),
            database=settings.warehouse_database,
            port=settings.warehouse_port,
            subnet_ids=inputs.foundation.subnet_ids,
            security_group_id=inputs.foundation.warehouse_security_group_id,
            base_capacity=settings.base_capacity,
            max_capacity=settings.max_capacity or None,
            usage_limits=limits,
            query_seconds=settings.query_seconds,
            snapshot_days=settings.snapshot_days,
            admin_password=settings.admin_password,
            login_secret_arn=inputs.secrets.warehouse_login_arn if login_owner == "pulumi" else None,
            require_ssl=settings.require_tls,
            key_arn=inputs.foundation.key_arn if settings.customer_key else None,
            external_schemas=settings.external_schemas,
            silver_bucket_arn=inputs.lake.silver_bucket.apply(lambda found: f"arn:aws:s3:::{found}"),
            gold_schema=GOLD_SCHEMA,
            runner_users=[database_user(names.name(FUNCTION_NAMES["build"]))] if by_iam else [],
            reader_users=[database_user(names.name(FUNCTION_NAMES["export"]))] if by_iam else [],
            builder_login=None if by_iam else _dbt_login(login_owner, dbt_login_arn),
            alarm_topic_arn=inputs.foundation.alarm_topic_arn,
            account=aws.get_caller_identity_output().account_id,
            region=settings.region,
            tags=names.tags("warehouse"),
            protect=settings.protect_data,
        ),
    )
    return WarehouseOutputs(
        host=warehouse.host,
        port=warehouse.port,
        database=pulumi.Output.from_input(settings.warehouse_database),
        namespace_name=warehouse.namespace_name,
        workgroup_name=warehouse.workgroup_name,
        workgroup_arn=warehouse.workgroup_arn,
        # Without a password of its own, the entry's value is seeded: the laptop's warehouse has one.
        login_arn=inputs.secrets.warehouse_login_arn if login_owner == "seed" else warehouse.login_secret_arn,
        login_owner=pulumi.Output.from_input(login_owner),
        dbt_login_arn=dbt_login_arn,
    )


def _dbt_login(login_owner: str, secret_arn: pulumi.Output[str]) -> BuilderLogin:
    """Return the user of dbt and export. Its password is generated, but for the laptop's, which is seeded."""
    if login_owner == "seed":
        return BuilderLogin(user=DBT_USER, password=load_catalogue().local_default(DBT_LOGIN, "password"))
    return BuilderLogin(user=DBT_USER, secret_arn=secret_arn)
