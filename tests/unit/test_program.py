"""The whole program under the SDK's mocks: what it registers, and rules that hold over all of it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.function import ALARMS
from components.naming import STANDARD_TAGS
from components.warehouse_sql import stored_password
from local.recording import ACCOUNT, Recording, record, record_stack
from local.resources import KINDS, RECORDED_ONLY, REFUSED
from runtime.catalogue import load_catalogue
from runtime.errors import ConfigurationError
from runtime.settings import DBT_OPERATIONS
from stacks.names import DBT_LOGIN, DBT_USER, ROTATIONS
from stacks.outputs import FoundationOutputs, LakeOutputs, SecretsOutputs, UnitOutputs, WarehouseOutputs
from stacks.program import deploy, needs, plan
from stacks.settings import DEFAULT_UNITS, UNITS, Settings, parse_settings
from stacks.transform import FUNCTIONS_CODE, LAYERS

ROOT = Path(__file__).parents[2]
# Actions on resources that do not exist yet, or that AWS gives no ARN; each with its reason in components/policies.py.
STAR_EXEMPT = ("ec2:", "logs:CreateLogDelivery")


def recorded(stack: str, calls: Any = None, **settings: Any) -> Recording:
    """Record a stack, once for the same settings; `settings` are arrays and objects as such."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return record_stack(ROOT, stack, settings=texts, calls=calls) if calls else _recorded(stack, tuple(texts.items()))


@functools.cache
def _recorded(stack: str, texts: tuple[tuple[str, str], ...]) -> Recording:
    return record_stack(ROOT, stack, settings=dict(texts))


@pytest.fixture(scope="module")
def dev() -> Recording:
    return recorded("dev")


@pytest.fixture(scope="module")
def everything() -> Recording:
    """All units with every option that adds resources."""
    return recorded(
        "dev",
        units=list(UNITS),
        customerKey=True,
        natGateways="per-zone",
        alarmEmails=["on-call@example.com"],
        lakeInventory=True,
        intelligentTieringDays=30,
        endpointZones=3,
        trinoUrl="https://goldlake@trino.example.com/delta",
        signIn="password",
        rotateLoginDays=30,
        functionAlarms=list(ALARMS),
        dashboard=True,
    )


@pytest.fixture(scope="module")
def adjusted() -> Recording:
    """One setting of each of four units that adds nothing to the others."""
    return recorded(
        "dev",
        silverBucket="acme-silver",
        snapshotDays=14,
        dbtOperations=["vacuum_gold", "grant_all"],
        handOverRetries=5,
    )


def statements(recording: Recording) -> list[tuple[str, dict[str, Any]]]:
    documents = [(name, inputs["policy"]) for name, inputs in recording.of("rolePolicy:RolePolicy").items()]
    return [(name, statement) for name, text in documents for statement in json.loads(text)["Statement"]]


def test_the_program_registers_resources_of_every_unit(dev: Recording) -> None:
    kinds = {found.type.rsplit(":", 1)[-1] for found in dev.resources}
    assert {
        "Vpc",
        "Bucket",
        "Secret",
        "CatalogDatabase",
        "Namespace",
        "Workgroup",
        "Function",
        "LayerVersion",
        "StateMachine",
        "Schedule",
    } <= kinds
    assert {name.split("_", 1)[0] for name in dev.exports} == set(DEFAULT_UNITS)


def test_every_resource_type_can_be_created_in_the_emulator_or_is_listed_with_the_reason(
    everything: Recording,
) -> None:
    types = {found.type for found in everything.resources if found.custom}
    listed = {**RECORDED_ONLY, **REFUSED}
    assert types <= set(KINDS) | set(listed)
    assert not set(KINDS) & set(listed)
    assert all(len(reason) > 10 for reason in listed.values())


def test_the_documentation_lists_what_is_recorded_only(project_root: Path) -> None:
    text = (project_root / "docs" / "architecture.md").read_text()
    assert all(f"`{kind}`" in text for kind in (*RECORDED_ONLY, *REFUSED))


def test_all_that_can_carry_tags_carries_the_required_ones(everything: Recording) -> None:
    tagged = [found for found in everything.resources if found.custom and found.inputs.get("tags")]
    assert len(tagged) > 60
    for found in tagged:
        assert set(STANDARD_TAGS) <= set(found.inputs["tags"]), found.name
        assert found.inputs["tags"]["Owner"] == "data-platform"


def test_types_that_take_tags_have_them(everything: Recording) -> None:
    import pulumi_aws

    for found in everything.resources:
        if not found.type.startswith("aws:"):
            continue
        module, _, kind = found.type.split(":", 1)[1].partition("/")
        owner = getattr(pulumi_aws, "lambda_" if module == "lambda" else module)
        resource = getattr(owner, kind.rsplit(":", 1)[-1])
        if hasattr(resource, "tags"):
            assert found.inputs.get("tags"), f"{found.type} {found.name}"


def test_no_policy_allows_every_action_or_every_resource_without_an_exemption(everything: Recording) -> None:
    found = statements(everything)
    assert len(found) > 10
    for name, statement in found:
        assert not any("*" in action for action in statement["Action"]), name
        if "*" in statement["Resource"]:
            assert statement["Action"][0].startswith(STAR_EXEMPT), name


def test_every_bucket_is_private_encrypted_versioned_and_refuses_plain_http(everything: Recording) -> None:
    buckets = {f"{name}-id" for name in everything.of("bucket:Bucket")}
    assert len(buckets) == 6
    parts = ("PublicAccessBlock", "ServerSideEncryptionConfiguration", "Versioning", "OwnershipControls", "Policy")
    for part in parts:
        assert {inputs["bucket"] for inputs in everything.of(f":Bucket{part}").values()} == buckets, part
    for inputs in everything.of(":BucketPublicAccessBlock").values():
        assert all(value is True for key, value in inputs.items() if key != "bucket")
    for inputs in everything.of(":BucketPolicy").values():
        denied = [s for s in json.loads(inputs["policy"])["Statement"] if s["Effect"] == "Deny"]
        assert any(s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}} for s in denied)


def test_what_holds_data_is_protected(everything: Recording) -> None:
    protected = {found.type.rsplit(":", 1)[-1] for found in everything.resources if found.protect}
    assert protected == {"Bucket", "Secret", "Namespace", "Table", "Key"}
    unprotected = [found.name for found in everything.resources if found.type.endswith(":Secret") and not found.protect]
    assert unprotected == []


def test_nothing_is_protected_on_the_laptop() -> None:
    assert not [found.name for found in recorded("localstack").resources if found.protect]


def test_with_a_customer_key_data_secrets_and_logs_are_under_it(everything: Recording, dev: Recording) -> None:
    key = f"arn:aws:made-up:eu-west-1:{ACCOUNT}:key"
    assert all(inputs["kmsKeyId"] == key for inputs in everything.of(":LogGroup").values())
    assert all(inputs["kmsKeyId"] == key for inputs in everything.of("secret:Secret").values())
    assert everything.one(":Namespace")["kmsKeyId"] == key
    assert not any("kmsKeyId" in inputs for inputs in dev.of(":LogGroup").values())
    users = {name for name, s in statements(everything) if "kms:Decrypt" in s["Action"]}
    assert {"check-policy", "dbt-runner-policy", "export-policy", "register-policy"} <= users


def test_the_laptop_registers_what_dev_does_but_for_tls_and_passwords(dev: Recording) -> None:
    # What dev leaves out to cost less.
    laptop = recorded("localstack", functionAlarms=[], dashboard=False)

    def names(recording: Recording) -> set[tuple[str, str]]:
        return {(found.type.rsplit(":", 1)[-1], found.name) for found in recording.resources if found.custom}

    missing, added = names(dev) - names(laptop), names(laptop) - names(dev)
    assert {kind for kind, _name in missing} == {
        "BucketPolicy",
        "QueuePolicy",
        "RandomPassword",
        "SecretVersion",
        "VpcEndpoint",
    }
    assert {kind for kind, _name in added} == {"VpcEndpoint", "Secret", "SecretPolicy"}
    assert laptop.of(":Schedule")["pipeline-schedule"]["state"] == "DISABLED"


def test_every_function_has_its_own_role_and_a_log_group_that_expires(dev: Recording) -> None:
    functions = dev.of("function:Function")
    assert len(functions) == 4
    assert len({inputs["role"] for inputs in functions.values()}) == 4
    groups = {inputs["name"]: inputs["retentionInDays"] for inputs in dev.of(":LogGroup").values()}
    assert all(groups[f"/aws/lambda/{inputs['name']}"] == 30 for inputs in functions.values())


def test_the_laptop_has_an_entry_for_every_secret_of_the_catalogue_and_dev_for_the_login() -> None:
    secrets = load_catalogue().secrets
    laptop = recorded("localstack")
    described = {inputs["name"]: inputs["description"] for inputs in laptop.of("secret:Secret").values()}
    assert described == {f"goldlake/{name}": secret.description for name, secret in secrets.items()}
    assert sorted(laptop.exports["secrets_entries"]) == sorted(secrets)
    assert recorded("dev").exports["secrets_entries"] == ["redshift-admin"]


def test_only_functions_that_need_the_warehouse_are_in_the_vpc(dev: Recording) -> None:
    functions = dev.of("function:Function")
    assert {name for name, inputs in functions.items() if inputs.get("vpcConfig")} == {"dbt-runner", "export"}


def test_no_function_is_given_a_password(everything: Recording) -> None:
    for inputs in everything.of("function:Function").values():
        variables = inputs["environment"].get("variables") or {}
        assert not any("password" in name.lower() for name in variables)
        assert "made-up-password" not in json.dumps(variables)


def test_a_generated_password_goes_to_its_secret_and_the_namespace_only(dev: Recording) -> None:
    holders = {found.type.rsplit(":", 1)[-1] for found in dev.resources if "made-up-password" in repr(found.inputs)}
    assert holders == {"SecretVersion", "Namespace"}


def test_functions_sign_in_by_iam_unless_a_password_is_asked_for(dev: Recording) -> None:
    by_iam = dev.of("function:Function")["dbt-runner"]["environment"]["variables"]
    assert by_iam["REDSHIFT_WORKGROUP"] == "goldlake-gold-workgroup"
    assert "REDSHIFT_SECRET" not in by_iam
    assert {name for name, s in statements(dev) if "redshift-serverless:GetCredentials" in s["Action"]} == {
        "dbt-runner-policy",
        "export-policy",
    }
    password = recorded("dev", signIn="password")
    by_password = password.of("function:Function")["dbt-runner"]["environment"]["variables"]
    assert "REDSHIFT_WORKGROUP" not in by_password
    assert by_password["REDSHIFT_SECRET"].endswith("redshift-dbt")
    assert not [name for name, s in statements(password) if "redshift-serverless:GetCredentials" in s["Action"]]


def test_dbt_and_export_have_a_login_of_their_own_and_cannot_read_the_admins() -> None:
    found = recorded("dev", signIn="password")
    functions = found.of("function:Function")
    for name in ("dbt-runner", "export"):
        assert functions[name]["environment"]["variables"]["REDSHIFT_SECRET"] == found.exports["secrets_dbt_login_arn"]
    readable = {name: s["Resource"] for name, s in statements(found) if "secretsmanager:GetSecretValue" in s["Action"]}
    assert readable == {f"{name}-policy": [found.exports["secrets_dbt_login_arn"]] for name in ("dbt-runner", "export")}
    version = found.of(":SecretVersion")["warehouse-builder-login"]
    assert version["secretId"] == found.exports["secrets_dbt_login_arn"] == found.exports["warehouse_dbt_login_arn"]
    assert json.loads(version["secretString"])["username"] == DBT_USER
    # Pulumi makes the password: seeding is not to touch it. People and `goldlake query` use the admin's login.
    assert found.exports["secrets_entries"] == ["redshift-admin"]
    assert found.exports["transform_warehouse_login_arn"].endswith("redshift-admin")


def test_by_iam_there_is_no_login_of_dbt(dev: Recording) -> None:
    assert dev.exports["secrets_dbt_login_arn"] == dev.exports["warehouse_dbt_login_arn"] == ""
    assert set(dev.of("secret:Secret")) == {"redshift-admin"}
    assert DBT_USER not in repr([found.inputs for found in dev.resources])


def test_the_laptops_user_of_dbt_begins_with_the_password_that_is_seeded() -> None:
    laptop = recorded("localstack")
    password = load_catalogue().local_default(DBT_LOGIN, "password")
    assert stored_password(DBT_USER, password) in laptop.resource("warehouse-access").inputs["sql"]
    assert password not in repr([found.inputs for found in laptop.resources])
    variables = laptop.of("function:Function")["dbt-runner"]["environment"]["variables"]
    assert variables["REDSHIFT_SECRET"] == laptop.exports["secrets_dbt_login_arn"]


def test_in_a_warehouse_of_ones_own_dbt_and_export_are_whoever_is_seeded() -> None:
    units = [unit for unit in DEFAULT_UNITS if unit != "warehouse"]
    found = recorded("dev", units=units, warehouseHost="wh.example.com", signIn="password")
    assert set(found.of("secret:Secret")) == {"redshift-admin"}
    variables = found.of("function:Function")["export"]["environment"]["variables"]
    assert variables["REDSHIFT_SECRET"] == found.exports["secrets_warehouse_login_arn"]


@pytest.mark.parametrize("lacking", [SecretsOutputs, WarehouseOutputs])
def test_a_login_that_another_stack_does_not_have_is_said_to_be_missing(
    lacking: type[UnitOutputs], tmp_path: Path
) -> None:
    class Without(Other):
        def get_output(self, name: Any) -> Any:
            without = name == lacking.export_name("dbt_login_arn")
            return pulumi.Output.from_input("") if without else super().get_output(name)

    base = Without((FoundationOutputs, LakeOutputs, SecretsOutputs, WarehouseOutputs))
    unit = "warehouse" if lacking is SecretsOutputs else "transform"
    split = settings(
        units=[unit],
        imports={name: "base" for name in ("foundation", "lake", "secrets", "warehouse") if name != unit},
        signIn="password",
        artifactsDir=str(stand_ins(tmp_path)),
    )
    with pytest.raises(Exception, match=f"unit {lacking.unit} was deployed without a login for dbt"):
        record(lambda: deploy(split, lambda _stack: base))


def test_both_logins_are_rotated_only_if_asked_for(dev: Recording, everything: Recording) -> None:
    assert not dev.of(":SecretRotation")
    assert not {"rotate", "rotate-dbt"} & dev.of("function:Function").keys()
    rotations = everything.of(":SecretRotation")
    assert {name: rotation["secretId"] for name, rotation in rotations.items()} == {
        "redshift-admin-rotation": everything.exports["warehouse_login_arn"],
        "redshift-dbt-rotation": everything.exports["warehouse_dbt_login_arn"],
    }
    assert all(rotation["rotationRules"] == {"automaticallyAfterDays": 30} for rotation in rotations.values())


@pytest.mark.parametrize(("login", "name"), ROTATIONS.items())
def test_each_rotation_has_a_function_in_the_network_with_the_driver(
    login: str, name: str, everything: Recording
) -> None:
    function = everything.of("function:Function")[name]
    assert function["handler"] == "lambdas.rotate.handler.handle"
    assert everything.resource(f"{login}-rotation").depends_on >= {name, f"{login}-rotator"}
    # With the driver, and nothing of dbt's project.
    assert [arn.rsplit(":", 1)[-1] for arn in function["layers"]] == ["dbt-redshift"]
    assert function["vpcConfig"] == everything.of("function:Function")["dbt-runner"]["vpcConfig"]


@pytest.mark.parametrize(
    ("function", "output"), [("rotate", "warehouse_login_arn"), ("rotate-dbt", "warehouse_dbt_login_arn")]
)
def test_a_rotation_knows_the_warehouse_and_may_change_its_login_alone(
    function: str, output: str, everything: Recording
) -> None:
    variables = everything.of("function:Function")[function]["environment"]["variables"]
    login = everything.exports[output]
    assert variables == {
        "REDSHIFT_HOST": "warehouse.example.com",
        "REDSHIFT_PORT": "5439",
        "REDSHIFT_DATABASE": "analytics",
        "REDSHIFT_SSL": "true",
        "REDSHIFT_SECRET": login,
    }
    rights = {
        action: s["Resource"]
        for name, s in statements(everything)
        if name == f"{function}-policy"
        for action in s["Action"]
    }
    assert rights["secretsmanager:PutSecretValue"] == rights["secretsmanager:UpdateSecretVersionStage"] == [login]
    assert rights["kms:GenerateDataKey"] == [everything.exports["foundation_key_arn"]]
    others = {name for name, s in statements(everything) if "secretsmanager:PutSecretValue" in s["Action"]}
    assert others == {"rotate-policy", "rotate-dbt-policy"}


def test_the_endpoint_lets_through_what_the_rotation_calls(everything: Recording) -> None:
    (endpoint,) = [
        inputs for inputs in everything.of(":VpcEndpoint").values() if inputs["serviceName"].endswith("secretsmanager")
    ]
    through = {action for statement in json.loads(endpoint["policy"])["Statement"] for action in statement["Action"]}
    called = {action for name, s in statements(everything) if name.startswith("rotate") for action in s["Action"]}
    assert {action for action in called if action.startswith("secretsmanager:")} <= through


def test_a_rotation_that_fails_raises_an_alarm(everything: Recording) -> None:
    assert {"rotate-errors", "rotate-dbt-errors"} <= everything.of(":MetricAlarm").keys()


def test_the_dashboard_shows_the_functions_that_there_are(everything: Recording) -> None:
    for found in (recorded("localstack"), everything):
        body = json.loads(found.one(":Dashboard")["dashboardBody"])
        shown = {
            metric[3]
            for widget in body["widgets"]
            for metric in widget["properties"]["metrics"]
            if metric[0] == "AWS/Lambda"
        }
        assert shown == {inputs["name"] for inputs in found.of("function:Function").values()}


def test_a_stack_can_do_without_the_dashboard_and_the_functions_alarms(dev: Recording) -> None:
    assert dev.exports["foundation_dashboard_name"] == ""
    assert dev.of(":Dashboard") == {}
    assert dev.of(":MetricAlarm").keys() == {"dbt-runner-failed-messages", "warehouse-limit-monthly-emit-metric-alarm"}
    some = recorded("dev", functionAlarms=["errors", "duration"]).of(":MetricAlarm")
    assert {"check-errors", "check-duration"} <= some.keys()
    assert "check-throttles" not in some


def test_what_aws_rotates_is_left_to_it_and_dbts_login_is_ours() -> None:
    found = recorded("dev", signIn="password", adminPassword="managed", rotateLoginDays=30)
    assert found.one(":SecretRotation")["secretId"] == found.exports["warehouse_dbt_login_arn"]
    assert "rotate" not in found.of("function:Function")


def test_a_warehouse_of_ones_own_can_have_its_login_rotated() -> None:
    units = [unit for unit in DEFAULT_UNITS if unit != "warehouse"]
    found = recorded("dev", units=units, warehouseHost="wh.example.com", signIn="password", rotateLoginDays=7)
    assert found.one(":SecretRotation")["secretId"] == found.exports["secrets_warehouse_login_arn"]
    assert found.of("function:Function")["rotate"]["environment"]["variables"]["REDSHIFT_HOST"] == "wh.example.com"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"signIn": "iam", "rotateLoginDays": 30}, "signIn must be password"),
        (
            {
                "units": ["foundation", "lake", "secrets", "transform"],
                "warehouseHost": "wh.example.com",
                "signIn": "password",
                "adminPassword": "managed",
                "rotateLoginDays": 30,
            },
            "adminPassword must not be managed",
        ),
        ({"signIn": "password", "rotateLoginDays": 1001}, "1 to 1000 days"),
    ],
)
def test_a_rotation_that_could_not_work_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        settings(**values)


@pytest.mark.parametrize("rotated", [False, True])
def test_pulumis_versions_of_the_logins_outlive_rotations(rotated: bool, everything: Recording) -> None:
    found = everything if rotated else recorded("dev", signIn="password")
    assert bool(found.of(":SecretRotation")) == rotated
    # A version without a label is deleted, and would be put again with the password of the beginning.
    stages = {name: inputs["versionStages"] for name, inputs in found.of(":SecretVersion").items()}
    assert stages == {name: ["AWSCURRENT", "PULUMI"] for name in ("warehouse-login", "warehouse-builder-login")}
    # AWSCURRENT moves on; the admin's value is still followed, as the namespace's password is. dbt's user keeps the
    # password that it has, so its entry does, too.
    given = {name: found.resource(name, ":SecretVersion") for name in stages}
    assert given["warehouse-login"].ignore_changes == {"versionStages"}
    assert given["warehouse-builder-login"].ignore_changes == {"versionStages", "secretString"}
    # Its label moves to the version that replaces it, and cannot be taken off again.
    assert all(version.retain_on_delete for version in given.values())


def test_the_login_is_in_its_entry_before_the_warehouse_can_be_reached(dev: Recording) -> None:
    assert "warehouse-login" in dev.resource("warehouse", ":Namespace").depends_on


def test_only_the_endpoint_that_the_sign_in_needs_is_there(dev: Recording) -> None:
    def services(recording: Recording) -> set[str]:
        return {inputs["serviceName"].rsplit(".", 1)[-1] for inputs in recording.of(":VpcEndpoint").values()}

    assert services(dev) == {"s3", "redshift-serverless"}
    assert services(recorded("dev", signIn="password")) == {"s3", "secretsmanager"}


def test_a_function_may_only_write_where_its_step_writes(dev: Recording) -> None:
    writers: dict[str, set[str]] = {}
    for name, statement in statements(dev):
        if "s3:PutObject" in statement["Action"]:
            for resource in statement["Resource"]:
                bucket, _, path = resource.removeprefix("arn:aws:s3:::").partition("/")
                writers.setdefault(name, set()).add(f"{bucket.split('-')[1]}/{path}")
    assert writers == {"dbt-runner-policy": {"artifacts/dbt/*"}, "export-policy": {"gold/gold/*"}}


def test_check_may_ask_for_all_tables_of_a_silver_database_at_once_and_brings_no_engine(dev: Recording) -> None:
    (rights,) = [s for name, s in statements(dev) if name == "check-policy" and "glue:GetTables" in s["Action"]]
    assert all(action.startswith("glue:Get") for action in rights["Action"])
    assert {resource.split(":")[-1] for resource in rights["Resource"]} == {
        "catalog",
        "database/silver_*",
        "table/silver_*/*",
    }
    layers = [arn.rsplit(":", 1)[-1] for arn in dev.of("function:Function")["check"]["layers"]]
    assert layers == ["dbt-project", "delta"]


def test_the_pipeline_calls_the_alias_of_the_dbt_runner(dev: Recording) -> None:
    states = json.loads(dev.one(":StateMachine")["definition"])["States"]
    assert states["Build"]["Parameters"]["FunctionName"] == f"arn:aws:made-up:eu-west-1:{ACCOUNT}:{alias(dev)}"


def test_the_pipeline_goes_on_with_a_build_as_often_as_it_is_told(adjusted: Recording) -> None:
    definition = json.loads(adjusted.one(":StateMachine")["definition"])
    assert definition["States"]["RetryMore"]["Choices"][0]["NumericLessThan"] == 5
    assert definition["TimeoutSeconds"] > (4 + 5) * 900


def test_the_dbt_runner_is_told_which_macros_an_event_may_call(dev: Recording, adjusted: Recording) -> None:
    assert DBT_OPERATIONS not in dev.of("function:Function")["dbt-runner"]["environment"]["variables"]
    functions = adjusted.of("function:Function")
    assert functions["dbt-runner"]["environment"]["variables"][DBT_OPERATIONS] == "vacuum_gold,grant_all"
    assert DBT_OPERATIONS not in functions["export"]["environment"]["variables"]


def alias(recording: Recording) -> str:
    (name,) = recording.of(":Alias").keys() - recording.of("kms/alias:Alias").keys()
    return name


def test_trino_is_registered_in_only_where_there_is_one(dev: Recording, everything: Recording) -> None:
    assert "trino" not in dev.of(":LayerVersion")
    assert "trino" in everything.of(":LayerVersion")
    variables = everything.of("function:Function")["register"]["environment"]["variables"]
    assert variables["TRINO_URL"] == "https://goldlake@trino.example.com/delta"


def test_a_silver_bucket_that_exists_is_adopted_with_its_databases(adjusted: Recording) -> None:
    assert adjusted.exports["lake_silver_bucket"] == "acme-silver"
    assert set(adjusted.of(":CatalogDatabase")) == {"gold"}
    assert not any("silver" in name for name in adjusted.of("bucket:Bucket"))
    readable = {r for name, s in statements(adjusted) if name == "check-policy" for r in s["Resource"]}
    assert {"arn:aws:s3:::acme-silver", "arn:aws:s3:::acme-silver/silver/*"} <= readable


def test_a_network_that_exists_is_adopted() -> None:
    zones = iter("abcabc")
    subnets = {f"subnet-0123456789abcdef{n}": next(zones) for n in range(3)}

    def subnet(args: dict[str, Any]) -> dict[str, Any]:
        zone = subnets[args["id"]]
        return {
            "id": args["id"],
            "vpcId": "vpc-0123456789abcdef0",
            "availabilityZone": zone,
            "availabilityZoneId": zone,
            "availableIpAddressCount": 200,
        }

    adopted = recorded(
        "dev",
        calls={"aws:ec2/getSubnet:getSubnet": subnet},
        existingVpcId="vpc-0123456789abcdef0",
        existingSubnetIds=sorted(subnets),
        existingRouteTableIds=["rtb-0123456789abcdef0"],
    )
    assert not adopted.of(":Vpc")
    assert not adopted.of(":Subnet")
    assert adopted.exports["foundation_subnet_ids"] == sorted(subnets)
    assert adopted.of(":VpcEndpoint")


def test_a_warehouse_that_exists_is_used_instead_of_the_unit() -> None:
    units = [unit for unit in DEFAULT_UNITS if unit != "warehouse"]
    found = recorded("dev", units=units, warehouseHost="wh.example.com", signIn="password")
    assert not found.of(":Workgroup")
    assert found.exports["transform_warehouse_host"] == "wh.example.com"
    variables = found.of("function:Function")["export"]["environment"]["variables"]
    assert variables["REDSHIFT_HOST"] == "wh.example.com"


def test_missing_artifacts_are_named_before_the_first_resource(tmp_path: Path) -> None:
    registered: list[Recording] = []
    with pytest.raises(ConfigurationError, match="goldlake layers build") as refused:
        registered.append(record(lambda: deploy(settings(artifactsDir=str(tmp_path)))))
    assert all(name in refused.value.message for name in (*LAYERS, FUNCTIONS_CODE))


def settings(**values: Any) -> Settings:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return parse_settings({"owner": "me", "costCentre": "none", **texts}, stack="dev", region="eu-west-1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"units": ["lake", "pipeline"]},
            ["pipeline needs foundation", "pipeline needs transform", "goldlake:imports"],
        ),
        (
            {"units": ["warehouse"], "imports": {"foundation": "base"}},
            ["warehouse needs lake", "warehouse needs secrets"],
        ),
        ({"units": ["lake"], "imports": {"lake": "other"}}, ["lake is in goldlake:units and in goldlake:imports"]),
        ({"units": ["lake"], "customerKey": True}, ["lake needs foundation"]),
        (
            {"units": ["foundation", "pipeline"], "imports": {"transform": "acme"}},
            ["pipeline needs transform of stack acme, which needs foundation of this stack", "wait for each other"],
        ),
    ],
)
def test_units_that_do_not_fit_together_are_refused_with_their_names(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="do not fit together") as refused:
        plan(settings(**values))
    assert all(word in refused.value.message for word in words)


def test_nothing_is_registered_when_units_do_not_fit_together() -> None:
    asked: list[str] = []

    def refer(stack: str) -> Any:
        asked.append(stack)

    with pytest.raises(ConfigurationError):
        record(lambda: deploy(settings(units=["pipeline"], imports={"foundation": "base"}), refer))
    assert asked == []


def test_units_are_deployed_after_what_they_need_in_whatever_order_they_are_named() -> None:
    order = plan(settings(units=list(reversed(DEFAULT_UNITS))))
    for unit, wanted in needs(settings()).items():
        assert all(order.index(need) < order.index(unit) for need in wanted)


class Other:
    """A reference to another stack, whose outputs are called after themselves."""

    def __init__(self, kinds: tuple[type[UnitOutputs], ...]) -> None:
        self._known = {
            kind.export_name(name): ["a", "b", "c"] if name == "subnet_ids" else f"{kind.unit}-{name}"
            for kind in kinds
            for name in kind.names()
        } | {"warehouse_port": 5439.0}

    def get_output(self, name: Any) -> Any:
        return pulumi.Output.from_input(self._known.get(name))


def stand_ins(folder: Path) -> Path:
    """Fill a folder with what stands for the built layers."""
    for name in (*LAYERS, FUNCTIONS_CODE):
        (folder / f"{name}-0123456789abcdef.zip").touch()
    return folder


def test_split_stacks_take_what_the_other_stacks_export(tmp_path: Path) -> None:
    base = Other((FoundationOutputs, LakeOutputs, SecretsOutputs))
    warehouse = Other((WarehouseOutputs,))
    asked: list[str] = []

    def refer(stack: str) -> Other:
        asked.append(stack)
        return {"base": base, "wh": warehouse}[stack]

    split = settings(
        units=["transform", "pipeline"],
        imports={"foundation": "base", "lake": "base", "secrets": "base", "warehouse": "wh"},
        artifactsDir=str(stand_ins(tmp_path)),
    )
    recording = record(lambda: deploy(split, refer))
    assert sorted(asked) == ["base", "wh"]
    # What is imported is exported again, so that `goldlake run` finds it.
    assert {name.split("_", 1)[0] for name in recording.exports} == set(DEFAULT_UNITS)
    function = recording.of("function:Function")["dbt-runner"]
    assert function["vpcConfig"]["subnetIds"] == ["a", "b", "c"]
    assert function["environment"]["variables"]["REDSHIFT_HOST"] == "warehouse-host"
    assert function["environment"]["variables"]["REDSHIFT_PORT"] == "5439"


def test_an_output_that_the_other_stack_lacks_fails_the_program() -> None:
    lacking = Other((LakeOutputs, SecretsOutputs))
    split = settings(units=["warehouse"], imports={"foundation": "base", "lake": "base", "secrets": "base"})
    with pytest.raises(Exception, match="stack 'base' has no output 'foundation_"):
        record(lambda: deploy(split, lambda _stack: lacking))


def test_a_daily_snapshot_is_taken_only_if_asked_for(dev: Recording, adjusted: Recording) -> None:
    assert not [name for name in dev.of(":Schedule") if "snapshot" in name]
    (snapshot,) = [inputs for name, inputs in adjusted.of(":Schedule").items() if "snapshot" in name]
    assert snapshot["target"]["arn"].endswith(":createSnapshot")
    assert json.loads(snapshot["target"]["input"])["RetentionPeriod"] == 14


def test_outputs_have_the_shape_unit_field(dev: Recording) -> None:
    assert dev.exports["lake_gold_bucket"] == "goldlake-gold-123456789012-us-east-1"
    assert dev.exports["pipeline_state_machine_arn"].endswith(":pipeline")
    assert dev.exports["transform_warehouse_host"] == "warehouse.example.com"


@pytest.mark.parametrize("stack", ["dev", "localstack"])
def test_a_stack_file_declares_known_settings_only(project_root: Path, stack: str) -> None:
    known = set(yaml.safe_load((project_root / "Pulumi.yaml").read_text())["config"])
    used = yaml.safe_load((project_root / f"Pulumi.{stack}.yaml").read_text())["config"]
    assert {key for key in used if key.startswith("goldlake:")} <= known


def test_production_is_deployed_as_its_example_says(project_root: Path) -> None:
    found = record_stack(project_root, "prod.example")
    assert found.of("kms/key:Key")
    assert found.one(":Namespace").get("manageAdminPassword") is True
    assert not found.of(":RandomPassword")
