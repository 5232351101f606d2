"""Commands about sessions, users, privileges and upkeep.

Sources: SET, SHOW, RESET, CREATE USER, ALTER USER, GRANT, VACUUM, ANALYZE, ANALYZE COMPRESSION, CANCEL, SHOW TABLES and
its kin in the SQL reference; "Configuration reference" for the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

from local.redshift.dialect.lexer import unquoted
from local.redshift.dialect.refusal import not_emulated
from local.redshift.dialect.statement import Statement
from runtime import sql

# Parameters of a session that PostgreSQL has not, with what SHOW says before they are set.
PARAMETERS = {
    "analyze_threshold_percent": "10",
    "auto_mv": "on",
    "cast_super_null_on_error": "on",
    "datashare_break_glass_session_var": "",
    "default_geometry_encoding": "1",
    "describe_field_name_in_uppercase": "off",
    "downcase_delimited_identifier": "on",
    "enable_case_sensitive_identifier": "on",
    "enable_case_sensitive_super_attribute": "off",
    "enable_numeric_rounding": "on",
    "enable_result_cache_for_session": "on",
    "enable_vacuum_boost": "off",
    "error_on_nondeterministic_update": "off",
    "interval_forbid_composite_literals": "off",
    "json_parse_dedup_attributes": "off",
    "json_parse_truncate_strings": "off",
    "json_serialization_enable": "off",
    "json_serialization_parse_nested_strings": "off",
    "max_concurrency_scaling_clusters": "1",
    "max_cursor_result_set_size": "default",
    "mv_enable_aqmv_for_session": "on",
    "navigate_super_null_on_error": "on",
    "parse_super_null_on_error": "off",
    "pg_federation_repeatable_read": "on",
    "query_group": "",
    "query_priority": "normal",
    "spectrum_enable_pseudo_columns": "on",
    "spectrum_query_maxerror": "-1",
    "stored_proc_log_min_messages": "INFO",
    "use_fips_ssl": "off",
    "wlm_query_slot_count": "1",
}
# Statements that begin with these words need something that is not here.
_NOT_EMULATED = (
    "create external function", "create external model", "create external view", "create library", "create model",
    "create datashare", "alter datashare", "drop datashare", "drop library", "drop model", "show model",
    "create rls policy", "alter rls policy", "drop rls policy", "attach rls policy", "detach rls policy",
    "create masking policy", "alter masking policy", "drop masking policy", "attach masking policy",
    "detach masking policy", "create identity provider", "alter identity provider", "drop identity provider",
    "create connection", "describe datashare", "alter system", "use", "insert overwrite", "create template",
    "grant assumerole", "revoke assumerole", "grant explain", "grant ignore", "grant access",
)  # fmt: skip


def refuse_what_is_not_emulated(statement: Statement) -> None:
    """Raise for commands of Redshift that have nothing here."""
    for phrase in _NOT_EMULATED:
        if statement.words(*phrase.split()):
            raise not_emulated(phrase.upper())


def translate_set(statement: Statement) -> None:
    """SET, SHOW and RESET of a parameter that only Redshift has."""
    at = 2 if statement.word(1) in ("session", "local") else 1
    name = statement.word(at)
    if name not in PARAMETERS or statement.op(at + 1) == ".":
        return
    if statement.word(0) == "show":
        kept = f"nullif(current_setting({sql.literal(f'goldlake_redshift.{name}')}, true), '')"
        statement.whole = f"select coalesce({kept}, {sql.literal(PARAMETERS[name])}) as {sql.identifier(name)}"
    else:
        statement.before(at, "goldlake_redshift.")


def translate_show(statement: Statement) -> None:
    """SHOW DATABASES, SCHEMAS, TABLES, COLUMNS: queries of the catalogue. SHOW of a parameter is `translate_set`."""
    shown = _SHOWN.get(statement.word(1))
    if shown is not None:
        pattern = ""
        if statement.word(len(statement) - 2) == "like":
            pattern = statement.tokens[-1].text
        place = statement.find("from")
        at = place + 2 if place >= 0 else len(statement)
        end = statement.name_end(at) if at < len(statement) else at
        statement.whole = shown([unquoted(statement.tokens[index]) for index in range(at, end, 2)], pattern)
    elif statement.word(1) in ("table", "view", "external", "procedure", "procedures", "functions", "parameters",
                               "grants", "constraints", "datashares", "policies", "templates", "default"):  # fmt: skip
        raise not_emulated(f"SHOW {statement.word(1).upper()}")
    else:
        translate_set(statement)


# The texts below hold names from lists in the code, and literals that `_condition` quotes.
# ruff: noqa: S608


def _condition(columns: tuple[str, ...], names: list[str], shown: str, pattern: str) -> str:
    """Return the WHERE of a SHOW: the names from the last, as many as are given, and the pattern."""
    pairs = zip(reversed(columns), reversed(names), strict=False)
    parts = [f"{column} = {sql.literal(name)}" for column, name in pairs]
    parts += [f"{shown} like {pattern}"] if pattern else []
    return " where " + " and ".join(parts) if parts else ""


def _show_databases(names: list[str], pattern: str) -> str:
    where = _condition((), [], "database_name", pattern)
    return (
        "select database_name, database_owner, database_type, database_acl, ''::varchar as parameters, "
        f"database_isolation_level from pg_catalog.svv_redshift_databases{where} order by 1"
    )


def _show_schemas(names: list[str], pattern: str) -> str:
    where = _condition(("database_name",), names, "schema_name", pattern)
    return (
        "select database_name, schema_name, schema_owner, schema_type, schema_acl, source_database, schema_option "
        f"from pg_catalog.svv_all_schemas{where} order by 1, 2"
    )


def _show_tables(names: list[str], pattern: str) -> str:
    where = _condition(("database_name", "schema_name"), names, "table_name", pattern)
    return (
        "select database_name, schema_name, table_name, table_type, table_acl, remarks, table_owner as owner, "
        f"table_subtype from pg_catalog.goldlake_tables{where} order by 1, 2, 3"
    )


def _show_columns(names: list[str], pattern: str) -> str:
    where = _condition(("database_name", "schema_name", "table_name"), names, "column_name", pattern)
    return (
        "select database_name, schema_name, table_name, column_name, ordinal_position, column_default, is_nullable, "
        "data_type, character_maximum_length, numeric_precision, numeric_scale, remarks "
        f"from pg_catalog.svv_all_columns{where} order by 1, 2, 3, 5"
    )


_SHOWN: dict[str, Callable[[list[str], str], str]] = {
    "databases": _show_databases,
    "schemas": _show_schemas,
    "tables": _show_tables,
    "columns": _show_columns,
}


def translate_user(statement: Statement) -> None:
    """CREATE USER and ALTER USER: options that PostgreSQL has under other names, or has not."""
    index = 2
    while index < len(statement):
        if statement.words("password", "disable", at=index):
            statement.drop(index, index + 2)
            statement.replace(index, "PASSWORD NULL")
        elif statement.word(index) in ("createuser", "nocreateuser"):
            statement.replace(index, "superuser" if statement.word(index) == "createuser" else "nosuperuser")
        elif (
            statement.words("syslog", "access", at=index)
            or statement.words("reset", "session", "timeout", at=index)
            or statement.words("session", "timeout", at=index)
        ):
            statement.drop(index, index + 3)
        elif statement.words("connection", "limit", "unlimited", at=index):
            statement.replace(index + 2, "-1")
        elif statement.word(index) == "externalid":
            statement.drop(index, index + 2)
        index += 1
    # What is left of `ALTER USER x RESET SESSION TIMEOUT` is PostgreSQL's: it changes nothing.


def translate_role(statement: Statement) -> None:
    """CREATE ROLE … EXTERNALID, DROP ROLE … FORCE | RESTRICT."""
    for index in range(3, len(statement)):
        if statement.word(index) == "externalid":
            statement.drop(index, len(statement))
        elif statement.word(0) == "drop" and statement.word(index) in ("force", "restrict"):
            statement.replace(index, "")


def translate_grant(statement: Statement) -> None:
    """GRANT and REVOKE: a role needs no word ROLE here; scoped and system permissions are not emulated."""
    if statement.find("for", parent=-1) > 1 and statement.word(1) != "grant":
        raise not_emulated("scoped permissions (FOR … IN)")
    kinds = ("drop", "alter", "truncate") if statement.find("on") < 0 else ("drop", "alter")
    if any(statement.word(index) in kinds for index in range(1, max(statement.find("on"), 2))):
        raise not_emulated(f"{statement.word(0).upper()} of DROP and ALTER and of system permissions")
    for index in range(1, len(statement)):
        if statement.word(index) == "role" and (
            statement.word(index - 1) in ("to", "from", "grant", "revoke", "for") or statement.op(index - 1) == ","
        ):
            statement.replace(index, "")


def translate_vacuum(statement: Statement) -> None:
    """VACUUM [FULL | SORT ONLY | DELETE ONLY | REINDEX | RECLUSTER] [table [TO n PERCENT] [BOOST]]."""
    index = 1
    while statement.word(index) in ("full", "sort", "delete", "only", "reindex", "recluster"):
        index += 1
    end = statement.name_end(index) if statement.is_name(index) else index
    statement.whole = f"VACUUM {statement.render(index, end)}".strip()


def translate_analyze(statement: Statement) -> None:
    """ANALYZE [table [(columns)]] [PREDICATE | ALL COLUMNS], ANALYZE COMPRESSION [table] [COMPROWS n]."""
    if statement.word(1) == "compression":
        end = statement.name_end(2)
        names = [unquoted(statement.tokens[index]) for index in range(2, end, 2)]
        where = _condition(("schema_name", "table_name"), names, "", "")
        statement.whole = (
            'select table_name as "Table", column_name as "Column", encoding as "Encoding", '
            f'0.00::numeric(5,2) as "Est_reduction_pct" from pg_catalog.svv_redshift_columns{where}'
        )
    elif (place := statement.find("columns")) > 1 and statement.word(place - 1) in ("predicate", "all"):
        statement.drop(place - 1, place + 1)


def translate_cancel(statement: Statement) -> None:
    """CANCEL pid ['message']."""
    if statement.kind(1) == "number":
        statement.whole = f"select pg_cancel_backend({statement.tokens[1].text})"


def translate_refresh(statement: Statement) -> None:
    """REFRESH MATERIALIZED VIEW name [RESTRICT | CASCADE]."""
    if statement.word(len(statement) - 1) in ("restrict", "cascade"):
        statement.replace(len(statement) - 1, "")
