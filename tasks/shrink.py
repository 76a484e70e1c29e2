"""`Shrink`: how much smaller a dataset has become; `ShrinkLimit`: how much smaller it may."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShrinkLimit:
    """What one run may delete for not having come in.

    Attributes:
        share: largest share of what was there, 0 to 1.
        allow_empty: nothing at all may be left; it is still a shrink by the whole share.
    """

    share: float = 0.5
    allow_empty: bool = False


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

    def exceeds(self, limit: ShrinkLimit) -> bool:
        """Whether more is gone of what was known than `limit` allows, or nothing is left where something has to be."""
        if not self.known:
            return False
        return self.gone / self.known > limit.share or (self.left == 0 and not limit.allow_empty)
