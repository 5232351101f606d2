"""The documentation speaks of what there is: units, outputs, settings, files, headings, commands and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtime.cli import app
from runtime.errors import ConfigurationError
from stacks.outputs import OUTPUTS, LakeOutputs, UnitOutputs
from stacks.program import plan
from stacks.settings import UNITS, config_keys, parse_settings

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SECTIONS = (
    "What it is for",
    "Inputs",
    "Resources",
    "Outputs",
    "Rollout",
    "Rollback",
    "Deleting",
    "What can go wrong",
)

_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# What follows `goldlake` up to the end of the command.
_COMMAND = re.compile(r"(?<![\w/.:-])goldlake ([a-z][^\n|;&#>]*)")


def unit_page(unit: str) -> str:
    return (ROOT / "docs" / "units" / f"{unit}.md").read_text()


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def prose(text: str) -> str:
    return _FENCED.sub("", text)


def code(text: str) -> Iterator[str]:
    yield from _FENCED.findall(text)
    yield from _INLINE.findall(prose(text))


def on_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_has_a_page_with_all_sections_in_order(unit: str) -> None:
    titles = re.findall(r"^## (.+)$", prose(unit_page(unit)), re.MULTILINE)
    assert titles == list(SECTIONS)


def test_the_overview_links_to_the_page_of_every_unit() -> None:
    text = (ROOT / "docs" / "units" / "README.md").read_text()
    assert all(f"[{unit}]({unit}.md)" in text for unit in UNITS)


@pytest.mark.parametrize("outputs", OUTPUTS, ids=lambda outputs: outputs.unit)
def test_the_page_of_a_unit_lists_its_outputs_and_no_others(outputs: type[UnitOutputs]) -> None:
    table = section(unit_page(outputs.unit), "Outputs")
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [outputs.export_name(name) for name in outputs.names()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bgoldlake:([A-Za-z]\w*)", page.read_text()))
    assert named <= set(config_keys().values())


@pytest.mark.parametrize("unit", UNITS)
def test_every_key_on_the_page_of_a_unit_is_a_setting(unit: str) -> None:
    # In backticks by itself, or with a value: `canaryPercent`, `signIn: password`.
    named = {
        match[1]
        for text in _INLINE.findall(prose(unit_page(unit)))
        if (match := re.fullmatch(r"([a-z]+(?:[A-Z][a-z]+)+)(?::.*)?", text))
    }
    assert named
    assert named <= set(config_keys().values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for target in _LINK.findall(prose(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} of {page.name}"
        if anchor:
            assert anchor in set(map(slug, _HEADING.findall(prose(found.read_text())))), f"{target} of {page.name}"


def slug(heading: str) -> str:
    """Return a heading's anchor as GitHub makes it: lower case, no punctuation, dashes for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    for text in code(page.read_text()):
        for words in _COMMAND.findall(text):
            assert unknown_words(words) == [], f"goldlake {words}"


def unknown_words(words: str) -> list[str]:
    """Return what of a command line the command does not have: a subcommand or an option."""
    command: click.Command = app
    unknown = []
    for word in words.split():
        if word.startswith("--"):
            options = {option for parameter in command.params for option in (*parameter.opts, "--help")}
            unknown += [word] if word.partition("=")[0] not in options else []
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return [word]
            command = found
    return unknown


def test_a_command_that_does_not_exist_is_found() -> None:
    assert unknown_words("state locks --clear") == []
    assert unknown_words("state unlock --clear") == ["unlock"]
    assert unknown_words("state locks --force") == ["--force"]
    assert _COMMAND.findall("goldlake local up && goldlake vacuum gold  # now") == ["local up ", "vacuum gold  "]


@pytest.mark.parametrize(
    ("stack", "units", "imports"),
    [
        ("dev", '["foundation", "gold"]', "{}"),
        ("warehouse-dev", '["warehouse"]', '{"foundation": "foundation-dev", "secrets": "foundation-dev"}'),
        (
            "warehouse-dev",
            '["lake", "warehouse"]',
            '{"foundation": "foundation-dev", "lake": "foundation-dev", "secrets": "foundation-dev"}',
        ),
        (
            "app-dev",
            '["lake", "transform"]',
            '{"foundation": "foundation-dev", "secrets": "foundation-dev", "warehouse": "warehouse-dev"}',
        ),
    ],
    ids=["unknown unit", "missing import", "both", "cycle"],
)
def test_the_refusals_in_the_overview_are_the_programs_own_words(stack: str, units: str, imports: str) -> None:
    values = {"owner": "data-platform", "costCentre": "gold", "units": units, "imports": imports}
    with pytest.raises(ConfigurationError) as refused:
        plan(parse_settings(values, stack=stack, region="us-east-1"))
    overview = on_one_line((ROOT / "docs" / "units" / "README.md").read_text())
    assert on_one_line(refused.value.message) in overview


def test_the_missing_output_in_the_overview_is_one_that_a_unit_has() -> None:
    overview = (ROOT / "docs" / "units" / "README.md").read_text()
    missing = re.search(r"stack 'foundation-dev' has no output '(\w+)': deploy it first, with the unit lake", overview)
    assert missing is not None
    assert missing[1] in {LakeOutputs.export_name(name) for name in LakeOutputs.names()}
