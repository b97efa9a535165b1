import torch

from ecgfair.callbacks.predictions import model_fingerprint
from ecgfair.ecg import Preprocessing
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import FinetuneModule


def module(seed: int) -> FinetuneModule:
    torch.manual_seed(seed)
    encoder = EncoderSpec(arguments={"widths": [8, 16], "trend_widths": [4, 8]})
    return FinetuneModule(Preprocessing(), ["a"], [0.5], encoder=encoder)


def test_the_fingerprint_is_that_of_the_weights():
    assert model_fingerprint(module(0)) == model_fingerprint(module(0))
    assert model_fingerprint(module(0)) != model_fingerprint(module(1))


def test_one_changed_bit_in_weights_or_buffers_changes_the_fingerprint():
    before, changed = module(0), module(0)
    changed.network.encoder.signal_branch.norm.running_mean[3] += 1e-7
    assert model_fingerprint(before) != model_fingerprint(changed)
