import io

import pandas as pd
import pytest
import torch
from rich.console import Console

from ecgfair.anomaly.evaluation.decisions import Thresholds
from ecgfair.anomaly.evaluation.evaluate import evaluate_anomaly
from ecgfair.anomaly.protocols import CORRECTED, PUBLISHED
from ecgfair.report.anomaly_table import MOST_LABELS, anomaly_frame, render_anomaly
from ecgfair.report.fairness_table import PLAIN_WIDTH
from tests.anomaly.anomaly_cases import NAMES, population


def report(**more):
    case = population(300)
    thresholds = Thresholds(0.5, 1.0, "fold 9")
    return evaluate_anomaly(**{**case, "threshold": thresholds, "prevalence": [0.5, 0.2, 0.05, 0.005, 0.2], **more})


def printed(found, protocol=CORRECTED):
    stream = io.StringIO()
    Console(file=stream, width=PLAIN_WIDTH).print(render_anomaly(found, protocol, "PCA [beats]"))
    return stream.getvalue()


def lines_of(text, start):
    return [line for line in text.splitlines() if line.strip().startswith(start)]


def line_of(text, start):
    return lines_of(text, start)[0]


@pytest.fixture(scope="module")
def with_intervals():
    return report(resamples=100)


def test_the_title_names_scores_protocol_and_folds_and_counts_records(with_intervals):
    text = " ".join(printed(with_intervals).split())
    assert text.startswith(
        "PCA [beats], corrected protocol: trained on the normals of folds 1-8, chosen on fold 9, tested on fold 10; "
        f"{with_intervals.normals} normal and {with_intervals.abnormals} abnormal records of 150 patients"
    )
    published = " ".join(printed(with_intervals, PUBLISHED).split())
    assert "published protocol: trained on the normals of folds 1-9, chosen and tested on fold 10" in published


def test_a_threshold_chosen_on_the_test_fold_is_called_too_good(with_intervals):
    assert "which is tested on" not in printed(with_intervals)
    assert "which is tested on: too good" in " ".join(printed(with_intervals, PUBLISHED).split())


def test_it_fits_its_width_and_has_no_escape_codes_where_there_is_no_terminal(with_intervals):
    for found in (with_intervals, report(resamples=0, threshold=None, age=None, sex=None)):
        text = printed(found)
        assert "\x1b" not in text
        assert max(len(line) for line in text.splitlines()) <= PLAIN_WIDTH


def test_values_are_those_of_the_report_with_age_alone_beside_them(with_intervals):
    text = printed(with_intervals)
    row = with_intervals.overall("auroc")
    assert line_of(text, "AUROC").split()[1:4] == [f"{row.value:.3f}", f"[{row.low:.2f},", f"{row.high:.2f}]"]
    alone, within = (line.split()[2] for line in lines_of(text, "age alone"))
    assert alone == f"{with_intervals.overall('age_alone_auroc').value:.3f}"
    assert within == f"{with_intervals.overall('age_alone_stratified_auroc').value:.3f}"
    alarms = line_of(text, "false alarms")
    assert f"{with_intervals.overall('fpr').value:.3f}" in alarms
    assert "the threshold was chosen on fold 9" in alarms


def test_diagnoses_and_groups_have_their_values_in_order():
    found = report(resamples=0)
    text = printed(found)
    (auroc,), (within,), (tpr,) = (
        list(found.select("diagnosis", name, label="STTC")) for name in ("auroc", "stratified_auroc", "tpr")
    )
    values = [f"{row.value:.3f}" for row in (auroc, within, tpr)]
    assert line_of(text, "STTC").split() == ["STTC", f"{auroc.normals}", f"{auroc.abnormals}", *values]
    (alarms,) = found.select("sex", "fpr", group="male")
    assert f"{alarms.value:.3f}" in line_of(text, "male")
    (spread,) = found.select("sex", "auroc", "spread")
    assert f"{spread.value:+.3f}" in line_of(text, "sex ")
    assert "worst" in line_of(text, spread.group)
    (gap,) = found.select("diagnosis", "auroc", "common_rare_gap")
    assert f"{gap.value:+.3f}" in line_of(text, "common-rare gap")


def test_what_is_undefined_has_its_reason():
    text = " ".join(printed(report(resamples=0, threshold=None)).split())
    assert "n/a no thresholds, which validation records choose" in text
    assert "[95 %]" not in text


def test_of_many_diagnoses_the_worst_are_printed_and_the_rest_is_counted():
    names = tuple(f"label{number:02}" for number in range(MOST_LABELS + 3))
    labels = (torch.rand(300, len(names), generator=torch.Generator().manual_seed(1)) < 0.3).long()
    found = report(labels=labels, label_names=names, prevalence=None, resamples=0)
    text = printed(found)
    values = {row.label: row.value for row in found.select("diagnosis", "auroc") if row.label in names}
    worst = sorted(values, key=values.get)[:MOST_LABELS]
    assert [line.split()[0] for line in lines_of(text, "label")] == worst
    assert lines_of(text, "3 more")
    assert not lines_of(text, "tail")  # no prevalence, no long tail


def test_the_frame_carries_the_protocol_and_whose_scores_they_are_and_survives_parquet(tmp_path, with_intervals):
    frame = anomaly_frame(with_intervals, PUBLISHED, "PCA")
    assert set(frame["protocol"]) == {"published"}
    assert set(frame["score"]) == {"PCA"}
    assert set(frame["label"]) >= {"abnormal", *NAMES[1:]}
    frame.to_parquet(tmp_path / "anomaly.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "anomaly.parquet"), frame)
