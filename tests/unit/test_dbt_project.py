"""The gold project's files: layers, contracts, owners, and what its SQL must not use. Nothing is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.redshift.gateway import postgres_sql

PROJECT = Path(__file__).parents[2] / "dbt_gold"
MODELS = sorted((PROJECT / "models").rglob("*.sql"))
# What a model of each layer may read. A source is read by staging only, a fact by what is built on it, and a dimension
# may count what a bridge has read already.
MAY_READ = {
    "staging": {"staging", "source"},
    "facts": {"staging"},
    "bridges": {"staging", "facts"},
    "dimensions": {"staging", "bridges"},
    "aggregations": {"facts", "bridges", "dimensions"},
}
_COMMENT = re.compile(r"\{#.*?#\}|--[^\n]*", re.DOTALL)


def layer(model: Path) -> str:
    """Return the layer of a model: its folder."""
    return model.parent.name


LAYERS = {model.stem: layer(model) for model in MODELS}


def layers_read(text: str) -> set[str]:
    """Return the layers that a model's SQL reads."""
    sql = _COMMENT.sub("", text)
    read = {LAYERS[name] for name in re.findall(r"\bref\(\s*['\"](\w+)['\"]", sql)}
    return read | ({"source"} if re.search(r"\bsource\(", sql) else set())


def documents(pattern: str) -> list[dict[str, Any]]:
    """Return the project's YAML files that match."""
    return [yaml.safe_load(path.read_text()) for path in sorted(PROJECT.glob(pattern))]


def described_models() -> dict[str, dict[str, Any]]:
    """Return what the YAML files say of each model, by name."""
    return {model["name"]: model for file in documents("models/**/*.yml") for model in file.get("models", [])}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.stem))
def test_a_model_reads_only_the_layers_below_it(model: Path) -> None:
    read = layers_read(model.read_text())
    assert read, f"{model.stem} reads nothing"
    assert read <= MAY_READ[layer(model)], f"{model.stem} is in {layer(model)} and reads {read}"


def test_a_mart_that_reads_a_source_is_found() -> None:
    assert layers_read("select * from {{ source('silver_linkedin', 'job_postings') }}") == {"source"}
    assert layers_read("-- {{ source('a', 'b') }}\nselect * from {{ ref('stg_companies') }}") == {"staging"}
    assert "source" not in set().union(*(allowed for name, allowed in MAY_READ.items() if name != "staging"))


def test_every_model_is_described_beside_its_sql() -> None:
    assert set(described_models()) == set(LAYERS)
    for model in MODELS:
        beside = [yaml.safe_load(path.read_text()) for path in model.parent.glob("*.yml")]
        assert any(entry["name"] == model.stem for file in beside for entry in file.get("models", []))


def test_the_key_of_every_mart_is_not_null_and_unique() -> None:
    for name, model in described_models().items():
        if LAYERS[name] == "staging":
            continue
        key = model["columns"][0]
        assert {"type": "not_null"} in key["constraints"], name
        assert "unique" in key["data_tests"], name


def test_no_model_hides_a_layer_from_contract_group_and_materialisation() -> None:
    config = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["models"]["gold_layer"]
    assert set(MAY_READ) == {name for name in config if not name.startswith("+")} == set(LAYERS.values())
    assert config["staging"]["+materialized"] == "ephemeral"
    assert {name: config[name]["+materialized"] for name in ("dimensions", "aggregations")} == {
        "dimensions": "table",
        "aggregations": "table",
    }
    for name in ("facts", "bridges"):
        assert config[name]["+materialized"] == "incremental"
        assert config[name]["+incremental_strategy"] == "delete+insert"
        assert config[name]["+on_schema_change"] == "append_new_columns"
    for name in set(MAY_READ) - {"staging"}:
        assert config[name]["+contract"] == {"enforced": True}
        assert config[name]["+persist_docs"] == {"relation": True, "columns": True}
        assert config[name]["+dist"]
    owners = {group["name"]: group["owner"] for file in documents("models/*.yml") for group in file.get("groups", [])}
    assert owners[config["+group"]]["email"]


def test_grafana_athena_and_trino_are_exposures_of_marts_that_exist() -> None:
    exposures = [entry for file in documents("models/*.yml") for entry in file.get("exposures", [])]
    assert {entry["name"].partition("_")[0] for entry in exposures} == {"grafana", "athena", "trino"}
    marts = {name for name, place in LAYERS.items() if place != "staging"} | {"dim_date", "dim_company_history"}
    read = [{re.findall(r"'(\w+)'", ref)[0] for ref in entry["depends_on"]} for entry in exposures]
    assert all(names <= marts for names in read)
    assert set().union(*read) == marts


def test_every_macro_is_described() -> None:
    names = {
        name
        for path in (PROJECT / "macros").glob("*.sql")
        for name in re.findall(r"\{%-? macro (\w+)\(", path.read_text())
        # An engine's own form is described by the macro that dispatches to it.
        if not name.startswith(("default__", "duckdb__"))
    }
    described = {macro["name"] for file in documents("macros/*.yml") for macro in file["macros"]}
    assert names == described


def test_the_project_needs_no_packages_since_a_function_without_internet_runs_it() -> None:
    assert not [path for path in PROJECT.iterdir() if path.name in ("packages.yml", "dependencies.yml")]


@pytest.mark.parametrize(
    ("redshift", "postgres"),
    [
        ("create table a (id int) diststyle all", "create table a (id int) "),
        ("/* dbt */ create temporary table a (id int)\ndiststyle key distkey (id) compound sortkey(id, b)", None),
        ("create table a interleaved sortkey(id) as (select 1 as id); select 'sortkey(id)'", None),
    ],
)
def test_the_local_warehouse_reads_tables_with_keys(redshift: str, postgres: str | None) -> None:
    made = postgres_sql(redshift)
    assert not re.search(r"diststyle|distkey|sortkey", made.partition(";")[0])
    assert made.partition(";")[2] == redshift.partition(";")[2]
    assert postgres is None or made.split() == postgres.split()


@pytest.mark.parametrize(
    "text",
    [
        "create table a as (select 'diststyle all; sortkey(id)' as \"distkey (x)\" /* sortkey(id) */)",
        "select sortkey(id) from a",
        "insert into a select 1 -- diststyle all",
    ],
)
def test_what_only_looks_like_a_key_stays(text: str) -> None:
    assert postgres_sql(text) == text
