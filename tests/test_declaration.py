"""`Sla`: what cannot be meant is refused where it is declared."""

from datetime import timedelta
from typing import Any

import pytest

from tasks.declaration import Sla
from tasks.errors import ConfigError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_runtime": timedelta(0)}, r"max_runtime is longer than zero, got 0:00:00\. Say timedelta"),
        ({"max_freshness": timedelta(hours=-1)}, "max_freshness is longer than zero, got -1 day, 23:00:00"),
        ({"max_start_delay": timedelta(0)}, "max_start_delay is longer than zero"),
        ({"alert_interval": timedelta(0)}, "alert_interval is longer than zero"),
        ({"recent_runs": 0}, "recent_runs is 1 or more, got 0"),
        ({"max_open_letters": -1}, "max_open_letters is 0 or more, got -1. None allows any number"),
        ({"owner": " "}, "owner is ' '. Name who sees to an alert"),
        ({"runbook": "docs/runbook.md"}, "begins with https:// or http://, got 'docs/runbook.md'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_an_sla_cannot_promise_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sla(**wrong)


def test_what_an_sla_may_leave_open_is_none() -> None:
    assert Sla(max_runtime=None, max_freshness=None, max_open_letters=None, runbook=None) == Sla()
