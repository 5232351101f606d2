"""The log of a Delta table, read by delta-rs, and delta-rs' errors as Goldlake's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runtime.delta.actions import LogFile, TableMetadata, partition_text
from runtime.delta.protocol import Protocol
from runtime.delta.types import fields_of
from runtime.errors import AccessDeniedError, FailedError, GoldlakeError, UnreachableError

if TYPE_CHECKING:
    from deltalake import DeltaTable


def open_table(location: str, options: dict[str, str] | None, version: int | None = None) -> DeltaTable | None:
    """Return the table at a location, None when there is no Delta log. Raises as `translated` does."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with translated(f"Delta table {location}"):
        try:
            return DeltaTable(location, version=version, storage_options=options)
        except TableNotFoundError:
            return None


def log_rows(table: DeltaTable) -> int | None:
    """Return the rows of the loaded version by its add actions; None when a file has no row count."""
    counts = table.get_add_actions().column("num_records").to_pylist()
    return None if None in counts else sum(counts)


@dataclass(frozen=True)
class Snapshot:
    """A version of a table."""

    version: int
    protocol: Protocol
    metadata: TableMetadata
    table: DeltaTable

    @classmethod
    def of(cls, table: DeltaTable) -> Snapshot:
        """Return the table's loaded version."""
        details, versions = table.metadata(), table.protocol()
        return cls(
            table.version(),
            Protocol(
                versions.min_reader_version,
                versions.min_writer_version,
                frozenset(versions.reader_features or ()),
                frozenset(versions.writer_features or ()),
            ),
            TableMetadata(
                str(details.id),
                fields_of(table.schema()),
                tuple(details.partition_columns),
                dict(details.configuration),
                details.name,
                details.description,
                details.created_time,
            ),
            table,
        )

    @cached_property
    def files(self) -> tuple[LogFile, ...]:
        """The version's files. delta-rs gives the paths as the log has them, not decoded."""
        actions = self.table.get_add_actions()
        paths, sizes, rows = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        partitions: list[Any] = [{}] * len(paths)
        if "partition" in actions.schema.names:
            partitions = list(actions.column("partition").to_pylist())
        return tuple(
            LogFile(path, size, count, {name: partition_text(value) for name, value in values.items()})
            for path, size, count, values in zip(paths, sizes, rows, partitions, strict=True)
        )

    @property
    def rows(self) -> int | None:
        """The rows of all files by the log; None when a file has no row count."""
        counts = [file.rows for file in self.files]
        return None if None in counts else sum(count or 0 for count in counts)

    def has_deletion_vectors(self) -> bool:
        """Return whether rows of a file are deleted by a vector beside it."""
        return any(batch.num_rows for batch in self._deletion_vectors())

    def deleted_rows(self) -> int:
        """Return how many of the files' rows deletion vectors take away: a file's row count includes them."""
        masks = (mask for batch in self._deletion_vectors() for mask in batch.column("selection_vector").to_pylist())
        return sum(mask.count(False) for mask in masks)

    def _deletion_vectors(self) -> Iterable[Any]:
        return self.table.deletion_vectors() if "deletionVectors" in self.protocol.supported else ()


@contextlib.contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise what delta-rs raises inside the block as Goldlake's errors; `action` says what was tried.

    Connections and 5xx become UnreachableError, 401 and 403 AccessDeniedError, all else FailedError.
    """
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError) as exc:
        raise _goldlake_error(action, str(exc)) from exc
    except Exception as exc:
        # What fails while a scan's batches come in, a page or a file that is gone, arro3 gives as no other type.
        if type(exc) is not Exception:
            raise
        raise _goldlake_error(action, str(exc)) from exc


def _goldlake_error(action: str, text: str) -> GoldlakeError:
    """Return the error for delta-rs' text, which is all that it gives; S3's own answer is in it."""
    answer = re.search(r"<Code>(\w+)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    code = answer[1] if answer else None
    message = f"{action}: {answer[2]} ({code})" if answer else f"{action}: {_one_line(text)}"
    if re.search(r"\b40[13] (Forbidden|Unauthorized)|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId", text):
        return AccessDeniedError(message, code=code)
    if re.search(r"error sending request|\b50[0234] [A-Z]|\b429 [A-Z]|SlowDown|timed out|dns error", text):
        return UnreachableError(message, code=code)
    return FailedError(message, code=code)


def _one_line(text: str) -> str:
    """Return delta-rs' message without colours, stack trace and line breaks, at most 400 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", re.split(r"\n\s+0: ", text)[0])
    return " ".join(plain.split()).replace(" ↳", ":")[:400]
