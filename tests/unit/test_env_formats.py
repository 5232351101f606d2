"""Variables as text: what each format's readers make of it, and what is refused.

The readers here follow the documented rules; tests/local asks the shells and, where they are installed, Compose and
systemd themselves.
"""

from __future__ import annotations

import base64
import io
import json
import random
import re

import dotenv
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.env_formats import (
    FORMATS,
    HELPER_NAMES,
    environment_faults,
    faults,
    file_name,
    read_env,
    render,
)
from runtime.errors import ConfigurationError

SECRET = "a-value-nobody-may-see"
# What a careless writer or a reader trips over.
PIECES = (
    *("'", '"', "`", "\\", "\\\\", "\\'", '\\"', "\\n", "\\\n", "$", "$$", "$HOME", "${HOME}", "${", "${HOME:-x}"),
    *("$(id)", "`id`", "!", "!!", "#", " #", "=", ";", "&", "|", "*", "~", "<", ">", "(", ")", "{", "}", "[", "%", "^"),
    *("\n", "\r", "\r\n", "\t", " ", "  ", "\x01", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "é", "e\u0301", "漢"),
    *("ā", "\u0081", "😀", "a", "B", "0", "_", "export ", "K=1", "EOF", "\nK=1\n", "GOLDLAKE_DOLLAR", "x\\", "True"),
)


def awkward_values(count: int, seed: int = 1) -> dict[str, str]:
    """Return variables with values of the pieces, the same in every run, the last one 64 KiB long."""
    numbers = random.Random(seed)  # noqa: S311 - the same values in every run
    values = {
        f"K{index}": "".join(numbers.choice(PIECES) for _ in range(numbers.randrange(12))) for index in range(count - 1)
    }
    long = "".join(numbers.choice(PIECES) for _ in range(65536))
    while len(long.encode()) > 65536:
        long = long[: -max(1, (len(long.encode()) - 65536) // 4)]
    return {**values, "LONG": long + "x" * (65536 - len(long.encode()))}


def without(values: dict[str, str], fmt: str) -> dict[str, str]:
    """Return the variables that the format carries."""
    return {name: value for name, value in values.items() if not faults({name: value}, fmt)}


# --- readers ---


def own_variables(values: dict[str, str | None]) -> dict[str, str | None]:
    return {name: value for name, value in values.items() if name not in HELPER_NAMES}


def python_dotenv(text: str) -> dict[str, str | None]:
    # As it reads a file: opened as text, where every line end becomes \n.
    return own_variables(dict(dotenv.dotenv_values(stream=io.StringIO(text, newline=None))))


def compose(text: str) -> dict[str, str | None]:
    """Read by the rules of https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/."""
    found: dict[str, str | None] = {}
    at = 0
    while True:
        at = re.compile(r"(?:\s+|#[^\n]*)*").match(text, at).end()  # type: ignore[union-attr] # it matches nothing, too
        if at == len(text):
            return own_variables(found)
        name = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=").match(text, at)
        assert name, f"no assignment at {text[at : at + 20]!r}"
        at = name.end()
        quoted = re.compile(r"""'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)\"""", re.DOTALL).match(text, at)
        if quoted:
            at = quoted.end()
            single, double = quoted.groups()
            found[name[1]] = single.replace("\\'", "'") if single is not None else compose_double(double, found)
            assert re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)").match(text, at), "something after the closing quote"
        else:
            line = text[at:].partition("\n")[0]
            at += len(line)
            found[name[1]] = line.partition(" #")[0].rstrip()


def compose_double(text: str, known: dict[str, str | None]) -> str:
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}
    unescaped = re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[0]), text, flags=re.DOTALL)
    return re.sub(
        r"\$(\$)|\$\{(\w+)\}|\$([A-Za-z_]\w*)",
        lambda m: m[1] or known.get(m[2] or m[3]) or "",
        unescaped,
        flags=re.ASCII,
    )


def systemd(text: str) -> dict[str, str]:
    """Read by systemd.exec(5), EnvironmentFile=; what `render` writes is in double quotes."""

    def unescaped(match: re.Match[str]) -> str:
        return "" if match[1] == "\n" else match[1] if match[1] in '"\\`$' else match[0]

    found = {}
    for name, quoted in re.findall(r'^(\w+)="((?:\\.|[^"\\])*)"\n', text, flags=re.DOTALL | re.MULTILINE):
        found[name] = re.sub(r"\\(.)", unescaped, quoted, flags=re.DOTALL)
    return found


def github(text: str) -> dict[str, str]:
    """Read NAME<<DELIMITER blocks as a runner does: line by line, only \\n ends one."""
    found = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, delimiter = line.split("<<", 1)
        block = []
        while (content := next(lines)) != delimiter:
            block.append(content)
        found[name] = "\n".join(block)
    return found


def kubernetes(text: str) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in yaml.safe_load(text)["data"].items()}


READERS = [
    ("env", read_env),
    ("env", python_dotenv),
    ("env", compose),
    ("json", json.loads),
    ("k8s", kubernetes),
    ("systemd", systemd),
    ("github", github),
]
EVERY_READER = pytest.mark.parametrize(("fmt", "reader"), READERS, ids=[r.__qualname__ for _fmt, r in READERS])
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
)


@settings(deadline=None)
@given(values=st.dictionaries(st.from_regex(r"\AK[A-Z0-9_]{0,3}\Z"), texts, max_size=4))
def test_every_reader_gets_the_values_that_were_written(values: dict[str, str]) -> None:
    for fmt, reader in READERS:
        carried = without(values, fmt)
        assert reader(render(carried, fmt)) == carried, (fmt, reader)  # type: ignore[operator] # they answer differently


@EVERY_READER
def test_a_thousand_awkward_values_come_back_equal(fmt, reader) -> None:  # type: ignore[no-untyped-def] # the readers answer differently
    carried = without(awkward_values(1000), fmt)
    assert reader(render(carried, fmt)) == carried


@pytest.mark.parametrize("fmt", ["env", "json", "k8s"])
def test_every_awkward_value_is_carried(fmt: str) -> None:
    assert faults(awkward_values(1000), fmt) == {}


def test_a_plain_value_takes_no_variable_more() -> None:
    text = render({"A": "it is #1 & costs $5!", "B": 'a "b" \\d'}, "env")
    assert text.splitlines()[1:] == ["A='it is #1 & costs $5!'", "B='a \"b\" \\d'"]


def test_the_order_is_kept_and_the_file_ends_with_a_newline() -> None:
    for fmt in ("env", "systemd", "json"):
        text = render({"B": "1", "A": "2"}, fmt)
        assert text.index("B") < text.index("A")
        assert text.endswith("\n")


def test_the_same_variables_make_the_same_file() -> None:
    values = awkward_values(100)
    assert render(values, "env") == render(values, "env")


# --- what is refused ---


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", ["", "1A", "A-B", "A.B", "A B", "É", "A\n", "A=", "A$(id)"])
def test_a_name_that_is_no_variable_is_refused(fmt: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of an environment variable") as refused:
        render({name: SECRET}, fmt)
    assert repr(name) in refused.value.message
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("fmt", "name", "value"),
    [
        ("env", "A", f"{SECRET}\0"),
        ("systemd", "A", f"{SECRET}\0"),
        ("github", "A", f"{SECRET}\0"),
        ("github", "A", f"{SECRET}\r"),
        ("systemd", "A", f"{SECRET}\ufeff"),
        ("systemd", "A", f"{SECRET}\ufdd0"),
        ("systemd", "A", f"{SECRET}\U0001ffff"),
        ("github", "GITHUB_TOKEN", SECRET),
        ("github", "Runner_Os", SECRET),
        ("github", "NODE_OPTIONS", SECRET),
        ("env", "GOLDLAKE_DOLLAR", SECRET),
        ("env", "UID", SECRET),
        ("env", "_", SECRET),
        *((fmt, "A", f"{SECRET}\ud800") for fmt in FORMATS),
    ],
)
def test_what_a_format_cannot_carry_is_refused_by_name_and_never_shown(fmt: str, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        render({"GOOD": "x", name: value}, fmt)
    assert refused.value.message.startswith(f"{fmt}: {name}: ")
    assert "GOOD" not in refused.value.message
    assert SECRET not in refused.value.message


def test_everything_that_cannot_be_carried_is_named_at_once() -> None:
    assert list(faults({"A": "\0", "B": "fine", "C": "\ud800"}, "env")) == ["A", "C"]


def test_a_process_can_have_what_shells_keep_but_no_nul() -> None:
    assert environment_faults({"UID": "1", "A": "\r\ufeff"}) == {}
    assert environment_faults({"A": "\0"}) == {"A": "A: the value has a NUL character, which no environment can hold"}


# --- single formats ---


def test_a_kubernetes_secret_has_name_namespace_and_label() -> None:
    manifest = yaml.safe_load(render({"A": "1"}, "k8s", name="goldlake-core", namespace="data"))
    assert manifest == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "goldlake-core",
            "namespace": "data",
            "labels": {"app.kubernetes.io/managed-by": "goldlake"},
        },
        "type": "Opaque",
        "data": {"A": "MQ=="},
    }


def test_without_a_namespace_kubectl_takes_its_own() -> None:
    assert "namespace" not in yaml.safe_load(render({}, "k8s", name="a"))["metadata"]


@pytest.mark.parametrize(
    ("name", "namespace"), [("Core", None), ("a_b", None), ("a", "a.b"), ("-a", None), ("a" * 64, None)]
)
def test_what_kubernetes_takes_for_no_name_is_refused(name: str, namespace: str | None) -> None:
    with pytest.raises(ConfigurationError, match="in Kubernetes"):
        render({"A": "1"}, "k8s", name=name, namespace=namespace)


def test_more_than_kubernetes_takes_is_refused() -> None:
    values = {f"A{index}": "x" * 65536 for index in range(16)}
    assert render(values, "k8s")
    with pytest.raises(ConfigurationError, match="1 MiB"):
        render({**values, "B": "x"}, "k8s")


def test_no_value_can_end_its_block_for_github() -> None:
    first, second = (render({"A": "x"}, "github").splitlines()[0] for _ in range(2))
    assert first != second
    assert re.fullmatch(r"A<<goldlake_[0-9a-f]{32}", first)


def test_each_format_has_a_file_name_of_its_own_that_says_the_profile() -> None:
    names = [file_name("data-pipeline", fmt) for fmt in FORMATS]
    assert len(set(names)) == len(names)
    assert names[0] == "data-pipeline.env"


# --- reading back ---


def test_a_file_by_hand_is_read() -> None:
    text = '# mine\n\nexport A=plain\nB=\'with # and $1\'  # said\nC="it\'s \\"so\\" \\\\"\nD=\n'
    assert read_env(text) == {"A": "plain", "B": "with # and $1", "C": 'it\'s "so" \\', "D": ""}


@pytest.mark.parametrize(
    "line",
    [
        "A=$(id)",
        "A=two words",
        "A='it\\'s'",
        'A="$HOME"',
        'A="${HOME}"',
        'A="a\\nb"',
        'A="`id`"',
        "A='${HOME}'",
        "A='a'b",
        "A='a",
        "A",
        "A B=1",
    ],
)
def test_a_line_that_its_readers_would_not_read_the_same_is_refused_by_number(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^line 3 is nothing that every reader") as refused:
        read_env(f"X='1'\n# {SECRET}\n{line}{SECRET}")
    assert SECRET not in refused.value.message
