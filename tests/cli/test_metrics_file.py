"""The table of metrics: on the disk at once, and cut where a run goes on."""

import csv

import pandas as pd
import pytest

from ecgfair.cli.metrics_file import MetricsFile
from ecgfair.errors import RunFolderError, WriteError


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def two_epochs(file):
    """What Lightning logs of two epochs of three steps each: validation, then the means of training."""
    for epoch, step in ((0, 2), (1, 5)):
        file.log_metrics({"val/loss": 0.5 - step / 100, "epoch": epoch}, step)
        file.log_metrics({"train/loss": 0.7 - step / 100, "epoch": epoch}, step)


def test_every_row_is_in_the_file_when_it_is_logged_and_columns_may_come_later(tmp_path):
    file = MetricsFile(tmp_path)
    file.log_metrics({"val/loss": 0.5, "epoch": 0}, 2)
    assert rows(tmp_path) == [{"epoch": "0", "step": "2", "val/loss": "0.5"}]
    file.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0}, 2)
    assert rows(tmp_path)[1] == {"epoch": "0", "step": "2", "train/loss": "0.30000000000000004"}
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "epoch,step,train/loss,val/loss"
    assert pd.read_csv(tmp_path / "metrics.csv")["val/loss"].tolist()[0] == 0.5


def test_what_is_not_a_number_is_a_row_like_others(tmp_path):
    MetricsFile(tmp_path).log_metrics({"val/auroc/macro": float("nan")}, 0)
    assert rows(tmp_path) == [{"step": "0", "val/auroc/macro": "nan"}]


@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
def test_a_run_that_was_killed_after_any_row_leaves_the_file_of_one_that_was_not(known, tmp_path):
    """From a checkpoint of the first epoch's end, or anew where there is none yet."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    two_epochs(MetricsFile(tmp_path / "whole"))
    killed = MetricsFile(tmp_path / "killed")
    logged = []
    recorder = type("Recorder", (), {"log_metrics": lambda _, *row: logged.append(row)})()
    two_epochs(recorder)
    for row in logged[:known]:
        killed.log_metrics(*row)
    again = MetricsFile(tmp_path / "killed")
    # The checkpoint comes between the two rows of an epoch; who goes on from it logs the second, once more or at last.
    again.keep_before(3 if known else 0)
    for row in logged[1 if known else 0 :]:
        again.log_metrics(*row)
    assert (tmp_path / "killed" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_half_a_row_that_a_power_cut_left_is_dropped(tmp_path):
    two_epochs(MetricsFile(tmp_path))
    whole = (tmp_path / "metrics.csv").read_bytes()
    for cut in (1, 5, 12):
        (tmp_path / "metrics.csv").write_bytes(whole[:-cut])
        again = MetricsFile(tmp_path)
        again.keep_before(6)
        assert rows(tmp_path) == rows_of(whole)[:-1]
        again.log_metrics({"train/loss": 0.7 - 5 / 100, "epoch": 1}, 5)
        assert (tmp_path / "metrics.csv").read_bytes() == whole


def rows_of(content: bytes):
    lines = csv.DictReader(content.decode().splitlines())
    return [{name: value for name, value in row.items() if value} for row in lines]


def test_nothing_is_kept_before_the_first_step(tmp_path):
    two_epochs(MetricsFile(tmp_path))
    MetricsFile(tmp_path).keep_before(0)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_measurement_by_itself_has_a_file_of_its_own(tmp_path):
    two_epochs(MetricsFile(tmp_path))
    MetricsFile(tmp_path).log_metrics({"test/auroc/macro": 0.9}, 0)
    assert rows(tmp_path) == [{"step": "0", "test/auroc/macro": "0.9"}]


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunFolderError, match="row without a step"):
        MetricsFile(tmp_path).keep_before(1)


def test_a_disk_that_is_full_is_told_and_costs_no_row(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path)
    two_epochs(file)
    before = rows(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for row in ({"val/loss": 0.1}, {"new": 0.1}):
        with pytest.raises(WriteError, match=r"metrics\.csv can't be written \(No space left on device\)"):
            file.log_metrics(row, 8)
    assert rows(tmp_path)[: len(before)] == before
