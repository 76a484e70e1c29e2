"""`Spool`: the raw rows of a window on disk, so that a row found bad at the commit still has its record."""

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO

import pyarrow as pa


class Spool:
    """Raw batches in a temporary file without a name: it is gone with the process, however that ends.

    One thread appends; when it has finished, another reads.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="tidegate-")  # noqa: SIM115 closed by __exit__
        self._batches: list[tuple[int, int, int]] = []

    def append(self, rows: pa.Table, first: int) -> None:
        """Keep `rows`, the first of which has the number `first` in the window."""
        if not rows.num_rows:
            return
        start = self._file.tell()
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, rows.schema, options=options) as writer:
            writer.write_table(rows)
        self._batches.append((first, rows.num_rows, start))

    def take(self, numbers: Sequence[int]) -> Iterator[tuple[pa.Table, int, list[int]]]:
        """The batches that hold `numbers`, which ascend: rows, number of the first, and which numbers are in it."""
        wanted = iter(numbers)
        number = next(wanted, None)
        for first, size, start in self._batches:
            here = []
            while number is not None and number < first + size:
                here.append(number)
                number = next(wanted, None)
            if here:
                self._file.seek(start)
                with pa.ipc.open_stream(self._file) as reader:
                    yield reader.read_all(), first, here

    def batches(self) -> Iterator[pa.Table]:
        """Every batch, in the order in which they were appended."""
        for _, _, start in self._batches:
            self._file.seek(start)
            with pa.ipc.open_stream(self._file) as reader:
                yield reader.read_all()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
