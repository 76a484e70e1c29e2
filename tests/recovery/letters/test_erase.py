"""Erasure: the data of one row or person is in no letter and no message any more; the ledger says how much, and why."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandera.pandas as pa
import pyarrow as arrow
import pytest
from sqlalchemy import insert, inspect, select

from tasks.column_types import UTC_TIMESTAMP, UUID
from tasks.dialects import dialect_of
from tasks.errors import ConfigError, GuardRefused
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Audit, run_pipeline
from tasks.recovery.letters.erase import Erased, Person, count_erasable, erase_letters
from tasks.state.dead_letters import key_columns, rejected_table
from tasks.state.row_key import row_key_of, same
from tests.conftest import Databases, on_every_target
from tests.orders import START
from tests.recovery.letters.persons import CANARY, PEOPLE, everything, kept, messages, person, put

WHY = "request 4711"


@on_every_target
def test_a_person_is_erased_by_key_wherever_the_letter_stands(databases: Databases) -> None:
    put(databases.source, [person(1), person(2, name="Bob", email="bob@other.example")])
    run_pipeline(PEOPLE)
    whose = Person(key={"id": "1"})
    assert count_erasable(PEOPLE, whose) == Erased(1, 0)
    assert CANARY in everything(databases.target), "only counted"
    assert erase_letters(PEOPLE, whose, WHY) == Erased(1, 0)
    assert CANARY not in everything(databases.target) and "Ann" not in everything(databases.target)
    erased, other = sorted(kept(databases.target), key=lambda letter: str(letter["row_key"]), reverse=True)
    assert erased["row_key"] == f"erased:{erased['letter']}"
    assert (erased["status"], erased["record"], erased["cursor_value"]) == ("discarded", {}, None)
    assert erased["reasons"] == [{"rule": "greater_than_or_equal_to(0)", "column": "age", "value": "***"}]
    assert (other["status"], other["record"]["name"]) == ("open", "Bob")
    assert messages(databases.target) == ["1 dead letters were erased: request 4711"]
    assert erase_letters(PEOPLE, whose, WHY) == Erased(0, 0)


def test_what_comes_in_again_is_a_new_letter(sqlite: Databases) -> None:
    put(sqlite.source, [person(1)])
    run_pipeline(PEOPLE)
    erase_letters(PEOPLE, Person(key={"id": "1"}), WHY)
    run_pipeline(PEOPLE, START, START + timedelta(days=1))
    assert sorted((letter["row_key"], letter["status"]) for letter in kept(sqlite.target)) == [
        ("1", "open"), ("erased:1", "discarded"),
    ]  # fmt: skip


@on_every_target
def test_a_person_is_erased_by_any_field_of_the_record_in_closed_and_nameless_letters_too(databases: Databases) -> None:
    put(databases.source, [person(1), person(2, id=None), person(3), person(4, email="bob@other.example")])
    run_pipeline(PEOPLE)
    put(databases.source, [person(1, age=5, day=1)])
    run_pipeline(PEOPLE)
    assert {letter["status"] for letter in kept(databases.target)} == {"open", "closed"}
    assert erase_letters(PEOPLE, Person(fields={"email": CANARY, "name": "Ann Miller"}), WHY).letters == 3
    assert CANARY not in everything(databases.target)
    assert [letter["record"].get("id") for letter in kept(databases.target)].count(4) == 1
    assert sorted(letter["status"] for letter in kept(databases.target)) == ["closed", "discarded", "discarded", "open"]


def test_examples_of_audits_and_values_in_messages_are_erased_with_the_letters(sqlite: Databases) -> None:
    put(sqlite.source, [person(1), person(2, age=2, id=2, name="Bob", email="bob@other.example")])
    run_pipeline(PEOPLE)
    # Neither shows the key: that it is Ann's is known by her letter.
    put(sqlite.source, [person(3, age=3, day=1)])
    with pytest.raises(GuardRefused):
        run_pipeline(replace(PEOPLE, audits=[Audit("no Ann", "SELECT email FROM staged WHERE name LIKE 'Ann%'")]))
    with pytest.raises(GuardRefused):
        run_pipeline(replace(PEOPLE, audits=[Audit("no Bob", "SELECT email FROM staged WHERE name = 'Bob'")]), START)
    whose = Person(key={"id": "1"})
    assert count_erasable(PEOPLE, whose) == erase_letters(PEOPLE, whose, WHY) == Erased(1, 1)
    told = messages(sqlite.target)
    assert "the audit 'no Ann' found 1 rows, and there may be none: ***. Nothing was written." in told[0]
    assert "(email = bob@other.example)" in told[1]
    assert told[2:] == [
        "1 dead letters were erased: request 4711",
        "1 messages of the ledger were erased: request 4711",
    ]
    assert CANARY not in everything(sqlite.target)


@pytest.mark.parametrize(
    ("whose", "reason", "why"),
    [
        ({"key": {"id": "1"}}, " ", "erased for a reason"),
        ({"fields": {"email": CANARY}}, f"asked by {CANARY}", "keep a value of the data in the reason"),
        ({"key": {"number": "1"}}, WHY, "the key of its load is id, and what is given is number"),
        ({"key": {"id": "one"}}, WHY, "what is given for the key column 'id' is no int64"),
        ({"key": {"id": "1"}, "fields": {"name": "Ann"}}, WHY, "by the key of its row or by fields"),
        ({}, WHY, "by the key of its row or by fields"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_repeats_no_value(
    sqlite: Databases, whose: dict[str, Any], reason: str, why: str
) -> None:
    put(sqlite.source, [person(1)])
    run_pipeline(PEOPLE)
    with pytest.raises(ConfigError, match=why) as caught:
        erase_letters(PEOPLE, Person(**whose), reason)
    assert CANARY not in str(caught.value)
    assert [letter["status"] for letter in kept(sqlite.target)] == ["open"]


KEYS: list[tuple[Sequence[arrow.DataType], list[Any], list[str]]] = [
    ([arrow.int64()], [7], ["7"]),
    ([arrow.string()], ["Ann#=1"], ["Ann#=1"]),
    ([arrow.string(), arrow.string()], ["a\x1fb", "c"], ["a\x1fb", "c"]),
    ([UTC_TIMESTAMP], [datetime(2026, 1, 8, 6, tzinfo=UTC)], ["2026-01-08T07:00:00+01:00"]),
    ([arrow.date32(), arrow.int32()], [datetime(2026, 1, 8, tzinfo=UTC).date(), 3], ["2026-01-08", "3"]),
    ([UUID], [uuid.UUID(int=11)], ["00000000-0000-0000-0000-00000000000B"]),
    ([arrow.decimal128(9, 2), arrow.bool_()], [None, True], ["1.50", "true"]),
]


@on_every_target
def test_a_key_as_people_type_it_is_the_text_that_its_letter_has(databases: Databases) -> None:
    engine, dialect = databases.target, dialect_of(databases.target)
    for place, (kinds, values, typed) in enumerate(KEYS):
        schema = arrow.schema([arrow.field(f"k{number}", kind) for number, kind in enumerate(kinds)])
        values = [Decimal("1.50") if value is None else value for value in values]
        table = rejected_table(f"filed_{place}", schema)
        with dialect.transaction(engine) as connection:
            table.create(connection)
        with dialect.transaction(engine) as connection:
            connection.execute(insert(table).values({f"key_{number}": value for number, value in enumerate(values)}))
            filed = connection.execute(select(dialect.key_text(key_columns(table)))).scalar_one()
        before = set(inspect(engine).get_table_names())
        assert row_key_of(engine, dialect, schema, "p", dict(zip(schema.names, typed, strict=True))) == filed
        assert set(inspect(engine).get_table_names()) == before


@pytest.mark.parametrize(
    ("value", "text", "is_it"),
    [
        ("Ann", "Ann", True),
        ("Ann", "ann", False),
        (7, "7", True),
        (7.0, "7", True),
        ("7.10", "7.1", True),
        (70, "7", False),
        (True, "true", True),
        ("2026-01-08T06:00:00+00:00", "2026-01-08T07:00:00+01:00", True),
        ("2026-01-08T06:00:00", "2026-01-08T06:00:00Z", True),
        (str(uuid.UUID(int=11)).upper(), str(uuid.UUID(int=11)), True),
        (None, "None", False),
        ("", "", True),
    ],
)
def test_a_field_is_what_was_typed_if_it_is_the_same_value(value: Any, text: str, is_it: bool) -> None:
    assert same(value, text) is is_it


class DocumentSchema(pa.DataFrameModel):
    """Any document is bad."""

    id: int
    name: str = pa.Field(str_length=1)


def test_a_field_inside_of_a_document_is_found(sqlite: Databases) -> None:
    put(sqlite.source, [person(1, name='{"contact": {"mail": "ann@x.example"}}'), person(2, name="[1]")])
    pipeline = replace(
        PEOPLE,
        schema=DocumentSchema,
        extract=TableExtract("source", "people"),
        load=Upsert("target", "t", key=["id"]),
    )
    run_pipeline(pipeline)
    assert count_erasable(pipeline, Person(fields={"mail": "ann@x.example"})) == Erased(1, 0)
