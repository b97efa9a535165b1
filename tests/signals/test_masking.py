import pytest
import torch

from ecgfair.errors import ConfigurationError
from ecgfair.signals.masking import patch_mask, span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_patch_mask_hides_the_share_asked_for_in_whole_patches():
    mask = patch_mask((8, 12, 1000), patch=50, ratio=0.3, generator=generator())
    assert torch.equal(mask.sum(-1), torch.full((8, 12), 300))
    patches = mask.view(8, 12, 20, 50)
    assert torch.equal(patches.all(-1), patches.any(-1))


@pytest.mark.parametrize(("shared", "same"), [(1.0, True), (0.0, False)])
def test_leads_hide_the_same_patches_only_where_the_mask_is_shared(shared, same):
    mask = patch_mask((16, 12, 1000), patch=50, ratio=0.3, shared=shared, generator=generator())
    assert bool((mask == mask[:, :1]).all()) is same


def test_every_patch_is_hidden_equally_often():
    mask = patch_mask((4000, 1, 100), patch=10, ratio=0.3, shared=0.0, generator=generator())
    # A share of 0.3 in 4,000 draws has a standard error of 0.007.
    torch.testing.assert_close(mask[:, 0, ::10].float().mean(0), torch.full((10,), 0.3), atol=0.03, rtol=0)


def test_a_length_that_patches_do_not_divide_keeps_its_length():
    assert patch_mask((2, 3, 997), patch=50, ratio=0.3).shape == (2, 3, 997)


@pytest.mark.parametrize(("ratio", "patch"), [(0.0, 50), (1.0, 50), (0.3, 1000)])
def test_a_mask_that_would_hide_all_or_nothing_is_refused(ratio, patch):
    with pytest.raises(ConfigurationError, match="can't both hide and leave"):
        patch_mask((2, 12, 1000), patch=patch, ratio=ratio)


def test_a_span_mask_hides_one_run_of_samples_that_may_wrap_around():
    mask = span_mask((500, 12, 96), ratio=0.3, generator=generator())
    assert torch.equal(mask.sum(-1), torch.full((500, 12), 29))
    edges = (mask[:, 0] != mask[:, 0].roll(1, dims=-1)).sum(-1)
    assert torch.equal(edges, torch.full((500,), 2))
    assert mask[:, 0].any(0).all(), "every sample of a beat is hidden sometimes, the ST-T part too"
