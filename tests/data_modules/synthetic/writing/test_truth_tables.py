"""What is true of a synthetic data set lies beside it, for all to read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.signals.masks import mask_array
from data_modules.synthetic.signals.recording import record
from data_modules.synthetic.writing.published import LABELS
from data_modules.synthetic.writing.synthesize import synthesize
from data_modules.synthetic.writing.truth_tables import FOLDER, read_masks, read_oracle, read_population, read_truth
from ecgfair.errors import SourceError

MANY = 120
WRONG_LABELS = Population(
    disparities=(
        Disparity("label_errors", 0.4, sex="female", labels=("IMI", "AMI")),
        Disparity("training_records", 0.5, age=(70, 120)),
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("truth") / "source"
    synthesize(str(place), MANY, population=WRONG_LABELS, jobs=1)
    return place


@pytest.fixture(scope="module")
def kept() -> list[int]:
    return [number for number in range(1, MANY + 1) if not truth(number, 0, WRONG_LABELS).left_out]


def test_every_record_that_is_kept_is_there_with_what_is_true_of_it(folder: Path, kept: list[int]):
    rows = read_truth(folder).to_pylist()
    assert [row["record_id"] for row in rows] == [str(number) for number in kept]
    for number, row in zip(kept, rows, strict=True):
        asked = truth(number, 0, WRONG_LABELS)
        made = record(asked)
        assert (row["patient_id"], row["fold"], row["age"], row["sex"]) == (
            str(asked.patient),
            asked.fold,
            asked.age,
            asked.sex,
        )
        assert (row["published_age"] is None, row["published_sex"] is None) == (
            not asked.age_known,
            not asked.sex_known,
        )
        assert (tuple(row["present"]), tuple(row["stated"])) == (asked.present, asked.stated)
        assert np.array_equal(row["beats"], made.beats)
        for name in ("heart_rate", "pr", "qrs", "qt", "qtc", "axis"):
            assert row[name] == getattr(made.asked, name)
        assert row["constitution/voltage"] == asked.constitution.voltage
        assert row["noise"] == asked.noise
        assert tuple(row["burst_noise"]) == made.problems.burst_noise
        assert {code: row[f"severity/{code}"] for code in CONDITIONS} == dict(asked.severity)
        assert {code: row[f"strength/{code}"] for code in CONDITIONS} == dict(asked.strength)


def test_the_best_scores_are_a_table_of_predictions(folder: Path, kept: list[int]):
    table = read_oracle(folder).to_pandas()
    pairs = [f"{kind}/{label}" for label in LABELS for kind in ("probability", "target")]
    expected = ["record_id", "patient_id", "fold", "age", "sex", *pairs, "model_fingerprint"]
    assert list(table.columns) == expected
    assert set(table["model_fingerprint"]) == {"oracle"}
    assert (table.dtypes[pairs] == np.float32).all()
    for number, row in zip(kept, table.to_dict("records"), strict=True):
        asked = truth(number, 0, WRONG_LABELS)
        assert row["record_id"] == str(number)
        assert np.isnan(row["age"]) == (not asked.age_known)
        assert np.isnan(row["sex"]) == (not asked.sex_known)
        assert {label for label in LABELS if row[f"target/{label}"] == 1} == set(asked.stated)
        assert all(row[f"target/{label}"] in (0, 1) for label in LABELS)
        for label in LABELS:
            assert row[f"probability/{label}"] == pytest.approx(asked.oracle[label], abs=1e-7)


def test_targets_are_what_is_stated_where_labels_are_wrong(folder: Path):
    rows = read_truth(folder).to_pylist()
    wrong = [row for row in rows if {"IMI", "AMI"} & (set(row["present"]) ^ set(row["stated"]))]
    assert wrong
    oracle = read_oracle(folder).to_pandas().set_index("record_id")
    for row in wrong:
        for label in ("IMI", "AMI"):
            assert oracle.loc[row["record_id"], f"target/{label}"] == (label in row["stated"])


def test_masks_are_read_back_as_they_were_drawn(folder: Path, kept: list[int]):
    masks = read_masks(folder)
    assert list(masks) == [str(number) for number in kept]
    assert any(masks.values())
    assert not all(masks.values()), "a record without a sign is there too"
    for number in kept:
        made = record(truth(number, 0, WRONG_LABELS))
        assert masks[str(number)] == made.masks
        for code in {mask.code for mask in made.masks}:
            read = mask_array(masks[str(number)], code, 1000, 100)
            assert np.array_equal(read, mask_array(made.masks, code, 1000, 100))
            assert read.any()


def test_masks_of_some_records_are_read_alone(folder: Path, kept: list[int]):
    wanted = [str(kept[5]), str(kept[2])]
    masks = read_masks(folder, wanted)
    assert list(masks) == sorted(wanted, key=int)
    assert masks == {record_id: read_masks(folder)[record_id] for record_id in masks}


def test_a_record_that_is_not_there_is_told(folder: Path):
    with pytest.raises(SourceError, match=r"truth has no record '999'"):
        read_masks(folder, ["1", "999"])


@pytest.mark.parametrize("read", [read_truth, read_oracle, read_masks, read_population])
def test_a_folder_without_truth_is_told(tmp_path: Path, read):
    with pytest.raises(SourceError, match=r"can't be read .*ecgfair synthesize"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [("records.parquet", read_truth), ("masks.parquet", read_masks), ("population.json", read_population)],
)
def test_a_damaged_file_is_told(folder: Path, tmp_path: Path, name: str, read):
    (tmp_path / FOLDER).mkdir()
    for path in (folder / FOLDER).iterdir():
        (tmp_path / FOLDER / path.name).write_bytes(path.read_bytes()[:20] if path.name == name else path.read_bytes())
    with pytest.raises(SourceError, match=f"{name} can't be read"):
        read(tmp_path)


def test_the_population_is_told_so_that_it_can_be_made_again(folder: Path, kept: list[int]):
    told = read_population(folder)
    assert (told["records"], told["seed"], told["sampling_rate"]) == (MANY, 0, 100)
    assert told["left_out"] == MANY - len(kept) > 0
    assert set(told["versions"]) == {"ecgfair", "numpy", "scipy"}
    disparities = tuple(
        Disparity(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items()})
        for one in told["population"]["disparities"]
    )
    again = Population(**(told["population"] | {"disparities": disparities}))
    assert [truth(number, 0, again) for number in (1, 50)] == [truth(number, 0, WRONG_LABELS) for number in (1, 50)]
    json.dumps(told)


def test_pandas_reads_each_table(folder: Path):
    for name in ("records", "oracle", "masks"):
        assert len(pd.read_parquet(folder / FOLDER / f"{name}.parquet"))
