import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ecgfair.callbacks import BestCheckpoint, EncoderExport
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import PretrainModule, load_encoder

SMALL = EncoderSpec(arguments={"widths": [8, 16], "trend_widths": [4, 8]})


class FakeTrainer:
    """What the callback asks of a trainer."""

    def __init__(self, folder, **metrics):
        self.default_root_dir = str(folder)
        self.callback_metrics = metrics
        self.is_global_zero = True
        self.sanity_checking = False
        self.state = type("State", (), {"fn": "fit"})


@pytest.fixture
def module():
    return PretrainModule(Preprocessing(), encoder=SMALL, local_widths=[8], decoder_width=16)


def stem(folder):
    return load_encoder(folder)[0].signal_branch.stem.weight


class Scripted(LightningModule):
    """Logs a loss that gets worse after the second epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.weight(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", [3.0, 1.0, 2.0, 4.0][self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_last_checkpoint_is_of_the_last_epoch_and_the_best_one_of_the_best(tmp_path):
    data = torch.utils.data.DataLoader(torch.ones(2, 1))
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=4, default_root_dir=tmp_path, callbacks=[BestCheckpoint("val/loss", "min")], **settings
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(Scripted(), data, data)
    folder = tmp_path / "checkpoints"
    epochs = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 1, "last": 3}


def test_the_encoder_of_the_best_epoch_and_that_of_the_last_are_both_kept(tmp_path, module):
    export = EncoderExport()
    kept = {}
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        module.network.encoder.signal_branch.stem.weight.data.fill_(epoch)
        export.on_validation_end(FakeTrainer(tmp_path, **{"val/loss": loss}), module)
        kept[epoch] = stem(tmp_path / "encoder")[0, 0, 0].item()
    export.on_fit_end(FakeTrainer(tmp_path), module)
    assert kept == {0: 0.0, 1: 1.0, 2: 1.0}
    assert stem(tmp_path / "encoder_last")[0, 0, 0] == 2.0


def test_a_resumed_run_does_not_replace_a_better_encoder(tmp_path, module):
    first, resumed = EncoderExport(), EncoderExport()
    first.on_validation_end(FakeTrainer(tmp_path, **{"val/loss": 1.0}), module)
    resumed.load_state_dict(first.state_dict())
    module.network.encoder.signal_branch.stem.weight.data.fill_(7.0)
    resumed.on_validation_end(FakeTrainer(tmp_path, **{"val/loss": 2.0}), module)
    assert (stem(tmp_path / "encoder") != 7.0).any()


def test_a_loss_that_is_not_a_number_is_never_the_best(tmp_path, module):
    EncoderExport().on_validation_end(FakeTrainer(tmp_path, **{"val/loss": float("nan")}), module)
    assert not (tmp_path / "encoder").exists()


def test_other_processes_write_nothing(tmp_path, module):
    trainer = FakeTrainer(tmp_path, **{"val/loss": 1.0})
    trainer.is_global_zero = False
    EncoderExport().on_validation_end(trainer, module)
    assert not (tmp_path / "encoder").exists()


def test_a_metric_that_is_not_logged_is_told_with_those_that_are(tmp_path, module):
    with pytest.raises(ConfigurationError, match=r"watches 'val/los'.*Logged: val/loss"):
        EncoderExport("val/los").on_validation_end(FakeTrainer(tmp_path, **{"val/loss": 1.0}), module)


def test_it_belongs_to_stage_one(tmp_path):
    with pytest.raises(ConfigurationError, match="belongs to a PretrainModule; this one is a LightningModule"):
        EncoderExport().on_fit_end(FakeTrainer(tmp_path), LightningModule())


def test_the_fake_has_what_a_real_trainer_has():
    real = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    assert all(hasattr(real, name) for name in vars(FakeTrainer("")))
