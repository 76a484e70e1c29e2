"""`Spool`: the raw rows of a window on disk, found again by number."""

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from tasks.spool import Spool
from tests.properties.effort import Prove, effort


def batch(first: int, size: int) -> pa.Table:
    """Rows that hold their own number, as an integer and as text."""
    numbers = range(first, first + size)
    return pa.table({"number": pa.array(numbers, pa.int64()), "text": pa.array([f"row {number}" for number in numbers],
                                                                               pa.string())})  # fmt: skip


@st.composite
def spools(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Sizes of batches, and ascending numbers of rows in them; a row may be asked for more than once."""
    sizes = draw(st.lists(st.integers(0, 6), max_size=6))
    total = sum(sizes)
    return sizes, sorted(draw(st.lists(st.integers(0, total - 1), max_size=10))) if total else []


@effort(few=40, many=2_000)
def test_exactly_the_rows_asked_for_come_back(prove: Prove) -> None:
    def claim(example: tuple[list[int], list[int]]) -> None:
        sizes, wanted = example
        with Spool() as spool:
            first = 0
            for size in sizes:
                spool.append(batch(first, size), first)
                first += size
            for _ in range(2):  # taking leaves the rows where they are
                taken = [
                    rows.slice(number - begin, 1).to_pylist()[0]
                    for rows, begin, numbers in spool.take(wanted)
                    for number in numbers
                ]
                assert taken == [{"number": number, "text": f"row {number}"} for number in wanted]

    prove(spools(), claim)


def test_only_batches_that_hold_a_wanted_row_are_read() -> None:
    with Spool() as spool:
        for first in range(0, 100, 10):
            spool.append(batch(first, 10), first)
        assert [(first, numbers) for _, first, numbers in spool.take([25, 25, 71])] == [(20, [25, 25]), (70, [71])]


def test_batches_may_differ_in_their_columns() -> None:
    """The pages of an API do."""
    with Spool() as spool:
        spool.append(pa.table({"id": [1]}), 0)
        spool.append(pa.table({"id": ["two"], "more": [None]}), 1)
        assert [rows.to_pylist() for rows, _, _ in spool.take([0, 1])] == [[{"id": 1}], [{"id": "two", "more": None}]]


def test_the_file_has_no_name_that_could_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with Spool() as spool:
        spool.append(batch(0, 1_000), 0)
        assert list(tmp_path.iterdir()) == []
        inside = [link for link in _open_files() if link.startswith(str(tmp_path))]
        assert len(inside) == 1, "and yet it lies on that disk"
    assert not [link for link in _open_files() if link.startswith(str(tmp_path))]


def _open_files() -> list[str]:
    """What this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return found
