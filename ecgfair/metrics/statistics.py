"""Names of the statistics of a label in a group, which way is better, and what a gap between groups does not mean.

- AUROC of a group ranks its positive records against its own negative ones. A model that scores a whole group higher
  has no gap in AUROC; TPR and FPR at a common threshold show it.
- Average precision, PPV and the Brier score depend on how common a label is. Groups that have a disease more or less
  often differ in them even where the model serves them alike.
- The expected calibration error is larger in a smaller group by chance alone; compare groups by ``ECE_DEBIASED``.
"""

from __future__ import annotations

from typing import Final

AUROC: Final = "auroc"
STRATIFIED_AUROC: Final = "stratified_auroc"
AVERAGE_PRECISION: Final = "average_precision"
BRIER: Final = "brier"
ECE: Final = "ece"
ECE_DEBIASED: Final = "ece_debiased"
TPR: Final = "tpr"
FPR: Final = "fpr"
FNR: Final = "fnr"
PPV: Final = "ppv"

STATISTICS: Final = (AUROC, STRATIFIED_AUROC, AVERAGE_PRECISION, BRIER, ECE, ECE_DEBIASED, TPR, FPR, FNR, PPV)
RATES: Final = (TPR, FPR, FNR, PPV)
"""Those that need a threshold."""
WITHOUT_INTERVALS: Final = (ECE, ECE_DEBIASED)
"""Chance alone makes a calibration error positive, in a resample once more. Intervals made of resamples would miss 0
for a model that is calibrated perfectly."""
COSTS: Final = (BRIER, ECE, ECE_DEBIASED, FPR, FNR)
"""Those of which less is better."""

EQUALIZED_ODDS: Final = "equalized_odds"
EQUAL_OPPORTUNITY: Final = "equal_opportunity"


def is_better_high(statistic: str) -> bool:
    """Whether more of it is better."""
    return statistic not in COSTS
