"""Environment variables as text: files for shells, Compose, Kubernetes, systemd and GitHub Actions.

Every reader of a format gets the very value that was written. What a format cannot carry is refused by the variable's
name, never bent; the value is in no message.

No package from PyPI writes these. Two were tried: `dotenv.set_key` escapes a single quote by a backslash, which a shell
reads otherwise, and no backslash; `shlex.quote` writes a single quote in a way that neither python-dotenv nor Compose
can read.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runtime.errors import ConfigurationError

Variables = Mapping[str, str]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Kubernetes: an object's name, and the size of a Secret.
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KUBERNETES_BYTES = 1024 * 1024

# --- env: one file for sh, bash, python-dotenv and Compose ---
#
# The four agree on little. Single quotes: the shells end them at any ', python-dotenv and Compose read \' and
# python-dotenv \\ as escapes, and python-dotenv fills in ${NAME} even there. Double quotes: all know \\ and \", each
# has escapes of its own beyond them, and all fill in ${NAME}. So a value goes in single quotes if none of them sees
# anything in it, otherwise in double quotes, where characters that cannot be escaped in one way for all of them are
# filled in from variables that hold just that character.
#
# Two of those variables need a line that a shell reads on where the others see a comment: for a shell the # stands
# inside a word, because there is no space before it (or a quoted one).
_HELPERS = {
    "$": ("GOLDLAKE_DOLLAR", "GOLDLAKE_DOLLAR='$'"),
    "`": ("GOLDLAKE_BACKTICK", "GOLDLAKE_BACKTICK='`'"),
    # Shells know no \r in quotes; a bare one would be a newline for python-dotenv, which opens files as text.
    "\r": ("GOLDLAKE_RETURN", "GOLDLAKE_RETURN=\"\\r\"#;GOLDLAKE_RETURN=$(printf '\\r')"),
    # For the end of a value only: python-dotenv before 1.2.3 takes the last two characters of "\\" for a quote in it.
    "\\": ("GOLDLAKE_BACKSLASH", "GOLDLAKE_BACKSLASH=\\ #;GOLDLAKE_BACKSLASH='\\'"),
}
HELPER_NAMES = frozenset(name for name, _line in _HELPERS.values())
_NOT_IN_SINGLE_QUOTES = re.compile(r"'|\r|\$\{|\\\\|\\\Z")
_ESCAPED = {"\\": "\\\\", '"': '\\"', **{character: f"${{{_HELPERS[character][0]}}}" for character in "$`\r"}}
_TO_ESCAPE = str.maketrans(_ESCAPED)
# Variables that bash sets itself or refuses to set.
_KEPT_BY_SHELLS = frozenset(
    re.findall(
        r"\w+",
        "_ BASHOPTS BASHPID BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_COMMAND BASH_LINENO BASH_SOURCE BASH_SUBSHELL "
        "BASH_VERSINFO DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD IFS LINENO OPTARG OPTIND "
        "PIPESTATUS PPID RANDOM SECONDS SHELLOPTS SRANDOM UID",
    )
)


def _quoted(value: str) -> str:
    if not _NOT_IN_SINGLE_QUOTES.search(value):
        return f"'{value}'"
    if value.endswith("\\"):
        return f'"{value[:-1].translate(_TO_ESCAPE)}${{{_HELPERS[chr(92)][0]}}}"'
    return f'"{value.translate(_TO_ESCAPE)}"'


def _env(variables: Variables, _name: str, _namespace: str | None) -> str:
    lines = [f"{name}={_quoted(value)}" for name, value in variables.items()]
    body = "\n".join(lines)
    # No value has ${ in it as it is.
    needed = [line for name, line in _HELPERS.values() if f"${{{name}}}" in body]
    header = "# Written by `goldlake secrets fetch`, for sh, bash, python-dotenv and Compose's env_file."
    return "\n".join([header, *needed, *lines, ""])


def _env_fault(name: str, value: str) -> str | None:
    if name in HELPER_NAMES:
        return "the name is kept for the file's own variables"
    if name in _KEPT_BY_SHELLS:
        return "shells keep the name for themselves"
    return _process_fault(name, value)


def _process_fault(_name: str, value: str) -> str | None:
    """Return why no process can get the value in its environment."""
    return "the value has a NUL character, which no environment can hold" if "\0" in value else None


# --- the others ---


def _json(variables: Variables, _name: str, _namespace: str | None) -> str:
    return json.dumps(dict(variables), indent=2, ensure_ascii=False) + "\n"


def _nothing_wrong(_name: str, _value: str) -> str | None:
    return None


def _kubernetes(variables: Variables, name: str, namespace: str | None) -> str:
    import yaml

    for what, text in (("name", name), ("namespace", namespace)):
        if text is not None and not _DNS_LABEL.fullmatch(text):
            raise ConfigurationError(
                f"{text!r} is no {what} in Kubernetes: up to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
            )
    if sum(len(value.encode()) for value in variables.values()) > _KUBERNETES_BYTES:
        raise ConfigurationError("the values are more than 1 MiB together, Kubernetes' limit of a Secret")
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            **({"namespace": namespace} if namespace else {}),
            "labels": {"app.kubernetes.io/managed-by": "goldlake"},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in variables.items()},
    }
    return yaml.safe_dump(manifest, sort_keys=False)


# systemd.exec(5), EnvironmentFile=: in double quotes these four are escaped by a backslash, all else is verbatim.
_SYSTEMD_ESCAPES = str.maketrans({character: f"\\{character}" for character in '"\\`$'})


def _systemd(variables: Variables, _name: str, _namespace: str | None) -> str:
    return "".join(f'{name}="{value.translate(_SYSTEMD_ESCAPES)}"\n' for name, value in variables.items())


def _systemd_fault(name: str, value: str) -> str | None:
    # The file must not have them, says the manual page; systemd ignores a file with a noncharacter wholly.
    for character in set(value):
        code = ord(character)
        if code == 0xFEFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            return f"the value has U+{code:04X}, which systemd does not accept"
    return _process_fault(name, value)


def _github(variables: Variables, _name: str, _namespace: str | None) -> str:
    text = ""
    for name, value in variables.items():
        # Random, so that no value can end its own block and set variables of its choice.
        delimiter = f"goldlake_{secrets.token_hex(16)}"
        text += f"{name}<<{delimiter}\n{value}\n{delimiter}\n"
    return text


def _github_fault(name: str, value: str) -> str | None:
    if name.upper().startswith(("GITHUB_", "RUNNER_")) or name.upper() == "NODE_OPTIONS":
        return "GitHub lets no step set a variable of that name"
    if value.endswith("\r"):
        return "the value ends with a carriage return, which runners on Windows take for a part of the line's end"
    return _process_fault(name, value)


@dataclass(frozen=True)
class Format:
    """A form of output: how it is written, and which variable it cannot carry, with the reason."""

    suffix: str
    write: Callable[[Variables, str, str | None], str]
    fault: Callable[[str, str], str | None]


FORMATS: Mapping[str, Format] = {
    "env": Format(".env", _env, _env_fault),
    "json": Format(".json", _json, _nothing_wrong),
    "k8s": Format(".secret.yaml", _kubernetes, _nothing_wrong),
    "systemd": Format(".systemd.env", _systemd, _systemd_fault),
    "github": Format(".github.env", _github, _github_fault),
}
"""`json` and `k8s` carry every text, NUL too; it is up to who makes an environment of them."""
READABLE_FORMATS = ("env", "json")


def file_name(profile: str, fmt: str) -> str:
    """Return the name of a profile's file: core.env, core.json, core.secret.yaml…"""
    return profile + FORMATS[fmt].suffix


def known_format(fmt: str, formats: Iterable[str]) -> None:
    """Raise ConfigurationError for a format that is not among them."""
    if fmt not in formats:
        raise ConfigurationError(f"there is no format {fmt!r} here; there are {', '.join(formats)}")


def faults(variables: Variables, fmt: str) -> dict[str, str]:
    """Return for each variable that the format cannot carry why; empty when it can carry all."""
    return dict(_faults(variables, FORMATS[fmt].fault))


def environment_faults(variables: Variables) -> dict[str, str]:
    """Return for each variable that no process can have in its environment why."""
    return dict(_faults(variables, _process_fault))


def _faults(variables: Variables, of_format: Callable[[str, str], str | None]) -> Iterable[tuple[str, str]]:
    for name, value in variables.items():
        if not _NAME.fullmatch(name):
            yield name, f"{name!r} is no name of an environment variable: letters, digits and _, no digit first"
            continue
        # A JSON text can hold half of a surrogate pair, which is no character and has no UTF-8.
        broken = any("\ud800" <= character <= "\udfff" for character in value)
        fault = "the value is no valid Unicode" if broken else of_format(name, value)
        if fault:
            yield name, f"{name}: {fault}"


def render(variables: Variables, fmt: str, *, name: str = "goldlake", namespace: str | None = None) -> str:
    """Return the variables as text in a format; `name` and `namespace` are those of a Kubernetes Secret.

    Raises ConfigurationError naming every variable that the format cannot carry.
    """
    found = faults(variables, fmt)
    if found:
        raise ConfigurationError(f"{fmt}: {'; '.join(found.values())}")
    return FORMATS[fmt].write(variables, name, namespace)


# --- reading back ---

_ENTRY = re.compile(
    r"""(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=
        (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>[A-Za-z0-9_./:@%+,=-]*) )
        (?:[ \t]+\#[^\n]*|[ \t]*)(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_BY_HELPER = {name: character for character, (name, _line) in _HELPERS.items()}
_IN_DOUBLE_QUOTES = re.compile(r"\\(?P<escaped>[\\\"])|\$\{(?P<helper>GOLDLAKE_[A-Z]+)\}|(?P<unclear>[\\$`])")


def read_env(text: str) -> dict[str, str]:
    """Return the variables of an env file that `render` wrote, or of one by hand that all four readers read the same.

    Raises ConfigurationError with the number of the first line that is neither; its text is not shown.
    """
    for _name, line in _HELPERS.values():
        text = text.replace(f"\n{line}\n", "\n#\n")
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        entry = _ENTRY.match(text, position)
        value = None if entry is None else _value_of(entry)
        if entry is not None and value is not None:
            found[entry["name"]] = value
            position = entry.end()
            continue
        skipped = _SKIPPED.match(text, position)
        if skipped is None:
            number = text.count("\n", 0, position) + 1
            raise ConfigurationError(f"line {number} is nothing that every reader of env files reads the same")
        position = skipped.end()
    return found


def _value_of(entry: re.Match[str]) -> str | None:
    """Return the value of an entry, None when its readers would not agree."""
    if entry["single"] is not None:
        return None if _NOT_IN_SINGLE_QUOTES.search(entry["single"]) else entry["single"]
    if entry["double"] is None:
        return entry["bare"]
    unclear = False

    def plain(match: re.Match[str]) -> str:
        nonlocal unclear
        character = match["escaped"] or _BY_HELPER.get(match["helper"] or "")
        unclear = unclear or character is None
        return character or ""

    value = _IN_DOUBLE_QUOTES.sub(plain, entry["double"])
    return None if unclear else value
