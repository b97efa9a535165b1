"""What this project measures on synthetic ECGs, beside what they were drawn with.

    python experiments/synthetic/measured.py [--records 40] [--rates 100 500] [--noise 1]

For each condition: as many records of people as they come in the population, with that condition and no other, in a
plain case (severity one standard deviation above the mean of those who have it), disturbed as usual. For each quantity:
the median of what was asked for, and measured minus asked as median, 5th and 95th percentile; then the number of
records on which it was asked for and could not be told.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace

import neurokit2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_modules.measuring.measurement import measure_batch
from data_modules.synthetic.people.conditions import CONDITIONS, NORMAL
from data_modules.synthetic.people.draw import example, truth
from data_modules.synthetic.people.truth import Truth
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from ecgfair.ecg import LEADS

QUANTITIES = {"heart_rate": "/min", "pr": "ms", "qrs": "ms", "qt": "ms", "axis": "degrees"}
BEAT_TOLERANCE = 0.02
"""Seconds between a beat and the R peak that is taken for it."""
EDGE = 0.3
"""Seconds at the beginning and at the end in which beats are not counted: neurokit2 does not find them in the first."""


def one_with(code: str, number: int, noise: float = 1.0) -> Truth:
    """Return a record of the person of record ``number`` with one condition, ``NORM`` for none."""
    return replace(example(code, number=number), constitution=truth(number).constitution, noise=noise)


def compare(made: list[Recording], rate: int) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Measure records: quantity -> (N,) asked and measured, NaN where nothing was asked for or could be told."""
    found = measure_batch(np.stack([one.signal for one in made]) / 1000, LEADS, rate)
    return {name: (_values([one.asked for one in made], name), _values(found, name)) for name in QUANTITIES}


def _values(rows: Sequence[object], name: str) -> NDArray[np.float64]:
    values = [getattr(row, name) for row in rows]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def deviations(name: str, asked: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return measured minus asked where both are there; of angles the smaller one."""
    differ = (measured - asked)[np.isfinite(measured) & np.isfinite(asked)]
    return (differ + 180) % 360 - 180 if name == "axis" else differ


def r_peaks(made: list[Recording], rate: int) -> tuple[float, float, float]:
    """Let neurokit2 alone find R peaks in lead II.

    Returns:
        Share of the beats that it finds, share of what it finds that are beats, largest error of the heart rate.
    """
    found_beats = beats = true_peaks = peaks = 0
    worst = 0.0
    for one in made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, info = neurokit2.ecg_peaks(neurokit2.ecg_clean(one.signal[1] / 1000.0, rate), rate)
        found = np.asarray(info["ECG_R_Peaks"]) / rate
        of_beats = one.beats[(one.beats > EDGE) & (one.beats < SECONDS - EDGE)]
        of_peaks = found[(found > EDGE) & (found < SECONDS - EDGE)]
        found_beats += int((np.abs(of_beats[:, None] - found).min(axis=1) <= BEAT_TOLERANCE).sum())
        true_peaks += int((np.abs(of_peaks[:, None] - one.beats).min(axis=1) <= BEAT_TOLERANCE).sum())
        beats, peaks = beats + of_beats.size, peaks + of_peaks.size
        worst = max(worst, abs(60 / np.median(np.diff(found)) - 60 / np.median(np.diff(one.beats))))
    return found_beats / beats, true_peaks / peaks, worst


def measured_table(rate: int, records: int, noise: float) -> Table:
    """Return the table of all conditions at one sampling rate."""
    table = Table(title=f"{rate} Hz, {records} records each, disturbances times {noise:g}")
    table.add_column("")
    for name, unit in QUANTITIES.items():
        table.add_column(f"{name} ({unit})")
    for code in (NORMAL, *CONDITIONS):
        made = [record(one_with(code, number, noise), rate) for number in range(1, records + 1)]
        cells = []
        for name, (asked, measured) in compare(made, rate).items():
            differ = deviations(name, asked, measured)
            if not differ.size:
                cells.append("not asked for" if np.isnan(asked).all() else "not told")
                continue
            low, middle, high = np.percentile(differ, [5, 50, 95])
            untold = int((np.isfinite(asked) & np.isnan(measured)).sum())
            cells.append(f"{np.nanmedian(asked):.0f} {middle:+.1f} [{low:+.0f}, {high:+.0f}] {untold or ''}".rstrip())
        table.add_row(code, *cells)
    return table


def main() -> None:
    """Print the tables and what neurokit2 finds on normal records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=40, help="of each condition")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 500], help="Hz")
    parser.add_argument("--noise", type=float, default=1.0, help="factor on all disturbances")
    arguments = parser.parse_args()
    console = Console(width=160)
    for rate in arguments.rates:
        console.print(measured_table(rate, arguments.records, arguments.noise))
        normal = [record(one_with(NORMAL, number, arguments.noise), rate) for number in range(1, arguments.records + 1)]
        sensitivity, precision, worst = r_peaks(normal, rate)
        console.print(
            f"neurokit2 in lead II of {NORMAL} at {rate} Hz: sensitivity {sensitivity:.4f}, precision {precision:.4f} "
            f"within {1000 * BEAT_TOLERANCE:.0f} ms, but for {EDGE} s at both ends; "
            f"median rate at most {worst:.2f} a minute off\n"
        )


if __name__ == "__main__":
    main()
