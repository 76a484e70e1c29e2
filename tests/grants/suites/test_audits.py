"""What is claimed of audits, under the roles that `tidegate grants` prints."""

from tests.transform.test_audits import *  # noqa: F403
