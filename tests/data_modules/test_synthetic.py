"""Synthetic ECGs: lawful, reproducible, and as ill as they were asked to be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_modules import synthetic
from data_modules.readers.ptbxl import DATABASE, PtbXlReader
from data_modules.records import Record
from data_modules.synthetic import FOLDS, stratified_folds, synthesize
from data_modules.synthetic_ecg import Truth, to_signal, truth
from ecgfair.ecg import AGE_OVER_89, LEADS
from ecgfair.errors import ConfigurationError, StoreError


@pytest.fixture(scope="module")
def many() -> list[Truth]:
    return [truth(number) for number in range(1, 4001)]


def median_beat(record: Truth, signal: np.ndarray) -> np.ndarray:
    """(12, 75) millivolts from 300 ms before R to 450 ms after."""
    starts = np.rint(record.beats * 100).astype(int) - 30
    inside = starts[(starts >= 0) & (starts <= 925)]
    return np.median([signal[:, start : start + 75] for start in inside], axis=0) / 1000


def test_leads_obey_einthoven_and_goldberger():
    for number in range(1, 30):
        one, two, three, avr, avl, avf = to_signal(truth(number))[:6].astype(int)
        assert np.array_equal(three, two - one)
        for lead, law in ((avr, -(one + two) / 2), (avl, one - two / 2), (avf, two - one / 2)):
            assert np.abs(lead - law).max() <= 0.5  # microvolts, the rounding of a half


def test_a_record_does_not_depend_on_how_many_are_made(whole_source: Path, tmp_path: Path):
    synthesize(str(tmp_path / "fewer"), 7)
    files = sorted(path.relative_to(tmp_path / "fewer") for path in (tmp_path / "fewer").rglob("*_lr.*"))
    assert len(files) == 14
    for name in files:
        assert (tmp_path / "fewer" / name).read_bytes() == (whole_source / name).read_bytes()


def test_the_same_seed_makes_the_same_files_and_another_seed_others(whole_source: Path, tmp_path: Path):
    synthesize(str(tmp_path / "again"), 20)
    synthesize(str(tmp_path / "other"), 20, seed=1)
    tables = [(folder / DATABASE).read_bytes() for folder in (whole_source, tmp_path / "again", tmp_path / "other")]
    assert tables[0] == tables[1] != tables[2]
    assert not np.array_equal(to_signal(truth(1, 0), 0), to_signal(truth(1, 1), 1))


def test_wfdb_reads_what_was_made(whole_source: Path):
    record = wfdb.rdrecord(str(whole_source / "records100/00000/00003_lr"), physical=False)
    assert [name.upper() for name in LEADS] == record.sig_name
    assert (record.fs, record.sig_len, set(record.adc_gain), set(record.units)) == (100, 1000, {1000.0}, {"mV"})
    assert np.array_equal(record.d_signal.T, to_signal(truth(3)))


def test_the_reader_reads_the_diseases_and_people_asked_for(tmp_path: Path):
    synthesize(str(tmp_path / "source"), 120)
    oldest = 0
    for number, record in enumerate(PtbXlReader(tmp_path / "source").read(range(120)), start=1):
        asked = truth(number)
        assert isinstance(record, Record)
        assert record.notes == ()
        assert tuple(record.codes) == asked.codes
        assert record.sex == asked.sex
        over = asked.age is not None and asked.age > 89
        assert record.age == (AGE_OVER_89 if over else asked.age)
        oldest += over
    assert oldest
    assert (pd.read_csv(tmp_path / "source" / DATABASE)["age"] == 300).sum() == oldest


def test_codes_are_head_medium_and_tail(many: list[Truth]):
    shares = {code: count / len(many) for code, count in Counter(code for one in many for code in one.codes).items()}
    assert {code for code, share in shares.items() if share >= 0.1} == {"NORM", "SR"}
    assert {code for code, share in shares.items() if share < 0.01} == {"LNGQT", "LVOLT"}
    assert len(shares) == 16
    assert any(len(one.codes) >= 3 for one in many)


def test_people_are_of_all_ages_and_a_few_are_unknown(many: list[Truth]):
    ages = [one.age for one in many if one.age is not None]
    assert (min(ages), max(ages)) == (18, 95)
    for known in ("age", "sex"):
        assert 0.002 < np.mean([getattr(one, known) is None for one in many]) < 0.03


def test_a_patient_has_one_to_three_records_and_stays_the_same(many: list[Truth]):
    records = Counter(one.patient for one in many)
    assert set(records.values()) == {1, 2, 3}
    assert len({(one.patient, one.age, one.sex) for one in many}) == len(records)


def test_intervals_and_rates_are_those_of_the_diseases(many: list[Truth]):
    def values(name: str, code: str) -> np.ndarray:
        return np.array([getattr(one, name) for one in many if code in one.codes])

    assert values("pr", "1AVB").min() > 200
    assert {one.pr for one in many if "AFIB" in one.codes} == {None}
    assert min(values("qrs", "CLBBB").min(), values("qrs", "CRBBB").min()) > 120 > values("qrs", "NORM").max()
    assert values("qtc", "LNGQT").min() > 470 > values("qtc", "NORM").max()
    assert values("heart_rate", "STACH").min() > 100 > values("heart_rate", "SR").max()
    assert values("heart_rate", "SBRAD").max() < 60


def test_beats_are_where_the_truth_says():
    for number in range(1, 30):
        record = truth(number)
        signal = to_signal(record).astype(float)
        steepness = np.abs(np.diff(signal, axis=1)).sum(axis=0)
        beats = np.rint(record.beats[(record.beats > 0.5) & (record.beats < 9.5)] * 100).astype(int)
        around = np.stack([steepness[beat - 8 : beat + 8].max() for beat in beats])
        between = np.median(steepness)
        assert (around > 4 * between).all()


def test_the_rhythm_is_regular_but_in_fibrillation(many: list[Truth]):
    def spread(code: str) -> list[float]:
        return [np.diff(one.beats).std() / np.diff(one.beats).mean() for one in many[:1000] if code in one.codes]

    assert min(spread("AFIB")) > max(spread("SR"))


def test_low_voltage_is_low_and_hypertrophy_high(many: list[Truth]):
    def height(code: str) -> list[float]:
        chosen = [one for one in many if code in one.codes and not {"CLBBB", "CRBBB"} & set(one.codes)][:20]
        return [np.ptp(median_beat(one, to_signal(one))[10]) for one in chosen]

    assert max(height("LVOLT")) < min(height("NORM")) < max(height("NORM")) < np.median(height("LVH"))


def test_diseases_can_be_learned_from_the_beat(many: list[Truth]):
    chosen = many[:900]
    beats = np.stack([median_beat(one, to_signal(one))[:, ::3].ravel() for one in chosen])
    for code in ("NORM", "IMI", "ASMI", "LVH", "NDT"):
        present = np.array([code in one.codes for one in chosen])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        scores = model.fit(beats[:600], present[:600]).predict_proba(beats[600:])[:, 1]
        assert roc_auc_score(present[600:], scores) > 0.9


def test_folds_keep_patients_together_and_spread_each_code(many: list[Truth]):
    chosen = many[:2000]
    folds = stratified_folds([one.patient for one in chosen], [one.codes for one in chosen])
    assert len({(one.patient, fold) for one, fold in zip(chosen, folds, strict=True)}) == len(
        {one.patient for one in chosen}
    )
    assert set(folds) == set(range(1, FOLDS + 1))
    for code, total in Counter(code for one in chosen for code in one.codes).items():
        counts = [
            sum(code in one.codes for one, of in zip(chosen, folds, strict=True) if of == fold)
            for fold in range(1, FOLDS + 1)
        ]
        assert max(counts) - min(counts) <= max(3, 0.5 * total / FOLDS), (code, counts)


def test_an_existing_folder_is_refused(whole_source: Path):
    before = (whole_source / DATABASE).read_bytes()
    with pytest.raises(StoreError, match="there already"):
        synthesize(str(whole_source), 3)
    assert (whole_source / DATABASE).read_bytes() == before


def test_a_number_of_records_below_one_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="records is 0"):
        synthesize(str(tmp_path / "source"), 0)


@pytest.mark.parametrize(("raised", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, StoreError)])
def test_nothing_half_made_stays_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], told: type[BaseException]
):
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(synthetic, "_write_tables", fail)
    with pytest.raises(told):
        synthesize(str(tmp_path / "source"), 3)
    assert list(tmp_path.iterdir()) == []
