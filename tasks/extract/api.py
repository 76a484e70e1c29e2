"""`ApiExtract`: the records of a JSON API, whole or by a cursor, page by page."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from tasks import settings
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.changes import cursor_values
from tasks.extract.http.answers import described
from tasks.extract.http.client import READ_TIMEOUT, HttpClient
from tasks.extract.http.paginators import Paginator, SinglePage
from tasks.extract.http.request import Params, Request
from tasks.extract.http.retry import Retry
from tasks.extract.http.shapes import Shape
from tasks.extract.http.walk import walk
from tasks.window import Window, to_utc


@dataclass(frozen=True, slots=True)
class ApiClock:
    """Where an API says what time it is.

    Attributes:
        path: what to GET, below the connection's URL; may hold a query.
        field: dotted path of the time in the body, an ISO 8601 text (UTC where it has no zone).
    """

    path: str
    field: str

    def read(self, client: HttpClient) -> datetime:
        """The source's time (UTC).

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused, or what it says is no time.
        """
        value = client.get_json(self.path).at(self.field)
        if not isinstance(value, str):
            raise SourceError(
                f"The clock {self.path!r} says {described(value)} in {self.field!r}, not an ISO 8601 text."
            )
        try:
            return to_utc(value)
        except ConfigError as error:
            raise SourceError(f"The clock {self.path!r} says {value!r} in {self.field!r}, no ISO 8601 time.") from error


@dataclass(frozen=True)
class ApiExtract:
    """Read a list of records from a JSON API, whole or by a cursor.

    What the API returns outside the window is dropped, so that it does not matter whether it takes bounds as inclusive.

    Attributes:
        connection: name of the source; its base URL is `TIDEGATE_<NAME>_URL`.
        path: what to GET, below the base URL.
        records: dotted path of the list of records in a body; "" is the body itself.
        paginator: how to get from one page to the next.
        params: query parameters of the first request; no place for secrets, those belong into `auth`.
        cursor: field that orders changes in source time, ISO 8601 text; None reads everything each time.
        start_param: query parameter for "at or after this time", sent as `2013-01-08T06:00:00Z`, the window's start
            rounded down to a second.
        end_param: query parameter for "before" or "until this time", the window's end rounded up.
        lookback: how far before the watermark the next window starts, for records that appear late.
        lag: how long before the source clock a record may still appear.
        initial: where the first incremental window starts (UTC).
        clock: the source's own clock; None takes this machine's.
        auth: how requests are authenticated.
        timeout: longest silence while an answer is read.
        retry: how long a request keeps trying.
    """

    connection: str
    path: str
    records: str = ""
    paginator: Paginator = field(default_factory=SinglePage)
    params: Params = field(default_factory=dict, repr=False)
    cursor: str | None = None
    start_param: str | None = None
    end_param: str | None = None
    lookback: timedelta = timedelta(0)
    lag: timedelta = timedelta(0)
    initial: datetime | None = None
    clock: ApiClock | None = None
    auth: httpx.Auth | None = field(default=None, repr=False)
    timeout: timedelta = READ_TIMEOUT
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if self.cursor is None and (self.start_param or self.end_param):
            raise ConfigError(
                f"{self._name}: start_param and end_param ask for a window, and without a cursor no record can be told "
                "to lie in it. Name the cursor."
            )

    @property
    def dataset(self) -> str:
        """The path."""
        return self.path

    def bound(self) -> datetime | None:
        """See `Extract.bound`."""
        if self.cursor is None:
            return None
        if self.clock is None:
            return datetime.now(UTC) - self.lag
        with self._named(self._name), self._client() as client:
            return self.clock.read(client) - self.lag

    def null_cursors(self) -> int:
        """0: an API does not tell."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract.batches`; one batch is one page.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused, or does not answer in the declared form.
            ContractError: the cursor is missing, or not one is a time.
            ConfigError: the connection has no URL.
        """
        if self.cursor is not None and window.empty:
            return
        source = f"{self._name}, window {window}"
        with self._named(source), self._client() as client:
            first = Request(client.url(self.path, {**self.params, **self._bounds(window)}))
            for page in walk(client, first, Shape(self.records), self.paginator):
                for rows in page.tables():
                    if self.cursor is not None:
                        rows = rows.filter(_inside(rows, self.cursor, window, source))
                    if rows.num_rows:
                        yield rows

    @property
    def _name(self) -> str:
        return f"API {self.connection!r}, {self.path!r}"

    @contextmanager
    def _named(self, source: str) -> Iterator[None]:
        """Have errors from below say what was being read."""
        try:
            yield
        except (SourceError, SourceUnavailable) as error:
            raise type(error)(f"{source}: {error}") from error

    def _client(self) -> HttpClient:
        url = settings.connection_url(self.connection)
        if url is None:
            raise ConfigError(
                f"{self._name}: the connection has no URL. Set {settings.url_variable(self.connection)} to the API's "
                "base URL."
            )
        return HttpClient(url, auth=self.auth, timeout=self.timeout, retry=self.retry)

    def _bounds(self, window: Window) -> dict[str, str]:
        bounds: dict[str, str] = {}
        if self.start_param and window.start is not None:
            bounds[self.start_param] = _whole_second(window.start)
        if self.end_param and window.end is not None:
            bounds[self.end_param] = _whole_second(window.end + timedelta(microseconds=999_999))
        return bounds


def _inside(rows: pa.Table, cursor: str, window: Window, source: str) -> pa.ChunkedArray:
    """For each row whether its cursor lies in `window`; one without a readable cursor does, so that it is judged.

    Raises:
        ContractError: the cursor is missing, or not one is a time.
    """
    values = cursor_values(rows, cursor, source)
    inside = pa.chunked_array([pa.repeat(True, rows.num_rows)])
    if window.start is not None:
        inside = pc.and_(inside, pc.greater_equal(values, pa.scalar(window.start, values.type)))
    if window.end is not None:
        inside = pc.and_(inside, pc.less(values, pa.scalar(window.end, values.type)))
    return pc.fill_null(inside, True)


def _whole_second(moment: datetime) -> str:
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
