import numpy as np
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser

from data_modules.readers.code15 import Code15Reader
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.stores.store import RecordStore
from data_modules.streaming.balancing import Sampling
from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import (
    Code15DataModule,
    EcgDataModule,
    OwnRecordsDataModule,
    PtbXlDataModule,
    WfdbFolderDataModule,
)
from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN
from ecgfair.errors import ConfigurationError, SplitError, StoreError
from tests.data_modules.streamed_store import stream_store


def batches(data, loader):
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


@pytest.fixture
def data(synthetic_store):
    return EcgDataModule(str(synthetic_store), batch_size=16)


@pytest.fixture
def made(tmp_path):
    return stream_store(tmp_path / "made")


def test_each_part_holds_the_records_of_its_folds_each_once(data):
    fold = data.store.records["fold"].to_numpy()
    for loader, expected in (
        (data.train_dataloader(), fold <= 8),
        (data.val_dataloader(), fold == 9),
        (data.test_dataloader(), fold == 10),
        (data.predict_dataloader(), fold < 10),
    ):
        index = torch.cat([batch["index"] for batch in loader])
        assert sorted(index.tolist()) == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize("part", ["train", "val", "test", "predict"])
def test_a_batch_holds_what_the_store_holds_in_millivolts(data, part):
    table = data.store.records.to_pandas()
    names, labels = data.store.labels("superdiagnostic")
    assert data.label_names == names
    for batch in batches(data, getattr(data, f"{part}_dataloader")()):
        index = batch["index"].numpy()
        rows = table.iloc[index]
        recorded = batch["recorded"].numpy()
        assert batch["signal"].dtype == torch.float32
        np.testing.assert_allclose(
            batch["signal"].numpy(), np.where(recorded, data.store.gather(index) * 0.001, 0), rtol=1e-6
        )
        np.testing.assert_array_equal(recorded.all(axis=(1, 2)), rows["complete"])
        np.testing.assert_array_equal(batch["age"].numpy(), rows["age"].to_numpy(np.float32))
        np.testing.assert_array_equal(batch["sex"].numpy(), rows["sex"].fillna(-1).to_numpy(np.int64))
        np.testing.assert_array_equal(batch["labels"].numpy(), labels[index])
        for beats, expected in zip(batch["beats"].numpy(), rows["beats"], strict=True):
            np.testing.assert_array_equal(beats[beats >= 0], expected)
            assert (beats[len(expected) :] == -1).all()


def test_attributes_are_standardised_by_the_training_records_and_missing_ones_stay_missing(data):
    table = data.store.records.to_pandas()
    trained = table[table["fold"] <= 8]
    statistics = data.attribute_statistics
    for column, name in enumerate(ATTRIBUTES):
        if column == SEX_COLUMN:
            continue
        known = trained[name].dropna().to_numpy(np.float64)
        assert statistics.mean[column] == pytest.approx(known.mean(), rel=1e-4)
        assert statistics.std[column] == pytest.approx(known.std(), rel=1e-4)
    seen = {
        int(i): row
        for batch in data.train_dataloader()
        for i, row in zip(batch["index"], batch["attributes"], strict=True)
    }
    for index, row in seen.items():
        for column, name in enumerate(ATTRIBUTES):
            value = table[name].iloc[index]
            if pd.isna(value):
                assert torch.isnan(row[column])
            else:
                expected = (value - statistics.mean[column]) / statistics.std[column]
                assert row[column].item() == pytest.approx(expected, abs=1e-4)


def test_attributes_that_nobody_has_or_all_have_alike_divide_by_one(tmp_path):
    data = EcgDataModule(stream_store(tmp_path / "s", 20, heart_rate=[60.0] * 20))
    statistics = data.attribute_statistics
    assert (statistics.mean[ATTRIBUTES.index("pr")], statistics.std[ATTRIBUTES.index("pr")]) == (0, 1)
    rate = ATTRIBUTES.index("heart_rate")
    assert (statistics.mean[rate], statistics.std[rate]) == (60, 1)


def test_prevalence_is_that_of_the_training_records_alone(data):
    fold = data.store.records["fold"].to_numpy()
    _, labels = data.store.labels("superdiagnostic")
    np.testing.assert_allclose(data.label_prevalence, labels[fold <= 8].mean(axis=0), rtol=1e-6)


def test_training_records_come_in_a_new_order_every_epoch_and_the_same_for_the_same_seed(made):
    def order(seed, epoch):
        loader = EcgDataModule(made, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch["index"] for batch in loader]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_worker_processes_load_the_same_batches(synthetic_store):
    def signals(workers):
        loader = EcgDataModule(str(synthetic_store), num_workers=workers).val_dataloader()
        return torch.cat([batch["signal"] for batch in loader])

    assert torch.equal(signals(0), signals(1))


def test_balanced_sampling_draws_training_records_alone_in_the_shares_asked_for(made):
    data = EcgDataModule(made, sampling=Sampling("label"))
    loader = data.train_dataloader()
    drawn = []
    for epoch in range(50):
        loader.sampler.set_epoch(epoch)
        drawn += [batch["labels"] for batch in loader]
    assert data.label_prevalence == [0.75, 0.25]
    assert torch.cat(drawn).mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    trained = np.concatenate([batch["index"].numpy() for batch in loader])
    assert set(trained) <= set(data.split["train"])


def test_a_window_reads_files_one_after_the_other(made):
    data = EcgDataModule(made, sampling=Sampling(window=1), batch_size=40)
    (batch,) = data.train_dataloader()
    files = np.searchsorted(data.store.shard_starts, batch["index"].numpy(), side="right")
    assert len(set(files)) == 3  # the fourth holds two records, none of a training fold
    assert (np.diff(files) != 0).sum() == 2


def test_records_are_named_in_the_order_asked_for_with_the_fold_they_were_split_by(data, tmp_path):
    table = data.store.records.to_pandas()
    named = data.records(np.array([5, 2, 9]))
    assert list(named.columns) == ["record_id", "patient_id", "fold", "age", "sex"]
    expected = table[list(named.columns)].iloc[[5, 2, 9]].reset_index(drop=True)
    # A column of a few records may have no missing value, and so another type.
    pd.testing.assert_frame_equal(named, expected, check_dtype=False)
    without = EcgDataModule(stream_store(tmp_path / "s", 100, fold=[None] * 100))
    tested = without.records(without.split["test"])
    assert (tested["fold"] == 10).all()


def test_further_columns_of_the_records_come_with_them_and_one_that_is_not_there_is_named(data):
    table = data.store.records.to_pandas()
    named = data.records(np.array([5, 2]), ["seconds", "fold", "age", "complete"])
    assert list(named.columns) == ["record_id", "patient_id", "fold", "age", "sex", "seconds", "complete"]
    assert named["seconds"].tolist() == table["seconds"].iloc[[5, 2]].tolist()
    with pytest.raises(ConfigurationError, match=r"no column 'second' in its table of records. Did you mean 'seconds'"):
        data.records(np.array([5]), ["second"])


def test_the_fingerprint_of_the_training_data_changes_with_its_folds(made):
    eight = EcgDataModule(made).training_data
    assert eight == EcgDataModule(made).training_data
    assert eight != EcgDataModule(made, train_folds=[1, 2]).training_data


def test_labels_are_the_usual_ones_of_the_source_or_else_the_first_set_or_none(tmp_path):
    sets = {"first": {"often": ("often",)}, "superdiagnostic": {"rarely": ("rarely",)}, "abnormalities": {"x": ("x",)}}
    everything = stream_store(tmp_path / "a", 20, "CODE-15 %", sets)
    assert EcgDataModule(everything).label_names == ["rarely"]
    assert Code15DataModule(everything).label_names == ["x"]
    assert EcgDataModule(everything, labels="first").label_names == ["often"]
    assert EcgDataModule(stream_store(tmp_path / "b", 20)).label_names == ["often", "rarely"]


def test_a_store_without_label_sets_has_no_labels(tmp_path):
    data = EcgDataModule(stream_store(tmp_path / "s", 20, label_sets={}))
    assert data.label_names == []
    assert data.label_prevalence == []
    assert next(iter(data.train_dataloader()))["labels"].shape == (16, 0)


@pytest.mark.parametrize("kind", [PtbXlDataModule, Code15DataModule, WfdbFolderDataModule, OwnRecordsDataModule])
def test_a_data_module_of_a_source_takes_its_stores_and_refuses_others(kind, tmp_path, made):
    own = kind(stream_store(tmp_path / "own", 20, kind.source), batch_size=8)
    assert len(own.train_dataloader()) == 2
    with pytest.raises(ConfigurationError, match=f"holds records of 'made': {kind.__name__} expects '{kind.source}'"):
        kind(made)


@pytest.mark.parametrize(
    ("kind", "reader"),
    [(PtbXlDataModule, PtbXlReader), (Code15DataModule, Code15Reader), (WfdbFolderDataModule, WfdbFolderReader)],
)
def test_a_data_module_goes_by_the_name_that_the_reader_of_its_source_writes(kind, reader):
    assert kind.source == reader.source_name


def test_the_command_line_knows_all_settings_of_a_data_module(made):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(StoresDataModule, "data")
    settings = {"store": made, "batch_size": 3, "test_folds": [8], "train_folds": [1, 2]}
    settings["sampling"] = {"balance": "group", "balance_groups": "age", "age_edges": [50]}
    given = parser.parse_object({"data": {"class_path": "EcgDataModule", "init_args": settings}})
    data = parser.instantiate(given).data
    assert data.sampling == Sampling("group", balance_groups="age", age_edges=(50,))
    assert data.batch_size == 3
    assert data.folds == {"train": [1, 2], "validation": [9], "test": [8]}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels": "rythms"}, ConfigurationError, "Did you mean 'rhythms'"),
        ({"batch_size": 0}, ConfigurationError, "batch_size is 0"),
        ({"num_workers": -1}, ConfigurationError, "num_workers is -1"),
        ({"test_folds": [9]}, SplitError, "Fold 9 is in validation_folds and in test_folds"),
        ({"test_folds": [12]}, SplitError, r"is in the test folds \[12\]"),
    ],
)
def test_settings_that_do_not_fit_the_store_are_refused(made, settings, error, message):
    with pytest.raises(error, match=message):
        EcgDataModule(made, **settings).split  # noqa: B018


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="prepare"):
        EcgDataModule(str(tmp_path))


@pytest.mark.data
def test_no_patient_of_ptbxl_is_in_two_folds(ptbxl_store):
    split = EcgDataModule(str(ptbxl_store)).split
    patients = RecordStore(ptbxl_store).records["patient_id"].to_pandas()
    parts = [set(patients.iloc[split[part]]) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == patients.nunique()
    by_fold = RecordStore(ptbxl_store).records.to_pandas().groupby("patient_id")["fold"].nunique()
    assert by_fold.max() == 1
