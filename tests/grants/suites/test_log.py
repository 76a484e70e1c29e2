"""What is claimed of `LogExtract`, under the roles that `tidegate grants` prints."""

from tests.extract.test_log import *  # noqa: F403
