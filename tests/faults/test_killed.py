"""Killed with -9 at any step and started again by the same command, a run ends as one that was never killed."""

import numpy as np
import pytest

from tests.faults.cases import EPOCHS, STEPS, assert_same_run
from tests.faults.driven import KILLED, at_batch, at_renaming, at_step, count_renamings, die, in_validation

SEED = 20
KILLS = 10
WRITES = 20
"""Parts that the writes of a run are divided into, to draw one of them."""
slow = pytest.mark.slow


def places(most, quick, kills=KILLS):
    """Return parameters of a test: both stages, and places drawn at random, of which a few are in the fast suite."""
    made = []
    for stage in ("pretrain", "finetune"):
        generator = np.random.default_rng([SEED, most, *stage.encode()])
        for order, place in enumerate(generator.choice(most, size=kills, replace=False).tolist()):
            marks = () if order < quick else (slow,)
            made.append(pytest.param(stage, place, id=f"{stage}-{place}", marks=marks))
    return made


@pytest.mark.parametrize(("stage", "step"), places(EPOCHS * STEPS, quick=2))
def test_killed_at_a_step_drawn_at_random_it_ends_with_the_same_weights_and_tables(cases, stage, step):
    case = cases(stage)
    assert case.start(at_step(step, die)).status == KILLED
    assert case.last.exists() == (step >= STEPS)
    assert_same_run(case.finish(), cases.unharmed(stage))


@slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_killed_again_and_again_it_ends_with_the_same_weights_and_tables(cases, stage):
    case = cases(stage)
    for step in (2, 8, 12):
        assert case.start(at_step(step, die)).status == KILLED
    assert_same_run(case.finish(), cases.unharmed(stage))


@pytest.mark.parametrize(
    ("stage", "epoch"),
    [
        pytest.param("pretrain", 0, marks=slow),
        pytest.param("pretrain", EPOCHS - 1, marks=slow),
        ("finetune", 0),
        pytest.param("finetune", EPOCHS - 1, marks=slow),
    ],
)
def test_killed_in_a_validation_it_ends_with_the_same_weights_and_tables(cases, stage, epoch):
    case = cases(stage)
    assert case.start(in_validation(epoch, die)).status == KILLED
    assert_same_run(case.finish(), cases.unharmed(stage))


@pytest.fixture(scope="module")
def renamings(cases):
    """How often a file takes its name in a run, by stage."""
    found = {}
    for stage in ("pretrain", "finetune"):
        case = cases(stage)
        case.start(count_renamings(case.folder / "renamed.txt"))
        found[stage] = len((case.folder / "renamed.txt").read_text().splitlines())
    return found


@pytest.mark.parametrize(("stage", "place"), places(2 * WRITES, quick=1))
def test_killed_around_a_write_it_ends_with_the_same_weights_and_tables(cases, renamings, stage, place):
    number = place // 2 * renamings[stage] // WRITES
    case = cases(stage)
    assert case.start(at_renaming(number, die, behind=bool(place % 2))).status == KILLED, number
    assert_same_run(case.finish(), cases.unharmed(stage))


@pytest.mark.parametrize(
    ("flags", "harm"),
    [
        pytest.param(("--trainer.accumulate_grad_batches=2",), at_batch(4, 3, die), marks=slow),
        pytest.param(("--trainer.val_check_interval=2",), at_step(8, die), marks=slow),
        pytest.param(
            ("--trainer.val_check_interval=2", "--trainer.accumulate_grad_batches=2"), at_batch(4, 3, die), marks=slow
        ),
        pytest.param(("--data.init_args.num_workers=1",), at_step(8, die), marks=slow),
        pytest.param(("--trainer.precision=bf16-mixed",), at_step(8, die), marks=slow),
    ],
    ids=["accumulate_grad_batches", "val_check_interval", "both", "num_workers", "bf16"],
)
def test_killed_in_a_run_with_other_settings_it_ends_with_the_same_weights_and_tables(cases, flags, harm):
    case = cases("finetune", *flags)
    assert case.start(harm).status == KILLED
    assert case.last.exists()
    assert_same_run(case.finish(), cases.unharmed("finetune", *flags))


@slow
def test_killed_in_a_run_whose_weights_are_averaged_it_ends_with_the_same_weights_and_tables(cases):
    averaging = [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}]
    case = cases("finetune", callbacks=averaging)
    assert case.start(at_step(8, die)).status == KILLED
    assert_same_run(case.finish(), cases.unharmed("finetune", callbacks=averaging))
