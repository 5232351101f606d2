"""The dbt project, built by the real dbt on the local Redshift."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from runtime.silver import SILVER_TABLES
from tests.local.dbt_support import MARTS, PASSWORD, PROJECT, Warehouse, running_warehouse, silver_ddl

# Redshift's own generate_series runs on the leader node, and joins no table.
NUMBERS = """
      (with recursive counted(i) as (select {first} union all select i + 1 from counted where i < {last})
       select i from counted) as numbers
"""
POSTINGS = f"""
    insert into silver_linkedin.job_postings
    select 'p' || i, case when i % 10 > 0 then 'c' || (i % 50) end, 'Title ' || i, 'd', 'Wien',
           case i % 3 when 0 then 'AT' when 1 then 'DE' end, 'Remote', 'Full-time', 'mid', 100, 200, 'eur',
           timestamp '2026-01-01' + (i % 100) * interval '1 day',
           timestamp '2026-06-01' + (i % 100) * interval '1 hour', 'u'
      from {NUMBERS.format(first=1, last=1000)}
"""  # noqa: S608 - numbers of this file
COMPANIES = f"""
    insert into silver_companies.companies
    select 'c' || i, 'Company ' || i, 'it', '1-10', 'Graz', 'w', timestamp '2026-01-01'
      from {NUMBERS.format(first=1, last=45)}
"""  # noqa: S608 - numbers of this file
ENRICHMENT = f"""
    insert into silver_ai.job_enrichment
    select 'p' || i, '[{{"name": "SQL"}}, {{"name": "Skill ' || (i % 5) || '"}}]', 'senior', 'data', 0.5, 'm',
           timestamp '2026-06-02'
      from {NUMBERS.format(first=1, last=400)}
"""  # noqa: S608 - numbers of this file
# Fifty postings come again with a new title, fifty are new; one comes late in a version older than what is there.
LATER_POSTINGS = f"""
    insert into silver_linkedin.job_postings
    select 'p' || i, 'c' || (i % 50), 'Later ' || i, 'd', 'Wien', 'AT', 'Remote', 'Full-time', 'mid', 100, 200,
           'eur', timestamp '2026-02-01', timestamp '2026-07-01', 'u'
      from {NUMBERS.format(first=951, last=1050)}
"""  # noqa: S608 - numbers of this file
STALE_POSTING = """
    insert into silver_linkedin.job_postings
    select 'p951', 'c1', 'Stale', 'd', 'Wien', 'AT', 'Remote', 'Full-time', 'mid', 100, 200, 'eur',
           timestamp '2026-02-01', timestamp '2026-06-30', 'u'
"""
LATER_ENRICHMENT = """
    insert into silver_ai.job_enrichment values
        ('p500', '[]', 'principal', 'data', 0.9, 'm', timestamp '2026-07-02')
"""

VARIABLES = "{gold_readers: [reader], frozen_after_days: 7}"
LISTED = ("name", "resource_type")

# A posting that named two skills names none.
EMPTIED_ENRICHMENT = """
    insert into silver_ai.job_enrichment values ('p1', '[]', 'senior', 'data', 0.5, 'm', timestamp '2026-07-02')
"""


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A local Redshift whose silver tables are filled by SQL, and which gold has been built in.

    The project is parsed for it, with every warning and deprecation an error.
    """
    with running_warehouse(tmp_path_factory.mktemp("dbt")) as server:
        server.query(*silver_ddl(), POSTINGS, COMPANIES, ENRICHMENT, "create user reader password 'Reader1234'")
        server.dbt("--warn-error", "build", "--show-all-deprecations")
        yield server


@pytest.fixture(scope="module")
def manifest(warehouse: Warehouse) -> Any:
    """dbt's manifest of the project, of the first build."""
    return warehouse.artifact("manifest.json")


def chosen(warehouse: Warehouse, selector: str) -> dict[str, set[str]]:
    """Return what a selector of selectors.yml chooses: names by kind."""
    said = warehouse.dbt("--quiet", "ls", "--selector", selector, "--output", "json", "--output-keys", *LISTED)
    found: dict[str, set[str]] = {}
    for line in said.splitlines():
        if line.startswith("{"):
            node = json.loads(line)
            found.setdefault(node["resource_type"], set()).add(node["name"])
    return found


def test_every_mart_has_an_enforced_contract_with_types_and_descriptions(manifest: Any) -> None:
    marts = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] != "ephemeral"
    ]
    assert {mart["name"] for mart in marts} == set(MARTS) - {"dim_date", "dim_company_history"}
    assert {mart["schema"] for mart in marts} == {"gold"}
    for mart in marts:
        assert mart["config"]["contract"]["enforced"], mart["name"]
        assert mart["description"], mart["name"]
        for column in mart["columns"].values():
            assert column["data_type"], (mart["name"], column["name"])
            assert column["description"], (mart["name"], column["name"])


def test_each_selector_chooses_what_it_says(warehouse: Warehouse, manifest: Any) -> None:
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values(), *manifest["unit_tests"].values()]
    everything = {(node["resource_type"], node["name"]) for node in nodes}
    gold = chosen(warehouse, "gold")
    assert {(kind, name) for kind, names in gold.items() for name in names if kind != "exposure"} == everything

    dimensions = chosen(warehouse, "dimensions")
    assert dimensions["model"] == {"dim_company", "dim_location", "dim_skill"}
    assert (dimensions["seed"], dimensions["snapshot"]) == ({"dim_date"}, {"dim_company_history"})
    assert {"unique_dim_skill_skill_key", "unique_dim_date_date_day"} <= dimensions["test"]

    postings = chosen(warehouse, "postings")
    aggregates = {"agg_company_hiring", "agg_daily_postings", "agg_skill_demand"}
    # Skills are counted in the bridge, so they are new with it; places and companies are not.
    assert postings["model"] == {"fact_job_posting", "bridge_job_skill", "dim_skill"} | aggregates
    assert chosen(warehouse, "aggregations")["model"] == aggregates
    declared = yaml.safe_load((PROJECT / "selectors.yml").read_text())["selectors"]
    assert {entry["name"] for entry in declared} == {"gold", "dimensions", "postings", "aggregations"}


def test_every_model_has_a_unit_test(manifest: Any) -> None:
    models = {node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "model"}
    assert {test["model"] for test in manifest["unit_tests"].values()} == models


def test_the_sources_are_the_silver_tables_with_what_the_readiness_check_needs(manifest: Any) -> None:
    sources = manifest["sources"].values()
    assert {(source["config"]["meta"]["glue_database"], source["schema"], source["name"]) for source in sources} == {
        (table.database, table.schema, table.name) for table in SILVER_TABLES
    }
    for source in sources:
        assert source["description"], source["name"]
        assert source["loaded_at_field"], source["name"]
        assert source["freshness"]["warn_after"]["count"], source["name"]


def test_the_calendar_has_every_day_of_eleven_years() -> None:
    with (PROJECT / "seeds" / "dim_date.csv").open() as file:
        days = [datetime.date.fromisoformat(row["date_day"]) for row in csv.DictReader(file)]
    first = datetime.date(2020, 1, 1)
    assert days == [first + datetime.timedelta(days=number) for number in range(4018)]
    assert days[-1] == datetime.date(2030, 12, 31)


def test_late_data_makes_no_duplicate_a_full_refresh_changes_nothing_and_all_of_it_is_redshift_sql(
    warehouse: Warehouse,
) -> None:
    counts = "select count(*), count(distinct job_posting_id) from gold.fact_job_posting"
    skills = "select count(*), max(mentions) from gold.bridge_job_skill where job_posting_id = 'p1'"
    assert warehouse.query(counts) == [[1000, 1000]]
    assert warehouse.query("select count(*) from gold.dim_date") == [[4018]]
    assert warehouse.query(skills) == [[2, 1]]

    check_statements(warehouse)

    # A company changes its name, and one is deleted.
    renamed = "insert into silver_companies.companies (company_id, name, updated_at) values ('c1', 'New', '2026-07-01')"
    deleted = "delete from silver_companies.companies where company_id = 'c2'"
    warehouse.query(LATER_POSTINGS, STALE_POSTING, LATER_ENRICHMENT, EMPTIED_ENRICHMENT, renamed, deleted)
    # The calendar and the unit tests were done the first time.
    warehouse.dbt("build", "--exclude-resource-type", "seed", "unit_test")
    # Now with both incremental models in their other form.
    check_statements(warehouse)

    assert warehouse.query(counts) == [[1050, 1050]]
    titles = "select count(*) from gold.fact_job_posting where title like "
    assert warehouse.query(titles + "'Later%'") == [[100]]
    assert warehouse.query(titles + "'Stale%'") == [[0]]
    enriched = "select seniority from gold.fact_job_posting where job_posting_id = 'p500'"
    assert warehouse.query(enriched) == [["principal"]]
    assert warehouse.query(skills) == [[1, 0]]
    assert warehouse.query("select sum(postings) from gold.agg_daily_postings") == [[1050]]
    assert warehouse.query("select round(sum(weight)) from gold.bridge_job_skill") == [[1050.0]]
    names = (
        "select company_name, is_inferred from gold.dim_company where company_id in ('c1', 'c2', 'unknown') order by 1"
    )
    assert warehouse.query(names) == [["New", False], ["Unknown", True], ["Unknown", True]]
    history = (
        "select company_id, company_name, dbt_valid_to is null from gold.dim_company_history"
        " where company_id in ('c1', 'c2') order by company_id, dbt_valid_from"
    )
    assert warehouse.query(history) == [["c1", "Company 1", False], ["c1", "New", True], ["c2", "Company 2", False]]

    tables = {table: warehouse.query(f"select * from gold.{table} order by 1, 2, 3") for table in MARTS}  # noqa: S608
    warehouse.dbt("run", "--full-refresh")
    for table, rows in tables.items():
        assert warehouse.query(f"select * from gold.{table} order by 1, 2, 3") == rows, table  # noqa: S608


def test_docs_readers_and_frozen_rows(warehouse: Warehouse) -> None:
    warehouse.dbt("run", "--select", "fact_job_posting", "bridge_job_skill", "--vars", VARIABLES)
    for model in ("facts/fact_job_posting", "bridges/bridge_job_skill"):
        ran = (warehouse.work / "target" / "run" / "gold_layer" / "models" / f"{model}.sql").read_text()
        # The delete of dbt: what it passes over, the model must not have chosen.
        delete, _, _ = ran[ran.index("delete from") :].partition(";")
        assert "posted_date >= (select max(posted_date) - 7 from" in delete, ran
    can_read = "select has_table_privilege('reader', 'gold.{}', 'select')"
    assert warehouse.query(can_read.format("fact_job_posting")) == [[True]]
    assert warehouse.query(can_read.format("dim_skill")) == [[False]]

    # With the same variables, or dbt would parse the project again.
    warehouse.dbt("docs", "generate", "--no-compile", "--vars", VARIABLES)
    catalog = warehouse.artifact("catalog.json")
    assert not catalog["errors"]
    found = {node["metadata"]["name"]: node for node in catalog["nodes"].values()}
    assert set(found) == set(MARTS)
    # persist_docs: what a reader of the database itself sees.
    assert found["fact_job_posting"]["metadata"]["comment"].startswith("One row for each job posting")
    assert found["dim_company_history"]["columns"]["dbt_valid_to"]["comment"].startswith("Until when it held")
    assert PASSWORD not in (warehouse.work / "logs" / "dbt.log").read_text()


def test_source_freshness_says_what_is_old(warehouse: Warehouse) -> None:
    warehouse.start_dbt("source", "freshness", "--vars", VARIABLES)
    assert warehouse.end_dbt().returncode == 1
    warehouse.query(
        "insert into silver_linkedin.job_postings (job_posting_id, scraped_at) values ('today', getdate())",
        "insert into silver_companies.companies (company_id, updated_at) values ('today', getdate())",
        "insert into silver_ai.job_enrichment (job_posting_id, enriched_at) values ('today', getdate())",
    )
    warehouse.dbt("source", "freshness", "--vars", VARIABLES)
    assert {result["status"] for result in warehouse.artifact("sources.json")["results"]} == {"pass"}


def check_statements(warehouse: Warehouse) -> None:
    """Every statement of the last build is Redshift's SQL, and uses nothing that Serverless lacks."""
    files = [*(warehouse.work / "target").rglob("*.sql")]
    assert {file.stem for file in files} >= set(MARTS) - {"dim_date"}
    assert {file.name: found for file in files if (found := lacking(file.read_text()))} == {}


# Names that PostgreSQL or DuckDB has and Redshift does not have, or has on its leader node only: those fail as soon as
# a table is read ("Unsupported PostgreSQL functions" and "Leader node-only functions" in its guide).
_LACKING = """
    age arg_max array_agg array_length array_to_string bool_and bool_or clock_timestamp concat_ws current_setting
    encode every format gen_random_uuid generate_series generate_subscripts get_bit hashtext inet_client_addr
    json_agg json_array_elements json_array_elements_text json_build_object json_each json_extract_string
    json_object_agg json_to_record json_valid jsonb_array_elements jsonb_array_length justify_days list_transform
    now overlay pg_sleep quote_nullable regexp_matches regexp_split_to_array regexp_split_to_table row_to_json
    setseed string_agg string_to_array timeofday to_ascii to_json to_tsvector try_cast unaccent unnest
    uuid_generate_v4 width_bucket xmlagg
"""
LACKING_FUNCTIONS = frozenset(_LACKING.split())


def lacking(text: str) -> list[str]:
    """Return what statements use that Redshift Serverless lacks. Raises ParseError for what is no Redshift SQL."""
    import sqlglot
    from sqlglot import exp

    nodes = (
        *(exp.Command, exp.Filter, exp.Lateral, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Qualify, exp.Array),
        *(exp.OnConflict, exp.Returning, exp.TableSample),
    )
    found = []
    for statement in filter(None, sqlglot.parse(text, dialect="redshift")):
        found += [type(node).__name__ for node in statement.find_all(*nodes)]
        found += ["DISTINCT ON" for node in statement.find_all(exp.Distinct) if node.args.get("on")]
        found += ["MATERIALIZED" for node in statement.find_all(exp.CTE) if node.args.get("materialized") is not None]
    # By the words, since a parsed function goes by another name: now() is read as CURRENT_TIMESTAMP.
    tokens = sqlglot.tokenize(text, dialect="redshift")
    calls = [name.text.lower() for name, after in itertools.pairwise(tokens) if after.text == "("]
    return found + [name for name in calls if name in LACKING_FUNCTIONS]


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) filter (where a) from t",
        "select distinct on (a) a, b from t",
        "select a from generate_series(1, 2) as g(a)",
        "select now()",
        "select string_agg(a, ',') from t",
        "select a from t where a is distinct from b",
        "with a as materialized (select 1) select * from a",
    ],
)
def test_what_serverless_lacks_is_found(text: str) -> None:
    assert lacking(text)
