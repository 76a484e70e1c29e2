"""`run_scope` and `shared`: what all windows, attempts and threads of one run have in common."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

Thing = TypeVar("Thing")


class _Scope:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.things: dict[Hashable, object] = {}


_scope: ContextVar[_Scope | None] = ContextVar("run scope", default=None)


@contextmanager
def run_scope() -> Iterator[None]:
    """Be a run while this is entered: here, and in threads that get a copy of this context.

    A run inside another has a scope of its own.
    """
    before = _scope.set(_Scope())
    try:
        yield
    finally:
        _scope.reset(before)


def shared(key: Hashable, make: Callable[[], Thing]) -> Thing:
    """The run's own object called `key`, made by whoever asks first; outside a run a new one each time.

    Args:
        key: begins with the object's type, so that no two kinds of object meet.
        make: makes it; called under a lock, so it is quick and asks for nothing shared itself.
    """
    scope = _scope.get()
    if scope is None:
        return make()
    with scope.lock:
        if key not in scope.things:
            scope.things[key] = make()
        return cast(Thing, scope.things[key])
