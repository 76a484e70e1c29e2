"""`CausalOrdering`: in what order a server deals with events, where its setting for that names this module.

An event that follows another waits for it, a quarter of an hour at most. The server's own keeps in memory what it has
seen, so the end of a run that began before a restart would be held back for so long: what it resolves would not be
resolved, and what it prevents would be told. This one also looks for what was stored before the server started.
"""

from uuid import UUID

import sqlalchemy as sa
from prefect.server.database import PrefectDBInterface, provide_database_interface
from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import Event
from prefect.types._datetime import now

_STARTED = now("UTC")


class CausalOrdering(memory.CausalOrdering):
    """The server's own, with a memory that outlasts it."""

    async def event_has_been_seen(self, event: UUID | Event) -> bool:
        """Whether it was dealt with, by this server or the one before it."""
        if await super().event_has_been_seen(event):
            return True
        db: PrefectDBInterface = provide_database_interface()
        id = event.id if isinstance(event, Event) else event
        earlier = sa.select(db.Event.id).where(db.Event.id == id, db.Event.received < _STARTED)
        async with db.session_context() as session:
            return await session.scalar(earlier) is not None
