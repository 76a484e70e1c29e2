"""Masked columns: their values are in source and target, and in nothing else that a run leaves or says."""

import logging
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from sqlalchemy import text

from tasks.errors import ConfigError, ContractError, FatalError, GuardRefused, TargetError
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.partition import ReplacePartition
from tasks.load.upsert import Upsert
from tasks.masking import Masking
from tasks.partitioned import Partitioned
from tasks.pipeline import Audit, References, Unique, WholeWindow, run_pipeline
from tasks.recovery.letters.mask import mask_letters
from tasks.recovery.replay import needs_source, rehearse_replay, replay_letters
from tasks.running.preview import preview
from tasks.state.emptied import QUOTING
from tasks.state.letters import Wanted, find_faults, find_letters
from tasks.state.tables import dead_letters
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases, on_every_target
from tests.orders import START
from tests.recovery.letters.persons import (
    CANARY,
    MASKED,
    PEOPLE,
    PersonSchema,
    everything,
    kept,
    messages,
    person,
    put,
)


@on_every_target
def test_a_letter_holds_marks_and_the_target_the_values(databases: Databases) -> None:
    put(databases.source, [person(1), person(2, age=5), person(3, name=None, email="nobody")])
    run_pipeline(MASKED)
    first, third = kept(databases.target)
    assert first["record"] == {
        "number": 1, "id": 1, "name": "***", "email": "***", "age": -1, "updated_at": first["record"]["updated_at"],
    }  # fmt: skip
    assert first["record_types"]["email"] == "masked" and first["record_types"]["age"] == "int64"
    assert first["reasons"] == [{"rule": "greater_than_or_equal_to(0)", "column": "age", "value": -1}]
    assert third["record"]["name"] is None, "NULL explains itself"
    assert {(one["column"], one["value"]) for one in third["reasons"]} == {("age", -1), ("email", "***")}
    assert CANARY not in everything(databases.target)
    with databases.target.connect() as connection:
        [loaded] = connection.execute(text("SELECT name, email FROM dim_people")).all()
    assert tuple(loaded) == ("Ann Miller", CANARY)


def test_what_the_transform_raises_tells_the_kind_and_the_place_and_no_value(sqlite: Databases) -> None:
    def parse(raw: pd.DataFrame) -> pd.DataFrame:
        for name in raw["name"].dropna():
            if name.startswith("Ann"):
                raise ValueError(f"{name.upper()} has no given name")
        return raw

    put(sqlite.source, [person(1, age=1), person(2, age=1, name="Bob")])
    run_pipeline(replace(MASKED, transform=parse))
    [letter] = kept(sqlite.target)
    [reason] = letter["reasons"]
    assert reason["rule"] == "transform"
    assert reason["value"].startswith("ValueError in parse, line ") and "MILLER" not in everything(sqlite.target)


@pytest.mark.parametrize("whole", [False, True])
def test_a_transform_that_is_broken_fails_the_run_and_its_error_quotes_no_row(
    sqlite: Databases, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    def broken(raw: pd.DataFrame) -> pd.DataFrame:
        raise ValueError(f"cannot parse {raw['email'].iloc[0]}")

    put(sqlite.source, [person(1), person(2)])
    with pytest.raises(ContractError, match="ValueError in broken") as caught:
        run_pipeline(replace(MASKED, transform=WholeWindow(broken) if whole else broken))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None), "tracebacks print the chain"
    assert CANARY not in everything(sqlite.target) + caplog.text


def test_the_error_that_stopped_a_run_is_told_and_not_that_of_a_step_that_it_stopped(sqlite: Databases) -> None:
    class Endless(TableExtract):
        def batches(self, window: Any) -> Any:
            for batch in super().batches(window):
                while True:
                    yield batch

    def nothing(raw: pd.DataFrame) -> pd.DataFrame:
        raise ContractError("the transform has had enough")

    put(sqlite.source, [person(1, age=1), person(2, age=1)])
    endless = replace(MASKED, extract=Endless("source", "people", cursor="updated_at"), transform=nothing)
    with pytest.raises(ContractError, match="the transform has had enough"):
        run_pipeline(endless)


def test_a_column_that_cannot_be_cast_is_told_without_its_first_value(sqlite: Databases) -> None:
    class Numbers(PersonSchema):
        email: int  # type: ignore[assignment]

    put(sqlite.source, [person(1), person(2)])
    with pytest.raises(ContractError, match=r"the first is \*\*\*"):
        run_pipeline(replace(MASKED, schema=Numbers))
    assert CANARY not in everything(sqlite.target)


@on_every_target
def test_what_the_database_says_of_a_row_is_not_repeated(databases: Databases) -> None:
    put(databases.source, [person(1, age=1)])
    run_pipeline(MASKED)
    with databases.target.begin() as connection:
        connection.execute(text("CREATE TABLE copied AS SELECT * FROM dim_people"))
        connection.execute(text("DROP TABLE dim_people"))
        checked = "id BIGINT NOT NULL, name TEXT, email VARCHAR(60) UNIQUE, age BIGINT, updated_at TIMESTAMP"
        columns = connection.execute(text("SELECT * FROM copied")).keys()
        connection.execute(text(f"CREATE TABLE dim_people ({checked}, PRIMARY KEY (id))"))
        assert set(columns) >= {"id", "name", "email"}
    put(databases.source, [person(2, age=1, day=1), person(3, age=1, day=1)])
    with pytest.raises(TargetError) as caught:
        run_pipeline(replace(MASKED, on_drift="ignore"))
    said = str(caught.value)
    if "refused" in said:
        assert "Error" in said or "Violation" in said
    assert CANARY not in said + everything(databases.target)


def test_an_error_that_is_not_ours_is_told_by_its_kind_and_place(sqlite: Databases) -> None:
    class Broken(TableExtract):
        def batches(self, window: Any) -> Any:
            raise RuntimeError(f"no place for {CANARY}")

    put(sqlite.source, [person(1)])
    extract = Broken("source", "people", cursor="updated_at")
    with pytest.raises(FatalError, match="RuntimeError in batches") as caught:
        run_pipeline(replace(MASKED, extract=extract))
    assert caught.value.__context__ is None
    assert CANARY not in everything(sqlite.target)
    with pytest.raises(RuntimeError, match="no place for"):
        run_pipeline(replace(PEOPLE, extract=extract))


AUDITS = {
    "SELECT * FROM staged": "(id = 1, name = ***, email = ***, age = 1, ",
    "SELECT id, email FROM staged": "(id = 1, email = ***)",
    "SELECT s.id, s.email AS contact FROM staged s": "(id = 1, contact = ***)",
    "SELECT id, upper(email) AS id FROM staged": "(id = ***",
    "SELECT id, email, email FROM staged": "(id = ***, email = ***",
    "SELECT *, email FROM staged": "(id = ***, name = ***",
    "SELECT a.*, b.email FROM staged a, staged b": "(id = ***, name = ***",
    "SELECT upper(email) FROM staged": "= ***)",
    "SELECT id FROM (SELECT email AS id FROM staged) AS x": "(id = ***)",
    "WITH x AS (SELECT email AS id FROM staged) SELECT id FROM x": "(id = ***)",
    "SELECT id FROM staged UNION ALL SELECT email FROM staged": "(id = ***)",
    "SELECT EMAIL FROM staged": "= ***)",
}


@pytest.mark.parametrize("query", AUDITS)
def test_an_audit_shows_what_is_surely_not_made_of_a_masked_column(sqlite: Databases, query: str) -> None:
    put(sqlite.source, [person(1, age=1)])
    with pytest.raises(GuardRefused) as caught:
        run_pipeline(replace(MASKED, audits=[Audit("none", query)]))
    assert AUDITS[query] in str(caught.value)
    assert "canary" not in (str(caught.value) + everything(sqlite.target)).lower()


def test_an_audit_of_a_whole_row_shows_none(postgresql: Databases) -> None:
    put(postgresql.source, [person(1, age=1)])
    for query in ("SELECT staged FROM staged", "SELECT to_jsonb(staged) AS id FROM staged"):
        with pytest.raises(GuardRefused, match=r"= \*\*\*\)") as caught:
            run_pipeline(replace(MASKED, audits=[Audit("none", query)]))
        assert "canary" not in str(caught.value)


@on_every_target
def test_rules_over_the_window_and_references_name_no_value(databases: Databases) -> None:
    with databases.target.begin() as connection:
        connection.execute(text("CREATE TABLE known (name VARCHAR(60) PRIMARY KEY)"))
    put(databases.source, [person(1, age=1), person(2, age=1)])
    pipeline = replace(MASKED, rules=[Unique("email", "age")], references=[References("name", "known.name")])
    run_pipeline(pipeline)
    letters = kept(databases.target)
    assert {one["value"] for letter in letters for one in letter["reasons"] if one["column"]} == {"***"}
    assert [one["value"] for letter in letters for one in letter["reasons"] if not one["column"]] == [
        {"email": "***", "age": 1}
    ]
    assert CANARY not in everything(databases.target) and "Ann" not in everything(databases.target)


class ContactSchema(pa.DataFrameModel):
    """A contact is three characters long."""

    id: int
    contact: str = pa.Field(str_length=3)
    updated_at: UtcTimestamp


def test_a_value_that_the_transform_calls_otherwise_is_masked_in_reasons_all_the_same(sqlite: Databases) -> None:
    def renamed(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(contact="<" + raw["email"] + ">")

    put(sqlite.source, [person(1)])
    run_pipeline(replace(MASKED, schema=ContactSchema, transform=renamed))
    assert kept(sqlite.target)[0]["reasons"][0]["value"] == "***"
    assert CANARY not in everything(sqlite.target)


def test_fields_inside_of_others_are_masked_too() -> None:
    masking = Masking.of(["email", "payload"])
    record = {"payload": {"any": ["x"]}, "who": {"email": CANARY, "id": 1}, "list": [{"email": CANARY}], "email": None}
    assert masking.record(record) == {
        "payload": "***", "who": {"email": "***", "id": 1}, "list": [{"email": "***"}], "email": None,
    }  # fmt: skip


def test_rows_without_a_key_that_look_alike_keep_a_letter_each(databases: Databases) -> None:
    def keyless(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(id=raw["id"].where(raw["id"] < 0))

    pipeline = replace(MASKED, masked=["number", "name", "email"], transform=keyless)
    put(databases.source, [person(number, id=None, name=f"Ann {number}") for number in range(1, 4)])
    for times in (1, 2):
        run_pipeline(pipeline, START, START + timedelta(days=1))
        letters = kept(databases.target)
        base = letters[0]["row_key"]
        assert base.startswith("record:masked-")
        assert [letter["row_key"] for letter in letters] == [base, f"{base}#2", f"{base}#3"]
        assert [letter["times_seen"] for letter in letters] == [times] * 3


def test_what_names_a_letter_tells_nothing_of_what_is_masked(sqlite: Databases) -> None:
    def name(email: str) -> str:
        put(sqlite.source, [person(1, id=None, email=email)])
        with sqlite.target.begin() as connection:
            connection.execute(dead_letters.delete())
        run_pipeline(MASKED, START, START + timedelta(days=1))
        [letter] = kept(sqlite.target)
        return str(letter["row_key"])

    assert name(CANARY) == name("bob@canary.example")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"masked": ["id"]}, "in the key of its load"),
        ({"masked": ["updated_at"]}, "the cursor of its extract"),
        (
            {"masked": ["age"], "load": Upsert("target", "t", key=["id"], track=Partitioned("age"))},
            "what the partitions of the target are by",
        ),
        (
            {"masked": ["age"], "load": ReplacePartition("target", "t", key=["id"], partition="age")},
            "what its partitions are by",
        ),
        (
            {"masked": ["number"], "extract": TriggerExtract("source", "people", key=["number"])},
            "in the key of its extract",
        ),
        (
            {
                "masked": ["number"],
                "extract": ApiChildren(ApiExtract("shop", "/p"), ApiExtract("shop", "/{number}")),
            },
            "what the children of a parent are asked for by",
        ),
        ({"masked": "email"}, "masked is a list of columns, got 'email'"),
    ],
)
def test_what_tells_rows_apart_cannot_be_masked(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        replace(PEOPLE, **changed)


def test_a_name_that_is_nowhere_is_told_once_a_run(sqlite: Databases, caplog: pytest.LogCaptureFixture) -> None:
    put(sqlite.source, [person(1, age=1), person(2, age=1, day=1)])
    run_pipeline(
        replace(MASKED, masked=["emial", "number"], split=timedelta(hours=12)), START, START + timedelta(days=2)
    )
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in told if "masked names" in line] == [
        "people: masked names 'emial', which is neither in the contract nor in any row that came in. Mend the name, or "
        "take it out."
    ]


def test_a_preview_shows_marks(sqlite: Databases) -> None:
    put(sqlite.source, [person(1), person(2, age=1, name=None)])
    seen = preview(MASKED)
    assert seen.valid.select(["id", "name", "email"]).to_pylist() == [{"id": 2, "name": None, "email": "***"}]
    assert seen.rejected[0].record["email"] == "***"


# -- replay ------------------------------------------------------------------------------------------------------


def good(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(age=raw["age"].abs())


def test_a_replay_reads_the_windows_again_and_never_loads_a_mark(sqlite: Databases) -> None:
    put(sqlite.source, [person(1)])
    run_pipeline(MASKED)
    assert needs_source(MASKED) == "its records are masked"
    # Whether the columns are masked still, or not any more: the letter's record is.
    for pipeline in (replace(MASKED, transform=good), replace(PEOPLE, transform=good)):
        rehearsal = rehearse_replay(pipeline)
        assert (rehearsal.passing, rehearsal.failing, len(rehearsal.windows)) == (0, 0, 1)
    [report] = replay_letters(replace(PEOPLE, transform=good))
    assert report.counts.inserted == 1
    assert [letter["status"] for letter in kept(sqlite.target)] == ["closed"]
    with sqlite.target.connect() as connection:
        [loaded] = connection.execute(text("SELECT name, email FROM dim_people")).all()
    assert tuple(loaded) == ("Ann Miller", CANARY)


def test_letters_with_and_without_records_are_replayed_together(sqlite: Databases) -> None:
    put(sqlite.source, [person(1), person(0, age=0, day=0.5)])
    run_pipeline(MASKED)
    put(sqlite.source, [person(2, day=1)])
    run_pipeline(PEOPLE)
    rehearsal = rehearse_replay(replace(PEOPLE, transform=good))
    assert (rehearsal.passing, len(rehearsal.windows)) == (1, 1)
    assert rehearsal.reason == "their records are masked, or not kept any more"
    by_record, by_window = replay_letters(replace(PEOPLE, transform=good))
    assert (by_record.counts.inserted, by_window.counts.inserted) == (1, 1)
    assert [letter["status"] for letter in kept(sqlite.target)] == ["closed", "closed"]


def test_a_letter_without_a_key_is_closed_where_its_window_does_not_bring_it_again(sqlite: Databases) -> None:
    put(sqlite.source, [person(1, id=None), person(2, id=None, name="Bob")])
    run_pipeline(MASKED)
    put(sqlite.source, [person(1, age=1)])
    [report] = replay_letters(MASKED)
    assert (report.counts.inserted, report.counts.rejected) == (1, 1)
    closed, still = kept(sqlite.target)
    assert (closed["status"], closed["closed_run_id"]) == ("closed", report.run_id)
    assert still["status"] == "open"


def test_what_is_followed_has_no_windows_and_is_read_anew_if_that_is_asked_for(
    sqlite: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    feed = replace(
        MASKED, extract=TriggerExtract("source", "people", key=["number"]), load=Upsert("target", "t", key=["id"])
    )
    put(sqlite.source, [person(1)])
    run_pipeline(feed)
    mended = replace(feed, transform=good)
    assert rehearse_replay(mended).snapshot
    assert replay_letters(mended, snapshots=False) == []
    assert "can only be judged by a new snapshot, because its records are masked" in caplog.text
    [report] = replay_letters(mended)
    assert report.counts.inserted == 1
    assert [letter["status"] for letter in kept(sqlite.target)] == ["closed"]


# -- what was kept before ----------------------------------------------------------------------------------------


@on_every_target
def test_letters_and_messages_of_before_are_masked_as_if_they_had_always_been(databases: Databases) -> None:
    rows = [person(1), person(2, id=None), person(3, id=None, name="Bob"), person(4, age=None, email="nobody")]
    put(databases.source, [*rows, person(0, age=0, day=0.5)])
    audit = Audit("no names", "SELECT name FROM staged")
    run_pipeline(PEOPLE)
    put(databases.source, [person(5, age=5, day=1)])
    with pytest.raises(GuardRefused, match="Ann Miller"):
        run_pipeline(replace(PEOPLE, audits=[audit]))
    done = mask_letters(MASKED)
    assert (done.letters, done.messages) == (4, 1)
    assert "Ann Miller" not in everything(databases.target) and CANARY not in everything(databases.target)
    assert "found 2 rows, and there may be none: ***. Nothing was written." in messages(databases.target)[0]
    assert "4 dead letters were masked, as the pipeline declares now." in messages(databases.target)
    again = mask_letters(MASKED)
    assert (again.letters, again.messages) == (0, 0)
    before = kept(databases.target)
    run_pipeline(MASKED, START, START + timedelta(hours=1))
    after = kept(databases.target)
    same = ("row_key", "record", "record_types", "reasons")
    assert [[one[name] for name in same] for one in after] == [[one[name] for name in same] for one in before]
    assert {one["times_seen"] for one in after} == {2}


def test_every_day_letters_are_masked_and_messages_once(sqlite: Databases) -> None:
    put(sqlite.source, [person(1, age=1)])
    audited = replace(MASKED, audits=[Audit("none", "SELECT id, email FROM staged")])
    for masked, shown in ((["email"], True), (["email", "name"], False)):
        mask_letters(replace(MASKED, masked=["email"]), messages_again=False)
        with pytest.raises(GuardRefused):
            run_pipeline(replace(audited, masked=masked))
        mask_letters(replace(MASKED, masked=masked), messages_again=False)
        told = [message for message in messages(sqlite.target) if "audit" in message]
        assert any("(id = 1, email = ***)" in message for message in told) is shown, "a run of its own masks by itself"


def test_what_was_kept_before_is_masked_where_it_is_looked_at(sqlite: Databases) -> None:
    put(sqlite.source, [person(1, email="nobody")])
    run_pipeline(PEOPLE)
    with sqlite.target.connect() as connection:
        wanted = Wanted("people", masking=MASKED.masking)
        [letter] = find_letters(connection, wanted, 1)
        faults = find_faults(connection, wanted)
    assert (letter.record["email"], letter.record_types["email"]) == ("***", "masked")
    assert sorted((fault.column, fault.examples) for fault in faults) == [("age", [-1]), ("email", ["***"])]


def test_every_text_between_which_a_message_quotes_is_in_the_code() -> None:
    tasks = Path(__file__).parents[3] / "tasks"
    code = "\n".join(file.read_text() for file in tasks.rglob("*.py") if file.name != "emptied.py")
    # A message goes on over the ends of lines.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [text for pair in QUOTING for text in pair if text not in code] == []
