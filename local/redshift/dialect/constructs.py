"""What is supported, accepted and ignored, or not emulated: the table from which the page of the docs is written."""

from __future__ import annotations

from dataclasses import dataclass

from local.pages import markdown_table
from local.redshift.dialect.strictness import RULES

PAGE = "docs/local-redshift-sql.md"


@dataclass(frozen=True)
class Construct:
    """Something of Redshift's: its name, an example, and what becomes of it."""

    name: str
    example: str
    becomes: str


SUPPORTED = (
    Construct("CREATE VIEW … WITH NO SCHEMA BINDING", "create view s.v as select * from s.t with no schema binding",
              "a view over a function whose body is the query; see below"),
    Construct("IDENTITY(seed, step)", "create table t (id bigint identity(1, 1))", "GENERATED ALWAYS AS IDENTITY"),
    Construct("VARCHAR, TEXT, DECIMAL without a length", "create table t (a varchar, b decimal)",
              "VARCHAR(256), DECIMAL(18,0), as Redshift has it; MAX is 65535"),
    Construct("CREATE TABLE #name, SELECT … INTO #name", "select 1 as a into #kept", "a temporary table"),
    Construct("ALTER TABLE … APPEND", "alter table t append from s.staging", "rows move, by names of columns"),
    Construct("FOREIGN KEY", "create table c (p int references s.t (id))", "NOT ENFORCED"),
    Construct("MERGE, MERGE … REMOVE DUPLICATES", "merge into t using u on t.id = u.id remove duplicates",
              "PostgreSQL's MERGE; DELETE and INSERT in one statement"),
    Construct("DELETE without FROM", "delete t where a = 1", "DELETE FROM"),
    Construct("QUALIFY", "select a from t qualify row_number() over (order by a) = 1",
              "a set-returning function in ORDER BY that gives a row where the condition holds"),
    Construct("TOP n", "select top 3 a from t", "LIMIT"),
    Construct("MINUS", "select a from t minus select b from t", "EXCEPT"),
    Construct("DATEADD, DATEDIFF, DATE_PART, DATE_TRUNC", "select datediff(week, '2020-01-01', '2020-02-01')",
              "functions; DATEDIFF counts boundaries, those of weeks on Sunday"),
    Construct("GETDATE, SYSDATE, LAST_DAY, NEXT_DAY, ADD_MONTHS, MONTHS_BETWEEN, CONVERT_TIMEZONE, TRUNC",
              "select add_months('2008-04-30'::date, 1)", "functions"),
    Construct("TO_TIMESTAMP, TO_DATE with is_strict", "select to_date('20010631', 'YYYYMMDD', false)",
              "the flag is ignored: PostgreSQL is always strict"),
    Construct("NVL, NVL2, DECODE, CONVERT", "select decode(1, 1, 'a', 'b')", "COALESCE, CASE, CAST"),
    Construct("LISTAGG [WITHIN GROUP] [OVER]", "select listagg(a, ',') within group (order by a) from t",
              "an aggregate"),
    Construct("APPROXIMATE COUNT(DISTINCT), MEDIAN, PERCENTILE_… OVER, RATIO_TO_REPORT, AVG",
              "select median(a) from t", "aggregates; AVG of integers is an integer"),
    Construct("LEN, CHARINDEX, REPLICATE, CONCAT, STRTOL, FNV_HASH, SHA2", "select strtol('ff', 16)",
              "functions; CONCAT has two arguments and NULL wins"),
    Construct("REGEXP_REPLACE, REGEXP_SUBSTR, REGEXP_COUNT, REGEXP_INSTR", "select regexp_replace('aXbX', 'X')",
              "functions; all matches are replaced, no match is ''. PostgreSQL's regular expressions"),
    Construct("backslashes in texts", r"select 'a\\d'", "they escape, as in Redshift: an E'…' text"),
    Construct("SUPER, JSON_PARSE, JSON_SERIALIZE, ARRAY(), OBJECT(), SPLIT_TO_ARRAY, SUBARRAY, ARRAY_CONCAT, IS_…",
              "select get_array_length(array(1, 2))", "jsonb under the name super"),
    Construct("paths and unnesting", "select i.name from t, t.items as i at n",
              "subscripts and a call in FROM. A path begins with the table's alias, or has a bracket"),
    Construct("JSON_EXTRACT_PATH_TEXT, JSON_EXTRACT_ARRAY_ELEMENT_TEXT, JSON_ARRAY_LENGTH, IS_VALID_JSON(_ARRAY)",
              "select json_extract_path_text('{\"a\": {\"b\": 1}}', 'a', 'b', true)", "functions"),
    Construct("SET, SHOW, RESET of Redshift's parameters", "set query_group to 'x'", "kept, without effect"),
    Construct("SHOW DATABASES, SCHEMAS, TABLES, COLUMNS", "show tables from schema analytics.s", "queries"),
    Construct("CREATE PROCEDURE, CALL", "create procedure p() as $$ begin null; end $$ language plpgsql",
              "PL/pgSQL; calls in the body are translated"),
    Construct("CREATE and ALTER USER, GROUP, ROLE", "create user u password disable syslog access unrestricted",
              "PostgreSQL's roles; SYSLOG ACCESS, SESSION TIMEOUT, EXTERNALID vanish"),
    Construct("GRANT … TO ROLE, GRANT ROLE", "grant select on t to role r", "PostgreSQL's roles"),
    Construct("CANCEL", "cancel 1234", "pg_cancel_backend"),
)  # fmt: skip

ACCEPTED = (
    Construct("DISTSTYLE, DISTKEY, SORTKEY, ENCODE, BACKUP of a table",
              "create table x (a int encode az64 distkey, b int sortkey) backup no diststyle key sortkey(a, b)",
              "left out: there is one node"),
    Construct("the same of CREATE TABLE AS", "create table x diststyle even sortkey auto as select 1 as a", "left out"),
    Construct("ALTER DISTKEY, DISTSTYLE, SORTKEY, ENCODE", "alter table s.t alter compound sortkey (a)",
              "nothing, if the table is there"),
    Construct("ALTER COLUMN … ENCODE", "alter table s.t alter column a encode zstd", "nothing, if the table is there"),
    Construct("ENCODE of a new column", "alter table s.t add column c varchar(9) encode lzo default 'x'", "left out"),
    Construct("COLLATE CASE_SENSITIVE", "create table x (a varchar(9) collate case_sensitive)", "left out"),
    Construct("BACKUP, DISTSTYLE, AUTO REFRESH of a materialized view",
              "create materialized view mv backup no sortkey(a) auto refresh yes as select 1 as a",
              "left out: nothing is refreshed by itself"),
    Construct("NONATOMIC", "create procedure p() nonatomic as $$ begin null; end $$ language plpgsql", "left out"),
    Construct("VACUUM FULL, SORT ONLY, DELETE ONLY, REINDEX, TO n PERCENT, BOOST",
              "vacuum sort only s.t to 75 percent", "VACUUM"),
    Construct("ANALYZE … PREDICATE COLUMNS", "analyze s.t predicate columns", "ANALYZE"),
    Construct("ANALYZE COMPRESSION", "analyze compression s.t", "says `none` for each column"),
    Construct("SET SESSION, RESET of a parameter", "reset enable_result_cache_for_session", "kept, without effect"),
)  # fmt: skip

NOT_EMULATED = (
    Construct("GEOMETRY, GEOGRAPHY, HLLSKETCH", "create table x (a geometry)", ""),
    Construct("COLLATE CASE_INSENSITIVE", "create table x (a varchar(9) collate case_insensitive)", ""),
    Construct("PIVOT, UNPIVOT", "select * from s.t pivot (count(a) for b in ('x'))", ""),
    Construct("CONNECT BY", "select a from s.t start with a = 1 connect by prior a = id", ""),
    Construct("SELECT * EXCLUDE", "select * exclude a from s.t", ""),
    Construct("IGNORE NULLS", "select lag(a ignore nulls) over (order by id) from s.t", ""),
    Construct("LISTAGG(DISTINCT …) OVER", "select listagg(distinct b, ',') over () from s.t", ""),
    Construct("scoped permissions", "grant select for tables in schema s to u", ""),
    Construct("GRANT of DROP, ALTER, system permissions", "grant drop on s.t to u", ""),
    Construct("Python functions", "create function f() returns int volatile as $$ 1 $$ language plpythonu", ""),
    Construct("machine learning", "create model m from s.t target a function f iam_role default", ""),
    Construct("datashares", "create datashare d", ""),
    Construct("row-level security and masking", "create rls policy p using (true)", ""),
    Construct("USE", "use other", ""),
    Construct("SHOW GRANTS, TABLE, VIEW, PROCEDURES, …", "show grants on table s.t", ""),
)  # fmt: skip


def texts() -> dict[str, dict[str, str]]:
    """Return what stands between the markers of the page: page -> marker -> text."""
    return {PAGE: {
        "supported": _table(("What", "Example", "Here"), [(c.name, c.example, c.becomes) for c in SUPPORTED]),
        "accepted": _table(("What", "Example", "Here"), [(c.name, c.example, c.becomes) for c in ACCEPTED]),
        "refused": _table(("What", "Example", "Why", "Page"),
                          [(r.name, r.example, r.reason, _link(r.source)) for r in RULES]),
        "not-emulated": _table(("What", "Example"), [(c.name, c.example) for c in NOT_EMULATED]),
    }}  # fmt: skip


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in markdown whose second column is code."""
    return markdown_table(columns, [(name, f"`{example}`", *rest) for name, example, *rest in rows])


def _link(page: str) -> str:
    return f"[{page}](https://docs.aws.amazon.com/redshift/latest/dg/{page}.html)"
