"""Sample job postings for the three silver tables, with the awkward values that real ones have.

The rows are a function of (rows, seed, until), the same on every machine: every choice is cut out of the md5
of seed and row number, since DuckDB's random() and hash() promise nothing from one version to the next. The
rows of an appended file are also a function of the file before it (the next lower seed), whose postings it
scrapes again.

Time is cut by seed, so that a higher seed is always later and no seed is in the future: seed N scrapes from
`until` - 24 h / N to `until` - 24 h / (N + 1). A first file has the 90 days before as well.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import glue, parquet, sql
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.silver import COMPANIES, JOB_ENRICHMENT, JOB_POSTINGS, SILVER_TABLES, SilverTable

if TYPE_CHECKING:
    import duckdb

SCHEMA = "goldlake.sample/1"
MAX_ROWS = 5_000_000
# Its window is 86 ms; much beyond it the scrapes' microseconds would no longer differ.
MAX_SEED = 1000
LATE_PERCENT = 3
ROWS_PER_COMPANY = 20
MAX_COMPANIES = 50_000
_KEY = re.compile(r"part-seed(\d+)-rows(\d+)\.parquet")

TITLES = (
    "Data Engineer",
    "Senior Data Engineer",
    "Analytics Engineer",
    "Platform Engineer",
    "Site Reliability Engineer",
    "Backend Developer",
    "Frontend Developer",
    "Machine Learning Engineer",
    "Product Manager",
    "UX Designer",
    "Account Executive",
    "Business Analyst",
    "Database Administrator",
    "Security Engineer",
    "Engineering Manager",
)
# Each has broken a loader, a CSV, a quoting function or a report somewhere.
AWKWARD = (
    "",
    "   ",
    "O'Brien & Söhne",
    'The "Best" Company',
    "back\\slash \\' \\n",
    "two\nlines",
    "carriage\r\nreturn",
    "tab\tbed",
    "🚀 Rocket 👩‍👩‍👧",
    "Cafe\u0301 (combining)",
    "Café (composed)",
    "مهندس بيانات",
    "מהנדס נתונים",
    "データエンジニア",
    "<b>bold</b> &amp; ${HOME} `id` $(id)",
    "'; DROP TABLE gold; --",
    "comma, semicolon; pipe| caret^",
    "NULL",
    "\\N",
    "zero\u200bwidth\ufeff",
)
PLACES = (
    ("Berlin", "Germany"),
    ("München", "Germany"),
    ("London", "United Kingdom"),
    ("São Paulo", "Brazil"),
    ("San José", "Costa Rica"),
    ("New York", "United States"),
    ("Austin", "United States"),
    ("Paris", "France"),
    ("Kraków", "Poland"),
    ("القاهرة", "Egypt"),
    ("東京", "Japan"),
    ("Bengaluru", "India"),
    ("Toronto", "Canada"),
)
CURRENCIES = ("USD", "EUR", "GBP", "INR", "JPY", "BRL")
WORKPLACES = ("On-site", "Hybrid", "Remote")
EMPLOYMENTS = ("Full-time", "Part-time", "Contract", "Internship", "Temporary")
SENIORITIES = ("Internship", "Entry level", "Associate", "Mid-Senior level", "Director", "Executive")
NORMALISED = ("intern", "junior", "mid", "senior", "lead", "executive")
FAMILIES = ("engineering", "data", "design", "product", "sales", "operations")
INDUSTRIES = ("Software", "Banking", "Retail", "Healthcare", "Energy", "Logistics", "Media")
SIZES = ("1-10", "11-50", "51-200", "201-1000", "1001-5000", "5001+")
NAME_FIRST = ("Nordic", "Blue", "Silver", "Golden", "Atlas", "Vertex", "Quiet", "Rapid", "Urban", "Green")
NAME_SECOND = ("Analytics", "Systems", "Logistics", "Foods", "Robotics", "Energy", "Media", "Health", "Bank")
MODELS = ("enrich-small-1", "enrich-large-2")
# A prime number of skills: steps of any width through the list meet no skill twice.
SKILLS = (
    ("Python", "language"),
    ("SQL", "language"),
    ("C++", "language"),
    ("C#", "language"),
    ("Go", "language"),
    ("Rust", "language"),
    ("Scala", "language"),
    ("R", "language"),
    ("dbt", "tool"),
    ("Airflow", "tool"),
    ("Spark", "tool"),
    ("Trino", "tool"),
    ("Kafka", "tool"),
    ("Terraform", "tool"),
    ("Pulumi", "tool"),
    ("Kubernetes", "platform"),
    ("AWS", "platform"),
    ("Redshift", "platform"),
    ("Delta Lake", "platform"),
    ("Communication", "soft"),
    ('"Quoted" skill', None),
    ("Pâtisserie ☕", "soft"),
    ("back\\slash", None),
)


@dataclass(frozen=True)
class SampleTable:
    """What was written for one table. `bytes` are those of the file, `deleted` the old files that went."""

    table: str
    location: str
    key: str
    rows: int
    bytes: int
    glue: str
    deleted: int


@dataclass(frozen=True)
class SampleReport:
    """What `write_sample` did, or would do when `dry_run`."""

    seed: int
    rows: int
    until: str
    append: bool
    dry_run: bool
    tables: tuple[SampleTable, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values under the schema `goldlake.sample/1`."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class _Plan:
    """The file to write: its seed and rows, and the file whose postings it scrapes again, if any."""

    seed: int
    rows: int
    until: datetime
    base: tuple[int, int] | None

    @property
    def key_name(self) -> str:
        return f"part-seed{self.seed}-rows{self.rows}.parquet"


def write_sample(
    aws: Connection,
    bucket: str,
    *,
    rows: int = 5000,
    seed: int = 1,
    append: bool = False,
    until: datetime | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> SampleReport:
    """Write sample data for the three silver tables as Parquet into the lake bucket, with Glue entries.

    `rows` is the number of job_postings rows, of which about 3% are later scrapes of others. `until` is the
    end of the data's time (default: today 00:00 UTC; a datetime without zone is UTC). With `append` a file is
    added whose postings are new and later, and whose later scrapes are of the file before it; else the
    tables' files are replaced: the new are written first, then the old deleted, so that a reader may for a
    moment see both. Running it again with the same arguments changes nothing.

    Raises ConfigurationError for values out of range, for an appended seed that is there with other rows or
    is below one that is there, for a location that holds a Delta table, and when replacing would delete
    files that no sample wrote, unless `force`; and as `runtime.aws.translated` does.
    """
    _check_range(rows, seed)
    say = progress or _silent
    s3 = aws.client("s3")
    present = {table: _present(aws, bucket, table, s3) for table in SILVER_TABLES}
    if not append and not force:
        _refuse_foreign(bucket, present)
    anchor = _midnight() if until is None else _utc(until)
    plan = _Plan(seed, rows, anchor, _base(present[JOB_POSTINGS], seed, rows) if append else None)
    warnings = _warnings(plan, present[JOB_POSTINGS], append=append)
    # First, for it can refuse: nothing is written then.
    entries = {} if dry_run else _register(aws, bucket)
    with tempfile.TemporaryDirectory(prefix="goldlake-sample-") as folder:
        say(f"making {rows:,} job postings from seed {seed}")
        made = generate(Path(folder), rows=rows, seed=seed, until=anchor, base=plan.base)
        written = []
        for table in SILVER_TABLES:
            path, count = made[table]
            if not dry_run:
                say(f"writing {count:,} rows of {table.full_name}")
                parquet.upload(aws, bucket, table.prefix() + plan.key_name, path, client=s3)
            written.append((table, count, path.stat().st_size))
    report = []
    for table, count, size in written:
        key = table.prefix() + plan.key_name
        old = [] if append else [name for name in present[table] if name != key]
        if not dry_run:
            parquet.delete(aws, bucket, old, client=s3)
        location = f"s3://{bucket}/{table.prefix()}"
        state = entries.get(table, "not changed: dry run")
        report.append(SampleTable(table.full_name, location, key, count, size, state, len(old)))
    return SampleReport(seed, rows, anchor.isoformat(), append, dry_run, tuple(report), warnings)


def generate(
    folder: Path,
    *,
    rows: int,
    seed: int = 1,
    until: datetime,
    base: tuple[int, int] | None = None,
) -> dict[SilverTable, tuple[Path, int]]:
    """Write the three tables' Parquet files into a local folder; return each one's path and rows.

    `base` is (seed, rows) of the file whose postings are scraped again; None makes a first file, which
    scrapes its own again. About 200 bytes a row on disk; memory does not grow with the rows.
    """
    from runtime.duck import connect

    _check_range(rows, seed)
    made = {}
    with closing(connect()) as database:
        # The same rows in the same order on every machine.
        database.execute("SET preserve_insertion_order = true")
        _prepare(database, _Plan(seed, rows, _utc(until), base))
        for table, select in _SELECTS.items():
            path = folder / f"{table.name}.parquet"
            columns = ", ".join(
                f"CAST({sql.identifier(column.name)} AS {column.type.replace('string', 'varchar')})"
                f" AS {sql.identifier(column.name)}"
                for column in table.columns
            )
            row = database.execute(
                f"COPY (SELECT {columns} FROM ({select}))"  # noqa: S608 - constants, quoted by runtime.sql
                f" TO {sql.literal(str(path))} (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
            made[table] = (path, int(row[0]) if row else 0)
    return made


def _check_range(rows: int, seed: int) -> None:
    """Raise ConfigurationError for rows or a seed out of range."""
    if not 1 <= rows <= MAX_ROWS:
        raise ConfigurationError(f"rows is {rows}: allowed are 1 to {MAX_ROWS:,}, since one file is written")
    if not 1 <= seed <= MAX_SEED:
        raise ConfigurationError(
            f"seed is {seed}: allowed are 1 to {MAX_SEED:,}, since each has its own hours of the day"
        )


def _midnight() -> datetime:
    """Return today's 00:00 UTC: the same all day, and never in the future."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _utc(moment: datetime) -> datetime:
    """Return the moment in UTC; one without zone is UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _present(aws: Connection, bucket: str, table: SilverTable, client: Any) -> list[str]:
    """Return the keys of the table's files. Raises ConfigurationError when it is a Delta table."""
    parquet.refuse_delta(aws, bucket, table.prefix(), client=client)
    return [file.key for file in parquet.list_files(aws, bucket, table.prefix(), client=client)]


def _refuse_foreign(bucket: str, present: dict[SilverTable, list[str]]) -> None:
    """Raise ConfigurationError when files are there that no sample wrote: they may be somebody's data."""
    foreign = [key for keys in present.values() for key in keys if not _sampled(key)]
    if foreign:
        raise ConfigurationError(
            f"the silver tables hold {len(foreign)} files that are no sample, first "
            f"s3://{bucket}/{foreign[0]}: replacing the tables would delete them",
            hint="append to them, or force the replacement",
        )


def _sampled(key: str) -> tuple[int, int] | None:
    """Return (seed, rows) of a file that a sample wrote; None for another."""
    found = _KEY.fullmatch(key.rpartition("/")[2])
    return (int(found[1]), int(found[2])) if found else None


def _base(keys: Sequence[str], seed: int, rows: int) -> tuple[int, int] | None:
    """Return (seed, rows) of the sample before this one; None when there is none.

    Raises ConfigurationError when the seed is there with other rows, or a higher one is there already: its
    postings would get the same ids, or be earlier than what has been loaded.
    """
    there = {sample for key in keys if (sample := _sampled(key))}
    higher = max(there, default=(0, 0))[0]
    clash = next((old for old in there if old[0] == seed and old[1] != rows), None)
    if clash or (higher > seed and (seed, rows) not in there):
        reason = f"is in the lake with {clash[1]:,} rows" if clash else f"is not after {higher}, which is there"
        raise ConfigurationError(
            f"seed {seed} {reason}: an appended sample needs a higher seed", hint=f"--seed {higher + 1}"
        )
    return max((old for old in there if old[0] < seed), default=None)


def _warnings(plan: _Plan, keys: Sequence[str], *, append: bool) -> tuple[str, ...]:
    """Return a warning when an append only writes again what is there."""
    again = append and any(key.endswith(f"/{plan.key_name}") for key in keys)
    text = f"seed {plan.seed} is in the lake already and was written again: a higher seed adds postings"
    return (text,) if again else ()


def _register(aws: Connection, bucket: str) -> dict[SilverTable, str]:
    """Make the Glue databases and tables; return what happened to each table's entry."""
    client = aws.client("glue")
    outcome: dict[SilverTable, str] = {}
    for table in SILVER_TABLES:
        glue.ensure_database(aws, table.database, client=client)
        location = f"s3://{bucket}/{table.prefix()}"
        outcome[table] = glue.ensure_parquet_table(aws, table, location, client=client)
    return outcome


def _silent(_: str) -> None:
    """Tell nobody."""


# --- the rows, in DuckDB's SQL ---


def _prepare(database: duckdb.DuckDBPyConnection, plan: _Plan) -> None:
    """Set the variables, macros and views that the three selects read."""
    start = plan.until - timedelta(hours=24) / plan.seed
    width = (plan.until - timedelta(hours=24) / (plan.seed + 1) - start) // timedelta(microseconds=1)
    late = plan.rows * LATE_PERCENT // 100
    first, first_rows = plan.base or (plan.seed, plan.rows)
    numbers = {
        "seed": plan.seed,
        "rows": plan.rows,
        "late": late,
        "first": plan.base is None,
        # Of the file that is scraped again: its seed, its new postings and its companies.
        "base_seed": first,
        "base_fresh": first_rows - first_rows * LATE_PERCENT // 100,
        "base_companies": _companies(first_rows),
        "companies": _companies(plan.rows),
        "late_companies": _companies(plan.rows) * LATE_PERCENT // 100,
        "start": start.replace(tzinfo=None),
        "width": width,
    }
    lists = {
        "titles": TITLES,
        "awkward": AWKWARD,
        "cities": [city for city, _ in PLACES],
        "countries": [country for _, country in PLACES],
        "currencies": CURRENCIES,
        "workplaces": WORKPLACES,
        "employments": EMPLOYMENTS,
        "seniorities": SENIORITIES,
        "normalised": NORMALISED,
        "families": FAMILIES,
        "industries": INDUSTRIES,
        "sizes": SIZES,
        "name_first": NAME_FIRST,
        "name_second": NAME_SECOND,
        "models": MODELS,
        "skills": [name for name, _ in SKILLS],
        "categories": [category for _, category in SKILLS],
    }
    for name, value in {**numbers, **{key: list(texts) for key, texts in lists.items()}}.items():
        database.execute(f"SET VARIABLE {sql.identifier(name)} = ?", [value])
    database.execute(_MACROS)


def _companies(rows: int) -> int:
    """Return how many companies a file of so many postings has."""
    return min(MAX_COMPANIES, max(1, rows // ROWS_PER_COMPANY))


# BIGINT throughout: DuckDB turns UBIGINT % BIGINT into 128-bit arithmetic, which takes 50 times as long.
# `dice` is 63 bits for a thing; `draw` cuts a number below 2^43 out of them, another for each salt.
_MACROS = """
CREATE MACRO dice(kind, seed, number) AS
    CAST(md5_number_lower(concat(kind, '/', seed, '/', number)) >> 1 AS BIGINT);
CREATE MACRO draw(h, salt) AS
    (((h >> (salt % 31)) & 4294967295) * (1640531527 + 18352 * salt)) >> 20;
CREATE MACRO pick(list, number) AS list[1 + number % len(list)];
CREATE MACRO posting_id(seed, number) AS
    concat('jp-', lpad(CAST(seed AS VARCHAR), 5, '0'), '-', lpad(CAST(number AS VARCHAR), 7, '0'));
CREATE MACRO company_id(seed, number) AS concat('co-', seed, '-', number);
-- The nth of `total` moments spread evenly over the seed's window.
CREATE MACRO moment(nth, total) AS
    getvariable('start') + to_microseconds(getvariable('width') * nth // total);
CREATE MACRO company_name(seed, number, h) AS CASE
    WHEN number % 17 = 3 THEN pick(getvariable('awkward'), number // 17)
    WHEN number % 53 = 7 THEN NULL
    ELSE concat(pick(getvariable('name_first'), draw(h, 1)), ' ',
                pick(getvariable('name_second'), draw(h, 2)), ' ', seed, '-', number)
END;

CREATE VIEW scrapes AS
SELECT i, again, nth, seed, number, posting_id(seed, number) AS job_posting_id, companies,
       dice('posting', seed, number) AS h
FROM (
    SELECT i,
           i >= getvariable('rows') - getvariable('late') AS again,
           i - (getvariable('rows') - getvariable('late')) AS nth,
           CASE WHEN again THEN getvariable('base_seed') ELSE getvariable('seed') END AS seed,
           CASE WHEN again THEN (nth * getvariable('base_fresh') // getvariable('late')) ELSE i END AS number,
           CASE WHEN again THEN getvariable('base_companies') ELSE getvariable('companies') END AS companies
    FROM range(getvariable('rows')) AS numbers(i)
);
-- A posting's own time is the same whenever it is scraped; only a first file scrapes before the window.
CREATE VIEW timed AS
SELECT *,
       CASE
           WHEN again THEN moment(nth + 1, getvariable('late') + 1)
           WHEN getvariable('first')
               THEN posted + to_seconds(draw(h, 41) % (1 + date_diff('second', posted, getvariable('start'))))
           ELSE moment(draw(h, 41) % 1000000, 1000000)
       END AS scraped_at
FROM (
    SELECT *,
           date_trunc('second', getvariable('start')) - to_seconds(1 + draw(h, 40) % 7776000) AS posted
    FROM scrapes
);
"""

_POSTINGS = """
SELECT job_posting_id,
       CASE WHEN draw(h, 1) % 100 = 0 THEN NULL
            WHEN draw(h, 1) % 200 = 1 THEN concat('co-unknown-', draw(h, 2) % 10)
            ELSE company_id(seed, draw(h, 2) % companies) END AS company_id,
       CASE WHEN again THEN concat(title, ' (updated)') ELSE title END AS title,
       CASE WHEN draw(h, 4) % 50 = 0 THEN NULL
            WHEN draw(h, 4) % 50 = 1 THEN pick(getvariable('awkward'), draw(h, 5))
            ELSE concat('We are looking for a ', title, ' in ', city, E'.\\n\\n• Team ', draw(h, 6) % 997,
                        E'\\n• Tools: ', pick(getvariable('skills'), draw(h, 7)), ', ',
                        pick(getvariable('skills'), draw(h, 8)), E'\\n\\tReference "', job_posting_id, '"')
       END AS description,
       CASE WHEN draw(h, 9) % 60 = 0 THEN NULL
            WHEN draw(h, 9) % 60 = 1 THEN ''
            WHEN draw(h, 9) % 60 = 2 THEN pick(getvariable('awkward'), draw(h, 10))
            ELSE concat(city, ', ', country_name) END AS location,
       CASE WHEN draw(h, 12) % 40 <> 0 THEN country_name END AS country,
       CASE WHEN draw(h, 13) % 20 <> 0
            THEN pick(getvariable('workplaces'), draw(h, 14)) END AS workplace_type,
       CASE WHEN draw(h, 15) % 25 <> 0
            THEN pick(getvariable('employments'), draw(h, 16)) END AS employment_type,
       CASE WHEN draw(h, 17) % 12 <> 0 THEN pick(getvariable('seniorities'), draw(h, 18)) END AS seniority,
       CASE WHEN paid THEN low END AS salary_min,
       CASE WHEN paid AND draw(h, 20) % 10 <> 0 THEN low + CAST(draw(h, 21) % 4000000 AS DECIMAL(12,0)) / 100
       END AS salary_max,
       CASE WHEN paid THEN pick(getvariable('currencies'), draw(h, 22)) END AS currency,
       CASE WHEN draw(h, 23) % 100 <> 0 THEN posted END AS posted_at,
       scraped_at,
       concat('https://jobs.example.com/view/', job_posting_id, '?ref=a%20b&q=1') AS url
FROM (
    SELECT *,
           CASE WHEN draw(h, 3) % 40 = 0 THEN pick(getvariable('awkward'), draw(h, 24))
                WHEN draw(h, 3) % 200 = 1 THEN NULL
                ELSE pick(getvariable('titles'), draw(h, 24)) END AS title,
           pick(getvariable('cities'), draw(h, 11)) AS city,
           pick(getvariable('countries'), draw(h, 11)) AS country_name,
           draw(h, 19) % 10 < 6 AS paid,
           -- 0.00 to 120,000.99; a later scrape raises it.
           CAST(CASE WHEN draw(h, 25) % 200 = 0 THEN 0 ELSE 2000000 + draw(h, 25) % 10000100 END
                AS DECIMAL(12,0)) / 100 + CASE WHEN again THEN 1250.50 ELSE 0 END AS low
    FROM timed
)
"""

_COMPANIES = """
SELECT company_id(seed, number) AS company_id,
       -- The same firm under a second id, spelled in capitals.
       CASE WHEN number % 29 = 5 THEN upper(company_name(seed, number - 1, dice('company', seed, number - 1)))
            ELSE company_name(seed, number, h) END AS name,
       CASE WHEN draw(h, 3) % 30 <> 0
            THEN pick(getvariable('industries'), draw(h, 4) + CASE WHEN again THEN 1 ELSE 0 END)
       END AS industry,
       CASE WHEN draw(h, 5) % 30 <> 0
            THEN pick(getvariable('sizes'), draw(h, 6) + CASE WHEN again THEN 1 ELSE 0 END) END AS size_band,
       CASE WHEN draw(h, 7) % 30 <> 0
            THEN concat(pick(getvariable('cities'), draw(h, 8)), ', ',
                        pick(getvariable('countries'), draw(h, 8))) END AS headquarters,
       CASE WHEN draw(h, 9) % 10 <> 0 THEN concat('https://company-', seed, '-', number, '.example.com') END
           AS website,
       CASE WHEN again THEN moment(nth + 1, getvariable('late_companies') + 1)
            WHEN getvariable('first') THEN getvariable('start') - to_seconds(draw(h, 10) % 31536000)
            ELSE moment(draw(h, 10) % 1000000, 1000000) END AS updated_at
FROM (
    SELECT *, dice('company', seed, number) AS h
    FROM (
        SELECT i >= getvariable('companies') AS again,
               i - getvariable('companies') AS nth,
               CASE WHEN again THEN getvariable('base_seed') ELSE getvariable('seed') END AS seed,
               CASE WHEN again THEN nth * getvariable('base_companies') // getvariable('late_companies')
                    ELSE i END AS number
        FROM range(getvariable('companies') + getvariable('late_companies')) AS numbers(i)
    )
)
"""

_ENRICHMENT = """
SELECT job_posting_id,
       CASE WHEN draw(h, 1) % 50 = 0 THEN NULL
            WHEN draw(h, 1) % 50 = 1 THEN '[]'
            ELSE CAST(to_json(list_transform(range(count + twice), lambda x: {
                -- Every hundredth answer names its first skill a second time, in capitals.
                'name': CASE WHEN x = count THEN upper(pick(getvariable('skills'), first_skill))
                             ELSE pick(getvariable('skills'), first_skill + x * step) END,
                'category': CASE WHEN x = count THEN pick(getvariable('categories'), first_skill)
                                 ELSE pick(getvariable('categories'), first_skill + x * step) END,
                'confidence': CASE WHEN (draw(h, 9) + x) % 40 <> 0
                                   THEN (50 + (draw(h, 8) + 7 * x) % 51) / 100 END
            })) AS VARCHAR) END AS skills,
       CASE WHEN draw(h, 2) % 20 <> 0
            THEN pick(getvariable('normalised'), draw(h, 18)) END AS seniority_normalised,
       CASE WHEN draw(h, 3) % 20 <> 0 THEN pick(getvariable('families'), draw(h, 24)) END AS role_family,
       CASE WHEN draw(h, 4) % 15 <> 0 THEN (draw(h, 5) % 1001) / 1000 END AS remote_score,
       pick(getvariable('models'), CASE WHEN again THEN 1 ELSE draw(h, 6) % 2 END) AS model,
       -- Never in the next seed's window, so that a higher seed stays later in every table.
       least(scraped_at + to_seconds(1 + draw(h, 7) % 600),
             getvariable('start') + to_microseconds(getvariable('width') - 1)) AS enriched_at
FROM (
    SELECT *,
           1 + draw(h, 10) % 8 AS count,
           CASE WHEN draw(h, 11) % 100 = 0 THEN 1 ELSE 0 END AS twice,
           draw(h, 12) % len(getvariable('skills')) AS first_skill,
           1 + draw(h, 13) % (len(getvariable('skills')) - 1) AS step
    FROM timed
    -- One in twenty postings has not been enriched.
    WHERE draw(h, 14) % 20 <> 0
)
"""

_SELECTS = {JOB_POSTINGS: _POSTINGS, COMPANIES: _COMPANIES, JOB_ENRICHMENT: _ENRICHMENT}
