"""A test on other data than those trained on: thresholds chosen elsewhere, and prevalences that nobody can count."""

import math

import pandas as pd
import pytest
import torch

from ecgfair.callbacks import AnomalyDetection, Fairness, PredictionTable
from ecgfair.errors import ConfigurationError
from ecgfair.report.read_predictions import read_predictions
from tests.callbacks.anomaly_toy import LABELS, Data, Scorer, anomaly
from tests.callbacks.toy import checkpointing, fairness, stored, trainer_for

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    "ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)

CALLBACKS = {fairness: Fairness, anomaly: AnomalyDetection}
SHARES = [0.5, 0.05, 0.001]
both_callbacks = pytest.mark.parametrize("make", list(CALLBACKS))


class Both(Scorer):
    """Tells labels and scores anomalies; its checkpoint tells how often its labels were positive in training."""

    label_names = LABELS

    def __init__(self, prevalence):
        super().__init__()
        self.label_prevalence = prevalence

    def validation_step(self, batch):
        return {"loss": torch.tensor(0.0), "probabilities": batch["signal"][:, :, :3].abs().mean(1).clamp(0, 1)}

    test_step = validation_step

    def on_save_checkpoint(self, checkpoint):
        checkpoint["label_prevalence"] = self.label_prevalence

    def on_load_checkpoint(self, checkpoint):
        self.label_prevalence = checkpoint.get("label_prevalence", self.label_prevalence)


class Named(Data):
    """The toy records, said to be of certain data."""

    def __init__(self, identity, **settings):
        super().__init__(**settings)
        self.data_identity = identity


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of each callback, chosen on fold 9 of the data ``home`` and ``further``."""
    paths = {}
    for make in CALLBACKS:
        folder = tmp_path_factory.mktemp("run")
        checkpointing(folder, make(), max_epochs=1).fit(Both(SHARES), datamodule=Named(("home", "further")))
        paths[make] = folder / "epoch=0.ckpt"
    return paths


def changed(path, folder, drop_state=(), drop=()):
    """A checkpoint without some entries, as earlier versions wrote it."""
    content = torch.load(path, weights_only=True)
    for state in content["callbacks"].values():
        for kept in (state, state.get("calibration", {}).get("normals", {}), state.get("operating_points", {})):
            for name in drop_state:
                kept.pop(name, None)
    for name in drop:
        del content[name]
    torch.save(content, folder / "earlier.ckpt")
    return folder / "earlier.ckpt"


def run_test(folder, path, data, *callbacks, module=None):
    trainer_for(folder, *callbacks).test(module or Both([0.0] * 3), datamodule=data, ckpt_path=path, verbose=False)


@both_callbacks
def test_the_folds_that_chose_are_refused_of_the_same_data_and_fine_of_other_data(checkpoint, tmp_path, make):
    callback = make()
    run_test(tmp_path, checkpoint[make], Named(("elsewhere",), test=(8, 9)), callback)
    assert callback.chosen is not None
    for same in (("home",), ("elsewhere", "further")):
        with pytest.raises(ConfigurationError, match=r"with the test folds \[9\] among them"):
            run_test(tmp_path, checkpoint[make], Named(same, test=(8, 9), validation=()), make())


@both_callbacks
@pytest.mark.parametrize("unknown", ["in the checkpoint", "of the test"])
def test_data_that_are_not_known_are_taken_to_be_the_same(checkpoint, tmp_path, make, unknown):
    if unknown == "of the test":
        path, data = checkpoint[make], Data
    else:
        path, data = (
            changed(checkpoint[make], tmp_path, drop_state=["data"]),
            lambda **folds: Named(("other",), **folds),
        )
    run_test(tmp_path, path, data(test=(10,)), make())
    with pytest.raises(ConfigurationError, match=r"with the test folds \[9\] among them"):
        run_test(tmp_path, path, data(test=(9,), validation=()), make())


def bands_of(folder):
    """The AUROC of each band, and over how many labels."""
    rows = stored(folder).query("attribute == 'overall' and statistic == 'auroc' and aggregate == 'value'")
    return {row.label: (row.value, row.labels, row.reason) for row in rows.itertuples() if row.label in BANDS}


BANDS = ("head", "medium", "tail")


def test_the_long_tail_is_cut_by_what_the_module_was_trained_on_where_the_data_have_no_training_records(
    checkpoint, tmp_path
):
    run_test(tmp_path, checkpoint[fairness], Named(("elsewhere",), test=(9,), validation=()), fairness())
    found = bands_of(tmp_path)
    assert [found[band][1] for band in BANDS] == [1, 1, 1]
    assert not any(math.isnan(found[band][0]) for band in BANDS)


def test_without_any_prevalence_no_label_is_tail_and_the_rows_say_so(checkpoint, tmp_path):
    path = changed(checkpoint[fairness], tmp_path, drop=["label_prevalence"])
    run_test(tmp_path, path, Named(("elsewhere",), test=(9,), validation=()), fairness())
    found = bands_of(tmp_path)
    assert {found[band][1] for band in BANDS} == {0}
    assert {found[band][2] for band in BANDS} == {"the training prevalence of the labels is not known"}
    of_labels = stored(tmp_path).query(f"attribute == 'overall' and statistic == 'auroc' and label in {LABELS}")
    assert not of_labels["reason"].str.contains("no positive in training").any()


@pytest.mark.parametrize("told", [True, False])
def test_the_table_of_predictions_tells_the_prevalence_that_is_known_and_its_data(checkpoint, tmp_path, told):
    path = checkpoint[fairness] if told else changed(checkpoint[fairness], tmp_path, drop=["label_prevalence"])
    data = Named(("elsewhere",), test=(9,), validation=())
    run_test(tmp_path, path, data, fairness(), PredictionTable(), module=OnlyLabels([0.0] * 3))
    metadata = read_predictions(tmp_path / "predictions.parquet").metadata
    assert metadata.label_prevalence == (dict(zip(LABELS, SHARES, strict=True)) if told else None)
    assert metadata.data == ("elsewhere",)
    assert metadata.operating_points.data == ("further", "home")
    assert len(pd.read_parquet(tmp_path / "predictions.parquet")) == 61


class OnlyLabels(Both):
    """Tells labels, and scores nothing."""

    anomaly_scores = None
