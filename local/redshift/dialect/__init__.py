"""Redshift's SQL in PostgreSQL's words: `translate` takes one message's text and gives back what PostgreSQL runs.

Text is changed token by token and only where PostgreSQL would read it differently; the rest, comments and spaces
included, stays as the client wrote it. Rendering a parsed statement anew (sqlglot can) was tried and left: it makes
DATEDIFF a difference of ages and loses the boundaries that Redshift counts.
"""

from local.redshift.dialect.translation import translate

__all__ = ["translate"]
