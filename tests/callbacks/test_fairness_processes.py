"""The callback on two and on three processes over gloo: see ``ranks``, which each of them runs."""

import json
import math

import pytest

from tests.callbacks.oracle import expected, thresholds_of
from tests.callbacks.ranks import main
from tests.callbacks.toy import BATCH, BEST_EPOCH, RECORDS, moments, stored
from tests.gloo_processes import on_processes

WORLDS = (2, 3)
SCENARIOS = (
    "padded",
    "uneven",
    "one_group_on_one_rank",
    "overlapping",
    "empty_first_rank",
    "empty_last_rank",
)


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world}_processes")
def ranks(request, tmp_path_factory):
    """What each rank found, the folder they ran in, and their output."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    output = on_processes(main, folder, world=request.param)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(request.param)], folder, output


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_rank_logs_what_one_process_logs_however_the_records_are_shared_out(ranks, scenario):
    found, folder, _ = ranks
    for of_rank in found:
        assert of_rank[scenario]["logged"] == pytest.approx(expected(), abs=1e-6)
        assert of_rank[scenario]["logged"] == found[0][scenario]["logged"]
    assert stored(folder / scenario)["records"].max() == RECORDS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_rank_chooses_the_thresholds_that_one_process_chooses(ranks, scenario):
    for of_rank in ranks[0]:
        assert of_rank[scenario]["thresholds"] == ranks[0][0][scenario]["thresholds"]
        assert of_rank[scenario]["thresholds"]["thresholds"] == pytest.approx(thresholds_of(0), abs=1e-12)


def test_every_rank_chooses_the_same_checkpoint_and_stops_at_the_same_epoch_by_the_worst_group(ranks):
    found, folder, _ = ranks
    world = len(found)
    steps = math.ceil(math.ceil(RECORDS / world) / BATCH)
    for of_rank in found:
        # Epoch 2 is worse than epoch 1, and the patience is 1.
        assert (of_rank["fit"]["name"], of_rank["fit"]["stopped"]) == (f"epoch={BEST_EPOCH}.ckpt", 2)
        assert of_rank["fit"]["logged"] == pytest.approx(expected(epoch=2), abs=1e-6)
        assert of_rank["fit"]["thresholds"] == found[0]["fit"]["thresholds"]
    assert moments(folder / "fit") == [("val", epoch, steps * (epoch + 1)) for epoch in range(3)]


def test_every_rank_tests_a_checkpoint_at_its_thresholds(ranks):
    for of_rank in ranks[0]:
        assert of_rank["test"]["logged"] == pytest.approx(expected("test", BEST_EPOCH), abs=1e-6)
        assert of_rank["test"]["thresholds"]["chosen_on"] == f"validation records at epoch {BEST_EPOCH}"


def test_the_tables_are_printed_and_written_by_one_rank(ranks):
    _, folder, output = ranks
    assert output.count("the best of this run by val/fair/sex/worst_auroc") == 1
    assert output.count("Largest gaps between groups") == 1
    assert output.count(f"Run folder: {folder / 'fit'}\n") == 1
    frame = stored(folder / "fit")
    assert set(frame.loc[frame["low"].notna(), "epoch"]) == {BEST_EPOCH}
    assert (folder / "fit" / "fairness_tests.parquet").exists()


def test_skipping_a_rank_without_records_is_refused_on_every_rank_because_the_others_would_wait(ranks):
    for of_rank in ranks[0]:
        assert "give every rank a record or a loader without a length" in of_rank["skipping"]
