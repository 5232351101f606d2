"""What PostgreSQL takes and Redshift refuses: one table of rules, from which docs/local-redshift-sql.md is written.

Sources are pages of the Database Developer Guide: FEATURES, DATATYPES, FUNCTIONS ("Unsupported PostgreSQL features",
"… data types", "… functions"), LEADER ("Leader node-only functions"), and the page of each command. The wording of an
error is Redshift's kind, not to the letter; the SQLSTATE is what clients see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from local.redshift.dialect.refusal import SYNTAX_ERROR, UNKNOWN_FUNCTION, Refused
from local.redshift.dialect.relations import relations
from local.redshift.dialect.statement import Statement
from local.redshift.dialect.words import words

FEATURES = "c_unsupported-postgresql-features"
DATATYPES = "c_unsupported-postgresql-datatypes"
FUNCTIONS = "c_unsupported-postgresql-functions"
LEADER = "c_SQL_functions_leader_node_only"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something refused: an example, why, and the page that says so. `check` raises Refused."""

    name: str
    example: str
    reason: str
    source: str
    check: Callable[[Statement], None]


def check(statement: Statement) -> None:
    """Raise Refused for the first rule that the statement breaks."""
    for rule in RULES:
        rule.check(statement)


# The checks


def _phrase(message: str, *phrases: str, code: str = SYNTAX_ERROR) -> Callable[[Statement], None]:
    """Return a check for statements that begin with one of the phrases; `create …` with OR REPLACE and its like."""

    def checked(statement: Statement) -> None:
        at = 1
        while statement.word(0) == "create" and statement.word(at) in ("or", "replace", "temp", "temporary", "local"):
            at += 1
        for phrase in phrases:
            first, *rest = phrase.split()
            if statement.word(0) == first and statement.words(*rest, at=at):
                raise Refused(message.format(phrase=phrase.upper(), last=phrase.split()[-1]), code)

    return checked


def _clause(message: str, *words: str, first: tuple[str, ...] = (), behind: str = "") -> Callable[[Statement], None]:
    """Return a check for words in a row anywhere, in statements that begin with one of `first`, `behind` a bracket."""

    def checked(statement: Statement) -> None:
        if first and statement.word(0) not in first:
            return
        place = statement.find(*words)
        while place >= 0:
            if statement.op(place - 1) != "." and (not behind or statement.op(place - 1) == behind):
                raise Refused(message, SYNTAX_ERROR)
            place = statement.find(*words, start=place + 1)

    return checked


def _calls(statement: Statement, names: frozenset[str]) -> str:
    """Return the first of the names that the statement calls, empty for none."""
    for index in statement.places(names):
        if statement.op(index + 1) != "(":
            continue
        ours = statement.op(index - 1) != "." or statement.word(index - 2) == "pg_catalog"
        if ours and statement.word(index - 1) not in ("function", "procedure", "table", "into", "view"):
            return statement.word(index)
    return ""


def _on_compute_nodes(statement: Statement) -> bool:
    """Return whether the statement reads or writes tables that are not the leader node's."""
    if statement.word(0) == "create" and statement.find("as", parent=-1) > 0:
        return statement.find("view", end=4) < 0 or any(not relation.on_leader for relation in relations(statement))
    return any(not relation.on_leader for relation in relations(statement))


_AGGREGATES = frozenset({"string_agg", "array_agg", "json_agg", "jsonb_agg", "xmlagg", "json_object_agg", "every",
                         "jsonb_object_agg", "mode", "regr_slope", "corr", "covar_pop", "covar_samp"})  # fmt: skip
_UNSUPPORTED_CALLS = words(
    """unnest concat_ws format gen_random_uuid uuid_generate_v4 row_to_json to_json to_jsonb jsonb_build_object
    json_build_object jsonb_array_elements json_array_elements json_each jsonb_each jsonb_path_query regexp_matches
    regexp_split_to_table regexp_split_to_array array_append array_length array_position array_remove cardinality
    string_to_array make_date make_timestamp make_interval clock_timestamp statement_timestamp
    transaction_timestamp date_bin nextval currval lastval setval encode overlay num_nulls random_normal scale
    width_bucket pg_sleep_for crosstab age_in_years normalize starts_with erf gamma lgamma bit_count jsonb_set
    jsonb_extract_path json_extract_path jsonb_array_length jsonb_typeof jsonb_pretty array_prepend array_cat
    array_dims array_ndims array_upper array_lower inet_client_addr host network to_tsvector to_tsquery ts_rank
    similarity digest gen_salt crypt query_to_xml xpath"""
)
_LEADER_ONLY = words(
    """generate_series current_schema current_schemas has_database_privilege has_schema_privilege has_table_privilege
    factorial now age isfinite getbit get_byte set_bit set_byte to_ascii array_to_string pg_get_viewdef"""
)
_LEADER_WORDS = frozenset({"current_timestamp", "localtime", "localtimestamp", "current_time", "current_schema"})


def _aggregates(statement: Statement) -> None:
    name = _calls(statement, _AGGREGATES)
    if name and _on_compute_nodes(statement):
        raise Refused(f"function {name}() does not exist", UNKNOWN_FUNCTION)


def _functions(statement: Statement) -> None:
    name = _calls(statement, _UNSUPPORTED_CALLS)
    if name and (name in ("concat_ws", "unnest", "gen_random_uuid") or _on_compute_nodes(statement)):
        raise Refused(f"function {name}() does not exist", UNKNOWN_FUNCTION)


def _leader_only(statement: Statement) -> None:
    if statement.word(0) not in ("select", "with", "insert", "create", "update", "delete", "merge", "explain"):
        return
    name = _calls(statement, _LEADER_ONLY)
    # dbt-redshift's own tests make a table of `select current_timestamp`: where no table is read, it is a constant.
    read = [relation for relation in relations(statement) if not relation.on_leader]
    if not name and len(read) > (statement.word(0) in ("create", "insert")):
        for index in statement.places(_LEADER_WORDS):
            if (
                statement.word(index) in _LEADER_WORDS
                and statement.op(index - 1) != "."
                and (statement.op(index + 1) != "." and statement.word(index - 1) != "as")
            ):
                name = statement.word(index)
    if name and not statement.words("create", "procedure") and _on_compute_nodes(statement):
        raise Refused(
            f'Specified types or functions (one per INFO message) not supported on Redshift tables. Function "{name}"'
        )


def _array(statement: Statement) -> None:
    for index in statement.places(("array",)):
        if statement.word(index) == "array" and statement.op(index + 1) == "[" and _on_compute_nodes(statement):
            raise Refused('array type "integer[]" is not supported on Redshift tables: use SUPER and ARRAY(…)')


def _modified_with(statement: Statement) -> None:
    for index in statement.places(("insert", "update", "delete", "merge")):
        inside = statement.op(index - 1) == "(" and statement.word(index - 2) in ("as", "materialized")
        if inside and statement.word(index) in ("insert", "update", "delete", "merge"):
            raise Refused(f'syntax error at or near "{statement.word(index)}"', SYNTAX_ERROR)


def _returning(statement: Statement) -> None:
    place = statement.find("returning")
    if (
        statement.word(0) in ("insert", "update", "delete", "merge", "with")
        and place > 0
        and (
            statement.op(place - 1) != "."
            and statement.parent[place] == -1
            and statement.op(place + 1) not in ("=", ".")
        )
    ):
        raise Refused('syntax error at or near "returning"', SYNTAX_ERROR)


def _table_clauses(statement: Statement) -> None:
    if statement.word(0) not in ("create", "alter") or statement.find("table", end=4) < 0:
        return
    for phrase in (("inherits",), ("partition", "of"), ("partition", "by"), ("tablespace",), ("exclude", "using"),
                  ("using", "btree"), ("generated", "always", "as", "identity"), ("on", "delete"),
                  ("on", "update"), ("deferrable",), ("with", "oids")):  # fmt: skip
        place = statement.find(*phrase)
        # In the query of CREATE TABLE AS, PARTITION BY is a window's.
        query = statement.find("as", parent=-1)
        if place > 0 and (query < 0 or place < query) and statement.op(place - 1) != ".":
            raise Refused(f'syntax error at or near "{phrase[0]}"', SYNTAX_ERROR)


def _check_constraint(statement: Statement) -> None:
    if statement.word(0) in ("create", "alter") and statement.find("table", end=4) >= 0:
        for index in statement.places(("check",)):
            if statement.word(index) == "check" and statement.op(index + 1) == "(":
                raise Refused("CHECK constraints are not supported")


def _add_columns(statement: Statement) -> None:
    if statement.words("alter", "table") and statement.find("add") > 0:
        place = statement.find("add")
        later = statement.find("add", start=place + 1, parent=-1)
        if later > 0 and statement.op(later - 1) == ",":
            raise Refused("ALTER TABLE ADD COLUMN takes one column at a time", SYNTAX_ERROR)
        if statement.words("if", "not", "exists", at=place + 2):
            raise Refused('syntax error at or near "if"', SYNTAX_ERROR)


def _filter(statement: Statement) -> None:
    for index in statement.places(("filter",)):
        begins = statement.words("filter", at=index) and statement.word(index + 2) == "where"
        if begins and statement.op(index - 1) == ")" and statement.op(index + 1) == "(":
            raise Refused('syntax error at or near "filter"', SYNTAX_ERROR)


def _lateral(statement: Statement) -> None:
    for index in statement.places(("lateral",)):
        before = statement.word(index - 1) in ("join", "from") or statement.op(index - 1) == ","
        after = statement.op(index + 1) == "(" or statement.kind(index + 1) == "word"
        if statement.word(index) == "lateral" and before and after:
            raise Refused('syntax error at or near "lateral"', SYNTAX_ERROR)


def _distinct_on(statement: Statement) -> None:
    place = statement.find("select", "distinct", "on")
    if place >= 0 and statement.op(place + 3) == "(":
        raise Refused("SELECT DISTINCT ON is not supported")


def _copy(statement: Statement) -> None:
    """Refuse COPY with STDIN, STDOUT or a program; COPY of Redshift never gets here."""
    if statement.word(0) == "copy" and any(
        statement.find(*words) > 0 for words in (("from", "stdin"), ("to", "stdout"), ("from", "program"))
    ):
        raise Refused("COPY from STDIN and to STDOUT is not supported: COPY reads from Amazon S3")


def _fetch(statement: Statement) -> None:
    """Refuse FETCH FIRST and FETCH NEXT behind a query; FETCH alone is a cursor's."""
    for word in ("first", "next"):
        _clause('syntax error at or near "fetch"', "fetch", word, first=("select", "with", "insert", "create"))(
            statement
        )


def _materialized(statement: Statement) -> None:
    """Refuse AS [NOT] MATERIALIZED."""
    for phrase in (("as", "materialized"), ("as", "not", "materialized")):
        _clause('syntax error at or near "materialized"', *phrase, first=("with", "insert"))(statement)


def _nothing(_statement: Statement) -> None:
    """Types are refused where they are translated (types.py)."""


RULES = (
    Rule(
        name="SERIAL",
        example="create table t (id serial)",
        reason="sequences do not exist: IDENTITY(1, 1)",
        source=DATATYPES,
        check=_nothing,
    ),
    Rule(
        name="arrays as columns",
        example="create table t (tags varchar[])",
        reason="a column holds one value: SUPER",
        source=DATATYPES,
        check=_nothing,
    ),
    Rule(
        name="ARRAY[…] over a table",
        example="select array[id] from t",
        reason="arrays are the leader node's: ARRAY(…) makes a SUPER",
        source=DATATYPES,
        check=_array,
    ),
    Rule(
        name="types JSON, JSONB, UUID, BYTEA, MONEY, INET, XML, ranges, …",
        example="create table t (payload jsonb)",
        reason="not among the data types: SUPER, VARCHAR, VARBYTE",
        source=DATATYPES,
        check=_nothing,
    ),
    Rule(
        name="ON CONFLICT",
        example="insert into t values (1) on conflict do nothing",
        reason="no unique index to conflict with: MERGE",
        source="r_INSERT_30",
        check=_clause('syntax error at or near "conflict"', "on", "conflict", first=("insert", "with")),
    ),
    Rule(
        name="RETURNING",
        example="delete from t returning id",
        reason="not in the syntax of INSERT, UPDATE, DELETE",
        source="r_INSERT_30",
        check=_returning,
    ),
    Rule(
        name="data changes in WITH",
        example="with gone as (delete from t) select 1",
        reason="a common table expression is a SELECT",
        source="r_WITH_clause",
        check=_modified_with,
    ),
    Rule(
        name="leader-node functions over a table",
        example="select generate_series(1, 3) from t",
        reason="generate_series, now, current_timestamp, age, current_schema, has_…_privilege run on the leader only",
        source=LEADER,
        check=_leader_only,
    ),
    Rule(
        name="aggregates that PostgreSQL added",
        example="select string_agg(name, ',') from t",
        reason="string_agg, array_agg, json_agg: LISTAGG",
        source=FUNCTIONS,
        check=_aggregates,
    ),
    Rule(
        name="functions that PostgreSQL added",
        example="select concat_ws('-', a, b) from t",
        reason="unnest, concat_ws, format, sequences, arrays, jsonb, UUIDs, regexp_matches, …",
        source=FUNCTIONS,
        check=_functions,
    ),
    Rule(
        name="FILTER (WHERE …)",
        example="select count(*) filter (where a = 1) from t",
        reason="not in the syntax of aggregates: CASE",
        source="c_Aggregate_Functions",
        check=_filter,
    ),
    Rule(
        name="LATERAL",
        example="select * from t, lateral (select t.a) s",
        reason="not in the syntax of FROM",
        source="r_FROM_clause30",
        check=_lateral,
    ),
    Rule(
        name="DISTINCT ON",
        example="select distinct on (a) a, b from t",
        reason="not in the syntax of SELECT: QUALIFY",
        source="r_SELECT_list",
        check=_distinct_on,
    ),
    Rule(
        name="FETCH FIRST",
        example="select a from t fetch first 3 rows only",
        reason="not in the syntax of SELECT: LIMIT or TOP",
        source="r_SELECT_synopsis",
        check=_fetch,
    ),
    Rule(
        name="MATERIALIZED common table expressions",
        example="with a as materialized (select 1) select * from a",
        reason="not in the syntax of WITH",
        source="r_WITH_clause",
        check=_materialized,
    ),
    Rule(
        name="TABLESAMPLE",
        example="select * from t tablesample system (1)",
        reason="not in the syntax of FROM",
        source="r_FROM_clause30",
        check=_clause('syntax error at or near "tablesample"', "tablesample", first=("select", "with", "create")),
    ),
    Rule(
        name="CREATE INDEX, UNIQUE INDEX, REINDEX, CLUSTER",
        example="create index i on t (a)",
        reason="there are no indexes: sort keys",
        source=FEATURES,
        check=_phrase(
            'syntax error at or near "{last}"',
            *("create index", "create unique index", "drop index", "alter index", "reindex", "cluster"),
        ),
    ),
    Rule(
        name="CHECK constraints",
        example="create table t (a int check (a > 0))",
        reason="constraints but NOT NULL are informational; CHECK and EXCLUDE are none of them",
        source="r_CREATE_TABLE_NEW",
        check=_check_constraint,
    ),
    Rule(
        name="inheritance, partitions, tablespaces, EXCLUDE, ON DELETE, GENERATED ALWAYS AS IDENTITY",
        example="create table child () inherits (t)",
        reason="not in the syntax of CREATE TABLE",
        source=FEATURES,
        check=_table_clauses,
    ),
    Rule(
        name="ADD COLUMN of several columns, or IF NOT EXISTS",
        example="alter table t add column b int, add column c int",
        reason="one column in each ALTER TABLE",
        source="c_redshift-sql-implementated-differently",
        check=_add_columns,
    ),
    Rule(
        name="sequences",
        example="create sequence s",
        reason="sequences are not supported: IDENTITY",
        source=FEATURES,
        check=_phrase('syntax error at or near "{last}"', "create sequence", "alter sequence", "drop sequence"),
    ),
    Rule(
        name="triggers and rules",
        example="create trigger g before insert on t execute function f()",
        reason="triggers are not supported",
        source=FEATURES,
        check=_phrase(
            'syntax error at or near "{last}"',
            *("create trigger", "create constraint trigger", "create event trigger", "drop trigger", "create rule"),
            *("alter trigger", "drop event trigger", "drop rule"),
        ),
    ),
    Rule(
        name="types, domains, aggregates, operators, casts, collations of one's own",
        example="create type mood as enum ('sad', 'ok')",
        reason="user-defined types do not exist",
        source=FEATURES,
        check=_phrase(
            'syntax error at or near "{last}"',
            *("create type", "create domain", "create aggregate", "create operator", "create cast"),
            *("create collation", "create conversion", "create language", "alter type", "alter domain", "drop type"),
            *("drop domain", "create text", "create transform", "create access", "create statistics"),
        ),
    ),
    Rule(
        name="extensions, foreign data, publications, tablespaces",
        example="create extension hstore",
        reason="the server cannot be extended; foreign data is an external schema",
        source=FEATURES,
        check=_phrase(
            'syntax error at or near "{last}"',
            *("create extension", "drop extension", "alter extension", "create foreign", "create server"),
            *("create publication", "create subscription", "create tablespace", "create policy", "create unlogged"),
            *("import foreign", "create user mapping"),
        ),
    ),
    Rule(
        name="COPY from and to the client",
        example="copy t from stdin",
        reason="COPY reads from S3 and its like",
        source="r_COPY",
        check=_copy,
    ),
    Rule(
        name="LISTEN, NOTIFY, DO, security labels, two-phase commits, savepoints",
        example="do $$ begin perform 1; end $$",
        reason="not among the SQL commands: CREATE PROCEDURE and CALL",
        source="c_SQL_commands",
        check=_phrase(
            'syntax error at or near "{last}"',
            *("listen", "unlisten", "notify", "do", "checkpoint", "discard", "load", "savepoint"),
            *("rollback to", "release", "security label", "prepare transaction", "reassign"),
        ),
    ),
)
