"""The connection that all of the runtime gets from one place."""

from __future__ import annotations

import contextlib

import pytest

from runtime import duck


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        # A bar on standard output would be in the middle of --output json.
        ("enable_progress_bar_print", False),
        ("TimeZone", "UTC"),
        ("preserve_insertion_order", False),
        ("autoinstall_known_extensions", False),
        ("autoload_known_extensions", False),
        ("allow_persistent_secrets", False),
    ],
)
def test_duckdb_draws_no_bar_downloads_nothing_keeps_no_secret_and_is_in_utc(setting: str, value: object) -> None:
    with contextlib.closing(duck.connect()) as connection:
        assert connection.execute(f"SELECT current_setting('{setting}')").fetchone() == (value,)
