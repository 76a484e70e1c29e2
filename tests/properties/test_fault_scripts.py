"""An API that misbehaves at random: a run ends complete or with the right error, and no row is missing or doubled.

What may go wrong is data: `PASSING` goes better when the same is asked again, `LASTING` does not. A script gives every
page a row of faults; whether a run can succeed follows from it alone, and is what the run is held against.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from tasks.errors import SourceError, SourceUnavailable, TidegateError
from tasks.extract.api import ApiExtract
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.numbered import Keyset, Offset, PageNumber
from tasks.extract.http.pages.paginators import Cursor, CursorHeader, LinkHeader, NextUrl, Paginator
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.strategy import Load
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tests.conftest import Databases
from tests.extract.shop import RecordSchema, Serve, record
from tests.paged_api import PagedApi
from tests.properties.interleaving import seeds
from tests.scripted_server import Reply, ScriptedServer, Seen

FEW = range(12)
MANY = seeds(200)

ATTEMPTS = 3
PAGE = 5

PATHS: dict[str, Paginator] = {
    "number": PageNumber(),
    "offset": Offset(PAGE, total="total"),
    "cursor": Cursor("next", "cursor"),
    "url": NextUrl("next"),
    "link": LinkHeader(),
    "header": CursorHeader("X-Next", "cursor"),
    "keyset": Keyset("id", "after"),
    "search": Cursor("next", "$.page.cursor"),
}
LOADS: tuple[Load, ...] = (
    Append("target", "fct_records", key=["id"]),
    Upsert("target", "fct_records", key=["id"]),
    Replace("target", "fct_records", key=["id"]),
)

PASSING = {
    "429 at once": Reply(status=429, headers={"Retry-After": "0"}),
    "429 until a time gone by": Reply(status=429, headers={"Retry-After": "Tue, 08 Jan 2013 06:00:00 GMT"}),
    "429 with nonsense": Reply(status=429, headers={"Retry-After": "soon"}),
    "429 without a word": Reply(b"slow down", 429),
    "503": Reply(b"<h1>down</h1>", 503, {"Retry-After": "0", "Content-Type": "text/html"}),
    "500": Reply(b"", 500),
    "reset": Reply(fault="reset"),
    "short body": Reply({"rows": [{"id": 7}], "next": None, "total": 1}, fault="short body"),
    "cut chunk": Reply({"rows": [{"id": 7}], "next": None, "total": 1}, fault="cut chunk"),
    "cut JSON": Reply(b'{"rows": [{"id": 7}, {"id"'),
}
LASTING = {
    "404": Reply(b"gone", 404),
    "401": Reply(b"who are you?", 401),
    "not JSON": Reply(b"{'rows': []}"),
    "a page of HTML": Reply(b"<html>Sign in</html>", headers={"Content-Type": "text/html"}),
    "no list": Reply({"rows": None, "next": None, "total": 3}),
    "elsewhere": Reply(status=302, headers={"Location": "http://[::1]:9/rows"}),
    "round and round": Reply(status=302, headers={"Location": "http://$HOST/round"}),
    "come back tomorrow": Reply(status=429, headers={"Retry-After": "86400"}),
}
UNAVAILABLE = {"come back tomorrow"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", FEW)
def test_a_run_ends_complete_or_with_the_right_error(postgresql: Databases, serve: Serve, seed: int) -> None:
    history(postgresql, serve, seed)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_run_ends_complete_or_with_the_right_error_whatever_the_script(postgresql: Databases, serve: Serve) -> None:
    ends = Counter(history(postgresql, serve, seed) for seed in MANY)
    print(dict(ends))


class Misbehaving:
    """Plays the faults of each page, one at every request for it."""

    def __init__(self, faults: dict[int, list[str]]) -> None:
        self.faults = {page: iter(row) for page, row in faults.items()}
        self.pages: dict[str, int] = {}

    def __call__(self, seen: Seen) -> Reply | None:
        if seen.target == "/round":
            return LASTING["round and round"]
        # Pages are numbered as they are first asked for.
        page = self.pages.setdefault(f"{seen.target} {seen.body!r}", len(self.pages))
        fault = next(self.faults.get(page, iter(())), None)
        return None if fault is None else PASSING.get(fault) or LASTING[fault]


def history(databases: Databases, serve: Serve, seed: int) -> str:
    """One script, a run against it, and one against the same API when it is well; how the first ended."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    path = dice.choice(list(PATHS))
    count = dice.choice([0, 1, PAGE, 23, 60])
    rows = dict(script(dice, count // PAGE + 2))
    api = PagedApi([record(number) for number in range(count)], size=PAGE, before=Misbehaving(rows))
    numbered = path in ("number", "offset")
    name = f"records_{seed}"
    pipeline = Pipeline(
        name=name,
        extract=ApiExtract(
            "shop",
            path,
            "rows",
            PATHS[path],
            body={"page": {"limit": PAGE}} if path == "search" else None,
            concurrency=dice.choice([1, 3]) if numbered else 1,
            checkpoint=dice.choice([1, 2, 40]),
            unique=dice.choice([[], ["id"]]),
            retry=Retry(attempts=ATTEMPTS, first=timedelta(0)),
        ),
        schema=RecordSchema,
        load=replace(dice.choice(LOADS), table=name),  # type: ignore[type-var]
        max_attempts=1,
        sla=Sla(),
    )
    server = serve(api)
    end = expected(rows, pages(path, count))
    try:
        run_pipeline(pipeline)
        ended = "complete"
    except TidegateError as error:
        ended = "unavailable" if isinstance(error, SourceUnavailable) else "refused"
        assert isinstance(error, SourceError | SourceUnavailable), f"seed {seed}: {error!r}"
    concurrency = pipeline.extract.concurrency if isinstance(pipeline.extract, ApiExtract) else 1
    # With several requests at once, which page is asked for first, and so has which faults, is not ours to say.
    assert concurrency > 1 or ended == end, f"seed {seed}: {rows} over {pages(path, count)} pages"
    stored = ids(databases, name)
    assert len(stored) == len(set(stored)) and set(stored) <= set(range(count)), f"seed {seed}"
    assert ended != "complete" or stored == list(range(count)), f"seed {seed}: rows are missing"
    within_budget(server, pages(path, count) + concurrency, f"seed {seed}")
    api.before = lambda seen: None
    run_pipeline(pipeline)
    assert ids(databases, name) == list(range(count)), f"seed {seed}: the run after it is not whole"
    return ended


def script(dice: random.Random, count: int) -> Iterator[tuple[int, list[str]]]:
    """Faults for some pages: mostly as few as a request outlasts, now and then one too many, or one that stays."""
    for page in range(count):
        if dice.random() < 0.4:
            yield page, dice.choices(list(PASSING), k=dice.randint(1, ATTEMPTS - 1))
        elif dice.random() < 0.04:
            yield page, dice.choices(list(PASSING), k=ATTEMPTS)
        elif dice.random() < 0.06:
            yield page, [*dice.choices(list(PASSING), k=dice.randint(0, ATTEMPTS - 1)), dice.choice(list(LASTING))]


def pages(path: str, count: int) -> int:
    """How many are asked for, one after the other; an empty one is the end where nothing else tells it."""
    full = -(-count // PAGE)
    return full + 1 if path in ("number", "keyset") else max(full, 1)


def expected(rows: dict[int, list[str]], asked: int) -> str:
    """How a run has to end: at the first page whose faults outlast it."""
    for page in range(asked):
        for number, fault in enumerate(rows.get(page, []), start=1):
            if fault in LASTING:
                return "unavailable" if fault in UNAVAILABLE else "refused"
            if number == ATTEMPTS:
                return "unavailable"
    return "complete"


def within_budget(server: ScriptedServer, asked: int, where: str) -> None:
    """No page more often than a request may try; a redirect in a circle is followed ten times."""
    counted = Counter(f"{seen.target} {seen.body!r}" for seen in server.seen)
    rounds = counted.pop("/round b''", 0)
    assert all(times <= ATTEMPTS for times in counted.values()), where
    assert sum(counted.values()) <= asked * ATTEMPTS and rounds <= 10 * asked, where


def ids(databases: Databases, table: str) -> list[int]:
    with databases.target.connect() as connection:
        return list(connection.execute(text(f"SELECT id FROM {table} ORDER BY id")).scalars())
