import pickle

import numpy as np
import pytest
import torch

from data_modules.stores.store import RecordStore
from data_modules.streaming.datasets import StoreDataset, StoreRecords, finish
from ecgfair.ecg import ATTRIBUTES, MISSING_SAMPLE, UNKNOWN_SEX, AttributeStatistics
from tests.data_modules.streamed_store import PREPROCESSING, stream_store

INCOMPLETE = [3, 7]


@pytest.fixture
def store(tmp_path):
    sex = [None if position == 1 else position % 2 for position in range(12)]
    beats = [list(range(position)) for position in range(12)]
    return RecordStore(stream_store(tmp_path / "s", 12, incomplete=INCOMPLETE, sex=sex, beats=beats))


def dataset(*stores, max_beats=5, statistics=None):
    records = [StoreRecords(store, np.eye(len(store), 2, dtype=np.uint8), max_beats) for store in stores]
    positions = np.arange(sum(map(len, stores)))
    return StoreDataset(records, positions, statistics or AttributeStatistics())


def finished(batch):
    return finish(batch, PREPROCESSING)


def test_missing_samples_are_zero_and_not_recorded_while_all_others_are_the_stored_millivolts(store):
    index = [5, 3, 7, 0]
    batch = finished(dataset(store).__getitems__(index))
    steps = store.gather(np.array(index))
    missing = steps == MISSING_SAMPLE
    assert missing.any(axis=(1, 2)).tolist() == [False, True, True, False]
    assert batch["signal"].dtype == torch.float32
    np.testing.assert_array_equal(batch["recorded"].numpy(), ~missing)
    np.testing.assert_array_equal(batch["signal"].numpy()[missing], 0)
    np.testing.assert_allclose(batch["signal"].numpy()[~missing], steps[~missing] * 0.001, rtol=1e-6)


def test_a_batch_of_complete_records_is_recorded_throughout_at_no_cost(store):
    raw = dataset(store).__getitems__([0, 1, 2])
    assert raw["recorded"].shape == (3, 1, 1)
    batch = finished(raw)
    assert batch["recorded"].shape == batch["signal"].shape
    assert batch["recorded"].dtype == torch.bool
    assert batch["recorded"].all()
    assert batch["recorded"].untyped_storage().nbytes() == 3


def test_batches_have_the_same_fields_and_shapes_whether_complete_or_not(store):
    data = dataset(store)
    complete, not_complete = (finished(data.__getitems__(items)) for items in ([0, 1], [2, 3]))
    assert {name: (value.shape, value.dtype) for name, value in complete.items()} == {
        name: (value.shape, value.dtype) for name, value in not_complete.items()
    }


def test_reading_a_batch_twice_gives_the_same_and_leaves_the_store_as_it_is(store):
    data = dataset(store)
    first, second = (finished(data.__getitems__([3, 4])) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in ("signal", "recorded", "beats"))
    assert (store.gather(np.array([3]))[0, 1] == MISSING_SAMPLE).all()


def test_beats_are_padded_and_those_beyond_the_most_left_out(store):
    beats = dataset(store, max_beats=5).__getitems__([0, 3, 5, 11])["beats"]
    assert beats.tolist() == [[-1] * 5, [0, 1, 2, -1, -1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_missing_sex_is_explicit_and_missing_attributes_are_nan(store):
    batch = dataset(store).__getitems__([0, 1, 2, 3])
    assert batch["sex"].tolist() == [0, UNKNOWN_SEX, 0, 1]
    assert torch.isnan(batch["attributes"][:, ATTRIBUTES.index("sex")]).tolist() == [False, True, False, False]
    assert torch.isnan(batch["attributes"][:, ATTRIBUTES.index("pr")]).all()


def test_attributes_are_standardised_and_age_is_in_years(store):
    mean, std = [0.0] * len(ATTRIBUTES), [1.0] * len(ATTRIBUTES)
    mean[0], std[0] = 25.0, 2.0
    batch = dataset(store, statistics=AttributeStatistics(tuple(mean), tuple(std))).__getitems__([0, 9])
    assert batch["age"].tolist() == [20, 29]
    assert batch["attributes"][:, 0].tolist() == [-2.5, 2.0]


def test_a_batch_across_stores_is_the_batches_of_each_in_the_order_asked_for(store, tmp_path):
    other = RecordStore(stream_store(tmp_path / "other", 6))
    both = dataset(store, other)
    asked = [13, 3, 12, 0, 17, 7]
    batch = finished(both.__getitems__(asked))
    assert batch["index"].tolist() == asked
    for place, position in enumerate(asked):
        own, row = (dataset(store), position) if position < 12 else (dataset(other), position - 12)
        single = finished(own[row])
        for name in ("signal", "recorded", "beats", "attributes", "age", "sex", "labels"):
            torch.testing.assert_close(batch[name][place : place + 1], single[name], equal_nan=True, rtol=0, atol=0)


def test_signals_that_are_millivolts_already_are_left_as_they_are(store):
    batch = finished(dataset(store)[3])
    signal = batch["signal"].clone()
    assert torch.equal(finished(batch)["signal"], signal)


def test_a_dataset_travels_to_another_process(store):
    copy = pickle.loads(pickle.dumps(dataset(store)))  # noqa: S301  # pickled one line before
    assert torch.equal(copy[3]["signal"], dataset(store)[3]["signal"])
