"""`Audit`: what is staged is looked at inside the commit, and what is wrong never becomes visible."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.schema import CreateTable, DropTable

from tasks.dialects import dialect_of
from tasks.errors import ConfigError, GuardRefused, TargetError, remember_secret
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.replace import Replace
from tasks.load.target import staged_table
from tasks.pipeline import Audit, Pipeline, run_pipeline
from tasks.state.tables import dead_letters, runs, windows
from tasks.transform.audits import AuditCheck
from tests.conftest import Databases, on_postgresql_too
from tests.orders import ORDERS, SNAPSHOT, loaded, order, put, remove

CHEAP = Audit("no order above 100", "SELECT id, amount FROM staged WHERE amount > 100 ORDER BY id")


def audited(*audits: Audit, pipeline: Pipeline = ORDERS) -> Pipeline:
    return replace(pipeline, audits=audits)


def test_a_window_in_which_an_audit_finds_rows_is_refused_with_its_name_and_the_first_of_them(
    targets: Databases,
) -> None:
    put(targets.source, [order(1)])
    run_pipeline(audited(CHEAP))
    put(targets.source, [order(number, amount=100 + number, day=1) for number in range(6)])
    before = loaded(targets.target)
    with pytest.raises(GuardRefused) as refused:
        run_pipeline(audited(CHEAP))
    said = str(refused.value)
    assert "the audit 'no order above 100' found 5 rows" in said
    assert "(id = 1, amount = 101.0); (id = 2, amount = 102.0); (id = 3, amount = 103.0); …" in said
    assert loaded(targets.target) == before
    with targets.target.connect() as connection:
        [entry] = connection.execute(select(runs).where(runs.c.status == "refused")).all()
        assert (entry.message, entry.inserted, entry.updated) == (said, 0, 0)
        assert connection.execute(select(windows.c.status).where(windows.c.attempt == entry.attempt)).scalar_one() == (
            "refused"
        )


def test_after_the_mending_the_refused_rows_come_again(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=101), order(2)])
    with pytest.raises(GuardRefused, match="found 1 rows"):
        run_pipeline(audited(CHEAP))
    put(sqlite.source, [order(1, amount=99)])
    assert run_pipeline(audited(CHEAP)).counts.inserted == 2


def test_an_audit_sees_neither_dead_letters_nor_older_versions_of_a_key(databases: Databases) -> None:
    twice = "SELECT 1 AS id, 'ann' AS customer, 500.0 AS amount, '2026-01-01T00:00:00Z' AS updated_at"
    query = f"{twice} UNION ALL SELECT 1, 'ann', 5.0, '2026-01-02T00:00:00Z' UNION ALL SELECT 2, 'bob', -500.0, NULL"
    pipeline = audited(CHEAP, Audit("no debt", "SELECT * FROM staged WHERE amount < 0"))
    report = run_pipeline(replace(pipeline, extract=TableExtract("source", query=query)))
    assert (report.counts.inserted, report.counts.deduplicated, report.counts.rejected) == (1, 1, 1)


def test_an_audit_may_look_at_the_target_as_it_was(databases: Databases) -> None:
    """The audit's own WITH is no hindrance, nor a column called like a parameter, a comment at the end, a semicolon."""
    halved = Audit(
        "no amount is halved",
        """
        WITH was AS (SELECT id, amount AS was FROM fct_orders)
        SELECT staged.id, was.was, ':x' AS note FROM staged JOIN was ON was.id = staged.id
        WHERE staged.amount < was.was / 2; -- :y
        """,
    )
    put(databases.source, [order(1, amount=10)])
    run_pipeline(audited(halved))
    put(databases.source, [order(1, amount=5, day=1)])
    assert run_pipeline(audited(halved)).counts.updated == 1
    put(databases.source, [order(1, amount=1, day=2)])
    with pytest.raises(GuardRefused, match=r"\(id = 1, was = 5.0, note = :x\)"):
        run_pipeline(audited(halved))


def test_a_deleted_row_is_not_on_its_way_in(sqlite: Databases) -> None:
    pipeline = replace(
        audited(Audit("every order has a customer", "SELECT * FROM staged WHERE customer IS NULL")),
        extract=TriggerExtract("source", "orders", key=["id"]),
    )
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(pipeline)
    remove(sqlite.source, [1])
    assert run_pipeline(pipeline).counts.deleted == 1


def test_the_first_audit_that_finds_something_is_told(sqlite: Databases) -> None:
    every, none = Audit("every", "SELECT id FROM staged"), Audit("none", "SELECT id FROM staged WHERE false")
    put(sqlite.source, [order(1)])
    with pytest.raises(GuardRefused, match="the audit 'every' found 1 rows"):
        run_pipeline(audited(none, every, CHEAP))


def test_dead_letters_of_a_refused_window_are_kept(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=101), order(2, amount=-1)])
    with pytest.raises(GuardRefused, match="no order above 100"):
        run_pipeline(audited(CHEAP))
    with sqlite.target.connect() as connection:
        assert len(connection.execute(select(dead_letters)).all()) == 1


def test_what_an_audit_found_is_redacted_and_cut_short(sqlite: Databases) -> None:
    remember_secret("hush-hush")
    put(sqlite.source, [order(1, customer="hush-hush"), order(2, customer="x" * 500)])
    with pytest.raises(GuardRefused) as refused:
        run_pipeline(audited(Audit("none", "SELECT customer FROM staged ORDER BY id")))
    assert "(customer = ***); (customer = xxx" in str(refused.value)
    assert "x" * 200 not in str(refused.value)
    with sqlite.target.connect() as connection:
        assert "hush" not in connection.execute(select(runs.c.message)).scalar_one()


@on_postgresql_too
def test_an_audit_that_the_database_refuses_is_named(databases: Databases) -> None:
    put(databases.source, [order(1)])
    with pytest.raises(TargetError, match=r"the audit 'typo' refused: .*nobody"):
        run_pipeline(audited(Audit("typo", "SELECT nobody FROM staged")))
    with databases.target.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM fct_orders")).scalar_one() == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM fct_orders", "orders: the audit 'x' does not read 'staged'"),
        ("SELECT * FROM staged WHERE amount > :start", "has the parameter 'start', and no value for it. Write the"),
        ("DELETE FROM staged", "has to be one SELECT that only reads, and holds DELETE"),
    ],
)
def test_what_is_no_audit_is_refused_before_anything_is_read(sqlite: Databases, query: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_pipeline(audited(Audit("x", query)))


def test_an_audit_may_be_a_file_and_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cheap.sql").write_text(CHEAP.sql)
    assert Audit(CHEAP.name, file="cheap.sql").sql == CHEAP.sql
    with pytest.raises(ConfigError, match="give it one, such as"):
        Audit(" ", file="cheap.sql")
    with pytest.raises(ConfigError, match=r"The audit 'x': there is no file 'absent.sql'"):
        Audit("x", file="absent.sql")


def test_an_audit_tells_what_it_reads_beside_the_staged_rows() -> None:
    assert Audit("x", "SELECT * FROM staged JOIN fct_orders ON true JOIN dim.x ON true").reads == {
        "fct_orders",
        "dim.x",
    }
    assert Audit("x", "SELECT `a` FROM staged JOIN `b` ON true").reads == {"b"}
    with pytest.raises(ConfigError, match="The audit 'x': The SQL cannot be read as postgres"):
        _ = Audit("x", "SELECT (").reads


def test_an_audit_reads_the_staged_rows_of_a_replace(sqlite: Databases) -> None:
    pipeline = audited(CHEAP, pipeline=replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"])))
    put(sqlite.source, [order(1)])
    run_pipeline(pipeline)
    put(sqlite.source, [order(1, amount=1000)])
    with pytest.raises(GuardRefused, match=r"found 1 rows, and there may be none: \(id = 1, amount = 1000.0\)\. "):
        run_pipeline(pipeline)


def test_an_audit_is_run_by_every_database_that_can_be_a_target(sources: Databases) -> None:
    """Even one with a WITH of its own, which on MariaDB sees no other."""
    high = "WITH high AS (SELECT s.id FROM staged AS s JOIN staged ON staged.id = s.id WHERE s.amount > 100) "
    audit = Audit("no % above 100", high + "SELECT id FROM high; -- odd")
    engine, rows = sources.source, [(1, 5.0, False), (2, 500.0, False), (3, 600.0, True)]
    staged = staged_table("etl_staged_1", pa.schema({"id": pa.int64(), "amount": pa.float64()}), changes=True)
    with engine.begin() as connection:
        connection.execute(CreateTable(staged))
        connection.execute(insert(staged), [dict(zip(staged.c.keys(), (0, *row), strict=True)) for row in rows])
        said = AuditCheck([audit], dialect_of(engine), staged, "orders").refusal(connection)
        connection.execute(DropTable(staged))
    assert said is not None
    assert said.startswith("orders: the audit 'no % above 100' found 1 rows, and there may be none: (id = 2). ")
