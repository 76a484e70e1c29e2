"""`tidegate deploy`."""

import typer


def deploy() -> None:
    """Make the work pool and deploy everything in prefect.yaml to the server that PREFECT_API_URL names."""
    import subprocess
    import sys

    from prefect.client.orchestration import get_client

    from deployments import work_pool
    from deployments.prefect_server import PROJECT

    with get_client(sync_client=True) as client:
        work_pool.ensure(client)
    done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], cwd=PROJECT, check=False)
    raise typer.Exit(done.returncode)
