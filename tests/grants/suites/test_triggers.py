"""What is claimed of `TriggerExtract`, under the roles that `tidegate grants` prints."""

from tests.extract.test_triggers import *  # noqa: F403
