"""What `load` accepts and refuses. The store is a fake that remembers what was written."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from runtime import load as loading
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.silver import COMPANIES, JOB_ENRICHMENT, JOB_POSTINGS, SilverTable

HEADER = "company_id,name,industry,size_band,headquarters,website,updated_at"
ROW = "c1,Ärger & Söhne,Retail,1-10,Berlin,,2026-01-02T03:04:05Z"


class _Missing(Exception):  # noqa: N818 - named as botocore names it
    pass


class FakeStore:
    """S3 and Glue of a Connection, in memory."""

    class exceptions:  # noqa: N801 - the name botocore gives it
        EntityNotFoundException = _Missing
        AlreadyExistsException = type("AlreadyExistsException", (Exception,), {})
        ConcurrentModificationException = type("ConcurrentModificationException", (Exception,), {})

    calls: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.tables: dict[str, dict[str, Any]] = {}

    def client(self, _: str) -> FakeStore:
        return self

    def get_paginator(self, _: str) -> FakeStore:
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        yield {"Contents": [{"Key": key, "Size": 1, "LastModified": None} for key in self.objects]}

    def list_objects_v2(self, *, Prefix: str, **_: object) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return {"Contents": [key for key in self.objects if key.startswith(Prefix)]}

    def upload_fileobj(self, content: io.BufferedReader, _: str, key: str, **__: object) -> None:
        self.objects[key] = content.read()

    def delete_objects(self, *, Delete: dict[str, list[dict[str, str]]], **_: str) -> dict[str, Any]:  # noqa: N803
        for item in Delete["Objects"]:
            self.objects.pop(item["Key"], None)
        return {}

    def get_database(self, **_: str) -> None:
        return None

    def get_table(self, *, Name: str, **_: str) -> dict[str, Any]:  # noqa: N803
        if Name not in self.tables:
            raise _Missing
        return {"Table": self.tables[Name]}

    def create_table(self, *, TableInput: dict[str, Any], **_: str) -> None:  # noqa: N803
        self.tables[TableInput["Name"]] = TableInput

    def rows(self, tmp_path: Path) -> list[dict[str, Any]]:
        """Return all rows written, file by file."""
        rows = []
        for key, content in self.objects.items():
            file = tmp_path / key.rpartition("/")[2]
            file.write_bytes(content)
            with duckdb.connect() as database:
                cursor = database.execute("SELECT * FROM read_parquet(?)", [str(file)])
                names = [item[0] for item in cursor.description or []]
                rows += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return rows


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def load(store: FakeStore, path: Path, table: SilverTable = COMPANIES, **options: Any) -> loading.LoadReport:
    """Load into the fake store."""
    connection: Any = store
    return loading.load(connection, "lake", path, table, **options)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write text with its line ends as they are."""
    path.write_bytes(text.encode(encoding))
    return path


def test_a_csv_file_comes_back_equal(store: FakeStore, tmp_path: Path) -> None:
    report = load(store, write(tmp_path / "c.csv", f"{HEADER}\n{ROW}\n"))
    assert (report.rows, report.files, report.warnings) == (1, 1, ())
    row = store.rows(tmp_path)[0]
    assert row["name"] == "Ärger & Söhne"
    assert row["website"] is None
    assert row["updated_at"].isoformat() == "2026-01-02T03:04:05"


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_other_delimiters_and_line_ends_is_read(
    store: FakeStore, tmp_path: Path, delimiter: str, end: str
) -> None:
    text = f"\ufeff{HEADER}{end}{ROW}{end}".replace(",", delimiter)
    load(store, write(tmp_path / "c.csv", text))
    assert store.rows(tmp_path)[0]["headquarters"] == "Berlin"


def test_quotes_line_breaks_and_empty_texts_in_csv_are_kept(store: FakeStore, tmp_path: Path) -> None:
    row = 'c1,"two\nlines, ""quoted""",,"",x\\y,\'z\',2026-01-02 03:04:05+02:00'
    load(store, write(tmp_path / "c.csv", f"{HEADER}\n{row}\n"))
    found = store.rows(tmp_path)[0]
    assert found["name"] == 'two\nlines, "quoted"'
    assert found["industry"] is None
    assert found["size_band"] == ""
    assert found["headquarters"] == "x\\y"
    assert found["website"] == "'z'"
    assert found["updated_at"].hour == 1


def test_columns_are_matched_whatever_their_order_and_case(store: FakeStore, tmp_path: Path) -> None:
    header = ",".join(reversed(HEADER.upper().split(",")))
    row = ",".join(reversed(ROW.split(",")))
    load(store, write(tmp_path / "c.csv", f"{header}\n{row}\n"))
    assert store.rows(tmp_path)[0]["company_id"] == "c1"


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "jsonl.gz", "json.gz"])
def test_json_lines_are_read_and_nested_values_become_text(store: FakeStore, tmp_path: Path, suffix: str) -> None:
    skills = [{"name": "C++", "category": None, "confidence": 0.5}]
    record = {"job_posting_id": 7, "skills": skills, "enriched_at": "2026-01-01T00:00:00Z", "remote_score": 0.25}
    others = dict.fromkeys(("seniority_normalised", "role_family", "model"))
    text = json.dumps({**record, **others}).encode() + b"\n"
    path = tmp_path / f"e.{suffix}"
    path.write_bytes(gzip.compress(text, mtime=0) if suffix.endswith("gz") else text)
    load(store, path, JOB_ENRICHMENT)
    row = store.rows(tmp_path)[0]
    assert row["job_posting_id"] == "7"
    assert json.loads(row["skills"]) == skills
    assert row["remote_score"] == 0.25


def test_a_zipped_csv_is_read(store: FakeStore, tmp_path: Path) -> None:
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode()))
    assert load(store, tmp_path / "c.csv.gz").rows == 1


def test_parquet_with_other_types_is_cast(store: FakeStore, tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'Asia/Tokyo'")
        database.execute(
            "COPY (SELECT 1 AS job_posting_id, [{'name': 'x'}] AS skills, NULL AS seniority_normalised,"
            " 'a' AS role_family, 1 AS remote_score, 'm' AS model,"
            f" TIMESTAMPTZ '2026-01-01 09:00:00' AS enriched_at) TO '{path}'"
        )
    load(store, path, JOB_ENRICHMENT)
    row = store.rows(tmp_path)[0]
    assert row["job_posting_id"] == "1"
    assert json.loads(row["skills"]) == [{"name": "x"}]
    assert row["enriched_at"].isoformat() == "2026-01-01T00:00:00"


def test_all_faults_of_all_files_are_told_at_once_and_nothing_is_written(store: FakeStore, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    names = [column.name for column in JOB_POSTINGS.columns]
    good = {"job_posting_id": "1", "scraped_at": "2026-01-01", "salary_min": "1.5"}
    bad = {"job_posting_id": "", "scraped_at": "yesterday", "salary_min": "12k"}
    lines = [",".join(names), *(",".join(row.get(name, "") for name in names) for row in (good, bad, bad))]
    write(folder / "a.csv", "\n".join(lines) + "\n")
    write(folder / "b.csv", "job_posting_id,scraped_at\n1,2026-01-01\n")
    write(folder / "c.csv", "\n".join(lines[:2]).replace("2026", '"2026') + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load(store, folder, JOB_POSTINGS)
    message = caught.value.message
    assert "a.csv: job_posting_id: 2 nulls, and none is allowed (row 2, 3)" in message
    assert "a.csv: scraped_at: 2 values are no timestamp: 'yesterday' (row 2), 'yesterday' (row 3)" in message
    assert "a.csv: salary_min: 2 values are no decimal(12,2): '12k' (row 2), '12k' (row 3)" in message
    assert "b.csv: columns are missing: company_id, title" in message
    assert "c.csv: cannot be read" in message
    assert str(tmp_path) not in message
    assert not store.objects
    assert not store.tables


def test_examples_are_the_first_three(store: FakeStore, tmp_path: Path) -> None:
    rows = "\n".join(ROW.replace("2026-01-02T03:04:05Z", f"bad{number}") for number in range(5000))
    with pytest.raises(ConfigurationError, match=r"5,000 values .*'bad0' \(row 1\), 'bad1' \(row 2\), 'bad2'"):
        load(store, write(tmp_path / "c.csv", f"{HEADER}\n{rows}\n"))


def test_a_column_that_the_table_has_not_is_ignored_with_a_warning(store: FakeStore, tmp_path: Path) -> None:
    report = load(store, write(tmp_path / "c.csv", f"{HEADER},more,\n{ROW},1,2\n"))
    assert report.warnings == ("c.csv: columns that the table has not are ignored: 'more', ''",)
    assert len(store.rows(tmp_path)[0]) == len(COMPANIES.columns)


def test_a_column_that_is_there_twice_is_refused(store: FakeStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the column name is there 2 times"):
        load(store, write(tmp_path / "c.csv", f"{HEADER},NAME\n{ROW},x\n"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("c.parquet", b"no parquet", "cannot be read"),
        ("c.parquet", b"", "cannot be read"),
        ("c.csv", f"{HEADER}\n{ROW},too,many\n".encode(), "Expected Number of Columns: 7 Found: 8"),
        ("c.csv", f"{HEADER}\nc1,few\n".encode(), "Expected Number of Columns: 7 Found: 2"),
        ("c.csv", f"{HEADER}\n{ROW}\r\n{ROW}\n".encode(), "line ends are mixed"),
        ("c.csv", f"{HEADER}\n{ROW}\n".encode("utf-16"), "'utf-8' codec"),
        ("c.csv", f'{HEADER}\n"{ROW}\n'.encode(), "unterminated quote"),
        ("c.csv", f'"company\n_id",{HEADER}\n1,{ROW}\n'.encode(), "line break"),
        ("c.csv", f"{HEADER}\n{ROW}\n".encode("latin-1"), "utf-8"),
        ("c.csv.gz", b"not zipped", "cannot be read"),
        ("c.jsonl", b'{"company_id": 1\n', "Malformed JSON"),
        ("c.jsonl", b'{"company_id": 1}\n[1]\n', "row 2 is not a JSON object"),
        ("c.jsonl", b"1\n", "row 1 is not a JSON object"),
        ("c.jsonl", b"{}\n", "columns are missing: company_id"),
        ("c.jsonl.gz", gzip.compress(b"{}" * 100, mtime=0)[:20], "cannot be read"),
    ],
)
def test_an_unreadable_file_is_refused_by_its_name(
    store: FakeStore, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=name) as caught:
        load(store, tmp_path / name)
    assert reason in caught.value.message
    assert "/0." not in caught.value.message
    assert not store.objects


@pytest.mark.parametrize(
    ("name", "content"), [("c.csv", b""), ("c.csv", f"{HEADER}\n".encode()), ("c.jsonl", b"\n"), ("c.json", b"")]
)
def test_a_file_without_rows_is_loaded_with_a_warning(
    store: FakeStore, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    report = load(store, tmp_path / name)
    assert (report.rows, report.files, len(report.warnings)) == (0, 1, 1)
    assert store.rows(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["it's.csv", 'quo"te.csv', "st*r.csv", "[a-z].csv", "k=v.csv", "new\nline.csv", "{a,b}.csv", "ü 🚀?.csv"]
)
def test_hostile_file_names_are_only_names(store: FakeStore, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "dt=1" / name.removesuffix(".csv")
    folder.mkdir(parents=True)
    write(folder / "other.csv", "x\n")
    assert load(store, write(folder / name, f"{HEADER}\n{ROW}\n")).rows == 1


def test_a_folder_of_several_formats_is_refused(store: FakeStore, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x")
    write(tmp_path / "b.jsonl", "{}")
    with pytest.raises(ConfigurationError, match=r"1 csv, 1 json"):
        load(store, tmp_path)


def test_a_folder_is_read_to_its_depth_without_hidden_files(store: FakeStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    write(data / "deep" / "a.csv", f"{HEADER}\n{ROW}\n")
    write(data / "b.csv", f"{HEADER}\n{ROW.replace('c1', 'c2')}\n")
    write(data / "_SUCCESS", "")
    write(data / ".hidden.csv", "x")
    write(data / "README.txt", "x")
    report = load(store, data)
    assert (report.rows, report.files) == (2, 2)
    assert report.warnings == ("README.txt is not of a known format: ignored",)


@pytest.mark.parametrize("name", ["absent.csv", "notes.txt", "empty"])
def test_a_path_with_nothing_to_load_is_refused(store: FakeStore, tmp_path: Path, name: str) -> None:
    write(tmp_path / "notes.txt", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError):
        load(store, tmp_path / name)


def test_a_delta_table_is_no_folder_of_parquet(store: FakeStore, tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(ConfigurationError, match="Delta table"):
        load(store, tmp_path)


def test_the_same_content_appended_twice_is_there_once(store: FakeStore, tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", f"{HEADER}\n{ROW}\n")
    load(store, path)
    report = load(store, path, append=True)
    assert len(store.objects) == 1
    assert "was loaded before" in report.warnings[0]


def test_equal_files_of_one_folder_are_both_loaded(store: FakeStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.csv", "b.csv"):
        write(data / name, f"{HEADER}\n{ROW}\n")
    assert load(store, data).rows == len(store.objects) == 2


def test_a_dry_run_tells_all_and_writes_nothing(store: FakeStore, tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", f"{HEADER}\n{ROW}\n")
    report = load(store, path, dry_run=True)
    assert (report.rows, report.dry_run) == (1, True)
    assert report.bytes > 0
    assert not store.objects
    assert not store.tables
    assert report.to_dict()["schema"] == "goldlake.load/1"


def test_a_file_that_is_refused_asks_nothing_of_aws(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        loading.load(Connection("http://127.0.0.1:9"), "lake", write(tmp_path / "c.csv", "x\n"), COMPANIES)
