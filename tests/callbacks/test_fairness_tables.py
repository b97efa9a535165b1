"""The tables a run leaves: intervals and tests at its end, what loggers get, and groups by columns of the records."""

import json

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from ecgfair.callbacks.log_tables import TableLogger, log_table
from ecgfair.errors import ConfigurationError
from ecgfair.metrics.fairness_report import COLUMNS
from ecgfair.metrics.gap_tests import COLUMNS as TEST_COLUMNS
from tests.callbacks.oracle import expected
from tests.callbacks.toy import (
    BEST_EPOCH,
    LABELS,
    RECORDS,
    Toy,
    fairness,
    loader,
    logged,
    stored,
    toy_records,
    trainer_for,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning",
)

TABLES = {"val/fairness", "val/fairness_by_label", "fairness_tests"}


def full(**arguments):
    """The callback with few resamples and permutations."""
    return fairness(**({"resamples": 100, "permutations": 100} | arguments))


class Keeper(DummyLogger):
    """A logger that keeps tables in memory."""

    def __init__(self):
        super().__init__()
        self.tables = []

    def log_table(self, key, *, dataframe, step=None):
        self.tables.append((key, step, dataframe))


class Unwilling(Keeper):
    def log_table(self, key, *, dataframe, step=None):
        raise OSError("no route to host")


class Named(LightningDataModule):
    """The toy records with the columns of a table: two records a patient, three devices, one of them missing."""

    def __init__(self, patients=None):
        super().__init__()
        self.folds = {"train": [1], "validation": [9], "test": [10]}
        self.asked = []
        patients = np.arange(RECORDS) // 2 if patients is None else patients
        self.table = pd.DataFrame(
            {"record_id": np.arange(RECORDS), "patient_id": patients, "fold": 9, "device": _devices()},
            index=toy_records()["index"].numpy(),
        )

    def records(self, index, columns=()):
        self.asked.append((len(index), tuple(columns)))
        unknown = [name for name in columns if name not in self.table]
        if unknown:
            raise ConfigurationError(f"The records have no column {unknown[0]!r}: expected device.")
        return self.table.loc[index, ["record_id", "patient_id", "fold", *columns]]

    def train_dataloader(self):
        return loader()

    val_dataloader = test_dataloader = train_dataloader


def _devices():
    return [None if number == 7 else f"cart {number % 3}" for number in range(RECORDS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three epochs with intervals and tests, the tables a logger got of it, and what was printed."""
    folder, keeper = tmp_path_factory.mktemp("run"), Keeper()
    trainer_for(folder, full(), logger=keeper).fit(Toy(), datamodule=Named())
    return folder, keeper.tables


def test_the_rows_of_the_best_epoch_have_intervals_around_them_and_those_of_other_epochs_have_none(run):
    frame = stored(run[0])
    others = frame[frame["epoch"] != BEST_EPOCH]
    assert others[["low", "high"]].isna().all(axis=None)
    best = frame[frame["epoch"] == BEST_EPOCH]
    summed_up = best["aggregate"].isin(["spread", "worst", "difference", "ratio", "group_min", "group_max"])
    defined = best[best["value"].notna() & ~summed_up]
    auroc = defined[defined["statistic"] == "auroc"]
    assert auroc[["low", "high"]].notna().all(axis=None)
    assert (auroc["low"] <= auroc["value"] + 1e-9).all()
    assert (auroc["value"] <= auroc["high"] + 1e-9).all()
    assert set(others["statistic"]) <= set(best["statistic"])
    assert {"difference", "ratio"} <= set(best["aggregate"]) - set(others["aggregate"])


def test_the_intervals_do_not_change_the_values(run):
    frame = stored(run[0])
    rows = frame.query("attribute == 'overall' and label == 'macro' and statistic == 'auroc' and aggregate == 'value'")
    assert rows["value"].tolist() == pytest.approx([expected(epoch=epoch)["val/auroc/macro"] for epoch in range(3)])


def test_the_tests_of_the_largest_gaps_are_in_a_file_of_their_own(run):
    tests = pd.read_parquet(run[0] / "fairness_tests.parquet")
    assert list(tests.columns) == list(TEST_COLUMNS)
    lines = {
        (attribute, statistic, label)
        for attribute in ("sex", "age", "sex_x_age")
        for statistic in ("auroc", "tpr", "fpr")
        for label in (*LABELS, "macro")
    }
    assert set(tests[["attribute", "statistic", "label"]].itertuples(index=False, name=None)) == lines
    p = tests["p"].dropna()
    assert len(p) >= len(tests) // 2
    assert p.between(1 / 101 - 1e-9, 1).all()
    assert sorted(path.name for path in run[0].iterdir()) == ["fairness.parquet", "fairness_tests.parquet"]


def test_the_tables_come_after_the_progress_of_training(tmp_path, capsys):
    trainer_for(tmp_path, full()).fit(Toy(), loader(), loader())
    out = capsys.readouterr().out
    places = [out.index(text) for text in ("Validation at epoch 1", "AUROC [95 %]", "Largest gaps", "Run folder")]
    assert places == sorted(places)


def test_a_logger_that_keeps_tables_gets_means_at_every_epoch_and_all_of_the_best_at_the_end(run):
    found = [(key, step) for key, step, _ in run[1]]
    assert found == [
        *(("val/fairness", step) for step in (3, 6, 9)),
        ("val/fairness_by_label", 9),
        ("fairness_tests", 9),
    ]
    tables = {key: table for key, _, table in run[1]}
    assert list(tables["val/fairness"].columns) == list(COLUMNS)
    assert not set(tables["val/fairness"]["label"]) & set(LABELS)
    assert set(LABELS) < set(tables["val/fairness_by_label"]["label"])


def test_tables_for_loggers_hold_nothing_that_json_can_not(run):
    for _, _, table in run[1]:
        json.dumps(table.to_numpy().tolist(), allow_nan=False)


def test_a_logger_that_fails_warns_and_neither_ends_the_run_nor_keeps_the_next_logger_from_its_tables(tmp_path):
    keeper = Keeper()
    trainer = trainer_for(tmp_path, full(), logger=[Unwilling(), keeper], max_epochs=1)
    with pytest.warns(
        UserWarning, match="Unwilling did not take the table .*: no route to host. The run folder has it"
    ):
        trainer.fit(Toy(), loader(), loader())
    assert {key for key, _, _ in keeper.tables} == TABLES
    assert (tmp_path / "fairness_tests.parquet").exists()


def test_a_logger_without_tables_is_left_alone(tmp_path):
    trainer = trainer_for(tmp_path, logger=DummyLogger())
    assert isinstance(Keeper(), TableLogger)
    log_table(trainer, "table", pd.DataFrame({"a": [1]}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb", "ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_weights_and_biases_keeps_every_table_offline(tmp_path, monkeypatch):
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path, project="toy")
    try:
        trainer_for(tmp_path, full(), logger=logger, max_epochs=2).fit(Toy(), loader(), loader())
    finally:
        logger.experiment.finish()
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/table")
    found = [path.relative_to(kept).as_posix() for path in kept.rglob("*.table.json")]
    assert sorted(name.rsplit("_", 2)[0] for name in found) == sorted([*TABLES, "val/fairness"])
    (tests,) = (path for path in kept.rglob("fairness_tests_*"))
    assert json.loads(tests.read_text())["columns"] == list(TEST_COLUMNS)


def test_groups_may_be_of_a_column_of_the_records_and_of_its_intersections(tmp_path):
    data = Named()
    trainer = trainer_for(tmp_path, fairness(attributes=("device", "sex_x_device")))
    trainer.validate(Toy(), datamodule=data, verbose=False)
    assert {key.split("/")[2] for key in logged(trainer) if "/fair/" in key} == {"device", "sex_x_device"}
    frame = stored(tmp_path).query("label == 'macro' and statistic == 'auroc' and aggregate == 'value'")
    of_device = frame[frame["attribute"] == "device"].set_index("group")["records"]
    counted = pd.Series(_devices()).fillna("unknown").value_counts()
    assert of_device.to_dict() == counted.to_dict()
    crossed = frame[frame["attribute"] == "sex_x_device"]["group"].tolist()
    assert crossed[:2] == ["female, cart 0", "female, cart 1"]
    assert len(crossed) == 2 * 3 + 1
    assert (RECORDS, ("device",)) in data.asked


def test_the_reference_may_be_a_value_of_a_column(tmp_path):
    callback = fairness(attributes=("device",), reference={"device": "cart 2"})
    trainer_for(tmp_path, callback).validate(Toy(), datamodule=Named(), verbose=False)
    gaps = stored(tmp_path).query("attribute == 'device' and aggregate == 'gap'")
    assert set(gaps["reference"]) == {"cart 2"}


def test_an_unknown_column_is_refused_before_the_first_epoch_of_training(tmp_path):
    trainer = trainer_for(tmp_path, fairness(attributes=("sex", "devise_x_sex")))
    with pytest.raises(ConfigurationError, match="no column 'devise'"):
        trainer.fit(Toy(), datamodule=Named())
    assert trainer.global_step == 0


def test_a_column_without_a_data_module_that_names_its_records_is_refused_before_training(tmp_path):
    trainer = trainer_for(tmp_path, fairness(attributes=("device",)))
    with pytest.raises(ConfigurationError, match=r"asked for by device, .* NoneType has no records\(index, columns\)"):
        trainer.fit(Toy(), loader(), loader())
    assert trainer.global_step == 0


def test_intervals_resample_patients_where_the_data_module_tells_them(tmp_path):
    """All records of few patients say less than as many patients do."""
    widths = {}
    for name, patients in (
        ("many", np.arange(RECORDS)),
        ("few", np.arange(RECORDS) % 6),
        ("unknown", [None] * RECORDS),
    ):
        trainer_for(tmp_path / name, full(permutations=0)).validate(Toy(), datamodule=Named(patients), verbose=False)
        query = "attribute == 'overall' and label == 'macro' and statistic == 'auroc' and aggregate == 'value'"
        row = stored(tmp_path / name).query(query).iloc[0]
        widths[name] = row["high"] - row["low"]
    assert widths["few"] != pytest.approx(widths["many"], rel=1e-3)
    assert widths["unknown"] == pytest.approx(widths["many"], abs=0.03)


def test_a_run_without_tests_writes_no_file_of_them(tmp_path):
    trainer_for(tmp_path, full(permutations=0)).validate(Toy(), loader(), verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["fairness.parquet"]
