"""How many training records and positives a data module counts in each group."""

import numpy as np
import pytest
import torch

from data_modules.streaming.balancing import Sampling
from data_modules.streaming.datamodules import EcgDataModule
from data_modules.streaming.mixture import MixtureDataModule
from ecgfair.errors import ConfigurationError
from ecgfair.groups import group_by_demographics
from ecgfair.training.mitigation import GroupCounts
from tests.data_modules.streamed_store import stream_store

EDGES = (30, 50)


@pytest.fixture
def store(tmp_path):
    ages = [None if position % 7 == 0 else 20.0 + position for position in range(50)]
    return stream_store(tmp_path / "made", age=ages, sex=[None if p % 11 == 0 else int(p % 3 == 0) for p in range(50)])


def counted_in_batches(data, attribute):
    """Records and positives of the batches of an epoch."""
    records, positives = 0, 0
    for batch in data.train_dataloader():
        grouping = group_by_demographics(attribute, batch["age"], batch["sex"], EDGES)
        membership = grouping.membership().double()
        records, positives = records + membership.sum(1), positives + membership @ batch["labels"].double()
    return records, positives


@pytest.mark.parametrize("attribute", ["sex", "age", "sex_x_age"])
def test_counts_are_those_of_the_batches_of_an_epoch_and_hold_those_of_unknown_group(store, attribute):
    data = EcgDataModule(store, batch_size=7)
    records, positives = data.group_counts(attribute, EDGES)
    expected = counted_in_batches(data, attribute)
    torch.testing.assert_close(records, expected[0])
    torch.testing.assert_close(positives, expected[1])
    assert records[-1] > 0
    assert int(records.sum()) == len(data.split["train"])


def test_counts_as_drawn_follow_the_sampling_and_the_others_do_not(store):
    plain = EcgDataModule(store)
    data = EcgDataModule(store, sampling=Sampling("group", balance_groups="sex"))
    for found, expected in zip(data.group_counts("sex", EDGES), plain.group_counts("sex", EDGES), strict=True):
        torch.testing.assert_close(found, expected)
    drawn, positives = data.group_counts("sex", EDGES, as_drawn=True)
    assert drawn[0].item() == pytest.approx(drawn[1].item())
    assert drawn.sum().item() == pytest.approx(len(data.split["train"]))
    before = plain.group_counts("sex", EDGES)
    torch.testing.assert_close(positives / drawn[:, None], before[1] / before[0][:, None])


def test_counts_of_a_mixture_are_of_all_stores_and_follow_their_weights_as_drawn(tmp_path, store):
    other = stream_store(tmp_path / "other", 100)
    one, two = (EcgDataModule(name).group_counts("age", EDGES)[0] for name in (store, other))
    data = MixtureDataModule([store, other], [3, 1])
    torch.testing.assert_close(data.group_counts("age", EDGES)[0], one + two)
    drawn = data.group_counts("age", EDGES, as_drawn=True)[0]
    expected = 0.75 * one / one.sum() + 0.25 * two / two.sum()
    np.testing.assert_allclose(drawn / drawn.sum(), expected)


def test_it_is_what_a_mitigated_loss_asks_for(store):
    assert isinstance(EcgDataModule(store), GroupCounts)


def test_another_demographic_is_refused(store):
    with pytest.raises(ConfigurationError, match="height"):
        EcgDataModule(store).group_counts("height", EDGES)
