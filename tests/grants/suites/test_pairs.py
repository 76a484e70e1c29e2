"""What is claimed of every pair of strategy and database, under the roles that `tidegate grants` prints."""

from tests.load.test_every_pair import *  # noqa: F403
