"""What the role of a `TriggerExtract` needs, and what it says when it has not got it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, NullPool, create_engine, make_url

from tasks import connections
from tasks.errors import SourceError
from tasks.pipeline import remove_feed, run_pipeline
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute, loaded, logs, rows, terms, triggers

NAME = "tidegate_reader"


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def admin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Whoever owns the table; the pipeline's own role may do nothing yet."""
    databases: Databases = request.getfixturevalue(request.param)
    engine = create_engine(databases.source_url, poolclass=NullPool)
    execute(engine, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1)")
    if request.param == "postgresql":
        execute(engine, f"CREATE ROLE {NAME} LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    else:
        execute(engine, f"CREATE USER {NAME}@localhost", "SET GLOBAL log_bin_trust_function_creators = 1")
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", make_url(databases.source_url).set(username=NAME).render_as_string())
    yield engine
    connections.dispose()
    if request.param == "postgresql":
        execute(engine, f"DROP OWNED BY {NAME} CASCADE", f"DROP ROLE {NAME}")
    else:
        execute(engine, f"DROP USER {NAME}@localhost", "SET GLOBAL log_bin_trust_function_creators = 0")


@pytest.fixture
def target(request: pytest.FixtureRequest, admin: Engine) -> Engine:
    return connections.engine("target")


def grants(message: str) -> list[str]:
    """The statements that an error names."""
    return [f"GRANT {part.split(';')[0].rstrip(' .')}" for part in message.split("GRANT ")[1:]]


def test_the_error_names_the_grants_and_they_are_enough(admin: Engine, target: Engine) -> None:
    if admin.dialect.name == "mariadb":
        # To connect to the database at all.
        execute(admin, "CREATE TABLE others (id int)", f"GRANT SELECT ON others TO {NAME}@localhost")
    granted: set[str] = set()
    for _ in range(4):
        try:
            run_pipeline(BOOKINGS)
            break
        except SourceError as error:
            new = [grant for grant in grants(str(error)) if grant != "GRANT SUPER"]
            assert new and not set(new) <= granted, error
            granted.update(new)
            execute(admin, *new)
    assert granted
    execute(admin, "INSERT INTO bookings VALUES (2, 'B', 2)", "UPDATE bookings SET seat = 'C' WHERE id = 1")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 1, "updated": 1}
    assert loaded(target) == rows(admin)
    remove_feed(BOOKINGS)
    assert logs(admin) == triggers(admin) == []


@pytest.mark.mariadb
def test_where_a_binary_log_asks_for_more_the_error_says_so(
    mariadb: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = create_engine(mariadb.source_url, poolclass=NullPool)
    execute(admin, TABLE, f"CREATE USER {NAME}@localhost", f"GRANT ALL ON {admin.url.database}.* TO {NAME}@localhost")
    try:
        monkeypatch.setenv("TIDEGATE_SOURCE_URL", make_url(mariadb.source_url).set(username=NAME).render_as_string())
        with pytest.raises(SourceError, match="log_bin_trust_function_creators = 1"):
            run_pipeline(BOOKINGS)
        execute(admin, "INSERT INTO bookings VALUES (1, 'A', 1)")
    finally:
        connections.dispose()
        execute(admin, f"DROP USER {NAME}@localhost")


def test_row_security_that_is_switched_on_later_is_refused_and_loses_nothing(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = create_engine(postgresql.source_url, poolclass=NullPool)
    execute(admin, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)", f"CREATE ROLE {NAME} LOGIN")
    execute(admin, f"GRANT SELECT, TRIGGER ON bookings TO {NAME}", f"GRANT CREATE ON SCHEMA public TO {NAME}")
    try:
        monkeypatch.setenv("TIDEGATE_SOURCE_URL", make_url(postgresql.source_url).set(username=NAME).render_as_string())
        run_pipeline(BOOKINGS)
        execute(admin, "ALTER TABLE bookings ENABLE ROW LEVEL SECURITY", "INSERT INTO bookings VALUES (3, 'C', 3)")
        with pytest.raises(SourceError, match="row security hides rows"):
            run_pipeline(BOOKINGS)
        execute(admin, "ALTER TABLE bookings DISABLE ROW LEVEL SECURITY")
        run_pipeline(BOOKINGS)
        assert loaded(postgresql.target) == rows(admin)
    finally:
        connections.dispose()
        execute(admin, f"DROP OWNED BY {NAME} CASCADE", f"DROP ROLE {NAME}")
