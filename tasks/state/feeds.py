"""The name of a feed: what its slot, publication or change log is called at the source."""

import re
import uuid

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from tasks.dialects.dialect import Dialect
from tasks.state.tables import feeds

_LONGEST_STEM = 40


def feed_name(engine: Engine, dialect: Dialect, pipeline: str) -> str:
    """The name of `pipeline`'s feed; drawn, and committed, when it is first asked for.

    It ends in random letters: two targets that one source feeds, a test's and production's for instance, never take
    each other's slot. It is on record before anything is made at the source, so that nothing there is nameless.

    Returns:
        At most 63 lower-case letters, digits and underscores, as a replication slot may be called.
    """
    known = select(feeds.c.name).where(feeds.c.pipeline == pipeline)
    with engine.connect() as connection:
        found = connection.execute(known).scalar_one_or_none()
    if found is None:
        stem = re.sub(r"[^a-z0-9]+", "_", pipeline.lower())[:_LONGEST_STEM]
        try:
            with dialect.transaction(engine) as connection:
                connection.execute(
                    insert(feeds).values(pipeline=pipeline, name=f"tidegate_{stem}_{uuid.uuid4().hex[:8]}")
                )
        except IntegrityError:
            # Another run of this pipeline was first.
            pass
        with engine.connect() as connection:
            found = connection.execute(known).scalar_one()
    return str(found)


def known_feed_name(connection: Connection, pipeline: str) -> str | None:
    """The name of `pipeline`'s feed; None where none has been drawn, and none is."""
    return connection.execute(select(feeds.c.name).where(feeds.c.pipeline == pipeline)).scalar_one_or_none()


def forget_feed(engine: Engine, dialect: Dialect, pipeline: str) -> None:
    """Take the name off the record, once nothing at the source bears it any more."""
    with dialect.transaction(engine) as connection:
        connection.execute(delete(feeds).where(feeds.c.pipeline == pipeline))
