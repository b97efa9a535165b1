"""The sample of training records from which a model learns what is usual, without a trainer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.mixture import MixtureDataModule
from tests.data_modules.streamed_store import PREPROCESSING, signal_of, stream_store

TRAINING = [position for position in range(50) if position % 10 < 8]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stream_store(tmp_path_factory.mktemp("sample") / "store", incomplete=[3])


def positions(data, records):
    return [position for batch in data.training_sample(records) for position in batch["index"].tolist()]


@settings(max_examples=30)
@given(records=st.integers(0, 60), batch_size=st.integers(1, 50))
def test_it_is_of_training_records_each_once_in_order_and_at_most_as_many_as_asked_for(store, records, batch_size):
    data = EcgDataModule(store, batch_size=batch_size)
    found = positions(data, records)
    assert set(found) <= set(TRAINING)
    assert found == sorted(set(found))
    assert len(found) == min(records, len(TRAINING))


def test_it_is_spread_over_all_training_records(store):
    found = np.array(positions(EcgDataModule(store), 10))
    places = np.searchsorted(TRAINING, found)
    assert places[0] == 0
    assert places[-1] == len(TRAINING) - 1
    assert set(np.diff(places)) <= {4, 5}


def test_batches_are_of_the_data_modules_size_and_all_records_come_without_a_trainer(store):
    data = EcgDataModule(store, batch_size=16)
    assert [len(batch["index"]) for batch in data.training_sample(1000)] == [16, 16, 8]
    assert data.trainer is None


def test_a_record_comes_as_it_is_evaluated_in_millivolts_with_what_was_recorded(store):
    batch = next(iter(EcgDataModule(store).training_sample(1000)))
    assert batch["signal"].dtype == torch.float32
    assert batch["recorded"].shape == batch["signal"].shape
    for row, position in enumerate(batch["index"].tolist()):
        expected = signal_of(position) * PREPROCESSING.scale
        recorded = np.ones_like(expected, dtype=bool)
        if position == 3:
            recorded[1] = False
        np.testing.assert_array_equal(batch["recorded"][row], recorded)
        np.testing.assert_allclose(batch["signal"][row][recorded], expected[recorded], rtol=1e-6)


def test_other_folds_and_only_one_label_are_respected(store):
    assert positions(EcgDataModule(store, train_folds=[2, 4]), 1000) == [p for p in range(50) if p % 10 in (1, 3)]
    rarely = EcgDataModule(store, train_only="rarely")  # every fifth record
    assert positions(rarely, 1000) == [position for position in TRAINING if position % 5 == 0]
    assert set(positions(rarely, 3)) <= set(positions(rarely, 1000))
    assert len(positions(rarely, 3)) == 3


def test_how_training_is_shuffled_and_balanced_changes_nothing(store):
    data = EcgDataModule(store, sampling=Sampling("label"), seed=3)
    assert positions(data, 7) == positions(EcgDataModule(store), 7)
    list(data.train_dataloader())
    assert positions(data, 7) == positions(EcgDataModule(store), 7)


def test_a_mixture_gives_records_of_every_store(store, tmp_path):
    data = MixtureDataModule([store, stream_store(tmp_path / "other", 30)], weights=[1, 9])
    everything = [*TRAINING, *(50 + position for position in range(30) if position % 10 < 8)]
    assert positions(data, 1000) == everything
    few = positions(data, 8)
    assert len(few) == 8
    assert {position < 50 for position in few} == {True, False}
