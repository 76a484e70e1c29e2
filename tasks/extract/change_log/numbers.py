"""`Numbers`: a set of numbers that mostly follow each other, small enough to be kept in a position."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Numbers:
    """The steps from each number to the next, the first from 0, and how often each step is taken in a row.

    As text: `17 1*4 2` is 17, 18, 19, 20, 21 and 23. Equal steps wider than one, as `auto_increment_increment` makes
    them, are as short.

    Attributes:
        steps: greater than 0.
        times: one for each of the steps, greater than 0.
    """

    steps: Integers
    times: Integers

    @classmethod
    def of(cls, batches: Iterable[Integers]) -> "Numbers":
        """Those in `batches`, which are in ascending order, without doubles."""
        steps, times, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for batch in batches:
            if len(batch):
                taken = np.diff(batch, prepend=last)
                begins = np.flatnonzero(np.diff(taken, prepend=0))
                steps.append(taken[begins])
                times.append(np.diff(begins, append=len(taken)))
                last = int(batch[-1])
        return cls(np.concatenate(steps), np.concatenate(times))

    @classmethod
    def parse(cls, text: str) -> "Numbers":
        """What `str` has written."""
        pairs = [part.partition("*")[::2] for part in text.split()]
        return cls(
            np.array([int(step) for step, _ in pairs], np.int64),
            np.array([int(times or 1) for _, times in pairs], np.int64),
        )

    def __str__(self) -> str:
        pairs = zip(self.steps.tolist(), self.times.tolist(), strict=True)
        return " ".join(str(step) if times == 1 else f"{step}*{times}" for step, times in pairs)

    def __len__(self) -> int:
        return int(self.times.sum())

    def holds(self, numbers: Integers) -> npt.NDArray[np.bool_]:
        """Which of `numbers` are in the set."""
        if not len(self.steps):
            return np.zeros(len(numbers), dtype=bool)
        lasts = self._lasts
        place = np.minimum(np.searchsorted(lasts, numbers), len(lasts) - 1)
        back, step = lasts[place] - numbers, self.steps[place]
        found: npt.NDArray[np.bool_] = (back >= 0) & (back < step * self.times[place]) & (back % step == 0)
        return found

    def slices(self, longest: int) -> Iterator[list[int]]:
        """All of them, in ascending order, at most `longest` at a time."""
        waiting: list[int] = []
        for last, step, times in zip(self._lasts.tolist(), self.steps.tolist(), self.times.tolist(), strict=True):
            for number in range(last - step * (times - 1), last + 1, step):
                waiting.append(number)
                if len(waiting) == longest:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting

    @property
    def _lasts(self) -> Integers:
        """Where each run of equal steps ends."""
        return np.cumsum(self.steps * self.times)
