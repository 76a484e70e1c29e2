"""`Shrink`: how much smaller a dataset has become."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shrink:
    """What two snapshots of a dataset say of its size.

    Attributes:
        gone: rows of the older one whose key is not in the newer.
        known: rows of the older one.
        left: rows of the newer one.
    """

    gone: int
    known: int
    left: int

    def exceeds(self, limit: float, *, allow_empty: bool = False) -> bool:
        """Whether more is gone than the share `limit`, 0 to 1, of what was known, or nothing at all is left and may."""
        return self.known > 0 and ((self.left == 0 and not allow_empty) or self.gone / self.known > limit)
