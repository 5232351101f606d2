"""docs/configuration.md, made of Pulumi.yaml and the settings: `python -m stacks.documentation`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from stacks.settings import AGREEMENTS, NAMESPACE, Rule, Settings, config_keys

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
# Each group begins with this setting and holds all up to the next one.
GROUPS: Mapping[str, str] = {
    "prefix": "Names and tags",
    "units": "What the stack holds",
    "protect_data": "Keeping data",
    "vpc_cidr": "Network",
    "more_secrets": "Secrets",
    "log_retention_days": "Logs and alarms",
    "silver_bucket": "Lake",
    "warehouse_database": "Warehouse",
    "lambda_runtime": "Functions",
    "schedule_expression": "Pipeline",
    "state_lock_table": "State backend",
    "usage": "What goldlake cost reckons with",
    "policy_exemptions": "What goldlake policy lets pass",
}
HEAD = """# Configuration

A stack's settings stand in `Pulumi.<stack>.yaml`, under the namespace `goldlake`; what a file leaves out has the
default. `pulumi config set goldlake:baseCapacity 4` sets a value, `pulumi config set --path
'goldlake:imports.foundation' foundation-dev` one inside an object. All faults are reported at once, before the first
resource. The region is Pulumi's own `aws:region`.

<!-- Made by `make docs` out of Pulumi.yaml and stacks/settings.py; a test keeps it equal. -->"""


def page(root: Path = ROOT) -> str:
    """Return the text of docs/configuration.md."""
    declared = yaml.safe_load((root / "Pulumi.yaml").read_text())["config"]
    return "\n".join([HEAD, *_tables(declared), *_agreements()]) + "\n"


def _tables(declared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, key in config_keys().items():
        if name in GROUPS:
            yield f"\n## {GROUPS[name]}\n\n| key | type | default | meaning and range |\n|---|---|---|---|"
        entry = declared[f"{NAMESPACE}:{key}"]
        default = f"`{json.dumps(entry['default'])}`" if "default" in entry else "none: must be set"
        allowed = _allowed(name)
        meaning = f"{entry['description']} {allowed}" if allowed else entry["description"]
        yield f"| `{key}` | {entry['type']} | {default} | {_cell(meaning)} |"


def _allowed(name: str) -> str:
    """Return the range of a setting as a sentence; empty where its type says it all."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return f"One of {', '.join(get_args(field.annotation))}."
    rules = (getattr(item, "func", None) for item in field.metadata)
    text = "; ".join(rule.allowed for rule in rules if isinstance(rule, Rule))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _agreements() -> Iterator[str]:
    yield "\n## What settings must fulfil together\n"
    for agreement in AGREEMENTS:
        keys = ", ".join(f"`{config_keys()[name]}`" for name in agreement.fields if name in config_keys())
        yield f"- {keys}: {agreement.reason}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
