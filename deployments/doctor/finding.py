"""`Finding`: one thing that was looked at, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from deployments.text_table import printable
from tasks.errors import redact

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a look at one thing.

    Attributes:
        verdict: `ok`; `warn` where something will not work, or not for long; `fail` where something does not.
        about: what was looked at: `connection warehouse`, `deployment flights`, …
        text: what was seen.
        remedy: what to do; None where nothing is.
    """

    verdict: Verdict
    about: str
    text: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {"verdict": self.verdict, "about": self.about, "text": self.text, "remedy": self.remedy}

    def lines(self) -> Iterator[str]:
        """For people; no secret in it."""
        yield printable(redact(f"{self.verdict:<4}  {self.about}: {self.text}"))
        if self.remedy is not None:
            yield printable(redact(f"      → {self.remedy}"))
