"""Random weights of patients, from which every interval of this package comes.

The Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338): in each resample a patient has a random weight, drawn
from the exponential distribution of mean 1, and all records of the patient have that weight. Patients are drawn, not
records: two recordings of one heart are not two pieces of evidence. The usual bootstrap draws counts instead, and a
rare label then loses all its positives in some resamples. Here every weight is above zero, so a label that is defined
on the data is defined in every resample: the set of labels is fixed and no resample is dropped.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

UNKNOWN_PATIENT: Final = -1
"""The code of a record whose patient is not known; it is resampled as if it were a patient of its own."""

_CHUNK_ELEMENTS: Final = 2**19
_WORD: Final = 2**64
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST_FACTOR: Final = 0xBF58476D1CE4E5B9
_SECOND_FACTOR: Final = 0x94D049BB133111EB
_UNKNOWN_STREAM: Final = 0x5851F42D4C957F2D
"""Keeps the numbers of the records of unknown patients apart from those of the patients."""


def patient_weights(patients: Tensor, resamples: int, seed: int) -> Tensor:
    """Draw a weight for each patient in each resample.

    The weight is a hash of seed, patient and resample (SplitMix64: Steele, Lea and Flood 2014,
    doi:10.1145/2660193.2660195). So it depends neither on the order of the records nor on which other patients there
    are, and two models or two tables that share patients are resampled alike. It is not scaled to any sum: whatever is
    computed from weights here is a ratio of sums of them.

    Args:
        patients: (N,) whole numbers, the same for the records of one patient. -1 is an unknown patient: the first such
            record has the weights of the first unknown patient, and so on, hence these depend on their order.
        resamples: How many, R; 0 gives the point estimate alone.
        seed: Any whole number.

    Returns:
        (1 + R, N) float64 on the device of ``patients``. Row 0 is ones, for the point estimate; all are above zero.

    Raises:
        ValueError: ``patients`` is not one row of whole numbers, or ``resamples`` is negative.
    """
    if patients.ndim != 1 or patients.is_floating_point() or patients.is_complex() or patients.dtype == torch.bool:
        raise ValueError(
            f"patients is {patients.dtype} of the shape {tuple(patients.shape)}: expected one whole number a record; "
            "number the patients' ids first."
        )
    if resamples < 0:
        raise ValueError(f"resamples is {resamples}: expected 0 or more; 1000 suit a 95 % interval.")
    starts, position = _starts(patients.detach().long(), seed)
    weights = torch.ones(1 + resamples, len(patients), dtype=torch.float64, device=patients.device)
    rows = max(1, _CHUNK_ELEMENTS // max(1, len(starts)))
    for numbers in torch.split(torch.arange(1, 1 + resamples, device=patients.device), rows):
        words = _mix(starts + numbers[:, None] * _signed(_GOLDEN))
        # The upper 52 bits and a half: never 0 or 1, so no weight is infinite or 0.
        uniform = (_shift(words, 12).double() + 0.5) * 2.0**-52
        weights[numbers] = uniform.log_().neg_()[:, position]
    return weights


def _starts(patients: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return a word a patient, (P,) int64, from which its weights follow, and the patient of each record, (N,)."""
    key = _mix(torch.tensor([_signed(seed), _signed(seed ^ _UNKNOWN_STREAM)], device=patients.device))
    unknown = patients == UNKNOWN_PATIENT
    words = torch.where(unknown, key[1] + unknown.cumsum(0), key[0] + patients)
    distinct, position = torch.unique(words, return_inverse=True)
    return _mix(distinct), position


def _mix(words: Tensor) -> Tensor:
    """Scramble 64-bit words, each to another one; products wrap around."""
    words = (words ^ _shift(words, 30)) * _signed(_FIRST_FACTOR)
    words = (words ^ _shift(words, 27)) * _signed(_SECOND_FACTOR)
    return words ^ _shift(words, 31)


def _shift(words: Tensor, bits: int) -> Tensor:
    """Shift to the right and fill with zeros; torch has signed words only and would fill with the sign."""
    filled: Tensor = (words >> bits) & ((1 << (64 - bits)) - 1)
    return filled


def _signed(word: int) -> int:
    """Write a whole number as the signed 64-bit one with the same bits."""
    return (word + _WORD // 2) % _WORD - _WORD // 2
