"""The columns by which a batch of a feed tells what changed.

A batch of a feed is a `pyarrow.Table` of raw source rows with these columns besides, in the order in which the changes
happened. Without them every row is one that is there now.

| column | type | says |
|---|---|---|
| `etl_operation` | string | `insert`, `update`, `delete`, `unreadable`, or a marker: `truncate`, `snapshot` |
| `etl_before` | struct | the row before the change as far as the source tells it; NULL where it does not |
| `etl_position` | string | where in the source's log the change stands; later ones compare greater |
| `etl_committed_at` | timestamp[us, UTC] | when it was committed at the source, or made; NULL where neither is told |
| `etl_reason` | string | of an unreadable one: what the source said |
| `etl_identity` | string | of an unreadable one: tells it from others, whatever its record; NULL where nothing does |

The row itself is the one after the change; of a deleted one it is the key, the other columns NULL where the source
does not tell them. A change of a row's key is two changes: the old key is deleted, the new one inserted. A marker has
NULL in the row's columns: after `truncate` the source's table was empty, and after `snapshot` all its rows follow.
What is `unreadable` stands for rows that the source did not hand out, a parent without its children for instance; its
own columns say which, and it becomes a dead letter.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

OPERATION = "etl_operation"
BEFORE = "etl_before"
POSITION = "etl_position"
COMMITTED_AT = "etl_committed_at"
REASON = "etl_reason"
IDENTITY = "etl_identity"

Marker = Literal["truncate", "snapshot"]
"""Operations that are about the whole table. What is in the target before one, and does not come after it, is gone."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """A marker among changes that have their times.

    Attributes:
        row: its `etl_row`.
        by: what it is.
        at: its source time, UTC.
    """

    row: int
    by: Marker
    at: datetime
