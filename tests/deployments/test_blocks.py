"""Connections from blocks on a real server."""

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect_sqlalchemy import SqlAlchemyConnector

from deployments.prefect_server import PrefectServer
from tasks.connections import database_url
from tasks.errors import redact
from tasks.settings import home

pytestmark = pytest.mark.prefect


@pytest.fixture
def server(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield prefect_server


@pytest.mark.smoke
def test_a_block_of_that_name_is_the_connection(server: PrefectServer) -> None:
    url = "postgresql+psycopg://reader:hunter22@db.example/shop"
    SqlAlchemyConnector(connection_info=url).save("block-shop", overwrite=True, _sync=True)
    assert database_url("block_shop").render_as_string(hide_password=False) == url


@pytest.mark.smoke
def test_a_password_in_a_block_is_masked_from_then_on(server: PrefectServer) -> None:
    url = "postgresql+psycopg://reader:correct-horse@db.example/shop"
    SqlAlchemyConnector(connection_info=url).save("block-masked", overwrite=True, _sync=True)
    database_url("block_masked")
    assert redact("it said correct-horse") == "it said ***"


def test_the_environment_wins_over_a_block(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    SqlAlchemyConnector(connection_info="sqlite:///block.db").save("block-both", overwrite=True, _sync=True)
    monkeypatch.setenv("TIDEGATE_BLOCK_BOTH_URL", "sqlite:///environment.db")
    assert str(database_url("block_both")) == "sqlite:///environment.db"


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2"])
def test_a_block_with_another_postgresql_driver_serves_too(server: PrefectServer, driver: str) -> None:
    SqlAlchemyConnector(connection_info=f"{driver}://db.example/shop").save("block-driver", overwrite=True, _sync=True)
    assert database_url("block_driver").drivername == "postgresql+psycopg"


def test_without_either_it_is_the_embedded_postgresql(server: PrefectServer) -> None:
    assert str(home()) in database_url("block_absent").query["host"]
