"""What is claimed of full refreshes, under the roles that `tidegate grants` prints."""

from tests.load.test_full_refresh import *  # noqa: F403
