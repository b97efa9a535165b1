"""PtbXlReader: what it reads, and what it says about each way a source can be wrong."""

from __future__ import annotations

import os
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.preparing.conditioning import to_int16
from data_modules.readers.ptbxl import DATABASE, STATEMENTS, PtbXlReader
from data_modules.records import Record, Rejected
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import to_signal
from ecgfair.ecg import AGE_OVER_89, FEMALE, LEADS, MALE
from ecgfair.errors import ConfigurationError, SourceError

HEADER = Path("records100/00000/00001_lr.hea")
SIGNAL = HEADER.with_suffix(".dat")


def first(source: Path) -> Record | Rejected:
    (outcome,) = PtbXlReader(source).read([0])
    return outcome


def read(source: Path) -> Record:
    outcome = first(source)
    assert isinstance(outcome, Record), outcome
    return outcome


def set_cell(source: Path, column: str, value: object, row: int = 0) -> None:
    table = pd.read_csv(source / DATABASE, dtype=str, keep_default_na=False)
    table.loc[row, column] = str(value)
    table.to_csv(source / DATABASE, index=False)


def edit_header(source: Path, pattern: str, replacement: str, count: int = 0) -> None:
    text = (source / HEADER).read_text()
    changed = re.sub(pattern, replacement, text, count=count, flags=re.MULTILINE)
    assert changed != text
    (source / HEADER).write_text(changed)


def write_signal(source: Path, signal: np.ndarray, names: tuple[str, ...], gain: str = "1000.0(0)/mV") -> None:
    """Write a consistent header and signal; ``signal`` is (time, leads) int16."""
    (source / SIGNAL).write_bytes(signal.astype("<i2").tobytes())
    sums = signal.sum(axis=0, dtype=np.int64) % 65536
    lines = [f"{HEADER.stem} {len(names)} 100 {len(signal)}"]
    lines += [f"{SIGNAL.name} 16 {gain} 16 0 0 {total} 0 {name}" for total, name in zip(sums, names, strict=True)]
    (source / HEADER).write_text("\n".join(lines) + "\n")


def stored_signal(source: Path) -> np.ndarray:
    return np.fromfile(source / SIGNAL, "<i2").reshape(-1, 12)


def test_a_record_is_read_as_it_was_made(source: Path):
    record, made = read(source), truth(1)
    assert np.array_equal(to_int16(record.signal, 0.001), to_signal(made))
    assert record.signal.dtype == np.float32
    assert record.leads == LEADS
    assert (record.sampling_rate, record.record_id, record.patient_id) == (100, "1", "1")
    assert tuple(record.codes) == made.stated
    assert (record.age, record.sex) == (made.age, made.sex)
    assert record.recorded_at == made.recorded_at
    assert record.fold in range(1, 11)
    assert record.notes == ()


def test_positions_are_read_in_the_order_asked_for(source: Path):
    assert [record.record_id for record in PtbXlReader(source).read([3, 0, 3])] == ["4", "1", "4"]


def test_a_missing_folder_is_named_with_a_way_to_get_ptbxl(tmp_path: Path):
    with pytest.raises(SourceError, match=r"nowhere.*physionet\.org/content/ptb-xl/1\.0\.3.*wget"):
        PtbXlReader(tmp_path / "nowhere")


@pytest.mark.parametrize("table", [DATABASE, STATEMENTS])
def test_a_missing_table_is_named_with_a_way_to_get_ptbxl(source: Path, table: str):
    (source / table).unlink()
    with pytest.raises(SourceError, match=rf"No {table} in .*source.*physionet"):
        PtbXlReader(source)


@pytest.mark.parametrize(("table", "column"), [(DATABASE, "scp_codes"), (STATEMENTS, "diagnostic_class")])
def test_a_missing_column_is_named(source: Path, table: str, column: str):
    pd.read_csv(source / table).drop(columns=column).to_csv(source / table, index=False)
    with pytest.raises(SourceError, match=rf"{table} lacks {column}"):
        PtbXlReader(source)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3,4,5,6\n'])
def test_a_table_that_is_none_is_named(source: Path, content: bytes):
    (source / DATABASE).write_bytes(content)
    with pytest.raises(SourceError, match=DATABASE):
        PtbXlReader(source)


def test_a_sampling_rate_ptbxl_does_not_have_is_refused(source: Path):
    with pytest.raises(ConfigurationError, match=r"250 Hz.*100 and at 500"):
        PtbXlReader(source, 250)


def cut_the_signal(source: Path) -> None:
    os.truncate(source / SIGNAL, 800 * 24)


def lengthen_the_signal(source: Path) -> None:
    (source / SIGNAL).write_bytes((source / SIGNAL).read_bytes() + bytes(24))


def flip_a_bit(source: Path) -> None:
    content = bytearray((source / SIGNAL).read_bytes())
    content[5000] ^= 1
    (source / SIGNAL).write_bytes(content)


def shorten_both(source: Path) -> None:
    write_signal(source, stored_signal(source)[:900], LEADS)


def drop_a_lead(source: Path) -> None:
    write_signal(source, stored_signal(source)[:, :11], LEADS[:11])


def name_a_lead_twice(source: Path) -> None:
    write_signal(source, stored_signal(source), (*LEADS[:11], "v1"))


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda source: (source / HEADER).unlink(), r"file missing: .*00001_lr\.hea"),
    (lambda source: (source / SIGNAL).unlink(), r"file missing: .*00001_lr\.dat, named in .*00001_lr\.hea"),
    (cut_the_signal, r"samples missing or left over: .*00001_lr\.dat holds 800 samples .* says 1000"),
    (lengthen_the_signal, r"samples missing or left over: .*00001_lr\.dat holds 1001 samples .* says 1000"),
    (lambda source: edit_header(source, "100 1000$", "100 900000000000"), r"holds 1000 samples .* says 900000000000"),
    (shorten_both, "length: .* has 900 samples, expected 1000"),
    (lambda source: edit_header(source, "12 100 1000$", "12 500 1000"), "sampling rate: .* has 500 Hz, expected 100"),
    (drop_a_lead, r"lead missing: .*00001_lr\.hea lacks V6; it has I, II"),
    (name_a_lead_twice, r"lead there twice: .* names V1 in rows 7 \(V1\) and 12 \(v1\)"),
    (lambda source: edit_header(source, "^00001_lr.dat.* V6\n", ""), "announces 12 leads and describes 11"),
    (lambda source: edit_header(source, "_lr 12 100", "_lr 11 100"), "00001_lr"),
    (
        lambda source: edit_header(source, r"1000\.0\(0\)/mV", "0(0)/mV", count=1),
        "gain unusable: .* lead 1 the gain '0'",
    ),
    (lambda source: edit_header(source, r"1000\.0\(0\)/mV", "nan/mV"), "gain unusable: .* lead 1 the gain 'nan'"),
    (lambda source: edit_header(source, r" 16 1000\.0.* 0 V6", " 16"), "gain unusable: .* lead 12 the gain ''"),
    (lambda source: edit_header(source, "/mV", "/mmHg"), "unit unknown: .*'mmHg'"),
    (flip_a_bit, "signal damaged: lead .* sums up to .* checksum"),
    (lambda source: (source / HEADER).write_text("this is\nnot a header at all\n"), r"00001_lr\.hea"),
    (lambda source: (source / HEADER).write_text(""), "header unreadable"),
    (lambda source: (source / HEADER).write_bytes(b"\xff\xfe\xff"), r"header unreadable: .*00001_lr\.hea is not text"),
    (lambda source: edit_header(source, "^00001_lr.dat", "../../secret.dat"), "not allowed: .*secret.*file beside it"),
    (lambda source: set_cell(source, "filename_lr", "../elsewhere/00001_lr"), "not allowed: '../elsewhere/00001_lr'"),
    (lambda source: set_cell(source, "filename_lr", "/etc/passwd"), "not allowed: '/etc/passwd'"),
    (lambda source: set_cell(source, "filename_lr", ""), "not allowed: ''"),
    (lambda source: set_cell(source, "scp_codes", "{'NORM': "), "scp_codes unreadable: found .*expected a dict"),
    (lambda source: set_cell(source, "scp_codes", "['NORM']"), "scp_codes unreadable: found .*expected a dict"),
    (lambda source: set_cell(source, "scp_codes", "{'NORM': 'much'}"), "'NORM' with likelihood 'much'"),
    (lambda source: set_cell(source, "patient_id", ""), "patient missing: ecg_id 1"),
]


@pytest.mark.parametrize(("breaking", "reason"), BROKEN)
def test_a_broken_record_is_rejected_with_the_reason(source: Path, breaking: Callable[[Path], object], reason: str):
    breaking(source)
    outcome = first(source)
    assert isinstance(outcome, Rejected)
    assert outcome.record_id == "1"
    assert re.search(reason, outcome.reason), outcome.reason
    assert str(source) not in outcome.reason  # or the same source elsewhere would make another store


def test_a_row_without_an_id_is_rejected_by_its_number(source: Path):
    set_cell(source, "ecg_id", "")
    outcome = first(source)
    assert isinstance(outcome, Rejected)
    assert (outcome.record_id, outcome.reason.split(":")[0]) == ("row 1", "identity missing")


def test_of_two_records_with_one_id_the_later_is_rejected(source: Path):
    set_cell(source, "ecg_id", 1, row=2)
    earlier, later = PtbXlReader(source).read([0, 2])
    assert isinstance(earlier, Record)
    assert isinstance(later, Rejected)
    assert "rows 1 and 3" in later.reason


def test_any_damage_to_a_header_gives_a_record_or_a_reason(source: Path):
    intact = (source / HEADER).read_text()
    reader, chance = PtbXlReader(source), random.Random(0)  # noqa: S311
    for _ in range(150):
        damaged = list(intact)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(200)] = chance.choice("0123456789 \n-+.:/()xeNa_#é")
        (source / HEADER).write_text("".join(damaged))
        (outcome,) = reader.read([0])
        assert isinstance(outcome, Record | Rejected)


@pytest.mark.parametrize("alias", [str.upper, str.lower])
def test_leads_are_found_by_name_whatever_their_order_and_case(source: Path, alias: Callable[[str], str]):
    expected = read(source).signal
    order = np.random.default_rng(0).permutation(12)
    write_signal(source, stored_signal(source)[:, order], tuple(alias(LEADS[row]) for row in order))
    assert np.array_equal(read(source).signal, expected)


def test_leads_besides_the_twelve_are_left_out(source: Path):
    expected, samples = read(source).signal, stored_signal(source)
    write_signal(source, np.concatenate([samples[:, :1] * 0, samples], axis=1), ("vx", *LEADS))
    assert np.array_equal(read(source).signal, expected)


@pytest.mark.parametrize("gain", ["1.0(0)/uV", "1000000(0)/V", "500(0)/mV"])
def test_gain_and_unit_are_honoured(source: Path, gain: str):
    expected = read(source).signal * (2 if gain.startswith("500") else 1)
    write_signal(source, stored_signal(source), LEADS, gain)
    assert np.allclose(read(source).signal, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "age", "noted"),
    [
        ("300.0", AGE_OVER_89, False),
        ("300", AGE_OVER_89, False),
        ("89.0", 89.0, False),
        ("0", 0.0, False),
        ("nan", None, False),
        ("", None, False),
        ("-1", None, True),
        ("131", None, True),
        ("299", None, True),
        ("old", None, True),
    ],
)
def test_an_age_is_read_or_missing_and_noted_if_implausible(source: Path, cell: str, age: float | None, noted: bool):
    set_cell(source, "age", cell)
    record = read(source)
    assert record.age == age
    assert [note.split(":")[0] for note in record.notes] == ["age implausible"] * noted


@pytest.mark.parametrize(
    ("cell", "sex", "noted"),
    [("0", MALE, False), ("1.0", FEMALE, False), ("", None, False), ("2", None, True), ("female", None, True)],
)
def test_a_sex_is_read_or_missing_and_noted_if_unknown(source: Path, cell: str, sex: int | None, noted: bool):
    set_cell(source, "sex", cell)
    record = read(source)
    assert record.sex == sex
    assert [note.split(":")[0] for note in record.notes] == ["sex unknown"] * noted


@pytest.mark.parametrize(
    ("column", "cell", "kind"),
    [
        ("strat_fold", "0", "fold unusable"),
        ("strat_fold", "x", "fold unusable"),
        ("recording_date", "?", "date unreadable"),
    ],
)
def test_what_can_not_be_true_of_a_record_is_noted(source: Path, column: str, cell: str, kind: str):
    set_cell(source, column, cell)
    record = read(source)
    assert (record.fold if column == "strat_fold" else record.recorded_at) is None
    assert [note.split(":")[0] for note in record.notes] == [kind]


def test_an_unknown_code_stays_with_the_record_and_is_noted(source: Path):
    set_cell(source, "scp_codes", "{'NORM': 80.0, 'XYZ': 0}")
    reader = PtbXlReader(source)
    (record,) = reader.read([0])
    assert isinstance(record, Record)
    assert record.codes == {"NORM": 80.0, "XYZ": 0.0}
    assert record.notes == (f"unknown code: XYZ is not in {STATEMENTS}, it is in no label set.",)
    assert all("XYZ" not in labels for labels in reader.label_sets.values())


def test_label_sets_keep_the_order_of_the_table_and_of_the_literature(source: Path):
    statements = pd.read_csv(source / STATEMENTS, dtype=str, keep_default_na=False, index_col=0)
    statements.loc["LNGQT", "form"] = "1.0"  # the official table has statements of two kinds as well
    statements.to_csv(source / STATEMENTS)
    sets = PtbXlReader(source).label_sets
    assert list(sets) == ["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm"]
    assert list(sets["all"]) == list(statements.index)
    assert list(sets["all"])[:4] == ["NORM", "SR", "PACE", "AFIB"]
    assert list(sets["superdiagnostic"]) == ["NORM", "MI", "STTC", "CD", "HYP"]
    assert list(sets["superdiagnostic"]["MI"]) == ["AMI", "IMI", "LMI"]
    assert list(sets["subdiagnostic"]) == sorted(sets["subdiagnostic"])
    assert list(sets["rhythm"]) == ["SR", "PACE", "AFIB", "AFLT", "STACH", "SBRAD"]
    assert list(sets["form"]["LNGQT"]) == list(sets["diagnostic"]["LNGQT"]) == ["LNGQT"]


def test_a_pickled_reader_is_small_and_sees_a_table_changed_since(source: Path):
    assert len(pickle.dumps(PtbXlReader(source))) < 1000
    copy = pickle.loads(pickle.dumps(PtbXlReader(source)))  # noqa: S301
    (record,) = copy.read([5])
    assert record.record_id == "6"
    set_cell(source, "ecg_id", 777, row=5)
    (record,) = pickle.loads(pickle.dumps(PtbXlReader(source))).read([5])  # noqa: S301
    assert record.record_id == "777"


@pytest.mark.data
def test_the_official_label_sets_have_their_official_sizes(ptbxl_source: Path):
    sets = PtbXlReader(ptbxl_source).label_sets
    sizes = {name: len(labels) for name, labels in sets.items()}
    expected = {"all": 71, "diagnostic": 44, "subdiagnostic": 23, "superdiagnostic": 5, "form": 19, "rhythm": 12}
    assert sizes == expected
    assert sum(len(codes) for codes in sets["superdiagnostic"].values()) == 44


@pytest.mark.data
@pytest.mark.parametrize("sampling_rate", [100, 500])
def test_real_samples_are_the_bytes_of_their_files(ptbxl_source: Path, sampling_rate: int):
    table = pd.read_csv(ptbxl_source / DATABASE)
    names = table["filename_lr" if sampling_rate == 100 else "filename_hr"]
    present = [row for row in range(0, len(table), 7) if (ptbxl_source / f"{names[row]}.dat").is_file()][:3]
    assert len(present) == 3
    for row, record in zip(present, PtbXlReader(ptbxl_source, sampling_rate).read(present), strict=True):
        assert isinstance(record, Record)
        raw = np.fromfile(ptbxl_source / f"{names[row]}.dat", "<i2").reshape(10 * sampling_rate, 12)
        assert np.array_equal(to_int16(record.signal, 0.001), raw.T)
