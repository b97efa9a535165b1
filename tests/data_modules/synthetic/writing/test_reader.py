"""SyntheticReader: what any reader owes, of records that are drawn when they are read."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_modules.readers.ptbxl import PtbXlReader
from data_modules.records import Record
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.signals.recording import to_signal
from data_modules.synthetic.writing.reader import SyntheticReader
from data_modules.synthetic.writing.truth_tables import TRUTH_SCHEMA
from ecgfair.errors import ConfigurationError

FEWER_WOMEN = Population(disparities=(Disparity("training_records", 0.6, sex="female"),))


def test_records_are_those_that_the_layout_of_ptbxl_holds(whole_source: Path):
    for read, other in zip(SyntheticReader(20).read(range(20)), PtbXlReader(whole_source).read(range(20)), strict=True):
        assert isinstance(other, Record)
        assert np.array_equal(read.signal, other.signal)
        assert read.signal.dtype == other.signal.dtype
        names = ("record_id", "patient_id", "leads", "sampling_rate", "age", "sex", "codes", "fold", "recorded_at")
        assert [getattr(read, name) for name in names] == [getattr(other, name) for name in names]
        assert read.notes == other.notes == ()


def test_its_label_sets_are_those_of_the_layout(whole_source: Path):
    sets = SyntheticReader(1).label_sets
    other = PtbXlReader(whole_source).label_sets
    assert sets == other
    assert {name: list(labels) for name, labels in sets.items()} == {
        name: list(labels) for name, labels in other.items()
    }


def test_positions_are_read_in_the_order_asked_for():
    reader = SyntheticReader(5)
    assert [read.record_id for read in reader.read([3, 0, 3])] == ["4", "1", "4"]
    assert list(reader.read([])) == []


def test_records_that_are_left_out_are_not_listed():
    reader = SyntheticReader(300, population=FEWER_WOMEN)
    kept = [number for number in range(1, 301) if not truth(number, 0, FEWER_WOMEN).left_out]
    assert 0 < reader.left_out == 300 - len(kept)
    assert len(reader) == len(kept)
    assert [read.record_id for read in reader.read([0, len(kept) - 1])] == [str(kept[0]), str(kept[-1])]
    with pytest.raises(IndexError):
        list(reader.read([len(kept)]))


def test_a_pickled_reader_reads_the_same():
    reader = SyntheticReader(30, 3, FEWER_WOMEN, 500)
    copy: SyntheticReader = pickle.loads(pickle.dumps(reader))  # noqa: S301
    (one,), (other,) = reader.read([7]), copy.read([7])
    assert np.array_equal(one.signal, other.signal)
    assert one.signal.shape == (12, 5000)
    assert (one.record_id, one.sampling_rate) == (other.record_id, 500)
    assert copy.fingerprint == reader.fingerprint


def test_the_fingerprint_is_that_of_all_that_decides_what_is_read():
    same = SyntheticReader(10, 1, Population(prevalence={"IMI": 0.2, "AMI": 0.1}))
    assert same.fingerprint == SyntheticReader(10, 1, Population(prevalence={"AMI": 0.1, "IMI": 0.2})).fingerprint
    others = [
        SyntheticReader(11, 1, Population(prevalence={"IMI": 0.2, "AMI": 0.1})),
        SyntheticReader(10, 2, Population(prevalence={"IMI": 0.2, "AMI": 0.1})),
        SyntheticReader(10, 1, Population(prevalence={"IMI": 0.2})),
        SyntheticReader(10, 1, FEWER_WOMEN),
        SyntheticReader(10, 1),
        SyntheticReader(10, 1, Population(prevalence={"IMI": 0.2, "AMI": 0.1}), 500),
    ]
    assert len({reader.fingerprint for reader in (same, *others)}) == 7


def test_what_is_true_of_the_records_is_kept_as_they_are_read(tmp_path: Path):
    reader = SyntheticReader(40, tables=tmp_path)
    signals = [read.signal for read in reader.read(range(32, 35))]
    (path,) = tmp_path.iterdir()
    assert path.name == "000000032.parquet"
    table = pq.read_table(path, schema=TRUTH_SCHEMA)
    assert table["record_id"].to_pylist() == ["33", "34", "35"]
    assert np.array_equal(np.rint(signals[0] * 1000), to_signal(truth(33)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"records": 0}, "records is 0: expected at least 1"),
        ({"records": -3}, "records is -3"),
        ({"records": 1, "seed": -1}, "seed is -1: expected 0 or more"),
        ({"records": 1, "sampling_rate": 250}, "sampling_rate is 250 Hz: .* 100 or at 500 Hz"),
    ],
)
def test_numbers_that_can_not_be_are_refused(arguments: dict[str, int], said: str):
    with pytest.raises(ConfigurationError, match=said):
        SyntheticReader(**arguments)
