"""`Counts`: what became of every change of a window; `Counted`: those of them that no earlier run has counted."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Counts:
    """The outcome of every incoming change; each has exactly one.

    Attributes:
        extracted: changes read from the source.
        added: changes the pipeline made of them: rows a transform exploded, deletions a `Replace` derived.
        inserted: written as new rows.
        updated: written over existing rows.
        deleted: removed from the target.
        unchanged: already in the target, letter for letter; not rewritten.
        deduplicated: an older or repeated version of a key that came with a newer one.
        stale: older than what the target holds.
        rejected: broke the contract or a reference; kept as dead letters.
        filtered: dropped by the transform on purpose.
    """

    extracted: int = 0
    added: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    deduplicated: int = 0
    stale: int = 0
    rejected: int = 0
    filtered: int = 0

    @property
    def incoming(self) -> int:
        """Changes that need an outcome: extracted + added."""
        return self.extracted + self.added

    @property
    def outcomes(self) -> int:
        """Changes that have one."""
        return (
            self.inserted
            + self.updated
            + self.deleted
            + self.unchanged
            + self.deduplicated
            + self.stale
            + self.rejected
            + self.filtered
        )

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return self.incoming == self.outcomes and min(self.as_dict().values()) >= 0

    @property
    def error_rate(self) -> float:
        """Rejected ÷ incoming, between 0 and 1; 0 where nothing came in."""
        return self.rejected / self.incoming if self.incoming else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in self.as_dict().items()})

    def as_dict(self) -> dict[str, int]:
        """Every term by its name, in the order they are declared."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in self.as_dict().items() if value) or "nothing"


@dataclass(frozen=True, slots=True)
class Counted:
    """Changes of one run or several, each counted once: without those that a lookback only brought again.

    Attributes:
        incoming: changes that came in.
        rejected: those of them that became dead letters.
    """

    incoming: int = 0
    rejected: int = 0

    @property
    def error_rate(self) -> float:
        """Rejected ÷ incoming, between 0 and 1; 0 where nothing came in."""
        return self.rejected / self.incoming if self.incoming else 0.0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.incoming + other.incoming, self.rejected + other.rejected)
