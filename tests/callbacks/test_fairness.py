"""What the callback logs, writes and prints on one process, and what it refuses."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from ecgfair.callbacks import Fairness
from ecgfair.errors import ConfigurationError
from tests.callbacks.oracle import ATTRIBUTES, expected
from tests.callbacks.toy import (
    BEST_EPOCH,
    RECORDS,
    Toy,
    ToyRecords,
    fairness,
    loader,
    logged,
    moments,
    stored,
    trainer_for,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
    # So few records need no workers.
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
)


def test_every_scalar_of_a_validation_equals_the_reference(tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Toy(), loader(), verbose=False)
    assert not any(math.isnan(value) for value in expected().values())
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, RECORDS, 1000])
def test_batches_of_any_size_give_the_same_scalars(tmp_path, batch):
    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Toy(), DataLoader(ToyRecords(), batch_size=batch), verbose=False)
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)


def test_the_keys_are_those_that_checkpoints_and_sweeps_watch(tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Toy(), loader(), verbose=False)
    overall = {f"val/auroc/{name}" for name in ("macro", "head", "medium", "tail", "common_rare_gap")}
    names = ("auroc_gap", "tpr_gap", "fpr_gap", "ece_gap", "worst_auroc")
    assert set(logged(trainer)) == overall | {
        f"val/fair/{attribute}/{name}" for attribute in ATTRIBUTES for name in names
    }


def test_a_gap_is_never_negative_where_less_is_better_and_never_positive_where_more_is(tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    trainer.fit(Toy(), loader(), loader())
    for attribute in ATTRIBUTES:
        assert all(logged(trainer)[f"val/fair/{attribute}/{name}_gap"] < 0 for name in ("auroc", "tpr"))
        assert all(logged(trainer)[f"val/fair/{attribute}/{name}_gap"] > 0 for name in ("fpr", "ece"))


def test_the_attributes_asked_for_are_the_ones_logged(tmp_path):
    trainer = trainer_for(tmp_path, fairness(attributes=("age_x_sex",)))
    trainer.validate(Toy(), loader(), verbose=False)
    assert {key.split("/")[2] for key in logged(trainer) if "/fair/" in key} == {"age_x_sex"}
    worst = expected()["val/fair/sex_x_age/worst_auroc"]
    assert logged(trainer)["val/fair/age_x_sex/worst_auroc"] == pytest.approx(worst)


def test_the_file_holds_every_row_of_every_epoch(tmp_path):
    trainer = trainer_for(tmp_path, fairness())
    trainer.fit(Toy(), loader(), loader())
    frame = stored(tmp_path)
    assert list(frame.columns[:3]) == ["epoch", "step", "stage"]
    assert moments(tmp_path) == [("val", 0, 3), ("val", 1, 6), ("val", 2, 9)]
    key = ["attribute", "group", "label", "statistic", "aggregate"]
    in_all = frame.query("aggregate == 'value' and (label == 'macro' or statistic == 'auroc')").groupby("epoch")
    rows = [set(rows[key].itertuples(index=False, name=None)) for _, rows in in_all]
    assert rows[0] == rows[2] <= rows[BEST_EPOCH]
    assert list(tmp_path.glob("*.tmp")) == []
    of_macro = frame.query(
        "attribute == 'overall' and label == 'macro' and statistic == 'auroc' and aggregate=='value'"
    )
    assert of_macro["value"].tolist() == pytest.approx([expected(epoch=epoch)["val/auroc/macro"] for epoch in range(3)])


def test_the_sanity_check_leaves_no_rows_no_scalars_and_no_thresholds(tmp_path):
    seen = []
    callback = fairness()

    class AfterSanity(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            written = (tmp_path / "fairness.parquet").exists()
            seen.append((dict(trainer.callback_metrics), written, callback.operating_points))

    trainer = trainer_for(tmp_path, callback, AfterSanity(), max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(Toy(), loader(), loader())
    assert seen == [({}, False, None)]
    assert moments(tmp_path) == [("val", 0, 3)]
    assert stored(tmp_path)["records"].max() == RECORDS
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)


def test_a_checkpoint_can_be_chosen_by_the_worst_group(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/fair/sex/worst_auroc", mode="max", filename="{epoch}")
    trainer = trainer_for(tmp_path, fairness(), checkpoint, enable_checkpointing=True)
    trainer.fit(Toy(), loader(), loader())
    by_epoch = [expected(epoch=epoch)["val/fair/sex/worst_auroc"] for epoch in range(3)]
    assert Path(checkpoint.best_model_path).name == f"epoch={int(np.argmax(by_epoch))}.ckpt"
    assert float(checkpoint.best_model_score) == pytest.approx(max(by_epoch), abs=1e-6)


def test_several_validations_of_an_epoch_are_kept_apart(tmp_path):
    trainer_for(tmp_path, fairness(), max_epochs=1, val_check_interval=1).fit(Toy(), loader(), loader())
    assert moments(tmp_path) == [("val", 0, 1), ("val", 0, 2), ("val", 0, 3)]


def test_a_trial_run_leaves_no_file(tmp_path, capsys):
    trainer_for(tmp_path, fairness(permutations=100), fast_dev_run=True).fit(Toy(), loader(), loader())
    assert list(tmp_path.iterdir()) == []
    assert "all records" in capsys.readouterr().out


def test_a_record_repeated_by_its_index_counts_once(tmp_path):
    order = [*range(RECORDS), 0, 5, 5]
    trainer = trainer_for(tmp_path, fairness())
    trainer.validate(Toy(), loader(sampler=order), verbose=False)
    assert logged(trainer) == pytest.approx(expected(), abs=1e-6)
    assert stored(tmp_path)["records"].max() == RECORDS


def test_a_diverged_model_logs_nan_under_every_key_and_still_has_a_table(tmp_path, capsys):
    class Diverged(Toy):
        def validation_step(self, batch):
            return {"probabilities": torch.full_like(batch["labels"], torch.nan)}

    trainer = trainer_for(tmp_path, fairness(resamples=100, permutations=100))
    trainer.fit(Diverged(), loader(), loader())
    assert logged(trainer).keys() == expected().keys()
    assert all(math.isnan(value) for value in logged(trainer).values())
    assert "the probability is NaN for 61 of 61 records" in set(stored(tmp_path)["reason"])
    assert "all records" in capsys.readouterr().out


def test_a_loader_without_records_logs_nan_and_says_that_there_are_none(tmp_path):
    trainer = trainer_for(tmp_path, fairness(resamples=100, permutations=100))
    trainer.validate(Toy(), DataLoader(_Nobody(), batch_size=4), verbose=False)
    assert logged(trainer).keys() == expected().keys()
    assert all(math.isnan(value) for value in logged(trainer).values())
    of_women = stored(tmp_path).query("attribute == 'sex' and group == 'female' and label == 'macro'")
    assert set(of_women.query("aggregate == 'value'")["reason"]) == {"no records"}


class _Nobody(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(())


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
            r"has probabilities of the shape \(24, 2\)",
        ),
        (answering(lambda batch: {"probabilities": batch["labels"] * 4 - 2}), "Toy returned.* apply the sigmoid"),
    ],
)
def test_a_module_that_does_not_keep_to_the_contract_is_told_what_is_expected(tmp_path, module, message):
    with pytest.raises(ConfigurationError, match=message):
        trainer_for(tmp_path, fairness()).validate(module, loader(), verbose=False)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("sex", 7, r"sex holds \[7\]"), ("age", -1.0, "age is negative"), ("labels", 0.5, "targets are neither 0 nor 1")],
)
def test_batches_with_impossible_values_are_told_as_a_mistake_of_the_run(tmp_path, column, value, message):
    records = ToyRecords()
    records.columns[column][5] = value
    with pytest.raises(ConfigurationError, match=message):
        trainer_for(tmp_path, fairness()).validate(Toy(), DataLoader(records, batch_size=24), verbose=False)


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
    records.columns["index"] = torch.zeros(RECORDS, dtype=torch.int64)
    trainer = trainer_for(tmp_path, fairness())
    with pytest.raises(ConfigurationError, match="Records with the index 0 differ in age"):
        trainer.validate(Toy(), DataLoader(records, batch_size=4), verbose=False)


def test_a_second_evaluation_loader_is_refused(tmp_path):
    class TwoLoaders(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch)

    with pytest.raises(ConfigurationError, match="second loader: expected one"):
        trainer_for(tmp_path, fairness()).validate(TwoLoaders(), [loader(), loader()], verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attributes": ("sex", "sex")}, "attributes is .* expected each once"),
        ({"age_edges": (65, 40)}, "age_edges is .* expected rising ages"),
        ({"age_edges": (18, 65), "reference": {"age": "40-64"}}, "reference of age is '40-64'"),
        ({"reference": {"sexe": "male"}}, "reference names 'sexe', no attribute.*sex"),
        ({"min_support": 0}, "min_support is 0"),
        ({"threshold_rule": "yuden"}, "rule for thresholds is 'yuden'.*youden"),
        ({"threshold_rule": "specificity"}, "level is None: expected a specificity above 0 and below 1"),
        ({"threshold_level": 0.9}, "Youden's rule has no level"),
        ({"resamples": 10}, "resamples is 10: expected 0 .* or at least 100"),
        ({"permutations": 10}, "permutations is 10: expected 0 .* or at least 100"),
        ({"permutations": -1}, "permutations is -1: expected 0 .* or at least 100"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_runs(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        Fairness(**arguments)


def test_the_command_line_can_build_it():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    arguments = {
        "attributes": ["sex", "device_x_sex"],
        "age_edges": [18, 65],
        "reference": {"sex": "male"},
        "tail": 0.005,
        "threshold_rule": "sensitivity",
        "threshold_level": 0.9,
    }
    given = {"callback": {"class_path": "ecgfair.callbacks.Fairness", "init_args": arguments}}
    callback = parser.instantiate(parser.parse_object(given)).callback
    assert callback.attributes.names == ("sex", "device_x_sex")
    assert callback.attributes.columns == ("device",)
    assert callback.attributes.age_edges == (18, 65)
    assert callback.config.long_tail.tail == 0.005
    assert (callback.threshold_rule, callback.threshold_level) == ("sensitivity", 0.9)
