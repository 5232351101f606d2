"""Clients of Redshift that none of us wrote, unchanged, on the local one."""

from __future__ import annotations

from typing import Any

from tests.clients.conftest import Run

A = [1, "a", 1.5]
B = [2, None, None]
C = [3, "ü'x", -2.0]


def test_awswrangler_reads_and_writes_over_the_wire(run: Run) -> None:
    answers = run("wrangler.py", "wire")
    assert answers["connect"] == [[1, "admin"]]
    assert answers["append"] == [A, B, C, [4, *A[1:]], [5, *B[1:]], [6, *C[1:]]]
    names = {1: "new", 2: None, 3: "ü'x", 4: "a", 5: None, 6: "ü'x", 7: "n", 8: "n"}
    assert answers["upsert"] == [list(item) for item in names.items()]
    assert answers["overwrite"] == [["id", "name", "price", "day"], 3]
    assert answers["chunks"] == [2, 1]
    assert answers["params"] == [["ü'x"]]


def test_awswrangler_reads_by_the_data_api(run: Run) -> None:
    answers = run("wrangler.py", "data_api")
    assert answers["columns"] == ["one", "two", "three", "four", "five"]
    assert answers["rows"] == [[1, "x", True, None, 2.5]]
    assert answers["empty"] == 0


def test_awswrangler_unloads_and_copies_through_s3(run: Run, lake_role: str) -> None:
    answers = run("wrangler.py", "lake", ROLE=lake_role)
    assert answers["copy"] == [A, B, C]
    assert answers["copy_from_files"] == [[6]]
    # A null name is not unlike any other: its row stays out.
    assert answers["unload"] == [A, C]
    assert answers["unload_to_files"] == 6


def test_redshift_connector_does_all_that_it_does(run: Run) -> None:
    answers = run("drivers.py", "connector")
    assert answers["rollback"] == 0
    rows: list[list[Any]] = [[1, "x%"], [2, "y?"], [3, "z"], [4, ":n"], [5, "v"], [6, "six"], [7, "seven"]]
    assert [row[:2] for row in answers["rows"]] == rows
    assert answers["description"] == ["id", "name", "n"]
    assert answers["frame"][0] == ["id", "name"]
    assert answers["numpy"] == [7, 2]
    numbers, texts = ["int"] * 3 + ["float"] * 2 + ["Decimal", "bool"], ["str"] * 2
    assert answers["types"] == [*numbers, *texts, "date", "datetime", "datetime", "str"]
    assert answers["schemas"]
    # The index of a primary key is in the list as well: PostgreSQL has one.
    assert "t" in answers["tables"]
    assert answers["columns"] == ["id", "name", "n"]
    assert answers["primary_keys"] == ["id"]
    assert answers["catalogs"]
    assert answers["iam"] == "IAM:local"


def test_sqlalchemy_creates_fills_and_reads_with_both_drivers(run: Run) -> None:
    expected = {"rows": ["a"], "shown": [1], "schemas": True}
    assert run("drivers.py", "alchemy") == {"redshift_connector": expected, "psycopg2": expected}


def test_libpq_connects_in_each_of_its_tls_modes(run: Run) -> None:
    modes = {"disable": False, "prefer": True, "require": True, "verify-ca": True, "verify-full": True}
    assert run("drivers.py", "libpq") == {mode: [encrypted, 100_001] for mode, encrypted in modes.items()}
