"""Random histories of a source, with runs at random instants: the target is what the model says, after every run."""

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st

from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.orders import START
from tests.properties.changes import HOUR, LOOKBACK, Change, Model, World, hour
from tests.properties.effort import Prove, effort


@dataclass(frozen=True)
class Write:
    """A change of the source, `late` hours behind its clock."""

    key: int | None
    late: int
    amount: int
    customer: str


@dataclass(frozen=True)
class Tick:
    """The source's clock moves."""

    hours: int


@dataclass(frozen=True)
class Sync:
    """An incremental run."""


@dataclass(frozen=True)
class Backfill:
    """An explicit run over `[start, start + hours)`."""

    start: int
    hours: int


@dataclass(frozen=True)
class Land:
    """The reference that some rows lack arrives."""


Event = Write | Tick | Sync | Backfill | Land


@dataclass(frozen=True)
class History:
    """What happens, to which kind of source, and how it is loaded."""

    log: bool
    updates: bool
    events: tuple[Event, ...]


WRITES = st.builds(
    Write,
    key=st.sampled_from([0, 0, 0, 1, 1, 2, None]),
    late=st.sampled_from([0, 0, 1, LOOKBACK]),
    amount=st.sampled_from([1, 2, 3, 4, -1]),
    customer=st.sampled_from(["ann", "ann", "ann", "ann", "ghost"]),
)
RUNS = st.one_of(st.just(Sync()), st.builds(Backfill, st.integers(0, 5), st.integers(2, 6)))


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Rounds of writes with the clock moving between them; after each a run, now and then with a new reference."""
    events: list[Event] = []
    for _ in range(draw(st.integers(2, 4))):
        for write in draw(st.lists(WRITES, min_size=2, max_size=6)):
            events += [write, Tick(1)] if draw(st.booleans()) else [write]
        events += [Land()] if draw(st.sampled_from([False, False, True])) else []
        events += [Tick(draw(st.integers(0, 2))), draw(RUNS)]
    mostly = st.sampled_from([True, True, False])
    return History(draw(mostly), draw(mostly), tuple(events))


@effort(few=8, many=60)
def test_after_every_run_the_target_is_what_the_model_says_on_sqlite(sqlite: Databases, prove: Prove) -> None:
    prove(histories(), lambda history: _assert_follows_the_model(sqlite, history))


@pytest.mark.slow
@effort(few=3, many=60)
def test_after_every_run_the_target_is_what_the_model_says_on_postgresql(postgresql: Databases, prove: Prove) -> None:
    prove(histories(), lambda history: _assert_follows_the_model(postgresql, history))


def _assert_follows_the_model(databases: Databases, history: History) -> None:
    world = World(databases, log=history.log, updates=history.updates)
    model = Model(history.updates)
    now = _play(world, model, history.events)

    # All is quiet: nothing is written from here on.
    world.tick_to(now + 1)
    assert run_pipeline(world.pipeline).counts.as_dict() == model.incremental(world.source, now + 1)
    assert world.loaded() == model.rows
    assert _letters_by_key(world) == {
        str(key): change.at for key, change in model.letters.items() if change.key is not None
    }

    before = world.versions()
    again = run_pipeline(world.pipeline).counts
    assert (again.inserted, again.updated, again.deleted) == (0, 0, 0)
    assert world.versions() == before

    for entry in world.ledger():
        assert entry["status"] == "committed"
        outcomes = ("inserted", "updated", "deleted", "unchanged", "deduplicated", "stale", "rejected", "filtered")
        assert entry["extracted"] + entry["added"] == sum(entry[name] for name in outcomes)
    world.remove()


def _play(world: World, model: Model, events: tuple[Event, ...]) -> int:
    """Let everything happen to both; where the clock stands then."""
    now = 1
    world.tick_to(now)
    for event in events:
        match event:
            case Write():
                world.change([Change(event.key, max(now - event.late, 0), event.amount, event.customer)])
            case Tick():
                now += event.hours
                world.tick_to(now)
            case Sync():
                assert run_pipeline(world.pipeline).counts.as_dict() == model.incremental(world.source, now)
                assert world.loaded() == model.rows
            case Backfill():
                end = min(event.start + event.hours, max(now, event.start))
                report = run_pipeline(world.pipeline, hour(event.start), hour(event.start + event.hours))
                read = [change for change in world.source if event.start <= change.at < end]
                assert report.counts.as_dict() == model.load(read)
                assert world.loaded() == model.rows
            case Land():
                if "ghost" not in model.customers:
                    model.customers.add("ghost")
                    world.land("ghost")
    return now


def _letters_by_key(world: World) -> dict[str, int]:
    """When the bad version of an open dead letter was written, by key; rows without a key are left out."""
    return {
        key: round((written - START) / HOUR)
        for key, (_, written) in world.open_letters().items()
        if not key.startswith("record:")
    }
