"""The table of results, on small made tables of predictions and runs that are not really run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgfair.errors import ConfigurationError
from ecgfair.report.prediction_table import Metadata, write_predictions
from ecgfair.report.read_predictions import read_predictions
from experiments.ptbxl import results
from experiments.ptbxl.measured import GAP_OF_SEX, SUPPORTED, measure, pooled
from experiments.ptbxl.rows import ROWS, ResultRow, unused_files
from experiments.ptbxl.running import Run, commands, fold_run, perform_all, read_minutes, seed_run
from experiments.ptbxl.tables import BEGIN, END, rewrite

LABELS = ("COMMON", "SOME", "RARE", "HARDLY")
PREVALENCE = {"COMMON": 0.3, "SOME": 0.05, "RARE": 0.005, "HARDLY": 0.001}
RECORDS = 240
STATEMENTS = ("ptbxl/statements.yaml",)
FEW = (
    ResultRow("pretrain", "stage 1", "stage 1", ("ptbxl/pretrain.yaml",), kind="pretrain", seeds=(0, 1)),
    ResultRow("xresnet1d101", "the published network", "baselines", STATEMENTS, seeds=(0, 1)),
    ResultRow("scratch-bce", "from scratch", "headline", STATEMENTS, seeds=(0, 1)),
    ResultRow(
        "pretrained", "pretrained", "headline", STATEMENTS, start="pretrain", seeds=(0, 1), gap_from="scratch-bce"
    ),
    ResultRow("lacking", "a row without its file", "losses", ("ptbxl/rows/no_such_file.yaml",)),
)


def write(path, skill=(3.0, 2.0, 1.0, 1.0), seed=0, fold=10, first=0):
    """A made table of predictions; truth and patients are the same for every seed."""
    truth, noise = np.random.default_rng(100 + first), np.random.default_rng(seed)
    targets = (truth.random((RECORDS, 4)) < (0.4, 0.2, 0.1, 0.0)).astype(float)
    targets[:3, 3] = 1
    rows = pd.DataFrame(
        {
            "record_id": [f"r{first + number}" for number in range(RECORDS)],
            "patient_id": [f"p{(first + number) // 2}" for number in range(RECORDS)],
            "fold": fold,
            "age": truth.uniform(20, 95, RECORDS).round(),
            "sex": np.arange(RECORDS) // 2 % 2,
        }
    )
    probabilities = 1 / (1 + np.exp(-(targets * skill + noise.normal(size=targets.shape) - 2)))
    both = torch.from_numpy(probabilities), torch.from_numpy(targets)
    write_predictions(path / "test" / "predictions.parquet", rows, *both, LABELS, Metadata())
    return path


def tables(folder, skill, seeds=(0, 1)):
    named = "-".join(map(str, skill))
    paths = [write(folder / f"{named}-{seed}", skill, seed) for seed in seeds]
    return [read_predictions(path / "test" / "predictions.parquet") for path in paths]


def aurocs(table, columns=range(4)):
    return [roc_auc_score(table.targets[:, one], table.probabilities[:, one]) for one in columns]


class Fake:
    """Runs nothing and leaves what a run would leave; stops or fails where it is told to."""

    threads = 1

    def __init__(self, stops=(), fails=()):
        self.stops, self.fails, self.ran = set(stops), set(fails), []

    def __call__(self, command, log, lock):
        verb = command[3] if command[2] == "ecgfair" else command[2].rpartition(".")[2]
        folder = Path(command[command.index("--run") + 1]) if "--run" in command else None
        folder = folder or Path(command[command.index("--config") + 1] if verb == "test" else command[-1])
        folder = folder.parent if verb == "test" else folder
        self.ran.append((verb, folder.name))
        if (verb, folder.name) in self.stops:
            raise KeyboardInterrupt
        if (verb, folder.name) in self.fails:
            return 3
        if verb == "fit":
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        if verb == "test":
            write(folder, seed=int(folder.name[-1]))
        return 0


def run_all(folder, fake, *more):
    words = ["--runs", str(folder / "runs"), "--out", str(folder / "R.md"), "--resamples", "100", *more]
    return results.main(words, FEW, lambda _: fake, lambda _: PREVALENCE)


def test_values_are_means_over_seeds_of_what_scikit_learn_finds(tmp_path):
    both = tables(tmp_path, (3.0, 2.0, 1.0, 1.0))
    values = measure(both, PREVALENCE, resamples=100).summary
    of_each = np.mean([aurocs(table) for table in both], axis=0)
    assert values["macro"].value == pytest.approx(of_each.mean())
    assert values["tail"].value == pytest.approx(of_each[2:].mean())
    assert values["common_rare_gap"].value == pytest.approx(of_each[0] - of_each[2:].mean())
    assert values[SUPPORTED].value == pytest.approx(of_each[:3].mean()), "HARDLY has three positives"
    assert (values["macro"].labels, values[SUPPORTED].labels) == (4, 3)
    assert all(one.low < one.value < one.high for one in (values["macro"], values["tail"], values[GAP_OF_SEX]))


def test_bands_are_those_of_the_whole_store_and_not_of_what_a_row_was_trained_on(tmp_path):
    (table,) = tables(tmp_path, (3.0, 2.0, 1.0, 1.0), seeds=(0,))
    other = measure([table], {**PREVALENCE, "RARE": 0.2}, resamples=100).summary
    assert other["head"].value == pytest.approx(np.mean(aurocs(table, (0, 2))))
    with pytest.raises(ConfigurationError, match="has the label 'RARE'"):
        measure([table], {name: share for name, share in PREVALENCE.items() if name != "RARE"}, resamples=100)


def test_differences_are_those_of_the_means_and_the_gap_reduction_is_of_the_mean_gaps(tmp_path):
    weak, strong = tables(tmp_path, (3.0, 2.0, 0.3, 0.3)), tables(tmp_path, (3.0, 2.0, 2.5, 2.5), seeds=(2, 3, 4))
    first, second = (measure(one, PREVALENCE, resamples=200) for one in (weak, strong))
    found = second.ahead_of(first)
    means = [np.mean([aurocs(table) for table in one], axis=0) for one in (weak, strong)]
    gaps = [mean[0] - mean[2:].mean() for mean in means]
    assert found["macro"].value == pytest.approx(means[1].mean() - means[0].mean())
    assert found["common_rare_gap"].value == pytest.approx(gaps[1] - gaps[0])
    assert found["gap_reduction"].value == pytest.approx(1 - gaps[1] / gaps[0])
    assert found["gap_reduction"].low < found["gap_reduction"].value < found["gap_reduction"].high
    assert first.ahead_of(first)["macro"][:3] == pytest.approx((0, 0, 0))


def test_tables_in_another_order_are_put_in_order_and_those_of_other_records_refused(tmp_path):
    one, other = tables(tmp_path, (3.0, 2.0, 1.0, 1.0))
    turned = other.take(list(range(len(other)))[::-1], LABELS[::-1])
    straight, mended = (measure([one, second], PREVALENCE, resamples=100).summary for second in (other, turned))
    assert repr(straight) == repr(mended)
    with pytest.raises(ConfigurationError, match="differ in 1 records, the first is 'r0'"):
        measure([one, other.take(range(1, len(other)))], PREVALENCE)


def test_out_of_fold_predictions_are_compared_within_their_fold_alone(tmp_path):
    paths = [write(tmp_path / f"fold{fold}", seed=fold, fold=fold, first=fold * RECORDS) for fold in (1, 2)]
    both = [read_predictions(path / "test" / "predictions.parquet") for path in paths]
    found = measure([pooled(both)], PREVALENCE, within_folds=True, resamples=100).summary["head"].value
    wins = pairs = 0
    for table in both:
        count = table.targets[:, 0].sum().item()
        pairs += count * (RECORDS - count)
        wins += count * (RECORDS - count) * aurocs(table, [0])[0]
    assert found == pytest.approx(wins / pairs)
    with pytest.raises(ConfigurationError, match="240 records were tested by two networks"):
        pooled([both[0], both[0]])


def test_what_stands_outside_the_markers_is_left_as_it_is(tmp_path):
    path = tmp_path / "R.md"
    path.write_text(f"# Above\n\n{BEGIN}\nold\n{END}\n\nbelow  \n")
    rewrite(path, "new | text")
    rewrite(path, "newer")
    assert path.read_text() == f"# Above\n\n{BEGIN}\n\nnewer\n\n{END}\n\nbelow  \n"
    path.write_text("# Above\n")
    rewrite(path, "first")
    assert path.read_text() == f"# Above\n\n{BEGIN}\n\nfirst\n\n{END}\n"


@pytest.mark.parametrize("text", [f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_markers_that_do_not_fit_are_refused_and_the_file_is_left(text, tmp_path):
    path = tmp_path / "R.md"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="expected one of each"):
        rewrite(path, "new")
    assert path.read_text() == text


def test_pretraining_comes_first_finished_runs_are_skipped_and_missing_rows_are_said_to_be_missing(tmp_path):
    fake = Fake(fails=[("fit", "scratch-bce-1")])
    assert run_all(tmp_path, fake) == 1
    assert fake.ran[:2] == [("fit", "pretrain-0"), ("fit", "pretrain-1")]
    assert ("cost", "pretrained-0") in fake.ran
    text = (tmp_path / "R.md").read_text()
    assert "| from scratch | 0 (without 1) |" in text
    assert ", a row without its file: experiments/ptbxl/rows/no_such_file.yaml is not there" in text
    assert "| a row without its file" not in text, "what was not run stands in no table"
    again = Fake()
    run_all(tmp_path, again)
    assert [one for one in again.ran if one[0] != "cost"] == [("fit", "scratch-bce-1"), ("test", "scratch-bce-1")]
    assert "| from scratch | 0, 1 |" in (tmp_path / "R.md").read_text()


def test_a_stopped_run_goes_on_from_its_last_epoch_and_one_that_was_trained_is_only_tested(tmp_path):
    row = FEW[1]
    run = seed_run(row, 0, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        perform_all([run], 1, Fake(stops=[("fit", "xresnet1d101-0")]))
    assert read_minutes(run)["finished"] is False
    assert next(iter(commands(run)))[1][-2:] == ["--overwrite", "true"], "no epoch was finished"
    run.last.parent.mkdir(parents=True)
    run.last.touch()
    assert next(iter(commands(run)))[1][-2:] == ["--ckpt_path", str(run.last)]
    with pytest.raises(KeyboardInterrupt):
        perform_all([run], 1, Fake(stops=[("test", "xresnet1d101-0")]))
    (left,) = commands(run)
    assert left[1][3] == "test"
    assert left[1][-1].endswith("best.ckpt"), "not the last one, which config.yaml names after going on"


def test_a_run_that_another_process_works_on_is_left_alone(tmp_path):
    run, inner = seed_run(FEW[1], 0, tmp_path), Fake()

    class Outer(Fake):
        def __call__(self, command, log, lock):
            self.said = perform_all([run], 1, inner)
            return 3

    outer = Outer()
    perform_all([run], 1, outer)
    assert inner.ran == []
    assert "is being run by another process" in outer.said[0]


def test_minutes_of_a_part_that_was_killed_are_not_taken_for_all(tmp_path):
    run = seed_run(FEW[1], 0, tmp_path)
    run.last.parent.mkdir(parents=True)
    run.last.touch()
    run.beside("minutes.json").write_text('{"minutes": 5.0, "exact": true, "running": true}')
    perform_all([run], 1, Fake())
    told = read_minutes(run)
    assert told["minutes"] >= 5
    assert (told["exact"], told["finished"]) == (False, True)


@pytest.mark.parametrize(("fold", "before"), [(1, 10), (2, 1), (10, 9)])
def test_no_network_of_a_rotation_nor_its_encoder_has_seen_the_fold_it_is_tested_on(fold, before, tmp_path):
    pretrain, row = FEW[0], FEW[3]
    of_both = [fold_run(one, fold, tmp_path) for one in (pretrain, row)]
    for run in of_both:
        given = dict(zip(run.flags[::2], run.flags[1::2], strict=True))
        assert given["--data.init_args.test_folds"] == f"[{fold}]"
        assert given["--data.init_args.validation_folds"] == f"[{before}]"
        trained = given["--data.init_args.train_folds"].strip("[]").split(", ")
        assert {int(one) for one in trained} == set(range(1, 11)) - {fold, before}
    assert given["--model.init_args.encoder"] == str(of_both[0].folder / "encoder")


def test_a_row_starts_from_the_encoder_of_its_own_seed(tmp_path):
    run = seed_run(FEW[3], 1, tmp_path)
    assert run.flags[:4] == ("--seed_everything", "1", "--model.init_args.encoder", f"{tmp_path}/pretrain-1/encoder")


def test_every_row_has_a_name_of_its_own_and_names_rows_that_are_there():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert {row.start, row.gap_from} - {None} <= set(names)
        assert all(Path(name).suffix == ".yaml" for name in row.configs)


def test_every_file_of_a_row_that_is_there_belongs_to_a_row():
    assert unused_files() == []


def test_what_follows_two_dashes_goes_to_every_fit_and_not_to_tests(tmp_path):
    given = results.arguments(["--only", "a", "--", "--trainer.max_epochs", "1"])
    assert (given.only, given.extra) == (["a"], ["--trainer.max_epochs", "1"])
    fit, test = (command for _, command in commands(Run(FEW[1], "0", tmp_path / "run"), given.extra))
    assert "--trainer.max_epochs" in fit
    assert "--trainer.max_epochs" not in test
