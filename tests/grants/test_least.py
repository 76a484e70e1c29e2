"""What is printed is enough for every kind of pipeline, and none of it can be left out."""

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import NullPool, create_engine, inspect
from sqlalchemy.exc import DBAPIError

from deployments.grants import LEDGER_ROLE, LETTERS_ROLE
from tasks import connections
from tasks.errors import SourceError, TargetError, TidegateError
from tasks.extract.feed import Feed
from tasks.extract.triggers import TriggerExtract
from tasks.pipeline import Letters, Pipeline, remove_feed, run_pipeline
from tasks.recovery.letters.erase import Person, erase_letters
from tasks.recovery.letters.expire import expire_letters
from tasks.recovery.letters.mask import mask_letters
from tests.conftest import Databases
from tests.extract.followed import execute, rows
from tests.grants.roles import SOURCE, TARGET, AsRoles, bare, empty, unmake
from tests.grants.shop import build, change, pipelines, run_all

NAMES = tuple(pipelines("postgresql"))


def prepare(roles: AsRoles, *made: Pipeline) -> None:
    """Everything is there, and what is printed for `made` has been run."""
    build(roles.source, roles.target)
    roles.grant(*made)
    for pipeline in made:
        if roles.source.dialect.name == "mariadb" and isinstance(pipeline.extract, TriggerExtract):
            # The log's name is drawn by a run, which is refused; from then on it is printed.
            with pytest.raises(SourceError):
                run_pipeline(pipeline)
            roles.grant(pipeline)


def made_for(roles: AsRoles) -> dict[str, Pipeline]:
    return pipelines(roles.source.dialect.name)


def test_every_kind_of_pipeline_runs_with_what_is_printed_for_it(roles: AsRoles) -> None:
    made = made_for(roles)
    prepare(roles, *made.values())
    run_all(made, roles.source)
    bad = rows(roles.target, "SELECT DISTINCT pipeline FROM etl_dead_letters WHERE status = 'open'")
    assert {name for (name,) in bad} == set(made) - {"mart"}
    for pipeline in made.values():
        if isinstance(pipeline.extract, Feed):
            remove_feed(pipeline)
    connections.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_none_of_what_is_printed_for_a_pipeline_can_be_left_out(
    name: str, chosen: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pipelines(chosen.source.dialect.name)
    if name not in made:
        pytest.skip("only PostgreSQL's log is followed by SQL")
    survived: dict[str, str] = {}
    waiting: list[str | None] = [None]
    while waiting:
        roles = replace(bare(chosen, monkeypatch), left_out=waiting.pop())
        try:
            message = exercised(roles, made, name)
            if roles.left_out is None:
                assert message == ""
                sections = [section for section in roles.sections(made[name]) if section.login]
                waiting += [statement for section in sections for statement in section.statements]
            elif "tidegate grants" not in message and "permission denied for database" not in message:
                survived[roles.left_out] = message
        finally:
            unmake(roles)
            empty(roles)
    assert survived == {}


@pytest.mark.slow
@pytest.mark.mariadb
@pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX"])
def test_no_right_on_a_database_of_mariadb_can_be_left_out(
    right: str, mariadb_target: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = replace(bare(mariadb_target, monkeypatch), right_left_out=right)
    try:
        made = made_for(roles)
        with pytest.raises(TargetError, match="A right is missing: `tidegate grants"):
            prepare(roles, *made.values())
            run_all(made, roles.source)
    finally:
        unmake(roles)


def exercised(roles: AsRoles, made: dict[str, Pipeline], name: str) -> str:
    """Why `name` cannot be run and run again, and its feed removed; nothing where it can."""
    pipeline = made[name]
    before = [made["cursor"]] if pipeline.depends_on else []
    with roles.source.connect():
        # Somebody else is at the source, too.
        try:
            prepare(roles, *before, pipeline)
            for one in before:
                run_pipeline(one)
                if roles.target.dialect.name == "postgresql":
                    # As if a role of its own loaded it.
                    execute(roles.target, f"ALTER TABLE {one.load.table} OWNER TO CURRENT_USER")
                    roles.grant(pipeline)
            run_pipeline(pipeline)
            change(roles.source)
            run_pipeline(pipeline)
            if isinstance(pipeline.extract, Feed):
                remove_feed(pipeline)
        except TidegateError as error:
            return str(error)
    return ""


_MARIADB = pytest.mark.mariadb


@pytest.mark.parametrize(
    "chosen", ["postgresql", pytest.param("mariadb_target", marks=[_MARIADB, pytest.mark.slow])], indirect=True
)
@pytest.mark.parametrize(("role", "sees"), [(LEDGER_ROLE, "etl_runs"), (LETTERS_ROLE, "etl_dead_letters")])
def test_people_see_what_their_role_is_for_and_nothing_else(roles: AsRoles, role: str, sees: str) -> None:
    pipeline = made_for(roles)["query"]
    prepare(roles, pipeline)
    run_pipeline(pipeline)
    # Before the first run there was nothing to grant a right on.
    roles.grant(pipeline)
    seen = set()
    target, name = roles.target, roles.target.dialect.name
    execute(target, f"CREATE USER anna{'' if name == 'postgresql' else '@localhost'}",
            f"GRANT {role} TO anna{'' if name == 'postgresql' else '@localhost'}")  # fmt: skip
    anna = create_engine(target.url.set(username="anna"), poolclass=NullPool)
    if name != "postgresql":
        execute(target, f"SET DEFAULT ROLE {role} FOR anna@localhost")
    try:
        for table in inspect(target).get_table_names():
            with contextlib.suppress(DBAPIError), anna.connect() as connection:
                connection.exec_driver_sql(f"SELECT * FROM {table}")
                seen.add(table)
    finally:
        execute(target, "DROP USER anna" + ("" if name == "postgresql" else "@localhost"))
    assert sees in seen
    assert ("etl_dead_letters" in seen, "etl_runs" in seen, "fct_query" in seen) == (
        role == LETTERS_ROLE, role == LEDGER_ROLE, False)  # fmt: skip


@pytest.mark.parametrize("chosen", ["postgresql", pytest.param("mariadb_target", marks=_MARIADB)], indirect=True)
def test_who_loads_may_mask_empty_delete_and_erase_dead_letters_too(roles: AsRoles) -> None:
    always = Letters(keep_closed=timedelta(microseconds=1), keep_open=timedelta(microseconds=1))
    pipeline = replace(made_for(roles)["query"], letters=always)
    prepare(roles, pipeline)
    change(roles.source)
    run_pipeline(pipeline)
    assert mask_letters(replace(pipeline, masked=["amount"])).letters == 1
    assert expire_letters(pipeline).emptied == 1
    assert erase_letters(pipeline, Person(key={"id": "6"}), "a trial").letters == 1
    assert expire_letters(pipeline).deleted == 1


@pytest.mark.parametrize("chosen", ["postgresql", pytest.param("mariadb_target", marks=_MARIADB)], indirect=True)
def test_a_missing_right_names_the_pipeline_the_connection_and_the_command(roles: AsRoles) -> None:
    pipeline = made_for(roles)["cursor"]
    prepare(roles, pipeline)
    name = roles.target.dialect.name
    if name == "postgresql":
        execute(roles.target, f"REVOKE SELECT ON dim_regions FROM {TARGET}")
    else:
        execute(roles.target, f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {TARGET}@localhost",
                f"GRANT CREATE ON {roles.target.url.database}.* TO {TARGET}@localhost")  # fmt: skip
    with pytest.raises(TargetError, match=r"A right is missing: `tidegate grants cursor --connection target`"):
        run_pipeline(pipeline)


def test_a_right_that_is_missing_at_the_source_is_fatal_and_in_the_ledger(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = bare(postgresql, monkeypatch)
    try:
        pipeline = replace(pipelines("postgresql")["query"], max_attempts=4)
        prepare(roles, pipeline)
        execute(roles.source, f'REVOKE SELECT ON shop."Prices" FROM {SOURCE}')
        with pytest.raises(SourceError, match=r"(?s)permission denied.*`tidegate grants query --connection source`"):
            run_pipeline(pipeline)
        [(status, message)] = rows(roles.target, "SELECT status, message FROM etl_runs")
        assert status == "failed" and "`tidegate grants query --connection source`" in message
    finally:
        unmake(roles)


def test_a_table_of_a_superuser_is_not_published_by_membership(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = bare(postgresql, monkeypatch)
    try:
        build(roles.source, roles.target)
        [section] = [one for one in roles.sections(pipelines("postgresql")["log"]) if one.connection == "source"]
        [membership] = [one for one in section.statements if "rolsuper" in one]
        with pytest.raises(DBAPIError, match="belongs to a superuser"):
            execute(roles.source, membership)
    finally:
        unmake(roles)
