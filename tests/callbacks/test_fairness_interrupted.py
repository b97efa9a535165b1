"""A run that was interrupted ends with the tables of one that was not, wherever its best epoch lies."""

import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback

from ecgfair.callbacks import fairness_record, kept_records
from ecgfair.callbacks.history import Moment
from ecgfair.errors import RunFolderError
from tests.callbacks.toy import BEST_EPOCH, Toy, checkpointing, fairness, loader, stored, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
)
SETTINGS = {"resamples": 100, "permutations": 100}


class StoppedError(Exception):
    """Stands in for whatever ends a run."""


class Stop(Callback):
    """Fails at the start of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise StoppedError


def run(folder, *callbacks, ckpt_path=None):
    trainer = checkpointing(folder, fairness(**SETTINGS))
    trainer.callbacks = [*trainer.callbacks, *callbacks]
    trainer.fit(Toy(), loader(), loader(), ckpt_path=ckpt_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of three epochs, best in the middle."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def same_tables(folder, whole):
    for name in ("fairness.parquet", "fairness_tests.parquet"):
        found, expected = pd.read_parquet(folder / name), pd.read_parquet(whole / name)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert not (folder / kept_records.FOLDER).exists()


@pytest.mark.parametrize("stopped", [1, 2], ids=["before the best epoch", "behind the best epoch"])
def test_a_resumed_run_has_every_row_interval_and_test_of_one_that_was_not_stopped(tmp_path, whole, stopped, capsys):
    with pytest.raises(StoppedError):
        run(tmp_path, Stop(stopped))
    run(tmp_path, ckpt_path=tmp_path / f"epoch={stopped - 1}.ckpt")
    same_tables(tmp_path, whole)
    assert stored(tmp_path).query("epoch == @BEST_EPOCH")["low"].notna().any()
    out = capsys.readouterr().out
    assert f"Validation at epoch {BEST_EPOCH}, step 6, the best of this run by val/auroc/macro" in out
    assert "AUROC [95 %]" in out


def test_a_run_that_was_stopped_over_its_intervals_makes_them_without_training(tmp_path, whole, monkeypatch):
    def stopped(*_):
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(fairness_record, "gap_tests", stopped)
        with pytest.raises(StoppedError):
            run(tmp_path)
    assert not (tmp_path / "fairness_tests.parquet").exists()
    run(tmp_path, ckpt_path=tmp_path / "epoch=2.ckpt")
    same_tables(tmp_path, whole)


def test_who_goes_on_from_before_the_best_epoch_measures_it_again(tmp_path, whole):
    with pytest.raises(StoppedError):
        run(tmp_path, Stop(2))
    assert len(list((tmp_path / kept_records.FOLDER).iterdir())) == 2
    run(tmp_path, ckpt_path=tmp_path / "epoch=0.ckpt")
    same_tables(tmp_path, whole)


def test_of_the_evaluations_kept_the_last_until_the_checkpoint_counts_and_later_ones_go(tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path, Stop(2))
    assert kept_records.kept_until(tmp_path, 6).moment == Moment(1, 6, "val")
    assert kept_records.kept_until(tmp_path, 5).moment == Moment(0, 3, "val")
    assert [path.name for path in (tmp_path / kept_records.FOLDER).iterdir()] == ["step-000000003.safetensors"]
    assert kept_records.kept_until(tmp_path, 2) is None


def test_a_fresh_run_forgets_what_another_kept(tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path, Stop(2))
    with pytest.raises(StoppedError):
        trainer_for(tmp_path, fairness(**SETTINGS), Stop(1)).fit(Toy(), loader(), loader())
    assert kept_records.kept_until(tmp_path, 100).moment == Moment(0, 3, "val")


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path, Stop(2))
    path = max((tmp_path / kept_records.FOLDER).iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=rf"{path.name} can't be read: .*Remove it"):
        run(tmp_path, ckpt_path=tmp_path / "epoch=1.ckpt")
