"""A deploy that fails half way leaves nothing broken, and the next one finishes it."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deploy.failure import DeployFailed
from deployments.prefect_server import PrefectServer
from tests.deployments.trial.project import Trial
from tests.deployments.trial.snapshot import held, stamps
from tests.servers.api_proxy import ApiProxy, Asked, Fault

pytestmark = pytest.mark.prefect


class Spoiler:
    """Spoils one request: the first that `chosen` is true of, after `skip` others."""

    def __init__(self, fault: Fault, chosen: Callable[[Asked], bool], skip: int = 0) -> None:
        self.fault = fault
        self.struck: Asked | None = None
        self._chosen = chosen
        self._skip = skip

    def __call__(self, asked: Asked) -> Fault | None:
        if self.struck is not None or not self._chosen(asked):
            return None
        self._skip -= 1
        if self._skip >= 0:
            return None
        self.struck = asked
        return self.fault


@pytest.fixture
def proxy(trial: Trial, prefect_server: PrefectServer) -> Iterator[ApiProxy]:
    """Between the deploys of `trial` and the server; the trial's own client, which looks, goes past it."""
    with (
        ApiProxy(prefect_server.ui_url) as between,
        temporary_settings({PREFECT_API_URL: f"{between.url}/api"}),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PREFECT_API_URL", f"{between.url}/api")
        yield between


def fails_and_is_finished(trial: Trial, proxy: ApiProxy, spoiler: Spoiler) -> bool:
    """Deploy with `spoiler`, and then without; whether there was something to spoil, and then only the first fails."""
    proxy.spoil = spoiler
    try:
        trial.deploy()
    except DeployFailed as error:
        assert spoiler.struck is not None
        assert "Deploy again" in str(error)
    else:
        assert spoiler.struck is None
        return False
    proxy.spoil = lambda _asked: None
    trial.deploy()
    touched = stamps(trial.client)
    assert "No changes" in trial.deploy()
    assert stamps(trial.client) == touched
    return True


def test_a_server_that_fails_while_it_is_looked_at_means_that_nothing_was_touched(
    trial: Trial, proxy: ApiProxy
) -> None:
    before = held(trial.client)
    for skip in (0, 4, 9):
        proxy.spoil = Spoiler("request lost", lambda asked: not asked.writes, skip)
        with pytest.raises(DeployFailed, match="Nothing was touched"):
            trial.deploy()
    assert held(trial.client) == before
    assert not any(asked.writes for asked in proxy.asked)


def test_a_deploy_that_stops_between_two_deployments_is_finished_by_the_next(trial: Trial, proxy: ApiProxy) -> None:
    def creates_deployment(asked: Asked) -> bool:
        return (asked.method, asked.path) == ("POST", "/api/deployments/")

    assert fails_and_is_finished(trial, proxy, Spoiler("request lost", creates_deployment, skip=1))
    assert {one["name"] for one in held(trial.client)["deployments"]} == {"orders", "sweep"}


def writing(asked: Asked) -> bool:
    return asked.writes


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", ["request lost", "reply lost"])
def test_a_first_deploy_may_fail_at_every_request_that_writes(trial: Trial, proxy: ApiProxy, fault: Fault) -> None:
    trial.deploy()
    clean = held(trial.client)
    entries = trial.written["deployments"]
    for skip in itertools.count():
        trial.remove()
        trial.written["deployments"] = entries
        if not fails_and_is_finished(trial, proxy, Spoiler(fault, writing, skip)):
            break
        assert held(trial.client) == clean, skip
    assert skip >= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", ["request lost", "reply lost"])
def test_a_later_deploy_may_fail_at_every_request_that_writes(trial: Trial, proxy: ApiProxy, fault: Fault) -> None:
    """One that updates a deployment, its trigger and a schedule, and deletes a schedule and a deployment."""
    earlier = trial.written["deployments"]
    orders = {**earlier[0], "description": "Later.", "schedules": [{"slug": "daily", "cron": "0 7 * * *"}]}
    orders["triggers"] = [{**earlier[0]["triggers"][0], "enabled": True}]
    trial.deploy()
    trial.written["deployments"] = [orders]
    trial.deploy()
    clean = held(trial.client)
    for skip in itertools.count():
        trial.written["deployments"] = earlier
        trial.deploy()
        trial.written["deployments"] = [orders]
        if not fails_and_is_finished(trial, proxy, Spoiler(fault, writing, skip)):
            break
        assert held(trial.client) == clean, skip
    assert skip >= 6
