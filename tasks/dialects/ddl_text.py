"""`ddl_text`: a statement of SQLAlchemy's as the database reads it."""

from sqlalchemy import Dialect
from sqlalchemy.sql.elements import ClauseElement


def ddl_text(statement: ClauseElement, on: Dialect) -> str:
    """`statement` in the SQL of `on`, as one would type it."""
    text = str(statement.compile(dialect=on)).strip()
    # SQLAlchemy doubles every percent sign for a driver that formats.
    return text.replace("%%", "%") if on.paramstyle in ("format", "pyformat") else text


def name_text(name: str, on: Dialect) -> str:
    """An identifier, quoted where it has to be, as one would type it: SQLAlchemy doubles percent signs for a driver."""
    return on.identifier_preparer.quote(name).replace("%%", "%")
