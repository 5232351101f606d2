"""The settings of a stack: the only reader of `pulumi.Config`.

`load_settings` turns the configuration into one frozen, validated object, or raises one error that lists
every fault with key, value, allowed range and reason.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import pulumi
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from components.function import ALARMS
from components.naming import STANDARD_TAGS, Names
from components.pipeline import DEFAULT_HAND_OVER_RETRIES, MAX_HAND_OVER_RETRIES
from components.redshift import (
    CAPACITIES,
    LARGE_CAPACITIES,
    LARGE_REGIONS,
    LIMITS,
    MAX_CAPACITY,
    PORTS,
    SMALL_CAPACITY,
    SMALL_REGIONS,
)
from runtime.catalogue import load_catalogue
from runtime.errors import ConfigurationError
from stacks.names import DBT_LOGIN, LOGINS, WAREHOUSE_LOGIN

NAMESPACE = "goldlake"
# The stack that the laptop platform deploys; the only one that may go without TLS.
LAPTOP_STACK = "localstack"
UNITS = ("state", "foundation", "lake", "secrets", "warehouse", "transform", "pipeline")
# `state` is deployed once, with a local backend, by `goldlake state bootstrap`.
DEFAULT_UNITS = UNITS[1:]
RUNTIMES = ("python3.11", "python3.12", "python3.13")
# CloudWatch Logs, PutRetentionPolicy, retentionInDays.
RETENTION_DAYS = frozenset(
    {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
)


@dataclass(frozen=True)
class Habit:
    """A figure of the usage profile."""

    guess: float
    """What is taken for it, from half to twice as much, until the stack's file says better."""
    most: float
    meaning: str


# What the resources do not tell, and their price depends on. A small team's figures.
USAGE: Mapping[str, Habit] = {
    "runMinutes": Habit(15, 1440, "minutes that the warehouse works in a run of the pipeline"),
    "runsPerDay": Habit(1, 1440, "runs a day; what scheduleExpression says, where it says it plainly"),
    "queryMinutes": Habit(0, 1440, "minutes a day that the warehouse works for people and dashboards"),
    "functionSeconds": Habit(180, 86400, "seconds that check, export and register take together in a run"),
    "silverGb": Habit(5, 1_000_000, "GB in the silver bucket"),
    "goldGb": Habit(1, 1_000_000, "GB of gold tables in the lake"),
    "warehouseGb": Habit(2, 1_000_000, "GB in the warehouse"),
    "scannedGb": Habit(5, 1_000_000, "GB of silver that the warehouse reads in a run"),
    "logMb": Habit(5, 1_000_000, "MB of logs of a run: functions, pipeline, the warehouse's audit"),
    "flowLogMb": Habit(2, 1_000_000, "MB of flow logs a day"),
}


@dataclass(frozen=True)
class Rule:
    """What a value must fulfil, and the words that say so: range and reason."""

    holds: Callable[[Any], bool]
    allowed: str

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ValueError with the range and the reason."""
        if not self.holds(value):
            raise ValueError(self.allowed)
        return value


def _must(holds: Callable[[Any], bool], allowed: str) -> AfterValidator:
    return AfterValidator(Rule(holds, allowed))


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _between(low: int, high: int) -> Callable[[int], bool]:
    return lambda value: low <= value <= high


def _each_once(holds: Callable[[str], bool]) -> Callable[[Sequence[str]], bool]:
    return lambda values: len(set(values)) == len(values) and all(holds(value) for value in values)


def _pairs(key: str, value: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda given: all(_matches(key)(k) and _matches(value)(v) for k, v in given.items())


def _is_vpc_cidr(value: str) -> bool:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return False
    return network.is_private and 16 <= network.prefixlen <= 22


def _is_exemption(entry: Mapping[str, str]) -> bool:
    if set(entry) != {"rule", "resource", "reason", "until"} or len(entry["reason"].strip()) < 10:
        return False
    try:
        return date.fromisoformat(entry["until"]).isoformat() == entry["until"] and bool(entry["resource"])
    except ValueError:
        return False


# AWS, "Tag naming and usage conventions": letters, digits, spaces and some signs, in all services.
_TAG_TEXT = r"[\w .:/=+@-]"
_TagValue = Annotated[
    str,
    _must(
        _matches(rf"{_TAG_TEXT}{{1,256}}"),
        "1 to 256 letters, digits, spaces or . : / = + - @ _: AWS tags allow no more",
    ),
]
_Memory = Annotated[int, _must(_between(512, 10240), "512 to 10240 MB: dbt and delta-rs need 512, Lambda has 10240")]


def _ids(kind: str) -> AfterValidator:
    return _must(_each_once(_matches(rf"{kind}-[0-9a-f]{{8,17}}")), f"ids such as {kind}-0123456789abcdef0, each once")


class Settings(BaseModel):
    """Everything that a stack can be told. Keys in the stack file are the camelCase of these names."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    stack: Annotated[
        str,
        _must(
            _matches(r"[a-z][a-z0-9-]{0,29}"), "1 to 30 of a-z, 0-9 and dash, a letter first: it is a tag and a name"
        ),
    ]
    region: Annotated[
        str, _must(_matches(r"[a-z]{2}(-[a-z]+)+-\d"), "an AWS region such as us-east-1, set by aws:region")
    ]

    # Names and tags
    prefix: Annotated[
        str,
        _must(
            _matches(r"[a-z][a-z0-9-]{1,19}"),
            "2 to 20 of a-z, 0-9 and dash, a letter first: S3 bucket names allow no more",
        ),
    ] = "goldlake"
    owner: _TagValue
    cost_centre: _TagValue
    environment: Annotated[
        str, _must(_matches(rf"{_TAG_TEXT}{{0,256}}"), "empty for the stack's name, or text that AWS tags allow")
    ] = ""
    tags: Annotated[
        dict[str, str],
        _must(
            lambda v: (
                _pairs(rf"(?!aws:){_TAG_TEXT}{{1,128}}", rf"{_TAG_TEXT}{{0,256}}")(v)
                and not set(v) & set(STANDARD_TAGS)
                and len(v) <= 30
            ),
            f"up to 30 tags that AWS allows, none of {', '.join(STANDARD_TAGS)}",
        ),
    ] = {}

    # What the stack holds
    units: Annotated[
        tuple[str, ...],
        _must(
            lambda v: len(v) > 0 and _each_once(UNITS.__contains__)(v), f"one or more of {', '.join(UNITS)}, each once"
        ),
    ] = DEFAULT_UNITS
    imports: Annotated[
        dict[str, str],
        _must(
            lambda v: (
                set(v) <= set(UNITS) and all(_matches(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,2}")(s) for s in v.values())
            ),
            f"a stack's name (name, project/name or organization/project/name) for any of {', '.join(UNITS)}",
        ),
    ] = {}

    # Keeping data
    protect_data: bool = True
    force_destroy: bool = False
    customer_key: bool = False
    old_version_days: Annotated[int, _must(_between(1, 3650), "1 to 3650 days")] = 30

    # Network
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
    nat_gateways: Literal["none", "single", "per-zone"] = "none"
    flow_logs: bool = True
    endpoint_zones: Annotated[int, _must(_between(1, 6), "1 to 6: each zone of each endpoint costs by the hour")] = 1
    existing_vpc_id: Annotated[
        str, _must(_matches(r"|vpc-[0-9a-f]{8,17}"), "empty, or an id such as vpc-0123456789abcdef0")
    ] = ""
    existing_subnet_ids: Annotated[tuple[str, ...], _ids("subnet")] = ()
    existing_route_table_ids: Annotated[tuple[str, ...], _ids("rtb")] = ()

    # Secrets
    more_secrets: Annotated[
        tuple[str, ...],
        _must(
            lambda v: len(set(v)) == len(v) and set(v) <= load_catalogue().secrets.keys() - {*LOGINS},
            f"names of secrets in the catalogue, each once, {' and '.join(LOGINS)} aside, which a stack has if it "
            "needs them",
        ),
    ] = ()

    # Logs and alarms
    log_retention_days: Annotated[
        int,
        _must(RETENTION_DAYS.__contains__, f"one of {sorted(RETENTION_DAYS)}: CloudWatch Logs has no others"),
    ] = 30
    alarm_emails: Annotated[
        tuple[str, ...], _must(_each_once(_matches(r"[^@\s]+@[^@\s]+\.[^@\s]+")), "mail addresses, each once")
    ] = ()
    function_alarms: Annotated[
        tuple[str, ...],
        _must(_each_once(ALARMS.__contains__), f"any of {', '.join(ALARMS)}, each once: AWS bills each alarm"),
    ] = ALARMS
    dashboard: bool = True

    # Lake
    silver_bucket: Annotated[
        str,
        _must(
            _matches(r"|(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
            "empty, or 3 to 63 of a-z, 0-9, dot and dash: the rule for S3 bucket names",
        ),
    ] = ""
    intelligent_tiering_days: Annotated[
        int,
        _must(_between(0, 3650), "0 for off, or 1 to 3650 days after which S3 moves objects to Intelligent-Tiering"),
    ] = 0
    lake_inventory: bool = False

    # Warehouse
    warehouse_database: Annotated[
        str,
        _must(_matches(r"[a-z_][a-z0-9_]{0,63}"), "1 to 64 of a-z, 0-9 and underscore: Redshift's rule for databases"),
    ] = "analytics"
    base_capacity: Annotated[
        int,
        _must(
            (CAPACITIES | LARGE_CAPACITIES).__contains__,
            "4, 8 to 512 in steps of 8, or 544 to 1024 in steps of 32 RPU: Redshift Serverless has no others",
        ),
    ] = 8
    max_capacity: Annotated[
        int,
        _must(lambda v: v == 0 or v in LIMITS, f"0 for none, 4, or 8 to {MAX_CAPACITY} RPU in steps of 8"),
    ] = 0
    usage_limit_hours: Annotated[int, _must(_between(0, 1_000_000), "0 for none, or 1 to 1000000 RPU-hours")] = 240
    usage_limit_period: Literal["daily", "weekly", "monthly"] = "monthly"
    usage_limit_action: Literal["log", "emit-metric", "deactivate"] = "emit-metric"
    query_seconds: Annotated[
        int, _must(_between(1, 86399), "1 to 86399 seconds, Redshift's range of max_query_execution_time")
    ] = 3600
    snapshot_days: Annotated[
        int, _must(_between(0, 3653), "0 for none, or 1 to 3653 days: Redshift Serverless keeps snapshots no longer")
    ] = 0
    admin_password: Literal["generated", "managed", "none"] = "generated"  # noqa: S105 - a way, not a password
    sign_in: Literal["iam", "password"] = "iam"
    rotate_login_days: Annotated[
        int, _must(_between(0, 1000), "0 for never, or 1 to 1000 days: Secrets Manager's range")
    ] = 0
    external_schemas: Annotated[
        dict[str, str],
        _must(
            _pairs(r"[a-z_][a-z0-9_]{0,126}", r"silver_[a-z0-9_]{1,240}"),
            "schema name -> Glue database, whose name starts with silver_: Spectrum's role may read no others",
        ),
    ] = {
        "silver_linkedin": "silver_linkedin",
        "silver_companies": "silver_companies",
        "silver_ai": "silver_ai_enrichment",
    }
    warehouse_host: Annotated[
        str,
        _must(_matches(r"|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"), "empty, or a host name or IPv4 address"),
    ] = ""
    warehouse_port: Annotated[int, _must(_between(1024, 65535), "1024 to 65535")] = 5439
    require_tls: bool = True

    # Functions
    lambda_runtime: Annotated[str, _must(RUNTIMES.__contains__, f"one of {', '.join(RUNTIMES)}")] = "python3.11"
    dbt_memory_mb: _Memory = 512
    task_memory_mb: _Memory = 1024
    timeout_seconds: Annotated[int, _must(_between(60, 900), "60 to 900 seconds: Lambda's own limit is 900")] = 900
    artifacts_dir: Path = Path(".goldlake/build")
    dbt_reserved_concurrency: Annotated[
        int,
        _must(
            lambda v: v in (-1, 1),
            "1, since dbt must not run twice at once, or -1 for an account that has no concurrency to reserve",
        ),
    ] = 1
    dbt_stable_version: Annotated[
        str, _must(_matches(r"|[1-9][0-9]*"), "empty for the newest, or the number of a published version")
    ] = ""
    canary_percent: Annotated[int, _must(_between(0, 99), "0 to 99 percent")] = 0

    dbt_operations: Annotated[
        tuple[str, ...],
        _must(_each_once(_matches(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")), "names of macros, each once"),
    ] = ()

    # Pipeline
    hand_over_retries: Annotated[
        int,
        _must(
            _between(0, MAX_HAND_OVER_RETRIES),
            f"0 for none, or 1 to {MAX_HAND_OVER_RETRIES}: what takes longer belongs into a container",
        ),
    ] = DEFAULT_HAND_OVER_RETRIES
    schedule_expression: Annotated[
        str,
        _must(_matches(r"(cron|rate|at)\(.+\)"), "cron(...), rate(...) or at(...), as EventBridge Scheduler has them"),
    ] = "cron(0 5 * * ? *)"
    schedule_enabled: bool = True
    trino_url: Annotated[
        str,
        _must(_matches(r"|https?://[^@/\s]+@[^@/\s]+/[A-Za-z0-9_]+"), "empty, or http(s)://user@host:port/catalog"),
    ] = ""

    # State backend
    state_lock_table: bool = True
    state_customer_key: bool = False

    # What `goldlake cost` reckons with
    usage: Annotated[
        dict[str, float],
        _must(
            lambda v: all(name in USAGE and 0 <= figure <= USAGE[name].most for name, figure in v.items()),
            "; ".join(f"{name}, 0 to {habit.most:g}: {habit.meaning}" for name, habit in USAGE.items()),
        ),
    ] = {}

    # What `goldlake policy` lets pass
    policy_exemptions: Annotated[
        tuple[dict[str, str], ...],
        _must(
            lambda v: all(_is_exemption(entry) for entry in v),
            "objects of rule, resource (a name, or a pattern with *), reason (10 characters or more) and until "
            "(YYYY-MM-DD, in quotes), all of them: an exemption says why, and ends",
        ),
    ] = ()

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones to use: the ones given, or a, b and c of the region."""
        return self.availability_zones or tuple(f"{self.region}{letter}" for letter in "abc")

    @property
    def dbt_has_login(self) -> bool:
        """Whether dbt and export have a user and password of their own; in a warehouse that exists, users are yours."""
        return self.sign_in == "password" and not self.warehouse_host

    @property
    def rotated_logins(self) -> tuple[str, ...]:
        """The secrets of the logins that functions of ours rotate; AWS itself rotates a managed password."""
        if not self.rotate_login_days:
            return ()
        admin = () if self.admin_password == "managed" else (WAREHOUSE_LOGIN,)  # noqa: S105 - a way
        return (*admin, DBT_LOGIN) if self.dbt_has_login else admin

    def names(self, unit: str) -> Names:
        """Return the names and tags of a unit's resources."""
        return Names(
            prefix=self.prefix,
            stack=self.stack,
            unit=unit,
            environment=self.environment or self.stack,
            owner=self.owner,
            cost_centre=self.cost_centre,
            more_tags=self.tags,
        )


@dataclass(frozen=True)
class Agreement:
    """What several settings must fulfil together."""

    fields: tuple[str, ...]
    holds: Callable[[Settings], bool]
    reason: str


AGREEMENTS = (
    Agreement(
        ("force_destroy", "protect_data"),
        lambda s: not (s.force_destroy and s.protect_data),
        "deleting data takes both: protectData=false and forceDestroy=true",
    ),
    Agreement(
        ("require_tls",),
        lambda s: s.require_tls or s.stack == LAPTOP_STACK,
        f"only the laptop's stack ({LAPTOP_STACK}), whose emulator listens on loopback, may go without TLS",
    ),
    Agreement(
        ("existing_vpc_id", "existing_subnet_ids", "existing_route_table_ids"),
        lambda s: bool(s.existing_vpc_id) == bool(s.existing_subnet_ids) == bool(s.existing_route_table_ids),
        "an existing network needs its VPC, its subnets and their route tables, or none of the three",
    ),
    Agreement(
        ("existing_subnet_ids",),
        lambda s: len(s.existing_subnet_ids) == 0 or len(s.existing_subnet_ids) >= 3,
        "at least 3 subnets in 3 zones: Redshift Serverless needs them",
    ),
    Agreement(
        ("existing_vpc_id", "nat_gateways"),
        lambda s: not s.existing_vpc_id or s.nat_gateways == "none",
        "an existing VPC has the NAT gateways that it has: natGateways must be none",
    ),
    Agreement(
        ("base_capacity",),
        lambda s: s.base_capacity in CAPACITIES or s.region in LARGE_REGIONS,
        f"more than 512 RPU are there in {', '.join(sorted(LARGE_REGIONS))} only",
    ),
    Agreement(
        ("base_capacity",),
        lambda s: s.base_capacity != SMALL_CAPACITY or s.region in SMALL_REGIONS,
        f"4 RPU are there in {', '.join(sorted(SMALL_REGIONS))} only",
    ),
    Agreement(
        ("max_capacity", "base_capacity"),
        lambda s: s.max_capacity == 0 or s.max_capacity >= s.base_capacity,
        "the largest capacity cannot be below the base capacity",
    ),
    Agreement(
        ("warehouse_host", "units"),
        lambda s: not s.warehouse_host or "warehouse" not in s.units,
        "a warehouse that exists is named instead of the unit warehouse, not beside it",
    ),
    Agreement(
        ("warehouse_host", "sign_in"),
        lambda s: not s.warehouse_host or s.sign_in == "password",
        "sign-in by IAM needs a workgroup's name, which a host does not tell: signIn must be password",
    ),
    Agreement(
        ("admin_password", "sign_in"),
        lambda s: (
            (s.admin_password, s.sign_in) != ("none", "password") or s.stack == LAPTOP_STACK or bool(s.warehouse_host)
        ),
        "without a password of the admin nobody can sign in by it: signIn must be iam",
    ),
    Agreement(
        ("rotate_login_days", "sign_in"),
        lambda s: s.rotate_login_days == 0 or s.sign_in == "password",
        "only functions that sign in by password use the login, and have a way to Secrets Manager: "
        "signIn must be password",
    ),
    Agreement(
        ("rotate_login_days", "admin_password", "warehouse_host"),
        lambda s: s.rotate_login_days == 0 or bool(s.rotated_logins),
        "in a warehouse that exists only the login that you seed can be rotated: adminPassword must not be managed",
    ),
    Agreement(
        ("warehouse_port",),
        lambda s: bool(s.warehouse_host) or s.warehouse_port in PORTS,
        "5431 to 5455 or 8191 to 8215: a workgroup of Redshift Serverless has no others",
    ),
    Agreement(
        ("canary_percent", "dbt_stable_version"),
        lambda s: s.canary_percent == 0 or bool(s.dbt_stable_version),
        "a canary shares calls between the newest version and a stable one: set dbtStableVersion",
    ),
)


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
    """Return validated settings from the texts of a configuration; arrays and objects are JSON, as Pulumi keeps them.

    Raises ConfigurationError that lists every fault.
    """
    structured = {key for name, key in config_keys().items() if _is_structured(name)}
    raw: dict[str, Any] = {"stack": stack, "region": region or ""}
    for key, text in values.items():
        raw[key] = _decode(text) if key in structured else text
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise _refusal(stack, _explain(error) + _disagreements(*_usable(raw, error))) from None
    faults = _disagreements(settings, frozenset())
    if faults:
        raise _refusal(stack, faults)
    return settings


def _is_structured(name: str) -> bool:
    """Return whether a setting is an array or an object."""
    return get_origin(Settings.model_fields[name].annotation) in (tuple, dict)


def _decode(text: str) -> Any:
    """Return the JSON value, or the text itself for pydantic to refuse."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _usable(raw: Mapping[str, Any], error: ValidationError) -> tuple[Settings, frozenset[str]]:
    """Return settings without the faulty values, and the names of the fields that are not as they were meant."""
    faulty = {str(fault["loc"][0]) for fault in error.errors(include_url=False) if fault["loc"]}
    # What has no default stands for itself: nothing is deployed with these settings.
    stand_ins = {"stack": "stack", "region": "us-east-1", "owner": "owner", "costCentre": "none"}
    kept = {key: value for key, value in raw.items() if key not in faulty}
    names = {key: name for name, key in config_keys().items()}
    return Settings.model_validate({**stand_ins, **kept}), frozenset(names.get(key, key) for key in faulty)


def _disagreements(settings: Settings, faulty: frozenset[str]) -> list[str]:
    """Return what valid values break together."""
    lines = []
    for agreement in AGREEMENTS:
        if faulty.isdisjoint(agreement.fields) and not agreement.holds(settings):
            shown = (f"{NAMESPACE}:{to_camel(name)} = {_plain(getattr(settings, name))!r}" for name in agreement.fields)
            lines.append(f"{', '.join(shown)}: {agreement.reason}")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        reason = fault["msg"].removeprefix("Value error, ")
        key = f"{NAMESPACE}:{fault['loc'][0]}"
        if fault["type"] == "missing":
            lines.append(f"{key} is not set: every resource carries it as a tag")
            continue
        if fault["type"] == "extra_forbidden":
            reason = "no such setting; Pulumi.yaml lists them all"
        lines.append(f"{key} = {fault['input']!r}: {reason}")
    return lines


def _refusal(stack: str, lines: Sequence[str]) -> ConfigurationError:
    count = f"{len(lines)} setting{'s' if len(lines) > 1 else ''}"
    return ConfigurationError(
        f"{count} of stack {stack!r} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)
    )
