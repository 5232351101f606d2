"""The gold warehouse: a Redshift Serverless namespace and workgroup, who may use it, and what it may read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import pulumi
import pulumi_aws as aws
import pulumi_random

from components import warehouse_sql as sql
from components.observability import alarm
from components.policies import Document, Statement, allow, decrypt_with, document, read_prefix, schedule_group
from components.role import ServiceRoleArgs, service_role
from runtime.errors import ConfigurationError

Period = Literal["daily", "weekly", "monthly"]
Action = Literal["log", "emit-metric", "deactivate"]
AdminPassword = Literal["generated", "managed", "none"]
GENERATED: AdminPassword = "generated"
MANAGED: AdminPassword = "managed"
NONE: AdminPassword = "none"

# Redshift management guide, "Compute capacity for Amazon Redshift Serverless" (2026): 4, or 8 to 512 in steps of 8; in
# five regions up to 1024 in steps of 32.
CAPACITIES = frozenset({4, *range(8, 513, 8)})
LARGE_CAPACITIES = frozenset(range(544, 1025, 32))
# "Setting usage limits": the maximum, in the same steps of 8.
MAX_CAPACITY = 5632
LIMITS = frozenset({4, *range(8, MAX_CAPACITY + 1, 8)})
LARGE_REGIONS = frozenset({"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1"})
# The same page, "Redshift Serverless with 4 Redshift Processing Units (RPUs) capacity".
SMALL_CAPACITY = 4
SMALL_REGIONS = frozenset(
    {
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "ap-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-northeast-1",
        "eu-west-1",
        "eu-north-1",
    }
)
# Redshift Serverless API, CreateWorkgroup, port.
PORTS = (*range(5431, 5456), *range(8191, 8216))
# Redshift management guide, "Setting usage limits": one, and up to 3 more.
MAX_USAGE_LIMITS = 4
MIN_SUBNETS = 3
# Staging label of the login's version that Pulumi put.
OWN_VERSION = "PULUMI"
LOG_EXPORTS = ("userlog", "connectionlog", "useractivitylog")
# What Spectrum needs of the Glue catalogue to read tables, and no more.
GLUE_READS = (
    "glue:GetDatabase",
    "glue:GetDatabases",
    "glue:GetTable",
    "glue:GetTables",
    "glue:GetPartition",
    "glue:GetPartitions",
)
# Management guide, "Granting permissions to Amazon Redshift Serverless": the role must trust both.
PRINCIPALS = ("redshift-serverless.amazonaws.com", "redshift.amazonaws.com")

_NAME = re.compile(r"[a-z0-9-]{3,64}")
_DATABASE = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_ADMIN = re.compile(r"[a-z][a-z0-9_+.@-]{0,127}")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,126}")
_IAM_USER = re.compile(r"IAMR?:[A-Za-z0-9_+=,.@-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class UsageLimit:
    """RPU-hours in a period, and what happens when they are used up. A weekly period begins on Sunday."""

    hours: int
    period: Period = "monthly"
    action: Action = "emit-metric"
    """log: a row in SYS_QUERY_HISTORY. emit-metric: an alarm. deactivate: an alarm, and no query runs any more."""


@dataclass(frozen=True, kw_only=True)
class BuilderLogin:
    """A database user that builds and reads gold, and signs in by a password."""

    user: str
    secret_arn: pulumi.Input[str] | None = None
    """The Secrets Manager entry that a generated password is put into, as JSON with `username` and `password`."""
    password: pulumi.Input[str] | None = field(default=None, repr=False)
    """The password to begin with, which somebody else puts into an entry; without it, one is generated."""


@dataclass(frozen=True, kw_only=True)
class RedshiftServerlessArgs:
    """What a warehouse can be told."""

    namespace_name: str
    workgroup_name: str
    database: str
    region: str
    account: pulumi.Input[str]
    subnet_ids: pulumi.Input[Sequence[str]]
    """At least 3, in 3 zones, with about 37 free addresses each."""
    security_group_id: pulumi.Input[str]
    silver_bucket_arn: pulumi.Input[str]
    """The bucket that the external tables lie in."""
    tags: dict[str, str]
    protect: bool
    """Whether Pulumi refuses to delete the namespace, which holds the data. A workgroup holds none."""
    base_capacity: int = 8
    """RPUs that queries start with."""
    max_capacity: int | None = None
    """RPUs that the workgroup may grow to; None sets no limit."""
    usage_limits: Sequence[UsageLimit] = ()
    alarm_topic_arn: pulumi.Input[str] | None = None
    """Who is told of a usage limit that is used up; without a topic nobody is."""
    query_seconds: int = 3600
    """A query that runs longer is stopped."""
    require_ssl: bool = True
    port: int = 5439
    admin_user: str = "admin"
    admin_password: AdminPassword = GENERATED
    """generated: by Pulumi, kept as a secret in its state and in the entry `login_secret_arn`. managed: by AWS, which
    rotates it in an entry of its own. none: no administrator but the IAM identity that creates the namespace.

    The provider cannot go from one to another: it sends the parts of both (terraform-provider-aws#39250, #39265). For
    that, change the namespace in the console first, and refresh.
    """
    login_secret_arn: pulumi.Input[str] | None = None
    """The Secrets Manager entry that a generated password is put into, as JSON with `username` and `password`."""
    key_arn: pulumi.Input[str] | None = None
    """The KMS key of the data, of a managed password and of silver; AWS's own key without one."""
    log_exports: Sequence[str] = LOG_EXPORTS
    """Audit logs that go to CloudWatch, below /aws/redshift/<namespace>/."""
    snapshot_days: int = 0
    """Days that a daily snapshot is kept; 0 takes none. AWS's own recovery points reach back 24 hours."""
    spectrum_databases: Sequence[str] = ("silver_*",)
    """Names, or patterns with `*`, of the Glue databases that external schemas may show."""
    external_schemas: Mapping[str, str] = field(default_factory=dict)
    """Schema -> Glue database."""
    gold_schema: str = "gold"
    runner_users: Sequence[str] = ()
    """Database users that build gold, e.g. `IAMR:goldlake-dbt-runner` for the role of that name."""
    reader_users: Sequence[str] = ()
    """Database users that read gold."""
    builder_login: BuilderLogin | None = None
    """A user of its own for what builds gold and cannot sign in by IAM. The administrator's login is not for that."""


def spectrum_statements(
    region: str,
    account: str,
    silver_bucket_arn: str,
    databases: Sequence[str],
    key_arn: str | None = None,
) -> list[Statement]:
    """Return what the warehouse may do outside itself: read these Glue databases, and what lies under silver/.

    Source: Redshift database developer guide, "IAM policies for Amazon Redshift Spectrum", "Minimum permissions".
    """
    root = f"arn:aws:glue:{region}:{account}"
    tables = [f"{root}:{kind}" for name in databases for kind in (f"database/{name}", f"table/{name}/*")]
    statements = [
        allow(GLUE_READS, [f"{root}:catalog", *tables]),
        *read_prefix(silver_bucket_arn, "silver"),
    ]
    return [*statements, decrypt_with(key_arn, "s3")] if key_arn else statements


def spectrum_trust(account: str) -> Document:
    """Return the trust policy of the Spectrum role: Redshift, acting for this account only."""
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": list(PRINCIPALS)},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": account}},
        }
    )


def config_parameters(*, require_ssl: bool, query_seconds: int) -> dict[str, str]:
    """Return all parameters of the workgroup that the API reports, ours and the defaults.

    The provider owns the list as a whole: it would remove, with each deployment and in vain, whatever AWS
    reports and the list lacks (terraform-provider-aws#33692). `max_query_execution_time` can be changed but never
    removed (#36237), so it is always there. Newer keys that this provider's version refuses are not listed (#49939).
    """
    return {
        "auto_mv": "true",
        "datestyle": "ISO, MDY",
        "enable_case_sensitive_identifier": "true",
        "enable_user_activity_logging": "true",
        "max_query_execution_time": str(query_seconds),
        "query_group": "default",
        "require_ssl": "true" if require_ssl else "false",
        "search_path": "$user, public",
        "use_fips_ssl": "false",
    }


def check_subnets(subnet_ids: Sequence[str]) -> list[str]:
    """Return the subnets. Raises ConfigurationError for fewer than 3 different ones.

    AWS would find out after minutes of creation (terraform-provider-aws#28977).
    """
    faults = _subnet_faults(subnet_ids)
    if faults:
        raise ConfigurationError(faults[0])
    return list(subnet_ids)


def check(args: RedshiftServerlessArgs) -> None:
    """Raise one ConfigurationError that lists every fault: value, allowed range and reason."""
    faults = [
        *_name_faults(args),
        *_subnet_faults(args.subnet_ids),
        *_capacity_faults(args),
        *_limit_faults(args.usage_limits),
        *_password_faults(args),
        *_content_faults(args),
    ]
    if faults:
        raise ConfigurationError("; ".join(faults))


def _subnet_faults(subnet_ids: object) -> list[str]:
    """Return what is wrong with subnets that are known already."""
    if not isinstance(subnet_ids, list | tuple) or not all(isinstance(each, str) for each in subnet_ids):
        return []
    if len(set(subnet_ids)) >= MIN_SUBNETS:
        return []
    return [
        f"subnets {', '.join(subnet_ids) or 'none'}: at least {MIN_SUBNETS} different ones are needed, in 3 zones, "
        "since Redshift Serverless runs in 3"
    ]


def _name_faults(args: RedshiftServerlessArgs) -> list[str]:
    rules = (
        ("namespace", args.namespace_name, _NAME, "3 to 64 of a-z, 0-9 and dash"),
        ("workgroup", args.workgroup_name, _NAME, "3 to 64 of a-z, 0-9 and dash"),
        ("database", args.database, _DATABASE, "1 to 64 of a-z, 0-9 and underscore, no digit first"),
        ("admin user", args.admin_user, _ADMIN, "1 to 128 of a-z, 0-9 and _+.@-, a letter first"),
    )
    faults = [
        f"{what} {name!r} must be {allowed}: Redshift's rule for names"
        for what, name, pattern, allowed in rules
        if not pattern.fullmatch(name)
    ]
    if args.port not in PORTS:
        faults.append(f"port {args.port} must be 5431 to 5455 or 8191 to 8215: a workgroup has no others")
    return faults


def _capacity_faults(args: RedshiftServerlessArgs) -> list[str]:
    faults = []
    base, most = args.base_capacity, args.max_capacity
    large = args.region in LARGE_REGIONS
    if base not in (CAPACITIES | LARGE_CAPACITIES if large else CAPACITIES):
        allowed = "4, or 8 to 512 in steps of 8" + (", or 544 to 1024 in steps of 32" if large else "")
        faults.append(f"base capacity {base} must be {allowed}: {args.region} has no other RPUs")
    if base == SMALL_CAPACITY and args.region not in SMALL_REGIONS:
        faults.append(f"base capacity 4 must be 8 or more in {args.region}: 4 RPU are not there")
    if most is not None and most not in LIMITS:
        faults.append(f"maximum capacity {most} must be 4, or 8 to {MAX_CAPACITY} in steps of 8")
    if most is not None and most < base:
        faults.append(f"maximum capacity {most} cannot be below the base capacity {base}")
    if not 1 <= args.query_seconds <= 86399:
        faults.append(
            f"{args.query_seconds} seconds for a query must be 1 to 86399: the range of max_query_execution_time"
        )
    if not 0 <= args.snapshot_days <= 3653:
        faults.append(f"snapshots for {args.snapshot_days} days must be 0 (none) to 3653: Redshift's retention period")
    return faults


def _limit_faults(limits: Sequence[UsageLimit]) -> list[str]:
    """Only one limit may deactivate: "Only one DISABLE usage limit allowed per feature" is the service's answer."""
    faults = []
    for limit in limits:
        if limit.hours <= 0:
            faults.append(f"usage limit of {limit.hours} RPU-hours must be above 0")
        if limit.period not in get_args(Period):
            faults.append(f"usage limit's period {limit.period!r} must be one of {', '.join(get_args(Period))}")
        if limit.action not in get_args(Action):
            faults.append(f"usage limit's action {limit.action!r} must be one of {', '.join(get_args(Action))}")
    if len(limits) > MAX_USAGE_LIMITS:
        faults.append(f"{len(limits)} usage limits: a workgroup has at most {MAX_USAGE_LIMITS}")
    counts = Counter((limit.period, limit.action) for limit in limits)
    faults += [
        f"{count} {period} usage limits with action {action}: one is enough"
        for (period, action), count in counts.items()
        if count > 1
    ]
    if sum(limit.action == "deactivate" for limit in limits) > 1:
        faults.append("usage limits with action deactivate: Redshift Serverless allows one")
    return faults


def _password_faults(args: RedshiftServerlessArgs) -> list[str]:
    if args.admin_password not in get_args(AdminPassword):
        return [f"admin password {args.admin_password!r} must be one of {', '.join(get_args(AdminPassword))}"]
    if args.admin_password == GENERATED and args.login_secret_arn is None:
        return ["admin password generated needs login_secret_arn, the entry that it is put into"]
    if args.admin_password != GENERATED and args.login_secret_arn is not None:
        return [
            f"admin password {args.admin_password} cannot go with login_secret_arn: only a generated one is put there"
        ]
    return []


def _content_faults(args: RedshiftServerlessArgs) -> list[str]:
    faults = [
        f"log export {name!r} must be one of {', '.join(LOG_EXPORTS)}"
        for name in args.log_exports
        if name not in LOG_EXPORTS
    ]
    faults += [
        f"schema {name!r} must be 1 to 127 of a-z, 0-9 and underscore, no digit first: dbt names it without quotes"
        for name in (args.gold_schema, *args.external_schemas)
        if not _SCHEMA.fullmatch(name)
    ]
    if args.gold_schema in args.external_schemas:
        faults.append(f"external schema {args.gold_schema!r} has the name of the gold schema")
    faults += [
        f"external schema {schema!r} shows {database!r}, which must match {' or '.join(args.spectrum_databases)}: "
        "Spectrum's role may read no others"
        for schema, database in args.external_schemas.items()
        if not any(fnmatchcase(database, pattern) for pattern in args.spectrum_databases)
    ]
    faults += [
        f"database user {user!r} must be IAMR:<role> or IAM:<user>: it gets no password, so it signs in by IAM only"
        for user in (*args.runner_users, *args.reader_users)
        if not _IAM_USER.fullmatch(user)
    ]
    return [*faults, *_login_faults(args)]


def _login_faults(args: RedshiftServerlessArgs) -> list[str]:
    login = args.builder_login
    if login is None:
        return []
    faults = []
    if not _SCHEMA.fullmatch(login.user):
        faults.append(
            f"builder login {login.user!r} must be 1 to 127 of a-z, 0-9 and underscore, no digit first: "
            "drivers and dbt name it without quotes"
        )
    if login.user == args.admin_user:
        faults.append(f"builder login {login.user!r} is the administrator: it must be a user of its own")
    if (login.secret_arn is None) == (login.password is None):
        faults.append(
            f"builder login {login.user!r} needs secret_arn, the entry that a generated password is put into, "
            "or a password that is in an entry already; and not both"
        )
    return faults


class RedshiftServerless(pulumi.ComponentResource):
    """A namespace and its workgroup, not public, with limits, an administrator, a Spectrum role, schemas and grants.

    SQL runs through the Data API, one statement after the other, whenever its text changes; deleting runs none. For it
    the deployer needs redshift-data:ExecuteStatement and DescribeStatement, and the right to read the login's entry.
    Raises ConfigurationError before the first resource for what Redshift would refuse, or accept and never do.
    """

    namespace_name: pulumi.Output[str]
    workgroup_name: pulumi.Output[str]
    workgroup_arn: pulumi.Output[str]
    host: pulumi.Output[str]
    port: pulumi.Output[int]
    database: pulumi.Output[str]
    login_secret_arn: pulumi.Output[str]
    """The entry with the administrator's login; empty when there is none."""
    spectrum_role_arn: pulumi.Output[str]

    def __init__(self, name: str, args: RedshiftServerlessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("goldlake:warehouse:RedshiftServerless", name, None, opts)
        self._name, self._args, self._child = name, args, pulumi.ResourceOptions(parent=self)
        role, policy = self._spectrum_role()
        namespace, login = self._namespace(role)
        workgroup = self._workgroup(namespace)
        self._usage_limits(workgroup)
        self._snapshots(namespace)
        self.namespace_name = namespace.namespace_name
        self.workgroup_name = workgroup.workgroup_name
        self.workgroup_arn = workgroup.arn
        # Absent before AWS has made the workgroup's endpoint; in a preview it is unknown.
        self.host = workgroup.endpoints.apply(lambda found: (found[0].address if found else None) or "")
        self.port = workgroup.endpoints.apply(lambda found: (found[0].port if found else None) or args.port)
        self.database = namespace.db_name.apply(lambda found: found or args.database)
        self.spectrum_role_arn = role.arn
        self._statements(role, after=[workgroup, policy, *login])
        self.register_outputs(
            {
                "namespaceName": self.namespace_name,
                "workgroupName": self.workgroup_name,
                "workgroupArn": self.workgroup_arn,
                "host": self.host,
                "port": self.port,
                "database": self.database,
                "loginSecretArn": self.login_secret_arn,
                "spectrumRoleArn": self.spectrum_role_arn,
            }
        )

    def _tags(self, name: str) -> dict[str, str]:
        return {**self._args.tags, "Name": name}

    def _spectrum_role(self) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
        args, role_name = self._args, f"{self._args.namespace_name}-spectrum"
        role = aws.iam.Role(
            f"{self._name}-spectrum-role",
            name=role_name,
            description="What the warehouse reads outside itself: silver tables",
            assume_role_policy=pulumi.Output.json_dumps(pulumi.Output.from_input(args.account).apply(spectrum_trust)),
            tags=self._tags(role_name),
            opts=self._child,
        )
        known = pulumi.Output.all(args.account, args.silver_bucket_arn, args.key_arn)
        policy = aws.iam.RolePolicy(
            f"{self._name}-spectrum-policy",
            name="spectrum",
            role=role.id,
            policy=pulumi.Output.json_dumps(
                known.apply(
                    lambda found: document(
                        *spectrum_statements(args.region, found[0], found[1], args.spectrum_databases, found[2])
                    )
                )
            ),
            opts=self._child,
        )
        return role, policy

    def _namespace(self, role: aws.iam.Role) -> tuple[aws.redshiftserverless.Namespace, list[pulumi.Resource]]:
        """Register the namespace, and with a generated password the entry's content; set `login_secret_arn`."""
        args = self._args
        admin: dict[str, Any] = {}
        login: list[pulumi.Resource] = []
        if args.admin_password == GENERATED:
            password = self._password("password")
            admin = {"admin_username": args.admin_user, "admin_user_password": password}
            login = [self._login("login", args.login_secret_arn, args.admin_user, password)]
        elif args.admin_password == MANAGED:
            admin = {
                "admin_username": args.admin_user,
                "manage_admin_password": True,
                "admin_password_secret_kms_key_id": args.key_arn,
            }
        namespace = aws.redshiftserverless.Namespace(
            self._name,
            namespace_name=args.namespace_name,
            db_name=args.database,
            iam_roles=[role.arn],
            default_iam_role_arn=role.arn,
            kms_key_id=args.key_arn,
            log_exports=list(args.log_exports),
            tags=self._tags(args.namespace_name),
            # Whoever can reach the warehouse finds its login in the entry.
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect, depends_on=login),
            **admin,
        )
        self.login_secret_arn = (
            namespace.admin_password_secret_arn
            if args.admin_password == MANAGED
            else pulumi.Output.from_input(args.login_secret_arn or "")
        )
        return namespace, login

    def _password(self, part: str) -> pulumi.Output[str]:
        """CREATE USER: 8 to 64 characters, with an upper-case letter, a lower-case letter and a digit at least."""
        password = pulumi_random.RandomPassword(
            f"{self._name}-{part}",
            length=32,
            special=False,
            min_upper=1,
            min_lower=1,
            min_numeric=1,
            opts=self._child,
        )
        return pulumi.Output.secret(password.result)

    def _login(
        self,
        part: str,
        entry: pulumi.Input[str] | None,
        user: str,
        password: pulumi.Output[str],
        *,
        ignored: Sequence[str] = (),
    ) -> pulumi.Resource:
        """Register the entry's first version, so that a rotation (components.rotation) can follow it.

        A version whose labels have all moved on is deleted by AWS. Pulumi would miss it at the next refresh and put
        it there again: the password of the beginning as AWSCURRENT, which signs in no more. A label of its own keeps
        it. It has that without a rotation, too: so a rotation can be switched on and off with nothing put again.

        Where AWSCURRENT is, is the rotation's affair, hence `versionStages` is ignored. The admin's value is not:
        namespace and entry take a new RandomPassword together, or both keep theirs. The new version takes the label
        over, and AWS refuses to take it off the one before, so that one is forgotten and not deleted.
        """
        return aws.secretsmanager.SecretVersion(
            f"{self._name}-{part}",
            secret_id=entry,
            secret_string=pulumi.Output.json_dumps({"username": user, "password": password}),
            version_stages=["AWSCURRENT", OWN_VERSION],
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["versionStages", *ignored], retain_on_delete=True),
        )

    def _builder_login(self, login: BuilderLogin) -> tuple[pulumi.Output[str], list[pulumi.Resource]]:
        """Return the builder's first password as the warehouse stores it, and what puts it into its entry.

        The value of the entry is ignored, too: the user that is there keeps its password when a RandomPassword is
        replaced, so the entry must.
        """
        user = login.user
        if login.password is not None:
            password, put = pulumi.Output.secret(login.password), []
        else:
            password = self._password("builder-password")
            put = [self._login("builder-login", login.secret_arn, user, password, ignored=["secretString"])]
        return password.apply(lambda text: sql.stored_password(user, text)), put

    def _workgroup(self, namespace: aws.redshiftserverless.Namespace) -> aws.redshiftserverless.Workgroup:
        args = self._args
        parameters = config_parameters(require_ssl=args.require_ssl, query_seconds=args.query_seconds)
        return aws.redshiftserverless.Workgroup(
            self._name,
            workgroup_name=args.workgroup_name,
            namespace_name=namespace.namespace_name,
            base_capacity=args.base_capacity,
            max_capacity=args.max_capacity,
            port=args.port,
            subnet_ids=pulumi.Output.from_input(args.subnet_ids).apply(check_subnets),
            security_group_ids=[args.security_group_id],
            publicly_accessible=False,
            # Off: Spectrum reads Glue and S3 over AWS's own network, and the security group needs no egress at all.
            # On, it would go through the VPC, where each of them needs an endpoint.
            enhanced_vpc_routing=False,
            config_parameters=[
                aws.redshiftserverless.WorkgroupConfigParameterArgs(parameter_key=key, parameter_value=value)
                for key, value in parameters.items()
            ],
            tags=self._tags(args.workgroup_name),
            opts=self._child,
        )

    def _usage_limits(self, workgroup: aws.redshiftserverless.Workgroup) -> None:
        args = self._args
        for limit in args.usage_limits:
            part = f"{limit.period}-{limit.action}"
            registered = aws.redshiftserverless.UsageLimit(
                f"{self._name}-limit-{part}",
                resource_arn=workgroup.arn,
                usage_type="serverless-compute",
                amount=limit.hours,
                period=limit.period,
                breach_action=limit.action,
                opts=self._child,
            )
            if limit.action == "log" or args.alarm_topic_arn is None:
                continue
            # Management guide, "Monitoring with CloudWatch": RPU-hours consumed, by limit, type and workgroup.
            alarm(
                f"{self._name}-limit-{part}-alarm",
                alarm_name=f"{args.workgroup_name}-{part}",
                description=f"{limit.hours} RPU-hours ({limit.period}) of {args.workgroup_name} are used up",
                metric="AWS/Redshift-Serverless UsageLimitConsumed",
                dimensions={
                    "UsageLimitId": registered.id,
                    "UsageType": "SERVERLESS_COMPUTE",
                    "Workgroup": args.workgroup_name,
                },
                statistic="Maximum",
                threshold=limit.hours,
                topic_arn=args.alarm_topic_arn,
                tags=args.tags,
                parent=self,
            )

    def _snapshots(self, namespace: aws.redshiftserverless.Namespace) -> None:
        """Register a daily call of CreateSnapshot: the provider has neither snapshot schedules nor a final snapshot."""
        args = self._args
        if not args.snapshot_days:
            return
        schedule_name = f"{args.namespace_name}-snapshots"
        snapshots = pulumi.Output.from_input(args.account).apply(
            lambda account: f"arn:aws:redshift-serverless:{args.region}:{account}:snapshot/*"
        )
        role, policy = service_role(
            f"{self._name}-snapshots",
            ServiceRoleArgs(
                role_name=schedule_name,
                service="scheduler.amazonaws.com",
                policy_name="snapshot",
                # A new snapshot's ARN holds an id that AWS makes up, hence the * at its end.
                statements=pulumi.Output.all(namespace.arn, snapshots).apply(
                    lambda arns: [allow(["redshift-serverless:CreateSnapshot"], arns)]
                ),
                account=args.account,
                source_arn=pulumi.Output.from_input(args.account).apply(
                    lambda account: schedule_group(args.region, account)
                ),
                tags=self._tags(schedule_name),
            ),
            parent=self,
        )
        request = {
            "NamespaceName": args.namespace_name,
            "SnapshotName": f"{args.namespace_name}-<aws.scheduler.execution-id>",
            "RetentionPeriod": args.snapshot_days,
        }
        aws.scheduler.Schedule(
            f"{self._name}-snapshots",
            name=schedule_name,
            schedule_expression="rate(1 day)",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn="arn:aws:scheduler:::aws-sdk:redshiftserverless:createSnapshot",
                role_arn=role.arn,
                input=pulumi.Output.json_dumps(request),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _statements(self, role: aws.iam.Role, *, after: Sequence[pulumi.Resource]) -> None:
        """Register the SQL: gold schema, users and grants, external schemas, and the grants on those.

        One after the other, since concurrent grants on an object fail in Redshift. Only the external schemas, which
        have nothing in common, run side by side.
        """
        args, external, login = self._args, self._args.external_schemas, self._args.builder_login
        builders = [*args.runner_users, *([login.user] if login else [])]
        gold = self._statement("gold", sql.gold_schema(args.gold_schema), after=after)
        if not (external or builders or args.reader_users):
            return
        text = sql.access_procedure(
            database=args.database,
            gold=args.gold_schema,
            builders=builders,
            readers=args.reader_users,
            external=external,
            login=login.user if login else None,
        )
        procedure = self._statement("procedure", text, after=[gold])
        stored, put = self._builder_login(login) if login else (None, [])
        call = (
            stored.apply(lambda found: sql.call_access(args.gold_schema, found))
            if stored
            else sql.call_access(args.gold_schema)
        )
        # CALL reads the same whatever the procedure does: the name has it run when the procedure changes.
        access = self._statement("access", call, version=[text], after=[procedure, *put])
        schemas = [
            self._statement(f"external-{schema}", self._external_schema(schema, role.arn), after=[access])
            for schema in external
        ]
        if external and builders:
            # A schema that was dropped, to show another database, has lost its grants.
            version = [f"{schema}={database}" for schema, database in external.items()]
            grants = sql.external_grants(builders, list(external))
            self._statement("external-access", grants, version=version, after=schemas)

    def _external_schema(self, schema: str, role_arn: pulumi.Output[str]) -> pulumi.Output[str]:
        database, region = self._args.external_schemas[schema], self._args.region
        return role_arn.apply(lambda arn: sql.external_schema(schema, database, arn, region))

    def _statement(
        self,
        purpose: str,
        text: pulumi.Input[str],
        *,
        after: Sequence[pulumi.Resource],
        version: Sequence[str] = (),
    ) -> aws.redshiftdata.Statement:
        """Register a statement; it runs again when its text or `version` changes."""
        args = self._args
        return aws.redshiftdata.Statement(
            f"{self._name}-{purpose}",
            workgroup_name=args.workgroup_name,
            database=args.database,
            secret_arn=None if args.admin_password == NONE else self.login_secret_arn,
            statement_name=f"{purpose}-{sql.fingerprint(*version)}" if version else purpose,
            sql=text,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after)),
        )
