"""What a statement's text needs before PostgreSQL gets it: fresh external tables, work of the gateway's, other words.

A text costs one small question to PostgreSQL (which external schemas there are, and which views and procedures read
them), and only if it reads anything. Words are looked at one by one only where such a name is in the text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from local.redshift import copy, external_ddl, statements, unload
from local.redshift.roles import Roles
from local.redshift.server import Postgres
from local.redshift.session import Step, Work
from local.redshift.spectrum.lake import ExternalSchema, Lake, Loaded
from local.redshift.spectrum.link import Link
from local.redshift.wire import RedshiftError, not_emulated

LOG = logging.getLogger(__name__)

_OURS = re.compile(r"\b(unload|copy|external|partition)\b", re.IGNORECASE)
_READS = re.compile(
    r"\b(from|join|using|table|into|update|delete|truncate|merge|call|copy|execute|create|drop)\b", re.IGNORECASE
)
# Catalogue views in which external tables are listed.
_LISTS = re.compile(
    r"\b(svv_external_\w+|svv_all_\w+|svv_tables|svv_columns|pg_class|pg_tables|pg_attribute|information_schema)\b",
    re.IGNORECASE,
)
# A transaction that sees one moment: what is loaded after its beginning would not be there.
_ONE_MOMENT = re.compile(r"\bisolation\s+level\s+(repeatable\s+read|serializable|snapshot)\b", re.IGNORECASE)
_WRITES = ("insert", "update", "delete", "truncate", "merge", "drop", "alter")
# One question for all: schemas, tables that are loaded, views over them, procedures and late-binding views.
_KNOWN = """
with recursive external as (
    select s.schema_name, s.glue_database, s.iam_role, s.region, n.oid
      from goldlake_local.external_schema s join pg_namespace n on n.nspname = s.schema_name),
reads (view, source) as (
    select r.ev_class, c.oid from external e join pg_class c on c.relnamespace = e.oid
      join pg_depend d on d.refobjid = c.oid and d.refclassid = 'pg_class'::regclass
      join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
    union
    select r.ev_class, reads.source from reads
      join pg_depend d on d.refobjid = reads.view and d.refclassid = 'pg_class'::regclass
      join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
     where r.ev_class <> reads.view)
select json_build_object(
    'schemas', (select coalesce(json_agg(json_build_array(schema_name, glue_database, iam_role, region)), '[]')
                  from external),
    'tables', (select coalesce(json_agg(json_build_array(t.schema_name, t.table_name, t.columns_fingerprint,
                                                         t.content_fingerprint)), '[]')
                 from goldlake_local.external_table t join external e on e.schema_name = t.schema_name
                 join pg_class c on c.relnamespace = e.oid and c.relname = t.table_name),
    'views', (select coalesce(json_agg(json_build_array(v.relname, n.nspname, c.relname)), '[]') from reads
                join pg_class v on v.oid = reads.view join pg_class c on c.oid = reads.source
                join pg_namespace n on n.oid = c.relnamespace),
    'procedures', (select coalesce(json_agg(json_build_array(name, source)), '[]')
                     from (select p.proname, p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                            where {procedures} and n.nspname not in ('pg_catalog', 'information_schema')
                           union all
                           select c.relname, l.query
                             from goldlake_local.late_view l join pg_class c on c.oid = l.view_oid)
                       as texts (name, source)
                    where exists (select from external where strpos(lower(source), lower(schema_name)) > 0)))
"""


@dataclass
class Known:
    """What a database has of external tables."""

    schemas: dict[str, ExternalSchema] = field(default_factory=dict)
    loaded: dict[tuple[str, str], Loaded] = field(default_factory=dict)
    readers: dict[str, set[tuple[str, str]]] = field(default_factory=dict)


class Warehouse:
    """External tables of all databases of the warehouse, shared by all sessions."""

    def __init__(self, postgres: Postgres, roles: Roles) -> None:
        self._postgres, self._roles = postgres, roles
        self._databases: dict[str, Database] = {}

    def database(self, name: str) -> Database:
        """Return what is shared by the sessions of a database."""
        if name not in self._databases:
            self._databases[name] = Database(self._postgres, name, self._roles)
        return self._databases[name]

    def close(self) -> None:
        """Close the connections to PostgreSQL."""
        for database in self._databases.values():
            database.link.close()


class Database:
    """External tables of one database. `refresh` of a table is done once for all who asked before it began."""

    def __init__(self, postgres: Postgres, name: str, roles: Roles) -> None:
        self.name = name
        self.link = Link(postgres.socket, name)
        self.lake = Lake(postgres, name, roles)
        self.roles = roles
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._clock = 0

    async def known(self, *, procedures: bool = False) -> Known:
        """Return the external schemas, what is loaded, and who reads it."""
        rows = await self.link.rows(_KNOWN.replace("{procedures}", "true" if procedures else "false"))
        found = json.loads(str(rows[0][0]))
        known = Known({item[0]: ExternalSchema(*item) for item in found["schemas"]})
        for schema, table, columns, content in found["tables"]:
            known.loaded[schema, table] = Loaded(columns, content)
        for view, schema, table in found["views"]:
            known.readers.setdefault(view, set()).add((schema, table))
        for procedure, source in found["procedures"]:
            pairs = statements.qualified_names(statements.tokens(source), known.schemas)
            known.readers.setdefault(procedure, set()).update(pairs)
        return known

    async def refresh(self, known: Known, pair: tuple[str, str]) -> None:
        """Bring one table up to date: a refresh that began after this was called will do."""
        await self._once(pair, lambda loaded: self.lake.refresh(known.schemas[pair[0]], pair[1], loaded.get(pair)))

    async def describe(self, known: Known, schema: str) -> None:
        """Bring the list of a schema's tables up to date."""

        def act(loaded: dict[tuple[str, str], Loaded]) -> None:
            of_schema = {name: value for (other, name), value in loaded.items() if other == schema}
            self.lake.describe(known.schemas[schema], of_schema)

        try:
            await self._once((schema, ""), act)
        except RedshiftError as exc:
            LOG.warning("the tables of %s cannot be listed: %s %s", schema, exc.message, exc.detail)

    async def _once(self, key: tuple[str, str], act: Callable[[dict[tuple[str, str], Loaded]], None]) -> None:
        """Do it in a thread, unless somebody else began to while this waited."""
        self._clock += 1
        asked = self._clock
        # Listing a schema creates tables, too: all that one schema's tables need is done one after the other.
        async with self._locks.setdefault((key[0], ""), asyncio.Lock()):
            if self._begun.get(key, 0) > asked:
                return
            self._clock += 1
            begun = self._clock
            loaded = (await self.known()).loaded
            try:
                await asyncio.shield(asyncio.to_thread(act, loaded))
            except RedshiftError:
                raise
            except Exception as exc:
                # A fault of ours ends the statement, not the session.
                LOG.exception("external table %s.%s cannot be brought up to date", *key)
                raise RedshiftError("XX000", f"the local Redshift failed: {type(exc).__name__}, see its log") from exc
            self._begun[key] = begun


class Director:
    """What the texts of one session need."""

    def __init__(self, database: Database, rewritten: Callable[[str], str]) -> None:
        self._database = database
        self.rewritten = rewritten

    def steps(self, text: str) -> list[Step] | None:
        """Return the statements of a text of which the gateway does one itself, None for all other texts."""
        if not _OURS.search(text):
            return None
        pieces = statements.split(text)
        found = [Step(piece, self._work(piece)) for piece in pieces]
        return found if any(step.work is not None for step in found) else None

    def _work(self, text: str) -> Work | None:
        """Return what the gateway does in place of a statement."""
        words = statements.tokens(text)
        if statements.begins(words, "unload"):
            return unload.parsed(text, words, self)
        if statements.begins(words, "copy"):
            return copy.parsed(words, self)
        return external_ddl.parsed(words, self)

    @property
    def database(self) -> Database:
        """The database of the session."""
        return self._database

    @property
    def roles(self) -> Roles:
        """The roles that a statement may name."""
        return self._database.roles

    async def prepare(self, text: str) -> bool:
        """Bring up to date what a text reads; return whether that is anything. Raises RedshiftError."""
        if not self.roles.has_lake:
            # Without an emulator the tables of an external schema are what somebody put there.
            return False
        if _ONE_MOMENT.search(text):
            await self._all_refreshed()
        if not _READS.search(text):
            return False
        lower = text.lower()
        known = await self._database.known(procedures="call" in lower)
        if not known.schemas:
            return False
        if _LISTS.search(text):
            await asyncio.gather(*(self._database.describe(known, schema) for schema in known.schemas))
        if not any(name.lower() in lower for name in (*known.schemas, *known.readers)):
            return False
        words = statements.tokens(text)
        pairs = set(statements.qualified_names(words, known.schemas))
        for name in statements.names(words) & known.readers.keys():
            pairs |= known.readers[name]
        _refuse_writing(text, known)
        for pair in sorted(pairs):
            await self._database.refresh(known, pair)
        return bool(pairs)

    async def _all_refreshed(self) -> None:
        """Bring all external tables up to date; whoever reads one that cannot be hears of it then."""
        known = await self._database.known()
        for schema in known.schemas:
            await self._database.describe(known, schema)
        for pair in sorted((await self._database.known()).loaded):
            with contextlib.suppress(RedshiftError):
                await self._database.refresh(known, pair)


def _refuse_writing(text: str, known: Known) -> None:
    """Raise for a statement that writes into an external table: the lake is others' to write."""
    for piece in statements.split(text):
        words = statements.tokens(piece)
        if len(words) < 2 or words[0].word not in _WRITES:
            continue
        verb = words[0].word
        if verb in ("drop", "alter") and words[1].word != "table":
            continue
        target = [token for token in words[1:8] if token.word not in ("into", "from", "table", "only", "if", "exists")]
        if next(statements.qualified_names(target[:3], known.schemas), None) is not None:
            raise not_emulated(f"{verb.upper()} of an external table: change it in the lake and the data catalogue")
