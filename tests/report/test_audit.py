"""The verb, driven as a user drives it from a shell."""

import json
import math

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ecgfair.__main__ import main
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.report.prediction_table import Metadata
from tests.report.made_predictions import LABELS, renamed, rows, written
from tests.report.test_prediction_table import write

QUICK = ("--resamples", "0", "--permutations", "0")
WITH_INTERVALS = ("--resamples", "100")
THEIRS = (
    *("--columns.record_id", "ecg_id", "--columns.patient_id", "pid", "--columns.fold", "strat_fold"),
    *("--columns.age", "years", "--columns.sex", "gender"),
    *("--columns.probability", "prob_{label}", "--columns.target", "y_{label}"),
)
SHARES = {"AFIB": 0.2, "LBBB": 0.05, "MI": 0.001}


def audit(path, *arguments):
    return main(["audit", str(path), *QUICK, *map(str, arguments)])


def refused(capsys, path, *arguments):
    assert audit(path, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def value(frame, **where):
    for name, wanted in {"aggregate": "value", "statistic": "auroc", **where}.items():
        frame = frame[frame[name] == wanted]
    assert len(frame) == 1
    return frame.iloc[0]


def to_json(path, values):
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def table(tmp_path):
    return written(rows(), tmp_path / "predictions.parquet")


def test_the_frame_has_the_numbers_of_scikit_learn_with_intervals_around_them(table, tmp_path, capsys):
    assert audit(table, "--groups", "sex,site,site_x_sex", *WITH_INTERVALS) == 0
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    made = rows()
    for sex, name in enumerate(("male", "female")):
        members = made[made["sex"] == sex]
        expected = roc_auc_score(members["target/MI"], members["probability/MI"])
        found = value(frame, attribute="sex", group=name, label="MI")
        assert found["value"] == pytest.approx(expected, abs=1e-9)
        assert found["low"] < found["value"] < found["high"]
        assert found["positives"] == members["target/MI"].sum()
    assert {"site", "site_x_sex"} < set(frame["attribute"])
    printed = capsys.readouterr().out
    for word in (
        "predictions.parquet",
        "300 records of 150 patients",
        "female",
        "north",
        "worst",
        str(tmp_path / "audit"),
    ):
        assert word in printed


def test_csv_and_foreign_columns_give_the_same_as_our_own_table(table, tmp_path):
    whole = (*WITH_INTERVALS, "--permutations", "100")
    assert audit(table, "--out", tmp_path / "ours", *whole) == 0
    foreign = written(renamed(rows()), tmp_path / "theirs.csv")
    assert audit(foreign, *THEIRS, "--out", tmp_path / "theirs", *whole) == 0
    for name in ("frame", "excluded", "tests"):
        ours, theirs = (pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("ours", "theirs"))
        pd.testing.assert_frame_equal(ours, theirs)


def test_all_that_is_undefined_is_in_one_file_with_its_reason(table, tmp_path):
    assert audit(table, "--groups", "age", "--age_edges", "[25, 50]", "--min_support", "20") == 0
    excluded = pd.read_parquet(tmp_path / "audit" / "excluded.parquet")
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    undefined = frame[(frame["aggregate"] == "value") & frame["value"].isna()]
    assert len(excluded) == len(undefined) > 0
    assert (excluded["reason"] != "").all()
    young = excluded[(excluded["group"] == "<25") & (excluded["label"] == "MI") & (excluded["statistic"] == "auroc")]
    assert "20" in young["reason"].item()


def test_the_tests_of_the_largest_gaps_name_their_p_values(table, tmp_path):
    assert audit(table, "--groups", "sex", "--permutations", "100") == 0
    tests = pd.read_parquet(tmp_path / "audit" / "tests.parquet")
    macro = tests[(tests["label"] == "macro") & (tests["statistic"] == "auroc")].iloc[0]
    assert (macro["lowest"], macro["highest"]) == ("female", "male")
    assert macro["p"] <= 0.05


def test_the_audit_says_of_itself_what_was_audited_and_how(table, tmp_path):
    assert audit(table, "--groups", "sex", "--reference.sex", "female", "--seed", "3") == 0
    about = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert about["records"] == 300
    assert about["patients"] == 150
    assert about["labels"] == list(LABELS)
    assert about["settings"]["seed"] == 3
    assert about["settings"]["reference"] == {"sex": "female"}
    assert any("TPR" in note for note in about["notes"])
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    assert value(frame, attribute="sex", group="male", label="macro", aggregate="gap")["reference"] == "female"


def test_two_models_are_compared_on_the_records_and_labels_that_both_have(table, tmp_path, capsys):
    other = rows()
    other["probability/AFIB"] = other["target/AFIB"] * 0.6 + 0.2  # without an error
    other = other.sample(frac=1, random_state=1).drop(columns=["probability/MI", "target/MI"])
    other = other[other["record_id"] != "r0"]
    assert audit(table, "--against", written(other, tmp_path / "other.csv"), "--groups", "sex", *WITH_INTERVALS) == 0
    found = value(
        pd.read_parquet(tmp_path / "audit" / "comparison.parquet"), attribute="overall", group="all", label="AFIB"
    )
    made = rows().iloc[1:]
    expected = roc_auc_score(made["target/AFIB"], made["probability/AFIB"])
    assert (found["first"], found["second"]) == pytest.approx((1.0, expected), abs=1e-9)
    assert found["value"] == pytest.approx(expected - 1.0, abs=1e-9)
    assert found["low"] < found["value"] < found["high"] < 0
    printed = capsys.readouterr().out
    assert "1 of 300 records" in printed
    assert "lacks them: the labels MI" in printed


def test_another_models_columns_are_mapped_by_flags_of_their_own(table, tmp_path):
    other = written(renamed(rows()), tmp_path / "other.csv")
    flags = [flag.replace("--columns", "--against_columns") for flag in THEIRS]
    assert audit(table, "--against", other, *flags, "--groups", "sex") == 0
    comparison = pd.read_parquet(tmp_path / "audit" / "comparison.parquet")
    same = comparison[comparison["aggregate"] == "value"]["value"].dropna()
    assert len(same)
    assert (same == 0).all()


def test_files_of_an_earlier_audit_do_not_stay_beside_those_of_this_one(table, tmp_path):
    assert audit(table, "--against", table, "--groups", "sex", "--permutations", "100") == 0
    assert {"comparison.parquet", "tests.parquet"} < {path.name for path in (tmp_path / "audit").iterdir()}
    assert audit(table, "--groups", "sex") == 0
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == [
        "age_profile.parquet",
        "age_profile.png",
        "audit.json",
        "excluded.parquet",
        "frame.parquet",
    ]
    assert pd.read_parquet(tmp_path / "audit" / "frame.parquet")["low"].isna().all()


def test_thresholds_chosen_on_validation_records_decide(table, tmp_path):
    validation = rows(seed=1, prefix="v")
    validation["patient_id"] = "v" + validation["patient_id"]
    path = written(validation, tmp_path / "validation.parquet")
    assert audit(table, "--groups", "sex", "--validation", path, "--rule", "sensitivity", "--level", "0.8") == 0
    reached = validation.loc[validation["target/MI"] == 1, "probability/MI"].sort_values(ascending=False).to_numpy()
    threshold = reached[math.ceil(0.8 * len(reached)) - 1]
    made = rows()
    expected = (made.loc[made["target/MI"] == 1, "probability/MI"] >= threshold).mean()
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    found = value(frame, attribute="overall", group="all", label="MI", statistic="tpr")
    assert found["value"] == pytest.approx(expected, abs=1e-9)
    about = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert about["operating_points"]["thresholds"][2] == pytest.approx(threshold)


def test_folds_tell_validation_and_test_of_one_table_apart(tmp_path, capsys):
    table = rows()
    table.loc[:99, "fold"] = 9
    path = written(table, tmp_path / "predictions.parquet")
    apart = ("--folds", "[10]", "--validation", path, "--validation_folds", "[9]", "--groups", "sex")
    assert audit(path, *apart) == 0
    about = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert about["records"] == 200
    assert about["operating_points"]["folds"] == [9]
    assert "among those audited, the first is r0" in refused(capsys, path, "--validation", path)


def test_thresholds_and_prevalences_come_from_files(table, tmp_path):
    thresholds = to_json(tmp_path / "t.json", {"MI": 0.5, "AFIB": 0.25, "LBBB": 0.75, "other": 0.1})
    shares = to_json(tmp_path / "p.json", SHARES)
    assert audit(table, "--groups", "sex", "--thresholds", thresholds, "--prevalence", shares) == 0
    frame, made = pd.read_parquet(tmp_path / "audit" / "frame.parquet"), rows()
    found = value(frame, attribute="overall", group="all", label="AFIB", statistic="fpr")
    assert found["value"] == pytest.approx((made.loc[made["target/AFIB"] == 0, "probability/AFIB"] >= 0.25).mean())
    tail = value(frame, attribute="overall", group="all", label="tail")
    assert tail["value"] == pytest.approx(roc_auc_score(made["target/MI"], made["probability/MI"]), abs=1e-9)


def test_a_table_of_ours_needs_no_other_file(tmp_path, capsys):
    points = OperatingPoints("youden", None, LABELS, (0.25, 0.5, 0.75), ("", "", ""), "fold 9", (9,))
    write(tmp_path / "a.parquet", metadata=Metadata(SHARES, points, "abc"))
    assert audit(tmp_path / "a.parquet", "--groups", "sex") == 0
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    assert value(frame, attribute="overall", group="all", label="MI", statistic="tpr")["value"] > 0
    assert not math.isnan(value(frame, attribute="overall", group="all", label="tail")["value"])
    assert "youden on fold 9" in capsys.readouterr().out


def test_thresholds_that_the_audited_records_chose_are_not_used(tmp_path, capsys):
    points = OperatingPoints("youden", None, LABELS, (0.25, 0.5, 0.75), ("", "", ""), "fold 10", (10,))
    write(tmp_path / "a.parquet", metadata=Metadata(SHARES, points, "abc"))
    assert audit(tmp_path / "a.parquet", "--groups", "sex") == 0
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    assert math.isnan(value(frame, attribute="overall", group="all", label="MI", statistic="tpr")["value"])
    assert "not used" in capsys.readouterr().out
    as_file = to_json(tmp_path / "t.json", points.to_dict())
    assert "test folds [10]" in refused(capsys, tmp_path / "a.parquet", "--thresholds", as_file)


@pytest.mark.parametrize("chosen_by", ["other data", "the same data"])
def test_thresholds_that_the_same_fold_of_other_data_chose_are_used(tmp_path, chosen_by):
    data = {"other data": ("home",), "the same data": ("elsewhere",)}[chosen_by]
    points = OperatingPoints("youden", None, LABELS, (0.25, 0.5, 0.75), ("", "", ""), "fold 10", (10,), data)
    write(tmp_path / "a.parquet", metadata=Metadata(SHARES, points, "abc", ("elsewhere",)))
    assert audit(tmp_path / "a.parquet", "--groups", "sex") == 0
    frame = pd.read_parquet(tmp_path / "audit" / "frame.parquet")
    found = value(frame, attribute="overall", group="all", label="MI", statistic="tpr")["value"]
    assert math.isnan(found) == (chosen_by == "the same data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--groups", "sex,devise"], "'devise' is no column of"),
        (["--groups", "sex_x_sit"], "Did you mean 'site'"),
        (["--groups", "sex,"], "expected attributes, each once"),
        (["--groups", "sex,sex"], "expected attributes, each once"),
        (["--groups", "patient_id"], "expected at most 100 groups"),
        (["--age_edges", "[65, 40]"], "expected rising ages"),
        (["--min_support", "0"], "min_support is 0"),
        (["--resamples", "5"], "resamples is 5"),
        (["--permutations", "5"], "permutations is 5"),
        (["--reference.sex", "femal"], "Did you mean 'female'"),
        (["--reference.gender", "female"], "no attribute"),
        (["--tail", "0.5"], "0 < tail <= head <= 1"),
        (["--folds", "[3]"], "no record of fold 3"),
        (["--rule", "sensitivity"], "expected a sensitivity above 0 and below 1"),
        (["--rule", "sensitivity", "--level", "0.9"], "given without --validation"),
        (["--validation_folds", "[9]"], "given without --validation"),
        (["--thresholds", "absent.json"], "can't be read"),
        (["--prevalence", "absent.json"], "can't be read"),
        (["--against", "absent.csv"], "does not exist"),
        (["--columns.age", "years"], "columns.age names 'years'"),
        (["--colums.age", "years"], "colums"),
    ],
)
def test_a_wrong_argument_is_one_line_and_nothing_is_written(table, tmp_path, capsys, arguments, message):
    assert message in refused(capsys, table, *arguments)
    assert not (tmp_path / "audit" / "frame.parquet").exists()


def test_a_table_that_is_not_there_is_one_line(tmp_path, capsys):
    assert "does not exist" in refused(capsys, tmp_path / "absent.parquet")
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "holds list"),
        ({"AFIB": 0.1, "LBBB": 0.1}, "nothing for the label MI"),
        ({**SHARES, "MI": 30}, "30 for the label MI: expected a share in [0, 1]"),
        ({**SHARES, "MI": "0.1"}, "'0.1' for the label MI"),
    ],
)
def test_prevalences_that_are_none_are_refused(table, tmp_path, capsys, values, message):
    assert message in refused(capsys, table, "--prevalence", to_json(tmp_path / "p.json", values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"AFIB": 0.1, "LBBB": 0.1}, "no threshold for MI"),
        ({**SHARES, "MI": 30}, "threshold of MI is 30"),
        ({**SHARES, "MI": "0.1"}, "threshold of MI is '0.1'"),
        ({"label_names": []}, "lack"),
    ],
)
def test_thresholds_that_are_none_are_refused(table, tmp_path, capsys, values, message):
    assert message in refused(capsys, table, "--thresholds", to_json(tmp_path / "t.json", values))


def without_ids(table):
    return table.drop(columns="record_id")


def of_other_records(table):
    return table.assign(record_id="x" + table["record_id"])


def of_other_labels(table):
    return table.rename(columns=lambda name: name.replace("/", "/x"))


def of_another_truth(table):
    table.loc[4, "target/MI"] = 1 - table.loc[4, "target/MI"]
    return table


def of_other_patients(table):
    return table.assign(patient_id="x" + table["patient_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_ids, "has no record ids"),
        (of_other_records, "none of the 300 records"),
        (of_other_labels, "none of the labels"),
        (of_another_truth, "contradict each other on 1 targets, the first is MI of record r4"),
        (of_other_patients, "Record r0 is of patient p0 in"),
    ],
)
def test_predictions_of_other_records_are_not_compared(table, tmp_path, capsys, change, message):
    other = written(change(rows()), tmp_path / "other.parquet")
    assert message in refused(capsys, table, "--against", other)


@pytest.mark.parametrize("same", ["record", "patient", "label"])
def test_thresholds_are_never_chosen_on_the_audited_records_or_patients(table, tmp_path, capsys, same):
    validation = rows(prefix="r" if same == "record" else "v")
    if same == "label":
        validation = validation.drop(columns="target/MI").drop(columns="probability/MI")
    if same != "patient":
        validation["patient_id"] = "v" + validation["patient_id"]
    message = {"record": "300 records of", "patient": "150 patients of", "label": "lacks the label MI"}[same]
    path = written(validation, tmp_path / "validation.parquet")
    assert message in refused(capsys, table, "--validation", path)


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(table, capsys):
    assert "which can't be made" in refused(capsys, table, "--out", table)


def test_ctrl_c_leaves_no_half_written_file(table, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", interrupt)
    assert audit(table, "--groups", "sex") == 130
    assert "interrupted" in capsys.readouterr().err
    assert list((tmp_path / "audit").iterdir()) == []


def test_the_order_of_the_rows_changes_neither_values_nor_intervals(table, tmp_path):
    shuffled = written(rows().sample(frac=1, random_state=0), tmp_path / "shuffled.parquet")
    assert audit(table, "--groups", "sex", *WITH_INTERVALS, "--out", tmp_path / "a") == 0
    assert audit(shuffled, "--groups", "sex", *WITH_INTERVALS, "--out", tmp_path / "b") == 0
    one, other = (pd.read_parquet(tmp_path / folder / "frame.parquet") for folder in "ab")
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-9)
