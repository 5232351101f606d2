"""The control plane of the local Redshift Serverless: namespaces, workgroups, usage limits, tags, temporary logins.

State is a JSON file beside the databases. All namespaces share one PostgreSQL: a namespace is a set of settings, the
login of its administrator and its database; deleting one takes the login away and keeps the data. Behaviour follows
the API reference "Amazon Redshift Serverless", and the provider's acceptance tests where the reference is silent.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import secrets
import string
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from local.redshift import server
from local.redshift.aws_json import Caller, Service, ServiceError
from local.redshift.gateway import RESERVED_USERS
from runtime import sql
from runtime.aws import Connection, translated
from runtime.errors import GoldlakeError
from runtime.target import write_atomically
from runtime.warehouse import DEFAULT_PORT

LOG = logging.getLogger(__name__)

SERVICE = "redshift-serverless"
ACCOUNT = "000000000000"
STATE_FILE = "control-plane.json"
# The Data API's own login; it takes the administrator's place in each of its sessions.
DATA_API_USER = "goldlake_data_api"

# What a workgroup answers for parameters that nobody set, seen on the service in 2026: a program that declares only
# some of them drifts at each refresh (terraform-provider-aws#33916), here as there.
DEFAULT_PARAMETERS = {
    "auto_mv": "true",
    "datestyle": "ISO, MDY",
    "enable_case_sensitive_identifier": "false",
    "enable_user_activity_logging": "true",
    "max_query_execution_time": "14400",
    "query_group": "default",
    "require_ssl": "true",
    "search_path": "$user, public",
    "use_fips_ssl": "false",
}
# "Query monitoring metrics for Amazon Redshift Serverless", and the parameters of CreateWorkgroup.
_PARAMETERS = frozenset(DEFAULT_PARAMETERS) | {
    "enable_large_strings_opt_in",
    "max_query_blocks_read",
    "max_query_cpu_time",
    "max_query_cpu_usage_percent",
    "max_query_queue_time",
    "max_query_temp_blocks_to_disk",
    "max_join_row_count",
    "max_nested_loop_join_row_count",
    "max_return_row_count",
    "max_scan_row_count",
    "wlm_json_configuration",
}
_LOGS = frozenset({"userlog", "connectionlog", "useractivitylog"})
# "Compute capacity for Amazon Redshift Serverless": beyond 512 RPU in these regions only.
_LARGE_REGIONS = frozenset({"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1"})
_MAX_CAPACITY = 5632
_PORTS = (range(5431, 5456), range(8191, 8216))
_MIN_ZONES = 3
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_+.@-]{0,62}")
_DATABASE = re.compile(r"[A-Za-z][A-Za-z0-9_+.@-]{0,62}")
_TAKEN_USERS = RESERVED_USERS | {DATA_API_USER, "public", "none", "rdsdb"}
_TAKEN_DATABASES = frozenset({"postgres", "template0", "template1", "padb_harvest", "awsdatacatalog"})
# CreateNamespace: printable ASCII but for these.
_PASSWORD = re.compile(r"[!#-&(-.0-?A-\[\]-~]{8,64}")
_SECONDS = (900, 3600)
_PAGE = 100


class Roles(Protocol):
    """What the control plane does in PostgreSQL."""

    def set_administrator(self, user: str, password: str) -> None:
        """Make `user` a superuser that signs in with the password."""

    def retire_administrator(self, user: str) -> None:
        """Let `user` sign in no more; the server's own administrator gets the server's password back."""

    def set_temporary(self, user: str, password: str, until: datetime) -> None:
        """Let `user` sign in with the password until then."""

    def create_database(self, name: str) -> None:
        """Create the database unless it is there."""


class Surroundings(Protocol):
    """What the control plane asks of the AWS emulator."""

    def zones(self, region: str, subnets: Collection[str]) -> dict[str, str]:
        """Return the zone of each subnet that exists, None where nobody can say."""

    def put_secret(self, region: str, name: str, value: str) -> str:
        """Create or replace a secret; return its ARN."""

    def delete_secret(self, region: str, name: str) -> None:
        """Delete a secret at once, if it is there."""

    def user_of(self, access_key: str) -> str | None:
        """Return the IAM user that has the key, None when that can't be known."""


class Control:
    """The control plane. Thread-safe: each operation holds one lock, and is in the file before it is answered."""

    def __init__(
        self,
        file: Path,
        roles: Roles,
        surroundings: Surroundings | None,
        *,
        port: int = DEFAULT_PORT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._file = file
        self._roles = roles
        self._surroundings = surroundings
        self._port = port
        self._clock = clock
        self._lock = threading.RLock()
        self._state = read_state(file)
        # Temporary logins that are still good, in memory only.
        self._temporary: dict[str, tuple[str, datetime]] = {}

    def service(self) -> Service:
        """Return the operations by their names on the wire."""
        operations = {
            "CreateNamespace": self.create_namespace,
            "GetNamespace": self.get_namespace,
            "ListNamespaces": self.list_namespaces,
            "UpdateNamespace": self.update_namespace,
            "DeleteNamespace": self.delete_namespace,
            "CreateWorkgroup": self.create_workgroup,
            "GetWorkgroup": self.get_workgroup,
            "ListWorkgroups": self.list_workgroups,
            "UpdateWorkgroup": self.update_workgroup,
            "DeleteWorkgroup": self.delete_workgroup,
            "CreateUsageLimit": self.create_usage_limit,
            "GetUsageLimit": self.get_usage_limit,
            "ListUsageLimits": self.list_usage_limits,
            "UpdateUsageLimit": self.update_usage_limit,
            "DeleteUsageLimit": self.delete_usage_limit,
            "ListTagsForResource": self.list_tags,
            "TagResource": self.tag,
            "UntagResource": self.untag,
            "GetCredentials": self.get_credentials,
        }
        return Service(SERVICE, {name: self._locked(operation) for name, operation in operations.items()})

    def administrator(self, region: str, workgroup: str) -> tuple[str, str] | None:
        """Return administrator and database of a workgroup, by its name or ARN; None when there is no such one."""
        with self._lock:
            for record in self._records(region, "workgroups").values():
                if workgroup in (record["workgroupName"], record["workgroupArn"]):
                    namespace = self._records(region, "namespaces")[record["namespaceName"]]
                    return str(namespace["adminUsername"]), str(namespace["dbName"])
        return None

    def _locked(self, operation: Callable[[Caller, dict[str, Any]], dict[str, Any]]) -> Any:
        def run(caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
            with self._lock:
                try:
                    return operation(caller, given)
                except GoldlakeError as exc:
                    # The first line only: the next ones quote the statement, a password's hash included.
                    text = exc.message.splitlines()[0]
                    raise ServiceError("InternalServerException", text, 500) from None

        return run

    # Namespaces

    def create_namespace(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """CreateNamespace."""
        name = given["namespaceName"]
        if name in self._records(caller.region, "namespaces"):
            raise ServiceError("ConflictException", f"Namespace {name} already exists.")
        _refuse(given, "redshiftIdcApplicationArn")
        _check_namespace(given)
        identifier = str(uuid.uuid4())
        record = {
            "namespaceName": name,
            "namespaceId": identifier,
            "namespaceArn": f"arn:aws:{SERVICE}:{caller.region}:{ACCOUNT}:namespace/{identifier}",
            "adminUsername": given.get("adminUsername", server.ADMIN),
            "dbName": given.get("dbName", "dev"),
            "kmsKeyId": given.get("kmsKeyId", "AWS_OWNED_KMS_KEY"),
            "iamRoles": _applied(given.get("iamRoles", [])),
            "defaultIamRoleArn": given.get("defaultIamRoleArn"),
            "logExports": given.get("logExports", []),
            "creationDate": self._clock().isoformat(),
            "status": "AVAILABLE",
            "passwordSet": False,
        }
        self._roles.create_database(record["dbName"])
        if "adminUserPassword" in given or given.get("manageAdminPassword"):
            self._refuse_shared_administrator(record)
            self._set_login(caller.region, record, given)
        self._records(caller.region, "namespaces")[name] = record
        self._set_tags(record["namespaceArn"], given.get("tags", []))
        self._save()
        return {"namespace": _answer(record)}

    def get_namespace(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetNamespace."""
        return {"namespace": _answer(self._namespace(caller, given))}

    def list_namespaces(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListNamespaces."""
        return _page("namespaces", list(self._records(caller.region, "namespaces").values()), given)

    def update_namespace(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """UpdateNamespace: one kind of setting in each request, as the API reference demands."""
        record = self._namespace(caller, given)
        _refuse(given, "logDestinationType", "s3TableAction", "s3TableGranularity", "s3TableKmsKeyId", "s3TableNames")
        login = {"adminUsername", "adminUserPassword", "manageAdminPassword", "adminPasswordSecretKmsKeyId"}
        kinds = [login, {"iamRoles", "defaultIamRoleArn"}, {"kmsKeyId"}, {"logExports"}]
        if sum(bool(kind & given.keys()) for kind in kinds) > 1:
            raise ServiceError("ValidationException", "You can't update multiple namespace parameters in one request.")
        _check_namespace(given, record)
        changed = copy.deepcopy(record)
        if "iamRoles" in given:
            changed["iamRoles"] = _applied(given["iamRoles"])
        if "defaultIamRoleArn" in given:
            changed["defaultIamRoleArn"] = given["defaultIamRoleArn"] or None
        changed |= {name: given[name] for name in ("adminUsername", "kmsKeyId", "logExports") if name in given}
        if login & given.keys():
            self._refuse_shared_administrator(changed)
            if changed["adminUsername"] != record["adminUsername"] and record["passwordSet"]:
                self._roles.retire_administrator(record["adminUsername"])
            self._set_login(caller.region, changed, given)
        record.clear()
        record.update(changed)
        self._save()
        return {"namespace": _answer(record)}

    def delete_namespace(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """DeleteNamespace. Databases stay: another namespace, or the laptop's own tools, may use them."""
        record = self._namespace(caller, given)
        _refuse(given, "finalSnapshotName", "finalSnapshotRetentionPeriod")
        users = [
            workgroup["workgroupName"]
            for workgroup in self._records(caller.region, "workgroups").values()
            if workgroup["namespaceName"] == record["namespaceName"]
        ]
        if users:
            raise ServiceError(
                "ConflictException",
                f"Namespace {record['namespaceName']} has an associated workgroup, {users[0]}: delete that first.",
            )
        if record["passwordSet"]:
            self._roles.retire_administrator(record["adminUsername"])
        self._drop_secret(caller.region, record)
        del self._records(caller.region, "namespaces")[record["namespaceName"]]
        self._state["tags"].pop(record["namespaceArn"], None)
        self._save()
        return {"namespace": _answer(record) | {"status": "DELETING"}}

    def _namespace(self, caller: Caller, given: Mapping[str, Any]) -> dict[str, Any]:
        return _found(self._records(caller.region, "namespaces"), given["namespaceName"], "Namespace")

    def _refuse_shared_administrator(self, record: Mapping[str, Any]) -> None:
        """Two namespaces share one PostgreSQL here: with one administrator they would share his password, too."""
        for region in self._state["regions"].values():
            for other in region["namespaces"].values():
                same = other["adminUsername"] == record["adminUsername"] and other["passwordSet"]
                if same and other["namespaceArn"] != record["namespaceArn"]:
                    text = f"namespace {other['namespaceName']} has the administrator {record['adminUsername']!r} here"
                    raise ServiceError("ValidationException", f"{text}: give another adminUsername.")

    def _set_login(self, region: str, record: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Give the administrator the password of the request, or a new one that only Secrets Manager knows."""
        if given.get("manageAdminPassword"):
            password = _random_password()
            text = json.dumps({"username": record["adminUsername"], "password": password})
            record["adminPasswordSecretArn"] = self._aws().put_secret(region, _secret_name(record), text)
            record["adminPasswordSecretKmsKeyId"] = given.get("adminPasswordSecretKmsKeyId")
            self._roles.set_administrator(record["adminUsername"], password)
            record["passwordSet"] = True
            return
        if "adminUserPassword" in given:
            self._roles.set_administrator(record["adminUsername"], given["adminUserPassword"])
            record["passwordSet"] = True
        if "adminUserPassword" in given or "manageAdminPassword" in given:
            self._drop_secret(region, record)

    def _drop_secret(self, region: str, record: dict[str, Any]) -> None:
        if record.pop("adminPasswordSecretArn", None):
            self._aws().delete_secret(region, _secret_name(record))
        record.pop("adminPasswordSecretKmsKeyId", None)

    # Workgroups

    def create_workgroup(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """CreateWorkgroup."""
        name = given["workgroupName"]
        if name in self._records(caller.region, "workgroups"):
            raise ServiceError("ConflictException", f"Workgroup {name} already exists.")
        self._namespace(caller, given)
        for other in self._records(caller.region, "workgroups").values():
            if other["namespaceName"] == given["namespaceName"]:
                text = f"Namespace {given['namespaceName']} has an associated workgroup, {other['workgroupName']}."
                raise ServiceError("ConflictException", text)
        identifier = str(uuid.uuid4())
        # Without a capacity the service manages it by a price-performance target, and shows -1.
        target: dict[str, Any] = (
            {"status": "DISABLED"} if "baseCapacity" in given else {"status": "ENABLED", "level": 50}
        )
        record = {
            "workgroupName": name,
            "workgroupId": identifier,
            "workgroupArn": f"arn:aws:{SERVICE}:{caller.region}:{ACCOUNT}:workgroup/{identifier}",
            "namespaceName": given["namespaceName"],
            "baseCapacity": given.get("baseCapacity", -1),
            "maxCapacity": given.get("maxCapacity"),
            "pricePerformanceTarget": given.get("pricePerformanceTarget", target),
            "configParameters": _parameters({}, given.get("configParameters", [])),
            "enhancedVpcRouting": given.get("enhancedVpcRouting", False),
            "publiclyAccessible": given.get("publiclyAccessible", False),
            "extraComputeForAutomaticOptimization": given.get("extraComputeForAutomaticOptimization", False),
            "ipAddressType": given.get("ipAddressType", "ipv4"),
            "port": given.get("port", DEFAULT_PORT),
            "securityGroupIds": given.get("securityGroupIds", []),
            "subnetIds": given.get("subnetIds", []),
            "trackName": given.get("trackName", "current"),
            "workgroupVersion": "1.0",
            "patchVersion": "1.0",
            "creationDate": self._clock().isoformat(),
            "status": "AVAILABLE",
        }
        _check_workgroup(record, given, caller.region)
        self._check_subnets(caller.region, given)
        self._records(caller.region, "workgroups")[name] = record
        self._set_tags(record["workgroupArn"], given.get("tags", []))
        self._save()
        return {"workgroup": self._workgroup_answer(record, "CREATING")}

    def get_workgroup(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetWorkgroup."""
        return {"workgroup": self._workgroup_answer(self._workgroup(caller, given))}

    def list_workgroups(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListWorkgroups."""
        answers = [self._workgroup_answer(record) for record in self._records(caller.region, "workgroups").values()]
        return _page("workgroups", answers, given)

    def update_workgroup(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """UpdateWorkgroup: one setting in each request, as the API reference demands."""
        record = self._workgroup(caller, given)
        settings = {name: value for name, value in given.items() if name != "workgroupName"}
        # Networks are one setting; so are a target and the capacity that it replaces.
        kinds = {
            {"securityGroupIds": "subnetIds", "pricePerformanceTarget": "baseCapacity"}.get(name, name)
            for name in settings
        }
        if len(kinds) > 1:
            raise ServiceError("ValidationException", "You can't update multiple workgroup parameters in one request.")
        changed = copy.deepcopy(record) | settings
        if "configParameters" in given:
            current = {item["parameterKey"]: item["parameterValue"] for item in record["configParameters"]}
            changed["configParameters"] = _parameters(current, given["configParameters"])
        if "baseCapacity" in given and "pricePerformanceTarget" not in given:
            changed["pricePerformanceTarget"] = {"status": "DISABLED"}
        _check_workgroup(changed, given, caller.region)
        self._check_subnets(caller.region, given)
        record.update(changed)
        self._save()
        return {"workgroup": self._workgroup_answer(record, "MODIFYING")}

    def delete_workgroup(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """DeleteWorkgroup; its usage limits go with it."""
        record = self._workgroup(caller, given)
        limits = self._records(caller.region, "usageLimits")
        for limit in [item for item in limits.values() if item["resourceArn"] == record["workgroupArn"]]:
            del limits[limit["usageLimitId"]]
        del self._records(caller.region, "workgroups")[record["workgroupName"]]
        self._state["tags"].pop(record["workgroupArn"], None)
        self._save()
        return {"workgroup": self._workgroup_answer(record, "DELETING")}

    def _workgroup(self, caller: Caller, given: Mapping[str, Any]) -> dict[str, Any]:
        return _found(self._records(caller.region, "workgroups"), given["workgroupName"], "Workgroup")

    def _workgroup_answer(self, record: Mapping[str, Any], status: str | None = None) -> dict[str, Any]:
        """Return a workgroup; its endpoint is the wire gateway, at the port where that listens now."""
        endpoint = {"address": "127.0.0.1", "port": self._port, "vpcEndpoints": []}
        return _answer(record) | {"endpoint": endpoint, "status": status or record["status"]}

    def _check_subnets(self, region: str, given: Mapping[str, Any]) -> None:
        """Refuse too few subnets or zones ("Considerations when using Amazon Redshift Serverless")."""
        subnets = given.get("subnetIds")
        if subnets is None:
            return
        if len(set(subnets)) < _MIN_ZONES:
            text = f"a workgroup needs at least {_MIN_ZONES} subnets, {len(set(subnets))} given"
            raise ServiceError("ValidationException", f"The subnets are not valid: {text}.")
        if self._surroundings is None:
            return
        zones = self._surroundings.zones(region, subnets)
        missing = sorted(set(subnets) - zones.keys())
        if missing:
            raise ServiceError("ValidationException", f"The subnets do not exist: {', '.join(missing)}.")
        if len(set(zones.values())) < _MIN_ZONES:
            spanned = ", ".join(sorted(set(zones.values())))
            text = f"they must span at least {_MIN_ZONES} Availability Zones, and span {spanned}"
            raise ServiceError("ValidationException", f"The subnets are not valid: {text}.")

    # Usage limits

    def create_usage_limit(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """CreateUsageLimit."""
        self._check_arn(given["resourceArn"])
        _check_amount(given)
        limits = self._records(caller.region, "usageLimits")
        identifier = str(uuid.uuid4())
        record = {
            "usageLimitId": identifier,
            "usageLimitArn": f"arn:aws:{SERVICE}:{caller.region}:{ACCOUNT}:usagelimit/{identifier}",
            "resourceArn": given["resourceArn"],
            "usageType": given["usageType"],
            "period": given.get("period", "monthly"),
            "amount": given["amount"],
            "breachAction": given.get("breachAction", "log"),
        }
        # Several limits of one period may differ in amount and action (log at 80, stop at 100).
        same = ("resourceArn", "usageType", "period", "amount", "breachAction")
        if any(all(other[name] == record[name] for name in same) for other in limits.values()):
            raise ServiceError("ConflictException", "A usage limit with the same settings already exists.")
        limits[identifier] = record
        self._save()
        return {"usageLimit": _answer(record)}

    def get_usage_limit(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetUsageLimit."""
        return {"usageLimit": _answer(self._usage_limit(caller, given))}

    def list_usage_limits(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListUsageLimits, by resource and type if given."""
        wanted = {name: given[name] for name in ("resourceArn", "usageType") if name in given}
        found = [
            record
            for record in self._records(caller.region, "usageLimits").values()
            if all(record[name] == value for name, value in wanted.items())
        ]
        return _page("usageLimits", found, given)

    def update_usage_limit(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """UpdateUsageLimit."""
        record = self._usage_limit(caller, given)
        _check_amount(given)
        record |= {name: given[name] for name in ("amount", "breachAction") if name in given}
        self._save()
        return {"usageLimit": _answer(record)}

    def delete_usage_limit(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """DeleteUsageLimit."""
        record = self._usage_limit(caller, given)
        del self._records(caller.region, "usageLimits")[record["usageLimitId"]]
        self._save()
        return {"usageLimit": _answer(record)}

    def _usage_limit(self, caller: Caller, given: Mapping[str, Any]) -> dict[str, Any]:
        return _found(self._records(caller.region, "usageLimits"), given["usageLimitId"], "Usage limit")

    # Tags

    def list_tags(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListTagsForResource."""
        self._check_arn(given["resourceArn"])
        tags = self._state["tags"].get(given["resourceArn"], {})
        return {"tags": [{"key": key, "value": value} for key, value in sorted(tags.items())]}

    def tag(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """TagResource."""
        self._check_arn(given["resourceArn"])
        self._set_tags(given["resourceArn"], given["tags"])
        self._save()
        return {}

    def untag(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """UntagResource."""
        self._check_arn(given["resourceArn"])
        tags = self._state["tags"].get(given["resourceArn"], {})
        for key in given["tagKeys"]:
            tags.pop(key, None)
        self._save()
        return {}

    def _set_tags(self, arn: str, tags: list[dict[str, str]]) -> None:
        if tags:
            self._state["tags"].setdefault(arn, {}).update({tag["key"]: tag["value"] for tag in tags})

    def _check_arn(self, arn: str) -> None:
        """Refuse the ARN of no namespace and no workgroup."""
        for region in self._state["regions"].values():
            for kind, member in (("namespaces", "namespaceArn"), ("workgroups", "workgroupArn")):
                if any(record[member] == arn for record in region[kind].values()):
                    return
        raise ServiceError("ResourceNotFoundException", f"The resource {arn} does not exist.")

    # Temporary logins

    def get_credentials(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetCredentials. One password for all who ask while it is good: PostgreSQL keeps one for each role."""
        _refuse(given, "customDomainName")
        if "workgroupName" not in given:
            raise ServiceError("ValidationException", "The workgroup name or the custom domain name must be given.")
        self._workgroup(caller, given)
        seconds = given.get("durationSeconds", _SECONDS[0])
        if not _SECONDS[0] <= seconds <= _SECONDS[1]:
            text = f"durationSeconds {seconds} is not between {_SECONDS[0]} and {_SECONDS[1]}."
            raise ServiceError("ValidationException", text)
        user = self._user(caller)
        now = self._clock()
        password, good_until = self._temporary.get(user, ("", now))
        if good_until <= now:
            password = _random_password()
        until = max(good_until, now + timedelta(seconds=seconds))
        self._roles.set_temporary(user, password, until)
        self._temporary[user] = (password, until)
        refresh = now + timedelta(seconds=seconds * 2 / 3)
        return {"dbUser": user, "dbPassword": password, "expiration": until, "nextRefreshTime": refresh}

    def _user(self, caller: Caller) -> str:
        """Return the database user of a caller. A role's session is known to the emulator only by its signature."""
        name = None
        if self._surroundings is not None and caller.access_key:
            name = self._surroundings.user_of(caller.access_key)
        return f"IAM:{name or 'local'}"

    # State

    def _records(self, region: str, kind: str) -> dict[str, dict[str, Any]]:
        """Return the records of a kind in a region, to be changed in place."""
        empty: dict[str, Any] = {"namespaces": {}, "workgroups": {}, "usageLimits": {}}
        records: dict[str, dict[str, Any]] = self._state["regions"].setdefault(region, empty)[kind]
        return records

    def _aws(self) -> Surroundings:
        if self._surroundings is None:
            raise ServiceError("NotImplemented", "not emulated: secrets, without an AWS emulator beside")
        return self._surroundings

    def _save(self) -> None:
        write_atomically(self._file, json.dumps(self._state, indent=2))


def read_state(file: Path) -> dict[str, Any]:
    """Return the kept state, or an empty one."""
    try:
        state: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {"regions": {}, "tags": {}}
    return state


@dataclass(frozen=True)
class Deployed:
    """A namespace, and the workgroup that belongs to it if there is one."""

    region: str
    namespace: str
    database: str
    workgroup: str | None
    base_capacity: int | None
    status: str


def deployed(file: Path) -> list[Deployed]:
    """Return the namespaces and workgroups of the kept state, in order."""
    found = []
    for region, records in read_state(file)["regions"].items():
        groups = {group["namespaceName"]: group for group in records["workgroups"].values()}
        for name, namespace in records["namespaces"].items():
            group = groups.get(name, {})
            status = group.get("status", namespace["status"])
            members = (group.get("workgroupName"), group.get("baseCapacity"), status)
            found.append(Deployed(region, name, namespace["dbName"], *members))
    return sorted(found, key=lambda item: (item.region, item.namespace))


def sets_password_of(file: Path, user: str) -> bool:
    """Return whether a namespace of the kept state gave `user` a password, which a restart must not replace."""
    return any(
        record["adminUsername"] == user and record["passwordSet"]
        for region in read_state(file)["regions"].values()
        for record in region["namespaces"].values()
    )


def _found(records: dict[str, dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    if name not in records:
        raise ServiceError("ResourceNotFoundException", f"{kind} {name} does not exist.")
    return records[name]


def _answer(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as operations answer it: a copy, with its date as one."""
    answer = copy.deepcopy(dict(record))
    if "creationDate" in answer:
        answer["creationDate"] = datetime.fromisoformat(answer["creationDate"])
    return answer


def _page(member: str, records: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return one page of a list, and the token of the next."""
    token = given.get("nextToken", "0")
    if not re.fullmatch(r"\d{1,12}", token):
        raise ServiceError("ValidationException", "The nextToken is not one of ours.")
    start = int(token)
    end = start + given.get("maxResults", _PAGE)
    answers = [_answer(record) if isinstance(record.get("creationDate"), str) else record for record in records]
    # Eight digits: ListUsageLimits' tokens have at least so many characters.
    return {member: answers[start:end], "nextToken": f"{end:08d}" if end < len(records) else None}


def _refuse(given: Mapping[str, Any], *names: str) -> None:
    """Refuse settings that would silently do nothing here."""
    for name in names:
        if name in given:
            raise ServiceError("NotImplemented", f"not emulated: {name}")


def _applied(roles: list[str]) -> list[str]:
    """Return IAM roles as the service shows them."""
    return [f"IamRole(applyStatus=in-sync, iamRoleArn={arn})" for arn in roles]


def _secret_name(record: Mapping[str, Any]) -> str:
    return f"redshift!{record['namespaceName']}-admin"


def _random_password() -> str:
    """Return 32 letters and digits, of all three kinds that the service demands."""
    alphabet = string.ascii_letters + string.digits
    return "Aa1" + "".join(secrets.choice(alphabet) for _ in range(29))


def _check_namespace(given: Mapping[str, Any], current: Mapping[str, Any] | None = None) -> None:
    """Refuse what CreateNamespace and UpdateNamespace refuse, as far as the model does not say it."""
    user, password = given.get("adminUsername"), given.get("adminUserPassword")
    managed = given.get("manageAdminPassword", False)
    faults = []
    if user is not None and (
        not _USER.fullmatch(user) or user.lower() in _TAKEN_USERS or user.lower().startswith("pg_")
    ):
        faults.append(
            "adminUsername must begin with a letter, have letters, digits and _+.@- only, and not be reserved"
        )
    if managed and password is not None:
        faults.append("adminUserPassword can't be used if manageAdminPassword is true")
    if user is not None and not managed and password is None and (current is None or user != current["adminUsername"]):
        faults.append("adminUsername needs adminUserPassword, or manageAdminPassword")
    if password is not None and not _strong(password):
        faults.append(
            "adminUserPassword must have 8 to 64 printable ASCII characters, an upper-case and a lower-case "
            "letter and a digit among them, and none of / @ \" ' \\ and space"
        )
    if "adminPasswordSecretKmsKeyId" in given and not managed:
        faults.append("adminPasswordSecretKmsKeyId needs manageAdminPassword")
    database = given.get("dbName")
    if database is not None and (not _DATABASE.fullmatch(database) or database.lower() in _TAKEN_DATABASES):
        faults.append("dbName must begin with a letter, hold letters, digits and _+.@- only, and not be reserved")
    if not set(given.get("logExports", [])) <= _LOGS:
        faults.append(f"logExports must be of {', '.join(sorted(_LOGS))}")
    faults += _role_faults(given, current)
    if faults:
        raise ServiceError("ValidationException", "; ".join(faults) + ".")


def _role_faults(given: Mapping[str, Any], current: Mapping[str, Any] | None) -> list[str]:
    """Return what is wrong with the IAM roles of a request."""
    faults = [
        f"{arn!r} is not the ARN of an IAM role"
        for arn in given.get("iamRoles", [])
        if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", arn)
    ]
    default = given.get("defaultIamRoleArn")
    roles = _applied(given["iamRoles"]) if "iamRoles" in given else (current or {}).get("iamRoles", [])
    if default and not set(_applied([default])) <= set(roles):
        faults.append("defaultIamRoleArn must be one of iamRoles")
    return faults


def _strong(password: str) -> bool:
    """Return whether a password keeps CreateNamespace's rules."""
    kinds = (str.isupper, str.islower, str.isdigit)
    return bool(_PASSWORD.fullmatch(password)) and all(any(map(kind, password)) for kind in kinds)


def _check_workgroup(record: Mapping[str, Any], given: Mapping[str, Any], region: str) -> None:
    """Refuse what CreateWorkgroup and UpdateWorkgroup refuse, as far as the model does not say it."""
    faults = []
    base, most = record["baseCapacity"], record["maxCapacity"]
    if "baseCapacity" in given and not _is_capacity(base, region):
        large = "; or up to 1024, in units of 32" if region in _LARGE_REGIONS else ""
        faults.append(f"baseCapacity {base} is not 4, nor a multiple of 8 between 8 and 512{large}")
    if "maxCapacity" in given and (not 0 < most <= _MAX_CAPACITY or (most % 8 and most != 4)):
        faults.append(f"maxCapacity {most} is not 4, nor a multiple of 8 up to {_MAX_CAPACITY}")
    if most is not None and most < base:
        faults.append(f"maxCapacity {most} is less than baseCapacity {base}")
    if not any(record["port"] in ports for ports in _PORTS):
        faults.append(f"port {record['port']} is not in the ranges 5431-5455 and 8191-8215")
    if faults:
        raise ServiceError("ValidationException", "; ".join(faults) + ".")


def _is_capacity(base: int, region: str) -> bool:
    """Return whether a workgroup may have this base capacity."""
    if 512 < base <= 1024 and region in _LARGE_REGIONS:
        return base % 32 == 0
    return base == 4 or (8 <= base <= 512 and base % 8 == 0)


def _parameters(current: Mapping[str, str], given: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return all parameters of a workgroup: the given ones over the current ones over the defaults."""
    wanted = {item["parameterKey"]: item["parameterValue"] for item in given}
    unknown = sorted(wanted.keys() - _PARAMETERS)
    if unknown or len(wanted) < len(given):
        text = f"unknown configParameters: {', '.join(unknown)}" if unknown else "a configParameter is given twice"
        raise ServiceError("ValidationException", f"{text}.")
    every = {**DEFAULT_PARAMETERS, **current, **wanted}
    return [{"parameterKey": key, "parameterValue": every[key]} for key in sorted(every)]


def _check_amount(given: Mapping[str, Any]) -> None:
    if given.get("amount", 1) <= 0:
        raise ServiceError("ValidationException", f"amount {given['amount']} is not a positive number.")


class PostgresRoles:
    """The `Roles` of the embedded PostgreSQL; `password` is that of the server's own administrator."""

    def __init__(self, postgres: server.Postgres, password: str) -> None:
        self._postgres = postgres
        self._password = password

    def set_administrator(self, user: str, password: str) -> None:
        """See `Roles`."""
        self._set(user, password, "superuser createdb createrole valid until 'infinity'")

    def retire_administrator(self, user: str) -> None:
        """See `Roles`."""
        if user == server.ADMIN:
            self.set_administrator(user, self._password)
        else:
            server.run_sql(self._postgres, f"alter role {sql.identifier(user)} nologin password null;")

    def set_temporary(self, user: str, password: str, until: datetime) -> None:
        """See `Roles`."""
        self._set(user, password, f"valid until {sql.literal(until.isoformat())}")

    def create_database(self, name: str) -> None:
        """See `Roles`."""
        server.create_database(self._postgres, name)

    def _set(self, user: str, password: str, options: str) -> None:
        """Create the role unless it is there, and set its password and options."""
        role = sql.identifier(user)
        stored = sql.literal(server.password_hash(user, password))
        exists = f"select from pg_roles where rolname = {sql.literal(user)}::name"
        create = sql.literal(f"create role {role}")
        server.run_sql(
            self._postgres,
            f"select {create} where not exists ({exists}) \\gexec\n"
            f"alter role {role} login password {stored} {options};",
        )


class Emulator:
    """The `Surroundings` on an AWS emulator."""

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url

    def zones(self, region: str, subnets: Collection[str]) -> dict[str, str]:
        """See `Surroundings`."""
        filters = [{"Name": "subnet-id", "Values": sorted(set(subnets))}]
        with translated("the subnets of a workgroup"):
            found = self._client(region, "ec2").describe_subnets(Filters=filters)["Subnets"]
        return {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in found}

    def put_secret(self, region: str, name: str, value: str) -> str:
        """See `Surroundings`."""
        client = self._client(region, "secretsmanager")
        with translated(f"secret {name}"):
            try:
                return str(client.create_secret(Name=name, SecretString=value)["ARN"])
            except client.exceptions.ResourceExistsException:
                return str(client.put_secret_value(SecretId=name, SecretString=value)["ARN"])

    def delete_secret(self, region: str, name: str) -> None:
        """See `Surroundings`."""
        client = self._client(region, "secretsmanager")
        with translated(f"secret {name}"):
            try:
                client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
            except client.exceptions.ResourceNotFoundException:
                return

    def user_of(self, access_key: str) -> str | None:
        """See `Surroundings`."""
        try:
            with translated("the user of an access key"):
                found = self._client("us-east-1", "iam").get_access_key_last_used(AccessKeyId=access_key)
        except GoldlakeError:
            return None
        return str(found["UserName"]) if found.get("UserName") else None

    def _client(self, region: str, service: str) -> Any:
        return Connection(endpoint_url=self._endpoint_url, region=region).client(service)
