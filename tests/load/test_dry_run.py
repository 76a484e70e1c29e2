"""The SQL of a run, printed before it is run; and two runs that would both execute it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from deployments import cli
from flows.planes import PIPELINE
from tasks.errors import TargetError
from tasks.pipeline import ddl, run_pipeline
from tasks.running.assembly import Assembly
from tests.conftest import Databases
from tests.load.test_drift import WIDER
from tests.orders import ORDERS, order, put


@pytest.fixture(params=["postgresql", "sqlite"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """The two whose SQL is the same here."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def state_tables() -> bool:
    """They are the first that a run would make."""
    return False


def test_it_prints_what_the_run_then_executes(databases: Databases) -> None:
    put(databases.source, [order(1)])
    made, added = ddl(ORDERS), ["ALTER TABLE fct_orders ADD COLUMN region TEXT"]
    with databases.target.begin() as connection:
        connection.execute(text(made[0]))
    assert ddl(ORDERS) == []
    assert run_pipeline(ORDERS).counts.inserted == 1
    assert ddl(WIDER) == added


def test_it_writes_nothing(databases: Databases) -> None:
    """Neither the target nor a ledger to put a row in; and where there are both, no column."""
    ddl(ORDERS)
    assert inspect(databases.target).get_table_names() == []
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    before = everything(databases)
    ddl(WIDER)
    assert everything(databases) == before


def test_it_refuses_what_the_run_would_refuse(databases: Databases) -> None:
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    with pytest.raises(TargetError, match="'region' is not there"):
        ddl(replace(WIDER, on_drift="freeze"))


def test_the_command_prints_it(postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", postgresql.target_url)
    shown = CliRunner().invoke(cli.app, ["ddl", "planes"])
    assert shown.exit_code == 0
    assert shown.output == "".join(f"{statement};\n" for statement in ddl(PIPELINE))
    assert shown.output.startswith("CREATE TABLE dim_planes (")
    with postgresql.target.begin() as connection:
        connection.execute(text(shown.output))
    assert CliRunner().invoke(cli.app, ["ddl", "planes"]).output == "-- dim_planes: nothing to do\n"


def test_the_command_tells_what_a_run_would_refuse(sqlite: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", sqlite.target_url)
    with sqlite.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_planes (tailnum text)"))
    shown = CliRunner().invoke(cli.app, ["ddl", "planes"])
    assert shown.exit_code == 1
    assert "the table has no primary key" in shown.stderr


@pytest.mark.parametrize("name", ["nothing", "os.path", "__init__"])
def test_the_command_knows_only_pipelines(name: str) -> None:
    shown = CliRunner().invoke(cli.app, ["ddl", name])
    assert shown.exit_code == 1
    assert f"There is no flows/{name}.py with a PIPELINE in it" in shown.stderr


def test_two_runs_at_once_make_and_change_a_target_once(databases: Databases) -> None:
    """Both have looked, both wait for the lock, and the second finds the work done."""
    for pipeline in (ORDERS, WIDER):
        parts = Assembly(pipeline)
        both = Barrier(2)

        def prepare(parts: Assembly = parts, both: Barrier = both) -> int:
            both.wait(timeout=30)
            return len(parts.prepare_target().statements)

        with ThreadPoolExecutor(2) as threads:
            done = [threads.submit(prepare) for _ in range(2)]
        assert sorted(one.result() for one in done) == [0, 1]


def everything(databases: Databases) -> dict[str, object]:
    """Every table of the target with its columns, and how many rows it has."""
    inspector = inspect(databases.target)
    with databases.target.connect() as connection:
        return {
            name: (
                [column["name"] for column in inspector.get_columns(name)],
                connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one(),
            )
            for name in inspector.get_table_names()
        }
