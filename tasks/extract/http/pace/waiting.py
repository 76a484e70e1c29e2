"""`Waiting`: when a client's requests are sent: at what pace, after what pause, and how often again."""

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from functools import partial
from typing import NoReturn, TypeVar

import tenacity

from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.http.pace.gate import Gate
from tasks.extract.http.pace.pauses import pause
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Broken, Retry
from tasks.extract.http.pace.wait_budget import WaitBudget
from tasks.extract.http.parallel import abandoned
from tasks.run_scope import shared
from tasks.shared_rate import take_shared

Result = TypeVar("Result")


class Waiting:
    """Every wait of a client. Within a run, all clients of a source keep one pace and spend one budget.

    Args:
        source: what tells this source from others.
        retry: how long a request, and a run, keeps trying.
        rate: the pace, or None.
        sleep: waits for that many seconds.
        moment: seconds of a clock that does not go back.
    """

    def __init__(
        self,
        source: Hashable,
        retry: Retry,
        rate: RateLimit | None,
        sleep: Callable[[float], None],
        moment: Callable[[], float],
    ) -> None:
        self.retry = retry
        self._rate = rate
        self._sleep = sleep
        self._moment = moment
        self._gate = shared((Gate, source, rate), lambda: Gate(rate))
        self._budget = shared((WaitBudget, retry.run_budget), lambda: WaitBudget(retry.run_budget.total_seconds()))

    def persist(self, asked: str, attempt: Callable[[], Result]) -> Result:
        """What `attempt` returns, once it does not end in `Broken`.

        Args:
            asked: the request, for messages.
            attempt: sends it.

        Raises:
            SourceUnavailable: it was tried often or long enough.
            SourceError: the run may not wait any longer.
        """
        retrying = tenacity.Retrying(
            sleep=self._sleep,
            retry=tenacity.retry_if_exception_type(Broken),
            wait=self._wait,
            stop=self._stop,
            before_sleep=partial(self._before_sleep, asked),
            retry_error_callback=partial(self._give_up, asked),
        )
        return retrying(attempt)

    def take_turn(self, asked: str) -> None:
        """Wait until one more request may be sent. Every single one has to.

        Raises:
            SourceError: the source has asked for a longer pause than the run may wait.
            SourceUnavailable: the server that keeps a shared rate did not answer.
            ConfigError: it has none of that name.
        """
        now = self._moment()
        while not abandoned():
            until = self._gate.closed_until
            if until > now:
                self._spend(now, until, f"{asked} is not sent: the source asks for a pause.")
            else:
                until = self._gate.take(now)
            if until > now:
                self._sleep(until - now)
                now = max(self._moment(), until)
                continue
            if self._rate is None or self._rate.shared is None:
                return
            take_shared(self._rate.shared, self._rate.create_command)
            # That may have taken long. A slot taken in vain only makes everybody slower.
            now = max(self._moment(), now)
            if self._gate.closed_until <= now:
                return
        raise Broken("nobody wants the answer any more")

    def heed(self, headers: Mapping[str, str], now: datetime) -> None:
        """Let no request of the run pass before the pause is over that an answer asks for, if it does.

        Args:
            headers: of the response.
            now: this machine's time, aware.
        """
        seconds = pause(headers, now)
        if seconds is not None and seconds > 0:
            self._gate.close(self._moment() + seconds)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Full jitter, but never less than the source asks for."""
        jitter = tenacity.wait_random_exponential(multiplier=self.retry.first.total_seconds(), max=self.retry.longest)
        return max(jitter(state), _broken(state).retry_after or 0.0)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        spent = state.attempt_number >= self.retry.attempts or abandoned()
        return spent or state.idle_for + state.upcoming_sleep > self.retry.budget.total_seconds()

    def _before_sleep(self, asked: str, state: tenacity.RetryCallState) -> None:
        now = self._moment()
        what = f"{asked} failed {state.attempt_number} times, last with {_broken(state)}."
        self._spend(now, now + state.upcoming_sleep, what)

    def _spend(self, now: float, until: float, what: str) -> None:
        if not self._budget.spend(now, until):
            raise SourceError(
                f"{what} It has to wait {_shown(until - now)}, but {_shown(self._budget.left)} are left of the "
                f"{_shown(self._budget.seconds)} that a run may stand still. Run again later, or allow more with "
                "Retry(run_budget=…)."
            )

    def _give_up(self, asked: str, state: tenacity.RetryCallState) -> NoReturn:
        broken = _broken(state)
        budget = self.retry.budget.total_seconds()
        left = budget - state.idle_for
        what = f"{asked} failed {state.attempt_number} times, last with {broken}."
        if broken.retry_after is not None and broken.retry_after > left:
            what += (
                f" The source asks to wait {broken.retry_after:g} s, but {left:g} s are left of the {budget:g} s that "
                "one request may wait. Run again later, or allow more with Retry(budget=…)."
            )
        else:
            what += (
                f" Waited {state.idle_for:.1f} s in between. Check that the source is up, or allow more with "
                "Retry(attempts=…, budget=…)."
            )
        raise SourceUnavailable(what) from broken.__cause__


def _broken(state: tenacity.RetryCallState) -> Broken:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Broken)
    return error


def _shown(seconds: float) -> str:
    return f"{seconds:,.1f} s"
