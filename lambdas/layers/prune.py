"""What of the packages no function needs: a list that is read before it grows, each entry with the reason."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

EVERY_LAYER = "*"


@dataclass(frozen=True)
class Rule:
    """One thing that is left out of a layer."""

    layer: str
    """Name of the layer; EVERY_LAYER is for all of them."""
    pattern: str
    """Paths below the layer's `python`, in the words of fnmatch: `*` matches slashes as well."""
    why: str
    keep: tuple[str, ...] = ()
    """Patterns of what stays all the same."""

    @property
    def name(self) -> str:
        """The rule as a build's record and `goldlake layers check` call it."""
        return f"{self.layer}: {self.pattern}"

    def takes(self, path: str) -> bool:
        """Return whether the rule leaves out a file. Metadata is never left out: dbt looks up its plugins there."""
        if PurePosixPath(path).parts[0].endswith(".dist-info"):
            return False
        return fnmatch.fnmatchcase(path, self.pattern) and not any(
            fnmatch.fnmatchcase(path, kept) for kept in self.keep
        )


RULES: Sequence[Rule] = (
    Rule(
        "dbt_redshift",
        "babel/locale-data/*",
        "agate reads and writes numbers in the words of en_US, whatever LC_ALL says; babel asks for no other locale",
        keep=("*/root.dat", "*/en.dat", "*/en_US.dat"),
    ),
    Rule(
        "dbt_redshift",
        "babel/messages/*",
        "extracts and compiles translations; babel.numbers, babel.dates and babel.core, which agate uses, do without",
    ),
    Rule(
        "dbt_redshift",
        "lxml/*",
        "for the SAML pages of redshift_connector's browser plugins, by way of bs4, which falls back to html.parser",
    ),
    Rule("dbt_redshift", "setuptools/*", "for building packages; redshift_connector's pkg_resources is a fallback"),
    Rule("dbt_redshift", "_distutils_hack/*", "part of setuptools"),
    Rule("dbt_redshift", "distutils-precedence.pth", "part of setuptools, and .pth files are not read under /opt"),
    Rule("dbt_redshift", "networkx/*/tests/*", "networkx's own tests"),
    Rule("dbt_redshift", "networkx/tests/*", "networkx's own tests"),
    Rule("dbt_redshift", "dbt/tests/*", "fixtures for the tests of adapters, which import pytest"),
    Rule("dbt_redshift", "pytimeparse/tests/*", "pytimeparse's own tests"),
    Rule("dbt_redshift", "referencing/tests/*", "referencing's own tests"),
    Rule("dbt_redshift", "snowplow_tracker/test/*", "snowplow_tracker's own tests"),
    Rule("dbt_redshift", "test/*", "a test that redshift_connector installs at the top"),
    Rule("dbt_redshift", "pydantic/v1/_hypothesis_plugin.py", "for tests with hypothesis"),
    Rule(
        "dbt_redshift",
        "psycopg2/*",
        "dbt-redshift's plugin names dbt-postgres for its macros, so dbt imports its module, and psycopg2 with it; "
        "what talks to the warehouse is redshift_connector. See STAND_INS",
    ),
    Rule("dbt_redshift", "psycopg2_binary.libs/*", "libpq, OpenSSL and Kerberos for psycopg2"),
    Rule(EVERY_LAYER, "*.pyi", "types for type checkers; Python does not read them"),
    Rule(EVERY_LAYER, "*.c", "C sources of compiled modules"),
)

# Modules in place of a pruned package that something imports and nothing calls.
STAND_INS: Mapping[str, Mapping[str, str]] = {
    "dbt_redshift": {
        "psycopg2/__init__.py": '''\
"""Stands for psycopg2, which is not in this layer: dbt imports it, and calls redshift_connector."""


def __getattr__(name):
    raise AttributeError(f"psycopg2.{name}: the layer dbt_redshift has no psycopg2, see lambdas/layers/prune.py")
''',
    },
}


def prune(layer: str, content: Path, rules: Sequence[Rule] = RULES) -> Mapping[str, int]:
    """Remove what the rules leave out of a layer; return how many files each of its rules took."""
    mine = [rule for rule in rules if rule.layer in (layer, EVERY_LAYER)]
    taken = {rule.name: 0 for rule in mine}
    for folder, _folders, files in os.walk(content, topdown=False):
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(content).as_posix()
            for rule in mine:
                if rule.takes(name):
                    path.unlink()
                    taken[rule.name] += 1
                    break
        if Path(folder) != content and not any(Path(folder).iterdir()):
            Path(folder).rmdir()
    for name, source in STAND_INS.get(layer, {}).items():
        path = content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return taken
