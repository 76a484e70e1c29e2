"""`Letters`: how long the dead letters of a pipeline are kept."""

from dataclasses import dataclass
from datetime import timedelta

from tasks.errors import ConfigError


@dataclass(frozen=True)
class Letters:
    """What the flow `retention` does with dead letters, day by day.

    Attributes:
        keep_closed: a letter that was closed or discarded longer ago is deleted; None keeps them all.
        keep_open: an open letter that was last seen longer ago loses its record and the values of its reasons; what it
            broke is kept, and it stays open until a good version comes. None keeps them whole.

    Raises:
        ConfigError: a time that is not positive.
    """

    keep_closed: timedelta | None = timedelta(days=90)
    keep_open: timedelta | None = None

    def __post_init__(self) -> None:
        for name in ("keep_closed", "keep_open"):
            kept = getattr(self, name)
            if kept is not None and kept <= timedelta(0):
                raise ConfigError(f"Letters: {name} is longer than zero, got {kept}. Say timedelta(days=30), or so.")
