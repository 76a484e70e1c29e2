"""Tables that `TriggerExtract` does not follow, because rows of theirs would change unseen or in no order."""

from dataclasses import replace

import pytest

from tasks.errors import ConfigError, SourceError
from tasks.extract.triggers import TriggerExtract
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute, logs, triggers

REFUSED = {
    "a view": ("CREATE VIEW t AS SELECT 1 AS id", ["id"], "triggers? (tells|follows?)"),
    "no table": ("SELECT 1", ["id"], "There is no table"),
    "no such column": ("CREATE TABLE t (id int NOT NULL PRIMARY KEY)", ["no"], "there is no column 'no'"),
    "not unique": ("CREATE TABLE t (id int NOT NULL PRIMARY KEY, k int NOT NULL)", ["k"], "Declare the primary key"),
    "reserved": ("CREATE TABLE t (id int NOT NULL PRIMARY KEY, etl_before int)", ["id"], "reserved"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_triggers_cannot_follow_is_refused_before_anything_is_made(sources: Databases, case: str) -> None:
    table, key, message = REFUSED[case]
    execute(sources.source, table)
    with pytest.raises(SourceError, match=message):
        run_pipeline(replace(BOOKINGS, extract=TriggerExtract("source", "t", key=key)))
    assert logs(sources.source) == triggers(sources.source) == []


@pytest.mark.parametrize("key", [[], ["id", "id"]])
def test_a_key_of_no_column_or_a_doubled_one_is_refused(key: list[str]) -> None:
    with pytest.raises(ConfigError, match="needs a key of one or more different columns"):
        TriggerExtract("source", "t", key=key)


@pytest.mark.parametrize("case", ["partitioned", "inherited"])
def test_rows_that_a_trigger_would_not_see_are_refused(postgresql: Databases, case: str) -> None:
    execute(postgresql.source, TABLE)
    run_pipeline(BOOKINGS)
    execute(
        postgresql.source,
        {
            "partitioned": "CREATE TABLE t (id bigint PRIMARY KEY) PARTITION BY RANGE (id)",
            "inherited": "CREATE TABLE children () INHERITS (bookings)",
        }[case],
    )
    pipeline = replace(BOOKINGS, extract=TriggerExtract("source", "t", key="id")) if case == "partitioned" else BOOKINGS
    with pytest.raises(SourceError, match="a trigger tells of the rows of a plain table"):
        run_pipeline(pipeline)


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE t (id int NOT NULL PRIMARY KEY) ENGINE = MyISAM"], "a plain table of InnoDB"),
        (
            ["CREATE TABLE t (id int NOT NULL PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2"],
            "a plain table of InnoDB",
        ),
        (
            [
                "CREATE TABLE parents (id int NOT NULL PRIMARY KEY)",
                "CREATE TABLE t (id int NOT NULL PRIMARY KEY, parent int, "
                "CONSTRAINT child FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
            ],
            "the foreign key 'child' changes rows without firing a trigger",
        ),
    ],
    ids=["another engine", "partitioned", "cascading"],
)
def test_a_table_whose_rows_change_without_a_trigger_is_refused(
    mariadb: Databases, statements: list[str], message: str
) -> None:
    execute(mariadb.source, *statements)
    with pytest.raises(SourceError, match=message):
        run_pipeline(replace(BOOKINGS, extract=TriggerExtract("source", "t", key=["id"])))
    assert logs(mariadb.source) == triggers(mariadb.source) == []
