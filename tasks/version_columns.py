"""The columns by which a table that keeps a history tells when each version of a row was valid; see `Scd2`."""

VALID_FROM = "valid_from"
"""First instant at which the version was valid, UTC; unique with the key."""

VALID_TO = "valid_to"
"""First instant at which it was not any more, UTC; NULL is open."""

IS_CURRENT = "is_current"
"""Whether it is open."""
