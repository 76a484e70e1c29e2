"""What is claimed of `ReplacePartition`, under the roles that `tidegate grants` prints."""

from tests.load.test_partition import *  # noqa: F403
