import pytest
import torch
from jsonargparse import ArgumentParser

from ecgfair.errors import ConfigurationError
from ecgfair.losses.long_tail import DistributionBalancedLoss, LdamLoss, LogitAdjusted
from ecgfair.losses.multi_label import AsymmetricLoss, CrossEntropy, FocalLoss
from ecgfair.training.label_loss import LabelLoss

POSITIVES = [500, 100, 16]
PREVALENCE = [count / 1000 for count in POSITIVES]


def case():
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(8, 3, generator=generator), (torch.rand(8, 3, generator=generator) < 0.4).float()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, CrossEntropy()),
        ({"name": "asymmetric"}, AsymmetricLoss(0, 2, 0.05)),
        ({"name": "asymmetric", "gamma_positive": 1, "gamma_negative": 3, "clip": 0.2}, AsymmetricLoss(1, 3, 0.2)),
        ({"name": "focal"}, FocalLoss(2)),
        ({"name": "focal", "focal_gamma": 1.5}, FocalLoss(1.5)),
        ({"name": "ldam"}, LdamLoss(POSITIVES, 1000)),
        (
            {"name": "ldam", "max_margin": 0.9, "margin_scale": 3, "deferred": 0.4, "beta": 0.99},
            LdamLoss(POSITIVES, 1000, 0.9, 3, 0.4, 0.99),
        ),
        ({"name": "distribution_balanced"}, DistributionBalancedLoss(POSITIVES, 1000)),
        (
            {
                "name": "distribution_balanced",
                "weight_floor": 0.3,
                "weight_steepness": 5,
                "weight_centre": 0.4,
                "negative_scale": 3,
                "label_bias": 0.2,
                "focal_gamma": 1,
            },
            DistributionBalancedLoss(POSITIVES, 1000, 0.3, 5, 0.4, 3, 0.2, 1),
        ),
    ],
)
def test_settings_mean_the_loss_of_that_name_and_reach_it(settings, expected):
    logits, target = case()
    loss = LabelLoss(**settings).build(PREVALENCE, 1000)
    assert type(loss) is type(expected)
    for share in (0.3, 0.5, 0.9):
        loss.set_progress(share)
        expected.set_progress(share)
        assert torch.equal(loss.each(logits, target), expected.each(logits, target))


@pytest.mark.parametrize("name", ["bce", "asymmetric", "focal", "ldam", "distribution_balanced"])
def test_any_loss_can_be_one_of_adjusted_logits(name):
    logits, target = case()
    plain, adjusted = (LabelLoss(name=name, logit_adjustment=tau).build(PREVALENCE, 1000) for tau in (0, 0.5))
    assert not isinstance(plain, LogitAdjusted)
    by_hand = logits + 0.5 * torch.tensor(PREVALENCE).logit()
    torch.testing.assert_close(adjusted(logits, target).value, plain(by_hand, target).value)


def test_shares_rounded_to_float32_leave_a_class_without_records_empty():
    loss = LabelLoss(name="ldam").build([1 - 2**-24, 0.1, 1e-12], 1000)
    exact = LabelLoss(name="ldam").build([1.0, 0.1, 0.0], 1000)
    torch.testing.assert_close(loss.margins, exact.margins)
    torch.testing.assert_close(loss.weights, exact.weights)


def test_it_is_written_in_yaml_as_one_block(tmp_path):
    (tmp_path / "config.yaml").write_text("loss: {name: asymmetric, gamma_negative: 4}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--loss", type=LabelLoss, default=LabelLoss())
    parsed = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "config.yaml"), "--loss.clip", "0.1"]))
    assert parsed.loss == LabelLoss("asymmetric", gamma_negative=4, clip=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "focl"}, "loss.name is 'focl'. Did you mean 'focal'"),
        ({"gamma_positive": 3.0}, r"loss.gamma_positive is 3.0: expected 0 to gamma_negative \(2.0\)"),
        ({"gamma_positive": -1.0}, "loss.gamma_positive is -1.0: expected 0 to gamma_negative"),
        ({"gamma_negative": -1.0}, "loss.gamma_negative is -1.0: expected 0 or more"),
        ({"clip": 1.0}, "loss.clip is 1.0: expected 0 or more and less than 1"),
        ({"focal_gamma": -0.5}, "loss.focal_gamma is -0.5: expected 0 or more"),
        ({"focal_gamma": float("nan")}, "loss.focal_gamma is nan: expected 0 or more"),
        ({"max_margin": float("inf")}, "loss.max_margin is inf: expected 0 or more"),
        ({"margin_scale": 0.0}, "loss.margin_scale is 0.0: expected a positive number"),
        ({"deferred": 1.5}, "loss.deferred is 1.5: expected a share"),
        ({"beta": 1.0}, "loss.beta is 1.0: expected 0 or more and less than 1"),
        ({"weight_floor": -1.0}, "loss.weight_floor is -1.0: expected 0 or more"),
        ({"weight_steepness": 0.0}, "loss.weight_steepness is 0.0: expected a positive number"),
        ({"weight_centre": -1.0}, "loss.weight_centre is -1.0: expected 0 or more"),
        ({"negative_scale": 0.9}, "loss.negative_scale is 0.9: expected 1 or more"),
        ({"label_bias": -1.0}, "loss.label_bias is -1.0: expected 0 or more"),
        ({"logit_adjustment": -1.0}, "loss.logit_adjustment is -1.0: expected 0 or more"),
    ],
)
def test_a_setting_that_can_not_work_is_refused_by_name_and_value(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        LabelLoss(**wrong)


def test_data_that_can_not_be_are_refused_when_the_loss_is_made():
    with pytest.raises(ConfigurationError, match="expected at least one"):
        LabelLoss(name="ldam").build([0.5], 0)
    with pytest.raises(ConfigurationError, match="expected a share from 0 to 1"):
        LabelLoss(logit_adjustment=1.0).build([1.5], 10)
