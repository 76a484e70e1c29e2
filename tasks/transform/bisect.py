"""Running a transform so that one bad row cannot take its batch with it."""

from collections.abc import Callable

import pandas as pd

from tasks.errors import ContractError, TidegateError
from tasks.masking import told
from tasks.transform.whole_window import WholeWindow

_PROBES = 8


def run_transform(
    transform: Callable[[pd.DataFrame], pd.DataFrame] | None, frame: pd.DataFrame, pipeline: str
) -> tuple[pd.DataFrame, dict[int, Exception]]:
    """The transform's result, and by index the rows that it raised on.

    A batch that raises is halved until the guilty rows stand alone; a whole window is not, since it would not be whole.

    Raises:
        ConfigError: the window is larger than its transform may take at once.
        ContractError: it raises on every row, or returns something else than a frame: it is broken, not the rows.
    """
    if transform is None or frame.empty:
        return frame if transform is None else _checked(transform(frame), pipeline), {}
    if isinstance(transform, WholeWindow):
        transform.admit(len(frame), pipeline)
    try:
        return _checked(transform(frame.copy(deep=False)), pipeline), {}
    except TidegateError:
        raise
    except Exception as error:
        if isinstance(transform, WholeWindow):
            raise ContractError(
                f"{pipeline}: the transform of the whole window fails: {told(error)}. Mend it, or "
                "have it mark the rows that it cannot take, for a rule of the contract to reject."
            ) from error
        if _raises_everywhere(transform, frame):
            raise ContractError(
                f"{pipeline}: the transform fails on every row of a batch: {told(error)}. "
                "Mend the transform, or the columns it reads."
            ) from error
        good, broken = _halve(transform, frame, error, pipeline)
        return (pd.concat(good) if good else frame.iloc[:0]), broken


def _halve(
    transform: Callable[[pd.DataFrame], pd.DataFrame], frame: pd.DataFrame, error: Exception, pipeline: str
) -> tuple[list[pd.DataFrame], dict[int, Exception]]:
    if len(frame) == 1:
        return [], {int(frame.index[0]): error}
    good: list[pd.DataFrame] = []
    broken: dict[int, Exception] = {}
    middle = len(frame) // 2
    for half in (frame.iloc[:middle], frame.iloc[middle:]):
        try:
            good.append(_checked(transform(half.copy(deep=False)), pipeline))
        except ContractError:
            raise
        except Exception as raised:
            good_in_half, broken_in_half = _halve(transform, half, raised, pipeline)
            good += good_in_half
            broken |= broken_in_half
    return good, broken


def _raises_everywhere(transform: Callable[[pd.DataFrame], pd.DataFrame], frame: pd.DataFrame) -> bool:
    """Whether a sample of single rows, spread over a batch of more than one, fails without exception."""
    if len(frame) == 1:
        return False
    step = max(1, len(frame) // _PROBES)
    for position in range(0, len(frame), step):
        try:
            transform(frame.iloc[[position]].copy(deep=False))
        except Exception:
            continue
        return False
    return True


def _checked(result: object, pipeline: str) -> pd.DataFrame:
    if not isinstance(result, pd.DataFrame):
        raise ContractError(
            f"{pipeline}: the transform returned {type(result).__name__} instead of a DataFrame. Return the frame."
        )
    return result
