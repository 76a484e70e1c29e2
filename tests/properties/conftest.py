"""These tests share a pair of PostgreSQL databases."""

from tests.properties.reused_databases import postgresql, reused

__all__ = ["postgresql", "reused"]
