"""Signal files: WFDB, .npy and .csv give the same millivolts, and a bad file one clear reason."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from data_modules.readers.signal_files import PlainFiles, inside, read_signal_file, without_infinities
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError, RecordError

FILES = PlainFiles(LEADS, sampling_rate=250, millivolts_per_unit=0.001)


@pytest.fixture
def microvolts() -> np.ndarray:
    """(12, 300) whole microvolts, a value of its own for each sample."""
    return np.random.default_rng(0).permutation(3600).reshape(12, 300) - 1800


def write_wfdb(folder: Path, name: str, microvolts: np.ndarray) -> None:
    wfdb.wrsamp(
        name,
        fs=250,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=microvolts.T,
        fmt=["16"] * 12,
        adc_gain=[1000.0] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )


def write_csv(path: Path, signal: np.ndarray, names: tuple[str, ...] = LEADS, **columns: object) -> None:
    pd.DataFrame({**columns, **dict(zip(names, signal, strict=True))}).to_csv(path, index=False)


def reason(folder: Path, name: str, files: PlainFiles = FILES) -> str:
    with pytest.raises(RecordError) as caught:
        read_signal_file(folder, name, files)
    assert re.match(r"[\w .-]+: ", str(caught.value)), "a reason is 'kind: details'"
    assert str(folder) not in str(caught.value), "the same source elsewhere has the same reasons"
    return str(caught.value)


def test_all_three_kinds_of_file_give_the_same_millivolts(tmp_path, microvolts):
    np.save(tmp_path / "a.npy", microvolts)
    np.save(tmp_path / "b.npy", microvolts.T.astype(np.float32))
    write_csv(tmp_path / "c.csv", microvolts)
    write_wfdb(tmp_path, "d", microvolts)
    for name in ("a.npy", "b.npy", "c.csv", "d", "d.hea", "d.dat"):
        recorded = read_signal_file(tmp_path, name, FILES)
        assert np.array_equal(recorded.signal, (microvolts / 1000).astype(np.float32)), name
        assert recorded.signal.dtype == np.float32
        assert (recorded.leads, recorded.sampling_rate, recorded.other_leads) == (LEADS, 250, ())


def test_a_wfdb_record_needs_nothing_said(tmp_path, microvolts):
    (tmp_path / "folder").mkdir()
    write_wfdb(tmp_path / "folder", "d", microvolts)
    assert read_signal_file(tmp_path, "folder/d", PlainFiles()).sampling_rate == 250


def test_a_csv_of_another_column_order_and_spelling_gives_the_same(tmp_path, microvolts):
    names = ["avr", "Lead II", "DI", "III", "aVL", "AVF", "V1", "C2", "V3", "V4", "V5", "V6"]
    rows = [3, 1, 0, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    write_csv(tmp_path / "c.csv", microvolts[rows], tuple(names))
    recorded = read_signal_file(tmp_path, "c.csv", FILES)
    assert np.array_equal(recorded.signal, (microvolts / 1000).astype(np.float32))


def test_columns_that_count_samples_are_left_out_and_others_named(tmp_path, microvolts):
    write_csv(tmp_path / "c.csv", microvolts[:2], ("I", "II"), Time=range(300), note="artefact")
    recorded = read_signal_file(tmp_path, "c.csv", FILES)
    assert (recorded.leads, recorded.other_leads) == (("I", "II"), ("note",))
    assert np.array_equal(recorded.signal, (microvolts[:2] / 1000).astype(np.float32))


def test_leads_of_npy_that_are_not_standard_are_left_out_and_named(tmp_path, microvolts):
    np.save(tmp_path / "a.npy", microvolts[:3])
    recorded = read_signal_file(tmp_path, "a.npy", PlainFiles(("Vx", "II", "I"), 250, 1))
    assert (recorded.leads, recorded.other_leads) == (("I", "II"), ("Vx",))
    assert np.array_equal(recorded.signal, microvolts[[2, 1]])


def test_a_csv_without_a_header_takes_the_leads_that_are_said(tmp_path, microvolts):
    np.savetxt(tmp_path / "c.csv", microvolts.T, delimiter=",")
    assert np.array_equal(read_signal_file(tmp_path, "c.csv", FILES).signal, (microvolts / 1000).astype(np.float32))
    assert reason(tmp_path, "c.csv", PlainFiles(None, 250, 1)).startswith("leads unknown: c.csv has no header")
    assert reason(tmp_path, "c.csv", PlainFiles(LEADS[:8], 250, 1)).startswith("wrong shape: c.csv has 12 columns")


def test_what_is_not_a_number_was_not_recorded(tmp_path, microvolts):
    signal = microvolts.astype(float)
    signal[2, 10:20] = np.nan
    np.save(tmp_path / "a.npy", signal)
    write_csv(tmp_path / "c.csv", signal)
    for name in ("a.npy", "c.csv"):
        recorded = read_signal_file(tmp_path, name, FILES)
        assert np.array_equal(np.isnan(recorded.signal), np.isnan(signal)), name
        assert recorded.notes == ()


def test_infinite_voltages_are_not_recorded_and_noted():
    notes: list[str] = []
    signal = without_infinities(np.array([[1.0, np.inf, -np.inf, 1e300, np.nan]]), notes)
    assert np.array_equal(signal, np.array([[1, np.nan, np.nan, np.nan, np.nan]], np.float32), equal_nan=True)
    assert notes == ["samples infinite: 3 samples; taken as not recorded."]


@pytest.mark.parametrize("unit", [1, 0.001, 1000, 4.88e-3])
def test_the_unit_is_honoured(tmp_path, microvolts, unit):
    np.save(tmp_path / "a.npy", microvolts.astype(np.int16))
    recorded = read_signal_file(tmp_path, "a.npy", PlainFiles(LEADS, 250, unit))
    assert np.array_equal(recorded.signal, (microvolts * unit).astype(np.float32))


def test_what_nobody_says_is_not_guessed(tmp_path, microvolts):
    np.save(tmp_path / "a.npy", microvolts)
    write_csv(tmp_path / "c.csv", microvolts)
    for name in ("a.npy", "c.csv"):
        assert reason(tmp_path, name, PlainFiles(LEADS, None, 1)).startswith(f"sampling rate unknown: {name}")
        assert reason(tmp_path, name, PlainFiles(LEADS, 250, None)).startswith(f"unit unknown: {name}")
    assert reason(tmp_path, "a.npy", PlainFiles(None, 250, 1)).startswith("leads unknown: a.npy")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((11, 300), "wrong shape: a.npy is (11, 300), expected (12, time) or (time, 12)"),
        ((300,), "wrong shape"),
        ((1, 12, 300), "wrong shape"),
        ((12, 12), "axes ambiguous"),
        ((12, 0), "no signal"),
        ((12, 3600 * 250 + 1), "too long"),
    ],
)
def test_an_array_of_another_shape_is_rejected(tmp_path, shape, kind):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.int8))
    assert reason(tmp_path, "a.npy").startswith(kind)


def test_a_pickled_array_is_never_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    np.save(tmp_path / "a.npy", np.array([[Evil()] * 300] * 12, dtype=object), allow_pickle=True)
    assert reason(tmp_path, "a.npy").startswith("signal unreadable: a.npy")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("dtype", ["complex64", "bool", "U3", "datetime64[s]"])
def test_an_array_of_other_than_numbers_is_rejected(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((12, 300)).astype(dtype))
    assert reason(tmp_path, "a.npy") == "signal unreadable: a.npy is no array of whole or floating-point numbers."


@pytest.mark.parametrize("size", [0, 5, 100, 1000])
def test_a_truncated_npy_is_rejected(tmp_path, microvolts, size):
    np.save(tmp_path / "a.npy", microvolts)
    os.truncate(tmp_path / "a.npy", size)
    assert reason(tmp_path, "a.npy").startswith("signal unreadable: a.npy is no whole .npy file")


def test_an_archive_of_arrays_is_no_array(tmp_path, microvolts):
    np.savez(tmp_path / "a.npz", microvolts)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert reason(tmp_path, "a.npy").startswith("signal unreadable: a.npy")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "leads unknown"),
        ("I,II\n", "no signal"),
        ("I,II\n1,noise\n", "signal unreadable: c.csv holds other than numbers"),
        ("I,II\n1,2\n2,True\n", "signal unreadable: c.csv holds other than numbers"),
        ("I,II\n1,2\n3\n", "rows differ in length: c.csv has rows of 1, 2 cells"),
        ("I,II\n1,2\n3,4,5\n", "rows differ in length"),
        ("I,II\n1,2,9\n3,4,9\n", "rows differ in length"),
        ("I,I\n1,2\n", "lead there twice: c.csv names I in rows 1 (I) and 2 (I)"),
        ("a,b\n1,2\n", "no standard lead: c.csv has a, b"),
        ("I;II\n1;2\n", "no standard lead"),
        ("\x00\x01", "no standard lead"),
    ],
)
def test_a_csv_that_is_no_signal_is_rejected(tmp_path, text, kind):
    (tmp_path / "c.csv").write_text(text)
    assert reason(tmp_path, "c.csv", PlainFiles(None, 250, 1)).startswith(kind)


def test_a_csv_that_is_no_text_is_rejected(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"I,II\n\xff\xfe,2\n")
    assert reason(tmp_path, "c.csv").startswith("signal unreadable: c.csv is no comma-separated text")


def test_a_csv_larger_than_memory_is_not_read(tmp_path):
    with (tmp_path / "c.csv").open("wb") as file:
        file.truncate(1 << 40)
    assert reason(tmp_path, "c.csv").startswith("file too large: c.csv")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd.csv",
        "../a.npy",
        "folder/../../a.npy",
        "C:/a.npy",
        "folder\\a.npy",
        "a\0.npy",
        "s3://bucket/a.npy",
    ],
)
def test_a_path_that_climbs_out_of_the_folder_is_not_allowed(tmp_path, name):
    assert reason(tmp_path, name).startswith("path not allowed: ")


@pytest.mark.parametrize("name", ["a.npy", "a.csv", "a"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path, microvolts, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    np.save(tmp_path / "a.npy", microvolts)
    write_csv(tmp_path / "a.csv", microvolts)
    write_wfdb(tmp_path, "a", microvolts)
    for file in ("a.npy", "a.csv", "a.hea", "a.dat"):
        (inner / file).symlink_to(tmp_path / file)
    assert reason(inner, name).startswith("path not allowed: ")


def test_a_link_within_the_folder_is_followed(tmp_path, microvolts):
    np.save(tmp_path / "a.npy", microvolts)
    (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
    assert inside(tmp_path, "b.npy") == tmp_path / "b.npy"
    assert read_signal_file(tmp_path, "b.npy", FILES).leads == LEADS


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x", "x.hea", "x.edf", "folder"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    assert reason(tmp_path, name).startswith("file missing: ")


def test_a_truncated_wfdb_signal_is_rejected(tmp_path, microvolts):
    write_wfdb(tmp_path, "d", microvolts)
    os.truncate(tmp_path / "d.dat", 1000)
    assert reason(tmp_path, "d").startswith("samples missing or left over")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_rates_and_units_are_positive_numbers(value):
    with pytest.raises(ConfigurationError, match=r"files\.sampling_rate"):
        PlainFiles(sampling_rate=value)
    with pytest.raises(ConfigurationError, match=r"files\.millivolts_per_unit"):
        PlainFiles(millivolts_per_unit=value)


@pytest.mark.parametrize("leads", [[], ["I", "II", "I"], ["a", "b"]])
def test_leads_are_there_once(leads):
    with pytest.raises(ConfigurationError, match=r"files\.leads"):
        PlainFiles(leads=leads)
