"""An adversary that tries to tell age and sex from the features; the encoder learns to leave it guessing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call
from typing_extensions import override

from ecgfair.ecg import ATTRIBUTES
from ecgfair.processes import several_processes


class _GradientReversal(torch.autograd.Function):
    """The identity, whose gradient points the other way."""

    @staticmethod
    @override
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: Tensor, strength: float) -> Tensor:
    """Return the features, and on the way back their gradient times ``-strength`` (Ganin and Lempitsky 2015).

    Args:
        features: Any shape.
        strength: 0 or more.
    """
    reversed_: Tensor = _GradientReversal.apply(features, strength)  # type: ignore[no-untyped-call]  # torch's own
    return reversed_


def ramp(progress: float) -> float:
    """Return the share of the strength that applies: 2 / (1 + exp(-10 p)) - 1, from 0 to about 1.

    The published schedule (Ganin and Lempitsky 2015): an adversary that has learned nothing yet points nowhere.

    Args:
        progress: Share of the training that is done, 0 to 1.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class DemographicAdversary(nn.Module):
    """A small network that predicts attributes from pooled features, behind a reversed gradient.

    It learns to predict, while what the features receive is the reversed gradient, so that they come to say nothing of
    these attributes (Ganin and Lempitsky 2015, arXiv 1409.7495; as adversarial debiasing Zhang, Lemoine and Mitchell
    2018, arXiv 1801.07593, without their projection of the gradient). Where a label truly depends on age or sex, hiding
    them costs accuracy, and equal features are no promise of equal errors: look at the table.

    It has an optimiser of its own and takes several steps a batch. Trained beside the encoder, a step each, it lags
    behind: the encoder then fools it by turning the attribute around, which shows it the more clearly.

    Args:
        features: Number of features.
        attributes: Which of ``ecg.ATTRIBUTES`` to predict.
        hidden: Units of its hidden layer.
        steps: Its own steps a batch.
        learning_rate: Of its optimiser, Adam.
    """

    def __init__(
        self, features: int, attributes: Sequence[str], hidden: int = 64, steps: int = 10, learning_rate: float = 0.01
    ) -> None:
        super().__init__()
        self.columns = [ATTRIBUTES.index(name) for name in attributes]
        self.steps = steps
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, len(self.columns)))
        # No business of the optimiser of the encoder, nor of DDP.
        self.head.requires_grad_(False)
        self._optimizer = torch.optim.Adam(self.head.parameters(), lr=learning_rate)
        self._stopped: dict[str, Any] | None = None

    def forward(self, features: Tensor, strength: float) -> Tensor:
        """Predict attributes; the gradient of what is made of them reaches the features reversed, and nothing else.

        Args:
            features: (B, D).
            strength: Factor of the reversed gradient.

        Returns:
            (B, A) standardised attributes and the logit of being female, as ``losses.attributes`` takes them; 0 in the
            columns that it does not predict.
        """
        return self._all_columns(self.head(reverse_gradient(features, strength)))

    def learn(self, features: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        """Take its own steps on a batch; processes share their gradients, so that all have the same adversary.

        Args:
            features: (B, D); they get no gradient.
            loss: From predictions (B, A), as ``forward`` returns them, to a scalar; of several processes to one whose
                mean over them is the loss, see ``losses.mean``.
        """
        if self._stopped is not None:
            self._optimizer.load_state_dict(self._stopped)
            self._stopped = None
        features = features.detach()
        for _ in range(self.steps):
            weights = {name: weight.detach().requires_grad_() for name, weight in self.head.named_parameters()}
            said = self._all_columns(functional_call(self.head, weights, (features,)))
            gradients = torch.autograd.grad(loss(said), list(weights.values()))
            for weight, gradient in zip(self.head.parameters(), gradients, strict=True):
                weight.grad = _mean_over_processes(gradient)
            self._optimizer.step()
        self._optimizer.zero_grad()

    def optimizer_state(self) -> dict[str, Any]:
        """Return the state of its optimiser, for a checkpoint."""
        return self._optimizer.state_dict() if self._stopped is None else self._stopped

    def go_on(self, optimizer_state: dict[str, Any]) -> None:
        """Go on from the state of its optimiser; read at the next step, when the weights are on their device."""
        self._stopped = optimizer_state

    def _all_columns(self, said: Tensor) -> Tensor:
        predicted = said.new_zeros(len(said), len(ATTRIBUTES))
        predicted[:, self.columns] = said
        return predicted


def _mean_over_processes(gradient: Tensor) -> Tensor:
    if several_processes():
        distributed.all_reduce(gradient)
        gradient /= distributed.get_world_size()
    return gradient
