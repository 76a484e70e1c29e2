"""The command `tidegate`: each of its commands is in a module of `deployments.commands`.

A module imports what it works with inside its functions, so that `tidegate --help` need not load Prefect.
"""

import typer

from deployments.commands import (
    backfill,
    ddl,
    dead_letters,
    demo,
    deploy,
    doctor,
    grants,
    personal_data,
    preview,
    reconcile,
    replay,
    run,
    runs,
    status,
    watermark,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ETL flows on Prefect 3 that can be rerun, killed or replayed, and the target is still right.",
)


@app.callback()
def _root() -> None:
    """Keep the commands named, however few there are."""


app.command()(demo.demo)
app.command()(deploy.deploy)
app.command()(ddl.ddl)
app.command()(run.run)
app.command()(backfill.backfill)
app.command()(preview.preview)
app.command()(reconcile.reconcile)
app.command()(status.status)
app.command()(runs.runs)
app.command("run-info")(runs.run_info)
app.command()(doctor.doctor)
app.command()(grants.grants)
dead_letters.app.command()(replay.replay)
dead_letters.app.command()(replay.discard)
dead_letters.app.command()(personal_data.erase)
dead_letters.app.command()(personal_data.expire)
dead_letters.app.command()(personal_data.mask)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(watermark.app, name="watermark")
