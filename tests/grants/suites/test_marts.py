"""What is claimed of `SqlTransform`, under the roles that `tidegate grants` prints."""

from tests.extract.test_sql import *  # noqa: F403
