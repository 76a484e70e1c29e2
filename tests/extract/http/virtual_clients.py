"""Clients, and an `ApiExtract` of the connection `shop`, that wait in virtual time."""

from dataclasses import dataclass
from typing import Any

from tasks.extract.api import ApiExtract
from tasks.extract.http.client import HttpClient
from tests.extract.shop import WHOLE
from tests.scripted_server import Script, ScriptedServer
from tests.virtual_time import VirtualTime


@dataclass(frozen=True)
class InVirtualTime(ApiExtract):
    """An extract whose clients wait in virtual time."""

    time: VirtualTime | None = None

    def client(self) -> HttpClient:
        assert self.time is not None
        with super().client() as client:
            url = str(client.base_url)
        time = self.time
        return HttpClient(url, retry=self.retry, rate=self.rate, sleep=time.sleep, moment=time.moment, clock=time.clock)


def in_virtual_time(time: VirtualTime, **settings: Any) -> InVirtualTime:
    """The extract of `WHOLE`, with other `settings`."""
    declared = {name: getattr(WHOLE.extract, name) for name in ApiExtract.__dataclass_fields__}
    return InVirtualTime(**{**declared, **settings, "time": time})


def waits(script: Script, requests: int = 2, **client_args: object) -> list[float]:
    """What a client sleeps that asks so often."""
    time = VirtualTime()
    with ScriptedServer(script) as server, in_time(server, time, **client_args) as client:
        for _ in range(requests):
            client.get_json("/a")
    return time.slept


def in_time(server: ScriptedServer, time: VirtualTime, **client_args: object) -> HttpClient:
    """A client that waits in `time`."""
    return HttpClient(server.url, sleep=time.sleep, moment=time.moment, clock=time.clock, **client_args)  # type: ignore[arg-type]
