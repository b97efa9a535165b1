"""A few validation records whose maps are drawn at every epoch: always the same, so that epochs can be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from ecgfair.anomaly.maps import smooth
from ecgfair.callbacks.anomaly_calibration import Calibration
from ecgfair.callbacks.anomaly_records import scorer
from ecgfair.callbacks.measured import records_table
from ecgfair.ecg import EcgBatch, Preprocessing
from ecgfair.errors import ConfigurationError
from ecgfair.report.map_figure import MappedRecord, MapScale, draw_map


class Examples:
    """The first abnormal and the first normal records, by their place in the store, of those that this process sees.

    Args:
        count: How many; one more abnormal than normal if odd.
    """

    def __init__(self, count: int) -> None:
        self._wanted = {"abnormal": count - count // 2, "normal": count // 2}
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._kept: dict[str, dict[int, dict[str, Tensor]]] = {kind: {} for kind in self._wanted}

    def offer(self, batch: Mapping[str, Any], normal: Tensor, abnormal: Tensor) -> None:
        """Keep those of a batch that come before the ones that are kept.

        Args:
            batch: An ``EcgBatch``.
            normal: (B,) bool, on the CPU.
            abnormal: Likewise.
        """
        index = batch["index"].tolist()
        for kind, flags in (("abnormal", abnormal), ("normal", normal)):
            kept, wanted = self._kept[kind], self._wanted[kind]
            for row in flags.nonzero()[:, 0].tolist():
                if index[row] not in kept and (len(kept) < wanted or (wanted and index[row] < max(kept))):
                    kept[index[row]] = {
                        name: value[row].detach().clone() for name, value in batch.items() if torch.is_tensor(value)
                    }
                if len(kept) > wanted:
                    del kept[max(kept)]

    def batch(self) -> EcgBatch | None:
        """Return the records kept, abnormal ones first; ``None`` if there are none."""
        rows = [of_kind[index] for of_kind in self._kept.values() for index in sorted(of_kind)]
        if not rows:
            return None
        return cast("EcgBatch", {name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def draw_examples(
    batch: EcgBatch,
    trainer: Trainer,
    pl_module: LightningModule,
    label_names: Sequence[str],
    calibration: Calibration | None,
    smoothing: float,
) -> dict[str, Figure]:
    """Draw the maps of some records, all on one scale.

    Args:
        batch: The records.
        trainer: Its data module names them, if it can.
        pl_module: An ``AnomalyScorer`` that knows its ``preprocessing``.
        label_names: Of the labels.
        calibration: Of this epoch; ``None`` without.
        smoothing: Seconds, see ``anomaly.maps.smooth``.

    Returns:
        Figures by a name fit for a file: the place in the store and the record's id.

    Raises:
        ConfigurationError: The module returns no maps, or knows no preprocessing.
    """
    preprocessing = getattr(pl_module, "preprocessing", None)
    scores = scorer(pl_module).anomaly_scores(batch, maps=True)
    if not isinstance(preprocessing, Preprocessing) or scores.map is None:
        lacking = "map, which was asked for" if scores.map is None else "preprocessing, which names leads and rate"
        raise ConfigurationError(
            f"{type(pl_module).__name__} gave no {lacking}: expected it for the example maps. Set maps to 0 to go "
            "without."
        )
    signal, recorded = batch["signal"].cpu(), batch["recorded"].cpu()
    score = scores.score.detach().double().cpu()
    maps = smooth(scores.map.detach().cpu(), smoothing, preprocessing.sampling_rate, recorded).numpy()
    age, sex = batch["age"].cpu(), batch["sex"].cpu()
    shares = None if calibration is None else calibration.percentile(score, age, sex)
    ids = _record_ids(batch["index"].cpu(), trainer)
    scale = MapScale.of_maps(list(maps))
    figures = {}
    for row, name in enumerate(ids):
        positive = batch["labels"][row].cpu() == 1
        record = MappedRecord(
            name,
            float(score[row]),
            None if shares is None else float(shares[row]),
            float(age[row]),
            int(sex[row]),
            [label for label, is_positive in zip(label_names, positive.tolist(), strict=True) if is_positive],
        )
        place = f"{int(batch['index'][row]):06d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}"
        figures[place] = draw_map(
            signal[row].numpy(),
            maps[row],
            preprocessing.leads,
            preprocessing.sampling_rate,
            record=record,
            scale=scale,
            recorded=recorded[row].numpy().astype(np.bool_),
        )
    return figures


def _record_ids(index: Tensor, trainer: Trainer) -> list[str]:
    table = records_table({"index": index}, trainer)
    return [str(place) for place in index.tolist()] if table is None else [str(name) for name in table["record_id"]]
