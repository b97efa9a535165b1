"""What a trained model costs: parameters, GFLOP a record, and records a second that it predicts on one thread.

    OMP_NUM_THREADS=1 python -m experiments.ptbxl.cost RUN

It writes ``RUN.cost.json`` beside the run folder. Counted and timed is ``predict_step`` on records of the validation
fold, which are in memory already: the network with all that it does at test time, several windows included, and
neither reading nor measuring. GFLOP are 10^9 floating-point operations, a multiplication and an addition being two, of
convolutions, matrix products and attention; what works element by element is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from ecgfair.cli.experiment import ExperimentCLI
from ecgfair.training import EcgModule
from experiments.ptbxl.running import machine

PASSES: Final = 7
BATCH: Final = 64


class Built(ExperimentCLI):
    """Builds the model and the data of a verb as the command line does, and leaves it at that."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


def build(run: Path) -> tuple[EcgModule, dict[str, Any]]:
    """Return the model of a run, in evaluation mode on the CPU, and a batch of validation records.

    Args:
        run: Its folder, with ``config.yaml`` and ``checkpoints/best.ckpt``.
    """
    best = run / "checkpoints" / "best.ckpt"
    words = ["predict", "--config", str(run / "config.yaml"), "--ckpt_path", str(best), "--trainer.accelerator", "cpu"]
    built = Built(args=[*words, "--data.init_args.batch_size", str(BATCH), "--data.init_args.num_workers", "0"])
    built.model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    batch = built.datamodule.on_after_batch_transfer(next(iter(built.datamodule.val_dataloader())), 0)
    return built.model.eval(), dict(batch)


def measure(module: EcgModule, batch: dict[str, Any], passes: int = PASSES) -> dict[str, Any]:
    """Measure a model.

    Args:
        module: In evaluation mode.
        batch: See ``EcgBatch``.
        passes: Over the batch, after one that is not timed; the median counts.

    Returns:
        ``parameters`` of the network that predicts; ``gflop_a_record``; ``records_a_second`` with the ``slowest`` and
        ``fastest`` pass; ``batch`` and ``machine``.
    """
    network = getattr(module, "network", module)  # without what only training needs, such as an adversary
    first = {name: value[:1] for name, value in batch.items()}
    counter = FlopCounterMode(display=False)
    records, rates = len(batch["signal"]), []
    with torch.inference_mode():
        module.predict_step(batch, 0)
        for _ in range(passes):
            begun = time.perf_counter()
            module.predict_step(batch, 0)
            rates.append(records / (time.perf_counter() - begun))
    with torch.no_grad(), counter:
        module.predict_step(first, 0)
    return {
        "parameters": sum(one.numel() for one in network.parameters()),
        "gflop_a_record": counter.get_total_flops() / 1e9,
        "records_a_second": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "batch": records,
        "machine": machine(torch.get_num_threads()),
    }


def main() -> None:
    """Measure a run and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(*build(given.run))
    path = given.run.with_name(f"{given.run.name}.cost.json")
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    Console().print_json(data=found)


if __name__ == "__main__":
    main()
