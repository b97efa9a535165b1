"""Made records, a module that knows the answers to some degree, and trainers: what the tests of the callback run.

Nothing here needs scikit-learn, so that the processes of the distributed tests start fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from ecgfair.callbacks import Fairness

RECORDS = 61
"""Neither two nor three processes share them out evenly, and the last batch is smaller."""
LABELS = ["frequent", "occasional", "rare"]
PREVALENCE = [0.5, 0.05, 0.001]
SKILL = [0.0, 1.0, 0.5]
"""How well the toy finds its labels after each epoch, and after the last of these: best in the middle."""
BATCH = 24
"""Three batches an epoch."""
BEST_EPOCH = 1


def toy_records(count: int = RECORDS) -> dict[str, torch.Tensor]:
    """Records in EcgBatch's fields; the signal carries what the toy answers before and after it has learnt."""
    generator = torch.Generator().manual_seed(4)
    labels = (torch.rand(count, len(LABELS), generator=generator) < 0.5).float()
    useless, useful = (torch.rand(count, len(LABELS), generator=generator) for _ in range(2))
    age = 20 + 70 * torch.rand(count, generator=generator)
    age[3] = torch.nan
    return {
        "signal": torch.stack([useless, (2 * useful + labels) / 3], 1),
        "labels": labels,
        "age": age,
        "sex": torch.tensor([0] * 33 + [1] * (count - 34) + [-1]),
        "index": torch.arange(count) + 100,
    }


def probabilities_at(records: dict[str, torch.Tensor], epoch: int) -> torch.Tensor:
    """What the toy answers at an epoch."""
    skill = SKILL[min(epoch, len(SKILL) - 1)]
    useless, useful = records["signal"].unbind(1)
    return skill * useful + (1 - skill) * useless


class ToyRecords(Dataset):
    def __init__(self) -> None:
        self.columns = toy_records()

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {name: column[position] for name, column in self.columns.items()}


class Toy(LightningModule):
    label_names: Any = LABELS
    label_prevalence = PREVALENCE

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.register_buffer("learnt", torch.tensor(0))

    def training_step(self, batch):
        return self.layer(batch["age"].nan_to_num(50)[:, None]).square().mean()

    def on_train_epoch_start(self):
        self.learnt.fill_(self.current_epoch)

    def validation_step(self, batch):
        return {"loss": torch.tensor(0.0), "probabilities": probabilities_at(batch, int(self.learnt))}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def loader(**arguments):
    return DataLoader(ToyRecords(), batch_size=BATCH, **arguments)


def trainer_for(folder, *callbacks, **arguments) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 3, "log_every_n_steps": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(settings | quiet | arguments))


def fairness(**arguments) -> Fairness:
    """The callback, with a support that toy groups have, and neither intervals nor tests, which take time."""
    return Fairness(**({"min_support": 1, "resamples": 0, "permutations": 0} | arguments))


def checkpointing(folder, callback=None, **arguments) -> Trainer:
    """A trainer that keeps a checkpoint of each epoch."""
    keep_all = ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
    return trainer_for(folder, callback or fairness(), keep_all, enable_checkpointing=True, **arguments)


def logged(trainer) -> dict[str, float]:
    return {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(("val/", "test/"))}


def stored(folder) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "fairness.parquet")


def moments(folder) -> list[tuple[str, int, int]]:
    return list(stored(folder)[["stage", "epoch", "step"]].drop_duplicates().itertuples(index=False, name=None))
