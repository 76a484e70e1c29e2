"""The replay clock: both sources of the demo, brought to any instant of 2013.

Days pass when the clock moves: flights depart and land, planes enter service, observations come in. Moved back, the
sources are what they were.
"""

from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from deployments.demo import operations, weather
from deployments.demo.operations import END, START

__all__ = ["END", "START", "build", "clock", "replay_to"]


def build(engine: Engine, weather_file: Path) -> None:
    """Create both sources with the clock at the beginning of 2013; where they exist, bring them back to it.

    Args:
        engine: of the `operations` database, which may be empty.
        weather_file: the SQLite file for the weather; created with its folder.
    """
    operations.build(engine)
    weather.build(weather_file, START)


def replay_to(engine: Engine, weather_file: Path, when: datetime) -> None:
    """Bring both sources to `when`, an aware datetime from `START` to `END`.

    Each source changes in one transaction of its own, its clock with it. Stopped in between, the two clocks differ
    until the call is repeated.

    Raises:
        ConfigError: `when` is naive or outside the year, or the sources have not been built.
    """
    with engine.begin() as connection:
        operations.replay_to(connection, when)
        weather.replay_to(weather_file, when)


def clock(engine: Engine) -> datetime:
    """The instant (UTC) at which the `operations` database stands."""
    with engine.connect() as connection:
        return operations.clock(connection)
