"""What is claimed of references, under the roles that `tidegate grants` prints."""

from tests.transform.test_references import *  # noqa: F403
