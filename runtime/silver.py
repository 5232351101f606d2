"""The silver tables that the gold layer reads: their databases, columns and places in the lake.

Column types are written as Glue (Hive) writes them, since the Glue catalogue is where they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import ConfigurationError


@dataclass(frozen=True)
class Column:
    """A column. `type` is a Glue type: string, bigint, int, double, date, timestamp, decimal(p,s)."""

    name: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class SilverTable:
    """A silver table in the Glue database `database`; the warehouse sees it in the external schema `schema`."""

    database: str
    schema: str
    name: str
    columns: tuple[Column, ...]

    @property
    def full_name(self) -> str:
        """`<Glue database>.<table>`, the name that `goldlake load --table` takes."""
        return f"{self.database}.{self.name}"

    def prefix(self) -> str:
        """Return the key prefix of the table's Parquet files in the lake bucket, with a slash at its end."""
        return f"silver/{self.database}/{self.name}/"


JOB_POSTINGS = SilverTable(
    "silver_linkedin",
    "silver_linkedin",
    "job_postings",
    (
        Column("job_posting_id", "string", nullable=False),
        Column("company_id", "string"),
        Column("title", "string"),
        Column("description", "string"),
        Column("location", "string"),
        Column("country", "string"),
        Column("workplace_type", "string"),
        Column("employment_type", "string"),
        Column("seniority", "string"),
        Column("salary_min", "decimal(12,2)"),
        Column("salary_max", "decimal(12,2)"),
        Column("currency", "string"),
        Column("posted_at", "timestamp"),
        Column("scraped_at", "timestamp", nullable=False),
        Column("url", "string"),
    ),
)
COMPANIES = SilverTable(
    "silver_companies",
    "silver_companies",
    "companies",
    (
        Column("company_id", "string", nullable=False),
        Column("name", "string"),
        Column("industry", "string"),
        Column("size_band", "string"),
        Column("headquarters", "string"),
        Column("website", "string"),
        Column("updated_at", "timestamp", nullable=False),
    ),
)
JOB_ENRICHMENT = SilverTable(
    "silver_ai_enrichment",
    "silver_ai",
    "job_enrichment",
    (
        Column("job_posting_id", "string", nullable=False),
        # JSON text: an array of {name, category, confidence}.
        Column("skills", "string"),
        Column("seniority_normalised", "string"),
        Column("role_family", "string"),
        Column("remote_score", "double"),
        Column("model", "string"),
        Column("enriched_at", "timestamp", nullable=False),
    ),
)
SILVER_TABLES = (JOB_POSTINGS, COMPANIES, JOB_ENRICHMENT)


def silver_table(full_name: str) -> SilverTable:
    """Return the silver table called `full_name` (`silver_linkedin.job_postings`).

    Raises ConfigurationError with the known names when there is none.
    """
    for table in SILVER_TABLES:
        if table.full_name == full_name:
            return table
    known = ", ".join(table.full_name for table in SILVER_TABLES)
    raise ConfigurationError(f"{full_name!r} is no silver table: known are {known}")
