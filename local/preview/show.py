"""A preview as text and as the comment of a pull request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local.preview.differences import ABSENT, SYMBOLS, Action, Change, Difference
from local.preview.preview import Preview
from local.preview.snapshot import Entry

# A value longer than this is cut in the text: JSON output and the snapshot's own diff have it whole.
_LONGEST = 160
# A comment on GitHub holds 65,536 characters; the details are cut before that.
LONGEST_COMMENT = 60_000
_WORDS: Mapping[Action, str] = {
    "create": "to create",
    "update": "to update",
    "replace": "to replace",
    "delete": "to delete",
    "options": "with other options only",
}


def short_type(token: str) -> str:
    """Return a type as people say it: `aws:s3/bucket:Bucket` is s3.Bucket, a component's is its class."""
    package, _, rest = token.partition(":")
    module, _, name = rest.partition(":")
    if package == "goldlake":
        return name
    return f"{module.split('/')[0] if package == 'aws' else package}.{name}"


def text(preview: Preview) -> Iterator[str]:
    """Yield the lines of a preview for a terminal: the tree, the changes, and what the guard found."""
    yield from tree(preview)
    yield ""
    yield from change_lines(preview)
    for finding in preview.findings:
        yield f"! {finding.kind}: {finding.resource} ({short_type(finding.type)}) {finding.reason}"


def tree(preview: Preview) -> Iterator[str]:
    """Yield the units and components of a stack with the number and types of what they hold."""
    units = preview.tree()
    yield f"{preview.stack}: {_many(len(preview.snapshot.entries), 'resource')} in {_many(len(units), 'unit')}"
    for unit, components in units.items():
        held = [entry for entries in components.values() for entry in entries]
        yield f"{unit}  ({len(held)})"
        last = len(components) - 1
        for index, (key, entries) in enumerate(sorted(components.items(), key=lambda item: item[0].split("::")[1])):
            entry = preview.snapshot.entries[key]
            branch = "└─" if index == last else "├─"
            yield f"  {branch} {entry.name}  {short_type(entry.type)}: {_kinds(entries)}"


def _kinds(entries: Sequence[Entry]) -> str:
    found = Counter(short_type(entry.type) for entry in entries)
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(found.items())) or "nothing"


def change_lines(preview: Preview) -> Iterator[str]:
    """Yield what changes, each resource with its inputs: `path: old => new`."""
    if preview.before is None:
        yield (
            f"There is no {preview.base} to compare with, so everything is new. "
            f"goldlake preview --stack {preview.stack} --update makes it."
        )
        return
    yield f"Compared with {preview.base}: {summary(preview)}"
    for change in preview.changes:
        yield f"{SYMBOLS[change.action]:>3} {short_type(change.entry.type)} {change.entry.name}{_because(change)}"
        yield from (f"      {difference_line(found)}" for found in change.inputs)
        yield from (f"      ({difference_line(found)})" for found in change.options)


def summary(preview: Preview) -> str:
    """Return the counts in words: `1 to create, 2 to update, 148 unchanged`."""
    counts = preview.counts()
    said = [f"{counts[action]} {words}" for action, words in _WORDS.items() if counts[action]]
    return ", ".join([*said, f"{counts['same']} unchanged"]) if said else "no changes"


def _because(change: Change) -> str:
    if change.after:
        return f"  [replaced with {change.after.rpartition('::')[2]}: {', '.join(change.forced_by)}]"
    return f"  [{', '.join(change.forced_by)} can't change in place]" if change.forced_by else ""


def difference_line(found: Difference) -> str:
    """Return one difference on a line."""
    if found.old is ABSENT:
        return f"+ {found.path}: {_value(found.new)}"
    if found.new is ABSENT:
        return f"- {found.path}: {_value(found.old)}"
    return f"~ {found.path}: {_value(found.old)} => {_value(found.new)}"


def _value(value: Any) -> str:
    said = json.dumps(_plain(value), ensure_ascii=False)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def _plain(value: Any) -> Any:
    """Return a value without the mark of a JSON text."""
    if isinstance(value, Mapping):
        return _plain(value["$json"]) if set(value) == {"$json"} else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


# --- markdown ---


def markdown(preview: Preview, sections: Sequence[str] = ()) -> str:
    """Return a preview as the comment of a pull request; `sections` are those of the policies and the cost."""
    parts = [f"### `{preview.stack}`: {summary(preview)}", *_guard(preview), *_table(preview), *sections]
    details = "\n".join(change_lines(preview))
    room = LONGEST_COMMENT - sum(len(part) + 2 for part in parts)
    if preview.changes:
        cut = "\n… cut here: `goldlake preview` prints all of it" if len(details) > room else ""
        # No line can end the block: each begins with a symbol, and JSON has no line breaks in its texts.
        body = f"```diff\n{details[: max(room, 0)]}{cut}\n```"
        parts.append(f"<details><summary>Every changed input</summary>\n\n{body}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _guard(preview: Preview) -> Iterator[str]:
    if preview.findings:
        lines = (f"- **{found.kind}**: `{found.resource}` {cell(found.reason)}" for found in preview.findings)
        yield "\n".join(["#### Stopped by `--fail-on`", "", *lines])


def _table(preview: Preview) -> Iterator[str]:
    if preview.before is None:
        yield f"There is no `{preview.base}` to compare with, so everything is new."
        return
    rows = [
        f"| `{SYMBOLS[change.action]}` | {change.unit} | `{change.entry.name}` | {short_type(change.entry.type)} "
        f"| {cell(_what(change))} |"
        for change in preview.changes
    ]
    if rows:
        yield "\n".join(["| | unit | resource | type | what changes |", "|---|---|---|---|---|", *rows])


def _what(change: Change) -> str:
    names = dict.fromkeys([*(found.top for found in change.inputs), *(found.top for found in change.options)])
    return f"{', '.join(names)} {_because(change).strip()}".strip()


def cell(value: str) -> str:
    """Return a text for a cell or an item: no line of its own, no markup."""
    return value.replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("<", "&lt;")
