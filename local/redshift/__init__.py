"""A local Redshift: an embedded PostgreSQL behind a gateway that speaks Redshift's protocol."""
