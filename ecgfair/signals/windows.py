"""Short windows of a long record at test time, and one prediction of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfair.errors import ConfigurationError


@dataclass(frozen=True)
class Windows:
    """How a record is cut for prediction, where a network was trained on shorter crops than records are.

    Args:
        seconds: Length of a window; None takes the whole record as one.
        stride_seconds: From the start of a window to that of the next; half a window if None.

    Raises:
        ConfigurationError: A length is not positive, the stride is longer than a window, which would leave samples
            out, or there is a stride and no window.
    """

    seconds: float | None = None
    stride_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse windows that can't be cut."""
        for name in ("seconds", "stride_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigurationError(f"Windows.{name} is {value}: expected a positive length, or null.")
        if self.stride_seconds is None:
            return
        if self.seconds is None:
            raise ConfigurationError(
                f"Windows.stride_seconds is {self.stride_seconds} but Windows.seconds is null, which is the whole "
                "record: expected the length of a window, or no stride."
            )
        if self.stride_seconds > self.seconds:
            raise ConfigurationError(
                f"Windows.stride_seconds is {self.stride_seconds}: expected {self.seconds}, the length of a window, or "
                "less. What lies between two windows would be seen by none."
            )

    def cut(self, signal: Tensor, sampling_rate: float) -> Tensor:
        """Cut every record into windows.

        The last window ends at the last sample, and so may begin less than a stride after the one before it. A record
        that is no longer than a window is one window, as long as it is.

        Args:
            signal: (B, leads, time).
            sampling_rate: Hz.

        Returns:
            (B, W, leads, length), of the type of the signal.

        Raises:
            ConfigurationError: The windows are shorter than a sample.
        """
        time = signal.shape[-1]
        if self.seconds is None:
            return signal[:, None]
        length = round(self.seconds * sampling_rate)
        if length < 1:
            raise ConfigurationError(
                f"Windows.seconds is {self.seconds}: expected at least {1 / sampling_rate} s, a sample at "
                f"{sampling_rate} Hz."
            )
        if length >= time:
            return signal[:, None]
        between = self.seconds / 2 if self.stride_seconds is None else self.stride_seconds
        stride = max(round(between * sampling_rate), 1)
        last = time - length
        starts = [*range(0, last, stride), last]
        return torch.stack([signal[..., start : start + length] for start in starts], dim=1)


def mean_probability_logits(logits: Tensor) -> Tensor:
    """Return the logit of the mean probability over windows.

    With p = sigmoid(x) it is log(sum of p) - log(sum of 1 - p), where each log(p) and log(1 - p) is taken of the logit,
    so that a probability that rounds to 0 or 1 keeps its logit.

    Args:
        logits: (B, W, C) of each window, at least one.

    Returns:
        (B, C), of the type of the logits; the logits themselves where there is one window.

    Raises:
        ValueError: There is no window, or the shape is another.
    """
    if logits.ndim != 3 or logits.shape[1] < 1:
        raise ValueError(f"The logits have the shape {tuple(logits.shape)}: expected (B, W, C) with a window or more.")
    if logits.shape[1] == 1:
        return logits[:, 0]
    # In half precision the difference of two sums near each other would be coarse.
    wide = logits if logits.dtype == torch.float64 else logits.float()
    mean = F.logsigmoid(wide).logsumexp(dim=1) - F.logsigmoid(-wide).logsumexp(dim=1)
    return mean.to(logits.dtype)
