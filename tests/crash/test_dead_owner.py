"""Who holds an attempt, where no server drops the locks of the dead: a process, by its id and its birth."""

import os
import subprocess
import sys

from sqlalchemy import create_engine

from tasks.dialects.dialect import Dialect

_HOLD_AND_DIE = """
import os, signal
from sqlalchemy import create_engine
from tasks.dialects.dialect import Dialect
with Dialect("any").hold(create_engine("sqlite://"), "attempt") as owner:
    print(owner, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_dead_process_that_nobody_has_collected_holds_nothing() -> None:
    """Where the parent never waits for its children, as in a container without an init, they stay as zombies."""
    with subprocess.Popen([sys.executable, "-c", _HOLD_AND_DIE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        owner = process.stdout.read().strip()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # until it is dead, without collecting it
        with create_engine("sqlite://").connect() as connection:
            assert not Dialect("any").held(connection, "attempt", owner)


def test_a_living_process_holds_its_attempt() -> None:
    engine = create_engine("sqlite://")
    with Dialect("any").hold(engine, "attempt") as owner, engine.connect() as connection:
        assert Dialect("any").held(connection, "attempt", owner)
