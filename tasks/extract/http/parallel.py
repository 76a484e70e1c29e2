"""`in_order`: several streams read at once, handed on one after the other."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from itertools import islice
from typing import TypeVar

from tasks.channel import Channel, ChannelClosed

_WAITING_ITEMS = 2

Item = TypeVar("Item")
Stream = Callable[[], Iterator[Item]]

_abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


def abandoned() -> bool:
    """Whether nobody wants what this thread reads any more."""
    event = _abandoned.get()
    return event is not None and event.is_set()


def wait(seconds: float) -> None:
    """Sleep, but no longer than somebody wants what this thread reads."""
    event = _abandoned.get()
    if event is None:
        time.sleep(seconds)
    else:
        event.wait(seconds)


def in_order(streams: Iterable[Stream[Item]], at_once: int) -> Iterator[Item]:
    """What the streams yield, in their order, while the next ones are being read in threads.

    Args:
        streams: each is begun when its turn comes near, and read in one thread.
        at_once: how many are read at the same time; of each at most two items wait.

    Raises:
        Exception: what a stream raises, once everything before it has been handed on.
    """
    if at_once == 1:
        for stream in streams:
            yield from stream()
        return
    ahead: deque[tuple[Channel[Item], Future[None]]] = deque()
    left = iter(streams)
    over = threading.Event()
    with ThreadPoolExecutor(at_once, thread_name_prefix="tidegate-http") as threads:

        def begin(count: int) -> None:
            for stream in islice(left, count):
                channel: Channel[Item] = Channel(_WAITING_ITEMS)
                context = copy_context()
                context.run(_abandoned.set, over)
                ahead.append((channel, threads.submit(context.run, _read, stream, channel)))

        begin(at_once)
        try:
            while ahead:
                channel, reading = ahead[0]
                yield from channel
                reading.result()
                ahead.popleft()
                begin(1)
        finally:
            over.set()
            for channel, reading in ahead:
                reading.cancel()
                channel.fail()


def _read(stream: Stream[Item], channel: Channel[Item]) -> None:
    # Where nobody reads on, the channel says so, and that is no error of the stream.
    with suppress(ChannelClosed):
        try:
            for item in stream():
                channel.put(item)
        finally:
            channel.finish()
