"""One module per deployable unit, each a function `deploy(settings, inputs) -> Outputs`."""
