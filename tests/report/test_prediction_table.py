import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.kernels.operating_points import OperatingPoints
from ecgfair.report.prediction_table import METADATA_KEY, Metadata, groupings, write_predictions
from ecgfair.report.read_predictions import read_predictions
from tests.report.made_predictions import LABELS, rows, written

POINTS = OperatingPoints(
    "specificity", 0.9, LABELS, (0.25, float("inf"), float("nan")), ("", "none", "no class"), "fold 9", (9,)
)


def write(path, table=None, metadata=None, labels=LABELS):
    table = rows() if table is None else table
    probabilities, targets = (
        torch.tensor(table[[f"{kind}/{label}" for label in LABELS]].to_numpy(), dtype=torch.float32)
        for kind in ("probability", "target")
    )
    of_records = table[[name for name in table if "/" not in name]]
    write_predictions(path, of_records, probabilities, targets, labels, metadata or Metadata())
    return probabilities, targets


def test_what_is_written_is_read_again_with_what_is_known_of_the_model(tmp_path):
    metadata = Metadata({"AFIB": 0.2, "LBBB": 0.05, "MI": 0.001}, POINTS, "abc")
    probabilities, targets = write(tmp_path / "run" / "a.parquet", metadata=metadata)
    found = read_predictions(tmp_path / "run" / "a.parquet", attributes=["site"])
    assert torch.equal(found.probabilities, probabilities.double())
    assert torch.equal(found.targets, targets.double())
    assert found.metadata == metadata
    assert not found.numbered
    assert found.notes == ()
    assert set(pd.read_parquet(tmp_path / "run" / "a.parquet")["model_fingerprint"]) == {"abc"}


def test_nothing_is_left_of_a_write_but_the_table(tmp_path):
    write(tmp_path / "a.parquet")
    write(tmp_path / "a.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_column_of_the_records_that_is_named_as_a_labels_is_refused(tmp_path):
    table = rows()
    with pytest.raises(ConfigurationError, match="two columns 'probability/AFIB'"):
        write_predictions(tmp_path / "a.parquet", table, torch.zeros(300, 3), torch.zeros(300, 3), LABELS, Metadata())
    assert not (tmp_path / "a.parquet").exists()


@pytest.mark.parametrize("text", [b"no json", b"[]", b"{}", json.dumps({"format": 2}).encode()])
def test_metadata_that_is_not_ours_is_refused(tmp_path, text):
    write(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: text}), tmp_path / "b.parquet")
    with pytest.raises(ConfigurationError, match=r"b\.parquet can't be read: its metadata"):
        read_predictions(tmp_path / "b.parquet")


def test_records_of_a_patient_share_a_code(tmp_path):
    found = read_predictions(written(rows(), tmp_path / "a.csv"))
    first, second = found.patients[::2], found.patients[1::2]
    assert torch.equal(first, second)
    assert sorted(first.tolist()) == list(range(150))


def test_patients_have_the_same_codes_in_any_order_of_the_rows(tmp_path):
    ordered = read_predictions(written(rows(), tmp_path / "a.csv"))
    shuffled = read_predictions(written(rows().sample(frac=1, random_state=0), tmp_path / "b.csv"))
    codes = dict(zip(ordered.record_ids, ordered.patients.tolist(), strict=True))
    assert shuffled.patients.tolist() == [codes[name] for name in shuffled.record_ids]


def test_groups_are_those_of_sex_age_columns_and_their_intersections(tmp_path):
    attributes = ("sex", "age", "site", "site_x_sex")
    table = rows()
    found = groupings(read_predictions(written(table, tmp_path / "a.csv"), attributes=attributes), attributes, (50,))
    sex, age, site, both = found
    assert [grouping.attribute for grouping in found] == list(attributes)
    assert sex.counts() == {
        "female": int((table["sex"] == 1).sum()),
        "male": int((table["sex"] == 0).sum()),
        "unknown": 1,
    }
    assert age.counts() == {"<50": int((table["age"] < 50).sum()), "50+": int((table["age"] >= 50).sum()), "unknown": 2}
    assert site.names == ("north", "south", "unknown")
    expected = int(((table["site"] == "south") & (table["sex"] == 1)).sum())
    assert both.counts()["south, female"] == expected


def test_groups_by_a_demographic_that_the_table_lacks_are_refused(tmp_path):
    found = read_predictions(written(rows().drop(columns="sex"), tmp_path / "a.csv"))
    with pytest.raises(ConfigurationError, match=r"no column 'sex': name it with --columns\.sex"):
        groupings(found, ("age_x_sex",))
    assert len(groupings(found, ("age",))) == 1


def test_records_and_labels_are_taken_in_the_order_asked_for(tmp_path):
    found = read_predictions(written(rows(), tmp_path / "a.csv"), attributes=["site"])
    taken = found.take([5, 2], ["MI", "AFIB"])
    assert taken.record_ids == ("r5", "r2")
    assert torch.equal(taken.probabilities, found.probabilities[[5, 2]][:, [2, 0]])
    assert torch.equal(taken.targets, found.targets[[5, 2]][:, [2, 0]])
    assert taken.extra["site"] == [found.extra["site"][5], found.extra["site"][2]]
    assert taken.patient_ids == ("p2", "p1")
    assert torch.equal(taken.sex, found.sex[[5, 2]])


def test_folds_are_taken_and_those_that_are_not_there_refused(tmp_path):
    table = rows()
    table.loc[:99, "fold"] = 9
    found = read_predictions(written(table, tmp_path / "a.csv"))
    assert found.of_folds([9]).record_ids == tuple(f"r{number}" for number in range(100))
    with pytest.raises(ConfigurationError, match=r"no record of fold 3: expected some of \[9, 10\]"):
        found.of_folds([9, 3])
    without = read_predictions(written(table.drop(columns="fold"), tmp_path / "b.csv"))
    with pytest.raises(ConfigurationError, match="no column of folds"):
        without.of_folds([9])
