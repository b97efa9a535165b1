import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from ecgfair.callbacks.predictions import PredictionTable, model_fingerprint
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import EncoderSpec
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


def test_a_run_without_a_data_module_that_names_its_records_is_told_what_is_missing(tmp_path):
    class OneBatch(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, item):
            return {
                "signal": torch.zeros(1, 12, 1000),
                "attributes": torch.zeros(1, 7),
                "age": torch.zeros(1),
                "sex": torch.zeros(1, dtype=torch.int64),
                "labels": torch.zeros(1, 1),
                "index": torch.zeros(1, dtype=torch.int64),
            }

    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PredictionTable()],
    )
    loader = DataLoader(OneBatch(), batch_size=None, num_workers=0)
    with pytest.raises(ConfigurationError, match=r"NoneType has no records\(index\)"):
        trainer.predict(module(0), loader)
    assert not (tmp_path / "predictions.parquet").exists()
