"""Labels of one vocabulary told in another: the map that is shipped, and what a store's labels become by it."""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np
import pytest
import torch

from data_modules.labels.label_map import BROADER, IMPLIES, LABEL_MAPS, LabelMap, read_label_map
from data_modules.labels.mapped_labels import mapped_labels
from data_modules.preparing.prepare import prepare
from data_modules.readers.ptbxl import PtbXlReader
from data_modules.readers.wfdb_folder import WfdbFolderReader
from data_modules.stores.store import RecordStore
from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError
from tests.data_modules.streamed_store import stream_store

CLASSES = ["NORM", "MI", "STTC", "CD", "HYP"]
TEST_ALL = {"train_folds": [], "validation_folds": [], "test_folds": list(range(1, 11))}


def rows(name):
    with (files("data_modules.labels") / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def snomed_to_scp():
    return read_label_map("snomed_to_scp")


def labels_of(path, codes, label_set):
    """Names of the labels that each record has by the map."""
    store = RecordStore(stream_store(path, len(codes), codes=codes))
    names, values = mapped_labels(store, read_label_map("snomed_to_scp"), label_set)
    return [[name for name, value in zip(names, row, strict=True) if value] for row in values]


def test_every_code_of_the_map_is_one_of_the_shipped_table_under_its_name():
    with (files("data_modules.readers") / "snomed_ct.csv").open(encoding="utf-8", newline="") as lines:
        known = {row["code"]: (row["label"], row["name"]) for row in csv.DictReader(lines) if row["label_set"] == "all"}
    for row in rows("snomed_to_scp.csv"):
        assert known.get(row["snomed"]) == (row["abbreviation"], row["snomed_name"]), row
    words = {code for code in known if not code.isdecimal()} - {"Chagas"}
    assert words <= {row["snomed"] for row in rows("snomed_to_scp.csv")}


def test_every_pair_is_there_once_with_a_relation_and_where_it_is_from():
    pairs = [(row["snomed"], row["scp"]) for row in rows("snomed_to_scp.csv")]
    assert len(set(pairs)) == len(pairs)
    statements = {row["scp"] for row in rows("scp_statements.csv")}
    assert len(statements) == 71
    for row in rows("snomed_to_scp.csv"):
        assert row["scp"] in statements
        assert row["relation"] in (*IMPLIES, BROADER)
        assert row["source"]


def test_a_code_that_only_leaves_statements_open_names_more_than_one(snomed_to_scp):
    # One of them is said to hold: with a single one it would be that one, and another relation.
    for code, statements in snomed_to_scp.may_be.items():
        assert code in snomed_to_scp.implies or len(statements) > 1


@pytest.mark.data
def test_the_statements_shipped_are_those_of_ptbxl_in_its_order(ptbxl_source, snomed_to_scp):
    published = PtbXlReader(ptbxl_source).label_sets
    assert list(snomed_to_scp.label_sets) == list(published)
    for name, labels in published.items():
        assert list(snomed_to_scp.label_sets[name].items()) == list(labels.items())


def test_the_label_sets_are_those_of_ptbxl(snomed_to_scp):
    sizes = {name: len(labels) for name, labels in snomed_to_scp.label_sets.items()}
    assert sizes == {"all": 71, "diagnostic": 44, "subdiagnostic": 23, "superdiagnostic": 5, "form": 19, "rhythm": 12}
    assert list(snomed_to_scp.label_sets["superdiagnostic"]) == CLASSES


def test_codes_become_the_statements_that_hold(tmp_path):
    codes = [["426177001"], ["733534002", "164889003"], ["63593006"], ["Normal"], ["11157007"], ["54016002"], []]
    expected = [["SBRAD"], ["CLBBB", "AFIB"], ["PAC", "SVARR"], ["NORM", "SR"], ["PVC", "BIGU"], ["2AVB"], []]
    assert labels_of(tmp_path / "made", codes, "all") == expected


def test_a_code_that_says_less_makes_no_statement_but_a_class_that_gathers_all_it_may_be(tmp_path):
    # Infarction, AV block and bundle branch block without more; sinus rhythm, which need not be normal.
    codes = [["164865005"], ["233917008"], ["6374002"], ["426783006"], ["164934002"]]
    assert labels_of(tmp_path / "all", codes, "all") == [[], [], [], ["SR"], ["TAB_"]]
    assert labels_of(tmp_path / "classes", codes, "superdiagnostic") == [["MI"], ["CD"], ["CD"], [], []]
    assert labels_of(tmp_path / "subclasses", codes, "subdiagnostic") == [[], ["_AVB"], [], [], []]


def test_a_likelihood_below_the_least_one_counts_as_without_a_map(tmp_path, snomed_to_scp):
    store = RecordStore(stream_store(tmp_path / "made", 2, codes=[["426177001"], []]))  # with 100 percent
    _, values = mapped_labels(store, snomed_to_scp, "rhythm", 100)
    assert values.sum() == 1
    with pytest.raises(ConfigurationError, match="min_likelihood is 101"):
        mapped_labels(store, snomed_to_scp, "rhythm", 101)


def test_one_line_names_each_code_that_is_lost_and_each_label_that_no_code_tells(tmp_path, caplog):
    codes = [["39732003", "164865005"], ["39732003", "426177001"], ["own", "39732003"], ["426783006"]]
    labels_of(tmp_path / "made", codes, "diagnostic")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    assert "2 (39732003 (3), own (1)) of its 5 codes are not in the map" in line
    assert "426783006 (1: NORM)" in line
    assert "164865005 (1: IMI, ASMI, ILMI, AMI, ALMI, LMI, IPLMI, IPMI, PMI)" in line
    assert "DIG, " in line.rsplit("count as negative;")[1]
    assert "of the 44 labels of 'diagnostic' have no code" in line


def test_the_data_module_has_the_names_of_the_training_labels_in_their_order(tmp_path, snomed_to_scp):
    store = stream_store(tmp_path / "made", 20, codes=[["426177001"], ["164873001"]] * 10, label_sets={})
    for label_set in ("all", "diagnostic", "superdiagnostic"):
        data = EcgDataModule(store, labels=label_set, label_map="snomed_to_scp")
        assert data.label_names == list(snomed_to_scp.label_sets[label_set])
    assert EcgDataModule(store, label_map="snomed_to_scp").label_names == CLASSES
    (batch,) = EcgDataModule(store, label_map="snomed_to_scp", **TEST_ALL, batch_size=20).test_dataloader()
    assert batch["labels"].sum(dim=0).tolist() == [0, 0, 0, 0, 10]


def test_a_whole_store_can_be_tested_on_and_training_is_refused_in_one_line(tmp_path):
    data = EcgDataModule(stream_store(tmp_path / "made", 30), **TEST_ALL)
    assert sorted(torch.cat([batch["index"] for batch in data.test_dataloader()]).tolist()) == list(range(30))
    assert (data.training_records, data.label_prevalence) == (0, [0.0, 0.0])
    assert np.isfinite(data.attribute_statistics.mean).all()
    assert set(data.attribute_statistics.std) == {1.0}
    assert list(data.training_sample(5)) == []
    for asked in (data.train_dataloader, lambda: data.group_counts("sex", (50,), as_drawn=True)):
        with pytest.raises(ConfigurationError, match=r"data.train_folds is \[\], so there is no record to train on"):
            asked()


def test_a_test_without_folds_to_test_is_refused(tmp_path):
    data = EcgDataModule(stream_store(tmp_path / "made", 30), test_folds=[])
    assert data.training_records == 24
    with pytest.raises(ConfigurationError, match=r"data.test_folds is \[\], so there is no record to test on"):
        data.test_dataloader()


def test_what_is_not_there_is_answered_with_the_nearest(tmp_path):
    store = stream_store(tmp_path / "made", 20)
    with pytest.raises(ConfigurationError, match=r"data.label_map is 'snomed_to_spc': no such map. Did you mean"):
        EcgDataModule(store, label_map="snomed_to_spc")
    with pytest.raises(
        ConfigurationError, match=r"knows no label set 'superdiagnostics'.*Did you mean 'superdiagnostic'"
    ):
        EcgDataModule(store, labels="superdiagnostics", label_map="snomed_to_scp")


def test_a_class_of_which_a_code_may_be_only_some_statements_is_left_open():
    sets = {"classes": {"both": ("a", "b"), "one": ("a",)}}
    made = LabelMap({"sure": frozenset("a")}, {"vague": frozenset("ab"), "sure": frozenset("b")}, sets)
    assert made.codes_of("classes") == {"both": ("sure", "vague"), "one": ("sure",)}
    assert made.undecided("classes", ["sure", "vague", "other"]) == {"vague": ("one",)}
    assert LABEL_MAPS == ("snomed_to_scp",)


@pytest.mark.data
def test_records_of_the_challenge_get_the_statements_that_a_person_gave_them(real_data, tmp_path):
    prepare(WfdbFolderReader(real_data / "cinc2021"), tmp_path / "store", Preprocessing(), jobs=1, progress=False)
    data = EcgDataModule(str(tmp_path / "store"), labels="all", label_map="snomed_to_scp", **TEST_ALL)
    ids = data.records(data.split["test"])["record_id"].tolist()
    (values,) = data._labels
    found = {
        name: {label for label, value in zip(data.label_names, row, strict=True) if value}
        for name, row in zip(ids, values, strict=True)
    }
    by_hand = {
        "CPSC-Extra/Q0033": {"LVH", "CLBBB"},  # and a nonspecific ST-T abnormality, which leaves NDT and NST_ open
        "CPSC-Extra/Q0398": {"LVH", "PACE"},  # and an infarction whose place is not said
        "CPSC-Extra/Q1804": {"RAO/RAE", "SR"},
        "CPSC2018/A0079": {"AFIB", "CRBBB"},
        "CPSC2018/A0020": {"NORM", "SR"},
        "CPSC2018/A0118": {"1AVB"},
        "Chapman-Ningbo/JS20000": {"NST_", "IVCD", "PAC", "STACH"},
        "Chapman-Ningbo/JS45547": set(),  # ventricular tachycardia, which PTB-XL has no statement for
        "Georgia/E07522": {"LVH", "LAFB", "SBRAD"},
        "PTB/S0010": set(),
    }
    assert {name: found[name] for name in by_hand} == by_hand
    assert len(found) == 72
