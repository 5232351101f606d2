"""Handler of the rotation: Secrets Manager calls it to change a login of the warehouse, each its own function."""

from __future__ import annotations

import dataclasses
from typing import Any

from lambdas.answers import Event, logger, required
from runtime.aws import Connection
from runtime.errors import GoldlakeError
from runtime.rotation import rotate
from runtime.settings import REDSHIFT_SECRET
from runtime.warehouse import Warehouse

# An idle workgroup resumes slowly; up to three passwords are tried within the function's time limit.
SIGN_IN_SECONDS = 60


def handle(event: Event, _context: Any) -> None:
    """Do one step of a rotation; see runtime.rotation.

    A failure is raised, not answered as in the pipeline's steps: Secrets Manager looks at whether the function failed.
    """
    aws = Connection.from_environment()

    def sign_in(user: str, password: str) -> Any:
        warehouse = dataclasses.replace(Warehouse.from_environment(aws), user=user, password=password)
        return warehouse.connect(SIGN_IN_SECONDS)

    try:
        rotate(event, aws.client("secretsmanager"), sign_in, secret_id=required(REDSHIFT_SECRET))
    except GoldlakeError as error:
        logger.error("%s: %s", type(error).__name__, error.message)
        # The driver's error behind it can hold the connection's arguments.
        raise error from None
