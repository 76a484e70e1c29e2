"""Tuples of PostgreSQL's logical replication messages, taken apart column by column instead of row by row.

The form is that of `TupleData` in PostgreSQL's manual, "Logical Replication Message Formats": a column count, and for
each column a letter, and after `t` a length and that many bytes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

_NULL, _UNCHANGED, _TEXT = (ord(letter) for letter in "nut")


def big_endian(data: Bytes, places: Places, size: int) -> Places:
    """The unsigned big-endian numbers of `size` bytes that begin at `places`; those of 8 bytes come out signed."""
    value = np.zeros(len(places), dtype=np.int64)
    for byte in range(size):
        value = (value << 8) | data[places + byte]
    return value


@dataclass(frozen=True)
class Tuples:
    """Some tuples of one relation.

    Attributes:
        data: the bytes they lie in, followed by at least eight more.
        letters: for each column, the letter of every tuple.
        starts: for each column, where every value begins.
        lengths: for each column, how many bytes it has; 0 where there is none.
        ends: the first byte after every tuple.
    """

    data: Bytes
    letters: list[Bytes]
    starts: list[Places]
    lengths: list[Places]
    ends: Places

    @classmethod
    def parse(cls, data: Bytes, begins: Places, columns: int) -> "Tuples":
        """The tuples that begin at `begins`, all of `columns` columns."""
        place = begins + 2
        letters, starts, lengths = [], [], []
        for _ in range(columns):
            letter = data[place]
            valued = letter == _TEXT
            length = np.where(valued, big_endian(data, place + 1, 4), 0)
            letters.append(letter)
            starts.append(place + 5)
            lengths.append(length)
            place = place + 1 + np.where(valued, 4 + length, 0)
        return cls(data, letters, starts, lengths, place)

    def __len__(self) -> int:
        return len(self.ends)

    def unchanged(self, column: int) -> npt.NDArray[np.bool_]:
        """Where the value was stored out of line and not changed, so that it was not sent."""
        return np.asarray(self.letters[column] == _UNCHANGED)

    def texts(self, column: int) -> pa.StringArray:
        """The values as the types' own text; NULL where there is none, or where it was not sent."""
        starts, lengths = self.starts[column], self.lengths[column]
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        gathered = self.data[np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])]
        valid = self.letters[column] == _TEXT
        return pa.StringArray.from_buffers(
            len(lengths),
            pa.py_buffer(offsets.astype(np.int32)),
            pa.py_buffer(np.ascontiguousarray(gathered)),
            pa.py_buffer(np.packbits(valid, bitorder="little")),
        )
