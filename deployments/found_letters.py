"""`FoundLetter`: a dead letter by its number, wherever among the targets of the pipelines it is."""

from dataclasses import dataclass

from deployments.past_runs import targets
from deployments.pipelines import declared, every, masking_of
from tasks.errors import ConfigError, TidegateError
from tasks.running.assembly import Assembly
from tasks.state.history import opened_history
from tasks.state.letters import Letter, read_letter


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A letter, and what would judge its row today.

    Attributes:
        letter: as it is kept.
        contract_now: fingerprint of the pipeline's schema and transform today; None where there is no such pipeline.
        problem: why that could not be told, or None.
    """

    letter: Letter
    contract_now: str | None
    problem: str | None


def find_letter(number: int, pipeline: str | None) -> FoundLetter:
    """The letter `number` in the target of `pipeline`, or in that of any.

    Raises:
        ConfigError: there is none, or several databases have one of that number.
        TidegateError: a target could not be read.
    """
    found: list[Letter] = []
    for target in targets() if pipeline is None else [declared(pipeline).load.connection]:
        with opened_history(target) as connection:
            letter = None if connection is None else read_letter(connection, number)
            # Two names may stand for one database.
            if letter is not None and letter not in found and pipeline in (None, letter.pipeline):
                found.append(letter)
    if len(found) > 1:
        raise ConfigError(
            f"There is a dead letter {number} of each of {', '.join(letter.pipeline for letter in found)}. "
            "Say which with --pipeline."
        )
    if not found:
        raise ConfigError(
            f"There is no dead letter {number}{f' of {pipeline}' if pipeline else ''}. "
            "`tidegate dead-letters list PIPELINE` lists those of a pipeline."
        )
    return _judged_today(found[0].masked(masking_of(found[0].pipeline)))


def _judged_today(letter: Letter) -> FoundLetter:
    for pipeline in every():
        if pipeline.name == letter.pipeline:
            try:
                return FoundLetter(letter, Assembly(pipeline).contract.fingerprint, None)
            except TidegateError as error:
                return FoundLetter(letter, None, f"{type(error).__name__}: {error}")
    return FoundLetter(letter, None, None)
