"""Where Delta tables lie: an S3 prefix or a local folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.aws import Connection
from runtime.errors import ConfigurationError

# As part of a location: `/` and `\` are folders to somebody, and delta-rs reads `#`, `?` and `%` as URL
# syntax and then commits to another place than the files', or to none.
_BAD_TABLE = re.compile(r"[/\\#?%\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Lake:
    """Where Delta tables lie: an S3 prefix or a local folder; table `t` is at `<root>/t`."""

    root: str
    aws: Connection | None = None

    @classmethod
    def at(cls, target: str, aws: Connection | None) -> Lake:
        """Return the lake at `s3://bucket/prefix` or at a local folder.

        Raises ConfigurationError for another scheme, for characters that delta-rs takes as URL syntax, and
        for S3 without a connection.
        """
        if "://" not in target:
            return cls(str(Path(target).resolve()))
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\#?%\x00-\x1f]+)*/?", target):
            raise ConfigurationError(f"target {target!r} is not an S3 URL (s3://bucket/prefix) or a local folder")
        if aws is None:
            raise ConfigurationError(f"target {target!r} is in S3, and no AWS connection is given")
        return cls(target.rstrip("/"), aws)

    @property
    def bucket(self) -> str:
        """The bucket's name; empty for a local folder."""
        return self.root.removeprefix("s3://").partition("/")[0] if self.aws else ""

    @property
    def prefix(self) -> str:
        """The keys' beginning below the bucket, without slashes at its ends; empty for a whole bucket."""
        return self.root.removeprefix("s3://").partition("/")[2] if self.aws else ""

    def location(self, table: str) -> str:
        """Return the URL or path of a table; raises ConfigurationError for a name that cannot be in one."""
        if not table or table in (".", "..") or _BAD_TABLE.search(table):
            raise ConfigurationError(
                f"table name {table!r} cannot be part of a location: it may hold none of / \\ # ? %"
            )
        return f"{self.root}/{table}"

    def key(self, table: str, name: str) -> str:
        """Return the S3 key of one of the table's files."""
        return "/".join(part for part in (self.prefix, table, name) if part)

    def storage_options(self) -> dict[str, str] | None:
        """Return delta-rs' options: None for a local folder.

        delta-rs would try for three minutes; a caller with a deadline wants to know earlier.
        """
        if self.aws is None:
            return None
        return {
            **self.aws.storage_options(),
            "max_retries": "5",
            "retry_timeout": "60s",
            "connect_timeout": "5s",
        }
