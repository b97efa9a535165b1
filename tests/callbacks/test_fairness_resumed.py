"""Which rows and which table a run leaves that is resumed, repeated or interrupted."""

import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ecgfair.errors import RunFolderError
from tests.callbacks.oracle import expected
from tests.callbacks.toy import BEST_EPOCH, Toy, checkpointing, fairness, loader, moments, stored, trainer_for

pytestmark = pytest.mark.filterwarnings(
    # A resumed run goes on in the folder of the first.
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
)


@pytest.fixture
def finished_run(tmp_path, capsys):
    """A run of three epochs with a checkpoint of each."""
    checkpointing(tmp_path).fit(Toy(), loader(), loader())
    capsys.readouterr()
    return tmp_path


def epochs_with_intervals(folder):
    frame = stored(folder)
    bounded = frame["low"].notna()
    assert (bounded == frame["high"].notna()).all()
    return sorted(set(frame.loc[bounded, "epoch"]))


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint_and_has_each_epoch_once(finished_run):
    before = stored(finished_run)
    before.loc[before["epoch"] == 0, "reason"] = "from the first run"
    before.to_parquet(finished_run / "fairness.parquet")
    trainer = checkpointing(finished_run, max_epochs=4)
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")
    after = stored(finished_run)
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9), ("val", 3, 12)]
    pd.testing.assert_frame_equal(after[after["epoch"] == 0], before[before["epoch"] == 0])
    assert not (after.loc[after["epoch"] > 0, "reason"] == "from the first run").any()


def test_a_resumed_run_drops_the_rows_after_its_checkpoint_even_if_it_ends_before_them(finished_run):
    trainer = checkpointing(finished_run, max_epochs=2)
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6)]


def test_a_fresh_run_in_the_same_folder_replaces_the_file(tmp_path):
    trainer_for(tmp_path, fairness(), max_epochs=2).fit(Toy(), loader(), loader())
    trainer_for(tmp_path, fairness(), max_epochs=1).fit(Toy(), loader(), loader())
    assert moments(tmp_path) == [("val", 0, 3)]


def test_a_test_of_a_checkpoint_is_filed_under_the_epoch_of_its_weights_and_once(finished_run):
    for _ in range(2):
        checkpointing(finished_run).test(Toy(), loader(), ckpt_path=finished_run / "epoch=1.ckpt", verbose=False)
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9), ("test", 1, 6)]


def test_a_damaged_file_is_named_on_resuming(finished_run):
    (finished_run / "fairness.parquet").write_bytes(b"not a table")
    trainer = checkpointing(finished_run, max_epochs=4)
    with pytest.raises(RunFolderError, match=r"fairness\.parquet can't be read.*Move it away"):
        trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")


def test_at_the_end_of_training_the_table_of_the_best_epoch_is_printed(tmp_path, capsys):
    trainer_for(tmp_path, fairness()).fit(Toy(), loader(), loader())
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].strip() == "Validation at epoch 1, step 6, the best of this run by val/auroc/macro"
    value = f"{expected(epoch=BEST_EPOCH)['val/auroc/macro']:.3f}"
    assert next(line for line in lines if "all records" in line).split()[:5] == ["all", "records", "61", "3", value]
    assert lines[-1] == f"Run folder: {tmp_path}"


@pytest.mark.parametrize(
    ("monitor", "mode", "chooses"),
    [
        ("val/fair/sex/worst_auroc", "max", True),
        ("val/fair/sex/ece_gap", "min", True),
        ("val/fair/age/fpr_gap", "max", True),
        ("epoch", "max", False),
    ],
)
def test_the_table_is_of_the_epoch_that_the_checkpoint_chose_if_by_what_is_measured_here(
    tmp_path, capsys, monitor, mode, chooses
):
    checkpoint = ModelCheckpoint(tmp_path, monitor=monitor, mode=mode, filename="best")
    trainer = trainer_for(tmp_path, fairness(resamples=100), checkpoint, enable_checkpointing=True)
    trainer.fit(Toy(), loader(), loader())
    key, better = (monitor, max if mode == "max" else min) if chooses else ("val/auroc/macro", max)
    best = better(range(3), key=lambda epoch: expected(epoch=epoch)[key])
    assert f"Validation at epoch {best}, step {3 * best + 3}, the best of this run by {key}" in capsys.readouterr().out
    assert epochs_with_intervals(tmp_path) == [best]


def test_the_best_epoch_may_lie_before_the_resumption_and_then_has_no_intervals(finished_run, capsys):
    trainer = checkpointing(finished_run, fairness(resamples=100, permutations=100))
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=1.ckpt")
    out = capsys.readouterr().out
    assert "Validation at epoch 1, step 6" in out
    assert "95 %" not in out
    assert epochs_with_intervals(finished_run) == []
    assert not (finished_run / "fairness_tests.parquet").exists()


def test_the_best_epoch_after_the_resumption_has_intervals(finished_run, capsys):
    trainer = checkpointing(finished_run, fairness(resamples=100))
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")
    assert "AUROC [95 %]" in capsys.readouterr().out
    assert epochs_with_intervals(finished_run) == [BEST_EPOCH]


def test_a_run_interrupted_by_the_keyboard_prints_the_best_epoch_without_waiting_for_intervals(tmp_path, capsys):
    class Impatient(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    trainer = trainer_for(tmp_path, fairness(resamples=100, permutations=100), Impatient())
    with pytest.raises(SystemExit):  # Lightning's answer
        trainer.fit(Toy(), loader(), loader())
    out = capsys.readouterr().out
    assert out.count("Validation at epoch 1, step 6") == 1
    assert "95 %" not in out
    assert moments(tmp_path) == [("val", 0, 3), ("val", 1, 6)]
    assert epochs_with_intervals(tmp_path) == []
    assert not (tmp_path / "fairness_tests.parquet").exists()


def test_a_run_interrupted_before_its_first_validation_prints_no_table(tmp_path, capsys):
    class Impatient(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        trainer_for(tmp_path, fairness(), Impatient()).fit(Toy(), loader(), loader())
    assert "Validation" not in capsys.readouterr().out


def test_after_a_test_its_own_table_is_printed(tmp_path, capsys):
    trainer_for(tmp_path, fairness(resamples=100)).test(Toy(), loader(), verbose=False)
    out = capsys.readouterr().out.strip()
    assert out.startswith("Test at epoch 0, step 0")
    assert "AUROC [95 %]" in out
