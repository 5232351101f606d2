"""The graph of a stack as a diagram: mermaid, dot, or SVG without any other program.

An arrow leads from what must be there first to what needs it, so a diagram reads in the order of a deployment.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from local.preview.show import short_type
from local.preview.snapshot import Entry, Snapshot
from local.preview.units import in_order, units_of

SCHEMA = "goldlake.graph/1"
Level = Literal["unit", "component", "resource"]
LEVELS: tuple[Level, ...] = ("unit", "component", "resource")


@dataclass(frozen=True)
class Node:
    """A box: a unit, a component or a resource, with the groups it stands in from the outermost on."""

    id: str
    title: str
    subtitle: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edge:
    """`count` dependencies of what is in `needs` on what is in `first`, or a component and its part."""

    first: str
    needs: str
    count: int = 1
    contains: bool = False


@dataclass(frozen=True)
class Graph:
    """The boxes and arrows of one level of a stack."""

    stack: str
    level: Level
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the graph for JSON output."""
        return {
            "schema": SCHEMA,
            "stack": self.stack,
            "level": self.level,
            "nodes": [{"id": n.id, "title": n.title, "subtitle": n.subtitle, "in": list(n.groups)} for n in self.nodes],
            "edges": [
                {"first": e.first, "needs": e.needs, "count": e.count, "contains": e.contains} for e in self.edges
            ],
        }


def graph_of(snapshot: Snapshot, stack: str, level: Level) -> Graph:
    """Return the graph of a stack at a level."""
    units = units_of(snapshot)
    boxes = {key: _box(snapshot, entry, units[key], level) for key, entry in snapshot.entries.items()}
    counted: Counter[tuple[str, str]] = Counter()
    for key, entry in snapshot.entries.items():
        for first in entry.dependencies:
            # At the level of resources a component has no box; what it waits for, its parts wait for.
            ends = (boxes.get(first, ""), boxes.get(key, ""))
            if ends[0] != ends[1] and all(ends):
                counted[ends] += 1
    edges = [Edge(first, needs, count) for (first, needs), count in sorted(counted.items())]
    if level == "component":
        parts = (entry for entry in snapshot.entries.values() if not entry.custom and entry.parent)
        edges += [Edge(entry.parent, entry.key, contains=True) for entry in parts]
    return Graph(stack, level, tuple(_nodes(snapshot, units, level)), tuple(edges))


def _box(snapshot: Snapshot, entry: Entry, unit: str, level: Level) -> str:
    """Return the id of the box that shows an entry; empty for none."""
    if level == "unit":
        return unit
    if level == "resource":
        return entry.key if entry.custom else ""
    return entry.parent if entry.custom and entry.parent else entry.key


def _nodes(snapshot: Snapshot, units: Mapping[str, str], level: Level) -> Iterator[Node]:
    order = in_order(set(units.values()))
    if level == "unit":
        held = Counter(units[key] for key, entry in snapshot.entries.items() if entry.custom)
        yield from (Node(unit, unit, f"{held[unit]} resources") for unit in order)
        return
    for key in sorted(snapshot.entries, key=lambda key: (order.index(units[key]), key.split("::")[-1], key)):
        entry = snapshot.entries[key]
        if level == "component" and (not entry.custom or not entry.parent):
            yield Node(key, entry.name, short_type(entry.type), (units[key],))
        if level == "resource" and entry.custom:
            component = snapshot.component(entry)
            yield Node(key, entry.name, short_type(entry.type), (units[key], component.name))


# --- mermaid and dot ---


def mermaid(graph: Graph) -> str:
    """Return the graph as a mermaid flowchart, which GitHub shows as a picture."""
    ids = _ids(graph)
    lines = ["flowchart TD"]
    for groups, nodes in _grouped(graph.nodes):
        for depth, group in enumerate(groups):
            name = f"in_{_word('_'.join(groups[: depth + 1]))}"
            lines.append(f"{'  ' * (depth + 1)}subgraph {name}[{_label(group)}]")
        indent = "  " * (len(groups) + 1)
        lines += [f"{indent}{ids[node.id]}[{_label(node.title, node.subtitle)}]" for node in nodes]
        lines += [f"{'  ' * (depth + 1)}end" for depth in reversed(range(len(groups)))]
    for edge in graph.edges:
        arrow = "-.->" if edge.contains else f"-->|{edge.count}|" if graph.level == "unit" else "-->"
        lines.append(f"  {ids[edge.first]} {arrow} {ids[edge.needs]}")
    return "\n".join(lines)


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    ids = _ids(graph)
    lines = [f"digraph {json.dumps(f'goldlake {graph.stack}')} {{", "  rankdir=TB;", "  node [shape=box];"]
    for groups, nodes in _grouped(graph.nodes):
        for depth, group in enumerate(groups):
            name = f"cluster_{_word('_'.join(groups[: depth + 1]))}"
            lines.append(f"{'  ' * (depth + 1)}subgraph {name} {{ label={json.dumps(group)};")
        indent = "  " * (len(groups) + 1)
        lines += [
            f"{indent}{ids[node.id]} [label={json.dumps(f'{node.title}{chr(10)}{node.subtitle}')}];" for node in nodes
        ]
        lines += [f"{'  ' * (depth + 1)}}}" for depth in reversed(range(len(groups)))]
    for edge in graph.edges:
        style = " [style=dashed]" if edge.contains else f' [label="{edge.count}"]' if graph.level == "unit" else ""
        lines.append(f"  {ids[edge.first]} -> {ids[edge.needs]}{style};")
    return "\n".join([*lines, "}"])


def _ids(graph: Graph) -> dict[str, str]:
    """Return a word for each box that no language of diagrams takes for anything else."""
    if graph.level == "unit":
        return {node.id: node.id for node in graph.nodes}
    return {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}


def _grouped(nodes: Iterable[Node]) -> list[tuple[tuple[str, ...], list[Node]]]:
    found: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        found.setdefault(node.groups, []).append(node)
    return list(found.items())


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _label(*lines: str) -> str:
    return '"' + "<br/>".join(html.escape(line, quote=True) for line in lines if line) + '"'


# --- SVG: boxes in rows, a layout of our own ---

_BOX_HEIGHT, _GAP, _ROW_GAP, _MARGIN, _TITLE = 44, 24, 56, 24, 22
_LETTER = 7.2
_WIDEST = 1200
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px;fill:#666}"
    ".box{fill:#fff;stroke:#5a7d9a}.frame{fill:#f4f7fa;stroke:#c3d0db}"
    ".edge{fill:none;stroke:#8aa;stroke-opacity:.55}.part{fill:none;stroke:#bbb;stroke-dasharray:4 3}"
)


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def svg(graph: Graph) -> str:
    """Return the graph as a picture: units by what they need, components and resources in the frame of their unit."""
    rows = _rows(graph)
    widths = {node.id: max(len(node.title), len(node.subtitle)) * _LETTER + 20 for node in graph.nodes}
    boxes, frames, bottom = _placed(rows, widths, framed=graph.level != "unit")
    width = (
        max([box.x + box.width for box in [*boxes.values(), *(frame for _, frame, _ in frames)]], default=0) + _MARGIN
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {bottom:.0f}" role="img">',
        f"<title>{html.escape(f'Stack {graph.stack} by {graph.level}')}</title><style>{_STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#8aa"/></marker></defs>',
        *(_frame(title, frame, height) for title, frame, height in frames),
        *(_path(edge, boxes) for edge in graph.edges),
        *(_drawn(node, boxes[node.id]) for node in graph.nodes),
        "</svg>",
    ]
    return "\n".join(parts)


def _rows(graph: Graph) -> list[tuple[str, list[Node]]]:
    """Return the boxes of each row: by rank at the level of units, else by unit, with the unit's name."""
    if graph.level != "unit":
        by_unit: dict[str, list[Node]] = {}
        for node in graph.nodes:
            by_unit.setdefault(node.groups[0], []).append(node)
        return list(by_unit.items())
    ranks = ranked([node.id for node in graph.nodes], graph.edges)
    return [
        ("", [node for node in graph.nodes if ranks[node.id] == rank])
        for rank in range(max(ranks.values(), default=0) + 1)
    ]


def ranked(nodes: Sequence[str], edges: Iterable[Edge]) -> dict[str, int]:
    """Return the row of each box: one below the lowest that it needs. An arrow against the order counts for nothing."""
    place = {node: index for index, node in enumerate(nodes)}
    ranks = dict.fromkeys(nodes, 0)
    for edge in sorted(edges, key=lambda edge: place[edge.first]):
        if place[edge.first] < place[edge.needs]:
            ranks[edge.needs] = max(ranks[edge.needs], ranks[edge.first] + 1)
    return ranks


def _placed(
    rows: Sequence[tuple[str, Sequence[Node]]], widths: Mapping[str, float], *, framed: bool
) -> tuple[dict[str, _Box], list[tuple[str, _Box, float]], float]:
    """Return where each box is, the frames with their heights, and where the picture ends."""
    boxes: dict[str, _Box] = {}
    frames: list[tuple[str, _Box, float]] = []
    y = float(_MARGIN)
    for title, nodes in rows:
        top, x = y, _MARGIN + (_GAP if framed else 0.0)
        y += _TITLE + 8 if framed else 0
        start, right = x, x
        for node in nodes:
            if x > start and x + widths[node.id] > _WIDEST:
                x, y = start, y + _BOX_HEIGHT + _GAP
            boxes[node.id] = _Box(x, y, widths[node.id])
            x += widths[node.id] + _GAP
            right = max(right, x)
        y += _BOX_HEIGHT
        if framed:
            y += _GAP / 2
            frames.append((title, _Box(_MARGIN, top, right - _MARGIN), y - top))
        y += _ROW_GAP
    return boxes, frames, y - _ROW_GAP + _MARGIN


def _frame(title: str, frame: _Box, height: float) -> str:
    return (
        f'<rect class="frame" x="{frame.x:.0f}" y="{frame.y:.0f}" '
        f'width="{frame.width:.0f}" height="{height:.0f}" rx="6"/>'
        f'<text class="title" x="{frame.x + 10:.0f}" y="{frame.y + 17:.0f}">{html.escape(title)}</text>'
    )


def _drawn(node: Node, box: _Box) -> str:
    return (
        f'<g><title>{html.escape(node.id)}</title><rect class="box" x="{box.x:.0f}" y="{box.y:.0f}" '
        f'width="{box.width:.0f}" height="{_BOX_HEIGHT}" rx="4"/>'
        f'<text class="title" x="{box.x + 10:.0f}" y="{box.y + 19:.0f}">{html.escape(node.title)}</text>'
        f'<text class="small" x="{box.x + 10:.0f}" y="{box.y + 35:.0f}">{html.escape(node.subtitle)}</text></g>'
    )


def _path(edge: Edge, boxes: Mapping[str, _Box]) -> str:
    """Return a curve from below one box to above the other, or from its side within a row."""
    first, needs = boxes[edge.first], boxes[edge.needs]
    start = (first.middle, first.y + _BOX_HEIGHT)
    end = (needs.middle, needs.y)
    bend = max(abs(end[1] - start[1]) / 2, 24)
    kind = "part" if edge.contains else "edge"
    return (
        f'<path class="{kind}" d="M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {start[1] + bend:.0f} '
        f'{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}" marker-end="url(#end)"/>'
    )
