import pytest
import torch

from ecgfair.anomaly.beat_terms import BeatTerms
from ecgfair.anomaly.normal_beats import NormalBeats
from ecgfair.anomaly.reference import NormalReference
from ecgfair.anomaly.scoring import AnomalyScoring, Scoring
from ecgfair.anomaly.terms import SHAPE, VARIATION, Geometry, Terms
from ecgfair.errors import ConfigurationError
from tests.anomaly.scoring_cases import close, network, rows_of, same, take
from tests.signals.heart_cases import heart, peaks, wave

LEADS, TIME, RATE = 3, 1000, 100.0
GEOMETRY = Geometry(RATE, before=28, after=68)
RRS = (0.7, 0.8, 1.0, 1.2)
COLUMNS = 15
PLACES = 14


def hearts(count: int = 24, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Signal, recorded and beats of records of several rates, each with sizes of leads and waves of its own."""
    draw = torch.Generator().manual_seed(seed)
    rows, beats = [], []
    for row in range(count):
        rr = RRS[row % len(RRS)]
        other = heart(rr, first=0.63) * torch.randn(1, LEADS, 1, generator=draw)
        rows.append(heart(rr) * (0.7 + 0.6 * torch.rand(1, LEADS, 1, generator=draw)) + 0.1 * other)
        own = peaks(rr)
        beats.append(torch.nn.functional.pad(own, (0, COLUMNS - own.shape[1]), value=-1))
    signal = torch.cat(rows)
    signal = signal + 0.01 * torch.randn(signal.shape, generator=draw)
    return signal, torch.ones(signal.shape, dtype=torch.bool), torch.cat(beats)


def measured() -> BeatTerms:
    terms = BeatTerms(NormalBeats(LEADS), RATE)
    terms.fit([hearts()])
    return terms


TERMS = measured()


def found_in(signal: torch.Tensor, recorded: torch.Tensor, beats: torch.Tensor, *, maps: bool = True) -> Terms:
    found = Terms.none(beats, signal.shape[-1])
    TERMS.add(found, signal, recorded, beats, maps=maps)
    return found


def all_of(found: Terms, rows: object = slice(None)) -> list[torch.Tensor]:
    return [part[rows] for kind in (found.terms, found.maps) for _, part in sorted(kind.items())]


# The company a record keeps -------------------------------------------------------------------------------------------


def test_terms_are_the_same_for_any_batch_size_and_order_of_records():
    batch = hearts(6, seed=2)
    batch[2][4] = -1
    together = found_in(*batch)
    for rows in (*torch.arange(6).split(1), *torch.arange(6).split(4), torch.tensor([5, 0, 4, 2, 1, 3])):
        for one, other in zip(all_of(together, rows), all_of(found_in(*take(batch, rows))), strict=True):
            close(one, other)


@pytest.mark.parametrize("beats_of_its_own", [True, False])
def test_the_terms_of_a_record_do_not_depend_on_its_neighbours(beats_of_its_own):
    signal, recorded, beats = hearts(1, seed=2)
    if not beats_of_its_own:
        beats = torch.full_like(beats, -1)
    beats = torch.nn.functional.pad(beats, (0, 100 - COLUMNS), value=-1)
    alone = found_in(signal, recorded, beats)
    garbage, crowd = torch.randn(1, LEADS, TIME) * 1e4, torch.arange(0, TIME, 10)[None]
    nobody = torch.full_like(crowd, -1)
    neighbours = {
        "garbage with many beats": (garbage, recorded, crowd),
        "garbage without beats": (garbage, recorded, nobody),
        "beyond what can be squared": (garbage * 1e30, recorded, crowd),
        "silence": (garbage * 0, recorded, crowd),
        "nothing recorded, NaN stored": (garbage * torch.nan, ~recorded, crowd),
    }
    for name, other in neighbours.items():
        for place in (0, 1):
            pairs = zip(other, (signal, recorded, beats), strict=True)
            batch = [torch.cat(pair if place else pair[::-1]) for pair in pairs]
            got = all_of(found_in(*batch), slice(place, place + 1))
            for one, expected in zip(got, all_of(alone), strict=True):
                torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4, equal_nan=True, msg=name)


def test_what_is_stored_where_nothing_was_recorded_does_not_matter():
    signal, recorded, beats = hearts(4, seed=2)
    recorded[:, 1] = False
    recorded[0, 2, 300:420] = False
    fillers = (torch.zeros(()), torch.tensor(torch.nan), torch.tensor(1e6), -signal)
    first, *others = [found_in(torch.where(recorded, signal, filler), recorded, beats) for filler in fillers]
    for other in others:
        for one, again in zip(all_of(first), all_of(other), strict=True):
            same(one, again)
    assert torch.equal(first.maps[VARIATION].isnan(), ~recorded)
    assert first.maps[SHAPE][~recorded].isnan().all()
    assert all(term.isfinite().all() for term in first.terms.values())


def test_maps_change_no_term():
    batch = hearts(4, seed=2)
    with_maps, without = found_in(*batch), found_in(*batch, maps=False)
    assert not without.maps
    for name, term in without.terms.items():
        same(term, with_maps.terms[name])


# Records without beats, and without leads -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [0, 5])
def test_a_record_without_a_beat_has_no_terms_but_a_map_of_variation(columns):
    signal, recorded, _ = hearts(2, seed=2)
    found = found_in(signal, recorded, torch.full((2, columns), -1))
    for name in (SHAPE, VARIATION):
        assert found.terms[name].isnan().all()
    assert found.maps[SHAPE].isnan().all()
    assert found.maps[VARIATION].isfinite().all()


def test_a_record_of_which_nothing_was_recorded_has_neither_terms_nor_maps():
    signal, recorded, beats = hearts(3, seed=2)
    recorded[1] = False
    found = found_in(signal, recorded, beats)
    for part in (*found.terms.values(), *found.maps.values()):
        assert part[1].isnan().all()
        assert not part[[0, 2]].isnan().all()


def test_a_lead_that_was_not_recorded_makes_the_others_no_stranger():
    signal, recorded, beats = hearts(4, seed=2)
    whole = found_in(signal, recorded, beats)
    recorded[:, 2] = False
    found = found_in(signal, recorded, beats)
    torch.testing.assert_close(found.terms[VARIATION], whole.terms[VARIATION], atol=0.1, rtol=0)
    assert found.maps[VARIATION][:, 2].isnan().all()


# What is strange, and where -------------------------------------------------------------------------------------------


def bump(centre: float, height: float = 0.5) -> torch.Tensor:
    return wave(torch.arange(TIME) / RATE, centre, 0.03, height)


def highest(found: torch.Tensor) -> tuple[int, int]:
    """Lead and sample of the highest place of a map (leads, time)."""
    return divmod(int(found.nan_to_num(-1).argmax()), TIME)


@pytest.mark.parametrize("lead", range(LEADS))
@pytest.mark.parametrize("row", range(len(RRS)))
def test_a_change_in_one_beat_of_one_lead_is_the_highest_place_of_the_map_of_variation(row, lead):
    signal, recorded, beats = take(hearts(4, seed=2), slice(row, row + 1))
    usual = found_in(signal, recorded, beats)
    place = float(beats[0, 3]) / RATE + 0.2
    signal[0, lead] += bump(place)
    found = found_in(signal, recorded, beats)
    where, sample = highest(found.maps[VARIATION][0])
    assert where == lead
    assert abs(sample - place * RATE) <= 6
    assert found.terms[VARIATION] > usual.terms[VARIATION] + 0.005
    torch.testing.assert_close(found.terms[SHAPE], usual.terms[SHAPE], atol=0.3, rtol=0)


@pytest.mark.parametrize("lead", range(LEADS))
@pytest.mark.parametrize("row", range(len(RRS)))
def test_a_change_in_all_beats_of_one_lead_is_the_highest_place_of_the_map_of_shape(row, lead):
    signal, recorded, beats = take(hearts(4, seed=2), slice(row, row + 1))
    usual = found_in(signal, recorded, beats)
    for peak in beats[beats >= 0].tolist():
        signal[0, lead] += bump(peak / RATE + 0.15)
    found = found_in(signal, recorded, beats)
    where, sample = highest(found.maps[SHAPE][0])
    assert where == lead
    own = beats[beats >= 0]
    assert (sample - own - 15).abs().min() <= PLACES
    assert found.terms[SHAPE] > usual.terms[SHAPE] + 1


def test_the_map_of_shape_is_alike_in_all_whole_beats_and_says_nothing_between_them():
    signal, recorded, beats = take(hearts(4, seed=2), slice(2, 3))  # at one beat a second, a point is a sample
    shown = found_in(signal, recorded, beats).maps[SHAPE][0]
    own = [peak for peak in beats[0].tolist() if 28 <= peak <= TIME - 50]
    windows = torch.stack([shown[:, peak - 28 : peak + 50] for peak in own])
    same(windows, windows[:1].expand(windows.shape))
    assert windows.isfinite().all()
    assert shown[:, own[0] + 50 : own[1] - 28].isnan().all()


def test_a_beat_that_was_not_found_stands_out_between_the_others():
    signal, recorded, beats = take(hearts(4, seed=2), slice(2, 3))
    missed = int(beats[0, 4])
    beats = torch.cat([beats[:, :4], beats[:, 5:]], dim=1)
    _, sample = highest(found_in(signal, recorded, beats).maps[VARIATION][0])
    assert abs(sample - missed) <= 2


def test_a_taller_record_is_as_strange_as_a_low_one():
    signal, recorded, beats = hearts(4, seed=2)
    one, other = found_in(signal, recorded, beats), found_in(3 * signal, recorded, beats)
    torch.testing.assert_close(one.terms[SHAPE], other.terms[SHAPE], atol=0.05, rtol=0)


# In a score -----------------------------------------------------------------------------------------------------------


def scoring(**settings) -> AnomalyScoring:
    """Scoring by both terms, not fitted."""
    both = {"terms": {"shape": 2.0, "variation": 1.0}, "map_terms": {"shape": 1.0, "variation": 2.0}}
    made, net = Scoring(**(both | settings)), network()
    return AnomalyScoring(net, made, GEOMETRY, NormalReference(made.measured, 2 * net.encoder.channels, LEADS))


def fitted(size: int = 24) -> AnomalyScoring:
    made, batch = scoring(), hearts()
    made.fit_reference([take(batch, rows) for rows in torch.arange(24).split(size)])
    return made


def test_scores_and_maps_by_shape_and_variation_find_what_is_strange():
    made = fitted()
    signal, recorded, beats = hearts(8, seed=2)
    recorded[1, 2] = False
    recorded[2, :, 500:600] = False
    usual = made(signal, recorded, beats, maps=True)
    assert torch.equal(usual.map.isnan(), ~recorded), "a map is NaN where nothing was recorded, and only there"
    assert usual.score.isfinite().all()
    close(usual.score, (2 * usual.parts[SHAPE] + usual.parts[VARIATION]) / 3)
    for peak in beats[0][beats[0] >= 0].tolist():
        signal[0, 1] += bump(peak / RATE + 0.15)
    strange = made(signal, recorded, beats, maps=True)
    assert strange.score[0] > usual.score[0] + 1
    same(strange.score[1:], usual.score[1:])


@pytest.mark.parametrize("term", [SHAPE, VARIATION])
def test_one_of_the_terms_may_be_scored_without_the_other(term):
    both, alone = fitted(), scoring(terms={term: 1.0}, map_terms={term: 1.0})
    alone.fit_reference([hearts()])
    batch = hearts(4, seed=2)
    scores = alone(*batch, maps=True)
    assert list(scores.parts) == [term]
    close(scores.score, both(*batch).parts[term])


def test_a_record_without_a_beat_has_no_score_by_beats_but_a_map():
    signal, recorded, beats = hearts(3, seed=2)
    beats[1] = -1
    scores = fitted()(signal, recorded, beats, maps=True)
    assert scores.score.isnan().tolist() == [False, True, False]
    assert scores.has_beat.tolist() == [True, False, True]
    assert scores.map.isfinite().all()


def test_over_the_training_records_both_terms_have_mean_0_and_spread_1():
    for part in fitted()(*hearts()).parts.values():
        assert part.mean().abs() < 1e-3
        assert abs(part.std() - 1) < 1e-3


def test_a_reference_that_was_saved_scores_as_the_one_it_was_saved_from():
    made, again, batch = fitted(), scoring(), hearts(4, seed=2)
    again.reference.load_state_dict(made.reference.state_dict())
    for one, other in zip(
        rows_of(made(*batch, maps=True), slice(None)), rows_of(again(*batch, maps=True), slice(None)), strict=True
    ):
        same(one, other)
    assert made.reference.beats.components.abs().sum() > 0


@pytest.mark.parametrize("size", [1, 7])
def test_a_reference_is_the_same_in_any_batches(size):
    whole, parts = fitted().reference.state_dict(), fitted(size).reference.state_dict()
    assert parts.keys() == whole.keys()
    for name, value in parts.items():
        if name.startswith("beats."):
            assert torch.equal(value, whole[name]), name
        elif name.startswith(("term_", "map_")):
            torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=1e-4, msg=f"{size} {name}")


@pytest.mark.parametrize("term", [SHAPE, VARIATION])
def test_without_standard_deviations_both_terms_are_refused_by_name(term):
    for weights in ({"terms": {term: 1.0}}, {"map_terms": {term: 1.0}}, {"terms": {"whole": 1.0, term: 0.0}}):
        with pytest.raises(ConfigurationError, match=rf"the term {term}.*standardise: true"):
            Scoring(standardise=False, **weights)


def test_scores_are_refused_before_training_records_were_seen():
    with pytest.raises(ConfigurationError, match="training records"):
        scoring()(*hearts(2))
