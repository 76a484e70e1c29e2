"""What is claimed of `Scd2`, under the roles that `tidegate grants` prints."""

from tests.load.test_scd2 import *  # noqa: F403
