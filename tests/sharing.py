"""How several processes share the tests."""

from xdist.scheduler import LoadScopeScheduling


class OneServer(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """One by one, but those that need a Prefect server all go to the same process, which starts the only one."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/deployments" if nodeid.startswith("tests/deployments/") else nodeid
