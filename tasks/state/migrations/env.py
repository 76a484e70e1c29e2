"""Alembic runs this to migrate; `ensure_schema` hands it the connection, inside a transaction."""

from alembic import context

from tasks.state.schema import VERSION_TABLE
from tasks.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
