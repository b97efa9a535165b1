"""Made records, a module that scores anomalies to some degree, and its oracle; without scikit-learn, see ``toy``."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset

from ecgfair.anomaly.scores import AnomalyScores
from ecgfair.callbacks import AnomalyDetection
from ecgfair.ecg import Preprocessing

RECORDS = 61
LABELS = ["HYP", "NORM", "MI"]
PARTS = ("whole", "beat")
SKILL = [0.0, 1.0, 0.5]
"""How much of the score is about the labels after each epoch; best in the middle."""
BATCH = 24
TIME = 40
PREPROCESSING = Preprocessing(leads=("I", "II"), length=TIME)
WITHOUT_BEAT = (5, 17)


def toy_records(count: int = RECORDS) -> dict[str, torch.Tensor]:
    """Records in EcgBatch's fields: normal, abnormal, both and neither; the old are ill more often."""
    generator = torch.Generator().manual_seed(7)
    age = 20 + 70 * torch.rand(count, generator=generator)
    ill = torch.rand(count, generator=generator) < (age - 10) / 90
    labels = torch.stack([ill & (torch.arange(count) % 2 == 0), ~ill, ill], 1).float()
    labels[1] = torch.tensor([1.0, 1.0, 0.0])
    labels[2] = 0
    age[3] = torch.nan
    beats = torch.full((count, 4), -1)
    beats[:, :2] = torch.tensor([10, 30])
    beats[torch.tensor(WITHOUT_BEAT)] = -1
    signal = torch.randn(count, 2, TIME, generator=generator) * 0.1
    signal[:, 0, 0] = 2 * torch.rand(count, generator=generator)  # what the score is without skill
    signal[:, 0, 1] = torch.rand(count, generator=generator) + 0.7 * ill  # and with
    recorded = torch.ones_like(signal, dtype=torch.bool)
    recorded[4, 1] = False
    return {
        "signal": signal,
        "recorded": recorded,
        "beats": beats,
        "attributes": torch.zeros(count, 7),
        "labels": labels,
        "age": age,
        "sex": torch.tensor([0, 1] * (count // 2) + [-1] * (count % 2)),
        "index": torch.arange(count) + 100,
    }


class ToyRecords(Dataset):
    def __init__(self) -> None:
        self.columns = toy_records()

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {name: column[position] for name, column in self.columns.items()}


def parts_at(records, epoch):
    """The terms that the toy tells at an epoch."""
    skill = SKILL[min(epoch, len(SKILL) - 1)]
    useless, useful = records["signal"][:, 0, :2].double().unbind(1)
    whole = skill * useful + (1 - skill) * useless
    has_beat = (records["beats"] >= 0).any(1)
    return {"whole": whole, "beat": torch.where(has_beat, useless - whole, torch.nan)}, has_beat


class Scorer(LightningModule):
    anomaly_parts = PARTS
    preprocessing = PREPROCESSING

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("learnt", torch.tensor(0))
        self.asked: list[bool] = []

    def training_step(self, batch):
        return self.layer(batch["age"].nan_to_num(50)[:, None]).square().mean()

    def on_train_epoch_start(self):
        self.learnt.fill_(self.current_epoch)

    def validation_step(self, batch):
        return {"loss": torch.tensor(0.0)}

    test_step = predict_step = validation_step

    def anomaly_scores(self, batch, *, maps=False):
        self.asked.append(maps)
        parts, has_beat = parts_at(batch, int(self.learnt))
        found = batch["signal"].abs().masked_fill(~batch["recorded"], torch.nan) if maps else None
        return AnomalyScores(parts["whole"], parts, has_beat, found)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


class Data(LightningDataModule):
    """The toy records, said to be of certain folds."""

    preprocessing = PREPROCESSING

    def __init__(self, validation=(9,), test=(10,), labels=LABELS, loaded=None, train_only=None):
        super().__init__()
        self.folds = {"train": list(range(1, 9)), "validation": list(validation), "test": list(test)}
        self.label_names = labels
        self.train_only = train_only
        self.loaded = loaded

    def train_dataloader(self):
        return DataLoader(ToyRecords(), batch_size=BATCH) if self.loaded is None else self.loaded

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    def records(self, index, columns=()):
        index = np.asarray(index)
        found = toy_records()
        age, sex = (found[name].numpy()[index - 100] for name in ("age", "sex"))
        patients = [f"p{place // 2}" for place in index]
        return pd.DataFrame(
            {"record_id": [f"r {p}" for p in index], "patient_id": patients, "fold": 9, "age": age, "sex": sex}
        )


def anomaly(**arguments) -> AnomalyDetection:
    """The callback, without intervals and maps, which take time."""
    return AnomalyDetection(**({"resamples": 0, "maps": 0} | arguments))


def kinds():
    """(N,) normal and abnormal."""
    labels = toy_records()["labels"].bool()
    others = labels[:, 0] | labels[:, 2]
    return labels[:, 1] & ~others, others & ~labels[:, 1]


def by_pairs(score, positive, negative, comparable=None):
    """AUROC pair by pair."""
    won = [
        1.0 if score[p] > score[n] else 0.5 if score[p] == score[n] else 0.0
        for p, n in product(positive.nonzero()[:, 0].tolist(), negative.nonzero()[:, 0].tolist())
        if comparable is None or comparable(p, n)
    ]
    return sum(won) / len(won) if won else math.nan


def expected(stage="val", epoch=0):
    """What is logged at an epoch."""
    records = toy_records()
    normal, abnormal = kinds()
    parts, has_beat = parts_at(records, epoch)
    edges = (40, 50, 60, 70, 80)
    stratum = [None if math.isnan(age) else sum(age >= edge for edge in edges) for age in records["age"].tolist()]

    def alike(one, other):
        return stratum[one] is not None and stratum[one] == stratum[other]

    values = {
        "auroc": by_pairs(parts["whole"], abnormal, normal),
        "age_stratified_auroc": by_pairs(parts["whole"], abnormal, normal, alike),
        "whole/auroc": by_pairs(parts["whole"], abnormal, normal),
        "beat/auroc": by_pairs(parts["beat"], abnormal & has_beat, normal & has_beat),
        "normals": float(normal.sum()),
        "abnormals": float(abnormal.sum()),
        "neither": 2.0,
        "without_beat": float(len(WITHOUT_BEAT)),
    }
    return {f"{stage}/anomaly/{name}": value for name, value in values.items()}
