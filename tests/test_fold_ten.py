"""Fold 10 is read by ``test`` alone, and thresholds come from fold 9: by the command line, for both stages.

Two stores differ in the records of fold 10 and in nothing else. Whatever is trained, chosen or counted before ``test``
has to be the same of both, and it is watched which records are read.
"""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from data_modules.stores.schema import StoreRow
from data_modules.stores.store import RecordStore
from data_modules.stores.store_writer import Part, StoreWriter
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.datasets import StoreRecords
from ecgfair.__main__ import main
from ecgfair.ecg import Preprocessing
from ecgfair.groups import DEFAULT_AGE_EDGES

RECORDS = 80
PREPROCESSING = Preprocessing(leads=("I", "II", "V1"), length=400)
LABEL_SETS = {"few": {name: (name,) for name in ("NORM", "MI", "STTC")}}
FOLD = np.arange(RECORDS) % 10 + 1
TRAINING, VALIDATION, TEST = (set(np.flatnonzero(of).tolist()) for of in (FOLD < 9, FOLD == 9, FOLD == 10))
SHARE = 0.2
PEAKS = list(range(50, 400, 90))

RUN = {"seed_everything": 3, "overwrite": True}
TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": 1}
TABLE, AVERAGED = {"class_path": "PredictionTable"}, {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}


def callback(name, **arguments):
    return {"class_path": name, "init_args": arguments}


STAGES = {
    "pretrain": {
        "callbacks": [
            callback("AnomalyDetection", resamples=0, maps=0),
            TABLE,
            callback("BestCheckpoint", monitor="val/loss", mode="min"),
            {"class_path": "EncoderExport"},
        ],
        "model": {
            "class_path": "PretrainModule",
            "init_args": {
                "encoder": {
                    "name": "TwoScaleEncoder",
                    "arguments": {
                        "widths": [8, 12],
                        "trend_widths": [4, 6],
                        "shape_widths": [4, 4],
                        "beat_widths": [4, 4],
                        "beat_embedding": 4,
                    },
                },
                "local_widths": [8],
                "decoder_width": 8,
                "weights": {"altered": 1.0, "altered_map": 1.0},
            },
        },
    },
    "finetune": {
        "callbacks": [
            AVERAGED,
            callback("Fairness", resamples=0, permutations=0, min_support=1),
            TABLE,
            callback("BestCheckpoint", monitor="val/auroc/macro", mode="max"),
        ],
        "model": {
            "class_path": "FinetuneModule",
            "init_args": {
                "loss": {"name": "ldam", "deferred": 0.5},
                "mixup": 0.2,
                "conditioning": {"inputs": ["age", "sex"]},
                "windows": {"seconds": 2.0},
                "mitigation": {"groups": "sex", "robust_step": 0.1, "reweighting_cap": 5},
            },
        },
    },
}


def row_and_signal(position, *, other):
    """A record; of fold 10, that of the other store is of another patient in all but its name."""
    changed = bool(other and FOLD[position] == 10)
    luck = np.random.default_rng([position, changed])
    signal = luck.normal(0, 60, (len(PREPROCESSING.leads), PREPROCESSING.length))
    signal[:, PEAKS] += luck.uniform(300, 900, (len(PREPROCESSING.leads), 1))
    code = "NORM" if position // 10 % 2 == 0 else ("MI", "STTC")[position // 20 % 2]
    row = StoreRow(
        record_id=f"r{position}",
        patient_id=f"p{position}",
        age=5.0 if changed else float(luck.uniform(30, 90)),
        sex=int(luck.integers(2)) ^ changed,
        fold=int(FOLD[position]),
        codes=["MI", "STTC"] if changed else [code],
        likelihoods=[100.0] * (2 if changed else 1),
        beats=PEAKS[:2] if changed else PEAKS,
        heart_rate=200.0 if changed else float(luck.uniform(50, 100)),
        qrs=float(luck.uniform(80, 120)),
    )
    return row, signal.astype(np.int16)


def write_store(path, *, other):
    rows, signals = zip(*(row_and_signal(position, other=other) for position in range(RECORDS)), strict=True)
    with StoreWriter(path, PREPROCESSING, LABEL_SETS, "made") as writer:
        writer.write(Part(rows, signals, []))
    return path


@dataclass
class Read:
    """Positions of the records that a verb read: their signals, their batches (labels, too) and their rows."""

    signals: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def everything(self):
        return {*self.signals, *self.batches, *self.rows}


@contextmanager
def watched():
    read = Read()

    def watch(patch, owner, name, kept):
        method = getattr(owner, name)

        def noting(self, index, *rest, **named):
            kept.extend(np.asarray(index).tolist())
            return method(self, index, *rest, **named)

        patch.setattr(owner, name, noting)

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, RecordStore, "gather", read.signals)
        watch(patch, StoreRecords, "rows", read.batches)
        watch(patch, EcgDataModule, "records", read.rows)
        yield read


class Runs:
    """The runs on one store, and what each of their verbs read."""

    def __init__(self, folder, *, other=False):
        self.folder = folder
        self.store = write_store(folder / "store", other=other)
        self.read = {}

    def fit(self, name, stage, data=None, **model):
        parts = STAGES[stage]
        network = parts["model"]
        config = RUN | {
            "run": str(self.folder / name),
            "trainer": TRAINER | {"callbacks": parts["callbacks"]},
            "model": network | {"init_args": network["init_args"] | model},
            "data": {
                "class_path": "EcgDataModule",
                "init_args": {"store": str(self.store), "batch_size": 16} | (data or {}),
            },
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        with watched() as self.read[f"fit {name}"]:
            assert main(["fit", "--config", str(path)]) == 0

    def again(self, verb, name, *flags):
        with watched() as self.read[f"{verb} {name}"]:
            return main([verb, "--config", str(self.folder / name / "config.yaml"), *flags])

    def fit_all(self):
        self.fit("pretrain", "pretrain")
        encoder = str(self.folder / "pretrain" / "encoder")
        self.fit("finetune", "finetune", encoder=encoder)
        few = {"train_share": SHARE, "sampling": {"balance": "group", "balance_groups": "sex"}}
        self.fit("few", "finetune", few, encoder=encoder)
        return self

    def checkpoint(self, name):
        return torch.load(self.folder / name / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All verbs but ``test`` on the one store, and the fits on the other."""
    made = Runs(tmp_path_factory.mktemp("one")).fit_all()
    for name in ("pretrain", "finetune"):
        for verb in ("validate", "predict"):
            assert made.again(verb, name) == 0
    return made, Runs(tmp_path_factory.mktemp("other"), other=True).fit_all()


EXPECTED = {
    "fit pretrain": TRAINING | VALIDATION,
    "fit finetune": TRAINING | VALIDATION,
    "validate pretrain": VALIDATION,
    "validate finetune": VALIDATION,
    "predict pretrain": TRAINING | VALIDATION,
    "predict finetune": TRAINING | VALIDATION,
}


@pytest.mark.parametrize("verb", EXPECTED)
def test_no_verb_but_test_reads_a_record_of_the_test_fold(runs, verb):
    read = runs[0].read[verb]
    assert set(read.signals) == set(read.batches) == EXPECTED[verb]
    assert not read.everything() & TEST


def test_training_on_a_share_reads_that_share_and_the_validation_fold_alone(runs):
    read = runs[0].read["fit few"]
    module = EcgDataModule(str(runs[0].store), train_share=SHARE)
    chosen = set(module.split["train"].tolist())
    assert len(chosen) == round(SHARE * len(TRAINING))
    # Drawn by sex, so that a record may be left out of two epochs.
    assert VALIDATION < set(read.signals) <= chosen | VALIDATION
    assert read.everything() <= chosen | VALIDATION


@pytest.mark.parametrize("name", ["pretrain", "finetune", "few"])
def test_what_a_checkpoint_holds_is_the_same_whoever_is_in_the_test_fold(runs, name):
    one, other = (made.checkpoint(name) for made in runs)
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert [key for key, value in one["state_dict"].items() if not torch.equal(value, other["state_dict"][key])] == []
    assert chosen_in(one) == chosen_in(other)


def chosen_in(checkpoint):
    """What validation records chose, but for the identity of the whole store, which tells the two apart."""
    (state,) = (
        state
        for name, state in checkpoint["callbacks"].items()
        if name.startswith(("Fairness", "AnomalyDetection")) and state
    )
    state = json.loads(json.dumps(state))
    for chosen in (state.get("operating_points"), state.get("calibration", {}).get("normals")):
        if chosen is not None:
            chosen.pop("data", None)
    return state


@pytest.mark.parametrize("name", ["pretrain", "finetune", "few"])
def test_what_a_training_logs_is_the_same_whoever_is_in_the_test_fold(runs, name):
    one, other = (pd.read_csv(made.folder / name / "metrics.csv") for made in runs)
    assert one["val/loss"].notna().any()
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_exported_encoder_is_the_same_whoever_is_in_the_test_fold(runs):
    one, other = (made.folder / "pretrain" / "encoder" for made in runs)
    assert (one / "encoder.safetensors").read_bytes() == (other / "encoder.safetensors").read_bytes()
    cards = [json.loads((folder / "encoder.json").read_text()) for folder in (one, other)]
    assert cards[0]["attribute_statistics"] == cards[1]["attribute_statistics"]


@pytest.mark.parametrize("name", ["finetune", "few"])
def test_thresholds_name_the_validation_fold_alone(runs, name):
    state = chosen_in(runs[0].checkpoint(name))
    assert state["operating_points"]["folds"] == [9]


def test_percentiles_of_normals_name_the_validation_fold_alone(runs):
    state = chosen_in(runs[0].checkpoint("pretrain"))
    assert state["calibration"]["normals"]["folds"] == [9]


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_test_reads_the_test_fold_each_record_once_and_nothing_else(runs, name):
    before = chosen_in(runs[0].checkpoint(name))
    assert runs[0].again("test", name) == 0
    read = runs[0].read[f"test {name}"]
    assert sorted(read.signals) == sorted(read.batches) == sorted(TEST)
    assert set(read.rows) == TEST
    assert chosen_in(runs[0].checkpoint(name)) == before
    table = pd.read_parquet(runs[0].folder / name / "test" / "predictions.parquet")
    assert table["record_id"].tolist() == [f"r{position}" for position in sorted(TEST)]


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_test_refuses_what_was_chosen_on_the_folds_it_tests_before_it_reads_any(runs, name, capsys):
    swapped = ["--data.init_args.test_folds=[9]", "--data.init_args.validation_folds=[10]"]
    assert runs[0].again("test", name, *swapped) == 2
    assert "[9]" in capsys.readouterr().err
    assert not runs[0].read[f"test {name}"].everything()


@pytest.mark.parametrize(
    "settings",
    [{}, {"train_share": SHARE}, {"train_only": "NORM"}, {"train_share": 0.5, "train_only": "NORM"}],
    ids=["all", "a share", "one label", "a share of one label"],
)
def test_what_is_said_of_the_training_records_is_the_same_whoever_is_in_the_test_fold(runs, settings):
    one, other = (EcgDataModule(str(made.store), **settings) for made in runs)
    assert one.label_prevalence == other.label_prevalence
    assert one.attribute_statistics == other.attribute_statistics
    assert one.split["train"].tolist() == other.split["train"].tolist()
    for attribute in ("sex", "age", "sex_x_age"):
        for of_one, of_other in zip(
            one.group_counts(attribute, DEFAULT_AGE_EDGES),
            other.group_counts(attribute, DEFAULT_AGE_EDGES),
            strict=True,
        ):
            assert torch.equal(of_one, of_other)
    # The fingerprint names the whole store first, which is another; what it says of the records chosen is not.
    assert one.store.fingerprint != other.store.fingerprint
    assert one.training_data.removeprefix(one.store.fingerprint) == other.training_data.removeprefix(
        other.store.fingerprint
    )


def test_the_two_stores_differ_in_the_test_fold_and_nowhere_else(runs):
    one, other = (RecordStore(str(made.store)) for made in runs)
    everything = np.arange(RECORDS)
    differ = (one.gather(everything) != other.gather(everything)).any(axis=(1, 2))
    assert set(np.flatnonzero(differ).tolist()) == TEST
    labels = one.labels("few")[1] != other.labels("few")[1]
    assert set(np.flatnonzero(labels.any(axis=1)).tolist()) == TEST
