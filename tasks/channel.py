"""`Channel`: a bounded queue between two threads, that tells either when the other has given up."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelClosed(Exception):
    """The other side failed; its own error says why."""


class Channel(Generic[Item]):
    """At most `capacity` items wait; `put` blocks while it is full, iteration while it is empty.

    Args:
        capacity: bound on what is held in memory.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[Item] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._finished = False
        self._broken = False

    def put(self, item: Item) -> None:
        """Add `item`.

        Raises:
            ChannelClosed: the reader has failed, so nobody will take it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._broken or len(self._items) < self._capacity)
            if self._broken:
                raise ChannelClosed
            self._items.append(item)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that no item follows."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def fail(self) -> None:
        """Say that this side has failed; both ends raise `ChannelClosed` from then on."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._broken or self._finished or self._items)
                if self._broken:
                    raise ChannelClosed
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
