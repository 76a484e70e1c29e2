"""Whatever rows hold, and whichever columns are masked: no masked value is in anything but source and target."""

import json
import logging
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import strategies as st
from sqlalchemy import delete, select

from tasks.errors import TidegateError
from tasks.load.upsert import Upsert
from tasks.pipeline import Audit, Pipeline, Unique, run_pipeline
from tasks.recovery.letters.mask import mask_letters
from tasks.recovery.replay import replay_letters
from tasks.running.preview import preview
from tasks.state.letters import Wanted, find_faults, find_letters
from tasks.state.tables import metadata, runs
from tests.conftest import Databases
from tests.properties.effort import Prove, effort
from tests.recovery.letters.persons import PEOPLE, SOURCE, everything, person, put

MASKABLE = ("name", "email", "number")
AUDITS = (
    "SELECT * FROM staged WHERE age > 50",
    "SELECT id, upper(name) AS n, email FROM staged WHERE age > 50",
    "SELECT email FROM staged UNION SELECT name FROM staged",
)

# Every masked value bears a mark that nothing else has, whatever stands around it.
_MARKED = st.text(st.sampled_from("aB'\"\\{}[]:,;%é\n=() "), max_size=6).map(lambda text: f"{text}canary@{text}")
_CELL = st.one_of(st.none(), _MARKED)
_ROWS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(1, 3)), _CELL, _CELL, st.one_of(st.none(), st.integers(-99, 99))),
    min_size=1,
    max_size=6,
)
_CASES = st.tuples(
    _ROWS, st.sampled_from(["all", "some", "none"]), st.sampled_from([None, *AUDITS]), st.booleans(), st.booleans()
)


def transform(kind: str) -> Any:
    """A transform that raises on no row, on some, or on all, and says what it raised on."""

    def made(raw: pd.DataFrame) -> pd.DataFrame:
        if kind == "all" or (kind == "some" and len(raw) and (raw["age"].fillna(0) < -50).any()):
            raise ValueError(f"cannot take {raw.to_dict('records')}")
        return raw

    return made


@effort(few=10, many=400)
def test_no_masked_value_is_kept_said_or_shown(
    sqlite: Databases, prove: Prove, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tidegate")

    def claim(case: tuple[list[tuple[Any, ...]], str, str | None, bool, bool]) -> None:
        rows, raising, audit, unique, before = case
        caplog.clear()
        _emptied(sqlite)
        people = [person(n, id=id, name=name, email=email, age=age) for n, (id, name, email, age) in enumerate(rows)]
        put(sqlite.source, people)
        open_to_all = replace(
            PEOPLE,
            transform=transform(raising),
            rules=[Unique("email", "age")] if unique else [],
            audits=[Audit("none", audit)] if audit else [],
            load=Upsert("target", "dim_people", key=["id"]),
        )
        pipeline = replace(open_to_all, masked=["name", "email"])
        said = []
        if before:
            said_before = _run(open_to_all)
            assert said_before is not None
            caplog.clear()
            mask_letters(pipeline)
            mask_letters(pipeline)
        said.append(_run(pipeline))
        said.append(_looked_at(sqlite, pipeline))
        said.append(_replayed(pipeline))
        text = "\n".join([*said, caplog.text, *(repr(vars(record)) for record in caplog.records)])
        assert "canary" not in (text + everything(sqlite.target)).lower()
        with sqlite.target.connect() as connection:
            assert connection.execute(select(runs.c.run_id)).first() is not None, "something was done"

    prove(_CASES, claim)


def _run(pipeline: Pipeline) -> str:
    """A run, and all that its report or its error says."""
    try:
        return json.dumps(run_pipeline(pipeline).as_dict(), default=str)
    except TidegateError as error:
        return f"{error} {error.__cause__} {error.__context__}"


def _replayed(pipeline: Pipeline) -> str:
    try:
        return str([report.as_dict() for report in replay_letters(pipeline)])
    except TidegateError as error:
        return f"{error} {error.__cause__} {error.__context__}"


def _looked_at(databases: Databases, pipeline: Pipeline) -> str:
    wanted = Wanted(pipeline.name, "all", masking=pipeline.masking)
    with databases.target.connect() as connection:
        found = f"{find_letters(connection, wanted, 99)} {find_faults(connection, wanted)}"
    try:
        seen = preview(pipeline)
    except TidegateError as error:
        return f"{found} {error} {error.__cause__} {error.__context__}"
    return f"{found} {seen.valid.to_pylist()} {seen.rejected}"


def _emptied(databases: Databases) -> None:
    SOURCE.metadata.create_all(databases.source)
    with databases.source.begin() as connection:
        connection.execute(delete(SOURCE))
    with databases.target.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
