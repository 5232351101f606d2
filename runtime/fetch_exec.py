"""A command with profiles' variables in its environment, and nothing on disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from runtime.errors import ConfigurationError


def run_with(values: Mapping[str, str], command: Sequence[str], *, override: bool = True) -> NoReturn:
    """Become the command, with the variables added to the environment: it gets our signals, its exit code is ours.

    With `override` they win over variables that are there. Raises ConfigurationError when it cannot be started.
    """
    # As bytes: in a locale without UTF-8 Python's own error would carry the value.
    added = {name.encode(): value.encode() for name, value in values.items()}
    environment = {**os.environb, **added} if override else {**added, **os.environb}
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these two, and a command would inherit that: `yes | head` would not end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as exc:
        raise ConfigurationError(f"{command[0]} cannot be run: {exc.strerror}") from exc
    except ValueError:
        raise ConfigurationError("the command or a variable has a NUL character") from None
