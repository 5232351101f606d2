"""The SQL that sets up a database in Redshift: external schemas, the gold schema, users and what they may do.

Every text is one statement, as the Data API takes them (redshift-data API, ExecuteStatement: "This statement must be a
single SQL statement"), and can be run again: a statement runs whenever its text changes, and once more after a refresh
that no longer finds it, for AWS forgets statements after 24 hours (terraform-provider-aws#37301).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from runtime.errors import ConfigurationError

# Redshift database developer guide, "Names and identifiers".
MAX_IDENTIFIER_BYTES = 127


def identifier(name: str) -> str:
    """Return `name` as a quoted SQL identifier (a quote inside is doubled).

    Raises ConfigurationError for a name that is empty, holds a NUL character or has more than 127 bytes in UTF-8.
    """
    if not name or "\x00" in name or len(name.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
        raise ConfigurationError(f"{name!r} is not a usable SQL name: 1 to {MAX_IDENTIFIER_BYTES} bytes, without NUL")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as a quoted SQL literal: a quote inside is doubled.

    Raises ConfigurationError for a NUL character, and for a backslash, which Redshift takes as an escape.
    """
    if "\x00" in text or "\\" in text:
        raise ConfigurationError("a SQL text literal cannot hold a NUL character or a backslash")
    return "'" + text.replace("'", "''") + "'"


def identifiers(names: Sequence[str]) -> str:
    """Return the names as a list of quoted identifiers."""
    return ", ".join(identifier(name) for name in names)


def dollar_quoted(body: str) -> str:
    """Return `body` between dollar quotes whose tag is not in it, nor begins at its end."""
    tag = "$$"
    while tag in f"{body}$":
        tag = f"{tag[:-1]}q$"
    return f"{tag}{body}{tag}"


def stored_password(user: str, password: str) -> str:
    """Return a password as the warehouse stores it, so that no statement and no log has the clear text.

    CREATE USER, "PASSWORD": md5 and the hash of password and user. It is what runtime.rotation gives ALTER USER, too.
    """
    return "md5" + hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()


def fingerprint(*statements: str) -> str:
    """Return a short digest of SQL texts: it names a statement after what it depends on."""
    return hashlib.sha256("\x00".join(statements).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def external_schema(schema: str, glue_database: str, role_arn: str, region: str) -> str:
    """Return the statement that shows a Glue database as a schema.

    An existing schema stays as it is, whatever database it shows: `access_procedure` finds that out before.
    """
    return (
        f"CREATE EXTERNAL SCHEMA IF NOT EXISTS {identifier(schema)} FROM DATA CATALOG "
        f"DATABASE {literal(glue_database)} REGION {literal(region)} IAM_ROLE {literal(role_arn)}"
    )


def gold_schema(name: str) -> str:
    """Return the statement that creates the schema dbt builds into."""
    return f"CREATE SCHEMA IF NOT EXISTS {identifier(name)}"


def procedure_name(gold: str) -> str:
    """Return the qualified name of the procedure; Redshift keeps the prefix sp_ free for users' procedures."""
    return f"{identifier(gold)}.{identifier('sp_goldlake_access')}"


def access_procedure(
    *,
    database: str,
    gold: str,
    builders: Sequence[str],
    readers: Sequence[str],
    external: Mapping[str, str],
    login: str | None = None,
) -> str:
    """Return the statement that creates the procedure behind `call_access`.

    The procedure fails when an external schema is there and shows another Glue database than `external` (schema ->
    database) says. Then it creates the users that are missing, grants what builders and readers need inside the
    warehouse, and gives a lone builder the tables of gold. `login` is the user that signs in by a password. It gets the
    one that the procedure is called with when it is created, and is left alone when it is there: whatever a rotation
    did since stays. The password is an argument because every user can read a procedure's text.

    It is a procedure because Redshift has neither CREATE USER IF NOT EXISTS nor DO blocks; a procedure may
    run CREATE USER and GRANT, since neither needs a transaction of its own ("Stored procedure limitations"). Nobody
    but its owner, the administrator, may call it, and it runs with the caller's rights.
    """
    body = [
        *(_checked_external(schema, glue_database) for schema, glue_database in external.items()),
        *(_created_user(user, by_password=user == login) for user in dict.fromkeys([*builders, *readers])),
        *(f"{grant};" for grant in _gold_grants(database, gold, builders, readers)),
        *(_owned_tables(gold, builder) for builder in builders if len(builders) == 1),
    ]
    variables = ["  matches integer;", "  gold_table record;"]
    text = "\n".join(["", "DECLARE", *variables, "BEGIN", *(body or ["NULL;"]), "END;", ""])
    given = "password_hash varchar" if login else ""
    return f"CREATE OR REPLACE PROCEDURE {procedure_name(gold)}({given}) AS {dollar_quoted(text)} LANGUAGE plpgsql"


def call_access(gold: str, stored: str | None = None) -> str:
    """Return the statement that runs the procedure, with the login's `stored_password` if it has a login."""
    return f"CALL {procedure_name(gold)}({'' if stored is None else literal(stored)})"


def external_grants(builders: Sequence[str], external: Sequence[str]) -> str:
    """Return the statement that lets builders read all tables of the external schemas.

    External tables know no rights of their own, so USAGE is all there is to grant (CREATE EXTERNAL SCHEMA, "grant or
    revoke the permissions on the external schema"). It is not in the procedure: "You can't run GRANT (on an external
    resource) within a transaction block" (GRANT), and a procedure is one.
    """
    return f"GRANT USAGE ON SCHEMA {identifiers(external)} TO {identifiers(builders)}"


def _checked_external(schema: str, glue_database: str) -> str:
    # % in RAISE's format stands for a value, so that the message may hold any.
    message = f"schema {schema} shows another Glue database than {glue_database}: drop the schema and deploy again"
    return (
        f"SELECT count(*) INTO matches FROM svv_external_schemas "  # noqa: S608 - quoted by the two functions above
        f"WHERE schemaname = {literal(schema)} AND databasename <> {literal(glue_database)};\n"
        f"IF matches > 0 THEN RAISE EXCEPTION '%', {literal(message)}; END IF;"
    )


def _created_user(user: str, *, by_password: bool) -> str:
    """A user without a password signs in by IAM only."""
    create = f"CREATE USER {identifier(user)} PASSWORD "
    text = f"{literal(create)} || quote_literal(password_hash)" if by_password else literal(f"{create}DISABLE")
    return (
        f"SELECT count(*) INTO matches FROM pg_user WHERE usename = {literal(user)};\n"  # noqa: S608 - quoted
        f"IF matches = 0 THEN EXECUTE {text}; END IF;"
    )


def _owned_tables(gold: str, owner: str) -> str:
    """dbt replaces tables, which only their owner may: those of whoever built before become the builder's.

    But for the tables inside materialized views, which Redshift lists among the others and lets nobody change.
    """
    alter, to = f"ALTER TABLE {identifier(gold)}.", f" OWNER TO {identifier(owner)}"
    return (
        "FOR gold_table IN SELECT tablename FROM pg_tables "  # noqa: S608 - quoted by the two functions above
        f"WHERE schemaname = {literal(gold)} AND tableowner <> {literal(owner)} "
        "AND substring(tablename, 1, 8) <> 'mv_tbl__' LOOP\n"
        f"EXECUTE {literal(alter)} || quote_ident(gold_table.tablename) || {literal(to)};\n"
        "END LOOP;"
    )


def _gold_grants(database: str, gold: str, builders: Sequence[str], readers: Sequence[str]) -> list[str]:
    """Return what builders and readers get, each grant for all users at once.

    dbt creates no schema that exists, so builders need no CREATE on the database; its incremental models go through
    temporary tables. What a builder creates from now on is readable by the default privileges, what is there already
    by the grant on all tables.
    """
    schema = identifier(gold)
    grants = []
    if builders:
        grants += [
            f"GRANT TEMPORARY ON DATABASE {identifier(database)} TO {identifiers(builders)}",
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {identifiers(builders)}",
        ]
    if readers:
        grants += [
            f"GRANT USAGE ON SCHEMA {schema} TO {identifiers(readers)}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {identifiers(readers)}",
        ]
    if builders and readers:
        grants.append(
            f"ALTER DEFAULT PRIVILEGES FOR USER {identifiers(builders)} IN SCHEMA {schema} "
            f"GRANT SELECT ON TABLES TO {identifiers(readers)}"
        )
    return grants
