import pandas as pd
import pytest
import torch

from ecgfair.groups import group_by_age, group_by_sex
from ecgfair.metrics.fairness import evaluate
from ecgfair.metrics.fairness_report import COLUMNS, FairnessReport
from ecgfair.metrics.predictions import Predictions


@pytest.fixture(scope="module")
def report():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(60, 3, generator=generator)
    targets = (probabilities > 0.6).float()
    age = 90 * torch.rand(60, generator=generator)
    groupings = [group_by_sex(torch.arange(60) % 2), group_by_age(age)]
    return evaluate(Predictions(probabilities, targets, ["a", "b", "c"], groupings, label_prevalence=[0.4, 0.05, 0.0]))


def test_the_table_is_tidy(report):
    frame = report.frame()
    assert tuple(frame.columns) == COLUMNS
    assert not frame.duplicated(["attribute", "group", "label", "statistic", "aggregate"]).any()
    assert (frame["value"].isna() <= (frame["reason"] != "")).all()  # no undefined value without a reason
    of_means = frame["label"].isin(["macro", "head", "medium", "tail"])
    assert (frame["positives"].isna() == of_means).all()


def test_every_group_has_a_row_for_every_label_whether_it_is_defined_or_not(report):
    frame = report.frame()
    labels = frame[
        (frame["statistic"] == "auroc") & (frame["aggregate"] == "value") & frame["label"].isin(["a", "b", "c"])
    ]
    assert labels.groupby("attribute").size().to_dict() == {"overall": 3, "sex": 9, "age": 15}


def test_a_report_read_back_from_its_table_is_the_same(report):
    again = FairnessReport.from_frame(report.frame())
    pd.testing.assert_frame_equal(again.frame(), report.frame())
    assert [line.positives for line in again.rows] == [line.positives for line in report.rows]
    assert again.attributes == report.attributes == ("sex", "age")


def test_scalars_are_the_values_of_the_rows(report):
    scalars = report.scalars("val")
    frame = report.frame()
    of_age = frame[(frame["attribute"] == "age") & (frame["statistic"] == "auroc") & (frame["aggregate"] == "worst")]
    assert scalars["val/fair/age/worst_auroc"] == pytest.approx(of_age["value"].item(), nan_ok=True)
    assert set(scalars) == {key.replace("test/", "val/") for key in report.scalars("test")}
