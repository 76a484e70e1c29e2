"""`WholeWindow`: a transform that needs all rows of the window at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from tasks.errors import ConfigError, ContractError


@dataclass(frozen=True)
class WholeWindow:
    """Call `function` once for a window, with all its rows, and not batch by batch.

    The rows are in memory together: the raw ones, the frame, and what the function makes of it. The frame's index is
    each row's passport, as it is for a batch. A function that raises fails the run: halved, as a batch is, the window
    would no longer be whole, and what comes of the halves would be wrong without a word.

    Attributes:
        function: one window in, one window out; pure, without I/O.
        max_rows: a window with more is refused before it is in memory.

    Raises:
        ConfigError: `max_rows` is no number of rows.
    """

    function: Callable[[pd.DataFrame], pd.DataFrame]
    max_rows: int = 200_000

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ConfigError(f"WholeWindow: max_rows is how many rows fit in memory, got {self.max_rows}.")

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What the function makes of `frame`."""
        return self.function(frame)

    def admit(self, rows: int, pipeline: str) -> None:
        """Let a window of `rows` pass.

        Raises:
            ConfigError: it has more than declared.
        """
        if rows > self.max_rows:
            raise ConfigError(
                f"{pipeline}: the window has more than max_rows={self.max_rows:,} rows, and its transform needs all of "
                "them at once. Split the range into shorter windows, with Pipeline(split=...) or a start and an end; "
                "or raise WholeWindow(max_rows=...) as far as the memory goes."
            )

    def gathered(self, batches: Iterator[pa.Table], pipeline: str) -> Iterator[pa.Table]:
        """The batches of a window as one; nothing where there was none.

        Raises:
            ConfigError: they are more rows than declared.
            ContractError: a column has one type in one batch and another in the next, without a common one.
        """
        held: list[pa.Table] = []
        for batch in batches:
            held.append(batch)
            self.admit(sum(each.num_rows for each in held), pipeline)
        if held:
            yield _as_one(held, pipeline)


def _as_one(batches: list[pa.Table], pipeline: str) -> pa.Table:
    try:
        return pa.concat_tables(batches, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise ContractError(
            f"{pipeline}: the batches of the window cannot be put together: {error}. Give the column one type in the "
            "source's query, or declare it there."
        ) from error
