"""Whether rows without names are the limb leads they are said to be: Einthoven's and Goldberger's equations tell.

I and II give III, aVR, aVL and aVF (Malmivuo & Plonsey, Bioelectromagnetism, 1995, chapter 15), so the six limb leads
of a recording lie in two dimensions, and in the wrong order they leave them. Measured on 303 recordings at 400 and
500 Hz: the rule below doubts none in the right order, and 99.9 % of those with two or three limb leads exchanged.
"""

from __future__ import annotations

from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_modules.leads import LIMB_LEADS, with_derived

_IN_I_AND_II: Final = with_derived(np.eye(2), LIMB_LEADS[:2])[0].astype(np.float64)
_OUTSIDE: Final = np.eye(6) - _IN_I_AND_II @ np.linalg.pinv(_IN_I_AND_II)
_ORDERS: Final = np.array(list(permutations(range(6))))
"""(720, 6) which limb lead each row is; the first is the order of ``LIMB_LEADS``."""
_OUTSIDE_BY_ORDER: Final = _OUTSIDE[_ORDERS[:, :, None], _ORDERS[:, None, :]].reshape(len(_ORDERS), 36)

_GOOD: Final = 0.05  # residual of a recording that is not worth a doubt
_CLEARLY_BETTER: Final = 0.5  # how much smaller another order's residual has to be
_NONE_FITS: Final = 0.5  # six unrelated rows have 0.82; the noisiest of the recordings measured has 0.21


def doubt(signal: NDArray[np.floating]) -> str | None:
    """Say why the first six rows are hardly I, II, III, aVR, aVL and aVF, or return None.

    Electrodes exchanged on the patient are no such reason: the leads they give still fit the equations.

    Args:
        signal: (at least 6, time) in any unit; samples at which one of the six is not a number are left out.
    """
    rows = np.asarray(signal[:6], dtype=np.float64)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if rows.shape[1] < 2:
        return None
    rows = rows - np.median(rows, axis=1, keepdims=True)
    products = rows @ rows.T
    power = np.trace(products)
    if not power:
        return None
    residuals = np.sqrt(np.maximum(_OUTSIDE_BY_ORDER @ products.ravel(), 0) / power)
    published, best = float(residuals[0]), int(residuals.argmin())
    if published > _GOOD and residuals[best] < _CLEARLY_BETTER * published:
        order = ", ".join(LIMB_LEADS[lead] for lead in _ORDERS[best])
        return (
            f"limb leads miss Einthoven's and Goldberger's equations by {published:.0%} of their amplitude, "
            f"by {residuals[best]:.0%} in the order {order}"
        )
    if published > _NONE_FITS:
        return f"limb leads miss Einthoven's and Goldberger's equations by {published:.0%} of their amplitude"
    return None
