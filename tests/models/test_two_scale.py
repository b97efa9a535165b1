"""The encoder of two scales: what it makes of a record, and of its beats."""

import pytest
import torch
from torch import nn

from ecgfair.ecg import AttributeStatistics, Preprocessing
from ecgfair.errors import CheckpointError, ConfigurationError
from ecgfair.models.encoder import EncoderSpec
from ecgfair.models.residual import ResidualEncoder
from ecgfair.models.two_scale import TwoScaleEncoder
from ecgfair.signals.aligned_beats import POINTS
from ecgfair.signals.beat_view import BeatView, beat_view
from ecgfair.training import EncoderCheckpoint, load_encoder, save_encoder
from tests.models.beat_cases import random_views, settled

NARROW = {
    "widths": [8, 12],
    "trend_widths": [4, 6],
    "shape_widths": [4, 5, 6],
    "rhythm_width": 7,
    "beat_widths": [4, 5, 6, 7],
    "beat_embedding": 5,
}
LEADS = 3


def encoder():
    torch.manual_seed(0)
    return settled(TwoScaleEncoder(LEADS, **NARROW))


def views(*counts, columns):
    return random_views(*counts, leads=LEADS, columns=columns)


def of_row(view, row, columns):
    """A record as it is alone in a batch: without the columns and the slots that only others fill."""
    only = slice(row, row + 1)
    shown = view.each[only, :columns], view.column[only, :columns]
    return BeatView(view.shape[only], view.rhythm[only, :, :columns], *shown, view.has_beat[only])


# Features -------------------------------------------------------------------------------------------------------------


def test_beats_are_as_many_features_as_each_branch_has():
    built = encoder()
    features = built.encode_beats(views(5, 2, columns=8))
    # Time is halved by all blocks but the first. Of a rhythm there are a mean and a maximum, of single beats a spread
    # as well.
    of_shape, of_rhythm, of_each = 6 * (POINTS // 2), 2 * 7, 3 * 5
    assert (built.shape_branch.features, built.rhythm_branch.features) == (of_shape, of_rhythm)
    assert built.beat_branch.features == of_each
    assert built.beat_features == (of_shape + of_rhythm, of_each)
    assert [part.shape for part in features] == [(2, of_shape + of_rhythm), (2, of_each)]


def test_the_features_of_the_median_beat_stand_beside_those_of_the_rhythm():
    built, view = encoder(), views(5, 2, columns=8)
    features, _ = built.encode_beats(view)
    of_shape = built.shape_branch.features
    assert torch.equal(features[:, :of_shape], built.shape_branch(view.shape))
    assert torch.equal(features[:, of_shape:], built.rhythm_branch(view.rhythm))
    other_rhythm, _ = built.encode_beats(view._replace(rhythm=2 * view.rhythm))
    assert torch.equal(other_rhythm[:, :of_shape], features[:, :of_shape])
    assert not torch.equal(other_rhythm, features)


def test_every_beat_by_itself_is_a_branch_of_its_own_that_is_told_the_rhythm():
    built, view = encoder(), views(5, 2, columns=8)
    shape, each = built.encode_beats(view)
    assert torch.equal(each, built.beat_branch(view))
    other_beats = built.encode_beats(view._replace(each=2 * view.each))
    assert torch.equal(other_beats[0], shape)
    assert not torch.allclose(other_beats[1], each, atol=1e-3)
    other_shape = built.encode_beats(view._replace(shape=2 * view.shape))
    assert not torch.allclose(other_shape[0], shape, atol=1e-3)
    assert torch.equal(other_shape[1], each)
    assert not torch.allclose(built.encode_beats(view._replace(rhythm=2 * view.rhythm))[1], each, atol=1e-3)


def test_a_single_beat_is_embedded_as_in_the_branch_that_reads_every_beat():
    built, beats = encoder(), torch.randn(4, LEADS, POINTS)
    embedded = built.embed_beats(beats)
    assert embedded.shape == (4, built.beat_embedding) == (4, 5)
    assert torch.equal(embedded, built.beat_branch.embed(built.beat_branch.shape(beats)))


def test_the_signal_is_encoded_as_by_the_residual_encoder():
    built = encoder()
    plain = ResidualEncoder(LEADS, NARROW["widths"], NARROW["trend_widths"]).eval()
    plain.load_state_dict({name: value for name, value in built.state_dict().items() if name in plain.state_dict()})
    signal = torch.randn(2, LEADS, 400)
    assert torch.equal(built(signal).features(), plain(signal).features())


def test_the_features_of_a_record_do_not_depend_on_its_neighbours():
    built, counts = encoder(), (9, 0, 3)
    together = built.encode_beats(views(*counts, columns=15))
    for row, count in enumerate(counts):
        alone = built.encode_beats(of_row(views(*counts, columns=15), row, max(count, 1)))
        for part, of_alone in zip(together, alone, strict=True):
            torch.testing.assert_close(part[row], of_alone[0], atol=1e-5, rtol=1e-4)


def test_a_record_without_beats_has_a_rhythm_and_beats_of_0_and_finite_features_in_training_too():
    built = encoder()
    learning = [built.rhythm_branch.convolutions[0].weight, built.beat_branch.embed.weight]
    for mode in (False, True):
        shape, each = built.train(mode).encode_beats(views(4, 0, columns=6))
        rhythm = shape[:, built.shape_branch.features :]
        for features in (rhythm, each):
            assert features[0].any()
            assert not features[1].any()
        assert shape.isfinite().all()
        assert each.isfinite().all()
        for grown in torch.autograd.grad(shape.square().sum() + each.square().sum(), learning):
            assert grown.isfinite().all()


def test_a_record_whose_beats_were_never_looked_for_is_encoded():
    signal, recorded = torch.randn(2, LEADS, 400), torch.ones(1, 1, 1, dtype=torch.bool)
    built = encoder()
    unsought = built.encode_beats(beat_view(signal, recorded, torch.zeros(2, 0, dtype=torch.int64), 100.0))
    without = built.encode_beats(beat_view(signal, recorded, torch.full((2, 4), -1), 100.0))
    assert all(torch.equal(one, other) for one, other in zip(unsought, without, strict=True))


# Layers and checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beat_widths", [[4, 4], [4, 4, 4], [4] * 6])
@pytest.mark.parametrize("shape_widths", [[4, 4], [4, 4, 4], [4] * 5])
def test_beats_join_the_last_layers_whichever_scale_is_deeper(shape_widths, beat_widths):
    built = TwoScaleEncoder(LEADS, **(NARROW | {"shape_widths": shape_widths, "beat_widths": beat_widths}))
    of_signal, shape, each = ResidualEncoder.layers(built), built.shape_branch, built.beat_branch
    of_shape = [[stage] for stage in (shape.stem, *shape.blocks)]
    of_shape[0].append(built.rhythm_branch)
    of_shape[-1].append(shape.norm)
    # What a single beat becomes is put together in a layer more.
    of_beat = [[stage] for stage in (each.shape.stem, *each.shape.blocks)] + [[each.embed, each.mix]]
    of_beat[-2].append(each.shape.norm)
    groups = built.layers()
    assert len(groups) == max(len(of_signal), len(of_shape), len(of_beat))
    assert all(groups)
    place = {id(module): depth for depth, group in enumerate(groups) for module in group}
    for branch in (of_signal, of_shape, of_beat):
        for from_the_end, stage in enumerate(reversed(branch), 1):
            assert {place[id(module)] for module in stage} == {len(groups) - from_the_end}
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
    for one, other in zip(loaded.encode_beats(view), saved.encode_beats(view), strict=True):
        assert torch.equal(one, other)


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
    assert built.rhythm_branch.convolutions[0].out_channels == 7
    of_beat = built.beat_branch.shape
    assert (of_beat.stem.in_channels, of_beat.stem.out_channels, of_beat.norm.num_features) == (LEADS, 4, 7)
    assert built.beat_branch.embed.out_features == 5
    for branch in (built.shape_branch, of_beat):
        assert {part.p for part in branch.modules() if isinstance(part, nn.Dropout)} == {0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"shape_widths": [8]},
            r"shape_widths is \[8\]: expected the channels of the first convolution and of a block",
        ),
        ({"shape_widths": []}, r"shape_widths is \[\]"),
        ({"shape_widths": [4, 0]}, r"shape_widths is \[4, 0\].*1 at least"),
        ({"shape_widths": "wide"}, "can't be built"),
        ({"beat_widths": [8]}, r"beat_widths is \[8\]: expected the channels of the first convolution and of a block"),
        ({"beat_widths": []}, r"beat_widths is \[\]"),
        ({"beat_widths": [4, 0]}, r"beat_widths is \[4, 0\].*1 at least"),
        ({"beat_widths": "wide"}, "can't be built"),
        ({"beat_embedding": 0}, "beat_embedding is 0: expected 1 or more"),
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
    assert plain.beat_features == ()
    with pytest.raises(NotImplementedError, match="ResidualEncoder has no branch for beats"):
        plain.encode_beats(views(3, columns=3))
    assert plain.beat_embedding == 0
    with pytest.raises(NotImplementedError, match="ResidualEncoder does not read single beats"):
        plain.embed_beats(torch.randn(2, LEADS, POINTS))
