"""What a run has in common, and nobody else."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context

from tasks.run_scope import run_scope, shared


def test_within_a_run_a_key_is_one_object_and_another_key_another() -> None:
    with run_scope():
        assert shared("a", object) is shared("a", object)
        assert shared("a", object) is not shared("b", object)


def test_two_runs_have_nothing_in_common() -> None:
    with run_scope():
        first = shared("a", object)
    with run_scope():
        assert shared("a", object) is not first


def test_outside_a_run_each_object_is_new_after_a_run_too() -> None:
    assert shared("a", object) is not shared("a", object)
    with run_scope():
        inside = shared("a", object)
    assert shared("a", object) is not inside


def test_a_run_inside_another_has_its_own_and_leaves_the_outer_one_as_it_was() -> None:
    with run_scope():
        outer = shared("a", object)
        with run_scope():
            assert shared("a", object) is not outer
        assert shared("a", object) is outer


def test_eight_threads_with_a_copied_context_get_one_object_that_is_made_once() -> None:
    made: list[object] = []
    together, meeting = threading.Barrier(8), threading.Barrier(2)

    def make() -> object:
        made.append(object())
        # Whoever else is in here comes by within that time.
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)
        return made[-1]

    def ask() -> object:
        together.wait(60)
        return shared("a", make)

    with run_scope(), ThreadPoolExecutor(8) as threads:
        found = [threads.submit(copy_context().run, ask) for _ in range(8)]
        assert {id(future.result()) for future in found} == {id(made[0])}
    assert len(made) == 1


def test_a_thread_with_a_context_of_its_own_is_outside() -> None:
    with run_scope(), ThreadPoolExecutor(1) as threads:
        assert threads.submit(shared, "a", object).result() is not shared("a", object)
