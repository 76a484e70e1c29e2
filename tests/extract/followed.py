"""A table of bookings that triggers follow, on whichever database, and those who write to it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pandera.pandas as pa
from sqlalchemy import Connection, Engine, NullPool, create_engine, inspect, text

from tasks.extract.triggers import TriggerExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla
from tasks.report import RunReport


class BookingSchema(pa.DataFrameModel):
    id: int
    seat: str = pa.Field(nullable=True)
    price: float = pa.Field(nullable=True, ge=0)


BOOKINGS = Pipeline(
    name="bookings",
    extract=TriggerExtract("source", "bookings", key=["id"]),
    schema=BookingSchema,
    load=Upsert("target", "fct_bookings", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)
TABLE = "CREATE TABLE bookings (id bigint NOT NULL PRIMARY KEY, seat varchar(20), price double precision)"


def execute(engine: Engine, *statements: str) -> None:
    """All statements in one transaction, as far as the database has DDL in one."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


@contextlib.contextmanager
def session(engine: Engine) -> Iterator[Connection]:
    """Another client, whose transaction begins with its first statement; it is rolled back unless it commits."""
    with create_engine(engine.url, poolclass=NullPool).connect() as connection:
        yield connection


def quoted(engine: Engine, name: str) -> str:
    """An identifier, for `execute`."""
    quote = "`" if engine.dialect.name == "mariadb" else '"'
    return quote + name.replace(quote, quote * 2) + quote


def rows(engine: Engine, query: str = "SELECT id, seat, price FROM bookings ORDER BY id") -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def loaded(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT id, seat, price FROM fct_bookings ORDER BY id")


def terms(report: RunReport) -> dict[str, int]:
    """What a run counted, without the zeros."""
    return {name: value for name, value in report.counts.as_dict().items() if value}


def logs(engine: Engine) -> list[str]:
    """Names of the change logs in the source."""
    return [name for name in inspect(engine).get_table_names() if name.startswith("tidegate_")]


def log_of(engine: Engine) -> str:
    [name] = logs(engine)
    return engine.dialect.identifier_preparer.quote(name)


def waiting(engine: Engine) -> int:
    """How many changes are in the log."""
    changes = "('insert', 'update', 'delete', 'truncate')"
    return int(rows(engine, f"SELECT count(*) FROM {log_of(engine)} WHERE etl_operation IN {changes}")[0][0])


def triggers(engine: Engine) -> list[str]:
    """Names of the triggers in the source."""
    query = {
        "postgresql": "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "mariadb": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
    }[engine.dialect.name]
    return sorted(name for (name,) in rows(engine, query))


def drop_trigger(engine: Engine, name: str) -> None:
    execute(engine, f"DROP TRIGGER {name}" + (" ON bookings" if engine.dialect.name == "postgresql" else ""))


def writes_once(engine: Engine, *statements: str) -> Any:
    """A transform that writes to the source in the middle of a run, the first time it is called."""
    done: list[bool] = []

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        if not done and len(raw):
            done.append(True)
            execute(engine, *statements)
        return raw

    return transform
