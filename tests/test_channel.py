"""`Channel`: bounded, in order, and neither end waits for one that has failed."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import strategies as st

from tasks.channel import Channel, ChannelClosed
from tests.properties.effort import Prove, effort

PATIENCE = 30
"""Seconds after which a thread that should have ended counts as stuck."""


@effort(few=30, many=500)
def test_everything_arrives_once_and_in_order(prove: Prove) -> None:
    def claim(example: tuple[int, int]) -> None:
        size, capacity = example
        channel: Channel[int] = Channel(capacity)

        def write() -> None:
            for number in range(size):
                channel.put(number)
            channel.finish()

        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(write)
            assert list(channel) == list(range(size))
            writing.result(PATIENCE)

    prove(st.tuples(st.integers(0, 50), st.integers(1, 4)), claim)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_never_more_wait_than_the_capacity(capacity: int) -> None:
    """The writer gets exactly as far ahead as the capacity, and one further for each item taken."""
    channel: Channel[int] = Channel(capacity)
    put = threading.Semaphore(0)

    def write() -> None:
        for number in range(20):
            channel.put(number)
            put.release()
        channel.finish()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        for _ in range(capacity):
            assert put.acquire(timeout=PATIENCE)
        assert not put.acquire(timeout=0.2), "one more was let in than there is room for"
        reader = iter(channel)
        for number in range(20):
            # The writer has been let in as often as there was room, and stands before a full channel.
            assert not put.acquire(blocking=False)
            assert next(reader) == number
            if number + capacity < 20:
                assert put.acquire(timeout=PATIENCE)
        assert next(reader, None) is None
        writing.result(PATIENCE)


def test_a_failing_reader_wakes_a_writer_that_waits_for_room() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    assert isinstance(_failure_of(lambda: channel.put(1), channel), ChannelClosed)


def test_a_failing_writer_wakes_a_reader_that_waits_for_an_item() -> None:
    channel: Channel[int] = Channel(1)
    assert isinstance(_failure_of(lambda: next(iter(channel)), channel), ChannelClosed)


def test_after_a_failure_both_ends_are_closed_and_nothing_more_is_handed_out() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.fail()
    with pytest.raises(ChannelClosed):
        channel.put(2)
    with pytest.raises(ChannelClosed):
        next(iter(channel))


def test_what_was_put_before_the_end_is_still_read() -> None:
    channel: Channel[int] = Channel(3)
    for number in range(3):
        channel.put(number)
    channel.finish()
    assert list(channel) == [0, 1, 2]
    assert list(channel) == []


def _failure_of(step: Callable[[], Any], channel: Channel[int]) -> BaseException | None:
    """What `step` raises when the channel fails while it waits, or just before."""
    begun = threading.Event()

    def run() -> None:
        begun.set()
        step()

    with ThreadPoolExecutor(1) as threads:
        running: Future[None] = threads.submit(run)
        assert begun.wait(PATIENCE)
        assert not running.done()
        channel.fail()
        return running.exception(PATIENCE)
