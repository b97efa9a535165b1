import jsonargparse
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfair.errors import ConfigurationError
from ecgfair.signals.mask_schemes import SCHEMES, MaskScheme, check_schemes, hide
from ecgfair.signals.masking import patch_mask, span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regular(batch: int) -> torch.Tensor:
    return torch.arange(50, 1000, 80).expand(batch, -1)


ALL = {name: MaskScheme() for name in SCHEMES}


def kind(mask: torch.Tensor) -> str:
    """Tell from a mask (12, 1000) on beats of a distance of 80 which scheme made it."""
    # The order matters: a span can start where a patch does. Six of twenty patches are rarely one run.
    if torch.equal(mask.any(-1), mask.all(-1)):
        return "leads"
    if not torch.equal(mask, mask[:1].expand_as(mask)):
        return "lead_patches"
    if int((mask[0] != mask[0].roll(1)).sum()) == 2 and int(mask[0].sum()) == 300:
        return "spans"
    patches = mask[0].view(20, 50)
    if torch.equal(patches.any(-1), patches.all(-1)):
        return "shared_patches"
    middle = mask[0, 160:880].view(9, 80)
    return "phases" if torch.equal(middle, middle[:1].expand(9, 80)) else "beats"


def test_each_scheme_hides_the_share_of_records_asked_for():
    shares = {"shared_patches": 1, "lead_patches": 2, "leads": 3, "spans": 1, "beats": 1, "phases": 2}
    schemes = {name: MaskScheme(share=share) for name, share in shares.items()}
    masks = hide((2000, 12, 1000), schemes, 100, regular(2000), generator=generator())
    kinds = [kind(mask) for mask in masks]
    for name, share in shares.items():
        # A share of 0.3 of 2,000 has a standard error of 0.010.
        assert kinds.count(name) / 2000 == pytest.approx(share / 10, abs=0.04)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_alone_hides_every_record_and_one_with_a_share_of_zero_none(name):
    schemes = {other: MaskScheme(share=float(other == name)) for other in SCHEMES}
    masks = hide((40, 12, 1000), schemes, 100, regular(40), generator=generator())
    assert {kind(mask) for mask in masks} == {name}


def test_seconds_become_samples_at_the_sampling_rate():
    schemes = {"shared_patches": MaskScheme(ratio=0.3, patch_seconds=0.2)}
    mask = hide((1, 2, 1000), schemes, 500, regular(1), generator=generator())
    patches = mask[0, 0].view(10, 100)
    assert torch.equal(patches.any(-1), patches.all(-1))
    assert int(patches.all(-1).sum()) == 3
    beat = hide((1, 1, 1000), {"beats": MaskScheme()}, 250, torch.tensor([[500]]), generator=generator())
    assert beat[0, 0].nonzero()[[0, -1], 0].tolist() == [430, 669]


def test_whole_leads_are_hidden_among_those_that_were_recorded():
    recorded = torch.zeros(50, 12, 1, dtype=torch.bool)
    recorded[:, :2] = True
    masks = hide((50, 12, 1000), {"leads": MaskScheme()}, 100, regular(50), recorded, generator=generator())
    assert torch.equal(masks.all(-1).sum(1), torch.ones(50, dtype=torch.long))
    assert not masks[:, 2:].any()


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(sorted(SCHEMES)),
        st.builds(
            MaskScheme,
            share=st.floats(0.01, 5),
            ratio=st.floats(0.001, 0.999),
            patch_seconds=st.floats(0.001, 0.5),
            before_seconds=st.floats(0.001, 3),
            after_seconds=st.floats(0.001, 3),
        ),
        min_size=1,
    ),
    st.lists(st.lists(st.integers(-1, 130), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(0, 2**31),
)
def test_every_record_hides_something_and_leaves_something_and_a_seed_repeats_it(schemes, beats, leads, seed):
    shape, peaks = (len(beats), leads, 120), torch.tensor(beats)
    mask = hide(shape, schemes, 100, peaks, generator=generator(seed))
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert mask.flatten(1).any(1).all()
    assert not mask.flatten(1).all(1).any()
    assert torch.equal(mask, hide(shape, schemes, 100, peaks, generator=generator(seed)))


def test_the_mask_of_a_record_does_not_depend_on_what_its_neighbours_are():
    beats = torch.cat([regular(20), torch.full((20, 12), -1)])
    others = torch.cat([regular(20), regular(20) - 30])
    shape = (40, 12, 1000)
    first = hide(shape, ALL, 100, beats, generator=generator())
    second = hide(shape, ALL, 100, others, generator=generator())
    assert torch.equal(first[:20], second[:20])
    assert not torch.equal(first[20:], second[20:])


def test_a_scheme_that_is_switched_off_changes_nothing_and_may_not_even_fit_the_signal():
    alone = {"leads": MaskScheme()}
    with_another = {"shared_patches": MaskScheme(share=0, patch_seconds=60), **alone}
    masks = [hide((9, 12, 1000), schemes, 100, regular(9), generator=generator()) for schemes in (alone, with_another)]
    assert torch.equal(*masks)


@pytest.mark.parametrize(
    ("schemes", "message"),
    [
        ({"lead": MaskScheme()}, "There is no mask scheme 'lead'. Did you mean 'leads'?"),
        ({}, "No mask scheme has a share above 0"),
        ({"leads": MaskScheme(share=0)}, "No mask scheme has a share above 0"),
    ],
)
def test_a_mixture_that_can_not_work_is_refused(schemes, message):
    with pytest.raises(ConfigurationError) as raised:
        check_schemes(schemes)
    assert message in str(raised.value)
    with pytest.raises(ConfigurationError):
        hide((1, 12, 1000), schemes, 100, regular(1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("share", -1), ("share", float("nan")), ("ratio", 0), ("ratio", 1), ("patch_seconds", 0), ("after_seconds", -1)],
)
def test_a_setting_that_can_not_work_is_refused_by_name(field, value):
    with pytest.raises(ConfigurationError, match=rf"MaskScheme\.{field} is {value}"):
        MaskScheme(**{field: value})


def test_a_mixture_is_written_in_yaml_as_names_and_their_settings():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--schemes", type=dict[str, MaskScheme])
    parsed = parser.parse_args(["--schemes={spans: {share: 0.2, ratio: 0.4}, phases: {}}"])
    assert {name: MaskScheme(**vars(given)) for name, given in parsed.schemes.items()} == {
        "spans": MaskScheme(share=0.2, ratio=0.4),
        "phases": MaskScheme(),
    }


def test_the_schemes_are_those_of_the_masks_they_are_made_of():
    shape = (7, 12, 1000)
    for name, direct in (
        ("shared_patches", lambda source: patch_mask(shape, 50, 0.3, shared=1, generator=source)),
        ("lead_patches", lambda source: patch_mask(shape, 50, 0.3, shared=0, generator=source)),
        ("spans", lambda source: span_mask(shape, 0.3, generator=source)),
    ):
        source = generator()
        torch.rand(7, generator=source)  # the draw of a scheme for each record
        assert torch.equal(hide(shape, {name: MaskScheme()}, 100, regular(7), generator=generator()), direct(source))
