"""The committed graph of each stack: up to date, stable, readable back, and without any secret."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pulumi_random
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.preview.differences import changes, differences
from local.preview.snapshot import FOLDER, SECRET, Entry, Snapshot, load, read, snapshot_of, write
from local.preview.units import units_of
from local.recording import OUTPUTS, Registered, record, record_stack
from runtime.errors import ConfigurationError, FailedError

ROOT = Path(__file__).parents[2]
STACKS = ("dev", "localstack", "prod.example")
PASSWORD = OUTPUTS["random:index/randomPassword:RandomPassword"]["result"]


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[Registered]]:
    return {stack: record_stack(ROOT, stack).resources for stack in STACKS}


@pytest.fixture(scope="module")
def dev(recorded: dict[str, list[Registered]]) -> Snapshot:
    return snapshot_of(recorded["dev"])


@pytest.mark.parametrize("stack", STACKS)
def test_the_committed_snapshot_is_up_to_date(stack: str, recorded: dict[str, list[Registered]]) -> None:
    committed = (ROOT / FOLDER / f"{stack}.json").read_text()
    # Not `==` in the assertion itself: pytest would print thousands of lines.
    same = snapshot_of(recorded[stack]).text() == committed
    assert same, f"what stack {stack} registers has changed: goldlake preview --stack {stack} --update, and review it"


def test_every_stack_file_has_a_snapshot() -> None:
    files = {path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in ROOT.glob("Pulumi.*.yaml")}
    assert {path.stem for path in (ROOT / FOLDER).glob("*.json")} == files


def test_the_same_program_makes_the_same_file(dev: Snapshot) -> None:
    again = snapshot_of(record_stack(ROOT, "dev", calls={}).resources).text()
    assert (again == dev.text()) is True


@pytest.mark.parametrize("stack", STACKS)
def test_no_folder_of_this_machine_gets_in(stack: str, recorded: dict[str, list[Registered]]) -> None:
    text = snapshot_of(recorded[stack]).text()
    assert "/tmp" not in text
    assert str(ROOT) not in text
    assert " object at 0x" not in text


def test_a_written_snapshot_is_read_back_equal(dev: Snapshot, tmp_path: Path) -> None:
    write(dev, tmp_path / "new" / "dev.json")
    assert load(tmp_path / "new" / "dev.json") == dev


def test_reading_gives_back_what_was_recorded_but_for_secrets_and_files(
    recorded: dict[str, list[Registered]], tmp_path: Path
) -> None:
    write(snapshot_of(recorded["dev"]), tmp_path / "dev.json")
    found = {resource.urn: resource for resource in read(tmp_path / "dev.json")}
    assert set(found) == {resource.urn for resource in recorded["dev"]}
    for resource in recorded["dev"]:
        again = found[resource.urn]
        assert replace(again, inputs={}) == replace(resource, inputs={})
        assert set(again.inputs) == set(resource.inputs)
        for name, value in resource.inputs.items():
            if name in resource.secret_inputs:
                assert again.inputs[name] == SECRET
            elif not isinstance(value, pulumi.Asset | pulumi.Archive):
                assert parsed(again.inputs[name]) == parsed(value), (resource.name, name)


def parsed(value: Any) -> Any:
    """Return a value with JSON texts in it taken apart."""
    if isinstance(value, str):
        try:
            return json.loads(value) if value.startswith(("{", "[")) else value
        except ValueError:
            return value
    if isinstance(value, dict):
        return {key: parsed(item) for key, item in value.items()}
    return [parsed(item) for item in value] if isinstance(value, list) else value


# --- secrets ---


def by_key(resources: list[Registered]) -> list[Registered]:
    """Return resources in the order of a snapshot."""
    known = {resource.urn: resource for resource in resources}
    return [known[again.urn] for again in snapshot_of(resources).registered()]


@pytest.mark.parametrize("stack", STACKS)
def test_no_secret_of_a_stack_is_in_its_snapshot(stack: str, recorded: dict[str, list[Registered]]) -> None:
    text = snapshot_of(recorded[stack]).text()
    assert PASSWORD not in text
    for entry, resource in zip(read(ROOT / FOLDER / f"{stack}.json"), by_key(recorded[stack]), strict=True):
        assert {name: entry.inputs[name] for name in resource.secret_inputs} == dict.fromkeys(
            resource.secret_inputs, SECRET
        )


def test_the_development_stack_has_secrets_to_hide(recorded: dict[str, list[Registered]]) -> None:
    """Or the tests above would show nothing."""
    hidden = {(found.name, name) for found in recorded["dev"] for name in found.secret_inputs}
    assert ("warehouse", "adminUserPassword") in hidden


class Thing(pulumi.CustomResource):
    """A resource of no provider, with any inputs."""

    value: pulumi.Output[Any]

    def __init__(self, name: str, inputs: dict[str, Any]) -> None:
        super().__init__("test:index:Thing", name, {"value": None, **inputs})


Shape = list[str | int]


def nested(secret: Any, shape: Shape) -> Any:
    """Return a value that holds a secret as deep as the shape says: under keys, and at places of lists."""
    for step in reversed(shape):
        secret = {step: secret, "other": 1} if isinstance(step, str) else [*range(step), secret]
    return secret


shapes = st.lists(st.one_of(st.sampled_from(["a", "b", "policy"]), st.integers(0, 3)), max_size=4)
# Told from everything else in a snapshot by its beginning.
secrets = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=4, max_size=30).map("S3cr3t-".__add__)


@settings(max_examples=40, deadline=None)
@given(text=secrets, shape=shapes)
def test_a_secret_at_any_depth_gets_into_no_snapshot(text: str, shape: Shape) -> None:
    def program() -> None:
        hidden = pulumi.Output.secret(text)
        first = Thing("first", {"value": nested(hidden, shape), "plain": "seen"})
        # What is made of it, what comes out of the resource that had it, and what was told to be none.
        Thing("second", {"value": hidden.apply(lambda value: f"postgresql://u:{value}@h"), "again": first.value})
        Thing("third", {"value": pulumi.Output.unsecret(hidden).apply(lambda value: json.dumps({"p": value}))})

    snapshot = snapshot_of(record(program).resources).text()
    assert text not in snapshot
    assert '"plain": "seen"' in snapshot


def test_an_output_that_the_provider_keeps_secret_is_one_in_the_next_resource() -> None:
    def program() -> None:
        password = pulumi_random.RandomPassword("password", length=20)
        Thing("user", {"value": pulumi.Output.concat("ALTER USER a PASSWORD '", password.result, "'")})

    recording = record(program, outputs=OUTPUTS)
    assert recording.resource("user").secret_inputs == {"value"}
    # Who works with the recording has the value.
    assert PASSWORD in recording.resource("user").inputs["value"]
    assert PASSWORD not in snapshot_of(recording.resources).text()


def test_a_short_word_in_a_secret_is_not_hidden_everywhere() -> None:
    def program() -> None:
        Thing("first", {"value": pulumi.Output.secret("admin")})
        Thing("second", {"value": "administrator"})

    entries = snapshot_of(record(program).resources).entries
    assert [entry.inputs["value"] for entry in entries.values()] == [SECRET, "administrator"]


# --- what a snapshot can't be ---


def test_a_missing_snapshot_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no snapshot") as refused:
        load(tmp_path / "dev.json")
    assert "goldlake preview --stack dev --update" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("<<<<<<< HEAD", "Expecting value"),
        ("[]", "its schema is not"),
        ('{"schema": "goldlake.snapshot/9"}', "its schema is not goldlake.snapshot/1"),
        ('{"schema": "goldlake.snapshot/1"}', "'resources' is missing"),
        ('{"schema": "goldlake.snapshot/1", "resources": [{"key": "a"}]}', "'type' is missing"),
        ('{"schema": "goldlake.snapshot/1", "resources": [1]}', "can't be read|cannot be read|that can be read"),
        (
            '{"schema": "goldlake.snapshot/1", "resources": [{"key": "a", "type": "t", "name": "n", "parent": "b"}]}',
            "it names b, and does not have it",
        ),
    ],
)
def test_a_broken_snapshot_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "dev.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as refused:
        read(path)
    assert "--update" in str(refused.value.hint)


def test_two_resources_of_one_urn_are_refused() -> None:
    def program() -> None:
        Thing("same", {"value": 1})
        Thing("same", {"value": 2})

    with pytest.raises(FailedError, match="one URN"):
        snapshot_of(record(program).resources)


# --- every change shows ---


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield all places inside of an input where a plain value is."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def mutated(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}-changed"


def with_change(entry: Entry, path: tuple[str | int, ...], value: Any) -> Entry:
    inputs = json.loads(json.dumps(entry.inputs))
    place = inputs
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return replace(entry, inputs=inputs)


@pytest.mark.parametrize("seed", range(10))
def test_a_change_of_any_input_of_any_resource_shows(seed: int, dev: Snapshot) -> None:
    chance = random.Random(seed)  # noqa: S311 - a choice, no key
    places = [
        (entry, path, value)
        for entry in dev.entries.values()
        for path, value in leaves(dict(entry.inputs))
        if value != SECRET and path[0] not in entry.ignore_changes
    ]
    entry, path, value = chance.choice(places)
    other = with_change(entry, path, mutated(value))
    found = changes(dev.entries, replace(dev, entries={**dev.entries, entry.key: other}), units_of(dev))
    mine = next(change for change in found if change.entry.key == entry.key)
    assert mine.action in ("update", "replace")
    (difference,) = mine.inputs
    assert difference.top == path[0]
    assert (difference.old, difference.new) == (value, mutated(value))
    assert replace(dev, entries={**dev.entries, entry.key: other}).text() != dev.text()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(old=json_values, new=json_values)
def test_values_have_no_difference_exactly_when_they_are_the_same(old: Any, new: Any) -> None:
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (not list(differences({"x": old}, {"x": new}))) == same
