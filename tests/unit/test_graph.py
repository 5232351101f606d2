"""The diagrams of a stack: every box and arrow of the program, in three languages and a picture."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import local.recording
from local.documentation import MARKER, PAGES, diagram
from local.graph import LEVELS, Edge, Graph, Level, Node, dot, graph_of, mermaid, ranked, svg
from local.pages import filled
from local.preview.snapshot import Snapshot, snapshot_of
from local.recording import Recording, record_stack
from runtime.cli import app
from stacks.program import needs
from stacks.settings import parse_settings

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_stack(ROOT, "dev")


@pytest.fixture(scope="module")
def dev(recording: Recording) -> Snapshot:
    return snapshot_of(recording.resources)


def test_units_are_joined_as_the_program_joins_them(dev: Snapshot) -> None:
    found = {(edge.first, edge.needs) for edge in graph_of(dev, "dev", "unit").edges}
    settings = parse_settings({"owner": "o", "costCentre": "c"}, stack="dev", region="us-east-1")
    declared = {(need, unit) for unit, all_needs in needs(settings).items() for need in all_needs}
    # Not every output that a unit is given becomes a dependency of the engine, but none comes from elsewhere.
    assert found
    assert found <= declared | {("secrets", "transform")}


def test_every_dependency_between_units_is_counted(dev: Snapshot) -> None:
    from local.preview.units import units_of

    units = units_of(dev)
    between = sum(units[first] != units[key] for key, e in dev.entries.items() for first in e.dependencies)
    assert sum(edge.count for edge in graph_of(dev, "dev", "unit").edges) == between


def test_the_boxes_of_each_level_are_all_there_are(dev: Snapshot) -> None:
    custom = {key for key, entry in dev.entries.items() if entry.custom}
    assert {node.id for node in graph_of(dev, "dev", "resource").nodes} == custom
    assert {node.id for node in graph_of(dev, "dev", "component").nodes} == set(dev.entries) - custom


def test_a_component_is_joined_to_its_parts(dev: Snapshot) -> None:
    inner = {
        (dev.entries[edge.first].name, dev.entries[edge.needs].name)
        for edge in graph_of(dev, "dev", "component").edges
        if edge.contains
    }
    assert ("lake", "lake-gold") in inner


@pytest.mark.parametrize("level", LEVELS)
def test_every_arrow_has_a_box_at_both_ends(dev: Snapshot, level: Level) -> None:
    graph = graph_of(dev, "dev", level)
    nodes = {node.id for node in graph.nodes}
    assert all({edge.first, edge.needs} <= nodes and edge.first != edge.needs for edge in graph.edges)


@pytest.mark.parametrize("level", LEVELS)
def test_mermaid_names_each_box_once_and_closes_what_it_opens(dev: Snapshot, level: Level) -> None:
    graph = graph_of(dev, "dev", level)
    lines = [line.strip() for line in mermaid(graph).splitlines()]
    assert lines[0] == "flowchart TD"
    boxes = [match[1] for line in lines if (match := re.fullmatch(r'(\w+)\["[^"\[\]]*"\]', line))]
    assert len(boxes) == len(set(boxes)) == len(graph.nodes)
    arrows = [re.fullmatch(r"(\w+) (?:-->(?:\|\d+\|)?|-\.->) (\w+)", line) for line in lines if "->" in line]
    assert len(arrows) == len(graph.edges)
    assert all(arrow and {arrow[1], arrow[2]} <= set(boxes) for arrow in arrows)
    assert sum(line.startswith("subgraph ") for line in lines) == lines.count("end")


@pytest.mark.parametrize("level", LEVELS)
def test_dot_has_all_boxes_and_arrows_and_balanced_braces(dev: Snapshot, level: Level) -> None:
    graph = graph_of(dev, "dev", level)
    text = dot(graph)
    assert text.count("{") == text.count("}")
    assert text.count(" -> ") == len(graph.edges)
    assert len(re.findall(r"^ *\w+ \[label=", text, re.MULTILINE)) == len(graph.nodes)


def rectangles(text: str, kind: str) -> list[tuple[float, float, float, float]]:
    root = ET.fromstring(text)  # noqa: S314 - of our own making
    found = [element for element in root.iter(f"{SVG}rect") if element.get("class") == kind]
    return [tuple(float(element.attrib[name]) for name in ("x", "y", "width", "height")) for element in found]  # type: ignore[misc] # four names


@pytest.mark.parametrize("level", LEVELS)
def test_no_two_boxes_of_the_picture_are_on_top_of_each_other(dev: Snapshot, level: Level) -> None:
    graph = graph_of(dev, "dev", level)
    boxes = rectangles(svg(graph), "box")
    assert len(boxes) == len(graph.nodes)
    for index, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[index + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y


@pytest.mark.parametrize("level", LEVELS)
def test_everything_is_inside_of_the_picture_and_of_its_frame(dev: Snapshot, level: Level) -> None:
    text = svg(graph_of(dev, "dev", level))
    view = ET.fromstring(text).attrib["viewBox"]  # noqa: S314 - of our own making
    _, _, width, height = map(float, view.split())
    frames = rectangles(text, "frame") or [(0, 0, width, height)]
    for x, y, wide, high in rectangles(text, "box"):
        assert x + wide <= width
        assert y + high <= height
        assert any(a <= x and b <= y and x + wide <= a + c and y + high <= b + d for a, b, c, d in frames)


def test_names_cannot_break_out_of_a_diagram() -> None:
    wild = 'a"]<b>&{'
    graph = Graph("dev", "component", (Node(wild, wild, wild, ("lake",)),), ())
    assert "<b>" not in mermaid(graph)
    assert '\\"' in dot(graph)
    ET.fromstring(svg(graph))  # noqa: S314 - of our own making


def test_a_row_is_below_all_that_it_needs() -> None:
    edges = [Edge("a", "b"), Edge("a", "c"), Edge("b", "c"), Edge("c", "a")]
    assert ranked(["a", "b", "c"], edges) == {"a": 0, "b": 1, "c": 2}


def test_an_empty_stack_is_an_empty_picture() -> None:
    ET.fromstring(svg(Graph("dev", "unit", (), ())))  # noqa: S314 - of our own making


# --- the command and the pages ---


def goldlake(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(["graph", *arguments], prog_name="goldlake")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def recorded(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.recording, "record_stack", lambda _project, _stack: recording)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("form", "begins"), [("mermaid", "flowchart TD"), ("dot", 'digraph "goldlake dev" {'), ("svg", "<svg ")]
)
def test_the_command_prints_a_diagram(form: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert goldlake("--stack", "dev", "--format", form) == 0
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.usefixtures("recorded")
def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dev.json"
    assert goldlake("--format", "json", "--level", "component", "--out", str(out)) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert str(out) in said.err
    found = json.loads(out.read_text())
    assert (found["schema"], found["level"]) == ("goldlake.graph/1", "component")
    assert {edge["first"] for edge in found["edges"]} <= {node["id"] for node in found["nodes"]}


@pytest.mark.parametrize("page", PAGES)
def test_the_diagram_in_a_page_is_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    same = filled(text, {MARKER: diagram(ROOT)}) == text
    assert same, f"{page} is out of date: make docs"
