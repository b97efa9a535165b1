"""A figure of AUROC along age, for the audit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ecgfair.metrics.fairness_report import MACRO

SHOWN = 5
"""Labels drawn besides their mean: those with the most positives."""


def draw_age_profile(profile: pd.DataFrame) -> Figure:
    """Draw the mean AUROC over labels in windows of age with its 95 % interval, and the most common labels.

    Args:
        profile: As ``metrics.age_profile`` returns it.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    drawn = profile.dropna(subset="value").assign(middle=lambda rows: (rows["from_age"] + rows["to_age"]) / 2)
    common = drawn.groupby("label", sort=False)["positives"].sum().drop(MACRO, errors="ignore")
    for label in common.sort_values(ascending=False).index[:SHOWN]:
        rows = drawn[drawn["label"] == label]
        axes.plot(rows["middle"], rows["value"], linewidth=1, alpha=0.7, label=label)
    mean = drawn[drawn["label"] == MACRO]
    count = int(mean["labels"].max()) if len(mean) else 0
    axes.fill_between(mean["middle"], mean["low"], mean["high"], color="black", alpha=0.12, linewidth=0)
    label = f"mean of {count} label{'s' * (count != 1)},\n95 % interval"
    axes.plot(mean["middle"], mean["value"], color="black", linewidth=2, label=label)
    width = profile["to_age"].iloc[0] - profile["from_age"].iloc[0]
    axes.set_xlabel(f"Age in years, middle of a window of {width:g} years")
    axes.set_ylabel("AUROC")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def save_age_profile(profile: pd.DataFrame, path: Path) -> None:
    """Write the figure as PNG."""
    draw_age_profile(profile).savefig(path, dpi=150)
