import numpy as np
import pytest
from torch.utils.data import Dataset

from data_modules.streaming.training_sampler import TrainingLoader, TrainingSampler
from ecgfair.errors import ConfigurationError


def order(records, epoch=0, **settings):
    sampler = TrainingSampler(range(records), **settings)
    sampler.set_epoch(epoch)
    return list(sampler)


def interleaved(shares):
    return [position for step in zip(*shares, strict=True) for position in step]


def test_every_record_comes_once_an_epoch():
    assert sorted(order(10_000)) == list(range(10_000))
    assert {type(position) for position in order(10_000)} == {int}


@pytest.mark.parametrize("settings", [{}, {"weights": np.linspace(0, 1, 101)}, {"window": 2}])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_order_is_the_same_at_any_number_of_processes_and_all_have_equally_many(processes, settings):
    settings = {"seed": 3, "shards": np.arange(101, dtype=np.int32) // 10, **settings}
    alone = order(101, epoch=5, **settings)
    shares = [order(101, 5, num_replicas=processes, rank=rank, **settings) for rank in range(processes)]
    assert interleaved(shares) == alone[: 101 // processes * processes]
    assert len(TrainingSampler(range(101), processes, 0)) == 101 // processes == len(shares[0])


def test_records_left_out_by_an_uneven_share_are_others_every_epoch():
    left_out = set()
    for epoch in range(40):
        shares = [order(7, epoch, num_replicas=2, rank=rank) for rank in range(2)]
        left_out |= set(range(7)) - set(shares[0]) - set(shares[1])
    assert left_out == set(range(7))


def test_the_order_depends_on_the_epoch_and_on_the_seed_alone():
    assert order(100, 1) == order(100, 1)
    assert order(100, 1) != order(100, 2)
    assert order(100, 1, seed=0) != order(100, 1, seed=1)
    # Adding seed and epoch, as PyTorch does, would make these the same.
    assert order(100, 1, seed=0) != order(100, 0, seed=1)


def test_records_are_drawn_as_often_as_their_weights_say():
    weights = np.repeat([9.0, 3.0, 1.0], [100, 300, 600])
    counts = np.zeros(1000)
    for epoch in range(200):
        drawn = order(1000, epoch, weights=weights)
        assert len(drawn) == 1000
        counts += np.bincount(drawn, minlength=1000)
    expected = 200 * 1000 * weights / weights.sum()
    np.testing.assert_allclose(counts.reshape(-1, 100).sum(axis=1), expected.reshape(-1, 100).sum(axis=1), rtol=0.02)
    assert (np.abs(counts - expected) < 6 * np.sqrt(200 * 0.25)).all()  # each epoch rounds by less than one draw


def test_an_epoch_draws_each_record_as_often_as_expected_rounded_down_or_up():
    weights = np.repeat([9.0, 3.0, 1.0], [100, 300, 600])
    expected = 1000 * weights / weights.sum()
    counts = np.bincount(order(1000, weights=weights), minlength=1000)
    assert ((counts >= np.floor(expected)) & (counts <= np.ceil(expected))).all()


def test_equal_weights_draw_every_record_once():
    assert sorted(order(1000, weights=np.full(1000, 0.1))) == list(range(1000))


def test_repeated_records_are_spread_over_the_epoch():
    drawn = np.array(order(1000, weights=np.repeat([100.0, 1.0], [10, 990])))
    places = np.flatnonzero(drawn == drawn[drawn < 10][0])
    assert len(places) > 40
    assert np.ptp(places) > 700


def test_a_window_reads_so_many_files_at_a_time_in_a_new_order_every_epoch():
    shards = np.repeat(np.arange(10, dtype=np.int32), 7)
    read = [shards[order(70, epoch, shards=shards, window=2)] for epoch in range(2)]
    for files in read:
        groups = [set(files[start : start + 14].tolist()) for start in range(0, 70, 14)]
        assert [len(group) for group in groups] == [2] * 5
        assert set().union(*groups) == set(range(10))
    assert sorted(order(70, shards=shards, window=2)) == list(range(70))
    assert read[0].tolist() != read[1].tolist()
    within = order(70, shards=shards, window=2)[:14]
    assert within != sorted(within)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_an_epoch_goes_on_behind_what_was_seen_at_any_number_of_processes_that_divides_it(processes):
    whole = order(100, 4)
    stopped = TrainingSampler(range(100), 2, 0)
    stopped.seen = 40
    shares = []
    for rank in range(processes):
        sampler = TrainingSampler(range(100), processes, rank)
        sampler.load_state_dict(stopped.state_dict())
        sampler.set_epoch(4)
        shares.append(list(sampler))
    assert interleaved(shares) == whole[40:]


def test_a_changed_order_is_refused_by_what_changed():
    state = TrainingSampler(range(10), seed=1).state_dict()
    with pytest.raises(ConfigurationError, match="its order has changed: seed was 1 and is 2"):
        TrainingSampler(range(10), seed=2).load_state_dict(state)
    with pytest.raises(ConfigurationError, match="weights was 0 and is"):
        TrainingSampler(range(10), seed=1, weights=np.ones(10)).load_state_dict(state)


def test_a_number_of_processes_that_can_not_have_shared_what_was_seen_is_refused():
    state = TrainingSampler(range(100)).state_dict() | {"seen": 20}
    with pytest.raises(ConfigurationError, match="stopped after 20 records, which 3 processes"):
        TrainingSampler(range(100), 3, 0).load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_replicas": 3}, "2 training records can't be shared by 3 processes"),
        ({"weights": np.zeros(2)}, "all zero"),
        ({"weights": np.array([1.0, -1.0])}, "negative"),
        ({"weights": np.array([1.0, np.inf])}, "infinite"),
        ({"weights": np.array([1.0, np.nan])}, "negative, all zero or infinite"),
        ({"window": 2}, "files of the records are not given"),
    ],
)
def test_what_can_not_be_drawn_by_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingSampler(range(2), **settings)


class Positions(Dataset):
    def __len__(self):
        return 20

    def __getitems__(self, positions):
        return positions


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_takes_the_epoch_that_is_set_after_its_iterator_was_made(workers):
    sampler = TrainingSampler(Positions())
    asked = []
    settings = {"batch_size": 4, "num_workers": workers, "collate_fn": list}
    loader = TrainingLoader(Positions(), sampler, lambda: asked.append(sampler.epoch), **settings)
    batches = iter(loader)
    sampler.set_epoch(3)
    assert [position for batch in batches for position in batch] == order(20, 3)
    assert asked == [3]
    assert len(loader) == 5
