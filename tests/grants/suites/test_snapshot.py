"""What is claimed of `SnapshotDiff`, under the roles that `tidegate grants` prints."""

from tests.extract.test_snapshot import *  # noqa: F403
