"""What the alerts are called on the server: whoever makes, finds or examines them goes by these names."""

from typing import Final

PREFIX: Final = "tidegate: "
"""How the names of our automations begin; what begins so and is not wanted is deleted, and nothing else."""

EVERYTHING: Final = "tidegate-alerts"
"""Name of the notification block that every alert goes to."""

CRITICAL: Final = "tidegate-alerts-critical"
"""Name of the block that critical ones go to instead, where there is one."""
