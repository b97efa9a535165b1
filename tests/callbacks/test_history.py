import math

import pandas as pd
import pytest
import torch

from ecgfair.callbacks.history import History, Moment
from ecgfair.errors import RunFolderError, WriteError
from ecgfair.groups import group_by_age, group_by_sex
from ecgfair.metrics.fairness import evaluate
from ecgfair.metrics.predictions import Predictions

VALUES = {"low": 0.25, "high": 0.75, "undefined": math.nan}


def report(value):
    """A report whose macro AUROC is the one named."""
    positive = {"low": 0.15, "high": 0.35, "undefined": torch.nan}[value]
    probabilities, targets = torch.tensor([[positive, 0.1, 0.2, 0.3, 0.9], [1, 0, 0, 0, 0]]).split(1)
    age, sex = torch.full((5,), 50.0), torch.zeros(5, dtype=torch.int64)
    groupings = [group_by_sex(sex), group_by_age(age)]
    return evaluate(Predictions(probabilities.T, targets.T, ["a"], groupings, label_prevalence=[0.1]))


def history(*values, stage="val"):
    made = History()
    for epoch, value in enumerate(values):
        made = made.with_report(Moment(epoch, 10 * (epoch + 1), stage), report(value))
    return made


def moments(of):
    return list(of.frame[["epoch", "step", "stage"]].drop_duplicates().itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        (["low", "high", "low"], 1),
        (["high", "low", "high"], 0),
        (["undefined", "low", "undefined"], 1),
        (["undefined", "undefined"], 1),
    ],
)
def test_the_best_is_the_first_of_the_highest_and_the_last_where_all_are_undefined(values, epoch):
    moment, found = history(*values).best()
    assert moment == Moment(epoch, 10 * (epoch + 1), "val")
    assert found.scalars("val")["val/auroc/macro"] == pytest.approx(VALUES[values[epoch]], nan_ok=True)


@pytest.mark.parametrize(("mode", "epoch"), [("max", 1), ("min", 0)])
def test_the_best_is_by_the_metric_and_in_the_direction_asked_for(mode, epoch):
    moment, _ = history("low", "high", "low").best("val/auroc/head", mode)
    assert moment.epoch == epoch


def test_by_a_metric_that_no_report_has_the_last_report_is_the_best():
    assert history("high", "low").best("val/fair/device/worst_auroc")[0].epoch == 1


def test_a_test_is_never_the_best_validation():
    assert history("high", stage="test").best() is None
    assert History().best() is None


def test_a_report_takes_the_place_of_that_of_the_same_moment_only():
    again = history("low", "low").with_report(Moment(1, 20, "val"), report("high"))
    assert moments(again) == [(0, 10, "val"), (1, 20, "val")]
    assert again.best()[0].epoch == 1
    assert moments(again.with_report(Moment(1, 20, "test"), report("low")))[-1] == (1, 20, "test")


def test_before_a_moment_is_an_earlier_epoch_or_an_earlier_step_of_it():
    three = history("low", "low", "low")
    assert moments(three.before(Moment(1, 20, "val"))) == [(0, 10, "val")]
    assert moments(three.before(Moment(1, 25, "val"))) == [(0, 10, "val"), (1, 20, "val")]
    assert moments(three.before(Moment(0, 99, "val"))) == [(0, 10, "val")]
    assert moments(History().before(Moment(1, 1, "val"))) == []


def test_a_file_read_back_is_what_was_written_and_no_draft_is_left(tmp_path):
    path = tmp_path / "new" / "fairness.parquet"
    written = history("low", "undefined")
    written.write(path)
    pd.testing.assert_frame_equal(History.read(path).frame, written.frame)
    assert [file.name for file in path.parent.iterdir()] == ["fairness.parquet"]


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "fairness.parquet"
    history("low").write(path)

    def half(frame, draft, **_):  # noqa: ARG001
        draft.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(WriteError, match=r"fairness\.parquet can't be written \(no space left\): .* is kept"):
        history("low", "high").write(path)
    assert moments(History.read(path)) == [(0, 10, "val")]
    assert [file.name for file in tmp_path.iterdir()] == ["fairness.parquet"]


def test_no_file_is_an_empty_history_and_another_table_is_refused(tmp_path):
    path = tmp_path / "fairness.parquet"
    assert History.read(path).frame.empty
    pd.DataFrame({"epoch": [1]}).to_parquet(path)
    with pytest.raises(RunFolderError, match=r"has the columns \['epoch'\]: expected .*Move it away"):
        History.read(path)
