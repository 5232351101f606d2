"""What the Data API tells of databases, schemas, tables and columns: the SQL it asks with, the answers' shapes.

Patterns are LIKE's, as the API has them. System tables are in the lists, as they are on the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime import sql

# Ours, or PostgreSQL's own of other sessions: nothing that the service has.
_HIDDEN = "left(n.nspname, 8) <> 'pg_toast' and left(n.nspname, 7) <> 'pg_temp' and n.nspname <> 'goldlake_local'"
_NUMERIC, _LENGTHS = 1700, frozenset({1042, 1043})
_HEADER = 4


def databases() -> str:
    """Return the query for the databases' names."""
    return "select datname from pg_database where not datistemplate and datname <> 'postgres' order by 1"


def schemas(pattern: str | None) -> str:
    """Return the query for the names of the schemas."""
    return f"select n.nspname from pg_namespace n where {_HIDDEN}{_like('n.nspname', pattern)} order by 1"  # noqa: S608 - quoted


def tables(schema: str | None, table: str | None) -> str:
    """Return the query for name, kind and schema of the tables and views."""
    system = "n.nspname in ('pg_catalog', 'information_schema')"
    external = "exists (select 1 from svv_external_tables e where e.schemaname = n.nspname and e.tablename = c.relname)"
    return f"""
        select c.relname, n.nspname, case
            when {external} then 'EXTERNAL TABLE'
            when c.relkind = 'r' or c.relkind = 'p' then case when {system} then 'SYSTEM TABLE' else 'TABLE' end
            when {system} then 'SYSTEM VIEW' else 'VIEW' end
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p', 'v', 'm', 'f') and {_HIDDEN}
               {_like("n.nspname", schema)}{_like("c.relname", table)}
         order by 2, 1"""  # noqa: S608 - quoted


def columns(schema: str | None, table: str | None) -> str:
    """Return the query for the columns of a table, or of all that match."""
    where = "".join(
        f" and {column} = {sql.literal(name)}"
        for column, name in (("n.nspname", schema), ("c.relname", table))
        if name is not None
    )
    return f"""
        select a.attname, cast(a.atttypid as bigint), a.atttypmod, a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
               n.nspname, c.relname
          from pg_attribute a
          join pg_class c on c.oid = a.attrelid
          join pg_namespace n on n.oid = c.relnamespace
          left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
         where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f') and {_HIDDEN}{where}
         order by n.nspname, c.relname, a.attnum"""  # noqa: S608 - quoted


def _like(column: str, pattern: str | None) -> str:
    return "" if pattern is None else f" and {column} like {sql.literal(pattern)}"


def described(row: Sequence[Any], column: dict[str, Any]) -> dict[str, Any]:
    """Return a column of a table: a result's metadata, and what a row of `columns` says besides."""
    _name, kind, modifier, required, default, schema, table = row
    size = modifier - _HEADER if modifier >= _HEADER else 0
    precision, scale = ((size >> 16) & 0xFFFF, size & 0xFFFF) if kind == _NUMERIC else (0, 0)
    return column | {
        "length": size if kind in _LENGTHS else 0,
        "precision": precision,
        "scale": scale,
        "nullable": 0 if required else 1,
        "columnDefault": default,
        "schemaName": schema,
        "tableName": table,
    }
