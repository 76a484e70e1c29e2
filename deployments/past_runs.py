"""`FoundRun`: a run by its id, wherever among the targets of the pipelines its ledger is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.pipelines import every, masking_of
from tasks.errors import ConfigError, TidegateError
from tasks.state.history import PastRun, opened_history, past_run, runs_called
from tasks.state.letters import Fault, Wanted, count_closed, find_faults

_LEAST = 4
_ID = re.compile(r"[0-9a-f]{8,32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class UnknownRun(ConfigError):
    """No ledger has a run of that id."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run, and what is known of its dead letters.

    Attributes:
        connection: name of the target that its ledger is in.
        run: its attempts.
        faults: what the letters that it saw last broke.
        closed: how many letters it closed.
    """

    connection: str
    run: PastRun
    faults: Sequence[Fault]
    closed: int


def targets() -> list[str]:
    """The names of the databases that pipelines load into, each once."""
    return sorted({pipeline.load.connection for pipeline in every()})


def could_be_run(name: str) -> bool:
    """Whether `name` looks like the id of a run, or like the first 8 digits of one or more."""
    return _ID.fullmatch(name) is not None


def find_run(name: str) -> FoundRun:
    """The run whose id is, or begins with, `name`, or that belongs to the Prefect flow run `name`.

    Raises:
        UnknownRun: there is none.
        ConfigError: there are several, or the name is too short.
        TidegateError: no ledger has it, and one of them could not be read.
    """
    if len(name) < _LEAST:
        raise ConfigError(f"{name!r} is too short for a run id: give at least {_LEAST} characters of it.")
    found: list[FoundRun] = []
    ids: list[str] = []
    away: TidegateError | None = None
    for target in targets():
        try:
            with opened_history(target) as connection:
                if connection is None:
                    continue
                # Two names may stand for one database.
                for run_id in set(runs_called(connection, name)) - set(ids):
                    ids.append(run_id)
                    run = past_run(connection, run_id)
                    assert run is not None, "it was just found"
                    pipeline = run.attempts[0].pipeline
                    wanted = Wanted(pipeline, "all", run_id=run_id, masking=masking_of(pipeline))
                    found.append(
                        FoundRun(target, run, find_faults(connection, wanted), count_closed(connection, run_id))
                    )
        except TidegateError as error:
            away = error
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name!r} stands for several runs: {', '.join(sorted(ids))}. Give more of the id.")
    if away is not None:
        raise away
    raise UnknownRun(
        f"No ledger has a run {name!r}, neither by its own id nor by that of a Prefect flow run. "
        "`tidegate runs PIPELINE` lists those of a pipeline."
    )
