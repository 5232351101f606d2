"""The catalogue of secrets: generators keep their rules, faults are found all at once, and names are one rule's."""

from __future__ import annotations

import base64
import math
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.catalogue import Catalogue, load_catalogue, qualified_name
from runtime.errors import ConfigurationError
from runtime.generators import Derived, Fernet, Fixed, From, Password, Rsa, Template, Token
from stacks.names import DBT_LOGIN, DBT_USER, WAREHOUSE_LOGIN

NAMES = st.text(min_size=1, max_size=20)


def nothing(secret: str, key: str) -> str:
    raise AssertionError(f"{secret}.{key} is not asked for")


Load = Callable[[dict[str, Any]], Catalogue]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads a catalogue with these secrets and the profiles core and monitoring."""

    def from_file(secrets: dict[str, Any]) -> Catalogue:
        whole = {name: {"description": "d", "profiles": ["core"], **entry} for name, entry in secrets.items()}
        path = tmp_path / "secrets.yml"
        content = {"version": 1, "profiles": ["core", "monitoring"], "secrets": whole}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load_catalogue(path)

    return from_file


def refused(load: Load, secrets: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(secrets)
    return error.value.message


@st.composite
def passwords(draw: st.DrawFn) -> Password:
    """Return a password's rules that can be kept."""
    symbols = "".join(draw(st.lists(st.sampled_from(string.punctuation), unique=True, max_size=10)))
    upper, lower, digits, some = (draw(st.integers(0, 5)) for _ in range(4))
    needed = some if symbols else 0
    length = draw(st.integers(max(8, upper + lower + digits + needed), 64))
    return Password(length, upper, lower, digits, needed, symbols)


@given(passwords(), NAMES, NAMES)
def test_a_password_keeps_its_rules_generated_and_on_a_laptop(rules: Password, secret: str, key: str) -> None:
    for made in (rules.generate(nothing), rules.local(secret, key, nothing)):
        assert len(made) == rules.length
        assert set(made) <= {*string.ascii_letters, *string.digits, *rules.symbols}
        assert sum(character in string.ascii_uppercase for character in made) >= rules.min_upper
        assert sum(character in string.ascii_lowercase for character in made) >= rules.min_lower
        assert sum(character in string.digits for character in made) >= rules.min_digits
        assert sum(character in rules.symbols for character in made) >= rules.min_symbols


@pytest.mark.parametrize(
    "generator",
    [Derived(32), Password(32), Password(32, symbols="!#"), Fernet(), Token(32)],
    ids=lambda made: made.kind,
)
@given(NAMES, NAMES, NAMES)
def test_a_laptops_value_is_the_same_each_time_and_another_for_each_key(
    generator: Derived | Password | Fernet | Token, secret: str, key: str, other: str
) -> None:
    assume(key != other)
    assert generator.local(secret, key, nothing) == generator.local(secret, key, nothing)
    assert generator.local(secret, key, nothing) != generator.local(secret, other, nothing)
    assert generator.local(secret, key, nothing) != generator.local(f"{secret}2", key, nothing)


@pytest.mark.parametrize("generator", [Password(16), Fernet(), Token(16)], ids=lambda made: made.kind)
def test_generated_values_are_random(generator: Password | Fernet | Token) -> None:
    made = {generator.generate(nothing) for _ in range(200)}
    assert len(made) == 200
    assert generator.local("a", "b", nothing) not in made


def test_the_characters_that_a_password_needs_stand_anywhere_in_it() -> None:
    alone = Password(8, 7, 1, 0, 0)
    places = {next(at for at, c in enumerate(alone.generate(nothing)) if c.islower()) for _ in range(400)}
    assert places == set(range(8))


def test_a_passwords_characters_are_drawn_evenly() -> None:
    drawn = "".join(Password(4096, 0, 0, 0).generate(nothing) for _ in range(10))
    counts = [drawn.count(character) for character in string.ascii_letters + string.digits]
    expected = len(drawn) / len(counts)
    # Ten standard deviations of a fair draw.
    assert max(abs(count - expected) for count in counts) < 10 * math.sqrt(expected)


@given(NAMES, NAMES)
def test_a_fernet_key_is_32_bytes_in_44_characters_of_url_safe_base64(secret: str, key: str) -> None:
    for made in (Fernet().generate(nothing), Fernet().local(secret, key, nothing)):
        assert len(made) == 44
        assert len(base64.urlsafe_b64decode(made)) == 32
        assert set(made) <= {*string.ascii_letters, *string.digits, *"-_="}


def test_cryptography_takes_a_fernet_key() -> None:
    from cryptography.fernet import Fernet as Cipher

    for made in (Fernet().generate(nothing), Fernet().local("airflow", "FERNET_KEY", nothing)):
        cipher = Cipher(made)
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


@given(st.integers(16, 1024))
def test_a_token_has_its_bytes_in_hexadecimal(size: int) -> None:
    for made in (Token(size).generate(nothing), Token(size).local("a", "b", nothing)):
        assert len(bytes.fromhex(made)) == size


def test_an_rsa_key_is_a_private_key_of_its_bits_and_random_on_a_laptop_too() -> None:
    keys = [Rsa(2048).generate(nothing), Rsa(2048).local("a", "b", nothing), Rsa(2048).local("a", "b", nothing)]
    assert len(set(keys)) == 3
    assert Rsa.is_random
    for pem in keys:
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, RSAPrivateKey)
        assert key.key_size == 2048


@given(st.text(min_size=1))
def test_a_value_of_another_key_is_that_keys(value: str) -> None:
    assert From("a.b.c").sources == (("a", "b.c"),)
    assert From("a.b.c").generate(lambda secret, key: {("a", "b.c"): value}[secret, key]) == value


def test_a_template_puts_values_into_a_text_percent_encoded_where_it_says_so() -> None:
    values = {("pg", "user"): "me", ("pg", "password"): "p@ss/w:rd é{}"}
    template = Template("postgresql://{pg.user}:{pg.password:url}@db/{{x}} {pg.user}")
    assert template.sources == (("pg", "user"), ("pg", "password"))
    expected = "postgresql://me:p%40ss%2Fw%3Ard%20%C3%A9%7B%7D@db/{x} me"
    assert template.generate(lambda secret, key: values[secret, key]) == expected
    assert template.local("a", "b", lambda secret, key: values[secret, key]) == expected


def test_a_derived_value_is_for_local_development_only() -> None:
    with pytest.raises(ConfigurationError, match="everyone can derive it"):
        Derived(8).generate(nothing)


def test_no_text_of_the_catalogue_is_in_a_repr() -> None:
    assert "hunter2" not in repr(Fixed("hunter2"))


def test_the_projects_own_catalogue_is_sound_and_every_key_has_a_local_default() -> None:
    catalogue = load_catalogue()
    assert catalogue.profiles == ("core", "data-pipeline", "monitoring", "spark-testing")
    assert set(catalogue.secrets) == {
        "postgres-airflow",
        "postgres-metastore",
        "minio",
        "airflow",
        "redshift-admin",
        "redshift-dbt",
        "grafana",
        "trino",
    }
    for place, _key in catalogue.places():
        assert catalogue.local_default(*place), place
    assert len(catalogue.local_default("airflow", "FERNET_KEY")) == 44
    assert all(catalogue.of_profile(profile) for profile in catalogue.profiles)


def test_no_login_of_a_warehouse_is_generated_by_seeding() -> None:
    # Pulumi or AWS makes them, or an operator gives one: what is generated here would be no login of that warehouse.
    without = {place for place, key in load_catalogue().places() if key.generate is None}
    logins = ("redshift-admin", "redshift-dbt")
    assert without == {(login, key) for login in logins for key in ("username", "password")}


def test_the_login_of_dbt_is_its_user_in_the_warehouse_and_in_no_profile() -> None:
    catalogue = load_catalogue()
    assert catalogue.local_default(DBT_LOGIN, "username") == DBT_USER
    assert catalogue.local_default(DBT_LOGIN, "password") != catalogue.local_default(WAREHOUSE_LOGIN, "password")
    assert catalogue.secrets[DBT_LOGIN].profiles == ()


def test_two_secrets_of_a_profile_with_one_key_take_their_names() -> None:
    catalogue = load_catalogue()
    core, spark = catalogue.variables("core"), catalogue.variables("spark-testing")
    assert core["POSTGRES_AIRFLOW_USER"] == ("postgres-airflow", "POSTGRES_USER")
    assert core["POSTGRES_METASTORE_PASSWORD"] == ("postgres-metastore", "POSTGRES_PASSWORD")
    assert "POSTGRES_USER" not in core
    # Alone in its profile, the key keeps its name.
    assert spark["POSTGRES_USER"] == ("postgres-metastore", "POSTGRES_USER")


def test_airflows_keys_are_in_airflows_notation() -> None:
    core = load_catalogue().variables("core")
    assert core["AIRFLOW__CORE__FERNET_KEY"] == ("airflow", "FERNET_KEY")
    assert core["AIRFLOW__API_AUTH__JWT_SECRET"] == ("airflow", "JWT_SECRET")


@pytest.mark.parametrize(
    ("secret", "variable", "name"),
    [
        ("postgres-airflow", "POSTGRES_USER", "POSTGRES_AIRFLOW_USER"),
        ("minio", "MINIO_ROOT_USER", "MINIO_ROOT_USER"),
        ("redshift-admin", "PASSWORD", "REDSHIFT_ADMIN_PASSWORD"),
        ("pg-a", "PGUSER", "PG_A_PGUSER"),
    ],
)
def test_a_qualified_name_does_not_say_the_first_word_twice(secret: str, variable: str, name: str) -> None:
    assert qualified_name(secret, variable) == name


def test_a_variable_that_the_catalogue_spells_out_is_kept_where_another_gives_way(load: Load) -> None:
    key = {"generate": "token"}
    catalogue = load({"a": {"keys": {"X": key}}, "b": {"keys": {"other": {**key, "env": "X"}}}})
    assert catalogue.variables("core") == {"A_X": ("a", "X"), "X": ("b", "other")}
    assert catalogue.variables("monitoring") == {}


def test_a_profile_that_is_not_declared_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no profile 'nope'; there are core, data-pipeline"):
        load_catalogue().variables("nope")


def test_a_key_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no key minio\.nope"):
        load_catalogue().local_default("minio", "nope")
    with pytest.raises(ConfigurationError, match=r"no key nope\.x"):
        load_catalogue().local_default("nope", "x")


def test_local_defaults_follow_their_sources(load: Load) -> None:
    catalogue = load(
        {
            "a": {"keys": {"X": {"local": {"fixed": "one"}}}},
            "b": {"keys": {"Y": {"generate": {"from": "a.X"}}, "Z": {"generate": {"template": "<{b.Y}>"}}}},
        }
    )
    assert catalogue.local_default("b", "Z") == "<one>"


def test_a_generator_can_be_written_short_or_in_full(load: Load) -> None:
    keys = (
        load(
            {
                "a": {
                    "keys": {
                        "A": {"generate": "password"},
                        "B": {"generate": {"password": 12}},
                        "C": {"generate": {"password": {"length": 12, "symbols": "!", "min_symbols": 2}}},
                        "D": {"generate": {"fernet": None}},
                        "E": {"generate": {"rsa": 4096}},
                        "F": {"local": {"derived": 9}, "generate": "token"},
                    }
                }
            }
        )
        .secrets["a"]
        .keys
    )
    assert keys["A"].generate == Password()
    assert keys["B"].generate == Password(12)
    assert keys["C"].generate == Password(12, min_symbols=2, symbols="!")
    assert keys["D"].generate == Fernet()
    assert keys["E"].generate == Rsa(4096)
    assert (keys["F"].local, keys["F"].generate) == (Derived(9), Token(32))
    # Without a default of its own, a laptop has one of the same kind.
    assert keys["B"].local == keys["B"].generate


def test_all_faults_of_entries_are_reported_at_once_with_their_place(load: Load) -> None:
    message = refused(
        load,
        {
            "Bad_Name": {"keys": {"X": {"generate": "token"}}},
            "empty": {"keys": {}},
            "kinds": {"kind": "xml", "keys": {"X": {"generate": "token"}}},
            "two": {"kind": "text", "keys": {"X": {"generate": "token"}, "Y": {"generate": "token"}}},
            "names": {"keys": {"tls.key": {"generate": "token"}, "ok.key": {"env": "OK", "generate": "token"}}},
            "more": {"keys": {"X": {"generate": "token"}}, "profiles": ["core", "core"], "colour": "red"},
            "gen": {
                "keys": {
                    "short": {"generate": {"password": 3}},
                    "asks": {"generate": {"password": {"length": 8, "min_upper": 9}}},
                    "none": {"generate": {"password": {"min_symbols": 1}}},
                    "space": {"generate": {"password": {"symbols": " "}}},
                    "twice": {"generate": {"password": {"symbols": "!!"}}},
                    "nonsense": {"local": {"magic": 1}},
                    "both": {"local": {"fixed": "x", "derived": 3}},
                    "neither": {},
                    "open": {"generate": {"derived": 8}},
                    "number": {"local": {"fixed": 7}},
                    "source": {"local": {"from": "x"}},
                    "plain": {"local": {"template": "no key"}},
                    "form": {"local": {"template": "{a.b:>9}"}},
                    "brace": {"local": {"template": "{a.b"}},
                    "bits": {"generate": {"rsa": 1024}},
                    "env": {"env": "lower", "generate": "token"},
                    "option": {"generate": {"token": {"length": 3}}},
                }
            },
        },
    )
    lines = [line.strip() for line in message.splitlines()[1:]]
    keys = "secrets.gen.keys."
    for start, reason in {
        "secrets.Bad_Name.": "pattern",
        "secrets.empty.keys": "at least 1",
        "secrets.kinds.kind": "'json', 'text' or 'binary'",
        "secrets.two:": "kind text has one key",
        "secrets.names:": "tls.key cannot be an environment variable",
        "secrets.more.colour": "not permitted",
        f"{keys}short.generate.password.length": "greater than or equal to 8",
        f"{keys}asks.generate.password": "more characters than the length 8",
        f"{keys}none.generate.password": "min_symbols needs symbols",
        f"{keys}space.generate.password": "ASCII punctuation",
        f"{keys}twice.generate.password": "given twice",
        f"{keys}nonsense.local": "no generator 'magic'",
        f"{keys}both.local": "one generator is expected",
        f"{keys}neither": "local or generate is needed",
        f"{keys}open": "everyone can derive",
        f"{keys}number.local.fixed.text": "valid string",
        f"{keys}source.local.from": "does not name a key as secret.key",
        f"{keys}plain.local.template": "names at least one key",
        f"{keys}form.local.template": "takes no form but",
        f"{keys}brace.local.template": "expected '}'",
        f"{keys}bits.generate.rsa.bits": "2048, 3072 or 4096",
        f"{keys}env.env": "pattern",
        f"{keys}option.generate.token.length": "nexpected keyword",
    }.items():
        assert any(line.startswith(start) and reason in line for line in lines), (start, message)
    assert "names: ok.key" not in message
    assert message.splitlines()[0] == f"secrets.yml has {len(lines)} faults:"


def test_a_profile_twice_is_a_fault(load: Load) -> None:
    message = refused(load, {"a": {"profiles": ["core", "core"], "keys": {"X": {"generate": "token"}}}})
    assert "secrets.a: a profile is named twice" in message


def test_all_faults_between_entries_are_reported_at_once(load: Load) -> None:
    key = {"generate": "token"}
    message = refused(
        load,
        {
            "a": {"profiles": ["nowhere"], "keys": {"X": key}},
            "b": {"keys": {"Y": {"generate": {"from": "a.nope"}}, "Z": {"generate": {"template": "{nope.x}"}}}},
            "c": {"keys": {"U": {**key, "env": "SAME"}}},
            "d": {"keys": {"V": {**key, "env": "SAME"}, "w": key, "W": key}},
        },
    )
    assert message.splitlines()[0] == "secrets.yml has 5 faults:"
    assert "secrets.a.profiles: there is no profile 'nowhere'" in message
    assert "secrets.b.keys.Y: its source a.nope is not in the catalogue" in message
    assert "secrets.b.keys.Z: its source nope.x is not in the catalogue" in message
    assert "profiles.core: c.U and d.V would both be SAME" in message
    assert "profiles.core: d.w and d.W would both be W" in message


def test_two_qualified_names_that_are_equal_are_refused_with_both(load: Load) -> None:
    key = {"generate": "token"}
    message = refused(load, {"a": {"keys": {"B_X": key, "X": key}}, "a-b": {"keys": {"X": key, "B_X": key}}})
    assert "a.B_X and a-b.X would both be A_B_X" in message


def test_every_cycle_is_refused_once_by_the_names_on_it(load: Load) -> None:
    message = refused(
        load,
        {
            "a": {"keys": {"X": {"generate": {"from": "b.Y"}}, "SELF": {"generate": {"template": "{a.SELF}!"}}}},
            "b": {"keys": {"Y": {"local": {"template": "<{c.Z}>"}, "generate": "token"}}},
            "c": {"keys": {"Z": {"generate": {"from": "a.X"}}, "LEAF": {"generate": {"from": "a.X"}}}},
        },
    )
    assert message.splitlines()[0] == "secrets.yml has 2 faults:"
    assert "its value is made of itself: a.X <- b.Y <- c.Z <- a.X" in message
    assert "its value is made of itself: a.SELF <- a.SELF" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\nversion: 1\n", "the key 'version' is there twice in line 2, column 1"),
        ("a: 'hunter2\n", "is no readable YAML"),
        ("a: !!python/object:os.system hunter2\n", "is no readable YAML"),
        ("", "the file: Input should be a valid dictionary"),
        ("version: 2\nprofiles: [core]\nsecrets: {hunter2: 3}\n", "version: Input should be 1"),
        ("version: 1\nprofiles: [core]\nsecrets: {a: hunter2}\n", "secrets.a: "),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_without_quoting_it(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "c.yml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        load_catalogue(path)
    assert reason in error.value.message
    assert "hunter2\n" not in error.value.message.replace("secrets.hunter2", "")
    assert error.value.__cause__ is None


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_catalogue(tmp_path / "nope.yml")


def test_the_catalogue_in_the_documentation_is_sound_and_names_every_generator(
    project_root: Path, tmp_path: Path
) -> None:
    page = (project_root / "docs" / "secrets.md").read_text()
    path = tmp_path / "secrets.yml"
    path.write_text(page.split("```yaml\n", 1)[1].split("```", 1)[0])
    assert load_catalogue(path).variables("core")["AIRFLOW__CORE__FERNET_KEY"] == ("airflow", "FERNET_KEY")
    for kind in (made.kind for made in (Fixed, Derived, Password, Fernet, Token, Rsa, From, Template)):
        assert f"| `{kind}` |" in page
