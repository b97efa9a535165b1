import itertools

import pytest
import torch

from ecgfair.anomaly.planting.plant import Planted, plant
from ecgfair.anomaly.planting.subject import Planting
from ecgfair.ecg import LEADS
from tests.anomaly.planting.planted_cases import Drawn, drawn, spans

LEAD = LEADS.index("V5")


def planted(ecg: Drawn, seed: int = 0, **strengths: object) -> Planted:
    random = torch.Generator().manual_seed(seed)
    return plant("premature_beat", ecg.signal, ecg.beats, ecg.rate, LEADS, random, planting=Planting(**strengths))


def moved(ecg: Drawn, made: Planted, row: int = 0) -> list[int]:
    return torch.nonzero(made.beats[row] != ecg.beats[row])[:, 0].tolist()


def test_a_premature_beat_comes_early_by_the_share_of_the_interval_and_the_next_one_when_it_is_due():
    ecg = drawn(rr=1.0, rate=250)
    for share in (0.25, 0.4):
        made = planted(ecg, premature=(share, share))
        for row in range(3):
            for number in moved(ecg, made, row):
                early = int(ecg.beats[row, number] - made.beats[row, number])
                assert early / 250 == pytest.approx(share * 1.0, abs=0.008)
                # Its highest sample is where its R peak is said to be, give or take the stretch of its QRS.
                peak = int(made.beats[row, number])
                window = made.signal[row, LEAD, peak - 30 : peak + 31]
                assert abs(int(window.argmax()) - 30) <= 8
                assert window.max() > 0.6 * ecg.signal[row, LEAD].max()
                # Where the beat was due nothing is left of it.
                due = int(ecg.beats[row, number])
                assert made.signal[row, LEAD, due - 5 : due + 6].max() < 0.4 * ecg.signal[row, LEAD].max()


def test_at_most_a_third_of_the_beats_come_early_and_never_two_in_a_row():
    ecg = drawn(10)
    for seed in range(5):
        for share in (1 / 3, 1.0):
            made = planted(ecg, seed, beats_share=share)
            for row in range(10):
                numbers = moved(ecg, made, row)
                assert numbers
                assert all(later - earlier > 1 for earlier, later in itertools.pairwise(numbers))
                assert len(numbers) <= (4 if share < 1 else 6)


def test_truth_is_the_premature_beat_in_all_leads_and_the_pause_is_changed_but_no_part_of_it():
    ecg = drawn()
    made = planted(ecg)
    assert torch.equal(made.truth.any(dim=1), made.truth.all(dim=1))
    found = spans(made.truth[0, 0])
    assert len(found) == len(moved(ecg, made))
    for (start, end), number in zip(found, moved(ecg, made), strict=True):
        assert start < int(made.beats[0, number]) < end
        assert 0.3 < (end - start) / ecg.rate < 0.6
        following = int(ecg.beats[0, number + 1])
        pause = slice(end + 2, following - 30)
        assert not made.truth[0, :, pause].any()
        assert made.changed[0, :, pause].float().mean() > 0.8


def test_it_has_no_p_wave_a_wide_complex_and_an_opposite_t_wave():
    ecg = drawn(rate=250, noise=0.0, rr=1.1)
    made = planted(ecg, premature=(0.25, 0.25))
    for (start, end), number in zip(spans(made.truth[0, 0]), moved(ecg, made), strict=True):
        peak, due = int(made.beats[0, number]), int(ecg.beats[0, number])
        before = made.signal[0, LEAD, start - 60 : start]
        line = torch.linspace(0, 1, 60) * (before[-1] - before[0]) + before[0]
        assert (before - line).abs().max() < 0.03
        wide, usual = made.signal[0, LEAD, peak - 50 : peak + 50], ecg.signal[0, LEAD, due - 50 : due + 50]
        assert (wide > wide.max() / 2).sum() > 1.4 * (usual > usual.max() / 2).sum()
        baseline = made.signal[0, LEAD, end]
        assert made.signal[0, LEAD, peak + 40 : end].min() < baseline - 0.1


def test_there_is_no_room_in_a_heart_that_races():
    made = planted(drawn(rr=0.42))
    assert not made.has.any()
    assert set(made.why) <= {
        "no usual beat between two others leaves room for one that comes early",
        "no room for a T wave between two beats",
    }


def test_the_pause_looks_like_the_record_between_its_beats():
    ecg = drawn(rr=1.0, noise=0.02)
    made = planted(ecg)
    for (_, end), number in zip(spans(made.truth[0, 0]), moved(ecg, made), strict=True):
        pause = made.signal[0, LEAD, end + 3 : int(ecg.beats[0, number + 1]) - 26]
        # White noise of 0.02 mV: its differences have the square root of two times that.
        assert 0.5 * 0.028 < pause.diff().std() < 1.6 * 0.028
