"""Whether a table's content is what the newest commit wrote: a fingerprint of all rows, in any order.

The engine hashes each row twice (64 bits each, with different salts) and adds the hashes up, so a row that is there
twice counts twice and the order does not matter: one pass, nothing sorted, nothing kept. Values that SQL takes for
equal have one hash: 0.0 and -0.0, every NaN. It tells accident apart, not malice. DuckDB's hash may change with its
version, which is therefore part of the fingerprint: after an upgrade each table is written once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.delta.types import Column

if TYPE_CHECKING:
    import duckdb

KEY = "goldlake.fingerprint"


def fingerprint(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    columns: Sequence[Column],
    shape: Mapping[str, Any],
) -> str:
    """Return the fingerprint of a relation's rows: 64 hexadecimal digits.

    `relation` is what stands after FROM, quoted. `shape` is what else the written table depends on (schema, options),
    as JSON-ready values: another shape is another fingerprint.
    """
    import duckdb

    names = ", ".join(part for item in columns for part in _hashed(item))
    select = ", ".join(item.expression for item in columns)
    row = connection.execute(
        f"SELECT count(*), sum(hash({names})::HUGEINT), sum(hash('goldlake', {names})::HUGEINT)"  # noqa: S608 - quoted
        f" FROM (SELECT {select} FROM {relation})"
    ).fetchone()
    text = json.dumps([duckdb.__version__, [str(value) for value in row or ()], shape], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _hashed(column: Column) -> tuple[str, ...]:
    """Return what is hashed of a column: DuckDB 1.5.5 has one hash for NULL and an empty list, so also their text."""
    name = sql.identifier(column.physical or column.name)
    return (name,) if isinstance(column.type, str) else (name, f"CAST({name} AS VARCHAR)")
