import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.datamodules import EcgDataModule
from data_modules.store import RecordStore
from ecgfair.ecg import ATTRIBUTES, SEX_COLUMN
from ecgfair.errors import ConfigurationError, SplitError, StoreError


def batches(data, loader):
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


@pytest.fixture
def data(synthetic_store):
    return EcgDataModule(str(synthetic_store), batch_size=16)


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


def test_a_batch_holds_what_the_store_holds_in_millivolts(data):
    table = data.store.records.to_pandas()
    for batch in batches(data, data.train_dataloader()):
        index = batch["index"].numpy()
        rows = table.iloc[index]
        assert batch["signal"].dtype == torch.float32
        np.testing.assert_allclose(batch["signal"], data.store.gather(index) * 0.001, rtol=1e-6)
        np.testing.assert_array_equal(batch["age"].numpy(), rows["age"].to_numpy(np.float32))
        np.testing.assert_array_equal(batch["sex"].numpy(), rows["sex"].fillna(-1).to_numpy(np.int64))
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


def test_prevalence_is_that_of_the_training_records_alone(data):
    fold = data.store.records["fold"].to_numpy()
    names, labels = data.store.labels("superdiagnostic")
    assert data.label_names == names
    np.testing.assert_allclose(data.label_prevalence, labels[fold <= 8].mean(axis=0), rtol=1e-6)


def test_training_records_come_in_a_new_order_every_epoch_and_the_same_for_the_same_seed(synthetic_store):
    def order(seed, epoch):
        loader = EcgDataModule(str(synthetic_store), seed=seed).train_dataloader()
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


def test_records_are_named_in_the_order_asked_for(data):
    ids = data.store.records["record_id"].to_pylist()
    named = data.records(np.array([5, 2, 9]))
    assert named["record_id"].tolist() == [ids[5], ids[2], ids[9]]


def test_the_fingerprint_of_the_training_data_changes_with_its_folds(synthetic_store):
    eight = EcgDataModule(str(synthetic_store)).training_data
    assert eight == EcgDataModule(str(synthetic_store)).training_data
    assert eight != EcgDataModule(str(synthetic_store), train_folds=[1, 2]).training_data


def test_a_data_module_travels_to_another_process(data):
    copy = pickle.loads(pickle.dumps(data.train_dataloader().dataset))  # noqa: S301  # pickled one line before
    assert torch.equal(copy[0]["signal"], data.train_dataloader().dataset[0]["signal"])


class FakeStore:
    """A store's table with folds and patients of one's choice."""

    def __init__(self, store, monkeypatch, **columns):
        table = RecordStore(store).records
        for name, values in columns.items():
            position = table.schema.get_field_index(name)
            import pyarrow as pa

            table = table.set_column(
                position, table.schema.field(name), pa.array(values, table.schema.field(name).type)
            )
        monkeypatch.setattr(RecordStore, "records", table)


def test_a_patient_in_two_parts_is_refused_by_name(synthetic_store, monkeypatch):
    table = RecordStore(synthetic_store).records.to_pandas()
    patients = table["patient_id"].tolist()
    train, test = int(np.flatnonzero(table["fold"] <= 8)[0]), int(np.flatnonzero(table["fold"] == 10)[0])
    patients[train] = patients[test] = "twice"
    FakeStore(synthetic_store, monkeypatch, patient_id=patients)
    with pytest.raises(SplitError, match="1 patients have records in train and in test, for example 'twice'"):
        EcgDataModule(str(synthetic_store)).split  # noqa: B018


def test_a_store_without_folds_is_split_by_patient_always_in_the_same_way(synthetic_store, monkeypatch):
    rows = len(RecordStore(synthetic_store))
    FakeStore(synthetic_store, monkeypatch, fold=[None] * rows, patient_id=[f"p{i // 2}" for i in range(rows)])
    one, two = (EcgDataModule(str(synthetic_store)).split for _ in range(2))
    assert all(np.array_equal(one[part], two[part]) for part in one)
    assert sum(len(one[part]) for part in ("train", "validation", "test")) == rows
    assert all(len(one[part]) for part in one)


def test_folds_for_some_records_only_are_refused(synthetic_store, monkeypatch):
    rows = len(RecordStore(synthetic_store))
    FakeStore(synthetic_store, monkeypatch, fold=[None] + [1] * (rows - 1))
    with pytest.raises(SplitError, match=rf"1 of {rows} records have no fold"):
        EcgDataModule(str(synthetic_store)).split  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels": "superdiagnostc"}, ConfigurationError, "Did you mean 'superdiagnostic'"),
        ({"batch_size": 0}, ConfigurationError, "batch_size is 0"),
        ({"num_workers": -1}, ConfigurationError, "num_workers is -1"),
        ({"test_folds": [9]}, SplitError, "Fold 9 is in validation_folds and in test_folds"),
        ({"test_folds": [12]}, SplitError, r"No record is in the test folds \[12\]"),
    ],
)
def test_settings_that_do_not_fit_the_store_are_refused(synthetic_store, settings, error, message):
    with pytest.raises(error, match=message):
        EcgDataModule(str(synthetic_store), **settings).split  # noqa: B018


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
