"""How often a flow run shows the server that it is alive, where the process that runs it is told to."""

from datetime import timedelta
from typing import Final

HEARTBEAT: Final = timedelta(seconds=30)
"""As often as Prefect lets a flow run send one."""

LOST_AFTER: Final = 3 * HEARTBEAT
"""A run that neither ends nor sends one for so long is a zombie: its process or its machine is gone."""

ENVIRONMENT: Final = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": f"{HEARTBEAT.total_seconds():.0f}"}
"""For workers, which hand it on to their flow runs; without it none is sent, and no zombie found."""
