"""The Pulumi program: read the settings, then deploy the units that this stack holds."""

import pulumi

from runtime.errors import ConfigurationError
from stacks.program import deploy
from stacks.settings import load_settings

try:
    outputs = deploy(load_settings())
except ConfigurationError as error:
    # RunError is shown without a traceback.
    raise pulumi.RunError(error.message) from error

for name, value in outputs.items():
    pulumi.export(name, value)
