import pytest
import torch

from ecgfair.signals.alteration_kinds import KINDS
from ecgfair.signals.alteration_records import Records, baseline
from tests.signals.altered_cases import ecg


def three_strongest(centred: torch.Tensor) -> torch.Tensor:
    """The three strongest components of each record, (n, leads, 3), as the singular vectors of its leads have them."""
    return torch.linalg.svd(centred.double(), full_matrices=False).U[:, :, :3]


def turned(batch: int, leads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A field of three random components, whose strengths differ, with some noise, and what a turn makes of it.

    Returns:
        (n, leads, time) before and after, less the baseline of what was before; and (n, time) bool, True from 0.12 to
        0.44 s after a beat: all of that is turned, or none of it where only the QRS is.
    """
    at = ecg(batch=batch, leads=leads)
    seeded = torch.Generator().manual_seed(5)
    sources = torch.tensor([1.0, 0.6, 0.3])[:, None] * torch.randn(batch, 3, 1000, generator=seeded)
    signal = torch.randn(batch, leads, 3, generator=seeded) @ sources
    signal = signal + 0.05 * torch.randn(batch, leads, 1000, generator=seeded)
    before = Records(signal, at.peaks, at.chosen, 100.0, at.generator)
    after = KINDS["turn"].alter(before).signal
    since = torch.arange(1000) - at.peaks[..., None]
    late = ((since >= 12) & (since <= 44)).any(dim=1)
    return signal - baseline(before), after - baseline(before), late


def test_a_turned_field_keeps_its_strength_unless_it_is_stretched():
    before = ecg(batch=300, leads=3)
    after = KINDS["turn"].alter(before).signal
    strength, other = ((of - baseline(before)).norm(dim=1) for of in (before.signal, after))
    at_peak = before.peaks[:, 2:3]
    ratio = (other.gather(1, at_peak) / strength.gather(1, at_peak))[:, 0]
    kept = (ratio - 1).abs() < 1e-3
    untouched = (before.signal - after).gather(2, at_peak[:, None].expand(-1, 3, -1)).abs().amax(dim=(1, 2)) < 1e-6
    # A third turns what follows the QRS alone; of the others, four in ten are stretched.
    assert untouched.float().mean().item() == pytest.approx(1 / 3, abs=0.08)
    assert kept[~untouched].float().mean().item() == pytest.approx(0.6, abs=0.1)


def test_a_turn_leaves_a_baseline_without_beats_where_it_is():
    before = ecg()
    flat = Records(torch.full_like(before.signal, -0.7), before.peaks, before.chosen, 100.0, before.generator)
    torch.testing.assert_close(KINDS["turn"].alter(flat).signal, flat.signal, atol=1e-5, rtol=0)


def test_a_turn_is_one_rotation_of_the_three_strongest_components_of_all_leads():
    before, after, late = turned(batch=120, leads=12)
    basis = three_strongest(before)
    stretched, rotated = 0, 0
    for row in range(120):
        old, new = (basis[row].T @ of[row][:, late[row]].double() for of in (before, after))
        if torch.allclose(new, old, atol=1e-5):
            continue  # only the QRS was turned
        rotated += 1
        matrix = new @ torch.linalg.pinv(old)
        torch.testing.assert_close(matrix @ old, new, atol=1e-4, rtol=0)
        square = matrix.T @ matrix
        lengths = square.diagonal().sqrt()
        torch.testing.assert_close(square, torch.diag(square.diagonal()), atol=1e-3, rtol=0)
        if (lengths - 1).abs().max() > 1e-3:
            stretched += 1
        else:
            torch.testing.assert_close(new.square().sum(), old.square().sum(), atol=0, rtol=1e-4)
        rotation = matrix / lengths
        assert torch.linalg.det(rotation).item() == pytest.approx(1, abs=1e-3), "turned, not mirrored"
        angle = torch.arccos(((rotation.trace() - 1) / 2).clamp(-1, 1)).item()
        assert 0.2 - 0.01 < angle < 2.5 + 0.01
    assert rotated / 120 == pytest.approx(2 / 3, abs=0.15)
    assert stretched / rotated == pytest.approx(0.4, abs=0.15)


def test_a_turn_leaves_what_is_not_of_the_three_strongest_components():
    before, after, _ = turned(batch=40, leads=12)
    basis = three_strongest(before)
    change = (after - before).double()
    assert change.abs().amax() > 0.5
    torch.testing.assert_close(change, basis @ (basis.transpose(1, 2) @ change), atol=1e-4, rtol=0)


@pytest.mark.parametrize("leads", [1, 2, 3, 12])
def test_a_turn_leaves_all_between_its_windows_to_the_last_bit(leads):
    before = ecg(leads=leads)
    after = KINDS["turn"].alter(before).signal
    since = torch.arange(1000) - before.peaks[..., None]
    # From 80 ms before the R peak to 530 ms after it, and half a ramp of 50 ms on either side.
    between = ~((since > -11) & (since < 56)).any(dim=1)[:, None].expand_as(before.signal)
    assert between.float().mean() > 0.2
    assert torch.equal(after[between], before.signal[between])
    assert ((after - before.signal).abs().amax(dim=(1, 2)) > 0.01).float().mean() > 0.9


@pytest.mark.parametrize("leads", [1, 2])
def test_one_or_two_leads_see_the_shadow_of_a_turned_field_which_is_longer_only_if_stretched(leads):
    before, after, late = turned(batch=150, leads=leads)
    longer = 0
    for row in range(150):
        old, new = (of[row][:, late[row]].double() for of in (before, after))
        matrix = new @ torch.linalg.pinv(old)
        torch.testing.assert_close(matrix @ old, new, atol=1e-4, rtol=0)
        longer += torch.linalg.matrix_norm(matrix, 2).item() > 1 + 1e-4
    assert 0 < longer / 150 < 0.4 * 2 / 3 + 0.1
