"""`in_order`: several streams at once, handed on in order."""

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.extract.http.parallel import abandoned, in_order, wait


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(), max_size=5), max_size=12), st.integers(1, 5))
def test_streams_come_whole_and_in_their_order(streams: list[list[int]], at_once: int) -> None:
    makers: list[Callable[[], Iterator[int]]] = [lambda items=items: iter(items) for items in streams]  # type: ignore[misc]
    assert list(in_order(makers, at_once)) == [item for items in streams for item in items]


def test_as_many_are_read_at_once_as_asked_for_and_no_more() -> None:
    lock, together = threading.Lock(), threading.Barrier(3)
    reading, most = 0, 0

    def stream() -> Iterator[int]:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        # Passes only when three are here at the same time.
        together.wait(60)
        yield 1
        with lock:
            reading -= 1

    assert sum(in_order([stream] * 9, 3)) == 9
    assert most == 3


def test_what_a_stream_raises_comes_after_everything_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in in_order([lambda: iter([1]), broken, lambda: iter([4])], 3):
            found.append(item)
    assert found == [1, 2]


def test_streams_that_nobody_wants_any_more_are_not_waited_for() -> None:
    def waiting() -> Iterator[int]:
        begun.set()
        wait(3_600)
        ended.append(abandoned())
        yield 2

    begun, ended = threading.Event(), list[bool]()
    items = in_order([lambda: iter([1]), waiting], 2)
    assert next(items) == 1
    assert begun.wait(60)
    items.close()  # type: ignore[attr-defined]
    assert ended == [True]
    assert not abandoned()


def test_a_stream_that_is_far_ahead_waits_for_the_reader() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(1_000_000):
            made.append(number)
            yield number

    items = in_order([lambda: iter([1]), endless], 2)
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 4
