"""The dead letters of several pipelines at once."""

from dataclasses import replace

import pandas as pd
import pytest

from tasks.errors import ReplayFailed
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tasks.recovery.replay_run import replay_pipelines
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put


def mended(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(amount=raw["amount"].abs())


def test_a_pipeline_that_fails_keeps_no_letter_of_another(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    broken = replace(ORDERS, name="broken", load=Upsert("target", "fct_broken", key=["id"]))
    for pipeline in (broken, ORDERS):
        run_pipeline(pipeline)

    def fails(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.reset_index(drop=True).rename(index=lambda _: "lost")

    with pytest.raises(ReplayFailed, match=r"replay: 1 of 2 pipelines failed\. broken: "):
        replay_pipelines("replay", [replace(broken, transform=fails), replace(ORDERS, transform=mended)])
    assert [row["amount"] for row in loaded(sqlite.target)] == [1]


def test_no_open_letter_is_nothing_to_do(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    assert str(replay_pipelines("replay", [ORDERS])) == "no dead letter is open"


def test_the_report_says_what_became_of_them(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2)])
    run_pipeline(replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at")))
    report = replay_pipelines("replay", [replace(ORDERS, transform=mended)])
    assert str(report) == "orders: extracted 1, inserted 1"
    assert report.replayed[0].row["inserted"] == 1
