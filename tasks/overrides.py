"""`Overrides`: guards that somebody sets aside for one run, and why."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from tasks.errors import ConfigError

OnMissing = Literal["reject", "warn"]


@dataclass(frozen=True)
class Overrides:
    """What one run may do that its pipeline may not; the ledger keeps it with the run.

    Attributes:
        reason: why, for whoever reads the ledger.
        max_shrink: largest share of what is there, 0 to 1, that the run may delete; None leaves the declared one.
        abort_error_rate: share of rejected rows, 0 to 1, above which a window is refused; None leaves the declared one.
        allow_empty: an empty source is empty, and what it held may be deleted; it needs `max_shrink=1` too.
        ignore_bounds: the window may look as it likes; its statistics are kept all the same.
        on_missing: by column, what its reference does with a value that is not there: `reject` or `warn`.

    Raises:
        ConfigError: no reason, a share that is none, or another `on_missing`.
    """

    reason: str
    max_shrink: float | None = None
    abort_error_rate: float | None = None
    allow_empty: bool = False
    ignore_bounds: bool = False
    on_missing: Mapping[str, OnMissing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ConfigError("Overrides: a guard is set aside for a reason; write it down in `reason`.")
        for name in ("max_shrink", "abort_error_rate"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"Overrides: {name} is a share from 0 to 1, got {share}.")
        for column, what in self.on_missing.items():
            if what not in get_args(OnMissing):
                raise ConfigError(f"Overrides: on_missing of {column!r} is 'reject' or 'warn', got {what!r}.")

    def as_json(self) -> str:
        """As the ledger keeps it."""
        return json.dumps(asdict(self))
