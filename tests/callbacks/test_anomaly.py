"""What the callback logs, calibrates, draws and reports, in one process."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from ecgfair.anomaly.calibration import NormalCalibration
from ecgfair.anomaly.evaluation.decisions import choose_thresholds
from ecgfair.callbacks import AnomalyDetection, PredictionTable
from ecgfair.callbacks.anomaly_calibration import Calibration
from ecgfair.callbacks.anomaly_examples import Examples
from ecgfair.callbacks.log_figures import log_figures
from ecgfair.callbacks.predictions import model_fingerprint
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.report.read_predictions import read_predictions
from tests.callbacks.anomaly_toy import (
    LABELS,
    RECORDS,
    SKILL,
    Data,
    Scorer,
    ToyRecords,
    anomaly,
    expected,
    kinds,
    parts_at,
    toy_records,
)
from tests.callbacks.toy import Toy, loader, logged, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    # The first process alone measures here; the advice is for values of one rank.
    "error:It is recommended to use `self.log",
)


def checkpointing(folder, callback, **arguments):
    keep_all = ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
    return trainer_for(folder, callback, keep_all, enable_checkpointing=True, **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with a checkpoint of each epoch, and what was logged in each."""
    folder = tmp_path_factory.mktemp("run")
    trainer = checkpointing(folder, anomaly())
    trainer.fit(Scorer(), datamodule=Data())
    return folder, logged(trainer)


def calibration_in(checkpoint):
    """Read as a careful reader does: no pickled objects."""
    states = torch.load(checkpoint, weights_only=True)["callbacks"]
    (state,) = (state for name, state in states.items() if name.startswith(AnomalyDetection.__name__))
    return Calibration.from_dict(state["calibration"])


def test_a_validation_logs_what_is_counted_pair_by_pair(tmp_path):
    trainer = trainer_for(tmp_path, anomaly())
    trainer.validate(Scorer(), datamodule=Data(), verbose=False)
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)


def test_the_oracle_agrees_with_scikit_learn():
    normal, abnormal = kinds()
    parts, _ = parts_at(toy_records(), 1)
    compared = normal | abnormal
    assert expected(epoch=1)["val/anomaly/auroc"] == pytest.approx(
        roc_auc_score(abnormal[compared], parts["whole"][compared])
    )


def test_every_epoch_is_measured_anew_and_the_last_is_what_remains(run):
    assert run[1] == pytest.approx(expected(epoch=len(SKILL) - 1), abs=1e-6)


def test_scores_that_a_step_returned_are_taken_and_the_module_is_not_asked_again(tmp_path):
    class Telling(Scorer):
        def validation_step(self, batch):
            return {"anomaly": self.anomaly_scores(batch)}

    module = Telling()
    trainer = trainer_for(tmp_path, anomaly())
    trainer.validate(module, datamodule=Data(), verbose=False)
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)
    assert len(module.asked) == math.ceil(RECORDS / 24)


def test_the_sanity_check_is_neither_measured_nor_scored(tmp_path):
    module = Scorer()
    callback = anomaly()
    trainer = trainer_for(
        tmp_path, callback, num_sanity_val_steps=2, limit_train_batches=1, limit_val_batches=0, max_epochs=1
    )
    trainer.fit(module, datamodule=Data())
    assert (module.asked, callback.calibration, logged(trainer)) == ([], None, {})


@pytest.mark.parametrize("epoch", range(3))
def test_each_checkpoint_holds_the_calibration_that_its_own_weights_gave_on_the_validation_records(run, epoch):
    found = calibration_in(run[0] / f"epoch={epoch}.ckpt")
    normal, abnormal = kinds()
    score = parts_at(toy_records(), epoch)[0]["whole"]
    words = f"validation records at epoch {epoch}"
    assert found.normals == NormalCalibration.fit(score[normal], calibrated_on=words, folds=[9])
    compared = normal | abnormal
    assert found.thresholds == choose_thresholds(score[compared], abnormal[compared], chosen_on=words)


def test_a_test_takes_calibration_and_thresholds_from_the_checkpoint_and_never_makes_any(run, tmp_path):
    callback = anomaly()
    trainer = trainer_for(tmp_path, callback, PredictionTable())
    trainer.test(Scorer(), datamodule=Data(), ckpt_path=run[0] / "epoch=1.ckpt", verbose=False)
    kept = calibration_in(run[0] / "epoch=1.ckpt")
    assert callback.calibration == kept
    assert logged(trainer) == pytest.approx(expected("test", 1), abs=1e-6)
    table = pd.read_parquet(tmp_path / "anomaly.parquet")
    row = table[(table["attribute"] == "overall") & (table["statistic"] == "auroc")].iloc[0]
    assert row["value"] == pytest.approx(expected("test", 1)["test/anomaly/auroc"])
    assert row["score"] == "Scorer at epoch 1"
    score = parts_at(toy_records(), 1)[0]["whole"]
    percentile = pd.read_parquet(tmp_path / "predictions.parquet")["anomaly_percentile"].to_numpy()
    assert percentile == pytest.approx(kept.normals.percentile(score).numpy())


def test_a_test_on_the_folds_of_the_calibration_is_refused(run, tmp_path):
    trainer = trainer_for(tmp_path, anomaly())
    with pytest.raises(ConfigurationError, match=r"with the test folds \[9\] among them"):
        trainer.test(Scorer(), datamodule=Data((8,), (9,)), ckpt_path=run[0] / "epoch=1.ckpt", verbose=False)


def test_a_checkpoint_of_weights_alone_brings_no_calibration(run, tmp_path):
    checkpoint = torch.load(run[0] / "epoch=1.ckpt", weights_only=True)
    checkpoint["callbacks"] = {}
    torch.save(checkpoint, tmp_path / "weights.ckpt")
    callback = anomaly()
    trainer = trainer_for(tmp_path, callback, PredictionTable())
    trainer.validate(Scorer(), datamodule=Data(), verbose=False)
    assert callback.calibration is not None
    trainer.test(Scorer(), datamodule=Data(), ckpt_path=tmp_path / "weights.ckpt", verbose=False)
    assert callback.calibration is None
    assert "anomaly_percentile" not in pd.read_parquet(tmp_path / "predictions.parquet")


def test_a_resumed_run_ends_with_what_an_uninterrupted_one_ends_with(run, tmp_path):
    callback = anomaly()
    trainer = trainer_for(tmp_path, callback)
    trainer.fit(Scorer(), datamodule=Data(), ckpt_path=run[0] / "epoch=0.ckpt")
    assert logged(trainer) == run[1]
    assert callback.calibration == calibration_in(run[0] / "epoch=2.ckpt")


def test_a_calibration_by_group_holds_each_record_against_its_own_group(tmp_path):
    callback = anomaly(calibrate_by="sex")
    trainer_for(tmp_path, callback).validate(Scorer(), datamodule=Data(), verbose=False)
    found = Calibration.from_dict(callback.calibration.to_dict())
    assert found == callback.calibration
    assert found.normals.attribute == "sex"
    records = toy_records()
    shares = found.percentile(records["signal"][:, 0, 0].double(), records["age"], records["sex"])
    assert ((shares > 0) & (shares < 1)).all()


def test_a_damaged_calibration_says_so():
    with pytest.raises(CheckpointError, match="calibration of anomaly scores can't be read"):
        Calibration.from_dict({"normals": {}})


@pytest.mark.parametrize("alone", ["normal", "abnormal"])
def test_with_one_class_alone_the_areas_are_nan_and_the_keys_are_the_same(tmp_path, alone):
    of_kind = dict(zip(("normal", "abnormal"), kinds(), strict=True))[alone]
    chosen = torch.utils.data.Subset(ToyRecords(), of_kind.nonzero()[:, 0].tolist())
    callback = anomaly()
    trainer = trainer_for(tmp_path, callback)
    trainer.validate(Scorer(), datamodule=Data(loaded=DataLoader(chosen, batch_size=9)), verbose=False)
    assert set(logged(trainer)) == set(expected())
    assert all(math.isnan(value) for key, value in logged(trainer).items() if "auroc" in key)
    assert (callback.calibration is None) == (alone == "abnormal")


def test_a_score_that_is_nan_is_told_and_not_calibrated_on_and_a_test_names_its_record(tmp_path):
    class Failing(Scorer):
        def anomaly_scores(self, batch, *, maps=False):
            found = super().anomaly_scores(batch, maps=maps)
            return found._replace(score=found.score.masked_fill(batch["index"] == 107, torch.nan))

    callback = anomaly()
    trainer = trainer_for(tmp_path, callback)
    with (
        pytest.warns(UserWarning, match="NaN for 1 of 61 records"),
        pytest.raises(ConfigurationError, match="the first of the record at 107"),
    ):
        trainer.validate(Failing(), datamodule=Data(), verbose=False)
    assert math.isnan(logged(trainer)["val/anomaly/auroc"])
    assert callback.calibration is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "the data have no labels: leave the callback out, or choose a label set with data.labels"),
        (["HYP", "NORN", "MI"], "Did you mean 'NORN'"),
    ],
)
def test_data_without_the_label_are_refused_before_anything_runs(tmp_path, labels, said):
    module = Scorer()
    with pytest.raises(ConfigurationError, match=said):
        trainer_for(tmp_path, anomaly()).fit(module, datamodule=Data(labels=labels))
    assert module.asked == []


def test_a_module_without_scores_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"Toy has no anomaly_scores\(batch, \*, maps\)"):
        trainer_for(tmp_path, anomaly()).validate(Toy(), loader())


def test_parts_that_change_are_refused(tmp_path):
    class Changing(Scorer):
        anomaly_parts = ("whole", "beat", "trend")

    with pytest.raises(ConfigurationError, match=r"parts \['beat', 'whole'\]: expected \['beat', 'trend', 'whole'\]"):
        trainer_for(tmp_path, anomaly()).validate(Changing(), datamodule=Data(), verbose=False)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"maps": -1}, "maps is -1"),
        ({"smoothing": -0.1}, "smoothing"),
        ({"resamples": -1}, "resamples"),
        ({"calibrate_by": "hight"}, "hight"),
    ],
)
def test_impossible_settings_are_refused(setting, said):
    with pytest.raises(ConfigurationError, match=said):
        AnomalyDetection(**setting)


class Keeper(DummyLogger):
    """A logger that keeps images in memory."""

    def __init__(self):
        super().__init__()
        self.images = []

    def log_image(self, key, images, step=None, **kwargs):
        self.images.append((key, len(images), step, kwargs["caption"]))


class Unwilling(Keeper):
    def log_image(self, key, images, step=None, **kwargs):
        raise OSError("no route to host")


def test_every_epoch_draws_the_same_few_records_half_of_them_abnormal(tmp_path):
    module, keeper = Scorer(), Keeper()
    trainer_for(tmp_path, anomaly(maps=2), logger=keeper, max_epochs=2).fit(module, datamodule=Data())
    normal, abnormal = kinds()
    first = [int(flags.nonzero()[0]) + 100 for flags in (abnormal, normal)]
    names = [f"{place:06d}-r_{place}" for place in first]
    for epoch in range(2):
        files = (tmp_path / "maps" / f"epoch-{epoch:03d}").iterdir()
        assert sorted(path.name for path in files) == sorted(f"{name}.png" for name in names)
    assert keeper.images == [("val/anomaly/maps", 2, step, names) for step in (3, 6)]
    assert module.asked.count(True) == 2


def test_a_logger_that_refuses_figures_and_a_folder_that_is_full_end_no_training(tmp_path):
    (tmp_path / "maps").write_text("in the way")
    trainer = trainer_for(tmp_path, anomaly(maps=1), logger=Unwilling(), max_epochs=1)
    with (
        pytest.warns(UserWarning, match="Unwilling did not take the figures 'val/anomaly/maps': no route to host"),
        pytest.warns(UserWarning, match="was not written"),
    ):
        trainer.fit(Scorer(), datamodule=Data())
    assert trainer.current_epoch == 1


def test_the_examples_are_the_first_of_their_kind_whatever_the_order_of_the_batches():
    records = toy_records()
    normal, abnormal = kinds()
    order = torch.randperm(RECORDS, generator=torch.Generator().manual_seed(1))
    examples = Examples(5)
    for rows in order.split(7):
        examples.offer({name: column[rows] for name, column in records.items()}, normal[rows], abnormal[rows])
    chosen = [*abnormal.nonzero()[:3, 0], *normal.nonzero()[:2, 0]]
    batch = examples.batch()
    for name, column in records.items():
        torch.testing.assert_close(batch[name], column[torch.stack(chosen)], equal_nan=True)


def test_a_test_says_how_it_was_made_and_who_was_left_out(run, tmp_path, capsys):
    trainer = trainer_for(tmp_path, anomaly(resamples=100))
    trainer.test(Scorer(), datamodule=Data(train_only="NORM"), ckpt_path=run[0] / "epoch=1.ckpt", verbose=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "trained on the NORM-only records of folds 1-8, calibrated on fold 9, tested on fold 10" in printed
    assert "Of 61 records 1 are normal and have another label and are left out; 1 have no label" in printed
    assert "2 have no beat" in printed
    table = pd.read_parquet(tmp_path / "anomaly.parquet")
    assert set(table["protocol"]) == {"corrected"}
    assert table[table["statistic"] == "auroc"]["low"].notna().any()


def test_stage_1_writes_a_table_of_scores_without_probabilities(tmp_path):
    module = Scorer()
    trainer_for(tmp_path, PredictionTable()).predict(module, datamodule=Data())
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    targets = [f"target/{name}" for name in LABELS]
    terms = ["anomaly/whole", "anomaly/beat"]
    named = ["record_id", "patient_id", "fold", "age", "sex", "anomaly_score", *terms]
    assert list(table.columns) == [*named, *targets, "model_fingerprint"]
    assert table["anomaly_score"].to_numpy() == pytest.approx(parts_at(toy_records(), 0)[0]["whole"].numpy())
    for term in terms:
        expected = parts_at(toy_records(), 0)[0][term.removeprefix("anomaly/")].numpy()
        assert table[term].to_numpy() == pytest.approx(expected, nan_ok=True)
    assert table[targets].to_numpy().tolist() == toy_records()["labels"].tolist()
    assert set(table["model_fingerprint"]) == {model_fingerprint(module)}
    with pytest.raises(ConfigurationError, match=r"has anomaly scores \(anomaly_score\) and no probabilities"):
        read_predictions(tmp_path / "predictions.parquet")


def test_a_module_that_does_both_writes_both_and_the_table_is_read_with_its_scores(tmp_path):
    class Both(Scorer):
        label_names, label_prevalence = LABELS, [0.1, 0.5, 0.4]

        def predict_step(self, batch):
            return {"probabilities": torch.full_like(batch["labels"], 0.25)}

    trainer_for(tmp_path, anomaly(), PredictionTable()).validate(Both(), datamodule=Data(), verbose=False)
    callback = anomaly()
    trainer = trainer_for(tmp_path, callback, PredictionTable())
    trainer.validate(Both(), datamodule=Data(), verbose=False)
    trainer.predict(Both(), datamodule=Data())
    found = read_predictions(tmp_path / "predictions.parquet")
    score = parts_at(toy_records(), 0)[0]["whole"]
    torch.testing.assert_close(found.anomaly_score, score)
    torch.testing.assert_close(found.anomaly_percentile, callback.calibration.normals.percentile(score))
    assert found.probabilities.unique().tolist() == [0.25]
    assert found.take([3, 1]).anomaly_score.tolist() == score[[3, 1]].tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb", "ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_weights_and_biases_keeps_the_maps_offline(tmp_path, monkeypatch):
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    keeper = WandbLogger(offline=True, save_dir=tmp_path, project="toy")
    try:
        trainer_for(tmp_path, anomaly(maps=2), logger=keeper, max_epochs=1).fit(Scorer(), datamodule=Data())
    finally:
        keeper.experiment.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/val/anomaly/*.png"))) == 2


class Board(TensorBoardLogger):
    """TensorBoard's logger, whose writer keeps figures in memory: the package itself is not needed."""

    def __init__(self):
        self.figures = []

    @property
    def experiment(self):
        return SimpleNamespace(add_figure=lambda *given, close: self.figures.append((*given, close)))


def test_tensorboard_gets_a_series_of_figures_a_record(tmp_path):
    board = Board()
    figures = {"a": Figure(), "b": Figure()}
    log_figures(SimpleNamespace(loggers=[board], global_step=7), "val/anomaly/maps", figures, None)
    assert board.figures == [(f"val/anomaly/maps/{name}", figure, 7, False) for name, figure in figures.items()]
    assert list(tmp_path.iterdir()) == []
