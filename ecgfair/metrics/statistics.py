"""Names of the statistics of a label in a group, and which way is better."""

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
COSTS: Final = (BRIER, ECE, ECE_DEBIASED, FPR, FNR)
"""Those of which less is better."""

EQUALIZED_ODDS: Final = "equalized_odds"
EQUAL_OPPORTUNITY: Final = "equal_opportunity"


def is_better_high(statistic: str) -> bool:
    """Whether more of it is better."""
    return statistic not in COSTS
