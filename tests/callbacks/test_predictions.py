import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from ecgfair.callbacks.fairness import Fairness
from ecgfair.callbacks.predictions import PredictionTable, model_fingerprint
from ecgfair.ecg import MALE, UNKNOWN_SEX, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.models.encoder import EncoderSpec
from ecgfair.report.prediction_table import Metadata
from ecgfair.report.read_predictions import read_predictions
from ecgfair.training import FinetuneModule


def module(seed: int) -> FinetuneModule:
    torch.manual_seed(seed)
    encoder = EncoderSpec(arguments={"widths": [8, 16], "trend_widths": [4, 8]})
    return FinetuneModule(Preprocessing(), ["a"], [0.5], encoder=encoder)


def test_the_fingerprint_is_that_of_the_weights():
    assert model_fingerprint(module(0)) == model_fingerprint(module(0))
    assert model_fingerprint(module(0)) != model_fingerprint(module(1))


def test_one_changed_bit_in_weights_or_buffers_changes_the_fingerprint():
    before, changed = module(0), module(0)
    changed.network.encoder.signal_branch.norm.running_mean[3] += 1e-7
    assert model_fingerprint(before) != model_fingerprint(changed)


class OneBatch(Dataset):
    """Two records of one batch."""

    def __len__(self):
        return 1

    def __getitem__(self, item):
        return {
            "signal": torch.zeros(2, 12, 1000),
            "attributes": torch.zeros(2, 7),
            "age": torch.zeros(2),
            "sex": torch.zeros(2, dtype=torch.int64),
            "labels": torch.tensor([[0.0], [1.0]]),
            "index": torch.tensor([1, 0]),
        }


class TwoRecords(LightningDataModule):
    """Names the records of ``OneBatch``."""

    def predict_dataloader(self):
        return DataLoader(OneBatch(), batch_size=None, num_workers=0)

    def records(self, index, columns=()):
        table = pd.DataFrame(
            {"record_id": ["a", "b"], "patient_id": ["p", "q"], "fold": [9, 9], "age": [50.0, None], "sex": [0, None]}
        )
        table["device"] = ["CS-12", "AT-6"]
        return table.iloc[index][["record_id", "patient_id", "fold", "age", "sex", *columns]]


def trainer(folder, *callbacks):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def test_the_table_has_further_columns_the_prevalences_and_the_thresholds_and_audit_reads_it(tmp_path):
    fairness, network = Fairness(), module(0)
    fairness.operating_points = OperatingPoints("youden", None, ("a",), (0.3,), ("",), "fold 9", (9,))
    trainer(tmp_path, fairness, PredictionTable(columns=("device",))).predict(network, datamodule=TwoRecords())
    found = read_predictions(tmp_path / "predictions.parquet", attributes=["device"])
    assert found.record_ids == ("a", "b")
    assert found.extra["device"] == ["CS-12", "AT-6"]
    assert found.targets.tolist() == [[1.0], [0.0]]
    assert found.sex.tolist() == [MALE, UNKNOWN_SEX]
    assert found.metadata == Metadata({"a": 0.5}, fairness.operating_points, model_fingerprint(network))


def test_a_run_without_a_data_module_that_names_its_records_is_told_what_is_missing(tmp_path):
    loader = DataLoader(OneBatch(), batch_size=None, num_workers=0)
    with pytest.raises(ConfigurationError, match=r"NoneType has no records\(index, columns\)"):
        trainer(tmp_path, PredictionTable()).predict(module(0), loader)
    assert not (tmp_path / "predictions.parquet").exists()
