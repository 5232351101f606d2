"""dbt's parse of the project, shipped in its layer, so that a cold start does not parse anew.

dbt takes an earlier parse when these are equal (ManifestLoader.is_partial_parsable, dbt-core 1.11): its version; the
command line's variables, profile and target; environment variables that dbt_project.yml reads; every dbt_project.yml,
those of the adapters' macros included; and the connection: host, user, port and so on, for a model could read
`target.host`. Files are then compared by their checksums, and what reads environment variables by these.

The builder of a layer cannot know the connection. It parses with two different ones and ships the parse only when the
two are the same, which shows that nothing in the project depends on it. So the connection may be left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILE = "partial_parse.msgpack"


def options(project: Path, *, variables: bool = False) -> list[str]:
    """Return dbt's options for the parse that lies in a project's folder, none when there is none.

    Not for a command with variables, which dbt would refuse it for: such a command's own parse, under /tmp, serves the
    next one with the same variables. Imports dbt: process locks must have been replaced before.
    """
    shipped = project / FILE
    if variables or not shipped.is_file():
        return []
    leave_out_connection()
    return ["--partial-parse-file-path", str(shipped)]


def leave_out_connection() -> None:
    """Make dbt in this process compare parses without the connection; a second call changes nothing."""
    from dbt.contracts.files import FileHash
    from dbt.parser.manifest import ManifestLoader

    original = ManifestLoader.build_manifest_state_check
    if getattr(original, "without_connection", False):
        return

    def build_manifest_state_check(self: Any) -> Any:
        check = original(self)
        check.profile_hash = FileHash.from_contents("any connection")
        return check

    build_manifest_state_check.without_connection = True  # type: ignore[attr-defined] # a mark for the second call
    ManifestLoader.build_manifest_state_check = build_manifest_state_check
