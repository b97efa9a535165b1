import dataclasses

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.mixture import MixtureDataModule
from ecgfair.ecg import ATTRIBUTES
from ecgfair.errors import ConfigurationError, PreprocessingMismatchError, SplitError, StoreError
from tests.data_modules.streamed_store import LABEL_SETS, PREPROCESSING, signal_of, stream_store

OTHER_SETS = {"other": {"often": ("often",)}}


@pytest.fixture
def stores(tmp_path):
    """Fifty records with folds, and a hundred of other labels without."""
    with_folds = stream_store(tmp_path / "large", 50, incomplete=[4, 8])
    without = stream_store(tmp_path / "small", 100, label_sets=OTHER_SETS, fold=[None] * 100)
    return [with_folds, without]


def indices(loader):
    return torch.cat([batch["index"] for batch in loader]).tolist()


def shares(data, epochs=100):
    """Share of each of two stores in the records drawn."""
    loader = data.train_dataloader()
    sampler = loader.sampler
    drawn = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn.append(data.split["train"][sampler.order()])
    assert all(len(epoch) == len(data.split["train"]) for epoch in drawn)
    return [float((np.concatenate(drawn) < 50).mean()), float((np.concatenate(drawn) >= 50).mean())]


def test_the_records_of_all_stores_come_once_under_positions_of_their_own(stores):
    data = MixtureDataModule(stores, batch_size=16)
    trained, validated, tested = (
        indices(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    )
    assert sorted(trained + validated + tested) == list(range(150))
    assert sorted(indices(data.predict_dataloader())) == sorted(trained + validated)
    for part in (trained, validated, tested):
        assert min(part) < 50 <= max(part)
    assert [position for position in sorted(validated) if position < 50] == [8, 18, 28, 38, 48]


def test_records_of_several_stores_come_with_their_store_and_further_columns(stores):
    data = MixtureDataModule(stores)
    named = data.records(np.array([60, 3]), ["store", "seconds"])
    assert list(named.columns) == ["record_id", "patient_id", "fold", "age", "sex", "seconds", "store"]
    assert named["store"].tolist() == [data.store_names[1], data.store_names[0]]
    with pytest.raises(ConfigurationError, match="no column 'device'"):
        data.records(np.array([60, 3]), ["device"])


def test_a_batch_holds_the_signals_of_the_stores_its_positions_name(stores):
    data = MixtureDataModule(stores, batch_size=16)
    for batch in data.train_dataloader():
        finished = data.on_after_batch_transfer(batch, 0)
        for position, signal, recorded in zip(
            batch["index"].tolist(), finished["signal"], finished["recorded"], strict=True
        ):
            expected = torch.from_numpy(signal_of(position % 50 if position < 50 else position - 50)) * 0.001
            is_complete = position not in (4, 8)
            assert recorded[1].all() == is_complete
            torch.testing.assert_close(signal[0], expected[0])
            torch.testing.assert_close(signal[1], expected[1] if is_complete else torch.zeros(20))


def test_without_weights_the_stores_have_the_shares_of_their_sizes_and_each_record_comes_once(stores):
    data = MixtureDataModule(stores)
    assert sorted(indices(data.train_dataloader())) == data.split["train"].tolist()
    sizes = [int((data.split["train"] < 50).sum()), int((data.split["train"] >= 50).sum())]
    assert shares(data) == pytest.approx(np.array(sizes) / sum(sizes))


@pytest.mark.parametrize("weights", [[1, 1], [3.0, 1.0], [0.1, 0.9]])
def test_weights_are_the_shares_of_the_stores_in_what_is_drawn(stores, weights):
    assert shares(MixtureDataModule(stores, weights)) == pytest.approx(np.array(weights) / sum(weights), abs=0.01)


def test_weights_hold_with_balanced_groups_in_each_store(stores):
    data = MixtureDataModule(stores, [1, 1], sampling=Sampling("group", balance_groups="sex"))
    assert shares(data) == pytest.approx([0.5, 0.5], abs=0.01)


def test_attribute_statistics_are_those_of_the_training_records_of_all_stores(stores):
    data = MixtureDataModule(stores)
    ages = np.concatenate([20.0 + np.arange(50), 20.0 + np.arange(100)])[data.split["train"]]
    assert data.attribute_statistics.mean[ATTRIBUTES.index("age")] == pytest.approx(ages.mean())
    assert data.attribute_statistics.std[ATTRIBUTES.index("age")] == pytest.approx(ages.std())


def test_labels_are_none_where_the_stores_have_different_ones(stores):
    data = MixtureDataModule(stores, batch_size=4)
    assert data.label_names == []
    assert data.label_prevalence == []
    assert next(iter(data.val_dataloader()))["labels"].shape == (4, 0)


def test_labels_that_all_stores_share_are_kept(stores, tmp_path):
    alike = stream_store(tmp_path / "alike", 20, label_sets=OTHER_SETS | LABEL_SETS)
    data = MixtureDataModule([stores[0], alike])
    assert data.label_names == ["often", "rarely"]
    assert data.label_prevalence == pytest.approx([0.8, 0.2], abs=0.1)
    positives = sum(batch["labels"].sum(0) for batch in data.train_dataloader()) / len(data.split["train"])
    assert data.label_prevalence == pytest.approx(positives.tolist())


def test_one_patient_id_in_two_stores_is_two_patients_and_ids_name_their_store(stores):
    data = MixtureDataModule(stores)
    named = data.records(np.array([149, 0, 50, 3]))
    assert named["record_id"].tolist() == ["small/r99", "large/r0", "small/r0", "large/r3"]
    assert named["patient_id"].tolist() == ["small/p99", "large/p0", "small/p0", "large/p3"]
    assert named["store"].tolist() == ["small", "large", "small", "large"]
    assert named["age"].tolist() == [119, 20, 20, 23]
    assert named["fold"].tolist() == np.concatenate(data.record_folds)[[149, 0, 50, 3]].tolist()
    assert data.records(np.arange(150))["record_id"].is_unique


def test_stores_of_one_folder_name_are_told_apart_by_their_whole_address(tmp_path):
    stores = [stream_store(tmp_path / name / "store", 20) for name in ("a", "b")]
    assert MixtureDataModule(stores).records(np.array([0, 20]))["store"].tolist() == stores


def test_the_fingerprint_of_the_training_data_is_of_all_stores_and_of_the_weights(stores, tmp_path):
    third = stream_store(tmp_path / "third", 30)
    mixtures = [MixtureDataModule(stores), MixtureDataModule([stores[0], third]), MixtureDataModule(stores, [1, 2])]
    assert len({data.training_data for data in mixtures}) == 3
    assert MixtureDataModule(stores).training_data == mixtures[0].training_data


def test_a_store_prepared_in_another_way_is_refused_by_name(stores, tmp_path):
    faster = dataclasses.replace(PREPROCESSING, sampling_rate=200)
    other = stream_store(tmp_path / "faster", 20, preprocessing=faster)
    with pytest.raises(PreprocessingMismatchError, match=r"sampling_rate is 100 in .*large but 200 in .*faster"):
        MixtureDataModule([*stores, other])


def test_a_store_that_lacks_a_fold_is_refused_by_name(stores, tmp_path):
    few = stream_store(tmp_path / "few", 6, fold=[1, 2, 3] * 2)
    with pytest.raises(SplitError, match=r"few is in the validation folds \[9\]: it has the folds \[1, 2, 3\]"):
        MixtureDataModule([*stores, few]).split  # noqa: B018


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")], [1.0, float("nan")]])
def test_weights_that_can_not_be_shares_are_refused(stores, weights):
    with pytest.raises(ConfigurationError, match="for 2 stores: expected a positive number for each"):
        MixtureDataModule(stores, weights)


def test_a_store_named_twice_and_no_store_are_refused(stores):
    for named in ([], [stores[0], f"{stores[0]}/"]):
        with pytest.raises(ConfigurationError, match="expected at least one store, each once"):
            MixtureDataModule(named)


def test_a_label_set_that_is_not_the_same_in_all_stores_is_refused_by_name(stores, tmp_path):
    with pytest.raises(ConfigurationError, match="small has no label set 'rhythms'"):
        MixtureDataModule(stores, labels="rhythms")
    other = stream_store(tmp_path / "third", 20, label_sets={"rhythms": {"often": ("often",)}})
    with pytest.raises(ConfigurationError, match=r"'rhythms' is often, rarely in .*large but often in .*third"):
        MixtureDataModule([stores[0], other], labels="rhythms")


def test_a_missing_store_is_refused(stores, tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        MixtureDataModule([stores[0], str(tmp_path / "nowhere")])


def test_the_command_line_knows_all_settings_of_a_mixture(stores):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(StoresDataModule, "data")
    settings = {"stores": stores, "weights": [1, 2], "batch_size": 3, "sampling": {"window": 2}}
    given = parser.parse_object({"data": {"class_path": "MixtureDataModule", "init_args": settings}})
    data = parser.instantiate(given).data
    assert data.batch_size == 3
    assert data.sampling.window == 2
    assert len(indices(data.train_dataloader())) == len(data.split["train"])
