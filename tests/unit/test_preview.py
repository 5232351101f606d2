"""`goldlake preview`: the tree, what changes in the words of `pulumi preview`, and the comment of a pull request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import local.preview.preview
from local.preview.comment import cost, policies
from local.preview.differences import ABSENT, Change, Difference, changes, differences
from local.preview.preview import Preview, preview
from local.preview.show import LONGEST_COMMENT, change_lines, difference_line, markdown, short_type, summary, tree
from local.preview.snapshot import FOLDER, Entry, Snapshot, load, snapshot_of, write
from local.preview.units import OTHER, UNIT_OF, in_order, units_of
from local.recording import Recording, Registered, record_stack
from policies.exemptions import Violation
from runtime.cli import app
from runtime.errors import ConfigurationError
from stacks.settings import UNITS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_stack(ROOT, "dev")


@pytest.fixture(scope="module")
def dev(recording: Recording) -> Snapshot:
    return snapshot_of(recording.resources)


@pytest.fixture
def project(tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an up-to-date snapshot, in which the stack dev is recorded without running the program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local.preview.preview, "record_stack", lambda _project, _stack: recording)
    write(snapshot_of(recording.resources), tmp_path / FOLDER / "dev.json")
    return tmp_path


def with_bucket(snapshot: Snapshot, **inputs: Any) -> Snapshot:
    """Return the snapshot with other inputs of the gold bucket."""
    (key,) = (key for key in snapshot.entries if key.endswith("aws:s3/bucket:Bucket::lake-gold"))
    entry = snapshot.entries[key]
    changed = replace(entry, inputs={**entry.inputs, **inputs})
    return replace(snapshot, entries={**snapshot.entries, key: changed})


# --- differences ---


def test_a_policy_in_a_text_is_compared_by_what_it_says() -> None:
    old = {"policy": {"$json": {"Statement": [{"Action": ["a", "b"], "Effect": "Allow"}]}}}
    new = {"policy": {"$json": {"Statement": [{"Effect": "Allow", "Action": ["a", "c", "b"]}]}}}
    assert list(differences(old, new)) == [Difference("policy.Statement[0].Action[1]", ABSENT, "c")]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({"a": 1}, {"a": 2}, "~ a: 1 => 2"),
        ({"a": True}, {"a": 1}, "~ a: true => 1"),
        ({"a": None}, {}, "- a: null"),
        ({}, {"a": {"b": [1]}}, '+ a: {"b": [1]}'),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, '~ a.b: "x" => "y"'),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, "- a[1]: 2"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "~ a[0].b: 1 => 2"),
        ({"a": {"$json": [1]}}, {"a": "none"}, '~ a: [1] => "none"'),
        ({"a": "x" * 400}, {}, f'- a: "{"x" * 158}…'),
    ],
)
def test_a_difference_is_one_line(old: Mapping[str, Any], new: Mapping[str, Any], line: str) -> None:
    assert [difference_line(found) for found in differences(old, new)] == [line]


def entry(type_token: str, name: str, inputs: Mapping[str, Any] | None = None, **more: Any) -> Entry:
    return Entry(f"{type_token}::{name}", type_token, name, "", inputs or {}, **{"dependencies": {}, **more})


def changed(old: list[Entry], new: list[Entry]) -> tuple[Change, ...]:
    before, after = ({found.key: found for found in side} for side in (old, new))
    return changes(before, Snapshot("goldlake", "dev", after), dict.fromkeys({*before, *after}, "lake"))


BUCKET = entry("aws:s3/bucket:Bucket", "b", {"bucket": "one"})
OBJECT = entry("aws:s3/bucketObjectv2:BucketObjectv2", "o", {"bucket": "x"}, dependencies={BUCKET.key: ("bucket",)})


def test_what_was_not_there_is_created_and_what_is_no_more_is_deleted() -> None:
    other = entry(BUCKET.type, "other")
    assert [(found.action, found.entry.name) for found in changed([BUCKET], [other])] == [
        ("delete", "b"),
        ("create", "other"),
    ]


def test_an_input_that_can_change_in_place_is_updated() -> None:
    (found,) = changed([BUCKET], [replace(BUCKET, inputs={"bucket": "one", "tags": {"a": "b"}})])
    assert (found.action, found.forced_by) == ("update", ())


def test_an_input_that_can_not_replaces_the_resource_and_is_named() -> None:
    (found,) = changed([BUCKET], [replace(BUCKET, inputs={"bucket": "two"})])
    assert (found.action, found.forced_by) == ("replace", ("bucket",))


def test_what_takes_its_identity_from_a_replaced_resource_is_replaced_with_it() -> None:
    deeper = entry("aws:s3/bucketObjectv2:BucketObjectv2", "p", {"key": "k"}, dependencies={OBJECT.key: ("key",)})
    old = [BUCKET, OBJECT, deeper]
    found = changed(old, [replace(BUCKET, inputs={"bucket": "two"}), OBJECT, deeper])
    assert {change.entry.name: (change.action, change.after) for change in found} == {
        "b": ("replace", ""),
        "o": ("replace", BUCKET.key),
        "p": ("replace", OBJECT.key),
    }


def test_what_only_waits_for_a_replaced_resource_stays() -> None:
    waiting = replace(OBJECT, dependencies={BUCKET.key: ()})
    found = changed([BUCKET, waiting], [replace(BUCKET, inputs={"bucket": "two"}), waiting])
    assert [change.entry.name for change in found] == ["b"]


def test_protection_is_an_option_and_no_update() -> None:
    (found,) = changed([BUCKET], [replace(BUCKET, protect=True)])
    assert (found.action, found.inputs) == ("options", ())
    assert [difference_line(option) for option in found.options] == ["~ protect: false => true"]


@pytest.mark.parametrize("path", ["tags", "tags.a"])
def test_an_input_that_the_engine_leaves_alone_is_no_change(path: str) -> None:
    old = replace(BUCKET, inputs={"tags": {"a": 1}}, ignore_changes=(path,))
    assert changed([old], [replace(old, inputs={"tags": {"a": 2}})]) == ()
    # And one with a longer name is.
    assert changed([old], [replace(old, inputs={"tags": {"a": 1}, "tagsAll": 1})]) != ()


# --- units and the tree ---


@pytest.mark.parametrize("unit", UNITS)
def test_the_table_of_units_is_what_each_unit_registers(unit: str) -> None:
    rest = {other: f"{other}-dev" for other in UNITS if other != unit}
    settings = {"units": json.dumps([unit]), "imports": json.dumps(rest), "customerKey": "true"}
    snapshot = snapshot_of(record_stack(ROOT, "dev", settings=settings).resources)
    found = {key: name for key, name in units_of(snapshot).items() if not key.startswith("pulumi:")}
    assert set(found.values()) == {unit}


def test_every_component_at_the_top_of_a_stack_is_in_the_table(recording: Recording) -> None:
    top = {found.type for found in recording.resources if found.parent == "goldlake-dev"}
    assert top <= set(UNIT_OF)


def test_the_unit_is_the_one_that_the_tags_say(recording: Recording, dev: Snapshot) -> None:
    units = units_of(dev)
    tagged = [found for found in dev.entries.values() if "Unit" in (found.inputs.get("tags") or {})]
    assert len(tagged) > 50
    assert {key.key: units[key.key] for key in tagged} == {key.key: key.inputs["tags"]["Unit"] for key in tagged}


def test_a_resource_of_nobody_is_shown_last() -> None:
    snapshot = Snapshot("goldlake", "dev", {BUCKET.key: BUCKET})
    assert units_of(snapshot) == {BUCKET.key: OTHER}
    assert in_order({OTHER, "lake", "foundation"}) == ["foundation", "lake", OTHER]


def test_the_tree_counts_every_resource_once(project: Path, recording: Recording) -> None:
    found = preview(project, "dev")
    lines = list(tree(found))
    assert lines[0] == f"dev: {len(recording.resources)} resources in 6 units"
    counted = sum(int(match[1]) for line in lines if (match := re.fullmatch(r"\w+  \((\d+)\)", line)))
    assert counted == sum(resource.custom for resource in recording.resources)
    assert any(line.endswith("s3  GatewayEndpoint: ec2.VpcEndpoint") for line in lines)


def test_types_are_shown_as_people_say_them() -> None:
    assert short_type("aws:s3/bucket:Bucket") == "s3.Bucket"
    assert short_type("goldlake:lake:LakeBuckets") == "LakeBuckets"
    assert short_type("random:index/randomPassword:RandomPassword") == "random.RandomPassword"


# --- the preview ---


def test_a_stack_as_its_snapshot_has_no_changes(project: Path) -> None:
    found = preview(project, "dev", fail_on=("widen-policy",))
    assert (found.changes, found.findings) == ((), ())
    assert summary(found) == "no changes"
    assert found.base == FOLDER / "dev.json"


def test_counts_add_up(project: Path, dev: Snapshot, recording: Recording) -> None:
    entries = dict(with_bucket(dev, tags={}).entries)
    entries.pop(next(iter(entries)))
    gone = entry("aws:sqs/queue:Queue", "gone")
    write(replace(dev, entries={**entries, gone.key: gone}), project / FOLDER / "dev.json")
    found = preview(project, "dev")
    counts = found.counts()
    assert {action: counts[action] for action in ("create", "update", "delete")} == {
        "create": 1,
        "update": 1,
        "delete": 1,
    }
    assert sum(counts.values()) - counts["delete"] == len(recording.resources)


def test_without_a_snapshot_everything_is_new_and_the_command_is_said(project: Path) -> None:
    (project / FOLDER / "dev.json").unlink()
    found = preview(project, "dev")
    assert {change.action for change in found.changes} == {"create"}
    assert "goldlake preview --stack dev --update makes it" in "\n".join(change_lines(found))


def test_a_guard_without_anything_to_compare_with_is_refused(project: Path) -> None:
    (project / FOLDER / "dev.json").unlink()
    with pytest.raises(ConfigurationError, match="which is not there"):
        preview(project, "dev", fail_on=("delete-data-store",))


def test_a_base_that_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no snapshot"):
        preview(project, "dev", base=project / "main.json")


# --- the command ---


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said where."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def goldlake(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            app(["preview", *arguments], prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, said.out, said.err)

    return goldlake


@pytest.fixture
def main(project: Path, dev: Snapshot) -> str:
    """Return the snapshot of a main branch on which the gold bucket had another name."""
    write(with_bucket(dev, bucket="old-gold"), project / "main.json")
    return "main.json"


def test_the_command_shows_the_tree_and_the_changes(run: Run, main: str) -> None:
    found = run("--base", main)
    assert found.code == 0
    assert "lake  (" in found.out
    assert "+- s3.Bucket lake-gold  [bucket can't change in place]" in found.out
    assert '~ bucket: "old-gold" => "goldlake-gold-' in found.out
    assert "made-up-password" not in found.out


def test_the_guard_ends_with_1_and_says_why(run: Run, main: str) -> None:
    found = run("--base", main, "--fail-on", "replace-data-store,widen-policy")
    assert found.code == 1
    assert "! replace-data-store: lake-gold (s3.Bucket) bucket can't change in place" in found.out
    assert "replace-data-store" in found.err


def test_the_guard_passes_what_it_was_not_asked_for(run: Run, main: str) -> None:
    assert run("--base", main, "--fail-on", "delete-data-store, widen-policy").code == 0


@pytest.mark.parametrize("kinds", ["replace-datastore", "", ",", "widen-policy,all"])
def test_a_kind_that_there_is_not_is_a_usage_error(run: Run, project: Path, kinds: str) -> None:
    found = run("--fail-on", kinds)
    assert found.code == 64
    assert "is none of replace-data-store, delete-data-store, widen-policy" in found.err


@pytest.mark.parametrize("option", ["--format", "--output"])
def test_json_is_the_result_alone(run: Run, main: str, option: str) -> None:
    found = run("--base", main, option, "json", "--fail-on", "replace-data-store")
    result = json.loads(found.out)
    assert (found.code, result["schema"], result["stack"]) == (1, "goldlake.preview/1", "dev")
    assert result["counts"]["replace"] == len([c for c in result["changes"] if c["action"] == "replace"])
    assert result["findings"][0]["kind"] == "replace-data-store"
    mine = next(change for change in result["changes"] if change["name"] == "lake-gold")
    assert mine["replacedBecauseOf"] == ["bucket"]
    assert mine["inputs"][0]["old"] == "old-gold"
    assert result["units"]["pipeline"]["pipeline"]["aws:sfn/stateMachine:StateMachine"] == 1


def test_update_writes_the_snapshot_and_shows_what_it_changed(run: Run, project: Path, dev: Snapshot) -> None:
    path = project / FOLDER / "dev.json"
    write(with_bucket(dev, bucket="old-gold"), path)
    found = run("--update")
    assert found.code == 0
    assert "old-gold" in found.out
    assert "written: tests/snapshots/dev.json" in found.err
    assert load(path) == dev
    assert [each.name for each in path.parent.iterdir()] == ["dev.json"]


def test_a_broken_snapshot_is_64_and_one_line(run: Run, project: Path) -> None:
    (project / FOLDER / "dev.json").write_text("<<<<<<< HEAD")
    found = run()
    assert found.code == 64
    assert "tests/snapshots/dev.json is not a snapshot that can be read" in found.err
    assert "Traceback" not in found.err


# --- the comment ---


def previewed(dev: Snapshot, before: Snapshot, **more: Any) -> Preview:
    found = changes(before.entries, dev, {**units_of(before), **units_of(dev)})
    return Preview("dev", FOLDER / "dev.json", (), dev, before, found, **more)


def test_the_comment_has_counts_a_table_and_folded_details(dev: Snapshot) -> None:
    text = markdown(previewed(dev, with_bucket(dev, tags={"Owner": "a|b"})), ["**Cost**: 1"])
    assert text.startswith("### `dev`: 1 to update")
    assert "| `~` | lake | `lake-gold` | s3.Bucket | tags |" in text
    assert text.index("**Cost**: 1") < text.index("<details>")
    assert '~ tags.Owner: "a|b" => "data-platform"' in text


def test_the_comment_without_changes_is_short(dev: Snapshot) -> None:
    assert markdown(previewed(dev, dev)) == "### `dev`: no changes\n"


def test_no_value_ends_the_code_block_of_the_comment(dev: Snapshot) -> None:
    text = markdown(previewed(dev, with_bucket(dev, tags={"Owner": "\n```\n</details>"})))
    assert [line for line in text.splitlines() if line.startswith("```")] == ["```diff", "```"]


def test_the_longest_comment_is_one_that_github_takes(dev: Snapshot) -> None:
    other = {key: replace(e, inputs=dict.fromkeys(e.inputs, "x" * 100)) for key, e in dev.entries.items()}
    text = markdown(previewed(dev, replace(dev, entries=other)))
    assert len(text) < LONGEST_COMMENT + 200
    assert "cut here" in text
    assert text.rstrip().endswith("</details>")


def violation(resource: str) -> Violation:
    return Violation(
        rule="tls",
        severity="error",
        resource=resource,
        type="t",
        message="allows | plain HTTP",
        remediation="Refuse it.",
    )


def test_a_new_violation_is_marked() -> None:
    text = policies([violation("a"), violation("b")], {("tls", "t", "a")}, 25, 2)
    assert "25 rules, 2 violated, 2 exempted" in text
    assert "| `a` | allows \\| plain HTTP |" in text
    assert "| `b` | **new**: allows" in text


def test_without_violations_the_comment_says_so() -> None:
    assert policies([], set(), 25, 0) == "**Policies**: 25 rules, nothing violated."


@dataclass(frozen=True)
class Ends:
    """A range of USD."""

    low: float
    high: float


@dataclass(frozen=True)
class Priced:
    """An estimate, as far as the comment asks it."""

    units: Mapping[str, Ends]

    @property
    def low(self) -> float:
        return sum(unit.low for unit in self.units.values())

    @property
    def high(self) -> float:
        return sum(unit.high for unit in self.units.values())

    def by_unit(self) -> Mapping[str, Ends]:
        return self.units


def test_the_cost_is_shown_before_and_after_by_the_units_that_change() -> None:
    before = Priced({"lake": Ends(1, 2), "warehouse": Ends(10, 20)})
    after = Priced({"lake": Ends(1, 2), "warehouse": Ends(20, 40), "pipeline": Ends(1, 1)})
    text = cost(after, before)  # type: ignore[arg-type] # a stand-in with what is asked
    assert text.splitlines() == [
        "**Cost**: 11.00 to 22.00 => 22.00 to 43.00 USD a month.",
        "",
        "| unit | before | after |",
        "|---|---|---|",
        "| pipeline | 0.00 to 0.00 | 1.00 to 1.00 |",
        "| warehouse | 10.00 to 20.00 | 20.00 to 40.00 |",
    ]


def test_a_cost_that_stays_is_one_line() -> None:
    same: Any = Priced({"lake": Ends(1, 2)})
    assert cost(same, same) == "**Cost**: 1.00 to 2.00 USD a month, as before."
    assert cost(same, None) == "**Cost**: 1.00 to 2.00 USD a month."


def test_the_comment_has_the_rules_and_the_prices_of_this_project(recording: Recording, dev: Snapshot) -> None:
    from local.preview.comment import sections

    found = replace(previewed(dev, with_bucket(dev, forceDestroy=True)), resources=tuple(recording.resources))
    said = sections(ROOT, found)
    assert re.match(r"\*\*Policies\*\*: \d+ rules", said[0])
    assert re.match(r"\*\*Cost\*\*: [\d.]+ to [\d.]+ USD a month, as before", said[1])


def test_the_snapshot_can_be_judged_and_priced_as_the_recording_is(dev: Snapshot) -> None:
    registered: list[Registered] = dev.registered()
    assert len(registered) == len(dev.entries)
    assert {found.urn.split("::")[0] for found in registered} == {"urn:pulumi:dev"}
