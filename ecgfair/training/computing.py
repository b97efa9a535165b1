"""How a network is computed in training: what is learned is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ecgfair.errors import ConfigurationError
from ecgfair.models.diagnosis import DiagnosisNetwork
from ecgfair.models.dropout import drawn_again
from ecgfair.models.norms import statistics_kept
from ecgfair.models.restoration import RestorationNetwork


@dataclass
class Computing:
    """How the network is computed in training; weights have the same names in checkpoints, so either can go on.

    Args:
        compile: Compile the network by ``torch.compile``; the first steps are then slow, and results rounded otherwise.
        recompute: Forget what the layers of the encoder computed for the backward pass, and compute it once more there
            (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174): memory for another forward pass. Losses and
            gradients are the same to the bit.

    Raises:
        ConfigurationError: Both are asked for.
    """

    compile: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        """Refuse both together."""
        if self.compile and self.recompute:
            raise ConfigurationError(
                "computing.compile and computing.recompute are both true: expected one of the two, since a compiled "
                "network decides by itself what it computes again."
            )

    def apply(self, network: RestorationNetwork | DiagnosisNetwork) -> None:
        """Change how this network is computed, in place; a second time changes nothing."""
        if self.recompute:
            for layer in (layer for group in network.encoder.layers() for layer in group):
                # A wrapper module would change the names of the weights.
                if "forward" not in vars(layer):
                    layer.forward = partial(_forward, layer, layer.forward)
        if self.compile:
            # Scores and some tasks call the encoder by itself.
            for module in (network.encoder, network):
                module.compile()


def _forward(layer: nn.Module, forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*inputs)
    result: Tensor = checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, layer))
    return result


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a pass and for its repetition, which draws the same and moves no statistics."""
    own, again = drawn_again()
    return own, _repetition(layer, again)


@contextmanager
def _repetition(layer: nn.Module, again: AbstractContextManager[None]) -> Iterator[None]:
    with again, statistics_kept(layer):
        yield
