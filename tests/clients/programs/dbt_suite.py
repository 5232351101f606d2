"""dbt's own adapter tests (dbt-tests-adapter) against the local Redshift; run by pytest in the clients' environment.

    pytest -p dbt.tests.fixtures.project tests/clients/programs/dbt_suite.py

The classes named in CLASSES are taken as they are but for what a base class leaves to each adapter: expected types,
error texts, SQL. Where Redshift's answers differ from the base class's, SPECIAL says how.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dbt.tests.adapter.basic import files
from dbt.tests.util import run_dbt


def snake(name: str) -> str:
    """Return a class's name as its module has it."""
    return re.sub("(?<!^)([A-Z])", r"_\1", name).lower()


TYPES = "BigInt Boolean Float Int Numeric String Timestamp"
UTILITIES = (
    "AnyValue BoolOr Cast CastBoolToText Concat Date DateSpine DateTrunc Equals Except GenerateSeries"
    " GetIntervalsBetween GetPowersOfTwo Hash Intersect LastDay Length Listagg Position Replace Right SafeCast"
    " SplitPart StringLiteral ArrayAppend ArrayConcat ArrayConstruct"
)
# Modules of dbt.tests.adapter, and the test classes that are for Redshift.
CLASSES = {
    "aliases.test_aliases": "BaseAliases BaseAliasErrors BaseSameAliasDifferentSchemas",
    "basic.test_adapter_methods": "BaseAdapterMethod",
    "basic.test_base": "BaseSimpleMaterializations",
    "basic.test_empty": "BaseEmpty",
    "basic.test_ephemeral": "BaseEphemeral",
    "basic.test_generic_tests": "BaseGenericTests",
    "basic.test_incremental": "BaseIncremental BaseIncrementalNotSchemaChange BaseIncrementalBadStrategy",
    "basic.test_singular_tests": "BaseSingularTests",
    "basic.test_singular_tests_ephemeral": "BaseSingularTestsEphemeral",
    "basic.test_snapshot_check_cols": "BaseSnapshotCheckCols",
    "basic.test_snapshot_timestamp": "BaseSnapshotTimestamp",
    "basic.test_table_materialization": "BaseTableMaterialization",
    "basic.test_validate_connection": "BaseValidateConnection",
    "caching.test_caching": "BaseCachingLowercaseModel BaseCachingUppercaseModel BaseCachingSelectedSchemaOnly"
    " BaseNoPopulateCache",
    "column_types.test_column_types": "BaseColumnTypes",
    "concurrency.test_concurrency": "BaseConcurrency",
    "constraints.test_constraints": "BaseTableConstraintsColumnsEqual BaseViewConstraintsColumnsEqual"
    " BaseIncrementalConstraintsColumnsEqual BaseConstraintsRuntimeDdlEnforcement BaseConstraintsRollback"
    " BaseIncrementalConstraintsRuntimeDdlEnforcement BaseIncrementalConstraintsRollback"
    " BaseModelConstraintsRuntimeEnforcement BaseConstraintQuotedColumn BaseIncrementalForeignKeyConstraint",
    "dbt_clone.test_dbt_clone": "BaseCloneNotPossible BaseCloneSameTargetAndState",
    "dbt_show.test_dbt_show": "BaseShowLimit BaseShowSqlHeader BaseShowDoesNotHandleDoubleLimit",
    "empty.test_empty": "BaseTestEmpty BaseTestEmptyInlineSourceRef BaseTestEmptySeedFlag",
    "ephemeral.test_ephemeral": "BaseEphemeralMulti BaseEphemeralNested BaseEphemeralErrorHandling",
    "functions.test_udfs": "UDFsBasic DeterministicUDF StableUDF NonDeterministicUDF ErrorForUnsupportedType"
    " PythonUDFNotSupported",
    "grants.test_incremental_grants": "BaseIncrementalGrants",
    "grants.test_model_grants": "BaseModelGrants",
    "grants.test_seed_grants": "BaseSeedGrants",
    "grants.test_snapshot_grants": "BaseSnapshotGrants",
    "hooks.test_model_hooks": "BaseDuplicateHooksInConfigs BaseHookRefs BaseHooksRefsOnSeeds"
    " BasePrePostModelHooksOnSeeds BasePrePostModelHooksOnSnapshots BasePrePostSnapshotHooksInConfigKwargs",
    "incremental.test_incremental_merge_exclude_columns": "BaseMergeExcludeColumns",
    "incremental.test_incremental_microbatch": "BaseMicrobatch",
    "incremental.test_incremental_on_schema_change": "BaseIncrementalOnSchemaChange",
    "incremental.test_incremental_predicates": "BaseIncrementalPredicates",
    "incremental.test_incremental_unique_id": "BaseIncrementalUniqueKey",
    "persist_docs.test_persist_docs": "BasePersistDocs BasePersistDocsColumnMissing"
    " BasePersistDocsCommentOnQuotedColumn BasePersistDocsAllColumnsMissing BasePersistDocsQuotedColumnCaseSensitive"
    " BasePersistDocsQuotedDescriptionNotAppliedOnMismatch",
    "query_comment.test_query_comment": "BaseQueryComments BaseMacroQueryComments BaseMacroInvalidQueryComments"
    " BaseNullQueryComments BaseEmptyQueryComments",
    "relations.test_changing_relation_type": "BaseChangeRelationTypeValidator",
    "relations.test_dropping_schema_named": "BaseDropSchemaNamed",
    "sample_mode.test_sample_mode": "BaseSampleModeTest",
    "simple_copy.test_simple_copy": "SimpleCopyBase EmptyModelsArentRunBase",
    "simple_seed.test_seed": "BaseTestEmptySeed BaseSimpleSeedEnabledViaConfig",
    "simple_seed.test_seed_type_override": "BaseSimpleSeedColumnOverride",
    "simple_snapshot.new_record_check_mode": "BaseSnapshotNewRecordCheckMode",
    "simple_snapshot.new_record_timestamp_mode": "BaseSnapshotNewRecordTimestampMode",
    "simple_snapshot.test_snapshot": "BaseSimpleSnapshot BaseSnapshotCheck",
    "store_test_failures_tests.basic": "StoreTestFailuresAsInteractions StoreTestFailuresAsProjectLevelOff"
    " StoreTestFailuresAsProjectLevelView StoreTestFailuresAsGeneric StoreTestFailuresAsProjectLevelEphemeral"
    " StoreTestFailuresAsExceptions",
    "store_test_failures_tests.test_store_test_failures": "BaseStoreTestFailures BaseStoreTestFailuresLimit",
    "unit_testing.test_case_insensitivity": "BaseUnitTestCaseInsensivity",
    "unit_testing.test_invalid_input": "BaseUnitTestInvalidInput",
    "unit_testing.test_quoted_reserved_word_column_names": "BaseUnitTestQuotedReservedWordColumnNames",
    "unit_testing.test_types": "BaseUnitTestingTypes",
    **{f"utils.data_types.test_type_{kind.lower()}": f"BaseType{kind}" for kind in TYPES.split()},
    **{f"utils.test_{snake(name)}": f"Base{name}" for name in UTILITIES.split()},
    "utils.test_current_timestamp": "BaseCurrentTimestampNaive",
    "utils.test_dateadd": "BaseDateAdd",
    "utils.test_datediff": "BaseDateDiff",
    "utils.test_escape_single_quotes": "BaseEscapeSingleQuotesQuote",
    "utils.test_null_compare": "BaseNullCompare BaseMixedNullCompare",
    "utils.test_timestamps": "BaseCurrentTimestamps",
}


@pytest.fixture(scope="class")
def dbt_profile_target() -> dict[str, Any]:
    """The login that the environment names."""
    return {
        "type": "redshift",
        "host": os.environ["REDSHIFT_HOST"],
        "port": int(os.environ["REDSHIFT_PORT"]),
        "dbname": os.environ["REDSHIFT_DATABASE"],
        "user": os.environ["REDSHIFT_USER"],
        "password": os.environ["REDSHIFT_PASSWORD"],
        "sslmode": "disable",
        "threads": 4,
        "connect_timeout": 30,
    }


def constant(value: Any, scope: Any = "class") -> Any:
    """Return a fixture that gives the value."""

    def given(self: Any) -> Any:
        return value

    return pytest.fixture(scope=scope)(given)


# Constraints: Redshift knows text as varchar and enforces NOT NULL only, in words of its own.
DATA_TYPES = [
    ["1", "integer", "INTEGER"],
    ["'1'", "text", "TEXT"],
    ["cast('2019-01-01' as date)", "date", "DATE"],
    ["true", "bool", "BOOL"],
    ["'2013-11-03 00:00:00-07'::timestamptz", "timestamptz", "TIMESTAMPTZ"],
    ["'2013-11-03 00:00:00-07'::timestamp", "timestamp", "TIMESTAMP"],
    ["'1'::numeric", "numeric", "NUMERIC"],
]


def _data_types(self: Any, schema_int_type: str, int_type: str, string_type: str) -> list[list[str]]:
    return [["1", schema_int_type, int_type], ["'1'", string_type, string_type], *DATA_TYPES[2:]]


def created(columns: str, rows: str) -> str:
    """Return the SQL by which dbt-redshift makes a table with constraints."""
    return f"create table <model_identifier> ({columns}); insert into <model_identifier> ({rows});"


ROWS = """select id, color, date_day from (
    {note}select 'blue' as color, 1 as id, '2019-01-01' as date_day) as model_subq"""
NOTED = "-- depends_on: <foreign_key_model_identifier> "
ENFORCED = created(
    "id integer not null primary key references <foreign_key_model_identifier> (id) unique, color text, date_day text",
    ROWS.format(note=NOTED),
)
MODEL_LEVEL = created(
    "id integer not null, color text, date_day text, primary key (id),"
    " constraint strange_uniqueness_requirement unique (color, date_day),"
    " foreign key (id) references <foreign_key_model_identifier> (id)",
    ROWS.format(note=NOTED),
)
QUOTED = created(
    'id integer not null, "from" text not null, date_day text',
    """select id, "from", date_day from (
    select 'blue' as "from", 1 as id, '2019-01-01' as date_day) as model_subq""",
)
NOT_NULL = {"expected_error_messages": constant(["Cannot insert a NULL value into column id"], "function")}

# A seed's varchar is as wide as its longest value: wider, for tests that append to it.
WIDER = "seeds:\n  - name: added\n    config:\n      column_types:\n        name: varchar(64)\n"
SEEDS = {"base.csv": files.seeds_base_csv, "added.csv": files.seeds_added_csv, "seeds.yml": WIDER}

COLUMN_TYPES = {
    "smallint_col": ("1::smallint", "integer"),
    "int_col": ("2::int", "integer"),
    "bigint_col": ("3::bigint", "integer"),
    "real_col": ("8.0::real", "float"),
    "float8_col": ("10.0::float8", "float"),
    "double_col": ("12.0::double precision", "float"),
    "numeric_col": ("13.0::numeric", "numeric"),
    "decimal_col": ("14.0::decimal", "numeric"),
    "varchar_col": ("'15'::varchar(20)", "string"),
    "text_col": ("'16'::text", "string"),
}


def column_models() -> dict[str, str]:
    """Return a model with a column of each type, and what dbt's is_type says of it."""
    columns = ", ".join(f"{value} as {name}" for name, (value, _kind) in COLUMN_TYPES.items())
    checks = "".join(
        f"            {name}: ['{kind}', '{'not number' if kind == 'string' else 'number'}']\n"
        for name, (_value, kind) in COLUMN_TYPES.items()
    )
    text = f"models:\n  - name: model\n    data_tests:\n      - is_type:\n          column_map:\n{checks}"
    return {"model.sql": f"select {columns}", "schema.yml": text}


SEED_TYPES = {
    "seed_enabled": {"birthday": "date", "seed_id": "character varying(256)"},
    "seed_tricky": {
        "seed_id": "integer",
        "seed_id_str": "character varying(256)",
        "a_bool": "boolean",
        "looks_like_a_bool": "character varying(256)",
        "a_date": "timestamp without time zone",
        "looks_like_a_date": "character varying(256)",
        "relative": "character varying(9)",
        "weekday": "character varying(8)",
    },
}


def seed_models() -> dict[str, str]:
    """Return the properties that say which types the seeds' columns get."""
    lines = ["seeds:"]
    for seed, columns in SEED_TYPES.items():
        lines += [f"  - name: {seed}", "    columns:"]
        for column, kind in columns.items():
            lines += [f"      - name: {column}", "        data_tests:"]
            lines += ["          - column_type:", f"              type: {kind}"]
    return {"schema.yml": "\n".join(lines) + "\n"}


def _seeds_with_types(self: Any, project: Any) -> None:
    assert len(run_dbt(["seed"])) == 2
    assert len(run_dbt(["test"])) == 10


MICROBATCH = """{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='event_time',
    batch_size='day', begin=modules.datetime.datetime(2020, 1, 1, 0, 0, 0)) }}
select * from {{ ref('input_model') }}"""


def _two_rows(self: Any, project: Any) -> str:
    rows = "(4, '2020-01-04 00:00:00-0'), (5, '2020-01-05 00:00:00-0')"
    return f"insert into {project.test_schema}.input_model (id, event_time) values {rows}"  # noqa: S608 - our own


UNIT_TYPES = [
    ["1", "1"],
    ["1.0", "1.0"],
    ["'1'", "1"],
    ["'1'::numeric", "1"],
    ["'string'", "string"],
    ["true", "true"],
    ["DATE '2020-01-02'", "2020-01-02"],
    ["TIMESTAMP '2013-11-03 00:00:00-0'", "2013-11-03 00:00:00-0"],
    ["TIMESTAMPTZ '2013-11-03 00:00:00-0'", "2013-11-03 00:00:00-0"],
    ['JSON_PARSE(\'{"bar": "baz", "balance": 7.77}\')', '\'{"bar": "baz", "balance": 7.77}\''],
]


def _basic_udf(self: Any, sql: str) -> None:
    assert "VOLATILE" in sql


def special() -> dict[str, dict[str, Any]]:
    """Return what differs on Redshift, by test class."""
    from dbt.tests.adapter.functions.files import MY_UDF_YML

    functions = {"functions": constant({"price_for_xlarge.sql": "select $1 * 2", "price_for_xlarge.yml": MY_UDF_YML})}
    typed = {"data_types": pytest.fixture(_data_types)}
    now = ("current_timestamp", "current_timestamp_in_utc_backcompat", "current_timestamp_backcompat")
    return {
        "BaseTableConstraintsColumnsEqual": typed,
        "BaseViewConstraintsColumnsEqual": typed,
        "BaseIncrementalConstraintsColumnsEqual": typed,
        "BaseConstraintsRuntimeDdlEnforcement": {"expected_sql": constant(ENFORCED)},
        "BaseIncrementalConstraintsRuntimeDdlEnforcement": {"expected_sql": constant(ENFORCED)},
        "BaseModelConstraintsRuntimeEnforcement": {"expected_sql": constant(MODEL_LEVEL)},
        "BaseConstraintQuotedColumn": {"expected_sql": constant(QUOTED)},
        "BaseConstraintsRollback": NOT_NULL,
        "BaseIncrementalConstraintsRollback": NOT_NULL,
        "BaseSnapshotCheckCols": {"models": constant(SEEDS)},
        "BaseSnapshotTimestamp": {"models": constant(SEEDS | {"newcolumns.csv": files.seeds_newcolumns_csv})},
        "BaseColumnTypes": {
            "models": constant(column_models()),
            "test_run_and_test": lambda self, project: self.run_and_test(),
        },
        "BaseSimpleSeedColumnOverride": {
            "models": constant(seed_models()),
            "seed_enabled_types": staticmethod(lambda: {"seed_id": "text", "birthday": "date"}),
            "seed_tricky_types": staticmethod(
                lambda: dict.fromkeys(("seed_id_str", "looks_like_a_bool", "looks_like_a_date"), "text")
            ),
            "test_seeds_have_their_types": _seeds_with_types,
        },
        "BaseMicrobatch": {
            "microbatch_model_sql": constant(MICROBATCH),
            "insert_two_rows_sql": pytest.fixture(scope="class")(_two_rows),
        },
        "BaseUnitTestingTypes": {"data_types": constant(UNIT_TYPES, "function")},
        "UDFsBasic": functions | {"check_function_volatility": _basic_udf},
        "DeterministicUDF": functions,
        "StableUDF": functions,
        "NonDeterministicUDF": functions,
        "ErrorForUnsupportedType": functions,
        "BaseCurrentTimestamps": {
            "expected_schema": constant(dict.fromkeys(now, "timestamp without time zone")),
            "expected_sql": constant("select " + ", ".join(f"getdate() as {name}" for name in now)),
        },
        "BaseCloneNotPossible": {"clean_up": pytest.fixture(autouse=True)(_dropping_the_other_schema)},
    }


def _dropping_the_other_schema(self: Any, project: Any) -> Iterator[None]:
    yield
    with project.adapter.connection_named("__test"):
        relation = project.adapter.Relation.create(database=project.database, schema=f"{project.test_schema}_seeds")
        project.adapter.drop_schema(relation)
        relation = project.adapter.Relation.create(database=project.database, schema=project.test_schema)
        project.adapter.drop_schema(relation)


# The same class under other settings.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "BaseIncrementalPredicates": {
        "DeleteInsert": {"+predicates": ["id != 2"], "+incremental_strategy": "delete+insert"},
        "Merge": {"+incremental_predicates": ["dbt_internal_dest.id != 2"], "+incremental_strategy": "merge"},
    },
    "BaseIncrementalUniqueKey": {
        "DeleteInsert": {"+incremental_strategy": "delete+insert"},
        "Merge": {"+incremental_strategy": "merge"},
    },
}


def test_class(base: Any, members: dict[str, Any]) -> type:
    """Return a class for pytest to collect."""
    return type(base.__name__, (base,), {"__module__": __name__, **members})


test_class.__test__ = False  # type: ignore[attr-defined]


def collect(into: dict[str, Any]) -> None:
    """Put the test classes where pytest finds them."""
    own = special()
    for module, names in CLASSES.items():
        found: Callable[..., Any] = importlib.import_module(f"dbt.tests.adapter.{module}").__getattribute__
        for name in names.split():
            base, short = found(name), f"{module.split('.')[0]}_{name.removeprefix('Base')}"
            into[f"Test_{short}"] = test_class(base, own.get(name, {}))
            for label, settings in SETTINGS.get(name, {}).items():
                config = constant({"models": settings})
                members = own.get(name, {}) | {"project_config_update": config}
                into[f"Test_{short}_{label}"] = test_class(base, members)


collect(globals())
