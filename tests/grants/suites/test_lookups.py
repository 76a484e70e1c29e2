"""What is claimed of lookups, under the roles that `tidegate grants` prints."""

from tests.transform.test_lookup import *  # noqa: F403
