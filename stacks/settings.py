"""The settings of a stack: the only reader of `pulumi.Config`.

`load_settings` turns the configuration into one frozen, validated object, or raises one error that lists
every fault with key, value, allowed range and reason.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pulumi
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from runtime.errors import ConfigurationError

NAMESPACE = "goldlake"
UNITS = ("foundation", "lake", "secrets", "transform", "pipeline")
RUNTIMES = ("python3.11", "python3.12", "python3.13")
# CloudWatch Logs, PutRetentionPolicy, retentionInDays.
RETENTION_DAYS = frozenset(
    {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
)


def _must(rule: Callable[[Any], bool], allowed: str) -> AfterValidator:
    """Return a validator that refuses values which break `rule`; `allowed` says what holds and why."""

    def validate(value: Any) -> Any:
        if not rule(value):
            raise ValueError(allowed)
        return value

    return AfterValidator(validate)


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _is_vpc_cidr(value: str) -> bool:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return network.is_private and 16 <= network.prefixlen <= 22


_Memory = Annotated[
    int, _must(lambda v: 512 <= v <= 10240, "512 to 10240 MB: dbt and delta-rs need 512, Lambda has 10240")
]


class Settings(BaseModel):
    """Everything that a stack can be told. Keys in the stack file are the camelCase of these names."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    stack: Annotated[
        str,
        _must(
            _matches(r"[a-z][a-z0-9-]{0,19}"),
            "1 to 20 of a-z, 0-9 and dash, a letter first: it is part of names",
        ),
    ]
    region: Annotated[
        str, _must(_matches(r"[a-z]{2}(-[a-z]+)+-\d"), "an AWS region such as us-east-1, set by aws:region")
    ]
    prefix: Annotated[
        str,
        _must(
            _matches(r"[a-z][a-z0-9-]{1,19}"),
            "2 to 20 of a-z, 0-9 and dash, a letter first: S3 bucket names allow no more",
        ),
    ] = "goldlake"
    units: Annotated[
        tuple[str, ...],
        _must(
            lambda v: len(v) > 0 and len(set(v)) == len(v) and set(v) <= set(UNITS),
            f"one or more of {', '.join(UNITS)}, each once",
        ),
    ] = UNITS
    protect_data: bool = True
    force_destroy: bool = False
    lake_bucket: Annotated[
        str,
        _must(
            _matches(r"|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
            "empty, or 3 to 63 of a-z, 0-9, dot and dash: the rule for S3 bucket names",
        ),
    ] = ""
    vpc_cidr: Annotated[
        str, _must(_is_vpc_cidr, "a private IPv4 range of /16 to /22: three subnets are cut from it")
    ] = "10.42.0.0/16"
    availability_zones: Annotated[
        tuple[str, ...],
        _must(
            lambda v: len(v) == 0 or len(set(v)) == len(v) >= 3,
            "empty, or at least 3 different zones: Redshift Serverless needs subnets in 3",
        ),
    ] = ()
    log_retention_days: Annotated[
        int,
        _must(RETENTION_DAYS.__contains__, f"one of {sorted(RETENTION_DAYS)}: CloudWatch Logs has no others"),
    ] = 30
    lambda_runtime: Annotated[str, _must(RUNTIMES.__contains__, f"one of {', '.join(RUNTIMES)}")] = "python3.11"
    dbt_memory_mb: _Memory = 512
    task_memory_mb: _Memory = 1024
    timeout_seconds: Annotated[int, _must(lambda v: 60 <= v <= 900, "60 to 900 seconds: Lambda's own limit is 900")] = (
        900
    )
    artifacts_dir: Path = Path(".goldlake/build")
    warehouse_host: Annotated[
        str,
        _must(
            _matches(r"|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"),
            "empty, or a host name or IPv4 address",
        ),
    ] = ""
    warehouse_port: Annotated[int, _must(lambda v: 1024 <= v <= 65535, "1024 to 65535")] = 5439
    warehouse_database: Annotated[
        str,
        _must(
            _matches(r"[a-z_][a-z0-9_]{0,63}"),
            "1 to 64 of a-z, 0-9 and underscore: Redshift's rule for databases",
        ),
    ] = "analytics"
    require_tls: bool = True
    schedule_expression: Annotated[
        str,
        _must(
            _matches(r"(cron|rate|at)\(.+\)"),
            "cron(...), rate(...) or at(...), as EventBridge Scheduler has them",
        ),
    ] = "cron(0 5 * * ? *)"
    schedule_enabled: bool = True
    trino_url: Annotated[
        str,
        _must(
            _matches(r"|https?://[^@/\s]+@[^@/\s]+/[A-Za-z0-9_]+"),
            "empty, or http(s)://user@host:port/catalog",
        ),
    ] = ""

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        """Refuse values that are each allowed and together are not."""
        faults = []
        if self.force_destroy and self.protect_data:
            faults.append("forceDestroy=true needs protectData=false: deleting data takes both")
        if "transform" in self.units and not self.warehouse_host:
            faults.append("warehouseHost is empty: the transform unit needs the warehouse's host name")
        if not self.require_tls and self.warehouse_host not in ("127.0.0.1", "localhost"):
            faults.append(
                f"requireTls=false with warehouseHost {self.warehouse_host!r}: only a laptop's emulator and warehouse, "
                "which listen on loopback, may go without TLS"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones to use: the ones given, or a, b and c of the region."""
        return self.availability_zones or tuple(f"{self.region}{letter}" for letter in "abc")


def load_settings() -> Settings:
    """Return the settings of the running stack.

    Raises ConfigurationError that lists every fault: unknown keys, wrong types, values out of range.
    """
    # All keys of the namespace, not only the known ones: a misspelled key must not be ignored.
    everything = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    values = {
        key.removeprefix(f"{NAMESPACE}:"): str(value)
        for key, value in everything.items()
        if key.startswith(f"{NAMESPACE}:")
    }
    return parse_settings(values, stack=pulumi.get_stack(), region=pulumi.Config("aws").get("region"))


def config_keys() -> dict[str, str]:
    """Return the configurable settings: attribute name -> key in the stack file, without the namespace."""
    return {name: to_camel(name) for name in Settings.model_fields if name not in ("stack", "region")}


def parse_settings(values: Mapping[str, str], *, stack: str, region: str | None) -> Settings:
    """Return validated settings from the raw texts of a configuration (arrays are JSON, as Pulumi keeps them).

    Raises ConfigurationError that lists every fault.
    """
    raw: dict[str, Any] = {"stack": stack, "region": region or ""}
    known = set(config_keys().values())
    for key, text in values.items():
        raw[key] = _decode(text) if key in known and key in ("units", "availabilityZones") else text
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, stack)) from None


def _decode(text: str) -> Any:
    """Return the JSON value, or the text itself for pydantic to refuse."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _explain(error: ValidationError, stack: str) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        reason = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            lines.append(reason)
            continue
        key = f"{NAMESPACE}:{fault['loc'][0]}"
        if fault["type"] == "extra_forbidden":
            reason = "no such setting; Pulumi.yaml lists them all"
        lines.append(f"{key} = {fault['input']!r}: {reason}")
    count = f"{len(lines)} setting{'s' if len(lines) > 1 else ''}"
    return f"{count} of stack {stack!r} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)
