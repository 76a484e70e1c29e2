"""`Replace` while others read: they see the table before, or the table after, and wait for nobody."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import Engine, text

from tasks.errors import GuardRefused, TargetError
from tasks.extract.table import TableExtract
from tasks.load.replace import Replace
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases

SHIFT = 100
"""So many rows are gone in each generation, and as many are new."""


class ThingSchema(pa.DataFrameModel):
    """A thing, and which generation of the source it is of."""

    id: int
    generation: int
    label: str


THINGS = Pipeline(
    name="things",
    extract=TableExtract("source", "things"),
    schema=ThingSchema,
    load=Replace("target", "fct_things", key=["id"]),
)

READER = """
import json, sys, time
from pathlib import Path
import psycopg

url, kind, rows, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
which = {"whole": "true", "one": f"id = {rows // 2}"}[kind]
statement = f"SELECT count(*), min(generation), max(generation), min(id), max(id) FROM fct_things WHERE {which}"
seen, reads, longest = set(), 0, 0.0
# Whoever waits for a lock for a second is told so, and fails.
with psycopg.connect(url, autocommit=True, options="-c lock_timeout=1s") as connection:
    while reads == 0 or not stop.exists():
        began = time.monotonic()
        seen.add(connection.execute(statement).fetchone())
        longest = max(longest, time.monotonic() - began)
        reads += 1
        if reads == 1:
            print("reading", flush=True)
print(json.dumps({"seen": sorted(seen), "reads": reads, "longest": longest}))
"""


def show(source: Engine, rows: int, generation: int) -> None:
    """Make the source a table of `rows` things, `generation` times `SHIFT` of which are others than in the first."""
    first = generation * SHIFT
    with source.begin() as connection:
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS things (id bigint PRIMARY KEY, generation int, label text)")
        )
        connection.execute(text("TRUNCATE things"))
        statement = (
            "INSERT INTO things SELECT n, :generation, 'thing ' || n "
            "FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n"
        )
        values = {"generation": generation, "first": first, "last": first + rows - 1}
        connection.execute(text(statement), values)


def read_during(databases: Databases, rows: int, folder: Path, work: Callable[[], object]) -> list[dict[str, Any]]:
    """What two processes see that read the target, whole and by its key, as fast as they can, while `work` is done."""
    url = databases.target.url.set(drivername="postgresql").render_as_string(hide_password=False)
    stop = folder / "stop"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, url, kind, str(rows), str(stop)], stdout=subprocess.PIPE, text=True
        )
        for kind in ("whole", "one")
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
        work()
    finally:
        stop.touch()
        told = [reader.communicate(timeout=120)[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    return [json.loads(one) for one in told]


def claim(databases: Databases, rows: int, folder: Path) -> list[dict[str, Any]]:
    """Replace every row, while others read; what the readers tell."""
    show(databases.source, rows, 0)
    run_pipeline(THINGS)
    show(databases.source, rows, 1)

    def change() -> None:
        counts = run_pipeline(THINGS).counts
        assert (counts.inserted, counts.deleted, counts.updated) == (SHIFT, SHIFT, rows - SHIFT)

    whole, one = read_during(databases, rows, folder, change)
    states = [[rows, number, number, number * SHIFT, number * SHIFT + rows - 1] for number in (0, 1)]
    assert [state for state in whole["seen"] if state not in states] == [], "empty, half or mixed"
    assert [state[:3] for state in one["seen"] if state[:3] not in ([1, 0, 0], [1, 1, 1])] == []
    return [whole, one]


def test_readers_see_no_table_that_never_was(postgresql: Databases, tmp_path: Path) -> None:
    claim(postgresql, 3_000, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readers_of_a_million_rows_see_no_table_that_never_was_and_never_wait(
    postgresql: Databases, tmp_path: Path
) -> None:
    whole, one = claim(postgresql, 1_000_000, tmp_path)
    print(
        f"whole table: {whole['reads']:,} reads, the longest {whole['longest']:.3f} s; "
        f"by key: {one['reads']:,} reads, the longest {one['longest']:.3f} s"
    )
    assert whole["reads"] > 10 and one["reads"] > 100
    assert one["longest"] < 1


def test_who_has_begun_to_read_sees_the_old_table_to_the_end_and_keeps_nobody_waiting(postgresql: Databases) -> None:
    """A table that is emptied or renamed would be empty to such a reader, or keep the writer waiting."""
    show(postgresql.source, 1_000, 0)
    run_pipeline(THINGS)
    count = text("SELECT count(*), max(generation) FROM fct_things")
    with postgresql.target.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        before = reader.execute(count).one()
        show(postgresql.source, 1_000, 1)
        assert run_pipeline(THINGS).counts.updated == 1_000 - SHIFT
        assert reader.execute(count).one() == before == (1_000, 0)
    with postgresql.target.connect() as connection:
        assert connection.execute(count).one() == (1_000, 1)


def test_a_refused_replace_shows_nothing_to_a_reader(postgresql: Databases, tmp_path: Path) -> None:
    show(postgresql.source, 1_000, 0)
    run_pipeline(THINGS)
    show(postgresql.source, 100, 1)

    def refused() -> None:
        with pytest.raises(GuardRefused):
            run_pipeline(THINGS)

    whole, _ = read_during(postgresql, 1_000, tmp_path, refused)
    assert whole["seen"] == [[1_000, 0, 0, 0, 999]]


def test_what_hangs_on_the_table_survives(postgresql: Databases) -> None:
    """Views, a grant, an index, a trigger, a foreign key that points at it, and the table's own number."""
    show(postgresql.source, 1_000, 0)
    run_pipeline(THINGS)
    statements = (
        "CREATE VIEW things_seen AS SELECT generation, count(*) AS things FROM fct_things GROUP BY generation",
        "CREATE MATERIALIZED VIEW things_kept AS SELECT * FROM fct_things",
        "CREATE INDEX by_generation ON fct_things (generation)",
        "CREATE ROLE tidegate_reader_of_things",
        "GRANT SELECT ON fct_things TO tidegate_reader_of_things",
        "CREATE TABLE notes (thing bigint REFERENCES fct_things, note text)",
        "INSERT INTO notes VALUES (500, 'mine')",
        "CREATE TABLE log (id bigint)",
        "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END'",
        "CREATE TRIGGER told AFTER INSERT ON fct_things FOR EACH ROW EXECUTE FUNCTION told()",
    )
    with postgresql.target.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        before = catalogue(connection)
    try:
        show(postgresql.source, 1_000, 1)
        run_pipeline(THINGS)
        with postgresql.target.begin() as connection:
            assert catalogue(connection) == before
            assert tuple(connection.execute(text("SELECT * FROM things_seen")).one()) == (1, 1_000)
            connection.execute(text("REFRESH MATERIALIZED VIEW things_kept"))
            connection.execute(text("SET LOCAL ROLE tidegate_reader_of_things"))
            assert connection.execute(text("SELECT count(*) FROM fct_things")).scalar_one() == 1_000
            connection.execute(text("RESET ROLE"))
            assert connection.execute(text("SELECT count(*) FROM log")).scalar_one() == SHIFT
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            used = connection.execute(text("EXPLAIN SELECT id FROM fct_things WHERE generation = 0")).scalars().all()
            assert any("by_generation" in line for line in used)
    finally:
        with postgresql.target.begin() as connection:
            connection.execute(text("DROP OWNED BY tidegate_reader_of_things"))
            connection.execute(text("DROP ROLE tidegate_reader_of_things"))


def test_a_row_that_something_points_at_is_not_deleted_behind_its_back(postgresql: Databases) -> None:
    """The foreign key refuses it, and with it the whole window."""
    show(postgresql.source, 1_000, 0)
    run_pipeline(THINGS)
    with postgresql.target.begin() as connection:
        connection.execute(text("CREATE TABLE notes (thing bigint REFERENCES fct_things)"))
        connection.execute(text("INSERT INTO notes VALUES (0)"))
    show(postgresql.source, 1_000, 1)
    with pytest.raises(TargetError, match="violates"):
        run_pipeline(THINGS)
    with postgresql.target.connect() as connection:
        assert connection.execute(text("SELECT max(generation) FROM fct_things")).scalar_one() == 0


def catalogue(connection: Any) -> list[Any]:
    """The table's number and file, and everything that the database knows to belong to it, or to depend on it."""
    statement = text("""
        SELECT oid::bigint, pg_relation_filenode(oid)::bigint, relacl::text,
               ARRAY(SELECT indexrelid::bigint FROM pg_index WHERE indrelid = target.oid ORDER BY 1),
               ARRAY(SELECT c.oid::bigint FROM pg_constraint AS c WHERE confrelid = target.oid ORDER BY 1),
               ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = target.oid ORDER BY 1),
               ARRAY(SELECT DISTINCT objid::bigint FROM pg_depend WHERE refobjid = target.oid ORDER BY 1)
        FROM pg_class AS target WHERE oid = 'fct_things'::regclass
    """)
    return list(connection.execute(statement).one())
