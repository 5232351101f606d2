"""Redshift's SQL into PostgreSQL's: what changes, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from local.pages import filled
from local.redshift.dialect import translate
from local.redshift.dialect.constructs import ACCEPTED, NOT_EMULATED, SUPPORTED, texts
from local.redshift.dialect.lexer import LexError, tokens
from local.redshift.dialect.strictness import RULES, Rule
from local.redshift.dialect.words import words

ROOT = Path(__file__).parents[2]
# Words that call for a change wherever they stand in a statement, so that a test of "nothing changes" would see one.
TEMPTING = "nvl(a) getdate sysdate dateadd(day, 1, x) distkey sortkey #temp ON CONFLICT serial top 3 qualify minus"

plain = st.text(st.characters(exclude_characters="'\"\\$\x00", exclude_categories=["Cs"])) | st.just(TEMPTING)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";;",
        "begin",
        "select 1",
        "select a, b from s.t where a = 'x' order by b limit 3;  select 2 -- done",
        "select extract(day from x), substring(a from 2 for 3), trim(' ' from a) from t where a is distinct from b",
        "create table t (a integer not null, b varchar(10), primary key (a))",
        "insert into t select * from u; update t set a = 1 from u where t.a = u.a; delete from t using u where t.a = 1",
        "with x as (select 1 as a) select x.a, count(*) over (partition by a) from x group by 1 having count(*) > 1",
        "select c.oid, n.nspname from pg_catalog.pg_class c, pg_catalog.pg_namespace n where c.relnamespace = n.oid",
        "select a # 3, a::numeric(10, 2), cast(b as varchar(20)), date '2020-01-01' from t",
        "select top from t where minus > 1 and qualify = 2",
        "grant select on all tables in schema s to group g",
        "select $1, $2 from t where a = $3",
        "copy t from 's3://bucket/key' iam_role default format parquet",
        "commit; rollback; end; abort; lock s.t",
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_postgresql_reads_the_same_way_comes_back_as_it_is(text: str, strict: bool) -> None:
    assert translate(text, strict=strict) == text


@given(plain, plain, plain)
def test_texts_quoted_names_and_comments_are_never_altered(literal: str, name: str, comment: str) -> None:
    comment = comment.replace("*/", "").replace("/*", "").strip("/*")
    quoted = f"select '{literal}' as \"n{name}\", $x${literal}$x$ /* {comment} */ from t"  # noqa: S608 - read, never run
    assert translate(quoted, strict=True) == quoted
    changed = translate(f"{quoted} where nvl(a, b) = 1", strict=True)
    assert changed == f"{quoted} where coalesce(a, b) = 1"


@given(st.text())
def test_any_text_is_translated_or_left_and_never_an_exception(text: str) -> None:
    assert isinstance(translate(text, strict=True), str)
    assert isinstance(translate(text), str)


WORDS = words("""select from where ( ) , . [ ] a t.b #x qualify top 3 'x' as over order by join using within group
    listagg decode nvl2 merge on create table view alter case end""")


@given(st.lists(st.sampled_from(sorted(WORDS))))
def test_words_in_any_order_are_no_exception(text: list[str]) -> None:
    for start in ("", "create table x ", "select a from t where "):
        translate(start + " ".join(text), strict=True)


@given(st.text())
def test_tokens_are_the_text_without_spaces_and_comments(text: str) -> None:
    try:
        found = tokens(text)
    except LexError:
        return
    position = 0
    for token in found:
        assert text[token.start : token.end] == token.text
        between = text[position : token.start].strip()
        assert not between or between.startswith(("--", "/*"))
        position = token.end


@pytest.mark.parametrize(
    ("redshift", "postgres"),
    [
        ("select nvl(a, nvl2(b, 1, 2))", "select coalesce(a, case when (b) is not null then 1 else 2 end   )"),
        ("select dateadd(m, 1, x)", "select dateadd('minute', 1, x)"),
        ("select date_trunc('mon', x)", "select date_trunc('month', x)"),
        ("select sysdate, t.sysdate from t", "select sysdate(), t.sysdate from t"),
        ("select x::decimal, cast(y as numeric)", "select x::decimal(18,0), cast(y as numeric(18,0))"),
        ("select 'a\\\\d' || E'\\\\'", "select E'a\\\\d' || E'\\\\'"),
        ("select '\\u0041'", "select E'u0041'"),
        ("create table t (a text, b varchar, c char)", "create table t (a varchar(256), b varchar(256), c char)"),
        ("create table t (a int) distkey(a)", "create table t (a int) "),
        ("create table #t (a int)", 'create temp table "#t" (a int)'),
        ("create table t (id int identity(0,1))",
         "create table t (id int generated always as identity (start with 0 increment by 1 minvalue 0))"),
        ("select a as x from t qualify x = 1", "select a as x from t order by generate_series(1, ((a) = 1)::int)"),
        ("select a + b from t qualify b = 1", "select a + b from t order by generate_series(1, (b = 1)::int)"),
        ("select i.a from t, t.items i",
         "select i.i['a'] from t, pg_catalog.goldlake_unnest(t.items) i(i, goldlake_index)"),
        ("select t.a[0].b from t", "select t.a[0]['b'] from t"),
        ("create user u password disable", "create user u PASSWORD NULL"),
        ("create procedure p() as $$ begin create user u password disable; end $$ language plpgsql",
         "create procedure p() as $$ begin create user u PASSWORD NULL; end $$ language plpgsql"),
        ("set query_group to 'x'", "set goldlake_redshift.query_group to 'x'"),
        ("alter table s.t alter sortkey (a)", "DO 'begin perform ''s.t''::regclass; end'"),
        ("vacuum full s.t to 100 percent boost", "VACUUM s.t"),
        ("delete t", "delete from t"),
        ("grant role a to role b", "grant  a to  b"),
    ],
)  # fmt: skip
def test_redshifts_words_become_postgresqls(redshift: str, postgres: str) -> None:
    assert translate(redshift, strict=True).split() == postgres.split()


def test_only_the_statement_that_needs_it_changes() -> None:
    text = "select 1 ; -- first\n select nvl(a, 1) from t ;\n select 2"
    assert translate(text) == text.replace("nvl", "coalesce")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_redshift_refuses_passes_without_strict_mode_only(rule: Rule) -> None:
    assert "raise exception" in translate(rule.example, strict=True)
    assert "raise exception" not in translate(rule.example)


@pytest.mark.parametrize(
    "text",
    [
        "select generate_series(1, 3)",
        "select now()",
        "select current_timestamp",
        "select array_to_string(c.relacl, ',') from pg_catalog.pg_class c",
        "select conkey[1], array_agg(attname), now() from pg_constraint join pg_attribute on true group by 1",
        "select sum(a) over (partition by b) from t group by grouping sets ((a), (b))",
        "create table t as select row_number() over (partition by a order by b) from u",
        "select filter, lateral, returning from t",
        "select a as now from t",
    ],
)
def test_what_redshift_has_too_is_not_refused(text: str) -> None:
    assert "raise exception" not in translate(text, strict=True)


def test_a_refusal_takes_the_bind_parameters_of_its_statement() -> None:
    refused = translate("insert into t values ($1, $2) returning a", strict=True)
    assert refused.startswith("select pg_catalog.goldlake_refuse('42601',")
    assert "$2::text" in refused


def test_a_text_that_does_not_end_is_refused_by_its_own_kind_of_error() -> None:
    assert "unterminated" in translate(r"select 'a\'", strict=True)
    assert translate(r"select 'a\'") == r"select 'a\'"


def test_a_late_binding_view_must_name_schemas() -> None:
    assert "should be qualified" in translate("create view v as select 1 from t with no schema binding")
    made = translate("create view v as with c as (select 1 from s.t) select * from c with no schema binding")
    assert "goldlake_create_late_view" in made


def test_the_examples_of_the_page_are_redshifts_sql_for_sqlglot_too() -> None:
    """What it knows as a mere command, or not at all, is left out: it has no grammar for it."""
    for construct in SUPPORTED:
        first = construct.example.split()[0]
        if first in ("select", "delete") and "items as i at" not in construct.example:
            sqlglot.parse_one(construct.example, read="redshift")


def test_names_in_the_tables_of_the_page_are_unique() -> None:
    names = [one.name for one in (*SUPPORTED, *ACCEPTED, *NOT_EMULATED)] + [rule.name for rule in RULES]
    assert len(names) == len(set(names))


def test_the_page_holds_the_tables_as_the_code_has_them() -> None:
    for name, parts in texts().items():
        page = (ROOT / name).read_text()
        assert filled(page, parts) == page, "run `make docs`"
