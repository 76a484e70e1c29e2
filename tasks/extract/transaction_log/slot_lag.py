"""How much log a replication slot keeps at its source, which grows until somebody reads it, or the disk is full."""

from collections.abc import Sequence

from sqlalchemy import Engine

from tasks.extract.feed import Notice
from tasks.extract.transaction_log import replication

_LAG = "etl.slot.lag"
_EXCEEDED = "etl.slot.lag-exceeded"
"""As `tasks.observe.causes` has them; a test holds them together."""


def slot_notices(source: Engine, slot: str, connection: str, max_lag: int, where: str) -> Sequence[Notice]:
    """What is to be told of a slot; nothing where there is none.

    Args:
        source: its database.
        slot: its name.
        connection: name of the source.
        max_lag: bytes it may keep; more are alarming, and so is a slot whose log the server has removed.
        where: the source, as a message begins.

    Raises:
        SourceUnavailable: the source did not answer.
        SourceError: it refused.
        ConfigError: the slot is another database's.
    """
    with replication.autocommit(source, where) as session:
        state = replication.slot_state(session, slot)
    if state is None:
        return ()
    figures: dict[str, str | int | float | None] = {
        "slot": slot,
        "lag": state.lag,
        "max_lag": max_lag,
        "look": "tidegate doctor",
    }
    if state.lost:
        text = (
            f"the slot {slot} was too far behind at {connection}, and the server has removed its log; run this "
            "pipeline with full_refresh."
        )
        return [Notice(_EXCEEDED, text, figures, alarming=True)]
    kept = f"the slot {slot} keeps {state.lag:,} bytes of log at {connection}"
    if state.lag > max_lag:
        return [Notice(_EXCEEDED, f"{kept}, more than {max_lag:,}; run this pipeline more often.", figures, True)]
    return [Notice(_LAG, f"{kept}, no more than {max_lag:,}.", figures)]
