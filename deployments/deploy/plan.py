"""`Plan`: everything that a deploy does, in its order: shown first, and then applied."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from deployments.change import Action, Change
from deployments.deploy.failure import DeployFailed
from tasks.errors import TidegateError

_STYLES = {"create": "green", "update": "yellow", "delete": "red"}


@dataclass(frozen=True)
class Plan:
    """What differs between prefect.yaml and the server.

    Attributes:
        changes: in the order in which they are applied.
        wanted: how many things of each kind the file asks for.
        notes: what a person should know.
    """

    changes: Sequence[Change]
    wanted: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "changes": [
                {"action": one.action, "kind": one.kind, "name": one.name, "why": one.why} for one in self.changes
            ],
            "unchanged": self._left(),
            "notes": self.notes,
        }

    def show(self, console: Console) -> None:
        """Print a line for each change, and what stays as it is."""
        if not self.changes:
            console.print(f"No changes: {self._unchanged()}.", highlight=False, markup=False, soft_wrap=True)
        else:
            self._show_changes(console)
        for note in self.notes:
            console.print(f"- {note}", style="dim", highlight=False, markup=False, soft_wrap=True)

    def _show_changes(self, console: Console) -> None:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for change in self.changes:
            action = f"[{_STYLES[change.action]}]{change.action}[/]"
            table.add_row(action, change.kind, _plain(change.name), _plain(change.why))
        console.print(table, highlight=False, soft_wrap=False)
        unchanged = self._unchanged()
        if unchanged:
            console.print(f"nothing  {unchanged}", style="dim", highlight=False, markup=False, soft_wrap=True)
        console.print(f"\n{self.counts()}.", highlight=False)

    def counts(self, done: bool = False) -> str:
        """How many things are, or were, created, updated and deleted."""
        found = Counter(change.action for change in self.changes)
        form = "{} {}d" if done else "{} to {}"
        return ", ".join(form.format(found[action], action) for action in get_args(Action) if found[action])

    def apply(self, console: Console) -> None:
        """Do everything, one thing after another.

        Raises:
            DeployFailed: one of them failed; those before it are done.
        """
        with console.status("") as status:
            for number, change in enumerate(self.changes):
                status.update(f"{change.action} {change.kind} {_plain(change.name)}")
                try:
                    change.apply()
                except Exception as error:
                    what = str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}"
                    # Without the cause: a traceback would show what no message may.
                    raise DeployFailed(
                        f"To {change.action} the {change.kind} {change.name!r} failed, after {number} of "
                        f"{len(self.changes)} changes, which stand. Deploy again when this is mended; it goes on from "
                        f"there. {what}"
                    ) from None

    def _unchanged(self) -> str:
        texts = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in self._left().items()]
        return f"{', '.join(texts)} as wanted" if texts else ""

    def _left(self) -> dict[str, int]:
        """How many things of each kind stay as they are; none of no kind."""
        touched = Counter(change.kind for change in self.changes if change.action != "delete")
        left = {kind: count - touched[kind] for kind, count in self.wanted.items()}
        return {kind: count for kind, count in left.items() if count > 0}


def _plain(text: str) -> str:
    """`text` for rich, which would take brackets in it for its own."""
    return text.replace("[", r"\[")
