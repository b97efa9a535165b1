import pytest
import torch

from ecgfair.models.decoders import Decoder


@pytest.mark.parametrize(("tokens", "length"), [(1, 1), (3, 24), (3, 17)])
def test_tokens_become_as_many_samples_as_asked_for(tokens, length):
    assert Decoder(5, 4, stride=8, width=6, dropout=0.0).eval()(torch.randn(2, 5, tokens), length).shape == (
        2,
        4,
        length,
    )


def test_samples_beyond_the_length_are_cut_off_at_the_end():
    decoder, tokens = Decoder(5, 4, stride=8, width=6, dropout=0.0).eval(), torch.randn(2, 5, 3)
    assert torch.equal(decoder(tokens, 17), decoder(tokens, 24)[..., :17])
