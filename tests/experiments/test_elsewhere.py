"""A run tested on another store: what is tested, what is compared, and what is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from data_modules.labels.label_map import read_label_map
from data_modules.stores.store import RecordStore
from ecgfair.report.prediction_table import Metadata, write_predictions
from ecgfair.report.read_predictions import read_predictions
from experiments.ptbxl import elsewhere
from experiments.ptbxl.drop import Drops, Records, drops, markdown
from experiments.ptbxl.rows import row_named
from experiments.ptbxl.running import fold_run, seed_run
from tests.data_modules.streamed_store import stream_store

LABELS = ("AFIB", "SBRAD", "PAC", "WPW")
AF, SB, PAC, MI, NOT_IN_MAP = "164889003", "426177001", "284470004", "164865005", "365413008"


def write(path, records=200, seed=0, skill=(3.0, 2.0, 1.0, 1.0), fingerprint="w", ids=None, targets=None):
    """A made table of predictions: a patient has two records, and nobody has WPW."""
    drawn = np.random.default_rng(seed)
    made = (drawn.random((records, 4)) < (0.4, 0.2, 0.1, 0.0)).astype(float)
    targets = made if targets is None else targets
    rows = pd.DataFrame(
        {
            "record_id": [f"r{number}" for number in range(records)] if ids is None else ids,
            "patient_id": [f"p{number // 2}" for number in range(records)],
            "fold": 10,
            "age": 50.0,
            "sex": np.arange(records) % 2,
        }
    )
    probabilities = 1 / (1 + np.exp(-(targets * skill + drawn.normal(size=targets.shape) - 2)))
    both = torch.from_numpy(probabilities), torch.from_numpy(targets)
    write_predictions(path, rows, *both, LABELS, Metadata(model_fingerprint=fingerprint))
    return read_predictions(path)


def compare(tmp_path, records=(200, 300), skills=((3.0, 2.0, 1.0, 1.0), (1.0, 2.0, 1.0, 1.0)), **settings):
    tables = [
        write(tmp_path / f"{seed}.parquet", count, seed, skill)
        for seed, (count, skill) in enumerate(zip(records, skills, strict=True))
    ]
    return tables, drops(tables[0], Records(tables[1], {}, {"SBRAD": 4}), **({"resamples": 200} | settings))


def auroc(table, label):
    column = table.label_names.index(label)
    return roc_auc_score(table.targets[:, column], table.probabilities[:, column])


def test_the_drop_of_a_label_is_its_auroc_at_home_less_that_elsewhere(tmp_path):
    (home, other), found = compare(tmp_path)
    assert {one.label for one in found.labels} == {"AFIB", "SBRAD", "PAC"}
    for one in found.labels:
        assert one.home.value == pytest.approx(auroc(home, one.label))
        assert one.elsewhere.value == pytest.approx(auroc(other, one.label))
        assert one.drop.value == pytest.approx(one.home.value - one.elsewhere.value)
        assert one.positives == tuple(int(table.targets[:, LABELS.index(one.label)].sum()) for table in (home, other))
    assert found.labels[0].label == "AFIB"
    assert found.labels[0].drop.low > 0
    assert {one.label: one.may_hold for one in found.labels}["SBRAD"] == 4


def test_the_macro_is_over_the_labels_that_both_support(tmp_path):
    (home, other), found = compare(tmp_path)
    for values, table in ((found.macro.home, home), (found.macro.elsewhere, other)):
        assert values.value == pytest.approx(np.mean([auroc(table, label) for label in ("AFIB", "SBRAD", "PAC")]))
    assert found.macro.drop.low < found.macro.drop.value < found.macro.drop.high


def test_the_two_places_are_resampled_apart_so_that_even_the_same_table_has_an_uncertain_drop(tmp_path):
    table = write(tmp_path / "a.parquet")
    found = drops(table, Records(table, {}, {}), resamples=200)
    for one in found.labels:
        assert one.drop.value == 0
        sides = [(end.high - end.low) / 2 for end in (one.home, one.elsewhere)]
        assert (one.drop.high - one.drop.low) / 2 == pytest.approx(np.hypot(*sides), rel=0.2)


def test_labels_without_support_are_named_with_where_it_is_lacking(tmp_path):
    (home, other), found = compare(tmp_path, records=(200, 600))
    assert found.left_out == {"no record elsewhere is positive": ["WPW"]}
    at_home, away = (int(table.targets[:, LABELS.index("PAC")].sum()) for table in (home, other))
    assert at_home < away
    _, few = compare(tmp_path, records=(200, 600), support=at_home + 1)
    assert few.left_out["too few records at home"] == ["PAC"]
    _, fewer = compare(tmp_path, records=(200, 600), support=away + 1)
    assert "PAC" in fewer.left_out["too few records at home and elsewhere"]
    _, none = compare(tmp_path, support=150)
    assert (none.labels, none.macro) == ((), None)
    assert "nothing can be compared" in markdown(none, "title")


def test_labels_asked_for_are_compared_alone(tmp_path):
    _, found = compare(tmp_path, labels=["PAC"])
    assert [one.label for one in found.labels] == ["PAC"]
    assert found.macro.drop == found.labels[0].drop._replace(labels=0)
    assert found.left_out == {}


def test_the_table_has_a_line_for_every_label_and_says_what_is_left_out(tmp_path):
    _, found = compare(tmp_path)
    found = Drops(found.labels, found.macro, found.left_out, found.records, {"have no code at all": 7})
    text = markdown(found, "`run` on `store`")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 1 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert "Left out: 1 labels, 7 records elsewhere." in text
    assert "- 1 label, no record elsewhere is positive: WPW" in text
    assert "- 7 records elsewhere have no code at all" in text


def test_records_that_nobody_can_judge_by_the_map_are_left_out(tmp_path):
    codes = [[AF], [SB, NOT_IN_MAP], [], [NOT_IN_MAP], [MI], [AF]]
    ids = ["a", "b", "c", "d", "e", "x/HR00001"]
    store = RecordStore(stream_store(tmp_path / "store", 6, codes=codes, record_id=ids))
    table = write(tmp_path / "a.parquet", 6, ids=ids, targets=np.zeros((6, 4)))
    found = elsewhere.told_records(table, store, "snomed_to_scp", "all")
    assert found.table.record_ids == ("a", "b", "e")
    assert found.left_out == {
        "have no code at all": 1,
        "have no code that the map knows": 1,
        "are PTB-XL's own": 1,
    }
    assert not set(found.may_hold) & set(LABELS)


def test_records_whose_codes_leave_a_label_open_are_counted_for_it(tmp_path):
    open_code = next(
        code
        for code, statements in read_label_map("snomed_to_scp").may_be.items()
        if "NDT" in statements and code not in read_label_map("snomed_to_scp").implies
    )
    store = RecordStore(stream_store(tmp_path / "store", 3, codes=[[open_code], [open_code], [AF]]))
    table = write(tmp_path / "a.parquet", 3, targets=np.array([[0.0] * 4, [0, 1, 0, 0], [1, 0, 0, 0]]))
    table = replace(table, label_names=("AFIB", "NDT", "PAC", "WPW"))
    assert elsewhere.told_records(table, store, "snomed_to_scp", "all").may_hold["NDT"] == 1


@pytest.fixture
def run(tmp_path):
    """A run folder as `fit` and `test` leave it, of a version whose thresholds knew folds alone; and another store."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    home = stream_store(tmp_path / "home", source_name="PTB-XL")
    init = {"store": home, "labels": "all", "batch_size": 32, "train_share": 0.1, "min_likelihood": 0.0}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"class_path": "PtbXlDataModule", "init_args": init}}))
    state = {"Fairness": {"operating_points": {"folds": [9]}}, "Other": {}}
    torch.save({"callbacks": state}, folder / "checkpoints" / "best.ckpt")
    write(folder / "test" / "predictions.parquet")
    store = stream_store(tmp_path / "other", 200, codes=[[AF]] * 200, fold=[None] * 200)
    return folder, store


class FakeTest:
    """Stands in for the command line: keeps what it was called with, and leaves predictions."""

    def __init__(self, folder, fingerprint="w", status=0):
        self.folder, self.fingerprint, self.status = folder, fingerprint, status

    def __call__(self, words):
        self.given = dict(zip(words[1::2], words[2::2], strict=True))
        with Path(self.given["--config"]).open() as file:
            self.config = yaml.safe_load(file)
        self.checkpoint = torch.load(self.given["--ckpt_path"], weights_only=True)
        if not self.status:
            write(self.folder / "test" / "predictions.parquet", seed=1, fingerprint=self.fingerprint)
        return self.status


def test_a_run_is_tested_on_all_folds_of_the_other_store_through_the_map_and_its_training_is_left_out(run, capsys):
    folder, store = run
    tested = FakeTest(folder / "elsewhere-other")
    assert elsewhere.main([str(folder), store, "--resamples", "100"], tested) == 0
    assert tested.given["--run"] == str(folder / "elsewhere-other")
    settings = tested.config["data"]["init_args"]
    assert tested.config["data"]["class_path"] == "EcgDataModule"
    assert (settings["store"], settings["label_map"], settings["labels"]) == (store, "snomed_to_scp", "all")
    assert (settings["train_folds"], settings["validation_folds"]) == ([], [])
    assert settings["test_folds"] == list(range(1, 11))
    assert "train_share" not in settings
    assert "200 records at home, 200 elsewhere" in capsys.readouterr().out


def test_thresholds_of_earlier_versions_are_told_their_data_in_a_copy_of_the_checkpoint(run):
    folder, store = run
    tested = FakeTest(folder / "elsewhere-other")
    elsewhere.main([str(folder), store, "--resamples", "100"], tested)
    assert tested.checkpoint["callbacks"]["Fairness"]["operating_points"]["data"] == ["PTB-XL"]
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert "data" not in kept["callbacks"]["Fairness"]["operating_points"]
    assert not list((folder / "elsewhere-other").glob("*.ckpt"))


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("status", "ended with status 1: expected"),
        ("fingerprint", "are of other weights: expected those of the best checkpoint"),
        ("untested", "is not there: expected a run of stage 2 that was trained, and tested at home"),
        ("label", "--labels names 'AFIBB'. Did you mean 'AFIB'?"),
        ("home", "holds records of PTB-XL: expected those of another source"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(run, tmp_path, capsys, breaks, message):
    folder, store = run
    tested = FakeTest(folder / "elsewhere-other", "v" if breaks == "fingerprint" else "w", int(breaks == "status"))
    if breaks == "untested":
        (folder / "test" / "predictions.parquet").unlink()
    further = ["--labels", "AFIBB"] if breaks == "label" else []
    asked = str(tmp_path / "home") if breaks == "home" else store
    assert elsewhere.main([str(folder), asked, *further, "--resamples", "100"], tested) == 2
    assert message in capsys.readouterr().out


def test_predictions_of_an_earlier_test_do_not_pass_for_those_of_one_that_failed(run):
    folder, store = run
    write(folder / "elsewhere-other" / "test" / "predictions.parquet")
    assert elsewhere.main([str(folder), store], FakeTest(folder / "elsewhere-other", status=1)) == 2
    assert not (folder / "elsewhere-other" / "test" / "predictions.parquet").exists()


def test_a_row_on_several_stores_keeps_them_when_another_store_is_asked_for(tmp_path):
    mixture, start = row_named("pretrain-mixture"), row_named("with-mixture-bce")
    for made in (seed_run(mixture, 0, tmp_path, "stores/x"), fold_run(mixture, 3, tmp_path, "stores/x")):
        assert "--data.init_args.store" not in made.flags
    assert "stores/x" in seed_run(start, 0, tmp_path, "stores/x").flags
    assert str(tmp_path / "pretrain-mixture-0" / "encoder") in seed_run(start, 0, tmp_path).flags


def test_stage_1_on_several_sources_says_again_what_its_other_data_module_would_be_told():
    alone, mixture = (
        yaml.safe_load(path.read_text(encoding="utf-8"))["data"] for path in row_named("pretrain-mixture").files
    )
    assert mixture["class_path"] == "MixtureDataModule"
    # Settings of another class are discarded when files go on top of each other.
    kept = {name: value for name, value in alone["init_args"].items() if name != "store"}
    assert kept.items() <= mixture["init_args"].items()
    assert alone["init_args"]["store"] == mixture["init_args"]["stores"][0]
