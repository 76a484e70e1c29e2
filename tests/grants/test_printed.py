"""What `tidegate grants` prints, without a database to ask."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.grants import script, sections
from flows.nightly import GRAPH
from tasks import connections
from tasks.errors import ConfigError
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.graph import reads
from tasks.load.append import Append
from tasks.load.upsert import Upsert
from tasks.pipeline import DependsOn, Pipeline
from tests.orders import OrderSchema


def grants(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["grants", *arguments])


def of(extract: object, load: object = None, **more: object) -> Pipeline:
    """A pipeline of orders."""
    load = load or Upsert("target", "fct_orders", key=["id"])
    return Pipeline(name="orders", extract=extract, schema=OrderSchema, load=load, **more)  # type: ignore[arg-type]


def statements(pipeline: Pipeline, connection: str, **roles: str) -> list[str]:
    """Of the role that tidegate logs in as."""
    [section] = [one for one in sections([pipeline], connection=connection, **roles) if one.login]
    return section.statements


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))


def test_the_command_starts_no_database(tmp_path: Path) -> None:
    printed = grants("flights", "bookings")
    assert printed.exit_code == 0, printed.output
    assert "GRANT SELECT ON public.flights TO tidegate_source;" in printed.output
    assert "ALTER ROLE tidegate_source REPLICATION;" in printed.output
    assert not (tmp_path / "home").exists()


def test_every_statement_says_who_needs_it_and_what_for() -> None:
    for section in sections(GRAPH.pipelines):
        for grant in section.grants:
            assert section.pipelines[grant.statement] and grant.purpose


def test_every_table_that_a_pipeline_reads_from_a_source_is_granted() -> None:
    printed = script(sections(GRAPH.pipelines))
    read = {table for one in GRAPH.pipelines for connection, table in reads(one) if connection == "operations"}
    assert read == {"airlines", "airports", "bookings", "flights", "planes"}
    # Whoever publishes a table is a member of its owner, and needs no other right on it.
    for table in read - {"bookings"}:
        assert f"GRANT SELECT ON public.{table} TO tidegate_source;" in printed


def test_roles_are_made_by_hand_with_a_password_that_nobody_printed() -> None:
    printed = grants("flights", "--source-role", "reader", "--target-role", "Loader").output
    assert "\n-- CREATE ROLE reader LOGIN PASSWORD '<password>';\n" in printed
    assert '\nGRANT CONNECT ON DATABASE warehouse TO "Loader";\n' in printed


def test_only_one_connection_is_told_of() -> None:
    printed = grants("flights", "--connection", "operations").output
    assert "tidegate_source" in printed and "tidegate_target" not in printed


def test_a_connection_that_needs_no_right_is_an_error() -> None:
    printed = grants("flights", "--connection", "weather_api")
    assert printed.exit_code == 1
    with pytest.raises(ConfigError, match="Name 'operations' or 'warehouse'"):
        sections([GRAPH["flights"]], connection="weather_api")


def test_an_api_has_no_roles_and_is_left_out() -> None:
    assert "weather_api" not in {section.connection for section in sections(GRAPH.pipelines)}


def test_names_are_quoted_and_schemas_are_granted() -> None:
    found = statements(of(TableExtract("source", "Sales.Orders 5%")), "source")
    assert 'GRANT USAGE ON SCHEMA "Sales" TO tidegate_source' in found
    assert 'GRANT SELECT ON "Sales"."Orders 5%" TO tidegate_source' in found


def test_a_declared_lag_spares_the_right_to_see_other_sessions() -> None:
    from datetime import timedelta

    exact = of(TableExtract("source", "orders", cursor="updated_at"))
    trusting = of(TableExtract("source", "orders", cursor="updated_at", lag=timedelta(hours=1)))
    assert "GRANT pg_read_all_stats TO tidegate_source" in statements(exact, "source")
    assert "GRANT pg_read_all_stats TO tidegate_source" not in statements(trusting, "source")


def test_a_query_that_reads_no_table_may_log_in() -> None:
    assert statements(of(TableExtract("source", query="SELECT 1 AS id")), "source") == [
        "GRANT CONNECT ON DATABASE source TO tidegate_source"
    ]


def test_a_clock_is_granted_what_it_reads() -> None:
    clocked = of(SnapshotDiff("source", "orders", ["id"], clock="(SELECT now FROM stage.clock)"))
    assert "GRANT SELECT ON stage.clock TO tidegate_source" in statements(clocked, "source")


def test_a_clock_that_calls_a_function_is_pointed_out() -> None:
    printed = grants("flights", "--connection", "operations").output
    assert "\n-- GRANT EXECUTE ON FUNCTION public.replay_now TO tidegate_source;\n" in printed


def test_a_target_that_is_evolved_has_to_be_owned_and_a_frozen_one_not() -> None:
    evolved = script(sections([of(TableExtract("source", "orders"))], connection="target"))
    assert "\n-- ALTER TABLE public.fct_orders OWNER TO tidegate_target;\n" in evolved
    frozen = script(sections([of(TableExtract("source", "orders"), on_drift="freeze")], connection="target"))
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON public.fct_orders TO tidegate_target;" in frozen
    assert "OWNER TO" not in frozen


def test_what_is_appended_is_never_updated_or_deleted() -> None:
    appended = of(TableExtract("source", "orders"), Append("target", "fct_orders", key=["id"]), on_drift="freeze")
    printed = script(sections([appended], connection="target"))
    assert "GRANT SELECT, INSERT ON public.fct_orders TO tidegate_target;" in printed


def test_the_watermark_of_an_upstream_in_another_database_is_read_there() -> None:
    waiting = of(
        TableExtract("source", "orders", cursor="updated_at"),
        depends_on=[DependsOn("customers", connection="elsewhere")],
    )
    assert any("GRANT SELECT ON public.etl_watermarks" in one for one in statements(waiting, "elsewhere"))


def test_sqlite_has_no_roles_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TARGET_URL", "sqlite:///target.db")
    printed = script(sections([of(TableExtract("source", "orders"))], connection="target"))
    assert "-- target: sqlite has no roles." in printed and "GRANT" not in printed


def test_mariadb_is_granted_by_names_of_users_at_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "mariadb://root@db/shop")
    whole = of(TableExtract("source", "Orders"))
    assert statements(whole, "source") == ["GRANT SELECT ON shop.`Orders` TO 'tidegate_source'@'%'"]
    named = statements(whole, "source", source_role="o'hara@10.0.0.%")
    assert named == ["GRANT SELECT ON shop.`Orders` TO 'o''hara'@'10.0.0.%'"]


def test_mariadb_s_binlog_is_read_by_rights_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "mariadb://root@db/shop")
    assert statements(of(DebeziumExtract("source", "orders")), "source") == [
        "GRANT SELECT ON shop.orders TO 'tidegate_source'@'%'",
        "GRANT RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'tidegate_source'@'%'",
    ]


def test_a_log_on_mariadb_without_a_name_yet_is_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "mariadb://root@db/shop")
    printed = script(sections([of(TriggerExtract("source", "orders", ["id"]))], connection="source"))
    assert "-- GRANT CREATE, DROP, SELECT, INSERT, UPDATE, DELETE ON shop.`<log>`" in printed


def test_a_password_of_a_connection_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TARGET_URL", "postgresql://loader:open-sesame@db/warehouse")
    assert "open-sesame" not in script(sections([of(TableExtract("source", "orders"))]))
    connections.dispose()
