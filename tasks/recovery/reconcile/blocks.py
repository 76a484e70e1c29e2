"""`Block` and `Level`: the parts that a table is compared in, smaller with every level."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.window import Window, joined_windows

BLOCK_ROWS = 1_000
"""A block that has no more rows is read row by row, where it differs."""

_SIXTEEN = 16
_MONTH, _DAY, _HOUR, _MINUTE = 7, 10, 13, 16
"""How many characters of `YYYY-MM-DD HH:MM` tell it."""


@dataclass(frozen=True, slots=True)
class Level:
    """How fine the blocks are.

    Attributes:
        time: characters of the cursor's text that name a block: 7 is a month, 16 a minute; 0 leaves the cursor out.
        digits: hexadecimal digits of the key's hash that do: a range of 16 to the power of -digits of all hashes.
    """

    time: int = 0
    digits: int = 0

    def __str__(self) -> str:
        names = {_MONTH: "month", _DAY: "day", _HOUR: "hour", _MINUTE: "minute"}
        parts = [names[self.time]] if self.time else []
        return " and ".join(parts + ([f"{_SIXTEEN**self.digits:,} ranges of the key's hash"] if self.digits else []))


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a table.

    Attributes:
        time: the beginning of its rows' cursors, as text; empty where the cursor does not tell.
        digits: the beginning of the hashes of their keys.
    """

    time: str = ""
    digits: str = ""

    @property
    def window(self) -> Window:
        """The slice of the cursor that it lies in."""
        if not self.time:
            return Window()
        start = datetime.fromisoformat(f"{self.time}-01" if len(self.time) == _MONTH else self.time).replace(tzinfo=UTC)
        if len(self.time) == _MONTH:
            after = (start + timedelta(days=31)).replace(day=1)
            return Window(start, after)
        sizes = {_DAY: timedelta(days=1), _HOUR: timedelta(hours=1), _MINUTE: timedelta(minutes=1)}
        return Window(start, start + sizes[len(self.time)])

    def within(self, level: Level) -> "Block":
        """The block of a coarser level that it is a part of."""
        return Block(self.time[: level.time], self.digits[: level.digits])

    def __str__(self) -> str:
        parts = [self.time] if self.time else []
        return " ".join(parts + ([f"key hash {self.digits}…"] if self.digits else [])) or "everything"


@dataclass(frozen=True, slots=True)
class Total:
    """What a side holds in a block.

    Attributes:
        rows: how many.
        checksum: the sum of their hashes.
    """

    rows: int = 0
    checksum: int = 0


def levels_by_cursor(rows: int, span: timedelta) -> list[Level]:
    """The levels of a table with a cursor; the first has some thousands of blocks at most."""
    first = _MONTH if span > timedelta(days=3_000) else _DAY
    times = [time for time in (_MONTH, _DAY, _HOUR, _MINUTE) if time >= first]
    deepest = _digits(rows)
    return [Level(time) for time in times] + [Level(_MINUTE, digits) for digits in range(2, deepest + 1, 2)]


def levels_by_key(rows: int) -> list[Level]:
    """The levels of a table without one: at once as many blocks as have `BLOCK_ROWS` rows each, but for chance."""
    first = _digits(rows)
    return [Level(digits=first), Level(digits=first + 1)]


def _digits(rows: int) -> int:
    digits = 1
    while rows > BLOCK_ROWS // 2 * _SIXTEEN**digits:
        digits += 1
    return digits


def windows_of(blocks: Iterable[Block]) -> list[Window]:
    """The windows that the blocks lie in, those that touch made one."""
    return joined_windows({block.window for block in blocks})


def rows_in(blocks: Iterable[Block], source: dict[Block, Total], target: dict[Block, Total]) -> int:
    """How many rows there are to read in them on the side that has more, at most."""
    none = Total()
    return sum(max(source.get(block, none).rows, target.get(block, none).rows) for block in blocks)


def differing(source: dict[Block, Total], target: dict[Block, Total]) -> list[Block]:
    """The blocks whose rows are not the same on both sides, in order."""
    blocks: Sequence[Block] = [*source, *(block for block in target if block not in source)]
    found = [block for block in blocks if source.get(block) != target.get(block)]
    return sorted(found, key=lambda block: (block.time, block.digits))
