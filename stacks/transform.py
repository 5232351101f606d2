"""Unit `transform`: the functions of the pipeline's four steps, with their layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components import policies
from components.bucket import bucket_arn
from components.dbt_runner import DbtRunner, DbtRunnerArgs
from components.function import (
    FunctionVpc,
    PythonLayer,
    PythonLayerArgs,
    TaskFunction,
    TaskFunctionArgs,
)
from components.naming import Names
from components.rotation import RotatedSecret, RotatedSecretArgs, rotate_secret
from runtime import settings as env
from runtime.errors import ConfigurationError
from stacks.names import DBT_LOGIN, FUNCTION_NAMES, GOLD_DATABASE, ROTATIONS, WAREHOUSE_LOGIN
from stacks.outputs import (
    FoundationOutputs,
    LakeOutputs,
    SecretsOutputs,
    TransformOutputs,
    WarehouseOutputs,
    required_login,
)
from stacks.settings import Settings

FUNCTIONS_CODE = "functions"
LAYERS = ("dbt_redshift", "dbt_project", "duckdb", "delta", "trino")

# What each step's function needs on its path. A function and its layers unzip to 250 MiB at most.
STEP_LAYERS: Mapping[str, tuple[str, ...]] = {
    "check": ("dbt_project", "delta"),
    "build": ("dbt_redshift", "dbt_project"),
    "export": ("duckdb", "delta"),
    "register": ("delta",),
}
HANDLERS: Mapping[str, str] = {
    "check": "lambdas.check.handler.handle",
    "build": "lambdas.dbt_runner.handler.handle",
    "export": "lambdas.export.handler.handle",
    "register": "lambdas.register.handler.handle",
}
ROTATION_HANDLER = "lambdas.rotate.handler.handle"
# With the warehouse's driver; dbt's own layer has it.
ROTATION_LAYER = "dbt_redshift"
# The steps that talk to the warehouse, from inside the network.
WAREHOUSE_STEPS = ("build", "export")
DESCRIPTIONS: Mapping[str, str] = {
    "check": "Are the silver tables there, not empty and fresh?",
    "build": "dbt build against the warehouse",
    "export": "Gold tables to Delta Lake",
    "register": "Gold tables into the catalogue",
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    artifacts: Mapping[str, Path]
    foundation: FoundationOutputs
    lake: LakeOutputs
    secrets: SecretsOutputs
    warehouse: WarehouseOutputs | None
    """None for a warehouse that exists already, which the settings name."""


@dataclass(frozen=True, kw_only=True)
class _Warehouse:
    """The warehouse that the functions work on: the one of the unit, or the one that the settings name."""

    host: pulumi.Output[str]
    port: pulumi.Output[int]
    database: pulumi.Output[str]
    login_arn: pulumi.Output[str]
    login_owner: pulumi.Output[str]
    dbt_login_arn: pulumi.Output[str]
    workgroup_name: pulumi.Output[str]
    workgroup_arn: pulumi.Output[str]


def _warehouse(settings: Settings, inputs: Inputs) -> _Warehouse:
    if inputs.warehouse is not None:
        found = {field.name: getattr(inputs.warehouse, field.name) for field in dataclasses.fields(_Warehouse)}
        if settings.dbt_has_login:
            found["dbt_login_arn"] = required_login(inputs.warehouse.dbt_login_arn, "warehouse")
        return _Warehouse(**found)
    return _Warehouse(
        host=pulumi.Output.from_input(settings.warehouse_host),
        port=pulumi.Output.from_input(settings.warehouse_port),
        database=pulumi.Output.from_input(settings.warehouse_database),
        login_arn=inputs.secrets.warehouse_login_arn,
        login_owner=pulumi.Output.from_input("seed"),
        # Its users are not ours to make: dbt and export are whoever is seeded.
        dbt_login_arn=inputs.secrets.warehouse_login_arn,
        # Sign-in by IAM takes a warehouse of the unit: the settings refuse it otherwise.
        workgroup_name=pulumi.Output.from_input(""),
        workgroup_arn=pulumi.Output.from_input(""),
    )


def find_artifacts(settings: Settings) -> dict[str, Path]:
    """Return the built zip of every layer and of the functions' code.

    File names are `<artifact>-<hash>.zip`. Raises ConfigurationError that names every artifact which is missing.
    """
    found: dict[str, Path] = {}
    missing = []
    for name in (*LAYERS, FUNCTIONS_CODE):
        candidates = sorted(settings.artifacts_dir.glob(f"{name}-*.zip"))
        if len(candidates) == 1:
            found[name] = candidates[0]
        else:
            missing.append(f"{name} ({len(candidates)} files)")
    if missing:
        raise ConfigurationError(
            f"artifacts are missing in {settings.artifacts_dir}: {', '.join(missing)}; one zip each is needed. "
            "Run `goldlake layers build`"
        )
    return found


def deploy(settings: Settings, inputs: Inputs) -> TransformOutputs:
    """Register the layers and the four functions, each with the rights of its own step."""
    names = settings.names("transform")
    account = aws.get_caller_identity_output().account_id
    warehouse = _warehouse(settings, inputs)
    layers = _layers(settings, inputs, names)
    statements = _statements(settings, inputs, warehouse, account)
    environment = _environment(settings, inputs, warehouse)

    def args(step: str) -> TaskFunctionArgs:
        return TaskFunctionArgs(
            function_name=names.name(FUNCTION_NAMES[step]),
            description=DESCRIPTIONS[step],
            handler=HANDLERS[step],
            code=inputs.artifacts[FUNCTIONS_CODE],
            layers=[layers[layer].arn for layer in _layers_of(step, settings)],
            statements=statements[step],
            environment=environment[step],
            runtime=settings.lambda_runtime,
            memory_mb=settings.dbt_memory_mb if step == "build" else settings.task_memory_mb,
            timeout_seconds=settings.timeout_seconds,
            log_retention_days=settings.log_retention_days,
            account=account,
            key_arn=inputs.foundation.key_arn if settings.customer_key else None,
            alarm_topic_arn=inputs.foundation.alarm_topic_arn,
            alarms=settings.function_alarms,
            tags=names.tags(FUNCTION_NAMES[step]),
            # Only these two talk to the warehouse; the others need Glue, which has no endpoint in the VPC.
            vpc=FunctionVpc(
                subnet_ids=inputs.foundation.subnet_ids,
                security_group_id=inputs.foundation.function_security_group_id,
            )
            if step in WAREHOUSE_STEPS
            else None,
        )

    tasks = {step: TaskFunction(FUNCTION_NAMES[step], args(step)) for step in HANDLERS if step != "build"}
    runner = DbtRunner(
        FUNCTION_NAMES["build"],
        DbtRunnerArgs(
            **{
                **vars(args("build")),
                "reserved_concurrency": settings.dbt_reserved_concurrency,
                "publish": True,
                "stable_version": settings.dbt_stable_version,
                "canary_percent": settings.canary_percent,
                "tls_only": settings.require_tls,
            }
        ),
    )
    for login in settings.rotated_logins:
        _rotation(login, settings, inputs, warehouse, layers[ROTATION_LAYER])
    return TransformOutputs(
        warehouse_host=warehouse.host,
        warehouse_port=warehouse.port,
        warehouse_database=warehouse.database,
        warehouse_login_arn=warehouse.login_arn,
        warehouse_login_owner=warehouse.login_owner,
        check_arn=tasks["check"].arn,
        build_arn=runner.alias_arn,
        export_arn=tasks["export"].arn,
        register_arn=tasks["register"].arn,
        dead_letter_queue_arn=runner.dead_letter_queue_arn,
    )


def _layers(settings: Settings, inputs: Inputs, names: Names) -> dict[str, PythonLayer]:
    """Register the layers that any step needs."""
    wanted = {layer for step in STEP_LAYERS for layer in _layers_of(step, settings)}
    return {
        layer: PythonLayer(
            layer.replace("_", "-"),
            PythonLayerArgs(
                layer_name=names.name(layer.replace("_", "-")),
                archive=inputs.artifacts[layer],
                bucket=inputs.lake.artifacts_bucket,
                runtime=settings.lambda_runtime,
                tags=names.tags(layer),
            ),
        )
        for layer in LAYERS
        if layer in wanted
    }


def _layers_of(step: str, settings: Settings) -> Sequence[str]:
    """Return the layers of a step; Trino's client only where there is a Trino."""
    return (*STEP_LAYERS[step], "trino") if step == "register" and settings.trino_url else STEP_LAYERS[step]


def _environment(settings: Settings, inputs: Inputs, warehouse: _Warehouse) -> dict[str, dict[str, pulumi.Input[str]]]:
    """Return each step's environment variables; their names are declared in runtime.settings."""
    gold = inputs.lake.gold_bucket.apply(lambda bucket: f"s3://{bucket}/gold")
    sign_in: dict[str, pulumi.Input[str]] = (
        {env.REDSHIFT_WORKGROUP: warehouse.workgroup_name}
        if settings.sign_in == "iam"
        else {env.REDSHIFT_SECRET: warehouse.dbt_login_arn}
    )
    connection = {**_address(settings, warehouse), **sign_in}
    register: dict[str, pulumi.Input[str]] = {
        env.GOLD_LOCATION: gold,
        env.GOLD_DATABASE: inputs.lake.gold_database,
    }
    if settings.trino_url:
        register[env.TRINO_URL] = settings.trino_url
    return {
        "check": {},
        "build": {
            **connection,
            env.ARTIFACTS_LOCATION: inputs.lake.artifacts_bucket.apply(lambda bucket: f"s3://{bucket}/dbt"),
            **({env.DBT_OPERATIONS: ",".join(settings.dbt_operations)} if settings.dbt_operations else {}),
        },
        "export": {**connection, env.GOLD_LOCATION: gold},
        "register": register,
    }


def _address(settings: Settings, warehouse: _Warehouse) -> dict[str, pulumi.Input[str]]:
    """Return the environment variables that say where the warehouse is."""
    return {
        env.REDSHIFT_HOST: warehouse.host,
        # A number that another stack exports comes back as a float.
        env.REDSHIFT_PORT: warehouse.port.apply(lambda port: str(int(port))),
        env.REDSHIFT_DATABASE: warehouse.database,
        env.REDSHIFT_SSL: "true" if settings.require_tls else "false",
    }


def _rotation(login: str, settings: Settings, inputs: Inputs, warehouse: _Warehouse, layer: PythonLayer) -> None:
    """Register the function that rotates a login of the warehouse, and its schedule.

    Each login has a function of its own, whose role may change that entry alone.
    """
    names = settings.names("transform")
    function_name = ROTATIONS[login]
    login_arn = {WAREHOUSE_LOGIN: warehouse.login_arn, DBT_LOGIN: warehouse.dbt_login_arn}[login]
    account = aws.get_caller_identity_output().account_id
    key_arn = inputs.foundation.key_arn if settings.customer_key else None

    def rights(found: Sequence[str]) -> list[policies.Statement]:
        arn, key = found
        return [rotate_secret(arn), *([policies.use_key(key, "secretsmanager")] if key else [])]

    function = TaskFunction(
        function_name,
        TaskFunctionArgs(
            function_name=names.name(function_name),
            description=f"Secrets Manager's rotation of {login}",
            handler=ROTATION_HANDLER,
            code=inputs.artifacts[FUNCTIONS_CODE],
            layers=[layer.arn],
            statements=pulumi.Output.all(login_arn, key_arn or "").apply(rights),
            environment={**_address(settings, warehouse), env.REDSHIFT_SECRET: login_arn},
            runtime=settings.lambda_runtime,
            memory_mb=settings.task_memory_mb,
            timeout_seconds=settings.timeout_seconds,
            log_retention_days=settings.log_retention_days,
            account=account,
            key_arn=key_arn,
            alarm_topic_arn=inputs.foundation.alarm_topic_arn,
            alarms=settings.function_alarms,
            tags=names.tags(function_name),
            vpc=FunctionVpc(
                subnet_ids=inputs.foundation.subnet_ids,
                security_group_id=inputs.foundation.function_security_group_id,
            ),
        ),
    )
    RotatedSecret(
        login,
        RotatedSecretArgs(
            secret_arn=login_arn,
            function_arn=function.arn,
            days=settings.rotate_login_days,
            account=account,
        ),
    )


def _statements(
    settings: Settings, inputs: Inputs, warehouse: _Warehouse, account: pulumi.Output[str]
) -> dict[str, pulumi.Output[list[policies.Statement]]]:
    """Return what each step's role may do."""
    known = pulumi.Output.all(
        account=account,
        silver=inputs.lake.silver_bucket.apply(bucket_arn),
        gold=inputs.lake.gold_bucket.apply(bucket_arn),
        artifacts=inputs.lake.artifacts_bucket.apply(bucket_arn),
        login=warehouse.dbt_login_arn,
        workgroup=warehouse.workgroup_arn,
        key=inputs.foundation.key_arn if settings.customer_key else "",
    )

    def reads(found: Mapping[str, str]) -> list[policies.Statement]:
        return [policies.decrypt_with(found["key"], "s3")] if found["key"] else []

    def writes(found: Mapping[str, str]) -> list[policies.Statement]:
        return [policies.use_key(found["key"], "s3")] if found["key"] else []

    def sign_in(found: Mapping[str, str]) -> list[policies.Statement]:
        if settings.sign_in == "iam":
            return [policies.get_credentials(found["workgroup"])]
        key = [policies.decrypt_with(found["key"], "secretsmanager")] if found["key"] else []
        return [policies.read_secrets([found["login"]]), *key]

    def check(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.read_catalog(settings.region, found["account"], ["silver_*"]),
            *policies.read_prefix(found["silver"], "silver"),
            *reads(found),
        ]

    def build(found: Mapping[str, str]) -> list[policies.Statement]:
        return [*sign_in(found), policies.keep_objects(found["artifacts"], "dbt"), *writes(found)]

    def export(found: Mapping[str, str]) -> list[policies.Statement]:
        return [*sign_in(found), *policies.write_prefix(found["gold"], "gold", delete=True), *writes(found)]

    def register(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.write_catalog(settings.region, found["account"], [GOLD_DATABASE]),
            *policies.read_prefix(found["gold"], "gold"),
            *reads(found),
        ]

    return {
        "check": known.apply(check),
        "build": known.apply(build),
        "export": known.apply(export),
        "register": known.apply(register),
    }
