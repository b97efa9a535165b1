import math

import numpy as np
import pytest
import scipy.stats
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.signals.mixup import mixup, own_weights


def batch(dtype=torch.float32, records=32):
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(records, 12, 100, generator=generator).to(dtype)
    labels = (torch.rand(records, 5, generator=generator) < 0.4).to(dtype)
    return signal, labels


def seeded(number=1):
    return torch.Generator().manual_seed(number)


def marked(records):
    """Records and labels that say who they are: row i holds 1 at i and 0 elsewhere."""
    one_hot = torch.eye(records)
    return one_hot[:, None].repeat(1, 3, 1), one_hot.clone()


def test_an_alpha_of_0_returns_the_very_tensors_that_were_given():
    signal, labels = batch()
    beside = torch.ones(32, 2), torch.ones(32)
    mixed = mixup(signal, labels, 0, beside=beside)
    assert len(mixup(signal, labels, 0)) == 2
    assert all(one is other for one, other in zip(mixed, (signal, labels, *beside), strict=True))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_each_row_is_a_mean_of_itself_and_one_other_and_mostly_itself(alpha):
    signal, labels = mixup(*marked(64), alpha, seeded())
    own = labels.diagonal()
    assert ((own >= 0.5) & (own <= 1)).all()
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(64))
    assert ((labels > 0).sum(dim=1) <= 2).all()
    assert torch.equal(signal, labels[:, None].expand_as(signal)), "signals and labels have one weight and one partner"


def test_what_stands_beside_is_mixed_with_the_same_partners_and_weights_in_the_order_it_was_given():
    signal, labels = marked(64)
    beside = torch.eye(64, dtype=torch.float64), torch.eye(64)[:, :, None, None].repeat(1, 1, 2, 3), torch.arange(64.0)
    *mixed, flat, deep, counted = mixup(signal, labels, 1.0, seeded(), beside=beside)
    plain = mixup(signal, labels, 1.0, seeded())
    assert all(torch.equal(one, other) for one, other in zip(mixed, plain, strict=True))
    shares = plain[1]
    assert ((shares.diagonal() > 0.51) & (shares.diagonal() < 0.99)).any()
    assert flat.dtype == torch.float64
    torch.testing.assert_close(flat.float(), shares)
    assert torch.equal(deep, shares[:, :, None, None].expand_as(deep))
    torch.testing.assert_close(counted, shares @ torch.arange(64.0))


def test_partners_are_a_permutation_so_that_each_record_is_partner_once():
    _, labels = mixup(*marked(64), 5.0, seeded())
    share = labels - torch.diag(labels.diagonal())
    # A record that is its own partner, as about one in a batch is, has no share in another row.
    assert ((share > 0).sum(dim=0) <= 1).all()
    assert ((share > 0).sum(dim=0) == (share > 0).sum(dim=1)).all()
    assert (share > 0).any(dim=0).sum() >= 58


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 4.0, 100.0])
def test_weights_are_those_of_the_beta_distribution_folded_at_a_half(alpha):
    weights = own_weights(20_000, alpha, generator=seeded()).double().numpy()
    # Counted in classes: next to 1 float32 is coarser than the distribution. Of alpha 100 nearly all lies below 0.6.
    edges = np.array([0.5, 0.52, 0.54, 0.57, 0.6] if alpha > 10 else [0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.999])
    edges = np.append(edges, 1 + 1e-9)
    expected = len(weights) * 2 * np.diff(scipy.stats.beta(alpha, alpha).cdf(edges))
    counted = np.histogram(weights, edges)[0]
    few = expected < 5
    assert counted[few].sum() < 10
    expected, counted = expected[~few], counted[~few]
    assert scipy.stats.chisquare(counted, expected * counted.sum() / expected.sum()).pvalue > 0.001


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 1e6])
def test_extreme_alphas_give_weights_within_a_half_and_one(alpha):
    weights = own_weights(10_000, alpha, generator=seeded())
    assert ((weights >= 0.5) & (weights <= 1)).all()
    assert weights.mean().item() == pytest.approx(0.5 if alpha > 1 else 1.0, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_type_and_shape_are_kept_and_no_value_leaves_the_range_of_what_was_given(dtype):
    signal, labels = batch(dtype, records=512)
    before = signal.clone(), labels.clone()
    mixed_signal, mixed_labels = mixup(signal, labels, 1.0, seeded())
    assert (mixed_signal.dtype, mixed_labels.dtype) == (dtype, dtype)
    assert (mixed_signal.shape, mixed_labels.shape) == (signal.shape, labels.shape)
    assert ((mixed_labels >= 0) & (mixed_labels <= 1)).all()
    assert mixed_signal.abs().max() <= signal.abs().max()
    assert torch.equal(signal, before[0])
    assert torch.equal(labels, before[1])


def test_what_all_records_share_stays_exactly_as_it_is():
    signal, labels = torch.full((256, 12, 10), 0.7), torch.ones(256, 3)
    mixed_signal, mixed_labels = mixup(signal, labels, 1.0, seeded())
    assert torch.equal(mixed_labels, labels)
    torch.testing.assert_close(mixed_signal, signal, rtol=1e-6, atol=0)


def test_one_record_alone_is_mixed_with_itself():
    signal, labels = batch(records=1)
    mixed_signal, mixed_labels = mixup(signal, labels, 1.0, seeded())
    torch.testing.assert_close(mixed_signal, signal)
    torch.testing.assert_close(mixed_labels, labels)


def test_one_seed_gives_one_mixture_and_another_seed_another():
    torch.manual_seed(0)
    one = mixup(*batch(), 0.5, seeded(1))
    torch.manual_seed(1)
    again, other = mixup(*batch(), 0.5, seeded(1)), mixup(*batch(), 0.5, seeded(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ConfigurationError, match=f"alpha of mixup is {alpha}"):
        mixup(*batch(), alpha)


def test_whole_numbers_and_rows_that_do_not_match_are_refused():
    signal, labels = batch()
    with pytest.raises(ValueError, match=r"labels to mix are torch\.int64"):
        mixup(signal, labels.long(), 0.2)
    with pytest.raises(ValueError, match=r"signal to mix are torch\.int16"):
        mixup(signal.short(), labels, 0.2)
    with pytest.raises(ValueError, match="32 signals and 31 rows"):
        mixup(signal, labels[1:], 0.2)
