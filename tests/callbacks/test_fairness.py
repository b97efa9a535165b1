"""The callback on one process and on two.

The two processes of the distributed tests run this file as a program, see ``main``.
"""

import json
import math
import os
import socket
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ecgfair.callbacks import Fairness
from ecgfair.errors import ConfigurationError, RunFolderError

LABELS = ["frequent", "occasional", "rare"]
PREVALENCE = [0.5, 0.05, 0.001]
SKILL = [0.0, 1.0, 0.5]
"""How well the toy finds its labels after each epoch: best in the middle."""
PROCESSES_TIMEOUT = 120  # seconds

pytestmark = pytest.mark.filterwarnings(
    # A resumed run goes on in the folder of the first.
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    # Eleven records need no workers.
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
)


def toy_records(count=11):
    """Records in EcgBatch's fields; the signal carries what the toy model answers."""
    generator = torch.Generator().manual_seed(4)
    labels = (torch.rand(count, len(LABELS), generator=generator) < 0.5).float()
    useless, useful = (torch.rand(count, len(LABELS), generator=generator) for _ in range(2))
    age = 20 + 70 * torch.rand(count, generator=generator)
    age[3] = torch.nan
    return {
        "signal": torch.stack([useless, (2 * useful + labels) / 3], 1),
        "labels": labels,
        "age": age,
        "sex": torch.tensor(([0] * 6 + [1] * 5) * (count // 11)),
        "index": torch.arange(count) + 100,
    }


class ToyRecords(Dataset):
    def __init__(self, count=11):
        self.columns = toy_records(count)

    def __len__(self):
        return len(self.columns["index"])

    def __getitem__(self, position):
        return {name: column[position] for name, column in self.columns.items()}


class Toy(LightningModule):
    label_names = LABELS
    label_prevalence = PREVALENCE

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        return self.layer(batch["age"].nan_to_num(50)[:, None]).square().mean()

    def validation_step(self, batch):
        skill = SKILL[min(self.current_epoch, 2)]
        useless, useful = batch["signal"].unbind(1)
        return {"loss": torch.tensor(0.0), "probabilities": skill * useful + (1 - skill) * useless}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def loader(**arguments):
    return DataLoader(ToyRecords(), batch_size=4, **arguments)


def trainer_for(folder, *callbacks, **arguments):
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 3, "log_every_n_steps": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(settings | quiet | arguments))


def fairness(**arguments):
    return Fairness(**({"min_support": 1} | arguments))


def by_scikit_learn(stage="val", epoch=0):
    """The scalars of the toy records as scikit-learn gives them, with labels of at least one of both classes."""
    records = toy_records()
    skill = SKILL[epoch]
    useless, useful = records["signal"].unbind(1)
    probabilities = (skill * useful + (1 - skill) * useless).numpy()
    targets = records["labels"].numpy()
    age, sex = records["age"].numpy(), records["sex"].numpy()

    def table(members):
        values = np.full(len(LABELS), np.nan)
        for label in range(len(LABELS)):
            if len(np.unique(targets[members, label])) == 2:
                values[label] = roc_auc_score(targets[members, label], probabilities[members, label])
        return values

    overall = table(np.ones(len(sex), bool))
    scalars = dict(zip(("head", "medium", "tail"), overall, strict=True))
    scalars |= {"macro": overall.mean(), "common_rare_gap": overall[0] - overall[2]}
    scalars = {f"{stage}/auroc/{name}": value for name, value in scalars.items()}
    bands = [age < 40, (age >= 40) & (age < 65), (age >= 65) & (age < 80), age >= 80]
    for attribute, groups in (("sex", [sex == 1, sex == 0]), ("age", bands)):
        reference = max(range(len(groups)), key=lambda position, groups=groups: groups[position].sum())
        differences = [table(members) - table(groups[reference]) for members in groups]
        gaps = [np.nanmean(values) if not np.isnan(values).all() else np.nan for values in differences]
        worst = int(np.nanargmin(gaps))
        partner = reference if worst != reference else int(np.nanargmax(gaps))
        shared = ~np.isnan(table(groups[worst]) + table(groups[partner]))
        scalars[f"{stage}/fair/{attribute}/auroc_gap"] = np.nanmin(gaps) - np.nanmax(gaps)
        scalars[f"{stage}/fair/{attribute}/worst_auroc"] = table(groups[worst])[shared].mean()
    return scalars


def logged(trainer):
    return {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(("val/", "test/"))}


def stored(folder):
    return pd.read_parquet(Path(folder) / "fairness.parquet")


def moments(folder):
    return list(stored(folder)[["stage", "epoch", "step"]].drop_duplicates().itertuples(index=False, name=None))


@pytest.mark.parametrize("stage", ["val", "test"])
def test_every_scalar_of_an_odd_number_of_records_equals_scikit_learn(tmp_path, stage):
    trainer = trainer_for(tmp_path, fairness())
    (trainer.validate if stage == "val" else trainer.test)(Toy(), loader(), verbose=False)
    expected = by_scikit_learn(stage)
    assert not any(math.isnan(value) for value in expected.values())
    assert logged(trainer) == pytest.approx(expected, abs=1e-6)


def test_the_file_holds_every_row_of_every_epoch(tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    trainer.fit(Toy(), loader(), loader())
    frame = stored(tmp_path)
    assert list(frame.columns[:3]) == ["epoch", "step", "stage"]
    assert moments(tmp_path) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9)]
    assert len(set(frame.groupby("epoch").size())) == 1
    assert list(tmp_path.glob("*.tmp")) == []
    of_macro = frame.query("attribute == 'overall' and label == 'macro' and statistic == 'auroc'")
    expected = [by_scikit_learn(epoch=epoch)["val/auroc/macro"] for epoch in range(3)]
    assert of_macro["value"].tolist() == pytest.approx(expected)


def test_the_sanity_check_leaves_no_rows(tmp_path):
    seen = []

    class AfterSanity(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen.append((dict(trainer.callback_metrics), (tmp_path / "fairness.parquet").exists()))

    trainer = trainer_for(tmp_path, fairness(), AfterSanity(), max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(Toy(), loader(), loader())
    assert seen == [({}, False)]
    assert moments(tmp_path) == [("val", 0, 3)]
    assert stored(tmp_path)["records"].max() == 11
    assert logged(trainer) == pytest.approx(by_scikit_learn(), abs=1e-6)


def test_a_checkpoint_can_be_chosen_by_the_worst_group(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/fair/sex/worst_auroc", mode="max", filename="{epoch}")
    trainer = trainer_for(tmp_path, fairness(), checkpoint, enable_checkpointing=True)
    trainer.fit(Toy(), loader(), loader())
    by_epoch = [by_scikit_learn(epoch=epoch)["val/fair/sex/worst_auroc"] for epoch in range(3)]
    assert Path(checkpoint.best_model_path).name == f"epoch={int(np.argmax(by_epoch))}.ckpt"
    assert float(checkpoint.best_model_score) == pytest.approx(max(by_epoch), abs=1e-6)


@pytest.fixture
def finished_run(tmp_path):
    """A run of three epochs with a checkpoint of each."""
    checkpointing(tmp_path).fit(Toy(), loader(), loader())
    return tmp_path


def checkpointing(folder, **arguments):
    keep_all = ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
    return trainer_for(folder, fairness(), keep_all, enable_checkpointing=True, **arguments)


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint_and_has_each_epoch_once(finished_run):
    before = stored(finished_run)
    before.loc[before["epoch"] == 0, "reason"] = "from the first run"
    before.to_parquet(finished_run / "fairness.parquet")
    trainer = checkpointing(finished_run, max_epochs=4)
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")
    after = stored(finished_run)
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9), ("val", 3, 12)]
    pd.testing.assert_frame_equal(after[after["epoch"] == 0], before[before["epoch"] == 0])
    assert not (after.loc[after["epoch"] > 0, "reason"] == "from the first run").any()


def test_a_resumed_run_drops_the_rows_after_its_checkpoint_even_if_it_ends_before_them(finished_run):
    trainer = checkpointing(finished_run, max_epochs=2)
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6)]


def test_a_fresh_run_in_the_same_folder_replaces_the_file(tmp_path):
    trainer_for(tmp_path, fairness(), max_epochs=2, val_check_interval=1).fit(Toy(), loader(), loader())
    trainer_for(tmp_path, fairness(), max_epochs=1).fit(Toy(), loader(), loader())
    assert moments(tmp_path) == [("val", 0, 3)]


def test_a_test_of_a_checkpoint_is_filed_under_the_epoch_of_its_weights_and_once(finished_run):
    for _ in range(2):
        checkpointing(finished_run).test(Toy(), loader(), ckpt_path=finished_run / "epoch=1.ckpt", verbose=False)
    assert moments(finished_run) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9), ("test", 1, 6)]


def test_several_validations_of_an_epoch_are_kept_apart(tmp_path):
    trainer_for(tmp_path, fairness(), max_epochs=1, val_check_interval=1).fit(Toy(), loader(), loader())
    assert moments(tmp_path) == [("val", 0, 1), ("val", 0, 2), ("val", 0, 3)]


def test_a_trial_run_leaves_no_file(tmp_path, capsys):
    trainer_for(tmp_path, fairness(), fast_dev_run=True).fit(Toy(), loader(), loader())
    assert list(tmp_path.iterdir()) == []
    assert "all records" in capsys.readouterr().out


def test_a_damaged_file_is_named_on_resuming(finished_run):
    (finished_run / "fairness.parquet").write_bytes(b"not a table")
    trainer = checkpointing(finished_run, max_epochs=4)
    with pytest.raises(RunFolderError, match=r"fairness\.parquet can't be read.*Move it away"):
        trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=0.ckpt")


def test_at_the_end_of_training_the_table_of_the_best_epoch_is_printed(tmp_path, capsys):
    trainer_for(tmp_path, fairness()).fit(Toy(), loader(), loader())
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].strip() == "Validation at epoch 1, step 6, the best of this run by val/auroc/macro"
    value = f"{by_scikit_learn(epoch=1)['val/auroc/macro']:.3f}"
    assert next(line for line in lines if "all records" in line).split()[:5] == ["all", "records", "11", "3", value]
    assert lines[-1] == f"Run folder: {tmp_path}"


def test_the_best_epoch_may_lie_before_the_resumption(finished_run, capsys):
    capsys.readouterr()
    trainer = checkpointing(finished_run)
    trainer.fit(Toy(), loader(), loader(), ckpt_path=finished_run / "epoch=1.ckpt")
    assert "Validation at epoch 1, step 6" in capsys.readouterr().out


def test_after_a_test_its_own_table_is_printed(tmp_path, capsys):
    trainer_for(tmp_path, fairness()).test(Toy(), loader(), verbose=False)
    assert capsys.readouterr().out.strip().startswith("Test at epoch 0, step 0")


def test_a_record_repeated_by_its_index_counts_once(tmp_path):
    order = [*range(11), 0, 5, 5]
    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Toy(), loader(sampler=order), verbose=False)
    assert logged(trainer) == pytest.approx(by_scikit_learn(), abs=1e-6)
    assert stored(tmp_path)["records"].max() == 11


def test_a_diverged_model_logs_nan_under_every_key(tmp_path):
    class Diverged(Toy):
        def validation_step(self, batch):
            return {"probabilities": torch.full_like(batch["labels"], torch.nan)}

    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Diverged(), loader(), verbose=False)
    assert logged(trainer).keys() == by_scikit_learn().keys()
    assert all(math.isnan(value) for value in logged(trainer).values())


def nameless():
    module = Toy()
    module.label_names = None
    return module


def answering(output):
    module = Toy()
    module.validation_step = output
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nameless(), "Toy has no label_names: expected the names of its labels"),
        (answering(lambda _: torch.tensor(1.0)), "validation_step returned Tensor: expected a mapping with 'probabili"),
        (answering(lambda _: {"loss": torch.tensor(1.0)}), r"returned the keys \['loss'\]: expected"),
        (
            answering(lambda batch: {"probabilities": batch["labels"][:, :2]}),
            r"has probabilities of the shape \(4, 2\)",
        ),
        (answering(lambda batch: {"probabilities": batch["labels"] * 4 - 2}), "Toy returned .* apply the sigmoid"),
    ],
)
def test_a_module_that_does_not_keep_to_the_contract_is_told_what_is_expected(tmp_path, module, message):
    with pytest.raises(ConfigurationError, match=message):
        trainer_for(tmp_path, fairness()).validate(module, loader(), verbose=False)


def test_a_missing_contract_shows_before_the_first_epoch_of_training(tmp_path):
    trainer = trainer_for(tmp_path, fairness(), num_sanity_val_steps=1)
    with pytest.raises(ConfigurationError, match="expected a mapping with 'probabilities'"):
        trainer.fit(answering(lambda _: {}), loader(), loader())
    assert trainer.global_step == 0


def test_labels_named_like_a_mean_are_refused_before_the_first_epoch_of_training(tmp_path):
    module = Toy()
    module.label_names = ["head", "b", "c"]
    trainer = trainer_for(tmp_path, fairness(), num_sanity_val_steps=1)
    with pytest.raises(ConfigurationError, match="Labels are named head"):
        trainer.fit(module, loader(), loader())
    assert trainer.global_step == 0


def test_an_index_that_names_two_records_is_refused(tmp_path):
    records = ToyRecords()
    records.columns["index"] = torch.zeros(11, dtype=torch.int64)
    trainer = trainer_for(tmp_path, fairness())
    with pytest.raises(ConfigurationError, match="Records with the index 0 differ in age"):
        trainer.validate(Toy(), DataLoader(records, batch_size=4), verbose=False)


def test_a_second_evaluation_loader_is_refused(tmp_path):
    class TwoLoaders(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch)

    with pytest.raises(ConfigurationError, match="second loader: expected one"):
        trainer_for(tmp_path, fairness()).validate(TwoLoaders(), [loader(), loader()], verbose=False)


def test_the_command_line_can_build_it_and_refuses_a_wrong_reference():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    arguments = {"age_edges": [18, 65], "reference": {"age": "18-64"}, "tail": 0.005}
    given = {"callback": {"class_path": "ecgfair.callbacks.Fairness", "init_args": arguments}}
    callback = parser.instantiate(parser.parse_object(given)).callback
    assert callback.config.age_edges == (18, 65)
    assert callback.config.long_tail.tail == 0.005
    with pytest.raises(ConfigurationError, match="reference of age is '40-64'"):
        Fairness(age_edges=(18, 65), reference={"age": "40-64"})


class Shard(Sampler):
    """The positions of one rank, as many as they are."""

    def __init__(self, positions):
        self.positions = positions

    def __iter__(self):
        return iter(self.positions)

    def __len__(self):
        return len(self.positions)


class Stream(IterableDataset):
    """Records without a length, which a rank may have none of."""

    def __init__(self, positions):
        self.positions = positions

    def __iter__(self):
        return (ToyRecords()[position] for position in self.positions)


SHARDS = {
    "uneven": ([0, 1, 2, 3, 4, 6, 8, 10], [9, 7, 5]),
    "one_sex_each": (list(range(6)), list(range(6, 11))),
    "empty_rank": (list(range(11)), []),
    "empty_first_rank": ([], list(range(11))),
}


def distributed(folder, *callbacks, padded=False, **arguments):
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=PROCESSES_TIMEOUT // 2))
    return trainer_for(folder, *callbacks, strategy=strategy, devices=2, use_distributed_sampler=padded, **arguments)


def main(folder):
    """Run every scenario as one of two ranks and leave what it logged as JSON."""
    rank = int(os.environ["LOCAL_RANK"])
    # The advice to average over ranks is for other values: that it stays silent is part of the behaviour.
    warnings.filterwarnings("error", "It is recommended to use `self.log")
    found = {}
    trainer = distributed(folder / "padded", fairness(), padded=True)
    trainer.validate(Toy(), loader(), verbose=False)
    found["padded"] = logged(trainer)
    for name, shards in SHARDS.items():
        streams = name.startswith("empty")
        own = Stream(shards[rank]) if streams else ToyRecords()
        data = DataLoader(own, batch_size=3, sampler=None if streams else Shard(shards[rank]))
        trainer = distributed(folder / name, fairness())
        trainer.test(Toy(), data, verbose=False)
        found[name] = logged(trainer)

    checkpoint = ModelCheckpoint(folder / "fit", monitor="val/fair/sex/worst_auroc", mode="max", filename="{epoch}")
    trainer = distributed(folder / "fit", fairness(), checkpoint, padded=True, enable_checkpointing=True)
    trainer.fit(Toy(), loader(), loader())
    found["fit"] = logged(trainer)
    found["chosen"] = Path(checkpoint.best_model_path).name

    skipping = Toy()
    skipping.allow_zero_length_dataloader_with_multiple_devices = True
    try:
        distributed(folder / "skipping", fairness()).validate(skipping, loader(), verbose=False)
    except ConfigurationError as error:
        found["skipping"] = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two_ranks(folder):
    """Start both ranks and wait for them; return their exit codes and output."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "TORCHELASTIC_"))}
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    root = Path(__file__).parents[2]
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, str(folder)]
    ranks = [
        subprocess.Popen(
            command,
            env=inherited | shared | {"LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=PROCESSES_TIMEOUT)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], "\n".join(outputs)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two gloo processes logged, by scenario, and the folder they ran in."""
    for _ in range(3):
        folder = tmp_path_factory.mktemp("two_ranks")
        codes, output = run_two_ranks(folder)
        if "ddress already in use" not in output:
            break  # otherwise somebody took the free port in between
    assert codes == [0, 0], output
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)], folder, output


@pytest.mark.parametrize("scenario", ["padded", *SHARDS])
def test_two_ranks_log_what_one_process_logs_however_the_records_are_shared_out(two_ranks, scenario):
    ranks, folder, _ = two_ranks
    expected = by_scikit_learn("val" if scenario == "padded" else "test")
    for found in ranks:
        assert found[scenario] == pytest.approx(expected, abs=1e-6)
    assert stored(folder / scenario)["records"].max() == 11


def test_both_ranks_choose_the_same_checkpoint_by_the_worst_group(two_ranks):
    ranks, folder, _ = two_ranks
    by_epoch = [by_scikit_learn(epoch=epoch)["val/fair/sex/worst_auroc"] for epoch in range(3)]
    assert [found["chosen"] for found in ranks] == [f"epoch={int(np.argmax(by_epoch))}.ckpt"] * 2
    assert ranks[0]["fit"] == ranks[1]["fit"] == pytest.approx(by_scikit_learn(epoch=2), abs=1e-6)
    assert moments(folder / "fit") == [("val", 0, 2), ("val", 1, 4), ("val", 2, 6)]


def test_the_table_is_printed_by_one_rank(two_ranks):
    _, folder, output = two_ranks
    assert output.count("the best of this run by val/auroc/macro") == 1
    assert output.count(f"Run folder: {folder / 'fit'}") == 1


def test_skipping_a_rank_without_records_is_refused_on_every_rank_because_the_others_would_wait(two_ranks):
    for found in two_ranks[0]:
        assert "give every rank a record or a loader without a length" in found["skipping"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
