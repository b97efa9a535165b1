"""The labels of a store in another vocabulary, and what of its codes is lost on the way."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from data_modules.labels.label_map import LabelMap
from data_modules.stores.store import RecordStore

_log = logging.getLogger(__name__)


def mapped_labels(
    store: RecordStore, label_map: LabelMap, label_set: str, min_likelihood: float = 0.0
) -> tuple[list[str], NDArray[np.uint8]]:
    """Return one column of zeros and ones a label of another vocabulary, and log in one line what could not be told.

    A label of which the map knows no code of its own, or none that the store has, is 0 for all records: it is unknown,
    and AUROC undefined for want of positives. A record is 0 as well where its codes leave a label open.

    Args:
        store: The store.
        label_map: What its codes say in the other vocabulary.
        label_set: Label set of the other vocabulary.
        min_likelihood: As for ``RecordStore.labels``.

    Returns:
        The labels' names, in the other vocabulary's order, and (records, labels) uint8.

    Raises:
        ConfigurationError: There is no such label set, or the likelihood is no percentage.
    """
    codes_of = label_map.codes_of(label_set)
    positive = store.positive(codes_of, min_likelihood)
    rank_zero_only(_log.warning)(_what_is_lost(store, label_map, label_set))
    return list(codes_of), positive


def _what_is_lost(store: RecordStore, label_map: LabelMap, label_set: str) -> str:
    """Return one line: the codes not known, those that leave labels open, and the labels that no code can tell."""
    records = _records_by_code(store)
    unknown = [f"{code} ({records[code]})" for code in records if code not in label_map.codes]
    undecided = label_map.undecided(label_set, list(records))
    open_codes = [f"{code} ({records[code]}: {', '.join(labels)})" for code, labels in undecided.items()]
    untold = [label for label, codes in label_map.codes_of(label_set).items() if not codes]
    told = len(label_map.label_sets[label_set])
    return (
        f"{store.location} by the label map, records in brackets: {_listed(unknown)} of its {len(records)} codes are "
        f"not in the map; {_listed(open_codes)} leave labels open, of which their records count as negative; "
        f"{_listed(untold)} of the {told} labels of {label_set!r} have no code, so that nobody is positive."
    )


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def _records_by_code(store: RecordStore) -> dict[str, int]:
    """Return how many records have each code, the most frequent first."""
    stated = store.columns(["codes"]).column("codes").combine_chunks()
    pairs = pa.table({"code": pc.list_flatten(stated), "record": pc.list_parent_indices(stated)})
    counted: Any = pairs.group_by("code").aggregate([("record", "count_distinct")])
    counts = dict(zip(counted["code"].to_pylist(), counted["record_count_distinct"].to_pylist(), strict=True))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
