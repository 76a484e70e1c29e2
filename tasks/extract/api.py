"""`ApiExtract`: the records of an API, whole or by a cursor, page by page."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc

from tasks import settings
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.api_reading.part import ApiPart
from tasks.extract.api_reading.reading import ApiReading
from tasks.extract.changes import cursor_values
from tasks.extract.feed import Opening
from tasks.extract.http.answers import Refused, described
from tasks.extract.http.client import READ_TIMEOUT, HttpClient
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.drift import OnDrift
from tasks.extract.http.pages.numbered import Numbered
from tasks.extract.http.pages.paginators import Paginator, SinglePage
from tasks.extract.http.pages.place import Kept
from tasks.extract.http.request import Params, Request
from tasks.extract.http.shapes.shape import Shape
from tasks.extract.http.times import TimeFormat, with_times, written
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
    """Read a list of records from an API, whole or by a cursor.

    What the API returns outside the window is dropped, so that it does not matter whether it takes bounds as inclusive.
    Parameters, here and of paginators, are of the query by their name, and fields of the JSON body as `$.a.b`.

    Attributes:
        connection: name of the source; its base URL is `TIDEGATE_<NAME>_URL`.
        path: what to ask for, below the base URL.
        records: where the list of records is in a body: a dotted path, "" being the body itself, or a JSONPath.
        paginator: how to get from one page to the next.
        params: query parameters of the first request; no place for secrets, those belong into `auth`.
        body: JSON object to POST instead of a GET.
        cursor: field that orders changes in source time; None reads everything each time.
        cursor_format: how records write it.
        start_param: parameter for "at or after this time": the window's start, rounded down to what the form can say.
        end_param: parameter for "before" or "until this time", the window's end rounded up.
        param_format: how those two are written; None is like `cursor_format`.
        lookback: how far before the watermark the next window starts, for records that appear late.
        lag: how long before the source clock a record may still appear.
        initial: where the first incremental window starts (UTC).
        clock: the source's own clock; None takes this machine's.
        split: longest window to ask for at once.
        max_results: how many records the API gives for one window at most, however many pages; a window that has as
            many is asked for in halves.
        concurrency: how many requests are under way at once: pages of a numbered paginator, or windows of a `split`.
        checkpoint: pages after which a commit ends, so that a crash loses at most as many; None, like a load that takes
            everything at once (`Replace`), commits when the window has been read.
        unique: columns that identify a record, to notice those that move to another page while the pages are read.
        on_drift: what to do then: `error`, or `dedup`, which passes over what has come before.
        conditional: ask only for what has changed since the last run (`If-None-Match`, `If-Modified-Since`).
        deleted: field that marks a record as gone: true, or a time; it is deleted from the target.
        auth: how requests are authenticated.
        timeout: longest silence while an answer is read.
        retry: how long a request, and a run, keeps trying.
        rate: how often the API is asked at most.
        shape: what else there is to say of the answers: their format, and what becomes of nested fields and of numbers.

    Raises:
        ConfigError: settings that contradict each other.
    """

    connection: str
    path: str
    records: str = ""
    paginator: Paginator = field(default_factory=SinglePage)
    params: Params = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    cursor: str | None = None
    cursor_format: TimeFormat = "iso"
    start_param: str | None = None
    end_param: str | None = None
    param_format: TimeFormat | None = None
    lookback: timedelta = timedelta(0)
    lag: timedelta = timedelta(0)
    initial: datetime | None = None
    clock: ApiClock | None = None
    split: timedelta | None = None
    max_results: int | None = None
    concurrency: int = 1
    checkpoint: int | None = 40
    unique: Sequence[str] = ()
    on_drift: OnDrift = "error"
    conditional: bool = False
    deleted: str | None = None
    auth: httpx.Auth | None = field(default=None, repr=False)
    timeout: timedelta = READ_TIMEOUT
    retry: Retry = field(default_factory=Retry)
    rate: RateLimit | None = None
    shape: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        by_window = self.start_param is not None or self.end_param is not None
        single = isinstance(self.paginator, SinglePage)
        limits = [limit for limit in (self.concurrency, self.checkpoint, self.max_results) if limit is not None]
        both = self.records != "" and self.shape.records not in ("", self.records)
        for wrong, why in (
            (both, "records is declared twice, here and in shape=…"),
            (
                self.cursor is None and by_window,
                "start_param and end_param ask for a window, and without a cursor no record can be told to lie in it. "
                "Name the cursor",
            ),
            (
                (self.split is not None or self.max_results is not None)
                and (self.start_param is None or self.end_param is None),
                "split and max_results ask for shorter windows, and without a start_param and an end_param the API "
                "cannot be asked for one. Name both",
            ),
            (
                self.concurrency > 1 and not isinstance(self.paginator, Numbered) and self.split is None,
                "each page leads to the next, so there is nothing to ask for at once. Page by number or offset, or "
                "declare split=…",
            ),
            (
                self.conditional and (not single or by_window or self.cursor is not None),
                "conditional asks whether the one answer has changed. With pages there are many, and of one that a "
                "cursor reads by windows, what lies beyond the window would be missed until it changes",
            ),
            (
                min(limits) < 1 or (self.split is not None and self.split <= timedelta(0)),
                "split, max_results, concurrency and checkpoint are positive",
            ),
        ):
            if wrong:
                raise ConfigError(f"{self.name}: {why}.")

    @property
    def name(self) -> str:
        """The extract as a message begins."""
        return f"API {self.connection!r}, {self.path!r}"

    @property
    def dataset(self) -> str:
        """The path."""
        return self.path

    @property
    def tells_deletes(self) -> bool:
        """See `Extract.tells_deletes`."""
        return self.deleted is not None

    @property
    def shaped(self) -> Shape:
        """The form of the answers."""
        return replace(self.shape, records=self.records or self.shape.records)

    @property
    def fingerprint(self) -> str:
        """Tells two declarations apart, hexadecimal: a window that one has begun, another begins anew."""
        asked = (self.connection, self.path, self.params, self.body, self.start_param, self.end_param, self.param_form)
        read = (self.shaped, self.paginator, self.cursor, self.cursor_format, self.deleted)
        return hashlib.sha256(repr((asked, read)).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def param_form(self) -> TimeFormat:
        """How the bounds of a window are written."""
        return self.param_format or self.cursor_format

    def bound(self) -> datetime | None:
        """See `Extract.bound`."""
        if self.cursor is None:
            return None
        if self.clock is None:
            return datetime.now(UTC) - self.lag
        with self.named(self.name), self.client() as client:
            return self.clock.read(client) - self.lag

    def own_time(self) -> datetime | None:
        """See `Clocked`; one request, where a clock is declared."""
        if self.clock is None or self.cursor is None:
            return None
        with self.named(self.name), self.client() as client:
            return self.clock.read(client)

    def null_cursors(self) -> int:
        """0: an API does not tell."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract.batches`; one batch is at most one page.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused, or does not answer in the declared form.
            ContractError: the cursor is missing, or not one is a time.
            ConfigError: the connection has no URL.
        """
        with contextlib.closing(ApiReading(self, self.client(), window, Kept(), datetime.now(UTC))) as reading:
            yield from reading.batches(None)

    def unfinished(self, position: str | None) -> Window | None:
        """See `Resumable.unfinished`."""
        place = Kept.parse(position).place
        return None if place is None or place.declared != self.fingerprint else place.window

    def open_window(self, asked: Opening) -> ApiPart:
        """See `Resumable.open_window`."""
        reading = asked.held.going_on(asked.position)
        if not isinstance(reading, ApiReading):
            kept, opened_at = Kept.parse(asked.position), asked.home.opened_at or datetime.now(UTC)
            if asked.whole:
                # What another load has committed of the window is not in this commit.
                kept = replace(kept, place=None)
            reading = ApiReading(self, self.client(), asked.window, kept, opened_at, asked.home.contract)
            asked.held.keep(reading)
        return ApiPart(reading, None if asked.whole else self.checkpoint, asked.passed)

    def client(self) -> HttpClient:
        """A client for the API. Close it.

        Raises:
            ConfigError: the connection has no URL.
        """
        url = settings.connection_url(self.connection)
        if url is None:
            raise ConfigError(
                f"{self.name}: the connection has no URL. Set {settings.url_variable(self.connection)} to the API's "
                "base URL."
            )
        return HttpClient(url, auth=self.auth, timeout=self.timeout, retry=self.retry, rate=self.rate)

    def request(self, client: HttpClient, window: Window) -> Request:
        """What to ask for the records of `window`, without what the paginator adds."""
        request = Request(client.url(self.path, self.params), self.body)
        if self.start_param and window.start is not None:
            request = request.having(self.start_param, written(window.start, self.param_form))
        if self.end_param and window.end is not None:
            request = request.having(self.end_param, written(window.end, self.param_form, up=True))
        return request

    def inside(self, rows: pa.Table, window: Window, source: str) -> pa.Table:
        """Those of `rows` whose cursor lies in `window`, and those without a readable one, so that they are judged.

        Raises:
            ContractError: the cursor is missing, or not one is a time.
        """
        if self.cursor is None:
            return rows
        rows = with_times(rows, self.cursor, self.cursor_format)
        values = cursor_values(rows, self.cursor, source)
        inside = pa.chunked_array([pa.repeat(True, rows.num_rows)])
        if window.start is not None:
            inside = pc.and_(inside, pc.greater_equal(values, pa.scalar(window.start, values.type)))
        if window.end is not None:
            inside = pc.and_(inside, pc.less(values, pa.scalar(window.end, values.type)))
        return rows.filter(pc.fill_null(inside, True))

    @contextlib.contextmanager
    def named(self, source: str) -> Iterator[None]:
        """Have errors from below say what was being read."""
        try:
            yield
        except (SourceError, SourceUnavailable) as error:
            if str(error).startswith(self.name):
                raise
            if isinstance(error, Refused):
                raise Refused(f"{source}: {error}", error.status, error.asked) from error
            raise type(error)(f"{source}: {error}") from error
