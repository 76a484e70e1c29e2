"""`Change`: one thing that a deploy does to a Prefect server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True)
class Change:
    """What differs between the files and the server, and what mends it.

    Attributes:
        action: `create`, `update` or `delete`.
        kind: `work pool`, `block`, `limit`, `deployment`, `schedule` or `automation`.
        name: what the thing is called on the server.
        apply: does it; done twice, the second time changes nothing.
        why: which fields differ, for an update; no value that could be a secret.
    """

    action: Action
    kind: str
    name: str
    apply: Callable[[], None]
    why: str = ""
