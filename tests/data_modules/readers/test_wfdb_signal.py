"""One WFDB record: the samples that wfdb reads, and a reason wherever header and signal do not make a voltage."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from data_modules.readers.wfdb_header import MAX_HEADER_BYTES
from data_modules.readers.wfdb_signal import MAX_SECONDS, RecordedSignal, read_signal
from ecgfair.ecg import LEADS
from tests.data_modules.made_wfdb import COMPRESSED, FORMATS, as_wfdb, edit, made, reason, write


@pytest.mark.parametrize(("stored", "bits"), (FORMATS | COMPRESSED).items())
def test_samples_of_every_format_are_those_that_wfdb_reads(tmp_path: Path, stored: str, bits: int):
    leads = 8 if stored in COMPRESSED else 12  # FLAC has eight channels at most
    steps = made(bits=bits, leads=leads)
    write(tmp_path, steps, LEADS[:leads], stored)
    recorded = read_signal(tmp_path, "r1")
    assert recorded.signal.dtype == np.float32
    assert np.array_equal(recorded.signal, as_wfdb(tmp_path))
    assert np.array_equal(recorded.signal, ((steps - 3) / 1000).T.astype(np.float32))
    assert (recorded.leads, recorded.sampling_rate) == (LEADS[:leads], 500)


@pytest.mark.parametrize(("stored", "bits"), FORMATS.items())
def test_no_sample_is_not_a_number(tmp_path: Path, stored: str, bits: int):
    steps = made(bits=bits)
    steps[5:9, 2] = -(2 ** (bits - 1))
    write(tmp_path, steps, stored=stored)
    recorded = read_signal(tmp_path, "r1")
    assert np.array_equal(recorded.signal, as_wfdb(tmp_path), equal_nan=True)
    assert np.argwhere(np.isnan(recorded.signal)).tolist() == [[2, sample] for sample in range(5, 9)]


def test_leads_are_found_by_name_and_other_signals_are_named(tmp_path: Path):
    write(tmp_path, made(leads=4), ("vx", "V1", "MLII", "-aVR"))
    recorded = read_signal(tmp_path, "r1")
    assert recorded.leads == ("II", "V1")
    assert recorded.other_leads == ("vx", "-aVR")
    assert np.array_equal(recorded.signal, as_wfdb(tmp_path)[[2, 1]])


def test_a_signal_that_is_no_lead_needs_no_volts(tmp_path: Path):
    write(tmp_path, made(leads=2), ("II", "RESP"))
    edit(tmp_path, r"1000\.0\(3\)/mV(.*RESP)", r"0/pm\1")
    recorded = read_signal(tmp_path, "r1")
    assert (recorded.leads, recorded.other_leads) == (("II",), ("RESP",))


@pytest.mark.parametrize(("unit", "millivolts"), [("uV", 1e-3), ("V", 1e3), ("mv", 1.0), ("µV", 1e-3), ("nV", 1e-6)])
def test_units_are_honoured(tmp_path: Path, unit: str, millivolts: float):
    write(tmp_path, made())
    plain = read_signal(tmp_path, "r1").signal
    edit(tmp_path, "/mV", f"/{unit}")
    np.testing.assert_allclose(read_signal(tmp_path, "r1").signal, plain * millivolts, rtol=1e-6)


def test_a_header_without_units_is_in_millivolts_as_wfdb_has_it(tmp_path: Path):
    write(tmp_path, made())
    plain = read_signal(tmp_path, "r1").signal
    edit(tmp_path, "/mV", "")
    assert np.array_equal(read_signal(tmp_path, "r1").signal, plain)


def test_without_a_baseline_zero_volts_are_at_the_middle_of_the_converter(tmp_path: Path):
    write(tmp_path, made())
    edit(tmp_path, r"1000\.0\(3\)/mV 16 0", "1000/mV 16 7")
    assert np.array_equal(read_signal(tmp_path, "r1").signal, as_wfdb(tmp_path))
    assert np.array_equal(read_signal(tmp_path, "r1").signal, ((made() - 7) / 1000).T.astype(np.float32))


def test_bytes_before_the_samples_are_skipped(tmp_path: Path):
    write(tmp_path, made())
    plain = read_signal(tmp_path, "r1").signal
    (tmp_path / "r1.mat").write_bytes(bytes(24) + (tmp_path / "r1.dat").read_bytes())
    edit(tmp_path, r"^r1\.dat 16 ", "r1.mat 16+24 ")
    assert np.array_equal(read_signal(tmp_path, "r1").signal, plain)


def described(steps: np.ndarray, name: str, file: str) -> str:
    return f"{file} 1000(0)/mV 16 0 {steps[0]} {steps.sum() % 65536} 0 {name}\n"


def test_a_record_in_several_files_is_read_from_all(tmp_path: Path):
    steps = made(leads=3)
    files = ("r1.dat 16", "r1.dat 16", "r1.xyz 61")
    lines = [described(steps[:, row], ("II", "vx", "V5")[row], file) for row, file in enumerate(files)]
    (tmp_path / "r1.hea").write_text("r1 3 500 40\n" + "".join(lines))
    (tmp_path / "r1.dat").write_bytes(steps[:, :2].astype("<i2").tobytes())
    (tmp_path / "r1.xyz").write_bytes(steps[:, 2].astype(">i2").tobytes())
    assert np.array_equal(read_signal(tmp_path, "r1").signal, as_wfdb(tmp_path)[[0, 2]])


def write_frames(folder: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Write 40 frames of three signals, of which the first two have four samples a frame; return the signals."""
    steps = [made(40 * count)[:, row] for row, count in enumerate((4, 4, 1))]
    files = ("r1.dat 16x4", "r1.dat 16x4", "r1.dat 16")
    lines = [described(signal, name, file) for signal, name, file in zip(steps, names, files, strict=True)]
    (folder / "r1.hea").write_text("r1 3 125 40\n" + "".join(lines))
    frames = np.concatenate([signal.reshape(40, -1) for signal in steps], axis=1)
    (folder / "r1.dat").write_bytes(frames.astype("<i2").tobytes())
    return steps


def test_leads_of_several_samples_a_frame_keep_them_all(tmp_path: Path):
    steps = write_frames(tmp_path, ("V5", "II", "RESP"))
    recorded = read_signal(tmp_path, "r1")
    assert (recorded.sampling_rate, recorded.leads) == (500, ("II", "V5"))
    assert np.array_equal(recorded.signal, (np.stack([steps[1], steps[0]]) / 1000).astype(np.float32))


def test_leads_of_different_rates_are_not_put_side_by_side(tmp_path: Path):
    write_frames(tmp_path, ("V5", "II", "V1"))
    assert re.match("leads not aligned: .*II 500, V1 125, V5 500", reason(tmp_path))


def test_a_record_of_one_sample_and_one_of_zeros_are_read(tmp_path: Path):
    write(tmp_path, made(samples=1))
    assert read_signal(tmp_path, "r1").signal.shape == (12, 1)
    write(tmp_path, np.full((1000, 12), 3))
    assert not read_signal(tmp_path, "r1").signal.any()


def test_a_renamed_record_is_read_if_its_checksums_prove_it(tmp_path: Path):
    write(tmp_path, made())
    plain = read_signal(tmp_path, "r1").signal
    for suffix in (".hea", ".dat"):
        (tmp_path / "r1").with_suffix(suffix).rename(tmp_path / f"renamed{suffix}")
    recorded = read_signal(tmp_path, "renamed")
    assert np.array_equal(recorded.signal, plain)
    assert [note.split(":")[0] for note in recorded.notes] == ["file renamed"]


def test_a_renamed_record_without_all_its_checksums_is_refused(tmp_path: Path):
    write(tmp_path, made(leads=2), LEADS[:2])
    edit(tmp_path, r" 16 0 \S+ \S+ 0 II$", "")  # without a name, for the checksum stands before it
    assert read_signal(tmp_path, "r1").other_leads == ("unnamed signal 2",)
    for suffix in (".hea", ".dat"):
        (tmp_path / "r1").with_suffix(suffix).rename(tmp_path / f"renamed{suffix}")
    assert reason(tmp_path, "renamed").startswith("file missing: r1.dat")


def test_another_record_of_the_same_name_is_not_taken_for_a_renamed_one(tmp_path: Path):
    write(tmp_path, made())
    (tmp_path / "r1.hea").rename(tmp_path / "renamed.hea")
    (tmp_path / "r1.dat").unlink()
    (tmp_path / "renamed.dat").write_bytes(made()[::-1].copy().astype("<i2").tobytes()[24:] + bytes(24))
    assert reason(tmp_path, "renamed").startswith("signal damaged")


def cut_the_signal(folder: Path) -> None:
    os.truncate(folder / "r1.dat", 30 * 24)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "r1.dat").read_bytes())
    content[500] ^= 1
    (folder / "r1.dat").write_bytes(content)


def make_a_day_of_it(folder: Path) -> None:
    edit(folder, "^r1 12 500 40", f"r1 12 500 {24 * 3600 * 500}")
    os.truncate(folder / "r1.dat", 24 * 3600 * 500 * 24)  # a sparse file


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "r1.hea").unlink(), r"file missing: r1\.hea can't be opened"),
    (lambda folder: (folder / "r1.dat").unlink(), r"file missing: r1\.dat, named in r1\.hea"),
    (cut_the_signal, r"samples missing or left over: r1\.dat holds 30 samples of 12 leads, r1\.hea says 40"),
    (lambda folder: os.truncate(folder / "r1.dat", 40 * 24 + 1), "samples missing or left over"),
    (flip_a_bit, "signal damaged: lead .* sums up to .* checksum"),
    (make_a_day_of_it, r"too long: r1\.hea has 24\.0 hours, expected at most 1; cut it"),
    (lambda folder: edit(folder, "500 40$", "500 1000000000000"), "holds 40 samples .* says 1000000000000"),
    (lambda folder: edit(folder, "500 40$", "500"), "does not say how many samples"),
    (lambda folder: edit(folder, "500 40$", "500 0"), "does not say how many samples"),
    (lambda folder: edit(folder, "500 40$", "500 -40"), "does not say how many samples"),
    (lambda folder: edit(folder, "500 40$", "500 4O"), "header unreadable: .* begins with 'r1 12 500 4O'"),
    (lambda folder: edit(folder, " 500 40$", ""), "header unreadable: .* begins with 'r1 12'; expected"),
    (lambda folder: edit(folder, "500 40$", "0 40"), "sampling rate: .* has 0 Hz, expected 1 to"),
    (lambda folder: edit(folder, "500 40$", "nan 40"), "header unreadable"),
    (lambda folder: edit(folder, "500 40$", "1e99 40"), "sampling rate: .* has 1e99 Hz"),
    (lambda folder: edit(folder, "^r1 12", "r1/3 12"), "multi-segment: .* joins segments"),
    (lambda folder: edit(folder, "^r1 12", "r1 0"), "header unreadable: .* describes no signal"),
    (
        lambda folder: edit(folder, "^r1 12", "r1 13"),
        "header contradicts itself: .* announces 13 leads and describes 12",
    ),
    (lambda folder: edit(folder, r"1000\.0\(3\)", "0(3)", 1), "gain unusable: .* lead 1 the gain '0'"),
    (lambda folder: edit(folder, r"1000\.0\(3\)", "nan(3)", 1), "gain unusable: .* lead 1 the gain 'nan'"),
    (lambda folder: edit(folder, r"1000\.0\(3\)", "-1000", 1), "gain unusable: .* lead 1 the gain '-1000'"),
    (lambda folder: edit(folder, r"1000\.0\(3\)", "1_000", 1), "gain unusable: .* lead 1 the gain '1_000'"),
    (lambda folder: edit(folder, r" 1000\.0\(3\).* V6", ""), "gain unusable: .* lead 12 the gain ''"),
    (lambda folder: edit(folder, r"1000\.0\(3\)", "1e-300"), "gain unusable: .* beyond any number"),
    (lambda folder: edit(folder, r"\(3\)", "(x)", 1), "header unreadable: .* describes signal 1"),
    (lambda folder: edit(folder, "/mV", "/mmHg"), "unit unknown: .*'mmHg'"),
    (lambda folder: edit(folder, " 16 1000", " 999 1000"), r"format unknown: .*r1\.dat the format 999"),
    (lambda folder: edit(folder, " 16 1000", " sixteen 1000"), "header unreadable: .* describes signal 1"),
    (lambda folder: edit(folder, " 16 1000", " 61 1000", 1), r"header contradicts itself: .* the formats 16\+0, 61\+0"),
    (lambda folder: edit(folder, " 16 1000", " 16:5 1000", 1), "leads not aligned: .* skewed"),
    (lambda folder: edit(folder, " 16 1000", " 516 1000"), r"signal unreadable: the signal of r1 can't be read"),
    (lambda folder: edit(folder, "V2$", "v1"), r"lead there twice: r1\.hea names V1 in rows 7 \(V1\) and 8 \(v1\)"),
    (lambda folder: edit(folder, r"(mV.* 0 )\S+$", r"\1RESP"), "no standard lead: .* has RESP, RESP"),
    (lambda folder: edit(folder, r"^r1\.dat", "../r1.dat"), r"file name not allowed: r1\.hea names '\.\./r1\.dat'"),
    (lambda folder: edit(folder, r"^r1\.dat", "/etc/passwd"), "file name not allowed"),
    (lambda folder: edit(folder, r"^r1\.dat", ".."), "file name not allowed"),
    (lambda folder: edit(folder, r"^r1\.dat", r"..\\\\r1.dat"), "file name not allowed"),
    (lambda folder: edit(folder, r"^r1\.dat", "x" * 5000), "file missing"),
    (lambda folder: (folder / "r1.hea").write_bytes(b""), "header unreadable: .* is empty"),
    (lambda folder: (folder / "r1.hea").write_bytes(b"# nothing but this\n\n"), "header unreadable: .* is empty"),
    (lambda folder: (folder / "r1.hea").write_bytes(bytes(range(256))), r"header unreadable: r1\.hea is not text"),
    (lambda folder: (folder / "r1.hea").write_bytes(b"#" * (MAX_HEADER_BYTES + 1)), "header unreadable: .* is larger"),
]


@pytest.mark.parametrize(("breaking", "expected"), BROKEN)
def test_a_broken_record_is_refused_with_the_reason(tmp_path: Path, breaking: Callable[[Path], object], expected: str):
    write(tmp_path, made())
    assert isinstance(read_signal(tmp_path, "r1"), RecordedSignal)
    breaking(tmp_path)
    assert re.match(expected if ":" in expected else f".*{expected}", reason(tmp_path)), reason(tmp_path)


@pytest.mark.parametrize("name", ["", "../r1", "/r1", "a/../../r1", "c:r1", "a\\r1", "r1\0"])
def test_a_record_name_that_climbs_out_of_the_folder_is_refused(tmp_path: Path, name: str):
    assert reason(tmp_path, name).startswith("file name not allowed")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "r1.hea")
    assert reason(tmp_path) == "file missing: r1.hea is no file."


def test_no_sample_of_a_recording_too_long_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, made())
    edit(tmp_path, "^r1 12 500 40", f"r1 12 500 {MAX_SECONDS * 500 + 1}")
    os.truncate(tmp_path / "r1.dat", (MAX_SECONDS * 500 + 1) * 24)

    def fail(*_: object, **__: object) -> None:
        pytest.fail("samples were read")

    monkeypatch.setattr(np, "fromfile", fail)
    assert reason(tmp_path).startswith("too long: ")


def test_a_packed_file_cut_short_is_refused(tmp_path: Path):
    write(tmp_path, made(bits=12), stored="212")
    os.truncate(tmp_path / "r1.dat", 700)
    assert reason(tmp_path).startswith("samples missing or left over")


@pytest.mark.data
@pytest.mark.parametrize("source", ["cinc2021", "code400", "cinc2011", "ptb", "mitbih"])
def test_real_records_are_what_wfdb_reads_of_them(real_data: Path, source: str):
    headers = sorted((real_data / source).rglob("*.hea"))
    compared = 0
    for header in headers[:: max(1, len(headers) // 100)]:
        recorded = read_signal(header.parent, header.stem)
        if "file renamed" in str(recorded.notes) or ".mat " in header.read_text().splitlines()[0]:
            continue  # wfdb does not read these
        expected = wfdb.rdrecord(str(header.with_suffix("")))
        rows = [expected.sig_name.index(name) for name in expected.sig_name if name not in recorded.other_leads]
        assert np.array_equal(recorded.signal, expected.p_signal.T[rows].astype(np.float32), equal_nan=True)
        assert recorded.sampling_rate == expected.fs
        compared += 1
    assert compared
