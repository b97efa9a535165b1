"""Records scored a second, against the published scheme with the same network in the same run.

    python experiments/anomaly/speed.py

The published scheme takes three passes a beat, one record at a time. In the covering scheme a batch goes through a few
passes, and each sample is hidden once; both score the same three terms. The score of ``default.yaml`` looks at each
record once, as it is: whether it was altered, the distance of features, and the shape of the median beat. Weights
are random: they change no cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor

from data_modules.streaming.datamodules import EcgDataModule
from ecgfair.anomaly.scoring import Scoring
from ecgfair.ecg import EcgBatch
from ecgfair.models.encoder import EncoderSpec
from ecgfair.training import PretrainModule
from ecgfair.training.pretrain_settings import PretrainWeights

UNMASKED = {"altered": 0.0, "distance": 1.0, "shape": 4.0, "altered_beat": 1.0}
"""The terms of ``default.yaml``."""
NETWORKS: dict[str, dict[str, Any]] = {
    "default": {
        "encoder": EncoderSpec(
            "ResidualEncoder", {"widths": [32, 48, 48, 96, 96, 128], "trend_widths": [16, 32, 48, 64]}
        ),
        "local_widths": [32, 64],
        "decoder_width": 96,
    },
    "mcf": {"encoder": EncoderSpec("McfEncoder", {"trend_window": 2})},
}


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes, after a first time that is not counted."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print records a second of both schemes and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="stores/ptbxl")
    parser.add_argument("--published", type=int, default=8, help="Records that the published scheme scores.")
    parser.add_argument("--covering", type=int, default=512, help="Records that the covering scheme scores.")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--passes", type=int, nargs="+", default=[2, 3])
    asked = parser.parse_args()
    data = EcgDataModule(asked.store, batch_size=asked.batch)
    batches = list(data.training_sample(asked.covering))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{torch.get_num_threads()} threads, batches of {asked.batch}")
    for name, network in NETWORKS.items():
        schemes = {"published": Scoring(scheme="published", standardise=False)}
        schemes |= {f"covering, {n} passes": Scoring(standardise=False, passes=n) for n in asked.passes}
        schemes |= {"unmasked": Scoring(terms=UNMASKED, map_terms={"shape": 1.0, "variation": 2.0})}
        rates = {}
        for scheme, scoring in schemes.items():
            torch.manual_seed(0)
            weights = PretrainWeights(altered=1.0, altered_map=1.0, altered_beat=1.0) if scheme == "unmasked" else None
            module = PretrainModule(data.preprocessing, scoring=scoring, weights=weights, **network).eval()
            module.fit_reference(batches[:2])
            if scheme == "published":
                few = cast(
                    "EcgBatch", {key: cast("Tensor", value)[: asked.published] for key, value in batches[0].items()}
                )
                taken = seconds(lambda module=module, few=few: module.anomaly_scores(few))  # type: ignore[misc]
                rates[scheme] = asked.published / taken
            else:
                taken = seconds(lambda module=module: [module.anomaly_scores(batch) for batch in batches])  # type: ignore[misc]
                rates[scheme] = sum(len(batch["index"]) for batch in batches) / taken
            ratio = rates[scheme] / rates["published"]
            console.print(f"{name:8} {scheme:20} {rates[scheme]:8.1f} records/s  {ratio:6.1f} times published")


if __name__ == "__main__":
    main()
