"""Choosing the checkpoint by the worst group, where an epoch that is better on average fails the smaller group."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from ecgfair.ecg import FEMALE, MALE
from tests.callbacks.toy import LABELS, Toy, fairness, logged, trainer_for

NOISE = {0: {MALE: 0.3, FEMALE: 3.0}, 1: {MALE: 0.9, FEMALE: 0.9}}
"""Standard deviation of what the toy adds to the truth, by epoch and sex: at first it has learnt men alone."""


class MostlyMen(Dataset):
    """Nine men to a woman; the signal is noise, a unit a label."""

    def __init__(self, seed, count=2000):
        generator = torch.Generator().manual_seed(seed)
        self.columns = {
            "signal": torch.randn(count, len(LABELS), generator=generator),
            "labels": (torch.rand(count, len(LABELS), generator=generator) < 0.3).float(),
            "age": torch.full((count,), 50.0),
            "sex": torch.where(torch.arange(count) % 10 == 0, FEMALE, MALE),
            "index": torch.arange(count),
        }

    def __len__(self):
        return len(self.columns["index"])

    def __getitem__(self, position):
        return {name: column[position] for name, column in self.columns.items()}


class LearnsMenFirst(Toy):
    def validation_step(self, batch):
        by_sex = NOISE[int(self.learnt)]
        noise = torch.where(batch["sex"] == FEMALE, by_sex[FEMALE], by_sex[MALE])[:, None]
        return {"loss": torch.tensor(0.0), "probabilities": torch.sigmoid(batch["labels"] + noise * batch["signal"])}

    test_step = validation_step


def loader(seed):
    return DataLoader(MostlyMen(seed), batch_size=500)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """What is logged on test records of the checkpoint that each metric chose on validation records."""
    folder = tmp_path_factory.mktemp("chosen")
    keys = {
        "average": "val/auroc/macro",
        "worst": "val/fair/sex/worst_auroc",
        "bounded": "val/fair/bounded_macro",
    }
    kept = {
        name: ModelCheckpoint(folder, monitor=key, mode="max", filename=f"{name}-{{epoch}}")
        for name, key in keys.items()
    }
    fit = trainer_for(
        folder, fairness(attributes=("sex",), bound=0.7), *kept.values(), enable_checkpointing=True, max_epochs=2
    )
    fit.fit(LearnsMenFirst(), loader(0), loader(1))
    paths = {name: checkpoint.best_model_path for name, checkpoint in kept.items()}  # loading one sets them back
    found = {}
    for name, path in paths.items():
        fit.test(LearnsMenFirst(), loader(2), ckpt_path=path, verbose=False)
        found[name] = (Path(path).name, logged(fit))
    return found


def test_the_metrics_choose_different_epochs(tested):
    assert [tested[name][0] for name in ("average", "worst")] == ["average-epoch=0.ckpt", "worst-epoch=1.ckpt"]


def test_under_a_bound_that_the_best_on_average_breaks_the_other_is_chosen_and_keeps_to_it_on_other_records(tested):
    assert tested["bounded"][0] == "bounded-epoch=1.ckpt"
    bounded, average = tested["bounded"][1], tested["average"][1]
    assert bounded["test/fair/bounded_macro"] == bounded["test/auroc/macro"]
    assert average["test/fair/bounded_macro"] == pytest.approx(average["test/fair/sex/worst_auroc"] - 1)


def test_the_worst_group_is_served_better_on_other_records_at_a_price_on_average(tested):
    average, worst = tested["average"][1], tested["worst"][1]
    assert worst["test/fair/sex/worst_auroc"] > average["test/fair/sex/worst_auroc"] + 0.1
    assert worst["test/fair/sex/auroc_gap"] > average["test/fair/sex/auroc_gap"] + 0.2
    assert worst["test/auroc/macro"] < average["test/auroc/macro"]
