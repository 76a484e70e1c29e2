"""What to do about a right that a role lacks: the command that prints it, for the pipeline that is being run."""

from tasks.errors import FatalError, TargetError
from tasks.run_scope import shared

_KEY = "whose rights"


def remember_whose(pipeline: str, source: str, target: str) -> None:
    """Have messages of this run name the pipeline, and its connections."""
    shared(_KEY, lambda: (pipeline, source, target))


def remedy(refused: type[FatalError]) -> str:
    """The end of a message that a right is missing, as a sentence; `refused` tells the side."""
    pipeline, source, target = shared(_KEY, lambda: ("", "", ""))
    side = target if issubclass(refused, TargetError) else source
    command = f"tidegate grants {pipeline} --connection {side}" if pipeline else "tidegate grants"
    return f"`{command}` prints the rights that are needed, as SQL for an administrator."
