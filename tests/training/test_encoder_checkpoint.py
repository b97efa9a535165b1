import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors

from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, PreprocessingMismatchError, WriteError
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import EncoderCheckpoint, FinetuneModule, load_encoder, save_encoder

SPEC = EncoderSpec(arguments={"widths": [8, 16], "trend_widths": [4, 8]})
STATISTICS = AttributeStatistics(
    mean=(58.0, 0.0, 75.0, 160.0, 90.0, 390.0, 420.0), std=(18.0, 1.0, 17.0, 30.0, 20.0, 40.0, 30.0)
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    checkpoint = EncoderCheckpoint(SPEC, Preprocessing(), STATISTICS, "abc:folds 1,2")
    save_encoder(tmp_path / "encoder", SPEC.build(12), checkpoint)
    return tmp_path / "encoder"


def edit(folder, **changes):
    card = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**card, **changes}))


def test_what_was_saved_is_loaded_to_the_last_bit(folder):
    torch.manual_seed(0)
    original = SPEC.build(12).state_dict()
    encoder, checkpoint = load_encoder(folder, Preprocessing())
    assert checkpoint == EncoderCheckpoint(SPEC, Preprocessing(), STATISTICS, "abc:folds 1,2")
    loaded = encoder.state_dict()
    assert loaded.keys() == original.keys()
    assert all(torch.equal(loaded[name], original[name]) for name in original)


def test_a_second_save_replaces_the_first_and_leaves_nothing_beside_it(folder):
    torch.manual_seed(1)
    save_encoder(folder, SPEC.build(12), EncoderCheckpoint(SPEC, Preprocessing(), STATISTICS, "second"))
    assert load_encoder(folder)[1].training_data == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def test_a_write_that_fails_keeps_the_checkpoint_that_was_there(folder, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda *_args, **_kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_encoder(folder, SPEC.build(12), EncoderCheckpoint(SPEC, Preprocessing(), STATISTICS, "second"))
    monkeypatch.undo()
    assert load_encoder(folder)[1].training_data == "abc:folds 1,2"
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def second(folder):
    torch.manual_seed(1)
    save_encoder(folder, SPEC.build(12), EncoderCheckpoint(SPEC, Preprocessing(), STATISTICS, "second"))


@pytest.mark.parametrize(("name", "flushed"), [("encoder.safetensors", 0), ("encoder.json", 2)])
def test_a_full_disk_keeps_the_checkpoint_that_was_there(folder, monkeypatch, name, flushed):
    fsync, calls = os.fsync, itertools.count()

    def full(descriptor):
        if next(calls) == flushed:  # each file is flushed, and then the folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=rf"{name} can't be written \(No space left on device\)"):
        second(folder)
    monkeypatch.undo()
    assert load_encoder(folder)[1].training_data == "abc:folds 1,2"
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def test_a_checkpoint_that_cannot_take_its_place_leaves_the_one_that_was_there(folder, monkeypatch):
    rename = Path.rename

    def refused(self, target):
        if self.name == "encoder.partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(WriteError, match=r"can't be replaced .*is kept"):
        second(folder)
    monkeypatch.undo()
    assert load_encoder(folder)[1].training_data == "abc:folds 1,2"
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


class KilledError(BaseException):
    """Stands in for kill -9."""


@pytest.mark.parametrize("change", range(8))
def test_killed_before_any_change_on_the_disk_it_leaves_the_old_or_the_new_one_and_the_next_save_mends_the_rest(
    folder, monkeypatch, change
):
    left = iter(range(change, -1, -1))

    def counted(name):
        call = getattr(Path, name)

        def counting(self, *args, **kwargs):
            if next(left, 0) == 0:
                raise KilledError
            return call(self, *args, **kwargs)

        return counting

    def untouched(path, **_):
        if next(left, 0) == 0:
            raise KilledError
        rmtree(path, ignore_errors=True)

    rmtree = shutil.rmtree
    with monkeypatch.context() as patched, contextlib.suppress(KilledError):
        for name in ("rename", "replace", "mkdir"):
            patched.setattr(Path, name, counted(name))
        patched.setattr(shutil, "rmtree", untouched)
        second(folder)
    assert load_encoder(folder)[1].training_data in {"abc:folds 1,2", "second"}
    second(folder)
    assert load_encoder(folder)[1].training_data == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]


def changed_weights(folder):
    weights = bytearray((folder / "encoder.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "encoder.safetensors").write_bytes(weights)


def pickled_weights(folder):
    torch.save({"weight": torch.zeros(1)}, folder / "encoder.safetensors")


def pickled_weights_with_their_checksum(folder):
    pickled_weights(folder)
    edit(folder, weights_sha256=hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest())


def weights_of_another_encoder(folder):
    (folder / "encoder.safetensors").write_bytes(save_tensors({"weight": torch.zeros(1)}))
    edit(folder, weights_sha256=hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest())


def card_of_another_project(folder):
    (folder / "encoder.json").write_text('{"architectures": ["BertModel"]}')


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (changed_weights, "truncated or changed"),
        (pickled_weights, "truncated or changed"),
        (pickled_weights_with_their_checksum, "not those of the encoder"),
        (weights_of_another_encoder, "not those of the encoder"),
        (card_of_another_project, "has the format None"),
    ],
)
def test_what_was_tampered_with_or_is_foreign_is_refused(folder, tamper, message):
    tamper(folder)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(folder)


def test_finetuning_starts_from_the_weights_of_the_checkpoint(folder):
    module = FinetuneModule(Preprocessing(), ["a"], [0.5], encoder=str(folder))
    expected, _ = load_encoder(folder)
    for name, value in module.network.encoder.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name])


def test_stage_2_starts_from_the_published_encoder_as_well(tmp_path):
    spec = EncoderSpec("McfEncoder", {"widths": [4, 8], "channels": 6, "trend_window": 2})
    original = spec.build(12)
    save_encoder(tmp_path / "encoder", original, EncoderCheckpoint(spec, Preprocessing(), STATISTICS, "abc"))
    module = FinetuneModule(Preprocessing(), ["a"], [0.5], encoder=str(tmp_path / "encoder")).eval()
    found = module.network.encoder
    assert type(found) is type(original)
    assert found.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in found.state_dict().items())
    assert module.network(torch.randn(2, 12, 1000)).logits.shape == (2, 1)


def test_the_control_experiment_has_the_same_encoder_with_other_weights(folder):
    module = FinetuneModule(Preprocessing(), ["a"], [0.5], encoder=str(folder), random_weights=True)
    expected, _ = load_encoder(folder)
    found = module.network.encoder
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert not torch.equal(found.signal_branch.stem.weight, expected.signal_branch.stem.weight)


@pytest.mark.parametrize(
    ("field", "value"), [("sampling_rate", 500), ("length", 5000), ("scale", 0.005), ("band_pass", (0.5, 40.0))]
)
def test_a_checkpoint_of_another_preprocessing_is_refused_with_the_field_and_both_values(folder, field, value):
    other = Preprocessing(**{field: value})
    found = re.escape(repr(getattr(Preprocessing(), field)))
    with pytest.raises(PreprocessingMismatchError, match=f"{field} is {found} in .* but {re.escape(repr(value))} in"):
        FinetuneModule(other, ["a"], [0.5], encoder=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "torch.nn.Linear"}, "no encoder 'torch.nn.Linear'"),
        ({"class": ["ResidualEncoder"]}, "can't be used"),
        ({"arguments": {"widths": [8, 24], "trend_widths": [4, 8]}}, "not those of the encoder"),
        ({"arguments": {"evil": "__import__('os')"}}, "no argument 'evil'"),
        ({"arguments": None}, "can't be used"),
        ({"format": 99}, "format 99"),
        ({"weights_sha256": "0" * 64}, "truncated or changed"),
        ({"preprocessing": {"leads": ["I"]}}, "another version of ecgfair"),
        ({"preprocessing": None}, "can't be used"),
        ({"attribute_statistics": {"mean": [0.0], "std": [1.0]}}, "expected 7"),
    ],
)
def test_a_tampered_card_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(folder)


def test_a_truncated_file_of_weights_is_refused(folder):
    weights = folder / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or changed"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json"])
def test_a_missing_half_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"no encoder checkpoint at .*: {name} missing"):
        load_encoder(folder)


def test_a_card_that_is_not_json_is_refused(folder):
    (folder / "encoder.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_encoder(folder)
