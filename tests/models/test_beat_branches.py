"""The branches over beats, each by itself: the median beat, the rhythm, and every beat."""

import pytest
import torch
import torch.nn.functional as F

from ecgfair.errors import ConfigurationError
from ecgfair.models.beat_branches import LEAST_VARIANCE, EachBeatBranch, RhythmBranch, ShapeBranch
from ecgfair.signals.aligned_beats import POINTS
from tests.models.beat_cases import random_views, settled

LEADS, WIDTH, EMBEDDING = 3, 7, 5


def rhythm_branch():
    torch.manual_seed(0)
    return settled(RhythmBranch(WIDTH))


def each_branch():
    torch.manual_seed(0)
    return settled(EachBeatBranch(LEADS, [4, 5, 6], EMBEDDING, 0.0))


def views(*counts, columns=9, slots=None):
    return random_views(*counts, leads=LEADS, columns=columns, slots=slots)


def rows_of(view, rows):
    return type(view)(*(part[rows] for part in view))


def statistics(module):
    """What all norms have counted so far."""
    return {name: value.clone() for name, value in module.named_buffers()}


# The shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [LEADS, 2 * LEADS])
@pytest.mark.parametrize("widths", [[4, 4], [4, 6, 6], [4, 4, 4, 4, 4], [8, 4, 4, 4, 4, 4, 4]])
def test_a_shape_branch_says_how_many_features_it_has(widths, channels):
    branch = ShapeBranch(channels, widths, 0.1)
    # All blocks but the first halve time.
    assert branch.features == widths[-1] * -(-POINTS // 2 ** (len(widths) - 2))
    assert branch(torch.randn(2, channels, POINTS)).shape == (2, branch.features)


def test_the_shape_branch_keeps_where_in_the_beat_something_is():
    branch = settled(ShapeBranch(2, [4, 4], 0.0))
    shape = torch.zeros(2, 2, POINTS)
    shape[0, 0, 10], shape[1, 0, 60] = 1, 1
    early, late = branch(shape).unflatten(1, (4, POINTS))
    still = branch(torch.zeros(1, 2, POINTS))[0].unflatten(0, (4, POINTS))
    # The squeeze shifts all of a channel; the wave itself is found where it is.
    assert int((early - still).diff(dim=-1).abs().amax(dim=0).argmax()) in range(30)
    assert int((late - still).diff(dim=-1).abs().amax(dim=0).argmax()) in range(40, 78)


# The rhythm -----------------------------------------------------------------------------------------------------------


def rhythm_by_hand(branch, rhythm):
    """What a rhythm of K beats (``CHANNELS``, K) becomes where no beat is beside the first and the last."""
    found = rhythm[None]
    for convolution, norm in zip(branch.convolutions, branch.norms, strict=True):
        found = F.silu(norm(convolution(found)[0].T)).T[None]
    return torch.cat([found[0].mean(dim=-1), found[0].amax(dim=-1)])


@pytest.mark.parametrize("columns", [12, 13, 20, 60])
def test_a_rhythm_does_not_depend_on_the_padding_of_its_batch(columns):
    branch, counts = rhythm_branch(), (12, 7, 2, 1)
    view = views(*counts, columns=columns)
    features = branch(view.rhythm)
    assert features.shape == (len(counts), branch.features)
    for row, count in enumerate(counts):
        expected = rhythm_by_hand(branch, view.rhythm[row, :, :count])
        torch.testing.assert_close(features[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [13, 40])
def test_in_training_the_statistics_of_a_rhythm_are_those_of_its_beats_however_long_the_padding(columns):
    counts = (12, 7, 0, 1)
    plain, padded = rhythm_branch().train(), rhythm_branch().train()
    before = statistics(plain)
    expected = plain(views(*counts, columns=12).rhythm)
    torch.testing.assert_close(padded(views(*counts, columns=columns).rhythm), expected, atol=1e-5, rtol=1e-5)
    for name, value in statistics(padded).items():
        torch.testing.assert_close(value, statistics(plain)[name], atol=1e-6, rtol=1e-5)
        assert not torch.equal(value, before[name]), name


def test_in_training_beats_are_normalised_by_the_mean_and_the_spread_over_all_beats_of_the_batch():
    branch, view = rhythm_branch().train(), views(9, 3)
    branch.norms[0].reset_parameters()
    first = branch.convolutions[0](view.rhythm).transpose(1, 2)
    beats = torch.cat([first[0, :9], first[1, :3]])
    seen = []
    branch.norms[0].register_forward_hook(lambda _, __, told: seen.append(told))
    branch(view.rhythm)
    spread = beats.var(dim=0, correction=0)
    torch.testing.assert_close(seen[0], (beats - beats.mean(dim=0)) / (spread + 1e-5).sqrt(), atol=1e-5, rtol=1e-4)


def test_the_order_of_beats_makes_the_rhythm():
    branch, view = rhythm_branch(), views(6, columns=6)
    swapped = view.rhythm[..., [0, 3, 2, 1, 4, 5]]
    assert not torch.allclose(branch(view.rhythm), branch(swapped), atol=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_a_record_without_beats_has_a_rhythm_of_0_and_finite_gradients(training):
    branch = rhythm_branch().train(training)
    features = branch(views(4, 0).rhythm)
    assert features.isfinite().all()
    assert not features[1].any()
    assert features[0].any()
    features.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in branch.parameters())
    assert branch.convolutions[0].weight.grad.any()


# Every beat -----------------------------------------------------------------------------------------------------------


def every_beat_by_hand(branch, view, row):
    """What the beats of a record become, one by one: their mean, their spread and their maximum."""
    found = []
    for beat, column in zip(view.each[row], view.column[row].tolist(), strict=True):
        if column >= 0:
            told = torch.cat([branch.embed(branch.shape(beat[None]))[0], view.rhythm[row, :, column]])
            found.append(branch.mix(told[None])[0])
    found = torch.stack(found)
    spread = (found.var(dim=0, correction=0) + LEAST_VARIANCE).sqrt()
    return torch.cat([found.mean(dim=0), spread, found.amax(dim=0)])


@pytest.mark.parametrize("slots", [4, 9, 12])
def test_beats_become_the_mean_the_spread_and_the_maximum_of_what_each_is_told_when_it_came(slots):
    branch, view = each_branch(), views(9, 3, 1, slots=slots)
    features = branch(view)
    assert features.shape == (3, branch.features) == (3, 3 * EMBEDDING)
    for row in range(3):
        torch.testing.assert_close(features[row], every_beat_by_hand(branch, view, row), atol=1e-5, rtol=1e-4)


def test_a_beat_is_embedded_by_what_it_looks_like_alone():
    branch, beats = each_branch(), torch.randn(6, LEADS, POINTS)
    embedded = branch.embed_beats(beats)
    assert embedded.shape == (6, EMBEDDING)
    torch.testing.assert_close(embedded[4:5], branch.embed_beats(beats[4:5]))
    assert not torch.allclose(embedded[4], embedded[5], atol=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_the_order_in_which_beats_are_shown_is_of_no_importance(training):
    view = views(9, 4)
    order = torch.tensor([[8, 2, 0, 5, 1, 7, 3, 6, 4], [5, 3, 8, 0, 7, 1, 6, 2, 4]])
    rows = torch.arange(2)[:, None]
    shuffled = view._replace(each=view.each[rows, order], column=view.column[rows, order])
    features = [each_branch().train(training)(shown) for shown in (view, shuffled)]
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-4)


def test_when_a_beat_came_changes_what_is_found():
    branch, view = each_branch(), views(5)
    swapped = view.column.clone()
    swapped[0, [1, 3]] = view.column[0, [3, 1]]
    assert not torch.allclose(branch(view), branch(view._replace(column=swapped)), atol=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_empty_slots_change_nothing_whatever_stands_in_them(training):
    view = views(9, 4, 0, slots=9)
    more = random_views(0, 0, 0, leads=LEADS, columns=9, slots=5)
    padded = view._replace(
        each=torch.cat([view.each, more.each], dim=1), column=torch.cat([view.column, more.column], dim=1)
    )
    empty = padded.column < 0
    assert empty.sum(dim=1).tolist() == [5, 10, 14]
    filled = padded._replace(each=padded.each.masked_fill(empty[..., None, None], 50.0))
    branches = [each_branch().train(training) for _ in range(3)]
    expected, *others = [branch(shown) for branch, shown in zip(branches, (view, padded, filled), strict=True)]
    for branch, features in zip(branches[1:], others, strict=True):
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
        for name, value in statistics(branch).items():
            torch.testing.assert_close(value, statistics(branches[0])[name], atol=1e-6, rtol=1e-5)


def test_the_beats_of_a_record_are_read_alike_whoever_stands_beside_it():
    branch, view = each_branch(), views(9, 0, 3, 1)
    together = branch(view)
    for row in range(4):
        torch.testing.assert_close(together[row : row + 1], branch(rows_of(view, [row])), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[[3, 0]], branch(rows_of(view, [3, 0])), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("counts", [(5, 0), (0, 5), (1, 0)])
def test_a_record_without_beats_is_0_beside_one_with_beats_and_leaves_gradients_finite(counts, training):
    branch = each_branch().train(training)
    features = branch(views(*counts))
    of_none = torch.tensor(counts) == 0
    assert not features[of_none].any()
    assert features[~of_none].any()
    features.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in branch.parameters())


@pytest.mark.parametrize("branch", ["rhythm", "each"])
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_without_any_beat_is_0_has_a_gradient_of_0_for_every_weight_and_counts_for_nothing(training, branch):
    built = (rhythm_branch() if branch == "rhythm" else each_branch()).train(training)
    before = statistics(built)
    view = views(0, 0, 0)
    features = built(view.rhythm if branch == "rhythm" else view)
    assert features.shape == (3, built.features)
    assert not features.any()
    (features + 1).square().sum().backward()
    for name, weight in built.named_parameters():
        assert weight.grad is not None, name
        assert torch.equal(weight.grad, torch.zeros_like(weight)), name
    assert all(torch.equal(value, before[name]) for name, value in statistics(built).items())


def test_one_beat_in_all_of_a_batch_is_trained_on():
    branch = each_branch().train()
    features = branch(views(0, 1, 0))
    assert features.isfinite().all()
    assert torch.equal(features.any(dim=1), torch.tensor([False, True, False]))
    mean, spread, most = features[1].split(EMBEDDING)
    assert torch.equal(mean, most)
    torch.testing.assert_close(spread, torch.full((EMBEDDING,), LEAST_VARIANCE**0.5))
    features.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in branch.parameters())
    assert branch.embed.weight.grad.any()


def test_beats_that_are_all_alike_differ_by_the_least_and_leave_gradients_finite():
    branch, view = each_branch(), views(4)
    view.each[0, 1:4], view.rhythm[0, :, 1:4] = view.each[0, 0], view.rhythm[0, :, :1]
    features = branch(view)
    torch.testing.assert_close(features[0, EMBEDDING : 2 * EMBEDDING], torch.full((EMBEDDING,), LEAST_VARIANCE**0.5))
    features.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in branch.parameters())


def test_every_weight_over_beats_learns():
    view = views(9, 5, 4)
    for branch, shown in ((rhythm_branch(), view.rhythm), (each_branch(), view)):
        branch.train()(shown).square().sum().backward()
        taken_out = {"embed.bias", *(f"convolutions.{place}.bias" for place in range(3))}
        for name, weight in branch.named_parameters():
            assert weight.grad.isfinite().all()
            # The mean of a norm takes out the bias before it, but for what rounding leaves.
            assert weight.grad.any() or name in taken_out, name


# Norms and refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ShapeBranch(LEADS, [8], 0.0),
            r"shape_widths is \[8\]: expected the channels of the first convolution",
        ),
        (lambda: EachBeatBranch(LEADS, [4, 0], 5, 0.0), r"beat_widths is \[4, 0\].*1 at least"),
        (lambda: EachBeatBranch(LEADS, [4, 4], 0, 0.0), "beat_embedding is 0: expected 1 or more"),
        (lambda: RhythmBranch(0), "rhythm_width is 0: expected 1 channel or more"),
    ],
)
def test_widths_that_make_no_branch_are_refused(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()
