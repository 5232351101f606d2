"""Which tables an export takes: names, globs, dbt's selection; and what dbt's manifest says of them."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConfigurationError, NotReadyError
from runtime.export import options, selection
from runtime.export.engine import Order
from runtime.export.models import Manifest, Model, read_manifest
from runtime.export.options import ExportOptions, file_bytes, order_key, table_options
from runtime.export.selection import Selection, choose_tables

AVAILABLE = {"dim_company": True, "dim_skill": True, "fact": True, "dim_view": False}


def test_all_tables_and_no_views_are_taken_by_default() -> None:
    assert choose_tables("gold", AVAILABLE) == ["dim_company", "dim_skill", "fact"]


def test_a_glob_takes_tables_and_a_name_takes_a_view() -> None:
    assert choose_tables("gold", AVAILABLE, ["dim_*"]) == ["dim_company", "dim_skill"]
    assert choose_tables("gold", AVAILABLE, ["dim_view", "fact", "fact"]) == ["dim_view", "fact"]


def test_a_name_that_looks_like_a_glob_is_a_name_first() -> None:
    assert choose_tables("gold", {"a*": True, "ab": True}, ["a*"]) == ["a*"]


@pytest.mark.parametrize("wanted", ["nope", "nope_*", "DIM_*"])
def test_what_is_not_there_is_named_with_what_is(wanted: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        choose_tables("gold", AVAILABLE, [wanted])
    assert raised.value.message == f"schema 'gold' has no table {wanted!r}; it has dim_company, dim_skill, fact"


def test_a_schema_without_tables_is_not_ready() -> None:
    with pytest.raises(NotReadyError):
        choose_tables("gold", {"view": False})


def test_without_a_manifest_select_and_exclude_take_names_and_globs() -> None:
    assert choose_tables("gold", AVAILABLE, None, Selection(("dim_* fact",), ("dim_s*",))) == ["dim_company", "fact"]


@pytest.mark.parametrize("criterion", ["tag:daily", "+fact", "fact+", "@fact", "dim_a,dim_b", "path:models"])
@pytest.mark.parametrize("option", ["select", "exclude"])
def test_without_a_manifest_dbts_methods_are_refused(option: str, criterion: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{option} .* is answered by dbt's manifest") as raised:
        choose_tables("gold", AVAILABLE, None, Selection(**{option: (criterion,)}))
    assert raised.value.hint == "--manifest target/manifest.json"


def test_a_selection_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leaves no table"):
        choose_tables("gold", AVAILABLE, ["fact"], Selection(exclude=("*",)))


@given(
    st.sets(st.text("ab_*?", min_size=1, max_size=4), min_size=1), st.lists(st.text("ab_*?", min_size=1, max_size=3))
)
def test_every_chosen_table_is_there_and_wanted(names: set[str], wanted: list[str]) -> None:
    try:
        chosen = choose_tables("gold", dict.fromkeys(names, True), wanted or None)
    except ConfigurationError:
        assert any(not any(fnmatch.fnmatchcase(name, item) for name in names) for item in wanted)
        return
    assert set(chosen) <= names
    assert chosen == sorted(set(chosen))
    assert all(any(fnmatch.fnmatchcase(name, item) or name == item for item in wanted) for name in chosen if wanted)


# --- dbt ---

MANIFEST = Manifest(
    Path("manifest.json"),
    (
        Model("model.p.dim_company", "gold", "dim_company"),
        Model("model.p.fact", "gold", "fact"),
        Model("model.p.gone", "gold", "gone"),
        Model("model.p.dim_view", "gold", "dim_view"),
        Model("model.p.other", "silver", "dim_skill"),
    ),
)


@pytest.fixture
def dbt(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Stand in for dbt's selector: a criterion's unique ids."""
    answers: dict[str, set[str]] = {}
    monkeypatch.setattr(selection, "_select_ids", lambda _path, select: answers[" ".join(select)])
    return answers


def test_dbts_selection_means_the_tables_of_the_schema(dbt: dict[str, set[str]]) -> None:
    dbt["tag:daily"] = {"model.p.dim_company", "model.p.fact", "model.p.other", "test.p.unique", "model.p.dim_view"}
    dbt["dim_company+"] = {"model.p.dim_company"}
    daily = Selection(("tag:daily",), ("dim_company+",))
    assert choose_tables("gold", AVAILABLE, None, daily, MANIFEST) == ["fact"]
    assert choose_tables("gold", AVAILABLE, ["dim_skill"], daily, MANIFEST) == ["dim_skill", "fact"]


def test_a_selected_model_that_was_not_built_is_named(dbt: dict[str, set[str]]) -> None:
    dbt["gone"] = {"model.p.gone"}
    with pytest.raises(ConfigurationError, match="no table 'gone', which dbt's selection holds"):
        choose_tables("gold", AVAILABLE, None, Selection(("gone",)), MANIFEST)


def node(name: str, **more: Any) -> dict[str, Any]:
    """Return a model as dbt's manifest has it."""
    config = {"materialized": "table", "meta": {}, "unique_key": None, "contract": {"enforced": False}}
    return {
        "unique_id": f"model.p.{name}", "resource_type": "model", "schema": "gold", "name": name, "alias": name,
        "description": "", "columns": {}, "constraints": [], "meta": {}, **more,
        "config": {**config, **more.get("config", {})},
    }  # fmt: skip


def written(folder: Path, *nodes: dict[str, Any]) -> Path:
    """Return a file with a manifest of these nodes."""
    content = {"metadata": {"invocation_id": "i-1"}, "nodes": {item["unique_id"]: item for item in nodes}}
    path = folder / "manifest.json"
    path.write_text(json.dumps(content))
    return path


def test_a_manifest_gives_contract_key_descriptions_and_options(tmp_path: Path) -> None:
    columns = {
        "id": {"name": "id", "data_type": "int", "description": "Key.", "constraints": [{"type": "not_null"}]},
        "name": {"name": "name", "data_type": None, "description": "", "constraints": []},
        "day": {"name": "day", "data_type": "date", "constraints": []},
    }
    config = {"unique_key": ["id", "day"], "contract": {"enforced": True}, "meta": {"goldlake": {"mode": "merge"}}}
    fact = node(
        "fact_v2",
        alias="fact",
        columns=columns,
        config=config,
        constraints=[{"type": "primary_key", "columns": ["day"]}],
    )
    hidden = node("staging", config={"materialized": "ephemeral"})
    manifest = read_manifest(written(tmp_path, fact, hidden, {**node("t"), "resource_type": "test"}))
    (model,) = manifest.models
    assert manifest.model("gold", "fact") is model
    assert manifest.model("gold", "fact_v2") is None
    assert (manifest.invocation_id, model.contract, model.unique_key) == ("i-1", True, ("id", "day"))
    assert [(c.name, c.data_type, c.not_null) for c in model.columns.values()] == [
        ("id", "int", True),
        ("name", None, False),
        ("day", "date", True),
    ]
    assert table_options(ExportOptions(), model).mode == "merge"


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_manifest(tmp_path / "manifest.json")
    assert "dbt parse" in str(raised.value.hint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nodes": {"a": {}}}'])
def test_a_file_of_another_form_is_no_manifest(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="is not a manifest of dbt"):
        read_manifest(path)


# --- options ---


def model_with(**meta: Any) -> Model:
    return Model("model.p.fact", "gold", "fact", unique_key=("id",), options=meta)


def test_the_command_wins_over_the_model_and_that_over_the_default() -> None:
    model = model_with(mode="append", partition_by="day", order_by=["a desc"], properties={"x": 1, "y": True})
    assert table_options(ExportOptions()).mode == "overwrite"
    found = table_options(ExportOptions(), model)
    assert (found.mode, found.partition_by, found.order_by) == ("append", ("day",), (Order("a", descending=True),))
    assert found.properties == {"x": "1", "y": "true"}
    asked = ExportOptions(mode="merge", partition_by=("week",), properties={"x": "2"}, symlink_manifest=False)
    found = table_options(asked, model_with(mode="append", symlink_manifest=True, properties={"x": "1"}))
    assert (found.mode, found.partition_by, found.properties) == ("merge", ("week",), {"x": "2"})
    assert (found.unique_key, found.symlink_manifest) == (("id",), False)


def test_an_unknown_option_of_a_model_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"meta\.goldlake of model\.p\.fact has 'partitions'"):
        table_options(ExportOptions(), model_with(partitions="day"))


@pytest.mark.parametrize("meta", [{"mode": "upsert"}, {"partition_by": 5}, {"properties": ["a"]}, {"file_size": "big"}])
def test_a_wrong_value_of_a_model_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        table_options(ExportOptions(), model_with(**meta))


@pytest.mark.parametrize("mode", options.MODES)
def test_rows_that_stay_keep_their_schema_unless_merge_is_asked_for(mode: str) -> None:
    where = ("day=1",) if mode == "replace-where" else ()
    found = table_options(ExportOptions(mode=mode, unique_key=("id",), replace_where=where))
    assert found.schema_mode == ("strict" if mode in ("append", "replace-where", "merge") else "overwrite")


@given(st.integers(1, 1000), st.sampled_from(["MB", "mb", "MiB", " MB"]))
def test_sizes_are_read_as_people_write_them(number: int, unit: str) -> None:
    size = number * (2**20 if "i" in unit else 10**6)
    if size > 10**9:
        with pytest.raises(ConfigurationError):
            file_bytes(f"{number}{unit}")
    else:
        assert file_bytes(f"{number}{unit}") == size


@pytest.mark.parametrize(
    ("text", "order"),
    [("a", Order("a")), ("a asc", Order("a")), ("a DESC", Order("a", descending=True)), ("a b", Order("a b"))],
)
def test_a_sort_key_is_a_column_and_a_direction(text: str, order: Order) -> None:
    assert order_key(text) == order
