"""A command like `fit` that takes no time: x and y make a loss, a value an epoch; it keeps a checkpoint and goes on.

``--fail`` ends it with an error, ``--slow`` lets it wait for the file ``go`` beside its run folder before the end.
"""

import argparse
import sys
import time
from pathlib import Path

from ecgfair.cli.run_path import run_path

parser = argparse.ArgumentParser()
parser.add_argument("--run", type=run_path)
parser.add_argument("--x", type=float)
parser.add_argument("--y", type=float, default=0.0)
parser.add_argument("--fail", type=float, default=-1.0)
parser.add_argument("--slow", action="store_true")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--ckpt_path")
parser.add_argument("--overwrite", default="false")
given = parser.parse_args()
folder = Path(given.run)
if folder.exists() and not given.ckpt_path and given.overwrite == "false":
    sys.exit(f"ecgfair: {folder} holds a run already.")
if given.x == given.fail:
    sys.stderr.write("Traceback (most recent call last):\n  …\necgfair: the loss is no number any more\n\n")
    sys.exit(2)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as starts:
    starts.write(f"{given.ckpt_path}\n")
loss = (given.x - 0.3) ** 2 + given.y
with (folder / "metrics.csv").open("w") as metrics:
    metrics.write("epoch,train/loss,val/loss,val/odd\n")
    for epoch in range(given.epochs):
        # Best in the middle; undefined at first.
        value = "nan" if epoch == 0 else loss + 0.1 * (epoch != 1)
        metrics.write(f"{epoch},0.5,,\n{epoch},,{value},nan\n")
        metrics.flush()
        if given.slow and epoch == given.epochs - 1:
            (folder / "checkpoints" / "last.ckpt").touch()
            (folder / "waits").touch()
            until = time.monotonic() + 60
            while not (folder.parent / "go").exists() and time.monotonic() < until:
                time.sleep(0.05)
