"""A checkpoint is written whole or not at all, and one that is not what was written is refused."""

import errno
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ecgfair.callbacks import BestCheckpoint
from ecgfair.ecg import Preprocessing
from ecgfair.errors import CheckpointError, WriteError
from ecgfair.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint, remove_drafts

WEIGHTS = torch.arange(1000.0)


def content(**changes):
    made = {"state_dict": {"weight": WEIGHTS}, "preprocessing": Preprocessing().to_dict()}
    return made | {"epoch": 1, "global_step": 20, "loops": {}} | changes


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(), file)
    return file


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def full_disk(monkeypatch, after=0):
    """Let a disk have room for so many bytes of a file more."""
    written = Path.open

    class Full(io.FileIO):
        def write(self, data):
            super().write(memoryview(data)[:after])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, mode="r", *args, **kwargs):
        return Full(self, "wb") if mode == "wb" else written(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)


def test_what_was_written_is_read_to_the_last_bit_and_nothing_lies_beside_it(path):
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(found["state_dict"]["weight"], WEIGHTS)
    assert {name: value for name, value in found.items() if name != "state_dict"} == {
        name: value for name, value in content().items() if name != "state_dict"
    }
    assert names(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("after", [0, 1000])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(path, monkeypatch, after):
    full_disk(monkeypatch, after)
    with pytest.raises(WriteError, match=r"last\.ckpt can't be written \(No space left.*is kept.*same command") as told:
        AtomicCheckpointIO().save_checkpoint(content(epoch=2), path)
    monkeypatch.undo()
    assert "\n" not in str(told.value)
    assert read_checkpoint(path)["epoch"] == 1
    assert names(path.parent) == ["last.ckpt"]


def test_a_file_that_grows_beyond_what_the_system_allows_is_a_failed_write_too(path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(WriteError, match="File too large"):
            AtomicCheckpointIO().save_checkpoint(content(epoch=2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_checkpoint(path)["epoch"] == 1
    assert names(path.parent) == ["last.ckpt"]


def test_the_first_write_that_fails_says_that_nothing_was_there(tmp_path, monkeypatch):
    full_disk(monkeypatch)
    with pytest.raises(WriteError, match="nothing was there before"):
        AtomicCheckpointIO().save_checkpoint(content(), tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_who_dies_before_renaming_leaves_the_last_checkpoint_and_a_draft_that_the_next_start_removes(path, monkeypatch):
    class KilledError(BaseException):
        """Stands in for kill -9: nothing is cleaned up."""

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KilledError):
        AtomicCheckpointIO().save_checkpoint(content(epoch=2), path)
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == 1
    assert len(names(path.parent)) == 2
    remove_drafts(path.parent)
    assert names(path.parent) == ["last.ckpt"]


class Small(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.weight(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 1.0)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["preprocessing"] = {}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
)
def test_a_training_starts_by_removing_the_drafts_of_one_that_was_killed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt.draft").write_bytes(b"half")
    data = torch.utils.data.DataLoader(torch.ones(2, 1))
    Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BestCheckpoint("val/loss", "min")],
        plugins=[AtomicCheckpointIO()],
    ).fit(Small(), data, data)
    assert names(tmp_path / "checkpoints") == ["best.ckpt", "last.ckpt"]
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_truncated_file_is_refused(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else kept])
    with pytest.raises(CheckpointError, match=r"last\.ckpt can't be read as a checkpoint: it is truncated"):
        read_checkpoint(path)


def test_a_bit_that_changed_is_found_which_torch_alone_would_load(path):
    changed = bytearray(path.read_bytes())
    changed[bytes(changed).find(WEIGHTS.numpy().tobytes()) + 2000] ^= 1
    path.write_bytes(changed)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["weight"], WEIGHTS)
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged: its part .*data/0 is not what was written"):
        read_checkpoint(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("run-by-a-checkpoint",)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.save(content(epoch=Evil()), path)
    for read in (read_checkpoint, lambda file: AtomicCheckpointIO().load_checkpoint(file, weights_only=False)):
        with pytest.raises(CheckpointError, match="could run code and is never loaded") as told:
            read(path)
        assert "\n" not in str(told.value)
    assert not (tmp_path / "run-by-a-checkpoint").exists()


def legacy_pickle(path):
    path.write_bytes(pickle.dumps(Evil()))


def another_project(path):
    torch.save({"state_dict": {"weight": WEIGHTS}, "epoch": 0, "global_step": 0, "loops": {}}, path)


def bare_tensor(path):
    torch.save(WEIGHTS, path)


def zip_of_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (legacy_pickle, "can't be read as a checkpoint: it is truncated, or no such file"),
        (another_project, "is no checkpoint of ecgfair: it has no preprocessing"),
        (bare_tensor, "is no checkpoint of ecgfair: it has no state_dict, preprocessing"),
        (zip_of_text, "can't be read as a checkpoint"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(path, write, message):
    write(path)
    with pytest.raises(CheckpointError, match=message) as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*none\.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_lightning_uses_it_where_it_would_use_its_own():
    trainer = Trainer(accelerator="cpu", plugins=[AtomicCheckpointIO()], logger=False)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert isinstance(trainer.strategy.checkpoint_io, TorchCheckpointIO)
