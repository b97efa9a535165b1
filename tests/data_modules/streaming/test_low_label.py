"""Training on a share of the records: which are chosen, and what follows them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.low_label import stratified_subset
from data_modules.streaming.mixture import MixtureDataModule
from ecgfair.errors import ConfigurationError
from tests.data_modules.streamed_store import stream_store

SHARES = st.floats(0.02, 1)
TABLES = st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=25, max_size=60)


def drawn(records=2000, seed=0):
    """Labels as PTB-XL's are: a long tail, records of several labels, some without any."""
    rates = np.array([0.4, 0.2, 0.1, 0.05, 0.02, 0.004, 0.001])
    return (np.random.default_rng(seed).random((records, len(rates))) < rates).astype(np.uint8)


@given(rows=TABLES, share=SHARES, seed=st.integers(0, 5))
def test_every_label_that_can_keeps_a_positive_record(rows, share, seed):
    labels = np.array(rows, dtype=np.uint8)
    chosen = stratified_subset(labels, None, share, seed)
    there = np.column_stack([labels, ~labels.any(axis=1)])
    wanted, kept = int(there.any(axis=0).sum()), int(there[chosen].any(axis=0).sum())
    assert chosen.sum() == int(len(labels) * share + 0.5)
    assert kept >= min(wanted, chosen.sum())


@given(rows=TABLES, share=SHARES, smaller=SHARES, patients=st.integers(1, 60))
def test_a_smaller_share_lies_within_a_larger_one(rows, share, smaller, patients):
    labels = np.array(rows, dtype=np.uint8)
    of = np.arange(len(labels)) % patients
    larger = stratified_subset(labels, of, max(share, smaller), 0)
    assert not (stratified_subset(labels, of, min(share, smaller), 0) & ~larger).any()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_shares_of_labels_and_of_records_without_any_are_kept(share):
    labels = drawn()
    there = np.column_stack([labels, ~labels.any(axis=1)])
    chosen = stratified_subset(labels, None, share, 0)
    exact = there.sum(axis=0) * share
    # A label is off by two records at most, be it rare or not; at random the most frequent one is by twenty.
    np.testing.assert_allclose(there[chosen].sum(axis=0), exact, atol=2)


def test_so_few_records_that_labels_must_go_keep_the_most_labels_there_can_be():
    labels = np.zeros((100, 6), dtype=np.uint8)
    labels[:50, 0] = 1
    labels[50, 1] = 1
    labels[70] = [0, 1, 1, 1, 0, 0]
    labels[71] = [0, 0, 0, 0, 1, 1]
    assert np.flatnonzero(stratified_subset(labels, None, 0.01, 0)).tolist() == [70]
    assert np.flatnonzero(stratified_subset(labels, None, 0.02, 3)).tolist() == [70, 71]


def test_the_choice_depends_on_the_seed_alone():
    labels = drawn()
    first, again, other = (stratified_subset(labels, None, 0.1, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first & ~other).any()


def test_the_records_of_a_patient_come_together():
    labels = drawn()
    patients = np.random.default_rng(1).integers(0, 900, len(labels))
    chosen = stratified_subset(labels, patients, 0.1, 0)
    assert not set(patients[chosen]) & set(patients[~chosen])
    most = np.bincount(patients).max()
    assert 200 <= chosen.sum() < 200 + most
    assert labels[chosen].any(axis=0).all()


def test_names_of_patients_do_as_well_as_numbers():
    labels, patients = drawn(200), np.arange(200) // 3
    names = np.array([f"{patient:03}" for patient in patients])
    np.testing.assert_array_equal(stratified_subset(labels, names, 0.2, 0), stratified_subset(labels, patients, 0.2, 0))


def test_records_without_any_label_set_are_chosen_too():
    chosen = stratified_subset(np.zeros((40, 0), dtype=np.uint8), None, 0.25, 0)
    assert chosen.sum() == 10


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_share_is_refused_at_once(share, tmp_path):
    with pytest.raises(ConfigurationError, match=r"data.train_share is .*: expected a share .* above 0 and up to 1"):
        stratified_subset(drawn(10), None, share, 0)
    with pytest.raises(ConfigurationError, match=r"data.train_share is"):
        EcgDataModule(stream_store(tmp_path / "made", 20), train_share=share)


def test_a_share_of_less_than_a_record_is_refused_with_the_least_there_is():
    with pytest.raises(
        ConfigurationError, match=r"0.01 of 40 training records.* less than one: expected at least 0.01"
    ):
        stratified_subset(drawn(40), None, 0.01, 0)
    assert stratified_subset(drawn(40), None, 0.0125, 0).sum() == 1


def test_a_seed_below_zero_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"data.train_share_seed is -1: expected 0 or more"):
        EcgDataModule(stream_store(tmp_path / "made", 20), train_share_seed=-1)


@pytest.fixture
def store(tmp_path):
    return stream_store(tmp_path / "made", 100)


def positions(loader):
    return sorted(torch.cat([batch["index"] for batch in loader]).tolist())


def test_only_the_share_is_trained_on_and_nothing_else_changes(store):
    data, plain = EcgDataModule(store, train_share=0.25, batch_size=3), EcgDataModule(store)
    chosen = data.split["train"].tolist()
    assert (data.training_records, plain.training_records) == (20, 80)
    assert set(chosen) < set(plain.split["train"].tolist())
    assert positions(data.train_dataloader())[:18] <= chosen
    for part in ("validation", "test", "predict"):
        np.testing.assert_array_equal(data.split[part], plain.split[part])


def test_prevalence_statistics_and_groups_are_of_the_share(store):
    data = EcgDataModule(store, train_share=0.25, sampling=Sampling("label"))
    chosen = data.split["train"]
    assert data.label_prevalence == pytest.approx([0.8, 0.2], abs=0.051)
    assert data.attribute_statistics.mean[0] == pytest.approx((20.0 + chosen).mean())
    assert int(data.group_counts("age", (50,))[0].sum()) == 20
    assert set(positions(data.train_dataloader())) <= set(chosen.tolist())


def test_the_fingerprint_tells_the_share_and_its_seed_and_is_as_before_without(store):
    settings = [{}, {"train_share": 0.5}, {"train_share": 0.5, "train_share_seed": 1}, {"train_share": 0.25}]
    settings += [{"train_only": "rarely"}, {"train_only": "rarely", "train_share": 0.5}]
    fingerprints = [EcgDataModule(store, **chosen).training_data for chosen in settings]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints[0].endswith(":folds 1,2,3,4,5,6,7,8")
    assert ":share 0.5 seed 0, 40 records " in fingerprints[1]
    assert ":only rarely:share 0.5 seed 0, " in fingerprints[5]
    assert EcgDataModule(store, train_share=1.0, train_share_seed=3).training_data == fingerprints[0]


def test_it_is_a_share_of_the_records_that_train_only_leaves(store):
    only = EcgDataModule(store, train_only="rarely")
    both = EcgDataModule(store, train_only="rarely", train_share=0.5)
    assert set(both.split["train"].tolist()) < set(only.split["train"].tolist())
    assert both.training_records == only.training_records // 2


def test_each_store_of_a_mixture_gives_its_share(tmp_path, store):
    data = MixtureDataModule([store, stream_store(tmp_path / "other", 50)], [1, 1], train_share=0.25)
    chosen = data.split["train"]
    assert ((chosen < 100).sum(), (chosen >= 100).sum()) == (20, 10)
    assert set(positions(data.train_dataloader())) <= set(chosen.tolist())


def test_it_is_set_from_the_command_line(store):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(StoresDataModule, "data")
    arguments = ["--data=EcgDataModule", f"--data.init_args.store={store}", "--data.init_args.train_share=0.5"]
    assert parser.instantiate(parser.parse_args(arguments)).data.training_records == 40
