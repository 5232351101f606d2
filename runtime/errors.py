"""The one exception tree of Goldlake. Errors of other libraries are translated where they are called.

    GoldlakeError                   exit 1
    ├── ConfigurationError          exit 64  usage, settings, input data that cannot be accepted
    ├── FailedError                 exit 1   the work was done and the answer is no (a dbt model failed)
    │   └── NotReadyError           exit 1   source tables are missing: nothing was started
    └── UnreachableError            exit 2   infrastructure does not answer or refuses us
        └── AccessDeniedError       exit 2   it answers, and the permission is missing

Exit code 0 means done. 64 is EX_USAGE of sysexits.h: 2 means "cannot connect" here, so usage errors,
which click and argparse report as 2, are mapped to 64.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_UNREACHABLE = 2
EXIT_USAGE = 64


class GoldlakeError(Exception):
    """Base of all errors that Goldlake raises on purpose.

    `message` is one sentence for a person: the value, what is allowed, and why. `hint` is the command or
    change that helps, if there is one. `code` keeps the code of a translated error (`AccessDenied`).
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class ConfigurationError(GoldlakeError):
    """Usage, settings or input data that cannot be accepted; nothing was changed."""

    exit_code = EXIT_USAGE


class FailedError(GoldlakeError):
    """The work ran and its answer is no."""


class NotReadyError(FailedError):
    """Source tables are missing or empty, so nothing was started."""


class UnreachableError(GoldlakeError):
    """A store, warehouse or service does not answer."""

    exit_code = EXIT_UNREACHABLE


class AccessDeniedError(UnreachableError):
    """A service answers that a permission is missing."""
