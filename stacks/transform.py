"""Unit `transform`: the functions of the pipeline's four steps, with their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components import policies
from components.function import (
    FunctionVpc,
    PythonLayer,
    PythonLayerArgs,
    TaskFunction,
    TaskFunctionArgs,
)
from components.naming import Names
from runtime import settings as env
from runtime.errors import ConfigurationError
from stacks.lake import GOLD_DATABASE
from stacks.outputs import FoundationOutputs, LakeOutputs, SecretsOutputs, TransformOutputs
from stacks.settings import Settings

FUNCTIONS_CODE = "functions"
LAYERS = ("dbt_redshift", "dbt_project", "duckdb", "delta", "trino")

# What each step's function needs on its path. A function and its layers unzip to 250 MiB at most.
STEP_LAYERS: Mapping[str, tuple[str, ...]] = {
    "check": ("dbt_project", "duckdb", "delta"),
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
FUNCTION_NAMES: Mapping[str, str] = {
    "check": "check",
    "build": "dbt-runner",
    "export": "export",
    "register": "register",
}
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
    names = Names(settings.prefix, settings.stack)
    account = aws.get_caller_identity_output().account_id
    wanted = {layer for step in STEP_LAYERS for layer in _layers_of(step, settings)}
    layers = {
        layer: PythonLayer(
            layer.replace("_", "-"),
            PythonLayerArgs(
                layer_name=names.name(layer.replace("_", "-")),
                archive=inputs.artifacts[layer],
                bucket=inputs.lake.bucket_name,
                runtime=settings.lambda_runtime,
                tags=names.tags(layer),
            ),
        )
        for layer in LAYERS
        if layer in wanted
    }
    statements = _statements(settings, inputs, account)
    environment = _environment(settings, inputs)
    functions = {
        step: TaskFunction(
            FUNCTION_NAMES[step],
            TaskFunctionArgs(
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
                tags=names.tags(FUNCTION_NAMES[step]),
                # Only these two talk to the warehouse; the others need Glue, which has no endpoint in the VPC.
                vpc=FunctionVpc(
                    subnet_ids=inputs.foundation.subnet_ids,
                    security_group_id=inputs.foundation.function_security_group_id,
                )
                if step in ("build", "export")
                else None,
            ),
        )
        for step in STEP_LAYERS
    }
    return TransformOutputs(
        warehouse_host=pulumi.Output.from_input(settings.warehouse_host),
        warehouse_port=pulumi.Output.from_input(settings.warehouse_port),
        warehouse_database=pulumi.Output.from_input(settings.warehouse_database),
        check_arn=functions["check"].arn,
        build_arn=functions["build"].arn,
        export_arn=functions["export"].arn,
        register_arn=functions["register"].arn,
    )


def _layers_of(step: str, settings: Settings) -> Sequence[str]:
    """Return the layers of a step; Trino's client only where there is a Trino."""
    return (*STEP_LAYERS[step], "trino") if step == "register" and settings.trino_url else STEP_LAYERS[step]


def _environment(settings: Settings, inputs: Inputs) -> dict[str, dict[str, pulumi.Input[str]]]:
    """Return each step's environment variables; their names are declared in runtime.settings."""
    gold = inputs.lake.bucket_name.apply(lambda bucket: f"s3://{bucket}/gold")
    warehouse: dict[str, pulumi.Input[str]] = {
        env.REDSHIFT_HOST: settings.warehouse_host,
        env.REDSHIFT_PORT: str(settings.warehouse_port),
        env.REDSHIFT_DATABASE: settings.warehouse_database,
        env.REDSHIFT_SECRET: inputs.secrets.warehouse_login_arn,
        env.REDSHIFT_SSL: "true" if settings.require_tls else "false",
    }
    register: dict[str, pulumi.Input[str]] = {
        env.GOLD_LOCATION: gold,
        env.GOLD_DATABASE: inputs.lake.gold_database,
    }
    if settings.trino_url:
        register[env.TRINO_URL] = settings.trino_url
    return {
        "check": {},
        "build": {
            **warehouse,
            env.ARTIFACTS_LOCATION: inputs.lake.bucket_name.apply(lambda bucket: f"s3://{bucket}/artifacts/dbt"),
        },
        "export": {**warehouse, env.GOLD_LOCATION: gold},
        "register": register,
    }


def _statements(
    settings: Settings, inputs: Inputs, account: pulumi.Output[str]
) -> dict[str, pulumi.Output[list[policies.Statement]]]:
    """Return what each step's role may do."""
    known = pulumi.Output.all(account=account, bucket=inputs.lake.bucket_arn, login=inputs.secrets.warehouse_login_arn)

    def check(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.read_catalog(settings.region, found["account"], ["silver_*"]),
            *policies.read_prefix(found["bucket"], "silver"),
        ]

    def build(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.read_secrets([found["login"]]),
            *policies.write_prefix(found["bucket"], "artifacts/dbt"),
        ]

    def export(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.read_secrets([found["login"]]),
            *policies.write_prefix(found["bucket"], "gold", delete=True),
        ]

    def register(found: Mapping[str, str]) -> list[policies.Statement]:
        return [
            policies.write_catalog(settings.region, found["account"], [GOLD_DATABASE]),
            *policies.read_prefix(found["bucket"], "gold"),
        ]

    return {
        "check": known.apply(check),
        "build": known.apply(build),
        "export": known.apply(export),
        "register": known.apply(register),
    }
