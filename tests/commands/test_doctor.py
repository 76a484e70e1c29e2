"""`tidegate doctor` without a server: databases, rights, clocks, slots, and nothing left behind."""

import json
from collections.abc import Iterator
from importlib import metadata

import pytest
from sqlalchemy import create_engine, inspect, make_url, text, update

from deployments.doctor.programs import examine_programs
from tasks import connections
from tasks.pipeline import remove_feed, run_pipeline
from tasks.state import schema
from tests.commands.conftest import Declare, Tidegate, untouched
from tests.conftest import Databases, on_every_target
from tests.extract.shop import Serve
from tests.orders import ORDERS, loaded, order, put
from tests.scripted_server import Reply

LOGGED = """
from dataclasses import replace
from tasks.extract.log import LogExtract
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, name="logged", extract=LogExtract("source", "orders", max_lag=1_000_000))
"""
RECORDS = """
from tests.extract.shop import BY_TIME as PIPELINE
"""

Findings = dict[str, tuple[str, str, str | None]]


def findings(tidegate: Tidegate, code: int = 0) -> Findings:
    """What was found, by what it is about: verdict, text and remedy."""
    shown = tidegate("doctor", "--json")
    assert shown.exit_code == code, shown.output
    return {one["about"]: (one["verdict"], one["text"], one["remedy"]) for one in json.loads(shown.stdout)}


@untouched
@on_every_target
def test_what_is_well_is_said_to_be_and_nothing_is_left_behind(
    databases: Databases, orders: str, tidegate: Tidegate
) -> None:
    put(databases.source, [order(1)])
    found = findings(tidegate)
    assert {about: verdict for about, (verdict, *_) in found.items()} == {
        "versions": "ok",
        "connection source": "ok",
        "clock of source": "ok",
        "source of orders": "ok",
        "connection target": "ok",
        "clock of target": "ok",
        "target target": "ok",
        "state tables in target": "ok",
        "server": "warn",
    }
    assert inspect(databases.target).get_table_names() == []
    assert inspect(databases.source).get_table_names() == ["orders"]
    assert "loaded by orders" in found["connection target"][1]
    assert "PREFECT_API_URL is not set" in found["server"][1]
    run_pipeline(ORDERS)
    found = findings(tidegate)
    assert found["state tables in target"][1] == f"they are at version {schema.HEAD}."
    assert found["target of orders"][:2] == ("ok", "rows of fct_orders can be written.")


@pytest.fixture
def stranger(postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that may do nothing but connect, as whom both databases are used."""
    with postgresql.target.begin() as connection:
        connection.execute(text("CREATE ROLE stranger LOGIN"))
    for name, url in (("SOURCE", postgresql.source_url), ("TARGET", postgresql.target_url)):
        as_stranger = make_url(url).set(username="stranger", password="open-sesame-4")
        monkeypatch.setenv(f"TIDEGATE_{name}_URL", as_stranger.render_as_string(hide_password=False))
    yield "stranger"
    connections.dispose()
    monkeypatch.setenv("TIDEGATE_TARGET_URL", postgresql.target_url)
    with postgresql.target.begin() as connection:
        connection.execute(text("DROP OWNED BY stranger"))
        connection.execute(text("DROP ROLE stranger"))


def test_a_role_that_may_not_read_or_not_create_fails(
    postgresql: Databases, orders: str, tidegate: Tidegate, request: pytest.FixtureRequest
) -> None:
    put(postgresql.source, [order(1)])
    connections.dispose()
    request.getfixturevalue("stranger")
    shown = tidegate("doctor")
    assert shown.exit_code == 1
    assert "open-sesame-4" not in shown.output and "postgresql+psycopg://stranger:***@" in shown.output
    found = findings(tidegate, 1)
    assert " as stranger; " in found["connection target"][1]
    verdict, why, remedy = found["source of orders"]
    assert verdict == "fail" and "permission denied" in why and "SELECT on orders" in str(remedy)
    verdict, why, remedy = found["target target"]
    assert verdict == "fail" and "permission denied" in why and "CREATE" in str(remedy)


def test_a_role_that_may_not_write_a_target_that_is_there_fails(
    postgresql: Databases, orders: str, tidegate: Tidegate, request: pytest.FixtureRequest
) -> None:
    put(postgresql.source, [order(1)])
    run_pipeline(ORDERS)
    before = loaded(postgresql.target)
    connections.dispose()
    request.getfixturevalue("stranger")
    administrator = create_engine(postgresql.target_url)
    with administrator.begin() as connection:
        connection.execute(text("GRANT SELECT, INSERT, DELETE ON fct_orders TO stranger"))
    found = findings(tidegate, 1)
    verdict, why, remedy = found["state tables in target"]
    assert verdict == "fail" and "permission denied" in why and "tidegate grants" in str(remedy)
    verdict, why, remedy = found["target of orders"]
    assert verdict == "fail" and "permission denied for table fct_orders" in why
    assert "tidegate grants orders" in str(remedy)
    with administrator.begin() as connection:
        connection.execute(text("GRANT UPDATE ON fct_orders TO stranger"))
    assert findings(tidegate, 1)["target of orders"][0] == "ok"
    assert loaded(administrator) == before
    administrator.dispose()


def test_another_prefect_than_the_file_asks_for_is_told() -> None:
    (same,) = examine_programs({"prefect-version": metadata.version("prefect")})
    (other,) = examine_programs({"prefect-version": "3.0.0"})
    assert (same.verdict, other.verdict) == ("ok", "warn")
    assert f"Prefect {metadata.version('prefect')}; prefect.yaml is for Prefect 3.0.0." in other.text
    assert "pip install prefect==3.0.0" in str(other.remedy)


def test_a_table_that_is_not_there_and_a_database_that_is_away_fail_each_by_itself(
    sqlite: Databases, orders: str, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(tidegate, 1)["source of orders"][0] == "fail"
    monkeypatch.setenv("TIDEGATE_TARGET_URL", "postgresql://etl:open-sesame-5@127.0.0.1:1/warehouse")
    shown = tidegate("doctor")
    assert shown.exit_code == 1
    assert "fail  connection target: SourceUnavailable" in shown.stdout
    assert "ok    connection source" in shown.stdout
    assert "open-sesame-5" not in shown.output
    assert "TIDEGATE_TARGET_URL" in shown.stdout


def test_a_clock_that_is_wrong_is_told_with_how_much(postgresql: Databases, orders: str, tidegate: Tidegate) -> None:
    put(postgresql.source, [order(1)])
    name = postgresql.source.url.database
    with postgresql.source.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET search_path = public, pg_catalog"))
        connection.execute(
            text(
                "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
                "AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 minute' $$"
            )
        )
    connections.dispose()
    try:
        verdict, why, remedy = findings(tidegate)["clock of source"]
    finally:
        with postgresql.source.begin() as connection:
            connection.execute(text(f"ALTER DATABASE {name} RESET search_path"))
            connection.execute(text("DROP FUNCTION public.clock_timestamp()"))
        connections.dispose()
    assert verdict == "warn" and "by +60.0 s" in why and "NTP" in str(remedy)


def test_state_tables_of_another_version_are_told(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    for version, verdict, code in (("0001", "warn", 0), ("9999", "fail", 1)):
        with sqlite.target.begin() as connection:
            connection.execute(update(schema._version).values(version_num=version))
        assert findings(tidegate, code)["state tables in target"][0] == verdict
        refused = tidegate("runs", "orders")
        assert refused.exit_code == 1 and f"at version '{version}'" in refused.stderr


def test_a_slot_of_a_target_that_is_away_fails_alone(
    sqlite: Databases, declare: Declare, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("logged", LOGGED)
    for name in ("SOURCE", "TARGET"):
        monkeypatch.setenv(f"TIDEGATE_{name}_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    found = findings(tidegate, 1)
    assert {found[about][0] for about in ("connection source", "connection target", "slot of logged")} == {"fail"}
    assert "Mend the connections above first." in str(found["slot of logged"][2])
    assert "server" in found


def test_a_slot_is_there_lags_or_is_lost(postgresql: Databases, declare: Declare, tidegate: Tidegate) -> None:
    declare("logged", LOGGED)
    from flows.logged import PIPELINE  # type: ignore[import-not-found]

    put(postgresql.source, [order(1)])
    assert "the first run makes it" in findings(tidegate)["slot of logged"][1]
    run_pipeline(PIPELINE)
    try:
        verdict, why, _ = findings(tidegate)["slot of logged"]
        assert verdict == "ok" and "bytes of log at source; nobody is reading it" in why
        with postgresql.source.begin() as connection:
            connection.execute(text("CREATE TABLE much AS SELECT repeat(n::text, 50) FROM generate_series(1, 20000) n"))
        verdict, why, remedy = findings(tidegate, 1)["slot of logged"]
        assert verdict == "fail" and "more than max_lag=1,000,000" in str(remedy)
        with postgresql.source.begin() as connection:
            connection.execute(
                text("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ 'logged'")
            )
        verdict, why, remedy = findings(tidegate, 1)["slot of logged"]
        assert verdict == "fail" and "is not there, and changes are lost" in why and "--full-refresh" in str(remedy)
    finally:
        remove_feed(PIPELINE)


def test_an_api_is_asked_for_its_clock_and_for_an_empty_page(
    sqlite: Databases, declare: Declare, tidegate: Tidegate, serve: Serve
) -> None:
    declare("records", RECORDS)
    server = serve({"/clock": [Reply({"now": "2013-01-09T00:00:00Z"})], "/number": [Reply({"rows": []})]})
    found = findings(tidegate)
    assert found["connection shop"][0] == found["source of records"][0] == "ok"
    assert server.url in found["connection shop"][1]
    assert [target for target in server.targets if target.startswith("/number")] == [
        "/number?since=2013-01-08T23%3A59%3A59Z&page=1"
    ]


def test_an_api_that_refuses_us_or_is_away_fails(
    sqlite: Databases, declare: Declare, tidegate: Tidegate, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("records", RECORDS)
    serve({"/clock": [Reply({"now": "2013-01-09T00:00:00Z"})], "/number": [Reply({}, 401)]})
    assert findings(tidegate, 1)["source of records"][0] == "fail"
    monkeypatch.setenv("TIDEGATE_SHOP_URL", "http://etl:open-sesame-6@127.0.0.1:1")
    shown = tidegate("doctor")
    assert shown.exit_code == 1
    assert "fail  connection shop: http://127.0.0.1:1 does not answer" in shown.stdout
    assert "open-sesame-6" not in shown.output
    monkeypatch.delenv("TIDEGATE_SHOP_URL")
    assert "TIDEGATE_SHOP_URL is not set" in findings(tidegate, 1)["connection shop"][1]
