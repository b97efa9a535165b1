"""How long it takes to draw synthetic ECGs: what is true of a record, and its signal, on one core.

    OMP_NUM_THREADS=1 python experiments/synthetic/speed.py [--records 1000] [--rate 100] [--repeat 3]

Writing is not part of it.
"""

from __future__ import annotations

import argparse
import time

from rich.console import Console

from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.signals.recording import record


def seconds_for(numbers: range, rate: int) -> tuple[float, float]:
    """Return the seconds that all truths take, and those of all recordings."""
    begin = time.perf_counter()
    truths = [truth(number) for number in numbers]
    middle = time.perf_counter()
    for one in truths:
        record(one, rate)
    return middle - begin, time.perf_counter() - middle


def main() -> None:
    """Print the seconds of each repetition for as many records as asked for, and for 1,000."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=100, help="Hz")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    console = Console()
    first, _ = seconds_for(range(1, 2), arguments.rate)
    console.print(f"first record, with tables that are made once: {first:.2f} s")
    for repetition in range(arguments.repeat):
        numbers = range(1 + repetition * arguments.records, 1 + (repetition + 1) * arguments.records)
        drawn, made = seconds_for(numbers, arguments.rate)
        console.print(
            f"{arguments.records} records at {arguments.rate} Hz: {drawn:.2f} s for what is true, {made:.2f} s for the "
            f"signals; {1000 * (drawn + made) / arguments.records:.2f} s for 1,000"
        )


if __name__ == "__main__":
    main()
