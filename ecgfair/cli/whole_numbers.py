"""A whole number on the command line stays one: ``--trainer.limit_train_batches 1`` is a batch, not all of them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin


def whole_numbers_first(function: Callable[..., Any]) -> None:
    """Order the type hints of a function's parameters so that ``1`` is read as an integer where both kinds are taken.

    jsonargparse takes the first type of a union that fits. ``typing`` keeps unions in a cache that does not look at
    their order, so ``Optional[Union[int, float]]`` of Lightning's trainer becomes ``float, int`` in a process where a
    library that wrote it the other way round, such as neurokit2, was imported before: 1 would be read as 1.0, which
    means all batches.

    Args:
        function: Its ``__annotations__`` are changed.
    """
    for name, hint in function.__annotations__.items():
        origin: Any = get_origin(hint)
        kinds = get_args(hint)
        if origin in (Union, UnionType) and {int, float} <= set(kinds):
            others = (kind for kind in kinds if kind not in (int, float))
            # Unlike typing.Union, `|` makes a new one each time, in the order that is written.
            function.__annotations__[name] = functools.reduce(operator.or_, (int, float, *others))
