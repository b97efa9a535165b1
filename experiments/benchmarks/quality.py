"""Quality flags and score against what readers judged: the 12-lead ECGs by phone of the PhysioNet challenge of 2011.

    python experiments/benchmarks/quality.py CINC2011_FOLDER

The folder holds the WFDB records and ``quality.csv`` with the columns ``record`` and ``quality`` (acceptable or
unacceptable; others are left out). The limits in ``data_modules/quality.py`` were compared on the half "chosen on".
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import wfdb
from sklearn.metrics import roc_auc_score

from data_modules.measuring.beats import find_beats
from data_modules.measuring.quality import assess

FLAGS = ("flat", "saturated", "interrupted", "invalid")


def judge(folder: Path) -> pd.DataFrame:
    """Assess all records.

    Args:
        folder: With ``quality.csv`` and the records it names.

    Returns:
        A row a record: ``record``, ``acceptable``, ``held_out``, ``beats``, ``score`` and the number of leads that have
        each of ``FLAGS``.
    """
    table = pd.read_csv(folder / "quality.csv", dtype=str)
    table = table[table["quality"].isin(["acceptable", "unacceptable"])]
    rows = []
    for name, quality in zip(table["record"], table["quality"], strict=True):
        record = wfdb.rdrecord(str(folder / name))
        signal = np.ascontiguousarray(record.p_signal.T, dtype=np.float32)
        beats = find_beats(signal, record.sig_name, record.fs).peaks
        found = assess(signal, record.sig_name, record.fs, beats)
        rows.append(
            {
                "record": name,
                "acceptable": quality == "acceptable",
                "held_out": bool(hashlib.sha256(name.encode()).digest()[-1] % 2),
                "beats": beats.size,
                "score": found.score,
                **{flag: len(getattr(found, f"{flag}_leads")) for flag in FLAGS},
            }
        )
    return pd.DataFrame(rows)


def auroc(table: pd.DataFrame) -> float:
    """Return how often an acceptable record scores higher than an unacceptable one."""
    return float(roc_auc_score(table["acceptable"], table["score"]))


def report(table: pd.DataFrame) -> str:
    """Return the lines to print about the table of ``judge``."""
    held_out = table["held_out"]
    lines = ["AUROC of the score (a low score says: unacceptable)"]
    for name, part in (("chosen on", table[~held_out]), ("held out", table[held_out]), ("all", table)):
        count = f"{len(part)} records, {int((~part['acceptable']).sum())} unacceptable"
        lines.append(f"  {name:<12} {auroc(part):.3f}  ({count})")
    lines.append("Flag on any lead; sensitivity for unacceptable, specificity")
    good = table["acceptable"]
    raised = {flag: table[flag] > 0 for flag in FLAGS} | {"no beats": table["beats"] == 0}
    raised["any of these"] = pd.concat(raised, axis=1).any(axis=1)
    lines += [f"  {name:<12} {flag[~good].mean():.3f}  {1 - flag[good].mean():.3f}" for name, flag in raised.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(judge(Path(sys.argv[1]))))  # noqa: T201  # a table as output is what this script is for
