import hashlib

import numpy as np
import pytest

from data_modules.stores.store import RecordStore
from data_modules.streaming.splits import check_folds, record_folds
from ecgfair.errors import SplitError
from tests.data_modules.streamed_store import stream_store

FOLDS = {"train": [1, 2, 3, 4, 5, 6, 7, 8], "validation": [9], "test": [10]}


def folds(path, count=50, asked=FOLDS, **columns):
    return record_folds(RecordStore(stream_store(path, count, **columns)), asked)


def test_folds_are_those_of_the_source_where_it_has_them(tmp_path):
    chosen = [3, 9, 10, 1, 1]
    assert folds(tmp_path / "s", 5, fold=chosen).tolist() == chosen


def test_a_store_without_folds_is_split_into_ten_by_a_hash_of_the_patient(tmp_path):
    patients = [f"patient {number // 2}" for number in range(400)]
    found = folds(tmp_path / "s", 400, fold=[None] * 400, patient_id=patients)
    hashes = [int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 + 1 for name in patients]
    assert found.tolist() == hashes
    assert set(found) == set(range(1, 11))


def test_folds_for_some_records_only_are_refused(tmp_path):
    with pytest.raises(SplitError, match=r"1 of 5 records of .* have no fold"):
        folds(tmp_path / "s", 5, fold=[None, 1, 1, 9, 10])


def test_a_part_without_records_is_refused_with_the_folds_there_are(tmp_path):
    with pytest.raises(SplitError, match=r"validation folds \[9\]: it has the folds \[1, 2, 3\]. .*validation_folds"):
        folds(tmp_path / "s", 6, fold=[1, 2, 3] * 2)


def test_a_part_may_be_left_out(tmp_path):
    assert len(folds(tmp_path / "s", 6, FOLDS | {"test": []}, fold=[1, 2, 9] * 2)) == 6


def test_a_patient_in_two_parts_is_refused_by_name(tmp_path):
    with pytest.raises(SplitError, match="2 patients have records in train and in test, for example 'a'"):
        folds(tmp_path / "s", 6, fold=[1, 10, 9, 2, 10, 3], patient_id=["b", "b", "c", "a", "a", "d"])


def test_a_patient_in_two_folds_of_one_part_is_not(tmp_path):
    assert len(folds(tmp_path / "s", 4, fold=[1, 2, 9, 10], patient_id=["a", "a", "b", "c"])) == 4


def test_a_patient_in_a_fold_that_no_part_has_is_not(tmp_path):
    assert len(folds(tmp_path / "s", 4, fold=[1, 20, 9, 10], patient_id=["a", "a", "b", "c"])) == 4


def test_a_fold_in_two_parts_is_refused():
    with pytest.raises(SplitError, match="Fold 9 is in validation_folds and in test_folds"):
        check_folds(FOLDS | {"test": [10, 9]})
    check_folds(FOLDS | {"test": [10, 10]})


def test_hashing_in_blocks_changes_no_fold(tmp_path, monkeypatch):
    store = RecordStore(stream_store(tmp_path / "s", 50))
    monkeypatch.setattr("data_modules.streaming.splits._BLOCK", 7)
    np.testing.assert_array_equal(record_folds(store, FOLDS), np.arange(50) % 10 + 1)
    hashed = RecordStore(stream_store(tmp_path / "hashed", 200, fold=[None] * 200))
    by_blocks = record_folds(hashed, FOLDS)
    monkeypatch.undo()
    np.testing.assert_array_equal(by_blocks, record_folds(hashed, FOLDS))
