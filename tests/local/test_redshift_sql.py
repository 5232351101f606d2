"""Redshift's SQL over the wire: each construct with the result that its page in the SQL reference gives."""

from __future__ import annotations

import datetime
import hashlib
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from local.redshift.dialect.constructs import ACCEPTED, NOT_EMULATED
from local.redshift.dialect.strictness import RULES
from local.redshift.dialect.words import words
from tests.local.redshift_support import LocalRedshift

D, T = datetime.date, datetime.datetime


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedshift]:
    """A local Redshift of this module's own, strict as it is by default."""
    started = LocalRedshift(tmp_path_factory.mktemp("sql") / "data").start()
    yield started
    started.signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def session(server: LocalRedshift) -> Iterator[Any]:
    with server.connect() as connection:
        yield connection


@pytest.fixture
def run(session: Any) -> Any:
    """Run statements in an empty schema `s`; the last one's rows come back."""
    execute(session, "drop schema if exists s cascade", "create schema s", "set search_path to s, public")
    return lambda *texts: execute(session, *texts)


def execute(connection: Any, *texts: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        for text in texts:
            cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # DATEADD, DATEDIFF, LAST_DAY, ADD_MONTHS, MONTHS_BETWEEN, …
        ("dateadd(month, 18, '2008-02-28')", T(2009, 8, 28)),
        ("dateadd(day, 30, date '2008-11-01')", T(2008, 12, 1)),
        ("dateadd(m, 18, time '23:59:59')", datetime.time(0, 17, 59)),
        ("dateadd(month, 1, '2008-04-30'::date)", T(2008, 5, 30)),
        ("add_months('2008-04-30'::date, 1)", T(2008, 5, 31)),
        ("add_months('2008-03-31'::date, 1)", T(2008, 4, 30)),
        ("datediff(year, '2008-12-31'::date, '2009-01-01'::date)", 1),
        ("datediff(week, '2009-01-01', '2009-12-31')", 52),
        ("datediff(qtr, '1998-07-01', date '2008-06-30')", 39),
        ("datediff(hour, timestamp '2009-01-01 01:59:59', timestamp '2009-01-01 02:00:00')", 1),
        ("datediff('day', '2008-06-30 23:00'::timestamp, '2008-07-01 01:00'::timestamp)", 1),
        ("datediff(min, time '23:10', time '23:20')", 10),
        ("last_day('2004-02-02'::date)", D(2004, 2, 29)),
        ("next_day('2014-08-20'::date, 'Tuesday')", D(2014, 8, 26)),
        ("months_between('1969-01-18'::date, '1969-03-18'::date)", -2.0),
        ("date_trunc('month', date '2020-05-17')", T(2020, 5, 1)),
        ("date_part(dow, timestamp '2008-01-05 14:00:00')::int", 6),
        ("date_part(weekday, timestamp '2008-01-05 14:00:00')::int", 6),
        ("extract(dayofyear from timestamp '2008-02-01 00:00:00')::int", 32),
        ("trunc(timestamp '2011-07-21 10:32:38')", D(2011, 7, 21)),
        ("convert_timezone('EST', 'PST', '2008-08-21 07:23:54'::timestamp)", T(2008, 8, 21, 4, 23, 54)),
        ("convert_timezone('America/New_York', '2013-02-01 08:00:00'::timestamp)", T(2013, 2, 1, 3)),
        ("to_timestamp('2011-12-18 23:38:15', 'YYYY-MM-DD HH24:MI:SS')::timestamp", T(2011, 12, 18, 23, 38, 15)),
        ("to_date('02 Oct 2001', 'DD Mon YYYY')", D(2001, 10, 2)),
        ("getdate() is not null and sysdate is not null", True),
        # Conditions
        ("nvl(null, null, 3)", 3),
        ("nvl2(null, 'a', 'b')", "b"),
        ("nvl2(1, nvl2(null, 'x', 'y'), 'b')", "y"),
        ("decode(7, 1, 'Jan', 7, 'Jul', 'other')", "Jul"),
        ("decode(null, null, 'is null', 'is not')", "is null"),
        ("decode(2, 1, 'one')", None),
        # Texts
        ("len('cat   '::varchar)", 6),
        ("charindex('fish', 'dogfish')", 4),
        ("regexp_replace('the fox', 'FOX', 'quick brown fox', 1, 'i')", "the quick brown fox"),
        ("regexp_replace('aXbXc', 'X')", "abc"),
        ("regexp_replace('a1b22', '[0-9]+', '#')", "a#b#"),
        ("regexp_substr('the fox', 'FOX', 1, 1, 'i')", "fox"),
        ("regexp_substr('the fox', 'dog')", ""),
        ("regexp_count('abcdefghijklmnopqrstuvwxyz', '[a-z]{3}')", 8),
        (r"regexp_count('a1b2', '\\d')", 2),
        ("split_part('abc$def$ghi', '$', 2)", "def"),
        ("btrim('xyzaxyzbxyzcxyz', 'xyz')", "axyzbxyzc"),
        ("translate('mint tea', 'inea', 'osin')", "most tin"),
        ("left('Chicago', 3) || right('Chicago', 3)", "Chiago"),
        ("concat('December 25, ', '2008')", "December 25, 2008"),
        ("concat('a', null)", None),
        ("'a' || null", None),
        ("replicate('ab', 2)", "abab"),
        ("strtol('0xf', 16)", 15),
        ("strtol('abcd1234', 16)", 2882343476),
        ("md5('Amazon Redshift')", "f7415e33f972c03abd4f3fed36748f7a"),
        ("sha2('Amazon Redshift', 256)", hashlib.sha256(b"Amazon Redshift").hexdigest()),
        (r"'tab\there'", "tab\there"),
        (r"'it\'s'", "it's"),
        # Numbers and types
        ("round(28.05::float8, 1)", 28.1),
        ("convert(integer, '12') + 1", 13),
        ("'12.5'::decimal", Decimal("13")),
        ("'12.5'::decimal(4, 1)", Decimal("12.5")),
        ("'abc'::varchar(max)", "abc"),
        ("7 / 2", 3),
        # JSON and SUPER
        ('json_extract_path_text(\'{"f2":{"f3":1},"f4":{"f5":99,"f6":"star"}}\', \'f4\', \'f6\')', "star"),
        ("json_extract_path_text('no json', 'f4', 'f6', true)", None),
        ('json_array_length(\'[11,12,13,{"f1":21,"f2":[25,26]},14]\')', 5),
        ("is_valid_json('{\"a\":2}')", True),
        ("is_valid_json_array('{\"a\":2}')", False),
        ('json_serialize(json_parse(\'{"a": [1, "x"]}\'))', '{"a":[1,"x"]}'),
        ("get_array_length(array(1, 50, null, 100))", 4),
        ("json_serialize(split_to_array('12|345|6789', '|'))", '["12","345","6789"]'),
        ("json_typeof(array(1, 2))", "array"),
        ("json_serialize(subarray(array('a', 'b', 'c'), 1, 2))", '["b","c"]'),
    ],
)
def test_an_expression_has_the_value_that_redshift_gives(run: Any, expression: str, expected: object) -> None:
    assert run(f"select {expression}") == [(expected,)]


ITEMS = (
    "create table s.items (id int, grp varchar(10), amount int, at date)",
    "insert into s.items values (1,'a',10,'2020-01-01'),(2,'a',20,'2020-01-02'),(3,'b',5,'2020-01-03'),(4,'b',6,null)",
)
ORDERS = (
    "create table s.orders (id int, payload super)",
    """insert into s.orders select 1, json_parse('{"name":"x","lines":[{"sku":"a","n":2},{"sku":"b","n":7}]}')""",
    """insert into s.orders select 2, json_parse('{"name":"y","lines":[]}')""",
)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("select top 2 id from s.items order by id desc",), [(4,), (3,)]),
        (("select top 1 1 as x union all select 2 order by x desc",), [(2,), (1,)]),
        (("select * from s.items qualify row_number() over (partition by grp order by id desc) = 1 order by id",),
         [(2, "a", 20, D(2020, 1, 2)), (4, "b", 6, None)]),
        (("select id, rank() over (partition by grp order by amount) as place from s.items where id < 4 "
          "qualify place = 1 order by id desc limit 1",), [(3, 1)]),
        (("select id from (select id from s.items qualify row_number() over (order by id) <= 2 "
          "union all select 9 as id) order by id",), [(1,), (2,), (9,)]),
        (("select distinct grp from s.items qualify count(*) over (partition by grp) = 2 order by grp",),
         [("a",), ("b",)]),
        (("select grp, listagg(id, ', ') within group (order by id desc) from s.items group by grp order by grp",),
         [("a", "2, 1"), ("b", "4, 3")]),
        (("select listagg(distinct grp, '|') within group (order by grp) from s.items",), [("a|b",)]),
        (("select id, listagg(id) within group (order by id desc) over (partition by grp) from s.items order by id",),
         [(1, "21"), (2, "21"), (3, "43"), (4, "43")]),
        (("select approximate count(distinct grp), median(amount), avg(amount) from s.items",),
         [(2, Decimal("8"), 10)]),
        (("select id, ratio_to_report(amount) over (partition by grp) from s.items where grp = 'a' order by id",),
         [(1, 1 / 3), (2, 2 / 3)]),
        (("select distinct percentile_cont(0.5) within group (order by amount) over (partition by grp) from s.items "
          "order by 1",), [(5.5,), (15.0,)]),
        (("select id from s.items minus select id from s.items where id > 1",), [(1,)]),
        (("select id, grp into #kept from s.items where id < 3", "select count(*) from #kept"), [(2,)]),
        (("create table #mine (id int identity(1,1), name varchar)", "insert into #mine (name) values ('x'), ('y')",
          "select k.id, k.name from #mine k order by 1", "drop table #mine"), []),
        (("delete s.items where id > 1", "select id from s.items"), [(1,)]),
        (("create table s.copy (like s.items)", "alter table s.copy append from s.items",
          "select (select count(*) from s.copy), (select count(*) from s.items)"), [(4, 0)]),
        (("create table s.new distkey(id) sortkey(at) as select id, at from s.items where id = 1",
          "alter table s.new alter diststyle all", "alter table s.new alter column id encode az64",
          "select * from s.new"), [(1, D(2020, 1, 1))]),
        (("create table s.target (id int, name varchar(10))", "create table s.source (id int, name varchar(10))",
          "insert into s.target values (101, 'Bob'), (102, 'John'), (103, 'Susan')",
          "insert into s.source values (102, 'Tony'), (103, 'Alice'), (104, 'Bill')",
          "merge into s.target using s.source on s.target.id = s.source.id when matched then update set id = "
          "source.id, name = source.name when not matched then insert values (source.id, source.name)",
          "select * from s.target order by id"),
         [(101, "Bob"), (102, "Tony"), (103, "Alice"), (104, "Bill")]),
        (("create table s.target (id int, name char(10))", "create table s.source (id int, name char(10))",
          "insert into s.target values (30, 'Tony'), (11, 'Alice'), (23, 'Bill')",
          "insert into s.source values (23, 'David'), (22, 'Clarence')",
          "merge into s.target using s.source on s.target.id = s.source.id remove duplicates",
          "select id, rtrim(name) from s.target order by id"),
         [(11, "Alice"), (22, "Clarence"), (23, "David"), (30, "Tony")]),
        (("select o.id, l.sku::varchar, l.n::int, i from s.orders o, o.payload.lines as l at i order by 1, 4",),
         [(1, "a", 2, 0), (1, "b", 7, 1)]),
        (("select o.id from s.orders o, o.payload.lines l where l.n > 5 and l.sku = 'b'",), [(1,)]),
        (("select o.payload.name::varchar, o.payload.lines[1].sku::varchar from s.orders o order by o.id",),
         [("x", "b"), ("y", None)]),
        (("set query_group to 'x'", "show query_group"), [("x",)]),
        (("show enable_case_sensitive_identifier",), [("on",)]),
        (("select pg_last_query_id(), current_user_id() > 0",), [(-1, True)]),
        (("create procedure s.fill(n int) as $$ begin insert into s.items select n, 'p', datediff(day, '2020-01-01', "
          "'2020-01-03'), null; end $$ language plpgsql", "call s.fill(9)",
          "select amount from s.items where id = 9"), [(2,)]),
        (("create materialized view s.mv backup no auto refresh yes as select count(*) as n from s.items",
          "refresh materialized view s.mv", "select n from s.mv"), [(4,)]),
    ],
)  # fmt: skip
def test_statements_have_the_result_that_redshift_gives(run: Any, texts: tuple[str, ...], expected: object) -> None:
    assert run(*ITEMS, *ORDERS, *texts) == expected


@pytest.mark.parametrize("example", [construct.example for construct in ACCEPTED])
def test_what_the_page_calls_accepted_is(run: Any, example: str) -> None:
    run(*ITEMS, "create table s.t (a int, b varchar(10), id int)", example)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_redshift_refuses_is_refused_with_an_error_and_the_session_goes_on(run: Any, rule: Any) -> None:
    run("create table s.t (a int, b int, id int, name varchar(10))")
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        run(rule.example)
    assert caught.value.args[0]["C"] in ("0A000", "42601", "42704", "42883")
    assert run("select 1") == [(1,)]


@pytest.mark.parametrize("example", [construct.example for construct in NOT_EMULATED])
def test_what_is_not_emulated_says_so(run: Any, example: str) -> None:
    run("create table s.t (a int, b int, id int)")
    with pytest.raises(redshift_connector.ProgrammingError, match="not emulated: ") as caught:
        run(example)
    assert caught.value.args[0]["C"] == "0A000"


def test_a_refused_statement_aborts_the_transaction_as_any_error_does(server: LocalRedshift) -> None:
    with server.connect() as connection:
        connection.autocommit = False
        execute(connection, "create table never (a int)")
        with pytest.raises(redshift_connector.ProgrammingError, match="returning"):
            execute(connection, "insert into never values (1) returning a")
        with pytest.raises(redshift_connector.ProgrammingError, match="25P02"):
            execute(connection, "select 1")
        connection.rollback()
        assert execute(connection, "select count(*) from pg_class where relname = 'never'") == [(0,)]


def test_a_refused_statement_with_bind_parameters_says_why(run: Any, session: Any) -> None:
    with session.cursor() as cursor, pytest.raises(redshift_connector.ProgrammingError, match="not emulated: GRANT"):
        cursor.execute("grant drop on table %s to x", ("a",))


def test_aliases_are_known_in_where_and_later_columns_and_columns_of_tables_come_first(run: Any) -> None:
    run("create table s.t (a int, b int)", "insert into s.t values (1, 10), (2, 20)")
    assert run("select a + b as total from s.t where total > 11 and b < 100") == [(22,)]
    assert run("select a as b from s.t where b = 10") == [(1,)]
    assert run("select a + b as total, total * 2 as double from s.t t order by 1") == [(11, 22), (22, 44)]
    assert run("select a * 0 as b, b + 1 as c from s.t order by 2") == [(0, 11), (0, 21)]


def test_leader_functions_work_without_a_table(run: Any) -> None:
    assert run("select generate_series(1, 3)") == [(1,), (2,), (3,)]
    assert run("select count(*) > 0 from pg_class where now() is not null") == [(True,)]


def test_a_late_binding_view_outlives_its_table_and_follows_the_next(run: Any) -> None:
    run("create table s.base (a int)", "insert into s.base values (1)")
    run("create view s.late as select * from s.base with no schema binding", "grant select on s.late to public")
    run("drop table s.base")
    with pytest.raises(redshift_connector.ProgrammingError, match=r"s\.base"):
        run("select * from s.late")
    run("create table s.base (a int, b varchar(5))", "insert into s.base values (2, 'x')")
    assert run("select a, b from s.late") == [(2, "x")]
    assert run("select has_table_privilege('public', 's.late', 'select')") == [(True,)]


def test_a_late_binding_view_survives_the_swap_that_dbt_makes(run: Any) -> None:
    run("create table s.model as select 1 as a", "create view s.late as (select a from s.model) with no schema binding")
    run("create table s.model__tmp as select 2 as a", "alter table s.model rename to model__backup",
        "alter table s.model__tmp rename to model", "drop table s.model__backup cascade")  # fmt: skip
    assert run("select a from s.late") == [(2,)]
    run("alter table s.late rename to renamed", "create or replace view s.renamed as select 3 as a, 4 as b "
        "with no schema binding")  # fmt: skip
    assert run("select * from s.renamed") == [(3, 4)]
    run("drop view s.renamed")
    assert run("select count(*) from pg_proc where proname like 'goldlake_late%'") == [(0,)]


def test_a_late_binding_view_over_nothing_yet_can_be_made(run: Any) -> None:
    run("create view s.early as select a from s.later with no schema binding")
    run("create table s.later (a int)", "insert into s.later values (7)")
    assert run("select a from s.early") == [(7,)]


def test_columns_of_a_late_binding_view_are_where_dbt_redshift_looks(run: Any) -> None:
    run("create view s.late as select 1 as a, 'x'::varchar(3) as b with no schema binding")
    columns = (
        "select col_name, col_type, col_num from pg_get_late_binding_view_cols() cols(view_schema name, view_name name,"
        " col_name name, col_type varchar, col_num int) where view_schema = 's' order by 3"
    )
    assert run(columns) == [("a", "integer", 1), ("b", "character varying(3)", 2)]
    assert run("select count(*) from information_schema.columns where table_schema = 's'") == [(0,)]


def test_foreign_keys_are_not_enforced(run: Any) -> None:
    run("create table s.parent (id int primary key)", "create table s.child (p int references s.parent (id))")
    run("insert into s.child values (5)")
    assert run("select p from s.child") == [(5,)]
    run("create table s.second (p int, foreign key (p) references s.parent (id))", "insert into s.second values (5)")
    run("create table s.third (p int)", "alter table s.third add constraint f foreign key (p) references s.parent (id)")
    run("insert into s.third values (5)")


def test_a_temporary_table_may_refer_to_any_table(run: Any) -> None:
    run("create table s.parent (id int primary key)")
    run("create temp table of_column (p int references s.parent (id))", "insert into of_column values (5)")
    run(
        "create table #of_table (p int, constraint f foreign key (p) references s.parent (id))",
        "insert into #of_table values (5)",
    )
    assert run("select p from #of_table union all select p from of_column") == [(5,), (5,)]


def test_a_null_where_there_may_be_none_is_refused_in_redshifts_words(run: Any) -> None:
    run("create table s.t (id int not null)")
    with pytest.raises(redshift_connector.Error, match="Cannot insert a NULL value into column id") as refused:
        run("insert into s.t values (null)")
    assert refused.value.args[0]["C"] == "23502"


def test_the_drivers_own_catalogue_calls_work(run: Any, session: Any) -> None:
    run("create table s.things (id int not null, name varchar(20), price decimal(10, 2), primary key (id))")
    with session.cursor() as cursor:
        # A primary key is an index in PostgreSQL, and listed as one.
        tables = [row[1:4] for row in map(tuple, cursor.get_tables(schema_pattern="s")) if row[3] != "INDEX"]
        assert tables == [("s", "things", "TABLE")]
        assert [row[3] for row in cursor.get_columns(schema_pattern="s", tablename_pattern="things")] == [
            "id",
            "name",
            "price",
        ]
        assert "s" in [row[0] for row in cursor.get_schemas()]
        assert [row[3] for row in cursor.get_primary_keys(schema="s", table="things")] == ["id"]


@pytest.mark.parametrize(
    "view",
    sorted(
        words("""svv_tables svv_columns svv_all_tables svv_all_columns svv_all_schemas svv_redshift_databases
    svv_redshift_schemas svv_redshift_tables svv_redshift_columns svv_redshift_functions svv_table_info
    svv_external_schemas svv_external_tables svv_external_columns pg_table_def stv_recents stv_inflight
    sys_query_history svv_relation_privileges svv_mv_info""")
    ),
)
def test_a_catalogue_view_can_be_read(run: Any, view: str) -> None:
    run(f"select * from {view}")  # noqa: S608 - one of the names above


def test_what_sqlalchemys_dialect_reads_of_pg_class_is_there(run: Any) -> None:
    run("create table s.things (id int)")
    assert run("select c.relname, c.reldiststyle, a.attisdistkey, a.attsortkeyord, format_encoding(a.attencodingtype::"
               "integer) from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid "
               "where c.relname = 'things' and a.attnum > 0") == [("things", 9, False, 0, "none")]  # fmt: skip


def test_show_commands_list_what_is_there(run: Any) -> None:
    run("create table s.things (id int)", "create view s.v as select 1 as a")
    assert ("analytics",) in [row[:1] for row in run("show databases")]
    assert "s" in [row[1] for row in run("show schemas from database analytics like 's%'")]
    assert [row[2:4] for row in run("show tables from schema analytics.s")] == [("things", "TABLE"), ("v", "VIEW")]
    assert [row[3] for row in run("show columns from table analytics.s.things")] == ["id"]


def test_users_groups_and_roles_with_redshifts_options(run: Any) -> None:
    run("drop user if exists sql_user", "drop group if exists sql_group", "drop role if exists sql_role")
    run(
        "create user sql_user password disable syslog access unrestricted connection limit unlimited session timeout 60"
    )
    run("create group sql_group with user sql_user", "create role sql_role", "grant role sql_role to sql_user")
    run("create table s.t (a int)", "grant usage on schema s to group sql_group, role sql_role")
    run("grant select on all tables in schema s to role sql_role")
    assert run("select has_table_privilege('sql_user', 's.t', 'select')") == [(True,)]
    run("drop schema s cascade", "drop user sql_user", "drop group sql_group", "drop role sql_role force")


def test_without_strict_mode_postgresqls_words_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDLAKE_LOCAL_REDSHIFT_STRICT", "off")
    lenient = LocalRedshift(tmp_path / "data").start()
    with lenient.connect() as connection:
        execute(connection, "create table t (id serial primary key, tags text[])")
        assert execute(connection, "insert into t (tags) values (array['a']) returning id") == [(1,)]
    lenient.signal(signal.SIGTERM)
