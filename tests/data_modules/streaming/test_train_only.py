"""Training on the records that have one label and no other: what follows it, and what does not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.base import StoresDataModule
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.mixture import MixtureDataModule
from data_modules.streaming.only_label import only_label
from ecgfair.errors import ConfigurationError
from tests.data_modules.streamed_store import stream_store

CODES = [["often"], ["rarely"], ["often", "rarely"], []]
"""Of the records, by turns."""


def made(path, count=40, codes=CODES):
    return stream_store(path, count, codes=[codes[position % len(codes)] for position in range(count)])


@pytest.fixture
def store(tmp_path):
    return made(tmp_path / "made")


def positions(loader):
    return sorted(torch.cat([batch["index"] for batch in loader]).tolist())


def alone(count=40, first=0):
    """Training records that have ``often`` and nothing else: a multiple of four, not in fold 9 or 10."""
    return [first + position for position in range(0, count, 4) if position % 10 < 8]


def test_only_records_with_this_label_and_no_other_are_trained_on(store):
    data = EcgDataModule(store, train_only="often", batch_size=3)
    assert positions(data.train_dataloader()) == alone()
    assert data.split["train"].tolist() == alone()


def test_validation_test_and_prediction_are_as_without_it(store):
    data, plain = EcgDataModule(store, train_only="often"), EcgDataModule(store)
    for part in ("validation", "test", "predict"):
        np.testing.assert_array_equal(data.split[part], plain.split[part])
    for loader in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        assert positions(getattr(data, loader)()) == positions(getattr(plain, loader)())


def test_prevalence_and_statistics_are_of_the_records_trained_on(store):
    data = EcgDataModule(store, train_only="often")
    assert data.label_prevalence == [1.0, 0.0]
    ages = 20.0 + np.array(alone())
    assert data.attribute_statistics.mean[0] == pytest.approx(ages.mean())
    assert data.attribute_statistics.std[0] == pytest.approx(ages.std())
    batch = next(iter(EcgDataModule(store, train_only="often", batch_size=40).train_dataloader()))
    assert batch["attributes"][:, 0].mean().item() == pytest.approx(0, abs=1e-6)


def test_groups_and_sampling_are_of_the_records_trained_on(store):
    sampling = Sampling("group", balance_groups="age")
    data = EcgDataModule(store, train_only="often", sampling=sampling)
    records, positives = data.group_counts("age", (30, 50))
    assert int(records.sum()) == len(alone())
    torch.testing.assert_close(positives[:, 0], records)
    assert int(data.group_counts("age", (30, 50), as_drawn=True)[0].sum().round()) == len(alone())
    assert set(positions(data.train_dataloader())) <= set(alone())


def test_the_fingerprint_tells_which_records_were_trained_on(tmp_path, store):
    fingerprints = [
        EcgDataModule(store).training_data,
        EcgDataModule(store, train_only="often").training_data,
        EcgDataModule(store, train_only="rarely").training_data,
        EcgDataModule(store, train_only="often", train_folds=[1, 2, 3, 4, 5]).training_data,
        MixtureDataModule([store, made(tmp_path / "other")], train_only="often").training_data,
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert EcgDataModule(store, train_only="often").training_data == fingerprints[1]
    assert f"only often, {len(alone())} records " in fingerprints[1]


def test_another_label_set_gives_the_label_to_other_records_and_the_fingerprint_says_so(tmp_path):
    sets = {"two": {"often": ("often",), "rarely": ("rarely",)}, "one": {"often": ("often",)}}
    store = stream_store(tmp_path / "made", 40, label_sets=sets, codes=[CODES[row % 4] for row in range(40)])
    two, one = (EcgDataModule(store, labels=name, train_only="often") for name in sets)
    assert len(one.split["train"]) > len(two.split["train"])
    assert two.training_data != one.training_data


def test_a_mixture_trains_on_such_records_of_every_store_by_its_weights(tmp_path, store):
    other = made(tmp_path / "other", 80)
    data = MixtureDataModule([store, other], train_only="often")
    assert positions(data.train_dataloader()) == alone() + alone(80, first=40)
    weighted = MixtureDataModule([store, other], [3, 1], train_only="often")
    sampler = weighted.train_dataloader().sampler
    drawn = []
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn.append(weighted.split["train"][sampler.order()])
    assert set(np.concatenate(drawn)) == {*alone(), *alone(80, first=40)}
    assert (np.concatenate(drawn) < 40).mean() == pytest.approx(0.75, abs=0.03)


def test_a_label_that_is_not_there_is_answered_with_the_nearest(store):
    with pytest.raises(ConfigurationError, match=r"data.train_only is 'oftn': no such label. Did you mean 'often'\?"):
        EcgDataModule(store, train_only="oftn")


def test_data_without_labels_have_nothing_to_choose_by(tmp_path):
    store = stream_store(tmp_path / "made", 20, label_sets={})
    with pytest.raises(ConfigurationError, match=r"data have no labels: choose a label set with data.labels"):
        EcgDataModule(store, train_only="often")


def test_a_store_without_such_a_record_is_named(tmp_path, store):
    none = made(tmp_path / "none", codes=[["often", "rarely"], []])
    for make in (
        lambda: EcgDataModule(none, train_only="often"),
        lambda: MixtureDataModule([store, none], train_only="often"),
    ):
        with pytest.raises(ConfigurationError, match=r"None of the 32 records of .*none in the folds \[1, .*'often'"):
            make().train_dataloader()


def test_it_is_set_from_the_command_line(store):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(StoresDataModule, "data")
    arguments = ["--data=EcgDataModule", f"--data.init_args.store={store}", "--data.init_args.train_only=rarely"]
    data = parser.instantiate(parser.parse_args(arguments)).data
    assert data.train_only == "rarely"


@given(rows=st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), max_size=20), column=st.integers(0, 2))
def test_a_record_is_chosen_if_its_set_of_labels_is_this_one(rows, column):
    labels = np.array(rows, dtype=np.uint8).reshape(-1, 3)
    expected = [{place for place, value in enumerate(row) if value} == {column} for row in rows]
    assert only_label(labels, column).tolist() == expected
