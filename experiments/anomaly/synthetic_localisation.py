"""Localise the signs of a synthetic population, whose masks say where each is: a second truth beside planted anomalies.

    python -m ecgfair synthesize stores/synthetic --records 2000 --seed 0 --format store
    python -m ecgfair fit --config experiments/anomaly/default.yaml --data.init_args.store stores/synthetic \
        --run runs/anomaly/synthetic
    python experiments/anomaly/synthetic_localisation.py --run runs/anomaly/synthetic

Records of the test fold that show one condition or more. Conditions whose sign is the whole record (a fast rhythm, low
voltage) have no place to point at: a record that shows one of them is left out, and counted. Unlike planted anomalies,
most signs are in every beat of their record.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from trained import load

from data_modules.streaming.datamodules import EcgDataModule
from data_modules.synthetic.people.conditions import CONDITIONS
from data_modules.synthetic.signals.masks import mask_array
from data_modules.synthetic.writing.truth_tables import read_masks
from ecgfair.anomaly.evaluation.localisation import evaluate_localisation

WHOLE_RECORD = {code for code, condition in CONDITIONS.items() if "record" in condition.segments}


def main() -> None:
    """Print a row a condition, and one of all records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--least", type=int, default=5, help="Records of a condition to have a row of its own.")
    parser.add_argument("--resamples", type=int, default=100)
    asked = parser.parse_args()
    module, loaded = load(asked.run)
    data = cast("EcgDataModule", loaded)
    rate, length = data.preprocessing.sampling_rate, data.preprocessing.length
    ids = data.store.columns(["record_id"])["record_id"].to_pylist()
    masks = read_masks(data.store.location)
    maps: list[Tensor] = []
    truths: list[Tensor] = []
    rows: dict[str, list[int]] = defaultdict(list)
    left_out = 0
    for batch in data.test_dataloader():
        finished = data.on_after_batch_transfer(batch, 0)
        shown = module.anomaly_scores(finished, maps=True).map
        assert shown is not None  # noqa: S101  # it was asked for
        for row, index in enumerate(finished["index"].tolist()):
            of_record = masks[ids[index]]
            codes = {mask.code for mask in of_record}
            left_out += bool(codes & WHOLE_RECORD)
            if not codes or codes & WHOLE_RECORD:
                continue
            truth = np.any([mask_array(of_record, code, length, rate) for code in codes], axis=0)
            for code in codes:
                rows[code].append(len(maps))
            maps.append(shown[row])
            truths.append(torch.from_numpy(truth))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{len(maps)} records with a sign; {left_out} whose sign is the whole record are left out.")
    console.print("| sign | records | AUROC over samples | mean over records | best Dice |\n|---|---|---|---|---|")
    rows = {code: rows[code] for code in sorted(rows) if len(rows[code]) >= asked.least}
    for name, chosen in {**rows, "all": list(range(len(maps)))}.items():
        resamples = asked.resamples if name == "all" else 0
        shown, truth = (torch.stack([values[row] for row in chosen]) for values in (maps, truths))
        found = evaluate_localisation(shown, truth, None, ~shown.isnan(), resamples=resamples)
        interval = f" ({found.auroc_low:.3f}-{found.auroc_high:.3f})" if resamples else ""
        console.print(
            f"| {name} | {len(chosen)} | {found.auroc:.3f}{interval} | {found.auroc_by_record:.3f} | {found.dice:.3f} |"
        )


if __name__ == "__main__":
    main()
