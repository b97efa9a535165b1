import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.synthetic.writing.truth_tables import LABELS as SYNTHETIC_LABELS
from data_modules.synthetic.writing.truth_tables import ORACLE
from ecgfair.ecg import FEMALE, MALE, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.report.prediction_columns import ColumnNames
from ecgfair.report.read_predictions import read_predictions
from tests.report.made_predictions import LABELS, renamed, rows, written

THEIRS = ColumnNames("ecg_id", "pid", "strat_fold", "years", "gender", "prob_{label}", "y_{label}")


def assert_same(one, other):
    assert one.record_ids == other.record_ids
    assert one.label_names == other.label_names
    assert one.patient_ids == other.patient_ids
    assert one.extra == other.extra
    for name in ("probabilities", "targets", "folds", "age", "sex"):
        assert torch.equal(getattr(one, name).nan_to_num(-1), getattr(other, name).nan_to_num(-1)), name


def test_parquet_and_csv_give_the_same_table(tmp_path):
    table = rows()
    of_parquet, of_csv = (
        read_predictions(written(table, tmp_path / name), attributes=["site"]) for name in ("a.parquet", "a.csv")
    )
    assert_same(of_parquet, of_csv)
    assert of_parquet.probabilities.dtype == torch.float64
    assert np.array_equal(of_parquet.probabilities.numpy(), table[[f"probability/{name}" for name in LABELS]])
    assert of_parquet.sex[:6].tolist() == [MALE, MALE, FEMALE, FEMALE, MALE, UNKNOWN_SEX]
    assert of_parquet.age.isnan().nonzero().flatten().tolist() == [3, 8]
    assert of_parquet.extra["site"][7] == ""


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_another_models_columns_are_mapped_and_its_sexes_and_truth_values_understood(tmp_path, suffix):
    ours = read_predictions(written(rows(), tmp_path / "ours.parquet"), attributes=["site"])
    theirs = read_predictions(written(renamed(rows()), tmp_path / f"theirs.{suffix}"), THEIRS, ["site"])
    assert_same(ours, theirs)


def test_a_pattern_that_is_the_labels_name_alone_finds_the_labels_of_the_other_pattern(tmp_path):
    table = rows().rename(columns={f"probability/{label}": label for label in LABELS})
    found = read_predictions(written(table, tmp_path / "a.csv"), ColumnNames(probability="{label}"))
    assert found.label_names == LABELS
    table = rows().rename(columns={f"target/{label}": label for label in LABELS})
    found = read_predictions(written(table, tmp_path / "b.csv"), ColumnNames(target="{label}"))
    assert found.label_names == LABELS


def test_another_spelling_of_sex_is_told_by_a_mapping(tmp_path):
    table = rows()
    table["sex"] = table["sex"] + 1
    path = written(table, tmp_path / "a.parquet")
    assert read_predictions(path, sexes={"1": "male", "2": "female"}).sex[:3].tolist() == [MALE, MALE, FEMALE]
    with pytest.raises(ConfigurationError, match="Did you mean 'female'"):
        read_predictions(path, sexes={"1": "male", "2": "femal"})


def test_the_oracle_of_a_synthetic_population_is_a_prediction_table(synthetic_source):
    found = read_predictions(synthetic_source / "truth" / ORACLE)
    assert found.label_names == tuple(SYNTHETIC_LABELS)
    assert len(found) == 200
    assert found.patient_ids is not None


def test_without_patients_each_record_is_one_of_its_own_and_the_table_says_so(tmp_path):
    found = read_predictions(written(rows().drop(columns="patient_id"), tmp_path / "a.csv"))
    assert found.patients is None
    assert any("patient of its own" in note for note in found.notes)


def test_a_record_without_a_patient_is_one_of_its_own_and_the_table_says_how_many(tmp_path):
    table = rows(10)
    table.loc[[0, 1], "patient_id"] = None
    found = read_predictions(written(table, tmp_path / "a.parquet"))
    assert found.patients.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert any("2 of 10 records have no patient id" in note for note in found.notes)


def test_without_record_ids_rows_are_numbered(tmp_path):
    found = read_predictions(written(rows(10).head(4).drop(columns="record_id"), tmp_path / "a.csv"))
    assert found.record_ids == ("1", "2", "3", "4")
    assert found.numbered


def test_a_target_without_probabilities_is_left_out_and_told(tmp_path):
    found = read_predictions(written(rows().drop(columns="probability/MI"), tmp_path / "a.csv"))
    assert found.label_names == ("AFIB", "LBBB")
    assert any("MI" in note for note in found.notes)


def test_a_field_is_left_out_by_null(tmp_path):
    found = read_predictions(written(rows(), tmp_path / "a.csv"), ColumnNames(age=None, patient_id=None))
    assert found.age is None
    assert found.patients is None


def test_codes_of_sex_that_others_may_use_the_other_way_round_are_told(tmp_path):
    found = read_predictions(written(rows(), tmp_path / "a.csv"))
    assert any("0 is taken as male" in note for note in found.notes)
    spelt = read_predictions(written(renamed(rows()), tmp_path / "b.csv"), THEIRS)
    assert not any("taken as male" in note for note in spelt.notes)


def test_ids_stay_as_they_are_written_but_for_the_decimals_of_a_column_with_gaps(tmp_path):
    table = rows(10).head(4)
    table["record_id"] = ["007", "7", "1e3", "8.50"]
    table["patient_id"] = [1.0, 2.0, np.nan, 1.0]
    of_csv = read_predictions(written(table, tmp_path / "a.csv"))
    of_parquet = read_predictions(written(table, tmp_path / "a.parquet"))
    assert of_csv.record_ids == of_parquet.record_ids == ("007", "7", "1e3", "8.50")
    assert of_csv.patient_ids == of_parquet.patient_ids == ("1", "2", "", "1")


def changed(column, value, row=4):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


def drop(*columns):
    return lambda table: table.drop(columns=list(columns))


def rename(old, new):
    return lambda table: table.rename(columns={old: new})


BAD = {
    "no label": (drop(*(f"probability/{name}" for name in LABELS)), r"no column 'probability/<label>'.*--columns"),
    "no target": (drop("target/LBBB"), r"'LBBB'.*no column 'target/LBBB'"),
    "above 1": (changed("probability/LBBB", 1.7), r"1 probabilities lie outside.*1\.7 for label LBBB of record r4"),
    "negative": (changed("probability/MI", -0.1), r"outside.*-0\.1 for label MI of record r4.*sigmoid"),
    "infinite": (changed("probability/MI", np.inf), r"outside.*inf for label MI of record r4"),
    "NaN": (changed("probability/AFIB", np.nan), r"1 probabilities are missing or NaN.*AFIB of record r4"),
    "uncertain target": (changed("target/AFIB", -1), r"neither 0 nor 1.*-1 for label AFIB of record r4"),
    "missing target": (changed("target/AFIB", np.nan), r"neither 0 nor 1.*nan for label AFIB of record r4"),
    "duplicate": (changed("record_id", "r1"), r"1 rows repeat a record id, the first is 'r1'"),
    "no id": (changed("record_id", None), r"row 5 has no record id"),
    "negative age": (changed("age", -3), r"'age' holds -3 for record r4.*0 to 130"),
    "age of PTB-XL": (changed("age", 300), r"300 for record r4.*code for an age over 89: write 90"),
    "infinite age": (changed("age", np.inf), r"'age' holds inf"),
    "sex": (changed("sex", 2), r"'sex' holds '2' for record r4 \(1 such records\).*--sexes"),
    "fold": (changed("fold", 1.5), r"'fold' holds 1\.5 for record r4"),
    "other case": (rename("age", "Age"), r"no column 'age' but 'Age': set --columns.age"),
    "no such group": (rename("site", "sites"), r"'site' is no column of .*Did you mean 'sites'"),
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("fault", BAD)
def test_what_is_wrong_is_named_with_its_column_and_record(tmp_path, fault, suffix):
    change, message = BAD[fault]
    table = change(rows())
    for name in table:
        if table[name].dtype == object and name not in ("record_id", "patient_id", "site", "sites"):
            table[name] = pd.to_numeric(table[name])
    path = written(table, tmp_path / f"a.{suffix}")
    with pytest.raises(ConfigurationError, match=message) as refused:
        read_predictions(path, attributes=["site"])
    assert "\n" not in str(refused.value)
    assert path in str(refused.value)


@pytest.mark.parametrize("column", ["probability/MI", "target/MI", "age", "fold"])
def test_text_in_a_column_of_numbers_is_named_with_its_record(tmp_path, column):
    table = changed(column, "high")(rows())
    with pytest.raises(ConfigurationError, match=rf"'{column}' holds 'high' for record r4, expected a number"):
        read_predictions(written(table, tmp_path / "a.csv"))


def test_a_column_of_lists_is_refused(tmp_path):
    table = rows(10).head(4)
    table["age"] = [[1.0]] * 4
    with pytest.raises(ConfigurationError, match=r"'age' holds list<.*expected numbers"):
        read_predictions(written(table, tmp_path / "a.parquet"))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_empty_table_is_refused(tmp_path, suffix):
    with pytest.raises(ConfigurationError, match="is empty"):
        read_predictions(written(rows().iloc[:0], tmp_path / f"a.{suffix}"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no table", "can't be read as a table"),
        ("a.csv", b"", r"no column 'probability/<label>'"),
        ("a.csv", b"record_id;age\n1;2\n", "semicolons or tabs"),
        ("a.csv", b"record_id,probability/a,target/a\n1,0.5\n", "can't be read as a table"),
        ("a.csv", b"record_id,probability/a,target/a\n\xff,0.5,1\n", "can't be read as a table"),
        ("a.csv", b"record_id,probability/a,target/a,target/a\n1,0.5,1,1\n", "two columns 'target/a'"),
        ("a.xlsx", b"", "expected a .parquet or .csv file"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_predictions(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_predictions(tmp_path / "a.parquet")
    with pytest.raises(ConfigurationError, match="is a folder"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("pattern", ["probability", "{label}_{label}", ""])
def test_a_pattern_without_one_label_is_refused(pattern):
    with pytest.raises(ConfigurationError, match=r"columns.probability is .*one \{label\}"):
        ColumnNames(probability=pattern)


def test_a_column_that_is_mapped_has_to_be_there(tmp_path):
    path = written(rows(), tmp_path / "a.csv")
    with pytest.raises(ConfigurationError, match=r"columns.patient_id names 'patient'.*Did you mean 'patient_id'"):
        read_predictions(path, ColumnNames(patient_id="patient"))


CELLS = st.sampled_from(
    ["0", "1", "0.5", "+0.5", " 1e-3 ", "", "nan", "NA", "x", "1_0", "-1", "2", "True", "inf", '"', "é"]
)


@settings(max_examples=60, deadline=None)
@given(cells=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=5))
def test_any_table_is_read_within_bounds_or_refused(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("any") / "a.csv"
    table = pd.DataFrame(cells, columns=["probability/a", "target/a", "age", "sex"])
    table.insert(0, "record_id", range(len(table)))
    with contextlib.suppress(ConfigurationError):
        found = read_predictions(written(table, path))
        assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
        assert ((found.targets == 0) | (found.targets == 1)).all()
        assert ((found.age >= 0) | found.age.isnan()).all()


def test_anomaly_scores_are_read_where_a_table_has_them_from_either_file(tmp_path):
    table = rows().assign(anomaly_score=np.linspace(-3, 9, 300), anomaly_percentile=np.linspace(0, 1, 300))
    table.loc[4, "anomaly_score"] = np.nan
    for name in ("a.parquet", "a.csv"):
        found = read_predictions(written(table, tmp_path / name))
        np.testing.assert_allclose(found.anomaly_score, table["anomaly_score"])
        np.testing.assert_allclose(found.anomaly_percentile, table["anomaly_percentile"])
    plain = read_predictions(written(rows(), tmp_path / "b.parquet"))
    assert (plain.anomaly_score, plain.anomaly_percentile) == (None, None)


@pytest.mark.parametrize(("column", "value"), [("anomaly_score", np.inf), ("anomaly_percentile", 1.01)])
def test_an_impossible_anomaly_score_is_refused_with_its_record(tmp_path, column, value):
    table = rows().assign(**{column: 0.5})
    table.loc[7, column] = value
    with pytest.raises(ConfigurationError, match=f"{column}' holds {value:g} for record {table.loc[7, 'record_id']}"):
        read_predictions(written(table, tmp_path / "a.parquet"))


def test_a_table_of_scores_alone_says_what_to_do_with_it(tmp_path):
    table = rows().drop(columns=[f"probability/{name}" for name in LABELS]).assign(anomaly_score=1.0)
    with pytest.raises(
        ConfigurationError, match=r"no probabilities of labels, as of a model of stage 1.*AnomalyDetection"
    ):
        read_predictions(written(table, tmp_path / "a.parquet"))
