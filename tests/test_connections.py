"""Connections by name: which URL a name stands for, and one engine for each."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from tasks import connections, settings
from tasks.errors import ConfigError, redact
from tests.conftest import Databases

URL = "postgresql+psycopg://ann:Vb3_ukQe@db.example.org:5433/sales"


@pytest.mark.parametrize(("name", "variable"), [("operations", "TIDEGATE_OPERATIONS_URL"),
                                                ("weather_api", "TIDEGATE_WEATHER_API_URL"),
                                                ("weather-api", "TIDEGATE_WEATHER_API_URL")])  # fmt: skip
def test_a_name_has_one_environment_variable(name: str, variable: str) -> None:
    assert settings.url_variable(name) == variable


def test_the_environment_names_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", URL)
    assert connections.database_url("sales").render_as_string(hide_password=False) == URL


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_whatever_driver_a_postgresql_url_names_it_is_psycopg(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", f"{scheme}://ann@db.example.org/sales")
    assert connections.database_url("sales").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(("scheme", "driver"), [("mariadb", "mariadb+pymysql"), ("mysql+mysqldb", "mysql+pymysql")])
def test_whatever_driver_a_mariadb_url_names_it_is_pymysql(
    monkeypatch: pytest.MonkeyPatch, scheme: str, driver: str
) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", f"{scheme}://ann@db.example.org/sales?unix_socket=/run/mysqld/mysqld.sock")
    url = connections.database_url("sales")
    assert (url.drivername, url.query["unix_socket"]) == (driver, "/run/mysqld/mysqld.sock")


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    monkeypatch.setenv("TIDEGATE_SALES_URL", "mariadb://ann@db.example.org/sales")
    with pytest.raises(ConfigError, match=r"needs the driver pymysql.*pip install 'tidegate\[mariadb\]'"):
        connections.engine("sales")


def test_a_password_is_masked_from_when_its_url_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", "postgresql://ann:Wm4%2Fyh%40Rt@db.example.org/sales")
    connections.database_url("sales")
    assert redact("plain Wm4/yh@Rt, quoted Wm4%2Fyh%40Rt") == "plain ***, quoted ***"


def test_an_engine_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", URL)
    engine = connections.engine("sales")
    assert "Vb3_ukQe" not in repr(engine) + str(engine.url) + repr(engine.url)


def test_what_is_no_url_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SALES_URL", "db.example.org")
    with pytest.raises(ConfigError, match=r"TIDEGATE_SALES_URL is not a database URL\. Write it as"):
        connections.database_url("sales")


def test_a_name_has_one_engine_also_when_many_threads_ask_first(sqlite: Databases) -> None:
    with ThreadPoolExecutor(8) as threads:
        engines = list(threads.map(lambda _: connections.engine("source"), range(32)))
    assert {id(engine) for engine in engines} == {id(sqlite.source)}
    assert sqlite.target is not sqlite.source


def test_a_changed_url_is_another_engine(sqlite: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sqlite.source
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", sqlite.target_url)
    assert connections.engine("source").url != before.url


def test_sessions_speak_utc_and_say_who_they_are(postgresql: Databases) -> None:
    with postgresql.source.connect() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"
        assert connection.execute(text("SHOW application_name")).scalar_one() == "tidegate"


def test_without_a_variable_it_is_a_database_of_the_embedded_postgresql(postgresql: Databases) -> None:
    """Created when it is first asked for."""
    with connections.engine("nobody_named_this").connect() as connection:
        assert connection.execute(text("SELECT current_database()")).scalar_one() == "nobody_named_this"
