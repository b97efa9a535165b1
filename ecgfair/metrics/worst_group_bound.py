"""Best on average under a bound on the worst group, as one number that a sweep can maximise.

A search with a constraint has an objective and a set that is allowed. Most searches, that of Weights & Biases among
them, know an objective alone; so what is not allowed is put below all that is, in the order of how far it is from being
allowed, which still tells a search where to go. This is the comparison by feasibility first of Deb 2000
(doi 10.1016/S0045-7825(99)00389-8), for AUROCs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness_report import ALL, BOUNDED, MACRO, OVERALL, VALUE, WORST, Row
from ecgfair.metrics.statistics import AUROC


def check_bound(bound: float | None) -> None:
    """Refuse a bound that is no AUROC.

    Raises:
        ConfigurationError: It is none.
    """
    if bound is not None and not 0 <= bound <= 1:
        raise ConfigurationError(f"bound is {bound}: expected the least AUROC of the worst group, from 0 to 1.")


def bounded_macro(macro: float, worst: Sequence[float], bound: float) -> float:
    """Return the mean AUROC if every worst group keeps to the bound, else the least of these minus 1.

    All that keeps to it is 0 or more, all that does not is below 0: at least ``-1`` and less than ``bound - 1``.

    Args:
        macro: Mean AUROC over labels of all records.
        worst: AUROC of the worst group, of each attribute.
        bound: The least that every one of them may be; equal is allowed.

    Returns:
        NaN if any of these is, or if there is no attribute: what was not measured keeps to no bound.
    """
    if not worst or any(map(math.isnan, (macro, *worst))):
        return math.nan
    least = min(worst)
    return macro if least >= bound else least - 1


def bounded_row(rows: Sequence[Row], bound: float) -> Row:
    """Return the row of ``bounded_macro`` for an evaluation.

    Its reason tells the group that is below the bound, or why it can't be said.

    Args:
        rows: All others of the evaluation; the worst groups of all attributes count.
        bound: See ``bounded_macro``.
    """
    macro = next(row for row in rows if row[:5] == (OVERALL, ALL, MACRO, AUROC, VALUE))
    worst = [row for row in rows if row.statistic == AUROC and row.aggregate == WORST and row.label == MACRO]
    value = bounded_macro(macro.value, [row.value for row in worst], bound)
    return macro._replace(aggregate=BOUNDED, value=value, low=math.nan, high=math.nan, reason=_reason(worst, bound))


def _reason(worst: Sequence[Row], bound: float) -> str:
    undefined = [f"{row.attribute} ({row.reason})" for row in worst if math.isnan(row.value)]
    if undefined:
        return f"worst group unknown of {', '.join(undefined)}"
    below = [f"{row.group} of {row.attribute} has {row.value:.3f}" for row in worst if row.value < bound]
    return f"{', '.join(below)}, below {bound}" if below else ""
