import numpy as np
import pytest
import torch

from ecgfair.anomaly.planting.kinds import VISIBLE
from ecgfair.anomaly.planting.plant import plant
from ecgfair.anomaly.planting.subject import Planting
from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError
from tests.anomaly.planting.planted_cases import P_WAVE, QRS, T_END, Drawn, drawn, spans


def planted(kind: str, ecg: Drawn, seed: int = 0, leads: tuple[str, ...] = LEADS, **strengths: object):
    random = torch.Generator().manual_seed(seed)
    return plant(kind, ecg.signal, ecg.beats, ecg.rate, leads, random, planting=Planting(**strengths))


def peaks(ecg: Drawn) -> np.ndarray:
    return ecg.beats[0][ecg.beats[0] >= 0].numpy()


def nearest(ecg: Drawn, sample: int) -> int:
    found = peaks(ecg)
    return int(found[np.abs(found - sample).argmin()])


def test_a_third_of_the_beats_are_changed_and_at_least_one():
    ecg = drawn()
    for share, count in ((1 / 3, 3), (0.01, 1), (0.5, 5)):
        for kind in ("missing_p", "widened_qrs", "st_elevation"):
            made = planted(kind, ecg, beats_share=share)
            number = len(spans(made.truth[0].any(dim=0)))
            assert abs(number - count) <= 1, (kind, share)
            assert number >= 1


def test_a_missing_p_wave_leaves_a_line_where_the_wave_was():
    ecg = drawn(noise=0.002)
    made = planted("missing_p", ecg, beats_share=1.0)
    lead = LEADS.index("II")
    for start, end in spans(made.truth[0, lead]):
        peak = nearest(ecg, end)
        assert (start - peak) / 100 == pytest.approx(P_WAVE[0], abs=0.03)
        assert (end - peak) / 100 == pytest.approx(P_WAVE[1], abs=0.03)
        before, after = ecg.signal[0, lead, start : end + 1], made.signal[0, lead, start : end + 1]
        line = torch.linspace(0, 1, len(before)) * (before[-1] - before[0]) + before[0]
        assert (before - line).max() > 0.08
        assert (after - line).abs().max() < 0.025


def test_a_missing_p_wave_is_true_in_the_leads_where_it_was_to_be_seen():
    ecg = drawn()
    ecg.signal[:, LEADS.index("V6")] = 0.05 * ecg.signal[:, LEADS.index("V6")]
    made = planted("missing_p", ecg)
    removed = (ecg.signal - made.signal).abs().amax(dim=2)
    assert torch.equal(made.truth.any(dim=2), removed > VISIBLE)
    assert made.truth[:, LEADS.index("II")].any()
    assert not made.truth[:, LEADS.index("V6")].any()


def test_without_a_p_wave_none_can_be_missing():
    made = planted("missing_p", drawn(p=0.0))
    assert not made.has.any()
    assert set(made.why) == {"no P wave was found"}


def test_limb_leads_still_obey_einthoven():
    ecg = drawn()
    for kind in ("missing_p", "widened_qrs", "premature_beat", "noise_burst"):
        for seed in range(4):
            one, two, three, right, left, foot = planted(kind, ecg, seed).signal[:, :6].unbind(dim=1)
            torch.testing.assert_close(three, two - one, atol=2e-6, rtol=0)
            torch.testing.assert_close(right + left + foot, torch.zeros_like(one), atol=2e-6, rtol=0)


def width(rows: torch.Tensor, peak: int, rate: float) -> float:
    """Seconds for which a QRS complex exceeds half of its highest sample."""
    window = rows[peak - round(0.1 * rate) : peak + round(0.15 * rate)]
    return float((window > window.max() / 2).sum() / rate)


def test_a_widened_qrs_lasts_the_factor_longer_in_all_leads_and_ends_before_the_t_wave_does():
    ecg = drawn(rate=500, noise=0.0)
    made = planted("widened_qrs", ecg, qrs_factor=(1.6, 1.6), beats_share=1.0)
    lead = LEADS.index("V5")
    for start, end in spans(made.truth[0].all(dim=0)):
        peak = nearest(ecg, start)
        usual = QRS[1] - QRS[0]
        assert (start - peak) / 500 == pytest.approx(QRS[0], abs=0.015)
        assert (end - start) / 500 == pytest.approx(1.6 * usual, abs=0.04)
        wide, narrow = width(made.signal[0, lead], peak, 500), width(ecg.signal[0, lead], peak, 500)
        assert wide / narrow == pytest.approx(1.6, abs=0.15)
        beyond = slice(peak + round((T_END + 0.03) * 500), peak + round(0.5 * 500))
        assert torch.equal(made.signal[0, :, beyond], ecg.signal[0, :, beyond])
    assert torch.equal(made.truth.any(dim=1), made.truth.all(dim=1))


def test_st_elevation_has_its_height_in_its_leads_from_the_j_point_to_the_end_of_t():
    ecg = drawn()
    for leads in (("V2", "V3", "V4"), ("II", "III", "aVF")):
        made = planted("st_elevation", ecg, st_elevation=(0.2, 0.2), st_leads=leads)
        rows = [LEADS.index(lead) for lead in leads]
        added = made.signal - ecg.signal
        assert torch.nonzero(added.abs().sum(dim=(0, 2)))[:, 0].tolist() == rows
        assert torch.nonzero(made.truth.any(dim=2).any(dim=0))[:, 0].tolist() == rows
        for start, end in spans(made.truth[0, rows[0]]):
            peak = nearest(ecg, start)
            assert (start - peak) / 100 == pytest.approx(QRS[1], abs=0.025)
            assert (end - peak) / 100 == pytest.approx(T_END, abs=0.04)
            middle = added[0, rows, start : peak + 20]
            torch.testing.assert_close(middle, torch.full_like(middle, 0.2), atol=1e-5, rtol=0)
            assert added[0, rows, end].abs().max() < 0.05
            assert added[0, rows, end + 1].abs().max() < 1e-6


def test_st_elevation_without_its_leads_is_told():
    ecg = drawn()
    few = Drawn(ecg.signal[:, :6], ecg.beats, ecg.rate, ecg.rr)
    made = planted("st_elevation", few, leads=LEADS[:6])
    assert not made.has.any()
    assert made.why[0] == "none of the leads V2, V3, V4 was recorded"


def test_an_inverted_lead_is_the_lead_upside_down_and_wholly_true():
    ecg = drawn(20)
    made = planted("lead_inversion", ecg)
    turned = made.truth.all(dim=2)
    assert (turned.sum(dim=1) == 1).all()
    assert len(set(turned.int().argmax(dim=1).tolist())) > 4
    assert torch.equal(made.signal, torch.where(made.truth, -ecg.signal, ecg.signal))
    chosen = planted("lead_inversion", ecg, inverted_lead="aVL")
    assert chosen.truth[:, LEADS.index("aVL")].all()
    missing = ecg.signal.clone()
    missing[0, LEADS.index("aVL")] = 0
    told = planted("lead_inversion", Drawn(missing, ecg.beats, ecg.rate, ecg.rr), inverted_lead="aVL")
    assert told.has.tolist() == [False] + [True] * 19
    assert told.why[0] == "the lead aVL was not recorded"


def test_a_burst_of_noise_has_its_strength_and_length():
    ecg = drawn(6, rate=250)
    made = planted("noise_burst", ecg, noise=(0.2, 0.2), noise_seconds=(1.5, 1.5), noise_electrode="V4")
    added = made.signal - ecg.signal
    lead = LEADS.index("V4")
    assert not added[:, [row for row in range(12) if row != lead]].any()
    for row in range(6):
        ((start, end),) = spans(made.truth[row, lead])
        assert end - start + 1 == 375
        assert added[row, lead, start + 25 : end - 25].std() == pytest.approx(0.2, rel=0.15)


def test_a_limb_electrode_disturbs_the_leads_that_it_is_part_of():
    ecg = drawn()
    made = planted("noise_burst", ecg, noise=(0.3, 0.3), noise_electrode="LA")
    added = (made.signal - ecg.signal)[0]
    assert not added[LEADS.index("II")].any()
    torch.testing.assert_close(added[LEADS.index("I")], -added[LEADS.index("III")], atol=1e-6, rtol=0)
    torch.testing.assert_close(added[LEADS.index("V1")], -added[LEADS.index("I")] / 3, atol=1e-6, rtol=0)
    assert made.truth.any(dim=2)[0].tolist() == [lead != "II" for lead in LEADS]
    weak = planted("noise_burst", ecg, noise=(0.05, 0.05), noise_electrode="LA")
    assert weak.truth.any(dim=2)[0].tolist() == [lead in ("I", "III", "aVR", "aVL", "aVF") for lead in LEADS]


def test_noise_that_nobody_sees_is_not_planted():
    ecg = drawn()
    made = planted("noise_burst", ecg, noise=(0.0, 0.0))
    assert set(made.why) == {"what was planted is too weak to be seen"}
    assert torch.equal(made.signal, ecg.signal)
    short = planted("noise_burst", ecg, noise_seconds=(30, 30))
    assert set(short.why) == {"no stretch of 30.0 s was recorded without a gap"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beats_share", 0.0),
        ("beats_share", 1.5),
        ("qrs_factor", (0.5, 1.4)),
        ("st_elevation", (0.3, 0.1)),
        ("premature", (0.1, 0.3)),
        ("noise", (0.1,)),
        ("noise_seconds", (0.0, 1.0)),
    ],
)
def test_impossible_strengths_are_refused_by_name(field: str, value: object):
    with pytest.raises(ConfigurationError, match=rf"Planting\.{field}"):
        Planting(**{field: value})
