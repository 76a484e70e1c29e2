"""Places of parents: how far an extract has come with the children of each."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, delete, insert, select

from tasks.state.tables import parents

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ParentPlace:
    """How far it has come with one parent's children; times in UTC.

    Attributes:
        watermark: highest cursor of a child, or None where there was none yet.
        covered_until: source time below which every child is in the target.
    """

    watermark: datetime | None
    covered_until: datetime


def read_places(connection: Connection, pipeline: str, keys: Collection[str]) -> dict[str, ParentPlace]:
    """The places of those parents that have one."""
    found: dict[str, ParentPlace] = {}
    for some in _in_parts(keys):
        mine = select(parents).where(parents.c.pipeline == pipeline, parents.c.parent.in_(some))
        for row in connection.execute(mine):
            found[row.parent] = ParentPlace(row.watermark, row.covered_until)
    return found


def write_places(connection: Connection, pipeline: str, places: Mapping[str, ParentPlace]) -> None:
    """Put `places` where those of the same parents were, inside the commit."""
    for some in _in_parts(places):
        connection.execute(delete(parents).where(parents.c.pipeline == pipeline, parents.c.parent.in_(some)))
        rows = [
            {
                "pipeline": pipeline,
                "parent": key,
                "watermark": places[key].watermark,
                "covered_until": places[key].covered_until,
            }
            for key in some
        ]
        connection.execute(insert(parents), rows)


def forget_places(connection: Connection, pipeline: str) -> None:
    """Have every parent of `pipeline` begin anew."""
    connection.execute(delete(parents).where(parents.c.pipeline == pipeline))


def _in_parts(keys: Collection[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while some := list(islice(left, _AT_ONCE)):
        yield some
