"""A lake for tests of what is read and written beside the tables' rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runtime.aws import Connection
from runtime.delta.lake import Lake, StoredFile


@dataclass(frozen=True)
class MemoryLake(Lake):
    """A lake whose files are a dictionary: name relative to the table -> content."""

    files: dict[str, bytes] = field(default_factory=dict)

    def read(self, table: str, name: str, *, start: int = 0) -> bytes | None:
        content = self.files.get(name)
        return None if content is None else content[start:]

    def list_files(self, table: str, prefix: str = "", *, after: str = "") -> Iterator[StoredFile]:
        for name in sorted(self.files):
            if name.startswith(prefix) and name > after:
                yield StoredFile(name, len(self.files[name]), datetime.now(UTC))

    def delete(self, table: str, names: Any) -> None:
        for name in names:
            self.files.pop(name, None)


def memory() -> MemoryLake:
    return MemoryLake("s3://lake/gold", Connection("http://127.0.0.1:9"))
