"""Parses a dbt project for its layer, in a process of its own: `python -m lambdas.layers.parse_worker PROJECT OUT`.

Parses twice with different connections. Writes OUT when both parses are the same, and otherwise says why not, in one
line on standard output. Ends with 0 in both cases.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lambdas import shipped_parse

PLACE = "/opt/python"
# 1 January 1980 in UTC, as the zip's entries have it.
MOMENT = 315532800.0
# Not those of any warehouse, and each different from the other connection's.
CONNECTIONS = (
    {"REDSHIFT_HOST": "one.invalid", "REDSHIFT_USER": "one", "REDSHIFT_PORT": "5439", "REDSHIFT_DATABASE": "analytics"},
    {"REDSHIFT_HOST": "two.invalid", "REDSHIFT_USER": "two", "REDSHIFT_PORT": "5440", "REDSHIFT_DATABASE": "analytics"},
)


def main(project: Path, out: Path) -> None:
    """Write the parse of a project, as it will lie under /opt/python/dbt_gold."""
    _walk_in_order()
    shipped_parse.leave_out_connection()
    parses = []
    for connection in CONNECTIONS:
        parsed = _parse(project, {**connection, "DBT_ENV_SECRET_REDSHIFT_PASSWORD": "none"})
        if isinstance(parsed, str):
            _say(f"dbt cannot parse the project without its warehouse: {parsed}")
            return
        parses.append(canonical(parsed, {str(project): f"{PLACE}/dbt_gold", **_libraries()}))
    import msgpack  # type: ignore[import-untyped] # dbt brings it along

    first, second = (msgpack.packb(parsed) for parsed in parses)
    if first != second:
        _say("the project reads the connection while it is parsed (target.host or the like)")
        return
    out.write_bytes(first)


def _parse(project: Path, environment: dict[str, str]) -> Any:
    """Return dbt's parse as plain data, or the text of what went wrong."""
    import msgpack
    from dbt.cli.main import dbtRunner

    os.environ.update(environment)
    with tempfile.TemporaryDirectory(prefix="goldlake-parse-") as folder:
        options = ["--project-dir", str(project), "--profiles-dir", str(project), "--target-path", folder]
        options += ["--log-path", folder, "--target", "redshift", "--no-partial-parse", "--quiet"]
        # What is printed would be taken for the reason.
        with Path(os.devnull).open("w") as nothing:
            before, sys.stdout = sys.stdout, nothing
            try:
                outcome = dbtRunner().invoke(["parse", *options])
            finally:
                sys.stdout = before
        file = Path(folder, shipped_parse.FILE)
        if not outcome.success or not file.is_file():
            return str(outcome.exception or "see `dbt parse`")
        return msgpack.unpackb(file.read_bytes(), strict_map_key=False)


def canonical(parsed: Any, places: dict[str, str]) -> Any:
    """Return dbt's parse without what is another one each time: times, ids of the run, the builder's folders."""
    parsed = _placed(parsed, places)
    parsed["metadata"].update(
        generated_at="1980-01-01T00:00:00Z",
        invocation_started_at="1980-01-01T00:00:00Z",
        run_started_at="1980-01-01T00:00:00+00:00",
        invocation_id="00000000-0000-0000-0000-000000000000",
        user_id=None,
        env={},
    )
    parsed["_parsing_info"] = None
    return parsed


def _placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_placed(key, places): _moment(key, _placed(item, places)) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, places) for item in value]
    if isinstance(value, str):
        for place, instead in places.items():
            if value == place or value.startswith(f"{place}/"):
                return instead + value[len(place) :]
    return value


def _moment(key: Any, value: Any) -> Any:
    return MOMENT if key in ("created_at", "modification_time") and isinstance(value, float) else value


def _libraries() -> dict[str, str]:
    """Return where dbt's own macros are, and where they will be."""
    import dbt.adapters

    return {str(Path(folder).parents[1]): PLACE for folder in dbt.adapters.__path__}


def _walk_in_order() -> None:
    """Make dbt find files in the order of their names: each file system has another one, and nodes would take it."""
    walk = os.walk

    def ordered(*arguments: Any, **options: Any) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        for folder, folders, files in walk(*arguments, **options):
            folders.sort()
            yield folder, folders, sorted(files)

    os.walk = ordered


def _say(reason: str) -> None:
    sys.stdout.write(" ".join(reason.split())[:500] + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
