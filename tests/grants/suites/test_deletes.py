"""What is claimed of deletes, soft ones too, under the roles that `tidegate grants` prints."""

from tests.load.test_deletes import *  # noqa: F403
