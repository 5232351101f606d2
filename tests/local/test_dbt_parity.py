"""The gold project gives the same rows on the local Redshift and on DuckDB: table by table, row by row.

The data is a sample and a few hundred generated rows whose values have broken loaders, joins and parsers: NULLs, empty
and blank texts, separators, malformed JSON, text that is not ASCII, times and amounts at the ends of their ranges.
A second batch comes late; after it an incremental run must have made what a full refresh makes.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from runtime import sql
from runtime.sample import AWKWARD, generate
from runtime.silver import COMPANIES, JOB_ENRICHMENT, JOB_POSTINGS, SILVER_TABLES, SilverTable
from tests.local.dbt_support import MARTS, PASSWORD, Dbt, Warehouse, running_dbt, running_warehouse, silver_ddl

UNTIL = datetime(2026, 11, 1, tzinfo=UTC)
SAMPLE_ROWS = 200
BLANKS = (None, "", " ", "\t", "\r\n", " \n ")
# The first has blanks of all kinds around and within, and is the second to a reader.
SPELLINGS = ("\t Data \n  Engineer ", "Data Engineer", "DATA ENGINEER", "Straße", "STRASSE", "İstanbul", "ΟΔΟΣ", "ǅ")
TEXTS = (*BLANKS, *SPELLINGS, *AWKWARD, "x" * 3000, "🚀" * 600, "a|b", "a||b", "|", "0:", "-", "_null_", "%s {{ x }}")
PLACES = (
    *("Berlin, Germany", " berlin ,  GERMANY", "Austin, TX", "Austin, TX, USA", "Germany", "germany", "Remote"),
    *(
        "Remote, UK",
        ",",
        ", ,",
        "Berlin,",
        ",Germany",
        "a, b, c, d",
        "Wien; Graz",
        "München, Deutschland",
        "北京, 中国",
    ),
    *("Berlin, DE", "Washington, D.C., United States", "x" * 300 + ", Germany", "a,b|c", "a|b,c"),
)
COUNTRIES = (
    None,
    None,
    "",
    "Germany",
    "DE",
    " usa ",
    "u.s.",
    "ÖSTERREICH",
    "United  Kingdom",
    "Côte d'Ivoire",
    "x" * 99,
)
CURRENCIES = (None, "", "eur", " USD ", "euro", "€", "E1R", "éur", "usd\n")
AMOUNTS = (None, "0", "0.00", "-1", "0.01", "9999999999.99", "-9999999999.99")
TIMES = (
    *(None, "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2019-12-31 23:59:59", "2020-01-01 00:00:00"),
    *("2024-02-29 12:00:00", "2026-10-31 23:59:59.999999", "2026-11-01 00:00:00", "2031-01-01", "9999-12-31 23:59:59"),
)
SKILLS = (
    *(None, "", " ", "[]", "[", "]", "{}", "null", "true", "12", '"SQL"', "[null]", "[[]]", "[{}]", "[1, 2.5, true]"),
    *(
        "no JSON",
        '[{"name": "SQL"}',
        '[{"name": "SQL"},]',
        "[{'name': 'SQL'}]",
        '[{"name": SQL}]',
        '[{"name": "SQL"}] x',
    ),
    *(
        '{"name": "SQL"}',
        '["SQL", "Go"]',
        '[{"Name": "SQL"}]',
        '[{"name": null}]',
        '[{"name": ""}]',
        '[{"name": "\\t"}]',
    ),
    *(
        '[{"name": {"a": 1}}]',
        '[{"name": ["a"]}]',
        '[{"name": 5}]',
        '[{"name": true}]',
        '["{\\"name\\": \\"Nested\\"}"]',
    ),
    *('[{"name": "Cut\\u0000here"}]', '[{"name": "\\ud83d"}]', '[{"name": "\\ud83d\\ude80"}]', '[{"name": "\\u00e9"}]'),
    *('  [ { "name" : "Spaced  out" , "confidence" : 1 } ]  ', '[{"name": "a|b"}, {"name": "a", "category": "|b"}]'),
    '[{"name": "SQL", "confidence": 0.9}, {"name": " sql ", "confidence": 0.95}, {"name": "SQL"}]',
    json.dumps([{"name": name, "category": name} for name in SPELLINGS], ensure_ascii=False),
    json.dumps([{"name": name, "category": name} for name in AWKWARD]),
    json.dumps([{"name": "Long " + "x" * 500}, {"name": "🚀" * 300}]),
    # Nearly as long as a column of Spectrum may be, deeper than anything, and a name that ends quotes in SQL and Jinja.
    *(json.dumps([{"name": "Huge " + "x" * 60_000}]), "[" * 200 + "]" * 200),
    json.dumps([{"name": "O'Brien\"; -- {{ x }} \\' || chr(39)", "category": "a'b\\"}]),
    *(
        f'[{{"name": "Sure", "category": "{category}", "confidence": {confidence}}}]'
        for category, confidence in itertools.product(
            ("a", "B", " b ", ""),
            (
                "0",
                "1",
                "1.0",
                "0.0005",
                "0.8125",
                "1e-3",
                "5E-1",
                "1.0001",
                "-0.1",
                "1e5",
                '"0.5"',
                '"high"',
                "null",
                "[]",
            ),
        )
    ),
)

LONG_ARRAY = json.dumps([{"name": f"Skill {number}", "confidence": number / 1000} for number in range(1001)])


def edge_rows(batch: int) -> dict[SilverTable, list[tuple[Any, ...]]]:
    """Return rows of the three tables, the same for the same batch. Batch 2 is about half the things of batch 1."""
    dice = random.Random(batch)  # noqa: S311 - test data
    identifiers = [f"e{number}" for number in range(0 if batch == 1 else 150, 300 if batch == 1 else 400)]
    # What a scrape is late by: some of the second batch are older than what the first brought.
    # No scrape has the very time of one of the other batch: such a version waits for a full refresh.
    start = datetime(2026, 10, 1, second=batch) + timedelta(days=5 * batch)  # noqa: DTZ001 - silver has no zones
    companies = [
        None,
        "",
        " ",
        "ghost",
        "Ghost",
        *(f"ec{number}" for number in range(20 * (batch - 1), 20 * batch + 20)),
    ]
    postings = [
        (
            f" {identifier}\n" if dice.random() < 0.1 else identifier,
            dice.choice(companies),
            *dice.choices(TEXTS, k=2),
            dice.choice((*PLACES, *TEXTS)),
            dice.choice(COUNTRIES),
            *dice.choices((*TEXTS, "Remote", " remote", "HYBRID"), k=2),
            dice.choice(TEXTS),
            *(amount and Decimal(amount) for amount in dice.choices(AMOUNTS, k=2)),
            dice.choice(CURRENCIES),
            dice.choice(TIMES),
            # Few moments, so that versions of a posting tie.
            start - timedelta(days=dice.randrange(10)),
            dice.choice(TEXTS),
        )
        for identifier in [*identifiers, *dice.choices(identifiers, k=100), "", " "]
    ]
    firms = [
        (company or "", *dice.choices(TEXTS, k=5), start - timedelta(days=dice.randrange(10)))
        for company in [*companies[5:], *dice.choices(companies, k=20)]
        if (company or "").lower() != "ghost"
    ]
    asked = [*identifiers, *dice.choices(identifiers, k=100), "nobody's", ""]
    enrichments = [
        (
            identifier,
            LONG_ARRAY if number == 7 else SKILLS[number % len(SKILLS)],
            *dice.choices(TEXTS, k=2),
            dice.choice((None, 0.0, 1.0, 0.1, 1e-7, 1 / 3, -0.0)),
            dice.choice(("m1", "m2", None)),
            start + timedelta(days=dice.randrange(3)),
        )
        for number, identifier in enumerate(asked)
    ]
    return {JOB_POSTINGS: postings, COMPANIES: firms, JOB_ENRICHMENT: enrichments}


def write_parquet(folder: Path, batch: int) -> dict[SilverTable, list[Path]]:
    """Write a batch as Parquet files: some of the sample, and the edge data."""
    made = generate(folder, rows=SAMPLE_ROWS, seed=batch, until=UNTIL, base=None if batch == 1 else (1, SAMPLE_ROWS))
    files = {table: [path] for table, (path, _) in made.items()}
    with duckdb.connect() as database:
        for statement in silver_ddl():
            database.execute(statement)
        for table, rows in edge_rows(batch).items():
            name = sql.qualified(table.schema, table.name)
            path = folder / f"edge_{table.name}.parquet"
            places = ", ".join("?" * len(table.columns))
            database.executemany(f"insert into {name} values ({places})", rows)  # noqa: S608 - quoted
            database.execute(f"copy {name} to {sql.literal(str(path))} (format parquet)")
            files[table].append(path)
    return files


@dataclass
class Engines:
    """The two warehouses with the same silver tables."""

    redshift: Warehouse
    file: Path
    dbt: Dbt

    def load(self, folder: Path, batch: int) -> None:
        """Append a batch to the silver tables of both."""
        import duckdb_extension_postgres_scanner as package

        extension = next(Path(str(package.__file__)).parent.rglob("postgres_scanner.duckdb_extension"))
        login = f"host=127.0.0.1 port={self.redshift.port} dbname=analytics user=admin password={PASSWORD}"
        folder.mkdir()
        files = write_parquet(folder, batch)
        with duckdb.connect(str(self.file)) as database:
            database.execute(f"load {sql.literal(str(extension))}")
            database.execute(f"attach {sql.literal(login)} as redshift (type postgres)")
            for table, paths in files.items():
                rows = f"select * from read_parquet({[str(path) for path in paths]})"  # noqa: S608 - our own
                database.execute(f"insert into {sql.qualified(table.schema, table.name)} {rows}")
                database.execute(f"insert into {sql.qualified('redshift', table.schema, table.name)} {rows}")

    def build(self, *arguments: str) -> None:
        """Build and test everything on both at once."""
        self.redshift.start_dbt("build", *arguments)
        self.dbt.start("build", "--target", "duckdb", *arguments)
        for done in (self.redshift.end_dbt(), self.dbt.end()):
            assert done.returncode == 0, done.output

    def duckdb(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on DuckDB."""
        with duckdb.connect(str(self.file), read_only=True) as database:
            return database.execute(statement).fetchall()

    def columns(self, table: str) -> list[tuple[str, str]]:
        """Return names and types of a gold table's columns, on DuckDB."""
        return [(str(row[0]), str(row[1])) for row in self.duckdb(f"describe {sql.qualified('gold', table)}")]

    def rows(self, table: str) -> tuple[list[str], list[str]]:
        """Return a gold table's rows on Redshift and on DuckDB as texts, in order."""
        columns = [name for name, _ in self.columns(table)]
        if table == "dim_company_history":
            # A closed version of a company that is gone has the time of the run.
            columns.remove("dbt_valid_to")
            columns.append("dbt_valid_to is null")
        names = ", ".join(sql.identifier(name) if " " not in name else name for name in columns)
        statement = f"select {names} from {sql.qualified('gold', table)}"  # noqa: S608 - quoted
        return (
            sorted(repr(tuple(row)) for row in self.redshift.query(statement)),
            sorted(repr(tuple(row)) for row in self.duckdb(statement)),
        )


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Both warehouses, after a first batch and a build."""
    work = tmp_path_factory.mktemp("parity")
    file = work / "warehouse.duckdb"
    with running_warehouse(work, strict=False) as redshift, running_dbt(work / "duckdb", GOLD_DUCKDB=str(file)) as dbt:
        made = Engines(redshift, file, dbt)
        redshift.query(*silver_ddl())
        with duckdb.connect(str(made.file)) as database:
            for statement in silver_ddl():
                database.execute(statement)
        made.load(work / "first", 1)
        made.build()
        yield made


def differences(engines: Engines) -> dict[str, Any]:
    """Return for each table that differs the first rows that only one of the two has."""
    found = {}
    for table in MARTS:
        redshift, duck = engines.rows(table)
        assert redshift, table
        if redshift != duck:
            only = sorted(set(redshift) - set(duck)), sorted(set(duck) - set(redshift))
            found[table] = [len(redshift), len(duck), only[0][:3], only[1][:3]]
    return found


def test_every_mart_has_the_same_rows_on_both_engines(engines: Engines) -> None:
    assert differences(engines) == {}


def test_the_edge_data_reaches_the_marts(engines: Engines) -> None:
    skills = {row[0] for row in engines.duckdb("select skill_name from gold.dim_skill")}
    assert {"Unknown", "SQL", "Nested", "Sure", "Spaced out", "🚀", "é", "5", "Skill 1000"} <= skills
    assert "O'Brien\"; -- {{ x }} \\' || chr(39)" in skills
    assert not skills & {"Cuthere", "SQL, Go", "", " "}
    assert len([name for name in skills if name.startswith("Huge")]) == 1
    # One member each for all spellings.
    counted = "select count(*) from gold.dim_skill where lower(skill_name) = "
    assert engines.duckdb(counted + "'data engineer'") == engines.duckdb(counted + "'sql'") == [(1,)]
    places = "select distinct city, region, country from gold.dim_location where city in ('Berlin', 'Austin')"
    assert ("Austin", "TX", "United States") in engines.duckdb(places)
    assert engines.duckdb("select count(*) from gold.dim_company where company_id in ('ghost', 'Ghost')") == [(2,)]
    assert engines.duckdb("select count(*) from gold.fact_job_posting where length(title) = 512") != [(0,)]


def test_late_data_makes_the_same_rows_on_both_and_those_of_a_full_refresh(engines: Engines) -> None:
    engines.load(engines.redshift.work / "second", 2)
    # The unit tests and the calendar have nothing to do with the data.
    engines.build("--exclude-resource-type", "unit_test", "seed")
    assert differences(engines) == {}
    incremental = {table: engines.rows(table)[1] for table in MARTS}

    engines.build("--full-refresh", "--exclude-resource-type", "test", "unit_test", "seed", "snapshot")
    assert differences(engines) == {}
    for table, rows in incremental.items():
        full = engines.rows(table)[1]
        assert rows == full, (table, sorted(set(full) ^ set(rows))[:4])


def test_the_silver_tables_of_the_tests_are_those_of_the_lake(engines: Engines) -> None:
    for table in SILVER_TABLES:
        described = engines.duckdb(f"describe {sql.qualified(table.schema, table.name)}")
        assert [row[0] for row in described] == [column.name for column in table.columns]
