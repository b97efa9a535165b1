"""Runs every row of the tables, measures them, and writes the tables into RESULTS.md.

    python -m experiments.ptbxl.results                      all rows, three seeds of the headline ones
    python -m experiments.ptbxl.results --list               what is there and what is not; runs nothing
    python -m experiments.ptbxl.results --only scratch-bce xresnet1d101 --seeds 0 1
    python -m experiments.ptbxl.results --measure            the tables of what is there; runs nothing
    python -m experiments.ptbxl.results --rotate scratch-bce --only scratch-bce
    python -m experiments.ptbxl.results … -- --trainer.max_epochs 1      what follows -- goes to every fit

What is finished is not run again, and what was stopped (Ctrl-C, a crash) goes on from its last epoch. Rows that a
chosen one starts from are run first. Fold 9 chooses, and fold 10 is read once a run, by ``test``. Tables hold all rows,
chosen or not; one that was not run is named behind them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from ecgfair.errors import ConfigurationError, EcgFairError
from ecgfair.report.read_predictions import read_predictions
from experiments.ptbxl.measured import RESAMPLES, Measured, measure, pooled, training_prevalence
from experiments.ptbxl.rows import (
    BASELINE,
    PRETRAIN,
    REFERENCE,
    ROWS,
    ResultRow,
    row_named,
    unused_files,
    with_starts,
)
from experiments.ptbxl.running import (
    FOLDS,
    Processes,
    Run,
    Runner,
    fold_run,
    perform_all,
    read_minutes,
    seed_run,
)
from experiments.ptbxl.tables import Line, rewrite, whole

OUT: Final = Path("experiments/RESULTS.md")
RUNS: Final = Path("runs/results")
STORE: Final = "stores/ptbxl"
MOST_SEEDS: Final = 10
"""Tables look for runs with the seeds below."""


def runs_of(row: ResultRow, given: argparse.Namespace, *, is_rotated: bool = False) -> list[Run]:
    """Return all runs of a row: one a seed, or one a fold."""
    if is_rotated:
        return [fold_run(row, fold, given.runs, given.store) for fold in FOLDS]
    # A baseline draws nothing by chance.
    seeds = (0,) if row.kind == BASELINE else tuple(given.seeds or row.seeds)
    return [seed_run(row, seed, given.runs, given.store) for seed in seeds]


def _shown(row: ResultRow, given: argparse.Namespace, *, is_rotated: bool) -> list[Run]:
    """Return the runs that the tables are of: those a row is to have, and further seeds that are finished."""
    if is_rotated:
        return runs_of(row, given, is_rotated=True)
    runs = [seed_run(row, seed, given.runs, given.store) for seed in range(MOST_SEEDS)]
    return [run for seed, run in enumerate(runs) if seed in row.seeds or run.finished]


def needed(given: argparse.Namespace, rows: Sequence[ResultRow]) -> list[Run]:
    """Return all runs that were asked for, with the pretraining they start from.

    A pretraining that is needed is run with the seeds of the rows that start from it.
    """
    chosen = [row_named(name, rows) for name in given.only] if given.only is not None else list(rows)
    rotated = [row_named(name, rows) for name in given.rotate]
    wanted = {run.folder: run for row in chosen for run in runs_of(row, given)}
    wanted |= {run.folder: run for row in rotated for run in runs_of(row, given, is_rotated=True)}
    for row in [*chosen, *rotated]:
        if row.start is not None:
            first = row_named(row.start, rows)
            if row in chosen:
                seeds = given.seeds or row.seeds
                starts = [seed_run(first, seed, given.runs, given.store) for seed in seeds]
                wanted |= {run.folder: run for run in starts}
            if row in rotated:
                wanted |= {run.folder: run for run in runs_of(first, given, is_rotated=True)}
    order = {row.name: place for place, row in enumerate(with_starts([*chosen, *rotated], rows))}
    return sorted(wanted.values(), key=lambda run: order[run.row.name])


def perform_rows(given: argparse.Namespace, rows: Sequence[ResultRow], runner: Runner) -> list[str]:
    """Run what is missing, then what it costs to predict.

    Returns:
        What went wrong, a line each.
    """
    runs = needed(given, rows)
    asked = dict.fromkeys(run.row for run in runs)
    wrong = [f"{row.name} is not run: {', '.join(row.lacking)} is not there" for row in asked if row.lacking]
    runnable = [run for run in runs if not run.row.lacking]
    wrong += perform_all(runnable, given.jobs, runner, given.extra)
    for row in dict.fromkeys(run.row for run in runnable if run.row.kind not in (PRETRAIN, BASELINE)):
        first = next((run for run in runnable if run.row is row and run.finished), None)
        if first is not None and not first.beside("cost.json").is_file():
            command = [sys.executable, "-m", "experiments.ptbxl.cost", str(first.folder)]
            with first.beside("cost.lock").open("wb") as lock:
                if status := runner(command, first.beside("log"), lock.fileno()):
                    wrong.append(f"{' '.join(command)} ended with status {status}: see {first.beside('log')}.")
    return wrong


def lines_of(
    given: argparse.Namespace, rows: Sequence[ResultRow], prevalence: Mapping[str, float], *, is_rotated: bool = False
) -> list[Line]:
    """Measure all rows of which something is there."""
    of_rows = {row.name: _shown(row, given, is_rotated=is_rotated) for row in rows}
    measured: dict[str, Measured] = {}
    refused: dict[str, str] = {}
    for row in rows:
        done = [run for run in of_rows[row.name] if run.finished]
        if row.kind == PRETRAIN or not done or (is_rotated and len(done) < len(FOLDS)):
            continue
        tables = [read_predictions(run.predictions) for run in done]
        try:
            measured[row.name] = measure(
                [pooled(tables)] if is_rotated else tables,
                prevalence,
                within_folds=is_rotated,
                resamples=given.resamples,
            )
        except ConfigurationError as error:
            refused[row.name] = str(error)
    return [_line(row, of_rows[row.name], measured, refused) for row in rows]


def _line(row: ResultRow, runs: Sequence[Run], measured: Mapping[str, Measured], refused: Mapping[str, str]) -> Line:
    """Put together what is known of a row."""
    done, open_runs = [run for run in runs if run.finished], [run for run in runs if not run.finished]
    missing = f"without {', '.join(run.part for run in open_runs)}" if open_runs else ""
    if open_runs and row.lacking:
        missing = f"{', '.join(row.lacking)} is not there"
    own = measured.get(row.name)
    ahead, ahead_fails = _ahead(own, None if row.name == REFERENCE else measured.get(REFERENCE))
    gains, gains_fail = _ahead(own, measured.get(row.gap_from or ""))
    notes = [refused.get(row.name, ""), ahead_fails or gains_fail, _fallbacks(done)]
    return Line(
        row,
        tuple(run.part for run in done),
        missing,
        own.summary if own else {},
        ahead,
        gains,
        next((_json(run.beside("cost.json")) for run in runs if run.beside("cost.json").is_file()), {}),
        [read_minutes(run) for run in runs],
        " ".join(filter(None, notes)),
    )


def _ahead(own: Measured | None, other: Measured | None) -> tuple[Mapping[str, Any], str]:
    """Return paired differences, or why there are none."""
    if own is None or other is None:
        return {}, ""
    try:
        return own.ahead_of(other), ""
    except ConfigurationError as error:
        return {}, str(error)


def _fallbacks(done: Sequence[Run]) -> str:
    """Say which labels a baseline has no model for."""
    path = next((run.folder / "fallbacks.json" for run in done), Path("fallbacks.json"))
    told = _json(path) if done and path.is_file() else {}
    if not told or not told["labels"]:
        return ""
    return (
        f"{len(told['labels'])} statements have fewer than {told['needed']} positive training records and are "
        f"predicted by their prevalence: {', '.join(told['labels'])}."
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def about(given: argparse.Namespace) -> list[str]:
    """Say how the tables were made."""
    return [
        f"Made by `python -m experiments.ptbxl.results`, on the store `{given.store}`; fold 9 chooses, fold 10 tests. "
        "Values are means over the seeds named. In brackets: 95 % intervals of these means from "
        f"{given.resamples:,} resamples of the patients, which say nothing of other seeds; in square brackets: over "
        "how many statements a mean goes. Differences are paired by patients and resamples. Head, medium and tail are "
        "cut at 10 and 1 % of folds 1-8 of the whole store in every row. The common-rare gap is head minus tail; the "
        "gap reduction is 1 - gap / gap from scratch, where the latter is above 0 beyond chance (Fieller's interval). "
        "Means of groups take the statements with 5 positives and 5 negatives in the group, gaps those shared; the age "
        "gap is the worst minus the best band and has no interval."
    ]


def print_list(given: argparse.Namespace, rows: Sequence[ResultRow], console: Console) -> None:
    """Print what is there and what is not."""
    for run in needed(given, rows):
        state = "done" if run.finished else "started" if run.folder.exists() else "not run"
        why = f": {', '.join(run.row.lacking)} is not there" if run.row.lacking else ""
        console.print(f"{run.folder}: {state}{why}")
    for path in unused_files(rows):
        console.print(f"{path}: no row uses it")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    words = [*argv, "--"]  # argparse would give what follows to the option before it
    own, extra = words[: words.index("--")], words[words.index("--") + 1 : -1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="run these alone, and what they start from")
    parser.add_argument("--rotate", nargs="+", default=[], metavar="ROW", help="also test every fold once, of these")
    parser.add_argument("--seeds", type=int, nargs="+", help="of every row; by default those of the row")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--list", action="store_true", help="print what is there and what is not; run nothing")
    parser.add_argument("--measure", action="store_true", help="run nothing")
    parser.add_argument("--store", default=STORE)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    given = parser.parse_args(own)
    given.extra = extra
    return given


def main(
    argv: Sequence[str] | None = None,
    rows: Sequence[ResultRow] = ROWS,
    make_runner: Callable[[int], Runner] = Processes,
    prevalence: Callable[[str], Mapping[str, float]] = training_prevalence,
) -> int:
    """Run, measure and write.

    Args:
        argv: The command line; that of the process if None.
        rows: The registry.
        make_runner: Makes what starts processes, of a number of threads.
        prevalence: Reads the training prevalence of a store.

    Returns:
        The exit status: 1 if a run failed, 2 for what was asked wrongly, 130 after Ctrl-C.
    """
    given = arguments(sys.argv[1:] if argv is None else argv)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    try:
        if given.list:
            print_list(given, rows, console)
            return 0
        wrong = [] if given.measure else perform_rows(given, rows, make_runner(given.threads))
        shares = prevalence(given.store)
        rotated = [row_named(name, rows) for name in given.rotate]
        if rotated and REFERENCE not in given.rotate and any(row.name == REFERENCE for row in rows):
            rotated.append(row_named(REFERENCE, rows))
        rotation = lines_of(given, rotated, shares, is_rotated=True)
        rewrite(given.out, whole(lines_of(given, rows, shares), rotation, about(given)))
    except EcgFairError as error:
        console.print(str(error))
        return 2
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from the last epochs.")
        return 130
    for line in wrong:
        console.print(line)
    console.print(f"{given.out}: rewritten between its markers")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
