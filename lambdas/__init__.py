"""Lambda handlers, each a thin shell around `runtime`, and the builder of their layers."""
