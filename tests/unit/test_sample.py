"""The sample's rows: the same everywhere, awkward on purpose, later with every seed. No S3 here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from runtime import sample
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.silver import COMPANIES, JOB_ENRICHMENT, JOB_POSTINGS, SilverTable

UNTIL = datetime(2026, 1, 15, tzinfo=UTC)
Rows = dict[SilverTable, list[dict[str, Any]]]
Make = Callable[..., Rows]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that generates a sample and reads its rows back."""
    home = tmp_path_factory.mktemp("samples")
    made = 0

    def rows_of(**options: Any) -> Rows:
        nonlocal made
        made += 1
        folder = home / str(made)
        folder.mkdir()
        tables = sample.generate(folder, until=options.pop("until", UNTIL), **options)
        rows: Rows = {}
        for table, (path, count) in tables.items():
            with duckdb.connect() as database:
                cursor = database.execute("SELECT * FROM read_parquet(?)", [str(path)])
                names = [item[0] for item in cursor.description or []]
                rows[table] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            assert len(rows[table]) == count
        return rows

    return rows_of


@pytest.fixture(scope="module")
def make(generated: Make) -> Make:
    """Return the same, once for the same options."""
    return functools.cache(generated)


def test_the_same_arguments_give_the_same_rows_in_the_same_order(generated: Make) -> None:
    assert generated(rows=3000, seed=4) == generated(rows=3000, seed=4)


def test_the_rows_are_those_that_every_machine_makes(make: Make) -> None:
    first = make(rows=100, seed=1)[JOB_POSTINGS][0]
    assert first["job_posting_id"] == "jp-00001-0000000"
    assert str(first["salary_min"]) == "48599.20"
    assert first["posted_at"] == datetime(2025, 11, 3, 7, 54, 30)  # noqa: DTZ001 - silver times have no zone


def test_another_seed_has_other_ids(make: Make) -> None:
    ids = [{row["job_posting_id"] for row in make(rows=500, seed=seed)[JOB_POSTINGS]} for seed in (1, 2)]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("rows", [1, 2, 19, 33, 34, 1000])
def test_there_are_as_many_postings_as_asked_for(make: Make, rows: int) -> None:
    made = make(rows=rows, seed=1)
    assert len(made[JOB_POSTINGS]) == rows
    assert made[COMPANIES]


def test_the_files_have_the_tables_columns_and_types(tmp_path: Path) -> None:
    for table, (path, _) in sample.generate(tmp_path, rows=10, until=UNTIL).items():
        with duckdb.connect() as database:
            described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        found = [(row[0], row[1].lower().replace("varchar", "string")) for row in described]
        assert found == [(column.name, column.type) for column in table.columns]


def test_required_columns_are_never_null(make: Make) -> None:
    for table, rows in make(rows=2000, seed=3).items():
        required = [column.name for column in table.columns if not column.nullable]
        assert all(row[name] is not None for row in rows for name in required)


def test_three_percent_are_later_scrapes_with_changed_title_and_salary(make: Make) -> None:
    scrapes: dict[str, list[dict[str, Any]]] = {}
    for row in make(rows=5000, seed=1)[JOB_POSTINGS]:
        scrapes.setdefault(row["job_posting_id"], []).append(row)
    twice = [rows for rows in scrapes.values() if len(rows) == 2]
    assert len(twice) == 150
    assert len(scrapes) == 4850
    for old, new in twice:
        assert new["scraped_at"] > old["scraped_at"]
        assert new["posted_at"] == old["posted_at"]
        assert new["title"] != old["title"]
        assert old["salary_min"] is None or new["salary_min"] > old["salary_min"]


def test_an_appended_file_is_later_and_scrapes_the_file_before_it_again(make: Make) -> None:
    first = make(rows=1000, seed=1)
    second = make(rows=500, seed=2, base=(1, 1000))
    old_ids = {row["job_posting_id"] for row in first[JOB_POSTINGS]}
    again = [row for row in second[JOB_POSTINGS] if row["job_posting_id"] in old_ids]
    assert len(again) == 15
    for table, column in ((JOB_POSTINGS, "scraped_at"), (COMPANIES, "updated_at"), (JOB_ENRICHMENT, "enriched_at")):
        newest = max(row[column] for row in first[table])
        assert min(row[column] for row in second[table]) >= newest
    companies = {row["company_id"] for row in first[COMPANIES]}
    again_companies = [row for row in second[COMPANIES] if row["company_id"] in companies]
    assert len(again_companies) == len(second[COMPANIES]) - 25


@pytest.mark.parametrize("seed", [1, 2, sample.MAX_SEED])
def test_nothing_is_later_than_the_end_of_the_datas_time(make: Make, seed: int) -> None:
    rows = make(rows=2000, seed=seed)
    end = UNTIL.replace(tzinfo=None)
    assert all(end - timedelta(days=181) < row["scraped_at"] < end for row in rows[JOB_POSTINGS])
    assert all(row["enriched_at"] < end for row in rows[JOB_ENRICHMENT])
    assert all(row["posted_at"] is None or row["posted_at"] <= row["scraped_at"] for row in rows[JOB_POSTINGS])


def test_the_awkward_values_are_there(make: Make) -> None:
    rows = make(rows=5000, seed=1)
    titles = {row["title"] for row in rows[JOB_POSTINGS]}
    assert set(sample.AWKWARD) <= titles
    assert None in titles
    names = [row["name"] for row in rows[COMPANIES]]
    assert None in names
    assert "" in names
    spelled: dict[str, set[str]] = {}
    for name in names:
        if name:
            spelled.setdefault(name.lower(), set()).add(name)
    assert any(len(spellings) > 1 for spellings in spelled.values())
    ids = [row["company_id"] for row in rows[COMPANIES]]
    assert len(set(ids)) < len(ids)


def test_skills_are_null_or_json_arrays_of_name_category_and_confidence(make: Make) -> None:
    texts = [row["skills"] for row in make(rows=5000, seed=1)[JOB_ENRICHMENT]]
    assert None in texts
    assert "[]" in texts
    skills = [skill for text in texts if text for skill in json.loads(text)]
    assert all(list(skill) == ["name", "category", "confidence"] for skill in skills)
    assert all(skill["confidence"] is None or 0.5 <= skill["confidence"] <= 1 for skill in skills)
    assert any(skill["category"] is None for skill in skills)


def test_a_postings_company_is_known_but_for_the_orphans(make: Make) -> None:
    rows = make(rows=2000, seed=1)
    known = {row["company_id"] for row in rows[COMPANIES]}
    named = {row["company_id"] for row in rows[JOB_POSTINGS]} - {None}
    assert {name for name in named if not name.startswith("co-unknown-")} <= known


def test_skills_are_a_prime_number_so_that_no_step_meets_one_twice() -> None:
    number = len(sample.SKILLS)
    assert all(number % divisor for divisor in range(2, number))


def test_a_maximal_salary_is_not_below_the_minimal_one(make: Make) -> None:
    for row in make(rows=2000, seed=5)[JOB_POSTINGS]:
        assert row["salary_max"] is None or row["salary_max"] >= row["salary_min"]
        assert (row["currency"] is None) == (row["salary_min"] is None)


@pytest.mark.parametrize("rows", [0, -1, sample.MAX_ROWS + 1])
def test_rows_out_of_range_are_refused_before_anything_is_asked_of_aws(rows: int) -> None:
    with pytest.raises(ConfigurationError, match="allowed are 1 to 5,000,000"):
        sample.write_sample(Connection("http://127.0.0.1:9"), "lake", rows=rows)


@pytest.mark.parametrize("seed", [0, sample.MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ConfigurationError, match="seed is"):
        sample.write_sample(Connection("http://127.0.0.1:9"), "lake", seed=seed)
