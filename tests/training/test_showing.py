"""What the network of stage 2 is shown of a batch: signals and views, cropped, cut and mixed."""

import math

import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.signals.augmentation import Augmentation
from ecgfair.signals.windows import Windows
from ecgfair.training.showing import Showing
from tests.training.finetune_cases import STATISTICS, UNCHANGED, labelled_batch, view_of

RECORDS, RATE = 8, 100.0


def showing(**settings):
    """One that changes nothing but what is asked for."""
    plain = {
        "sampling_rate": RATE,
        "augmentation": UNCHANGED,
        "mixup": 0.0,
        "windows": Windows(),
        "attribute_statistics": None,
        "views": True,
    }
    return Showing(**(plain | settings))


def marked_batch():
    """Records with a label each of their own: a row of mixed labels then says who is in the mixture."""
    batch = labelled_batch(RECORDS)
    batch["labels"] = torch.eye(RECORDS)
    return batch


def assert_same_views(one, other):
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def mixture(share, whole):
    """Each row as the weighted sum of all rows."""
    return torch.einsum("ij,j...->i...", share, whole)


# In training ----------------------------------------------------------------------------------------------------------


def test_without_any_change_a_batch_is_shown_as_it_is():
    batch = labelled_batch()
    shown, labels = showing().augmented(batch)
    assert torch.equal(shown.signal, batch["signal"])
    assert labels is batch["labels"]
    assert shown.attributes is None
    assert_same_views(shown.view, view_of(batch))


def test_a_crop_shortens_the_signal_and_leaves_the_view_whole():
    batch = labelled_batch()
    cropped = Augmentation(crop_seconds=1.5, lead_dropout=0, scaling=0, noise=0)
    shown, _ = showing(augmentation=cropped).augmented(batch)
    assert shown.signal.shape == (RECORDS, 12, 150)
    assert_same_views(shown.view, view_of(batch))
    assert torch.equal(shown.view.rhythm[0, 0], torch.tensor([1.0, 1, 1, 1, 0])), "all beats, one of which is cut off"


def test_what_happens_to_the_time_and_the_baseline_of_a_signal_leaves_the_view_as_recorded():
    batch = labelled_batch()
    settings = {"baseline_wander": 0.3, "powerline": 0.1, "time_warp": 0.1}
    moved = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0, noise=0, **settings)
    shown, _ = showing(augmentation=moved).augmented(batch)
    assert not torch.equal(shown.signal, batch["signal"])
    assert_same_views(shown.view, view_of(batch))


def test_noise_scaling_and_lost_leads_change_the_view_in_training_alone():
    batch = labelled_batch()
    strong = Augmentation(crop_seconds=None, lead_dropout=0.3, scaling=0.2, noise=0.1)
    shown, _ = showing(augmentation=strong).augmented(batch)
    assert not torch.equal(shown.view.shape, view_of(batch).shape)
    assert not torch.equal(shown.view.rhythm, view_of(batch).rhythm)
    assert not any(torch.equal(beat, other) for beat in shown.view.each[0] for other in view_of(batch).each[0])
    still, _ = showing(augmentation=strong).windows_of(batch)
    assert torch.equal(still.signal, batch["signal"])
    assert_same_views(still.view, view_of(batch))


@pytest.mark.parametrize("crop", [None, 2.0])
def test_mixup_mixes_signal_labels_shape_rhythm_and_beats_with_one_partner_and_one_weight(crop):
    batch = marked_batch()
    cropped = Augmentation(crop_seconds=crop, lead_dropout=0, scaling=0, noise=0)
    torch.manual_seed(4)
    unmixed, _ = showing(augmentation=cropped).augmented(batch)
    torch.manual_seed(4)  # crops come first, and so are the same
    shown, share = showing(augmentation=cropped, mixup=2.0).augmented(batch)
    own = share.diagonal()
    assert ((own > 0.51) & (own < 0.99)).sum() >= RECORDS // 2, "most records are mixed"
    torch.testing.assert_close(share.sum(1), torch.ones(RECORDS))
    torch.testing.assert_close(shown.signal, mixture(share, unmixed.signal), atol=1e-5, rtol=1e-5)
    view = view_of(batch)
    torch.testing.assert_close(shown.view.shape, mixture(share, view.shape), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown.view.rhythm, mixture(share, view.rhythm), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown.view.each, mixture(share, view.each), atol=1e-5, rtol=1e-5)
    assert torch.equal(shown.view.column, view.column), "a row is mostly its own record"
    assert torch.equal(shown.view.has_beat, view.has_beat), "and has beats if that has"
    assert view.has_beat.tolist() == [True, False, *[True] * 6]


def test_mixup_without_views_mixes_signal_and_labels():
    batch = marked_batch()
    shown, share = showing(mixup=2.0, views=False).augmented(batch)
    assert shown.view is None
    assert (share.diagonal() < 0.99).any()
    torch.testing.assert_close(shown.signal, mixture(share, batch["signal"]), atol=1e-5, rtol=1e-5)


def test_mixup_leaves_attributes_and_the_batch_as_they_are():
    batch = marked_batch()
    before = {name: value.clone() for name, value in batch.items()}
    shown, _ = showing(mixup=2.0, attribute_statistics=STATISTICS).augmented(batch)
    torch.testing.assert_close(
        shown.attributes, before["attributes"] * torch.tensor(STATISTICS.std) + torch.tensor(STATISTICS.mean)
    )
    assert all(torch.equal(batch[name], value) for name, value in before.items())


# Elsewhere ------------------------------------------------------------------------------------------------------------


def test_a_record_as_a_whole_is_one_window():
    batch = labelled_batch()
    shown, windows = showing(mixup=2.0).windows_of(batch)
    assert windows == 1
    assert torch.equal(shown.signal, batch["signal"])
    assert_same_views(shown.view, view_of(batch))


def test_windows_of_a_record_come_one_after_the_other_each_beside_the_view_of_the_whole_record():
    batch, starts = labelled_batch(), (0, 100, 200, 250)
    cut = showing(windows=Windows(seconds=1.5, stride_seconds=1.0), attribute_statistics=STATISTICS)
    shown, windows = cut.windows_of(batch)
    assert windows == len(starts)
    whole, view = showing(attribute_statistics=STATISTICS).windows_of(batch)[0], view_of(batch)
    for record in range(RECORDS):
        for number, start in enumerate(starts):
            row = record * windows + number
            assert torch.equal(shown.signal[row], batch["signal"][record, :, start : start + 150])
            assert torch.equal(shown.attributes[row], whole.attributes[record])
            assert all(torch.equal(part[row], of[record]) for part, of in zip(shown.view, view, strict=True))
    assert len(shown.signal) == len(shown.attributes) == len(shown.view.shape) == RECORDS * windows


@pytest.mark.parametrize("windows", [Windows(), Windows(seconds=1.5)])
def test_what_the_network_does_not_ask_for_is_not_shown(windows):
    shown, _ = showing(views=False, windows=windows).windows_of(labelled_batch())
    assert shown.view is None
    assert shown.attributes is None


def test_what_is_not_known_of_a_patient_stays_unknown():
    batch = labelled_batch()
    batch["attributes"][3, 2] = math.nan
    shown, _ = showing(attribute_statistics=STATISTICS).windows_of(batch)
    assert shown.attributes.isnan().nonzero().tolist() == [[3, 2]]


def test_what_was_not_recorded_is_silent_in_signal_and_view():
    batch = labelled_batch()
    batch["recorded"][0, 4] = False
    noisy = Augmentation(crop_seconds=None, lead_dropout=0, scaling=0.1, noise=0.1)
    shown, _ = showing(augmentation=noisy).augmented(batch)
    assert not shown.signal[0, 4].any()
    assert not shown.view.shape[0, [4, 16]].any()
    assert not shown.view.each[0, :, 4].any()
    assert shown.view.shape[1:, 16].any()
    assert shown.view.each[1:, :, 4].any()


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_an_alpha_of_no_distribution_is_refused(alpha):
    with pytest.raises(ConfigurationError, match=rf"mixup is {alpha}: expected 0, which is off, or more"):
        showing(mixup=alpha)
