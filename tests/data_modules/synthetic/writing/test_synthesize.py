"""The verb ``synthesize``: the same bytes for the same seed, whole or not at all, in both formats."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from data_modules.preparing.prepare import prepare
from data_modules.readers.ptbxl import DATABASE, PtbXlReader
from data_modules.stores.store import RecordStore
from data_modules.synthetic.people.draw import truth
from data_modules.synthetic.people.population import Disparity, Population
from data_modules.synthetic.signals.recording import to_signal
from data_modules.synthetic.writing import synthesize as synthesize_module
from data_modules.synthetic.writing.synthesize import synthesize
from data_modules.synthetic.writing.truth_tables import FOLDER, read_oracle, read_population, read_truth
from ecgfair.__main__ import main
from ecgfair.ecg import Preprocessing
from ecgfair.errors import ConfigurationError, StoreError

EXAMPLE = Path("experiments/synthetic/population.yaml")
FEWER_OLD = Population(disparities=(Disparity("training_records", 0.8, age=(60, 120)),))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of what is kept of 60 records."""
    place = tmp_path_factory.mktemp("made") / "store"
    synthesize(str(place), 60, format="store", population=FEWER_OLD, jobs=1)
    return place


def test_a_record_does_not_depend_on_how_many_are_made(whole_source: Path, tmp_path: Path):
    synthesize(str(tmp_path / "fewer"), 7)
    files = sorted(path.relative_to(tmp_path / "fewer") for path in (tmp_path / "fewer").rglob("*_lr.*"))
    assert len(files) == 14
    for name in files:
        assert (tmp_path / "fewer" / name).read_bytes() == (whole_source / name).read_bytes()
    lines = [(folder / DATABASE).read_text().splitlines() for folder in (tmp_path / "fewer", whole_source)]
    assert lines[0] == lines[1][:8]
    tables = [read_truth(folder).slice(0, 7) for folder in (tmp_path / "fewer", whole_source)]
    assert tables[0].equals(tables[1])


def test_the_same_seed_makes_the_same_files_and_another_seed_others(whole_source: Path, tmp_path: Path):
    synthesize(str(tmp_path / "again"), 20)
    synthesize(str(tmp_path / "other"), 20, seed=1)
    again, other = contents(tmp_path / "again"), contents(tmp_path / "other")
    assert again == contents(whole_source)
    assert again.keys() == other.keys()
    assert all(again[name] != other[name] for name in again if not name.endswith("scp_statements.csv"))
    assert not np.array_equal(to_signal(truth(1, 0)), to_signal(truth(1, 1)))


def test_the_bytes_depend_neither_on_the_tasks_nor_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synthesize(str(tmp_path / "whole"), 20, population=FEWER_OLD)
    monkeypatch.setattr(synthesize_module, "_RECORDS_A_TASK", 9)
    for jobs in (1, 2):
        synthesize(str(tmp_path / f"{jobs}"), 20, population=FEWER_OLD, jobs=jobs)
        synthesize(str(tmp_path / f"store {jobs}"), 40, format="store", jobs=jobs)
    assert contents(tmp_path / "whole") == contents(tmp_path / "1") == contents(tmp_path / "2")
    assert contents(tmp_path / "store 1") == contents(tmp_path / "store 2")


def test_a_store_holds_what_the_layout_of_ptbxl_gives(store: Path, tmp_path: Path):
    synthesize(str(tmp_path / "source"), 60, population=FEWER_OLD, jobs=1)
    prepare(PtbXlReader(tmp_path / "source"), tmp_path / "store", Preprocessing(), jobs=1, progress=False)
    made, other = RecordStore(store), RecordStore(tmp_path / "store")
    assert made.source_name == "synthetic"
    assert made.records.equals(other.records)
    assert made.label_sets == other.label_sets
    everyone = np.arange(len(made))
    assert np.array_equal(made.gather(everyone), other.gather(everyone))
    assert read_truth(store).equals(read_truth(tmp_path / "source"))
    assert contents(store / FOLDER) == contents(tmp_path / "source" / FOLDER)


def test_a_store_has_the_rate_asked_for(tmp_path: Path):
    synthesize(str(tmp_path / "store"), 2, format="store", sampling_rate=500, jobs=1)
    store = RecordStore(tmp_path / "store")
    assert (store.preprocessing.sampling_rate, store.preprocessing.length) == (500, 5000)
    assert np.array_equal(store.gather(np.arange(2)), [to_signal(truth(number), 500) for number in (1, 2)])


def test_a_store_is_as_good_as_any_with_its_truth_in_it(store: Path, capsys: pytest.CaptureFixture[str]):
    RecordStore(store).verify()
    assert main(["inspect", str(store), "--verify"]) == 0
    assert "synthetic" in capsys.readouterr().out
    ids = RecordStore(store).records["record_id"].to_pylist()
    assert read_truth(store)["record_id"].to_pylist() == read_oracle(store)["record_id"].to_pylist() == ids
    assert not list(store.parent.glob("*.partial*"))


def test_preparing_over_a_synthetic_store_leaves_nothing_of_its_truth(whole_source: Path, tmp_path: Path):
    place = tmp_path / "store"
    synthesize(str(place), 3, format="store", jobs=1)
    prepare(PtbXlReader(whole_source), place, Preprocessing(), jobs=1, overwrite=True, progress=False)
    assert len(RecordStore(place)) == 20
    assert not (place / FOLDER).exists()


def test_records_that_a_disparity_leaves_out_are_nowhere_but_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    synthesize(str(tmp_path / "source"), 60, population=FEWER_OLD, jobs=1)
    left_out = {number for number in range(1, 61) if truth(number, 0, FEWER_OLD).left_out}
    assert left_out
    assert f"{60 - len(left_out)} records of" in (printed := capsys.readouterr().out)
    assert f"{len(left_out)} left out by a planted disparity" in printed
    kept = {str(number) for number in range(1, 61)} - {str(number) for number in left_out}
    assert {row["record_id"] for row in read_truth(tmp_path / "source").to_pylist()} == kept
    assert {str(int(path.name[:5])) for path in (tmp_path / "source").rglob("*.hea")} == kept
    assert read_population(tmp_path / "source")["left_out"] == len(left_out)
    assert len(PtbXlReader(tmp_path / "source")) == len(kept)


def test_the_example_plants_a_disparity_of_each_kind_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "source"
    assert main(["synthesize", str(out), "--records", "60", "--seed", "3", "--config", str(EXAMPLE)]) == 0
    printed = capsys.readouterr().out
    written = yaml.safe_load(EXAMPLE.read_text())["population"]["disparities"]
    assert {one["kind"] for one in written} == {"prevalence", "training_records", "noise", "signs", "label_errors"}
    for kind in ("prevalence", "training records", "noise", "signs", "label errors"):
        assert f"\n{kind} " in printed
    told = read_population(out)
    assert (told["records"], told["seed"]) == (60, 3)
    for one, asked in zip(told["population"]["disparities"], written, strict=True):
        assert {key: one[key] for key in asked} == asked


def test_a_setting_is_a_flag_as_well(tmp_path: Path):
    assert main(["synthesize", str(tmp_path / "loud"), "--records", "2", "--population.noise", "2"]) == 0
    assert read_population(tmp_path / "loud")["population"]["noise"] == 2
    flags = ["--config", str(EXAMPLE), "--population.noise", "0.5", "--format", "store", "--jobs", "1"]
    assert main(["synthesize", str(tmp_path / "store"), "--records", "20", *flags]) == 0
    told = read_population(tmp_path / "store")["population"]
    assert (told["noise"], len(told["disparities"])) == (0.5, 5)
    RecordStore(tmp_path / "store")


def disparity(**changes: object) -> str:
    written = {"kind": "signs", "strength": 0.5, "sex": "female", "labels": ["IMI"]} | changes
    return yaml.safe_dump({"population": {"disparities": [written]}})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (disparity(strength=2.0), "strength is 2"),
        (disparity(labels=["IMU"]), "Did you mean"),
        (disparity(kind="sign"), "sign"),
        (disparity(sex=None), "sex"),
        (disparity(strenght=0.1), "strenght"),
        ("population: {noise: -1}", "noise is -1"),
        ("population: {prevalence: {IMI: 2.0}}", "prevalence"),
        ("population: {prevalence: {XYZ: 0.1}}", "XYZ"),
        ("popluation: {noise: 1}", "popluation"),
        ("records: many", "records"),
        ("seed: -1", "seed is -1"),
        ("jobs: -1", "jobs is -1"),
        ("format: zip", "zip"),
        ("sampling_rate: 250", "sampling_rate is 250 Hz"),
        ("population: {missing_age: 1.5}", "missing_age is 1.5"),
        (disparity(kind="label_errors", strength=0.9) + "  prevalence: {IMI: 0.9}\n", "label"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str, said: str
):
    (tmp_path / "wrong.yaml").write_text(config)
    assert main(["synthesize", str(tmp_path / "out" / "source"), "--config", str(tmp_path / "wrong.yaml")]) == 2
    assert said in error_line(capsys)
    assert [path.name for path in tmp_path.rglob("*")] == ["wrong.yaml"]


def test_an_existing_folder_is_refused(whole_source: Path):
    before = (whole_source / DATABASE).read_bytes()
    with pytest.raises(StoreError, match="there already"):
        synthesize(str(whole_source), 3)
    assert (whole_source / DATABASE).read_bytes() == before


def test_a_uri_is_refused_and_no_folder_of_its_name_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="s3://bucket/store is a URI"):
        synthesize("s3://bucket/store", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_records_below_one_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="records is 0"):
        synthesize(str(tmp_path / "source"), 0)


@pytest.mark.parametrize("layout", ["ptbxl", "store"])
def test_a_population_of_which_nobody_is_kept_is_refused(tmp_path: Path, layout: str):
    nobody = Population(
        disparities=(
            Disparity("training_records", 1.0, sex="female"),
            Disparity("training_records", 1.0, sex="male"),
        )
    )
    seed = next(seed for seed in range(99) if truth(1, seed, nobody).left_out)
    with pytest.raises(ConfigurationError, match="leave out all of the 1 records"):
        synthesize(str(tmp_path / "source"), 1, seed, format=layout, population=nobody)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["ptbxl", "store"])
@pytest.mark.parametrize(("raised", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, StoreError)])
@pytest.mark.parametrize("where", ["record", "write_truth"])
def test_nothing_half_made_stays_after_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    raised: type[BaseException],
    told: type[BaseException],
    where: str,
):
    def fail(*_: object) -> None:
        raise raised

    if where == "record" and layout == "store":
        monkeypatch.setattr("data_modules.synthetic.writing.reader.record", fail)
    else:
        monkeypatch.setattr(synthesize_module, where, fail)
    with pytest.raises(told):
        synthesize(str(tmp_path / "new" / "newer" / "source"), 3, format=layout, jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["ptbxl", "store"])
def test_a_full_disk_is_one_line_about_the_folder_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # What writes signals, in the layout and in the store.
    monkeypatch.setattr("data_modules.synthetic.writing.ptbxl_layout.write_signal", full)
    monkeypatch.setattr("data_modules.stores.store_writer.pq.write_table", full)
    with pytest.raises(StoreError) as told:
        synthesize(str(tmp_path / "source"), 3, format=layout, jobs=1)
    assert str(told.value) == (
        f"{tmp_path / 'source'} can't be written ([Errno 28] No space left on device): make room, or choose another "
        "folder."
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_does_not_promise_that_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_modules.synthetic.writing.reader.record", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^nothing was written$"):
        synthesize(str(tmp_path / "store"), 3, format="store", jobs=1)


def test_the_truth_is_written_as_plain_parquet(store: Path):
    names = {path.name for path in (store / FOLDER).iterdir()}
    assert names == {"records.parquet", "oracle.parquet", "masks.parquet", "population.json"}
    assert pq.ParquetFile(store / FOLDER / "oracle.parquet").metadata.num_rows == len(RecordStore(store))
