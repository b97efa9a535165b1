"""The encoder of two scales: what its branches over beats make of a record, by itself."""

import pytest
import torch
from torch import nn

from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.models.encoder import EncoderSpec
from ecgfair.models.residual import ResidualEncoder
from ecgfair.models.two_scale import RhythmBranch, ShapeBranch, TwoScaleEncoder
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.beat_view import BeatView, beat_view
from ecgfair.signals.rhythm_view import CHANNELS
from ecgfair.training import EncoderCheckpoint, load_encoder, save_encoder

NARROW = {"widths": [8, 12], "trend_widths": [4, 6], "beat_widths": [4, 5, 6], "rhythm_width": 7}
LEADS = 3


def settled(module):
    """The module as after training: norms with statistics and weights of their own, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            for values in (part.running_mean, part.weight.data, part.bias.data):
                values.copy_(torch.randn(values.shape, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
    return module.eval()


def encoder():
    torch.manual_seed(0)
    return settled(TwoScaleEncoder(LEADS, **NARROW))


def rhythm_branch():
    torch.manual_seed(0)
    return settled(RhythmBranch(7))


def views(*counts, columns):
    """Random views of records with so many beats."""
    generator = torch.Generator().manual_seed(2)
    shape = torch.randn(len(counts), 2 * LEADS, POINTS, generator=generator)
    rhythm = torch.zeros(len(counts), CHANNELS, columns)
    for row, count in enumerate(counts):
        rhythm[row, :, :count] = torch.randn(CHANNELS, count, generator=generator)
        rhythm[row, 0, :count] = 1
    has_beat = torch.tensor(counts) > 0
    return BeatView(shape * has_beat[:, None, None], rhythm, has_beat)


def of_row(view, row, columns):
    return BeatView(view.shape[row : row + 1], view.rhythm[row : row + 1, :, :columns], view.has_beat[row : row + 1])


# Shapes ---------------------------------------------------------------------------------------------------------------


def test_beats_are_as_many_features_as_both_branches_have():
    built = encoder()
    features = built.encode_beats(views(5, 2, columns=8))
    # Time is halved once: by the second of the two blocks. Of a rhythm there are a mean and a maximum.
    of_shape, of_rhythm = 6 * (POINTS // 2), 2 * 7
    assert (built.shape_branch.features, built.rhythm_branch.features) == (of_shape, of_rhythm)
    assert features.shape == (2, built.beat_features) == (2, of_shape + of_rhythm)


@pytest.mark.parametrize("widths", [[4, 4], [4, 6, 6], [4, 4, 4, 4, 4], [8, 4, 4, 4, 4, 4, 4]])
def test_a_shape_branch_says_how_many_features_it_has(widths):
    branch = ShapeBranch(LEADS, widths, 0.1)
    assert branch(torch.randn(2, 2 * LEADS, POINTS)).shape == (2, branch.features)


def test_the_features_of_beats_are_those_of_the_shape_beside_those_of_the_rhythm():
    built, view = encoder(), views(5, 2, columns=8)
    features = built.encode_beats(view)
    of_shape = built.shape_branch.features
    assert torch.equal(features[:, :of_shape], built.shape_branch(view.shape))
    assert torch.equal(features[:, of_shape:], built.rhythm_branch(view.rhythm))
    other_rhythm = built.encode_beats(view._replace(rhythm=2 * view.rhythm))
    assert torch.equal(other_rhythm[:, :of_shape], features[:, :of_shape])
    assert not torch.equal(other_rhythm, features)


def test_the_shape_branch_keeps_where_in_the_beat_something_is():
    branch = settled(ShapeBranch(1, [4, 4], 0.0))
    shape = torch.zeros(2, 2, POINTS)
    shape[0, 0, 10], shape[1, 0, 60] = 1, 1
    early, late = branch(shape).unflatten(1, (4, POINTS))
    still = branch(torch.zeros(1, 2, POINTS))[0].unflatten(0, (4, POINTS))
    # The squeeze shifts all of a channel; the wave itself is found where it is.
    assert int((early - still).diff(dim=-1).abs().amax(dim=0).argmax()) in range(30)
    assert int((late - still).diff(dim=-1).abs().amax(dim=0).argmax()) in range(40, 78)


def test_the_signal_is_encoded_as_by_the_residual_encoder():
    built = encoder()
    plain = ResidualEncoder(LEADS, NARROW["widths"], NARROW["trend_widths"]).eval()
    plain.load_state_dict({name: value for name, value in built.state_dict().items() if name in plain.state_dict()})
    signal = torch.randn(2, LEADS, 400)
    assert torch.equal(built(signal).features(), plain(signal).features())


# A record by itself ---------------------------------------------------------------------------------------------------


def rhythm_by_hand(branch, rhythm):
    """What a rhythm of K beats (``CHANNELS``, K) becomes where no beat is beside the first and the last."""
    found = rhythm[None]
    for convolution, norm in zip(branch.stages[0::3], branch.stages[1::3], strict=True):
        found = nn.functional.silu(norm(convolution(found)))
    return torch.cat([found[0].mean(dim=-1), found[0].amax(dim=-1)])


@pytest.mark.parametrize("columns", [12, 13, 20, 60])
def test_a_rhythm_does_not_depend_on_the_padding_of_its_batch(columns):
    branch, counts = rhythm_branch(), (12, 7, 2, 1)
    view = views(*counts, columns=columns)
    features = branch(view.rhythm)
    for row, count in enumerate(counts):
        expected = rhythm_by_hand(branch, view.rhythm[row, :, :count])
        torch.testing.assert_close(features[row], expected, atol=1e-5, rtol=1e-5)


def test_the_features_of_a_record_do_not_depend_on_its_neighbours():
    built, counts = encoder(), (9, 0, 3)
    together = built.encode_beats(views(*counts, columns=15))
    for row, count in enumerate(counts):
        alone = built.encode_beats(of_row(views(*counts, columns=15), row, max(count, 1)))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def test_the_order_of_beats_makes_the_rhythm():
    branch, view = rhythm_branch(), views(6, columns=6)
    swapped = view.rhythm[..., [0, 3, 2, 1, 4, 5]]
    assert not torch.allclose(branch(view.rhythm), branch(swapped), atol=1e-3)


def test_a_record_without_beats_has_a_rhythm_of_0_and_finite_features_in_training_too():
    built = encoder()
    for mode in (False, True):
        features = built.train(mode).encode_beats(views(4, 0, columns=6))
        assert features.isfinite().all()
        assert not features[1, built.shape_branch.features :].any()
        assert features[0, built.shape_branch.features :].any()
        (grown,) = torch.autograd.grad(features.square().sum(), [built.rhythm_branch.stages[0].weight])
        assert grown.isfinite().all()


def test_a_record_whose_beats_were_never_looked_for_is_encoded():
    signal, recorded = torch.randn(2, LEADS, 400), torch.ones(1, 1, 1, dtype=torch.bool)
    built = encoder()
    unsought = built.encode_beats(beat_view(signal, recorded, torch.zeros(2, 0, dtype=torch.int64), 100.0))
    assert torch.equal(unsought, built.encode_beats(beat_view(signal, recorded, torch.full((2, 4), -1), 100.0)))


def test_every_weight_over_beats_learns():
    built = encoder().train()
    built.encode_beats(views(6, 5, 4, columns=9)).square().sum().backward()
    for branch in (built.shape_branch, built.rhythm_branch):
        for name, weight in branch.named_parameters():
            assert weight.grad.isfinite().all()
            assert weight.grad.any() or name in ("stages.0.bias", "stages.3.bias", "stages.6.bias"), name


# Layers and checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beat_widths", [[4, 4], [4, 4, 4], [4] * 6])
def test_beats_join_the_last_layers_whichever_scale_is_deeper(beat_widths):
    built = TwoScaleEncoder(LEADS, **(NARROW | {"beat_widths": beat_widths}))
    of_signal = ResidualEncoder.layers(built)
    groups, branch = built.layers(), built.shape_branch
    assert len(groups) == max(len(of_signal), len(beat_widths))
    assert all(groups)
    assert branch.blocks[-1] in groups[-1]
    assert branch.norm in groups[-1]
    assert built.signal_branch.norm in groups[-1]
    place = {id(module): depth for depth, group in enumerate(groups) for module in group}
    depths = [place[id(module)] for module in (branch.stem, *branch.blocks)]
    assert depths == list(range(len(groups) - len(beat_widths), len(groups)))
    assert place[id(built.rhythm_branch)] == depths[0]
    assert [place[id(group[0])] for group in of_signal] == list(range(len(groups) - len(of_signal), len(groups)))
    grouped = sorted(id(weight) for group in groups for module in group for weight in module.parameters())
    assert grouped == sorted(id(weight) for weight in built.parameters())


def checkpoint_of(spec):
    usual = AttributeStatistics((50.0, 0.0, 70.0, 160.0, 95.0, 390.0, 410.0), (10.0, 1.0, 10.0, 20.0, 10.0, 30.0, 20.0))
    return EncoderCheckpoint(spec, Preprocessing(leads=("I", "II", "V1"), length=400), usual, "none")


def test_a_checkpoint_gives_back_both_scales(tmp_path):
    saved = encoder()
    save_encoder(tmp_path / "encoder", saved, checkpoint_of(EncoderSpec("TwoScaleEncoder", NARROW)))
    loaded, told = load_encoder(tmp_path / "encoder")
    assert told.spec == EncoderSpec("TwoScaleEncoder", NARROW)
    signal, view = torch.randn(2, LEADS, 400), views(5, 0, columns=6)
    loaded.eval()
    assert torch.equal(loaded(signal).features(), saved(signal).features())
    assert torch.equal(loaded.encode_beats(view), saved.encode_beats(view))


def test_a_checkpoint_of_one_scale_is_not_taken_for_one_of_two(tmp_path):
    plain = ResidualEncoder(LEADS, NARROW["widths"], NARROW["trend_widths"])
    save_encoder(tmp_path / "encoder", plain, checkpoint_of(EncoderSpec("TwoScaleEncoder", NARROW)))
    with pytest.raises(CheckpointError, match=r"shape_branch"):
        load_encoder(tmp_path / "encoder")


def test_a_specification_sets_every_width():
    built = EncoderSpec("TwoScaleEncoder", NARROW | {"trend_window": 4, "dropout": 0.3}).build(LEADS)
    assert (built.leads, built.trend_window, built.signal_channels, built.channels) == (LEADS, 4, 12, 18)
    assert built.shape_branch.stem.in_channels == 2 * LEADS
    assert [built.shape_branch.stem.out_channels, built.shape_branch.norm.num_features] == [4, 6]
    assert built.rhythm_branch.stages[0].out_channels == 7
    assert {part.p for part in built.shape_branch.modules() if isinstance(part, nn.Dropout)} == {0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beat_widths": [8]}, r"beat_widths is \[8\]: expected the channels of the first convolution and of a block"),
        ({"beat_widths": []}, r"beat_widths is \[\]"),
        ({"beat_widths": [4, 0]}, r"beat_widths is \[4, 0\].*1 at least"),
        ({"beat_widths": "wide"}, "can't be built"),
        ({"rhythm_width": 0}, "rhythm_width is 0: expected 1 channel or more"),
        ({"rythm_width": 4}, "Did you mean 'rhythm_width'"),
        ({"widths": [8, 16, 24]}, r"8-fold.*4-fold"),
    ],
)
def test_widths_that_make_no_encoder_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        EncoderSpec("TwoScaleEncoder", NARROW | arguments).build(LEADS)


def test_an_encoder_of_one_scale_says_that_it_reads_no_beats():
    plain = ResidualEncoder(LEADS, NARROW["widths"], NARROW["trend_widths"])
    assert plain.beat_features == 0
    with pytest.raises(NotImplementedError, match="ResidualEncoder has no branch for beats"):
        plain.encode_beats(views(3, columns=3))
