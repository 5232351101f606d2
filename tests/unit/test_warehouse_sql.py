"""The warehouse's SQL: one statement each, quoted whatever the names hold, and good to run again."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import warehouse_sql as sql
from runtime import rotation
from runtime import sql as runtime_sql
from runtime.errors import ConfigurationError

# A backslash is refused: Redshift takes it as an escape.
TEXTS = st.text(st.characters(exclude_characters="\x00\\", exclude_categories=["Cs"]))
NAMES = TEXTS.filter(lambda text: 0 < len(text.encode()) <= sql.MAX_IDENTIFIER_BYTES)
BUILDER, READER = "IAMR:goldlake-dbt-runner", "IAMR:goldlake-export"
LOGIN = "goldlake_dbt"

# A statement's pieces: quoted names, literals, dollar-quoted bodies, and all else.
PIECES = re.compile(r"""(?P<name>"(?:[^"]|"")*")|(?P<text>'(?:[^']|'')*')|(?P<tag>\$q*\$)(?P<body>.*?)(?P=tag)""", re.S)


def names_in(statement: str) -> list[str]:
    return [found["name"][1:-1].replace('""', '"') for found in PIECES.finditer(statement) if found["name"]]


def texts_in(statement: str) -> list[str]:
    return [found["text"][1:-1].replace("''", "'") for found in PIECES.finditer(statement) if found["text"]]


def body_of(procedure: str) -> str:
    return next(found["body"] for found in PIECES.finditer(procedure) if found["tag"])


def outside(statement: str) -> str:
    return PIECES.sub("?", statement)


def procedure(**given_parts: object) -> str:
    parts: dict[str, object] = {
        "database": "analytics",
        "gold": "gold",
        "builders": [BUILDER],
        "readers": [READER],
        "external": {"silver_ai": "silver_ai_enrichment"},
    }
    build: Callable[..., str] = sql.access_procedure
    return build(**(parts | given_parts))


@given(NAMES, TEXTS)
def test_names_and_texts_are_quoted_as_the_runtime_library_quotes_them(name: str, text: str) -> None:
    assert sql.identifier(name) == runtime_sql.identifier(name)
    assert sql.literal(text) == runtime_sql.literal(text)


@pytest.mark.parametrize("name", ["", "x" * 128, "é" * 64, "a\x00b"])
def test_an_empty_too_long_or_broken_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 127 bytes"):
        sql.identifier(name)


def test_a_text_with_a_nul_character_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NUL"):
        sql.literal("a\x00b")


def test_an_external_schema_shows_a_glue_database_by_role_and_region() -> None:
    assert sql.external_schema("silver_ai", "silver_ai_enrichment", "arn:aws:iam::1:role/s", "eu-west-1") == (
        'CREATE EXTERNAL SCHEMA IF NOT EXISTS "silver_ai" FROM DATA CATALOG '
        "DATABASE 'silver_ai_enrichment' REGION 'eu-west-1' IAM_ROLE 'arn:aws:iam::1:role/s'"
    )


@given(NAMES, TEXTS, TEXTS, TEXTS)
def test_no_name_and_no_text_breaks_out_of_an_external_schema(
    schema: str, database: str, role: str, region: str
) -> None:
    statement = sql.external_schema(schema, database, role, region)
    assert names_in(statement) == [schema]
    assert texts_in(statement) == [database, region, role]
    assert outside(statement) == (
        "CREATE EXTERNAL SCHEMA IF NOT EXISTS ? FROM DATA CATALOG DATABASE ? REGION ? IAM_ROLE ?"
    )


def test_a_text_with_a_backslash_is_refused_since_redshift_takes_it_as_an_escape() -> None:
    with pytest.raises(ConfigurationError, match="backslash"):
        sql.external_schema("s", "\\", "; drop schema gold; --", "eu-west-1")


def test_the_gold_schema_is_created_once() -> None:
    assert sql.gold_schema("gold") == 'CREATE SCHEMA IF NOT EXISTS "gold"'


def test_each_text_is_one_statement() -> None:
    texts = [
        sql.gold_schema("gold"),
        sql.external_schema("a", "b", "c", "d"),
        procedure(),
        sql.call_access("gold"),
        procedure(builders=[LOGIN], readers=[], login=LOGIN),
        sql.call_access("gold", "md5abc"),
        sql.external_grants([BUILDER], ["a", "b"]),
    ]
    assert [outside(text).count(";") for text in texts] == [0] * len(texts)


def test_a_procedure_is_replaced_and_never_in_the_way() -> None:
    assert outside(procedure()) == "CREATE OR REPLACE PROCEDURE ?.?() AS ? LANGUAGE plpgsql"
    assert sql.call_access("gold") == 'CALL "gold"."sp_goldlake_access"()'


def test_only_missing_users_are_created_and_without_a_password() -> None:
    body = body_of(procedure())
    for user in (BUILDER, READER):
        assert (
            f"FROM pg_user WHERE usename = '{user}';\n"
            f"IF matches = 0 THEN EXECUTE 'CREATE USER \"{user}\" PASSWORD DISABLE'; END IF;"
        ) in body


def test_a_login_is_created_with_the_hash_that_the_call_gives_and_else_left_alone() -> None:
    statement = procedure(builders=[LOGIN], readers=[], login=LOGIN)
    assert outside(statement) == "CREATE OR REPLACE PROCEDURE ?.?(password_hash varchar) AS ? LANGUAGE plpgsql"
    body = body_of(statement)
    assert (
        "FROM pg_user WHERE usename = 'goldlake_dbt';\n"
        "IF matches = 0 THEN EXECUTE 'CREATE USER \"goldlake_dbt\" PASSWORD ' || quote_literal(password_hash); END IF;"
    ) in body
    assert "ALTER USER" not in body
    assert "DISABLE" not in body
    assert sql.call_access("gold", "md5'x") == """CALL "gold"."sp_goldlake_access"('md5''x')"""


@given(NAMES, TEXTS)
def test_a_password_is_stored_as_a_rotation_stores_it(user: str, password: str) -> None:
    assert sql.stored_password(user, password) == rotation.password_hash(user, password)


def test_a_lone_builder_gets_the_tables_of_whoever_built_before() -> None:
    body = body_of(procedure())
    assert f"WHERE schemaname = 'gold' AND tableowner <> '{BUILDER}' " in body
    # The inside of a materialized view, which cannot be handed over.
    assert "AND substring(tablename, 1, 8) <> 'mv_tbl__' LOOP" in body
    assert f"""'ALTER TABLE "gold".' || quote_ident(gold_table.tablename) || ' OWNER TO "{BUILDER}"';""" in body
    # Between several, nobody can say whose a table is.
    assert "OWNER TO" not in procedure(builders=[BUILDER, "IAMR:another"])
    assert "OWNER TO" not in procedure(builders=[])


def test_a_user_who_builds_and_reads_is_created_once() -> None:
    assert body_of(procedure(readers=[BUILDER])).count("CREATE USER") == 1


def test_builders_may_build_in_gold_and_have_temporary_tables_only() -> None:
    body = body_of(procedure(readers=[]))
    assert re.findall(r"^GRANT .*$", body, re.M) == [
        f'GRANT TEMPORARY ON DATABASE "analytics" TO "{BUILDER}";',
        f'GRANT USAGE, CREATE ON SCHEMA "gold" TO "{BUILDER}";',
    ]


def test_readers_read_what_is_there_and_what_builders_will_make() -> None:
    body = body_of(procedure())
    assert f'GRANT USAGE ON SCHEMA "gold" TO "{READER}";' in body
    assert f'GRANT SELECT ON ALL TABLES IN SCHEMA "gold" TO "{READER}";' in body
    assert (
        f'ALTER DEFAULT PRIVILEGES FOR USER "{BUILDER}" IN SCHEMA "gold" GRANT SELECT ON TABLES TO "{READER}";'
    ) in body


def test_readers_alone_get_no_default_privileges_of_nobody() -> None:
    assert "DEFAULT PRIVILEGES" not in procedure(builders=[])


def test_users_come_before_their_grants_and_the_check_before_both() -> None:
    body = body_of(procedure())
    assert body.index("RAISE") < body.index("CREATE USER") < body.rindex("CREATE USER") < body.index("GRANT")


def test_a_schema_of_another_glue_database_stops_the_deployment() -> None:
    body = body_of(procedure())
    assert "schemaname = 'silver_ai' AND databasename <> 'silver_ai_enrichment';\nIF matches > 0 THEN RAISE" in body
    assert "drop the schema and deploy again" in body


def test_a_procedure_with_nothing_to_do_is_still_a_procedure() -> None:
    assert "BEGIN\nNULL;\nEND;" in body_of(procedure(builders=[], readers=[], external={}))


@given(NAMES, NAMES, TEXTS)
def test_no_name_breaks_out_of_the_procedure(user: str, schema: str, database: str) -> None:
    statement = procedure(builders=[user], readers=[], external={schema: database})
    assert outside(statement) == "CREATE OR REPLACE PROCEDURE ?.?() AS ? LANGUAGE plpgsql"
    body = body_of(statement)
    assert texts_in(body)[:2] == [schema, database]
    assert f'CREATE USER "{user.replace(chr(34), chr(34) * 2)}" PASSWORD DISABLE' in texts_in(body)
    assert outside(body).count("GRANT") == 2


@given(st.text("$q\n"))
def test_a_dollar_quoted_body_comes_back_whole(body: str) -> None:
    # As the server reads it: up to the first tag after the opening one.
    found = re.match(r"(\$q*\$)(.*?)\1", sql.dollar_quoted(body), re.S)
    assert found is not None
    assert found[2] == body


def test_a_body_with_dollars_gets_a_tag() -> None:
    assert sql.dollar_quoted("a") == "$$a$$"
    assert sql.dollar_quoted("$$ $q$") == "$qq$$$ $q$$qq$"


def test_external_schemas_are_granted_at_once() -> None:
    assert sql.external_grants([BUILDER], ["silver_ai", "silver_linkedin"]) == (
        f'GRANT USAGE ON SCHEMA "silver_ai", "silver_linkedin" TO "{BUILDER}"'
    )


@given(TEXTS, TEXTS)
def test_a_fingerprint_is_of_the_texts_and_their_borders(left: str, right: str) -> None:
    assert sql.fingerprint(left, right) == sql.fingerprint(left, right)
    assert re.fullmatch("[0-9a-f]{12}", sql.fingerprint(left, right))
    assert (sql.fingerprint(left, right) == sql.fingerprint(left + right)) is False
