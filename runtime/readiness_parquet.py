"""What a folder of Parquet files holds: listed once, and footers read, the newest file's first, until one has a row.

Source: ListObjectsV2 in the S3 API reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from runtime import parquet, readiness_footer
from runtime.aws import translated
from runtime.readiness_footer import Footer
from runtime.readiness_sources import SourceTable
from runtime.readiness_store import Content, NotReadyTable, Store

# A table that was not found to be fresh or to have a row by then is not ready; it is not listed to its end.
LISTED_OBJECTS = 50_000
_BATCH = 64


class Listing:
    """The objects under a prefix, read page by page (1,000 each) as far as they are needed."""

    def __init__(self, store: Store, bucket: str, prefix: str) -> None:
        self.store, self.bucket, self.prefix = store, bucket, prefix
        self.files: list[parquet.StoredFile] = []
        self.complete = False
        self._keys: list[str] = []
        self._listed = 0
        self._token: str | None = None

    @property
    def ended(self) -> bool:
        """Whether there is no more to list, or enough has been listed."""
        return self.complete or self._listed >= LISTED_OBJECTS

    def read_on(self) -> list[parquet.StoredFile]:
        """Read the next page and return its data files."""
        more = {"ContinuationToken": self._token} if self._token else {}
        with translated(f"list s3://{self.bucket}/{self.prefix}"):
            page = self.store.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, **more)
        contents = page.get("Contents", [])
        self._keys = [item["Key"] for item in contents]
        self._listed += len(contents)
        self._token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        self.complete = self._token is None
        found = [
            parquet.StoredFile(item["Key"], item["Size"], item["LastModified"])
            for item in contents
            if parquet.is_data(item["Key"].removeprefix(self.prefix))
        ]
        self.files += found
        return found

    def has_delta_log(self) -> bool:
        """Return whether there is a `_delta_log/`, by the first page where that reaches so far: keys come in order."""
        log = f"{self.prefix}_delta_log/"
        if any(key.startswith(log) for key in self._keys):
            return True
        if self.complete or (self._keys and self._keys[-1] > log):
            return False
        return parquet.has_delta_log(self.store.aws, self.bucket, self.prefix, client=self.store.s3)


def read_parquet(
    store: Store, listing: Listing, table: SourceTable, entry: Mapping[str, Any], now: datetime
) -> Content:
    """Return what a folder of Parquet files holds, as far as the check needs to know."""
    while not listing.ended and not _listed_enough(listing, table, now):
        listing.read_on()
    if not listing.files:
        among = "" if listing.complete else f" among its first {LISTED_OBJECTS:,} objects"
        raise NotReadyTable("missing", f"no files in s3://{listing.bucket}/{listing.prefix}{among}")
    newest, *others = sorted(listing.files, key=lambda file: file.modified, reverse=True)
    first = _footer(store, listing.bucket, newest.key)
    rows, counted = first.rows, 1
    waiting = others
    while waiting or not listing.ended:
        if not store.options.count and (rows or table.allow_empty):
            break
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        rows += count_rows(store, listing.bucket, [file.key for file in batch])
        counted += len(batch)
        if not waiting and not listing.ended:
            waiting = listing.read_on()
    exact = listing.complete and counted == len(listing.files)
    # Files that were not looked at may have rows, or not.
    told = rows > 0 or exact or table.allow_empty
    return Content(
        "parquet",
        f"s3://{listing.bucket}/{listing.prefix}",
        rows if told else None,
        len(listing.files),
        max(file.modified for file in listing.files),
        _parquet_columns(entry, first, newest.key.removeprefix(listing.prefix)),
        exact=exact,
        complete=listing.complete,
    )


def _listed_enough(listing: Listing, table: SourceTable, now: datetime) -> bool:
    """Return whether the files so far answer: one is there, and one is fresh where that is asked for."""
    if listing.store.options.count:
        return False
    if table.strictest is None:
        return bool(listing.files)
    return any(now - file.modified <= table.strictest for file in listing.files)


def _footer(store: Store, bucket: str, key: str) -> Footer:
    """Return a file's footer. Raises FailedError when it has none that can be read."""
    return readiness_footer.parse(parquet.read_footer(store.s3, bucket, key), f"s3://{bucket}/{key}")


def count_rows(store: Store, bucket: str, keys: Sequence[str]) -> int:
    """Return the rows of files by their footers, several at once."""
    return sum(footer.rows for footer in store.readers.map(lambda key: _footer(store, bucket, key), keys))


def _parquet_columns(entry: Mapping[str, Any], footer: Footer, name: str) -> frozenset[str]:
    """Return the columns that a reader finds: in the newest file and, if Glue lists columns, there too."""
    own = {column.lower() for column in footer.columns}
    declared = {column["Name"].lower() for column in (entry.get("StorageDescriptor") or {}).get("Columns") or []}
    partitions = {key["Name"].lower() for key in entry.get("PartitionKeys") or []}
    if not entry:
        # No catalogue says what the folders mean; Hive's form does.
        partitions = {part.partition("=")[0].lower() for part in name.split("/")[:-1] if "=" in part}
    return frozenset((own & declared if declared else own) | partitions)
