import torch

from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.encoder import ResidualEncoder


def network(*, attributes: bool) -> DiagnosisNetwork:
    encoder = ResidualEncoder(widths=[8, 16], trend_widths=[4, 8])
    return DiagnosisNetwork(encoder, [0.5, 0.1, 0.0], dropout=0.0, attributes=attributes)


def test_a_batch_of_any_length_gets_one_logit_a_label():
    for length in (800, 1000):
        diagnosis = network(attributes=True)(torch.randn(2, 12, length))
        assert diagnosis.logits.shape == (2, 3)
        assert diagnosis.attributes.shape == (2, 7)


def test_without_the_attribute_head_there_are_no_attributes():
    assert network(attributes=False)(torch.randn(2, 12, 800)).attributes is None


def test_the_head_starts_from_the_prevalence_of_each_label():
    start = network(attributes=False).label_head.bias.sigmoid()
    torch.testing.assert_close(start, torch.tensor([0.5, 0.1, 0.001]), atol=1e-5, rtol=0)
