"""Anomaly scores on two processes over gloo: see ``anomaly_ranks``, which each of them runs."""

import json

import pandas as pd
import pytest

from tests.callbacks.anomaly_ranks import main
from tests.callbacks.anomaly_toy import RECORDS, expected, parts_at, toy_records
from tests.gloo_processes import on_processes

SCENARIOS = ("uneven", "overlapping", "empty_first_rank", "empty_last_rank")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank found, and the folder they ran in."""
    folder = tmp_path_factory.mktemp("anomaly_ranks")
    on_processes(main, folder)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)], folder


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_rank_logs_and_calibrates_as_one_process_does_however_the_records_are_shared_out(ranks, scenario):
    found, _ = ranks
    for of_rank in found:
        assert of_rank[scenario]["logged"] == pytest.approx(expected(), abs=1e-6)
        assert of_rank[scenario]["test"] == pytest.approx(expected("test"), abs=1e-6)
        assert of_rank[scenario] == found[0][scenario]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_tables_have_every_record_once_in_the_order_of_the_store(ranks, scenario):
    folder = ranks[1] / scenario
    table = pd.read_parquet(folder / "predictions.parquet")
    assert table["record_id"].tolist() == [f"r {100 + place}" for place in range(RECORDS)]
    assert table["anomaly_score"].to_numpy() == pytest.approx(parts_at(toy_records(), 0)[0]["whole"].numpy(), abs=1e-6)
    rows = pd.read_parquet(folder / "anomaly.parquet")
    row = rows[(rows["attribute"] == "overall") & (rows["statistic"] == "auroc")].iloc[0]
    assert row["value"] == pytest.approx(expected()["val/anomaly/auroc"], abs=1e-6)


def test_the_first_rank_alone_draws_and_no_rank_waits_for_it(ranks):
    found, folder = ranks
    assert [of_rank["fit"]["maps"] for of_rank in found] == [2, 0]
    assert [len(list((folder / "fit" / "maps" / f"epoch-{epoch:03d}").iterdir())) for epoch in range(2)] == [2, 2]
    for of_rank in found:
        assert of_rank["fit"]["logged"] == pytest.approx(expected(epoch=1), abs=1e-6)


def test_ranks_that_would_wait_for_each_other_are_refused(ranks):
    for of_rank in ranks[0]:
        assert "the other ranks wait for its part" in of_rank["skipping"]
