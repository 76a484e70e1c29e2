"""What is claimed of `SequenceExtract`, under the roles that `tidegate grants` prints."""

from tests.extract.test_sequence import *  # noqa: F403
