"""An `ApiExtract` of the connection `shop` that waits in virtual time."""

from dataclasses import dataclass
from typing import Any

from tasks.extract.api import ApiExtract
from tasks.extract.http.client import HttpClient
from tests.extract.shop import WHOLE
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
