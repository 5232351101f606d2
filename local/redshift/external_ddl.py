"""CREATE EXTERNAL SCHEMA, DROP SCHEMA … DROP EXTERNAL DATABASE, CREATE EXTERNAL TABLE and what else changes Glue.

Sources: Redshift database developer guide, "CREATE EXTERNAL SCHEMA", "CREATE EXTERNAL TABLE", "ALTER TABLE" (ADD
PARTITION), "DROP SCHEMA".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from local.redshift import statements
from local.redshift.roles import spectrum_errors
from local.redshift.statements import Token
from local.redshift.wire import RedshiftError, not_emulated
from runtime import sql

if TYPE_CHECKING:
    from local.redshift.director import Director
    from local.redshift.session import Session, Work

# Tables of the schema are PostgreSQL's superuser's; who may use the schema may read them.
_SCHEMA = """begin
  if exists (select from pg_namespace where nspname = {name}) then
    if {strict} then
      raise duplicate_schema using message = 'schema "' || {name} || '" already exists';
    end if;
    -- One that is there from the start gets the role, and from now on that role's rights.
    update goldlake_local.external_schema set iam_role = {role}, region = {region}
     where schema_name = {name} and glue_database = {database} and iam_role = '';
    return;
  end if;
  create schema {schema};
  alter default privileges for role postgres in schema {schema} grant select on tables to public;
  delete from goldlake_local.external_table where schema_name = {name};
  insert into goldlake_local.external_schema (schema_name, glue_database, iam_role, region)
  values ({name}, {database}, {role}, {region})
      on conflict (schema_name) do update set glue_database = excluded.glue_database,
         iam_role = excluded.iam_role, region = excluded.region;
end"""


@dataclass(frozen=True)
class CreateSchema:
    """CREATE EXTERNAL SCHEMA … FROM DATA CATALOG."""

    director: Director
    schema: str
    database: str
    role: str
    region: str | None
    lenient: bool
    create_database: bool

    async def run(self, session: Session) -> str:
        """Create the schema, and the database in Glue when it says so."""
        if self.create_database:
            await asyncio.to_thread(self._create_database)
        block = _SCHEMA.format(
            name=sql.literal(self.schema),
            schema=sql.identifier(self.schema),
            database=sql.literal(self.database),
            role=sql.literal(self.role),
            region=sql.literal(self.region) if self.region else "null",
            strict="false" if self.lenient else "true",
        )
        await session.ask(f"DO {sql.literal(block)}")
        return "CREATE SCHEMA"

    def _create_database(self) -> None:
        with spectrum_errors(self.database):
            glue = self.director.roles.client(self.role, "glue", self.region)
            try:
                glue.create_database(DatabaseInput={"Name": self.database})
            except glue.exceptions.AlreadyExistsException:
                return


@dataclass(frozen=True)
class DropSchema:
    """DROP SCHEMA … DROP EXTERNAL DATABASE."""

    director: Director
    text: str
    schemas: tuple[str, ...]

    async def run(self, session: Session) -> str:
        """Drop the schemas, and their databases in Glue."""
        known = await self.director.database.known()
        await session.ask(self.text)
        for name in self.schemas:
            schema = known.schemas.get(name)
            if schema is not None:
                await asyncio.to_thread(self._drop_database, schema)
        return "DROP SCHEMA"

    def _drop_database(self, schema: Any) -> None:
        with spectrum_errors(schema.database):
            glue = self.director.roles.client(schema.role, "glue", schema.region)
            try:
                glue.delete_database(Name=schema.database)
            except glue.exceptions.EntityNotFoundException:
                return


@dataclass(frozen=True)
class Refused:
    """A statement that is not emulated, where it names an external schema; PostgreSQL's otherwise."""

    failure: RedshiftError

    async def run(self, _session: Session) -> str:
        """Raise."""
        raise self.failure


def parsed(words: Sequence[Token], director: Director) -> Work | None:
    """Return the work of a statement, None for one that is PostgreSQL's. Raises RedshiftError for a malformed one."""
    if statements.begins(words, "create", "external", "schema"):
        return _create_schema(words, director)
    if statements.begins(words, "create", "external"):
        return Refused(not_emulated("CREATE EXTERNAL TABLE and FUNCTION: create the table in the data catalogue"))
    if statements.begins(words, "alter", "table") and any(
        token.word == "partition" and before.word in ("add", "drop", "exists") for before, token in pairwise(words)
    ):
        return Refused(not_emulated("ALTER TABLE … PARTITION: change the partitions in the data catalogue"))
    if statements.begins(words, "drop", "schema") and any(token.word == "external" for token in words):
        return _drop_schema(words, director)
    return None


def _create_schema(words: Sequence[Token], director: Director) -> Work:
    position = 3
    lenient = [token.word for token in words[3:6]] == ["if", "not", "exists"]
    position += 3 if lenient else 0
    schema = words[position].name if len(words) > position else None
    source = [token.word for token in words[position + 1 : position + 4]]
    if schema is None or source[:1] != ["from"]:
        raise RedshiftError("42601", "syntax error in CREATE EXTERNAL SCHEMA")
    if source != ["from", "data", "catalog"]:
        raise not_emulated(f"CREATE EXTERNAL SCHEMA FROM {' '.join(source[1:]).upper()}")
    found: dict[str, str] = {}
    position += 4
    rest = words[position:]
    create_database, index = False, 0
    while index < len(rest):
        option = rest[index].word
        if [token.word for token in rest[index : index + 6]] == [
            "create",
            "external",
            "database",
            "if",
            "not",
            "exists",
        ]:
            create_database, index = True, index + 6
            continue
        value = rest[index + 1] if index + 1 < len(rest) else None
        if option not in ("database", "region", "iam_role", "catalog_role", "catalog_id") or value is None:
            raise RedshiftError("42601", f'syntax error at or near "{rest[index].text}"')
        text = value.value if value.value is not None else value.word
        found[option] = text or ""
        index += 2
    if not found.get("database"):
        raise RedshiftError("42601", "CREATE EXTERNAL SCHEMA FROM DATA CATALOG needs DATABASE")
    if not found.get("iam_role"):
        raise RedshiftError("42601", "CREATE EXTERNAL SCHEMA needs an IAM_ROLE")
    if found["iam_role"].lower() == "session":
        raise not_emulated("IAM_ROLE 'SESSION'")
    if len(schema.encode()) > 63 or not schema:
        raise not_emulated("a schema name of more than 63 bytes")
    return CreateSchema(
        director,
        schema,
        found["database"],
        found["iam_role"],
        found.get("region"),
        lenient,
        create_database,
    )


def _drop_schema(words: Sequence[Token], director: Director) -> Work:
    """Return DROP SCHEMA without the words that PostgreSQL does not know."""
    kept: list[str] = []
    schemas: list[str] = []
    index = 0
    while index < len(words):
        if [token.word for token in words[index : index + 3]] == ["drop", "external", "database"]:
            index += 3
            continue
        kept.append(words[index].text)
        name = words[index].name
        if index > 1 and name is not None and words[index].word not in ("if", "exists", "cascade", "restrict"):
            schemas.append(name)
        index += 1
    return DropSchema(director, " ".join(kept), tuple(schemas))
