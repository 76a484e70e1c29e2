"""`ddl_text`: a statement of SQLAlchemy's as the database reads it."""

from sqlalchemy import Dialect
from sqlalchemy.sql.elements import ClauseElement


def ddl_text(statement: ClauseElement, on: Dialect) -> str:
    """`statement` in the SQL of `on`, as one would type it."""
    text = str(statement.compile(dialect=on)).strip()
    # SQLAlchemy doubles every percent sign for a driver that formats.
    return text.replace("%%", "%") if on.paramstyle in ("format", "pyformat") else text
