"""Verbs that are plain functions, by the command line."""

import shutil

import pytest

from ecgfair.__main__ import main
from tests.cli.driving import error_line


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """Forty synthetic records as a user prepares them, with a missing file."""
    folder = tmp_path_factory.mktemp("small")
    assert main(["synthesize", str(folder / "source"), "--records", "40"]) == 0
    (folder / "source" / "records100" / "00000" / "00007_lr.dat").unlink()
    assert main(["prepare", "ptbxl", str(folder / "source"), str(folder / "store"), "--jobs", "1"]) == 0
    return folder / "store"


def test_inspect_prints_what_a_store_holds_and_verifies_it(small_store, capsys):
    assert main(["inspect", str(small_store), "--verify"]) == 0
    printed = capsys.readouterr().out
    for said in ("Every file of", "PTB-XL", "39", "file missing", "100 Hz", "qrs"):
        assert said in printed
    (small_store / "signals-00000.arrow").touch()
    damaged = bytearray((small_store / "signals-00000.arrow").read_bytes())
    damaged[5000] ^= 1
    copy = small_store.with_name("damaged")
    shutil.copytree(small_store, copy)
    (copy / "signals-00000.arrow").write_bytes(bytes(damaged))
    assert main(["inspect", str(copy), "--verify"]) == 2
    assert "signals-00000.arrow is damaged: its SHA-256" in error_line(capsys)


@pytest.mark.parametrize(("name", "begins"), [("page.png", b"\x89PNG"), ("page.svg", b"<?xml")])
def test_inspect_draws_the_page_of_a_record(small_store, tmp_path, capsys, name, begins):
    assert main(["inspect", str(small_store), "12", "--output", str(tmp_path / name)]) == 0
    assert str(tmp_path / name) in capsys.readouterr().out
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["7"], "has no record '7': it was rejected: file missing"),
        (["12", "--output", "page.jpg"], "page.jpg"),
        (["--output", "page.png"], "name a record too"),
        (["12", "13"], "13"),
        (["--labels", "nothing"], "nothing"),
    ],
)
def test_what_inspect_can_not_do_is_one_line(small_store, capsys, arguments, said):
    assert main(["inspect", str(small_store), *arguments]) == 2
    assert said in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ptbx", "a", "b"], "ptbx"),
        (["ptbxl", "nowhere", "store"], "No folder nowhere"),
        (["code15", "nowhere", "store"], "nowhere"),
        (["wfdb", "nowhere", "store"], "No folder nowhere"),
        (["records", "nowhere.csv", "store"], "nowhere.csv"),
        (["ptbxl", "a", "b", "--jobs", "many"], "jobs"),
        (["ptbxl", "a", "b", "--crop", "end"], "crop"),
    ],
)
def test_what_prepare_can_not_do_is_one_line(capsys, arguments, said):
    assert main(["prepare", *arguments]) == 2
    assert said in error_line(capsys)


def test_prepare_explains_the_options_that_all_sources_share(capsys):
    for source in ("ptbxl", "code15", "wfdb", "records"):
        with pytest.raises(SystemExit):
            main(["prepare", source, "--help"])
        printed = capsys.readouterr().out
        for option in ("--sampling_rate", "--seconds", "--band_pass", "--crop", "--pad", "--jobs", "--backend"):
            assert option in printed, (source, option)


def test_a_missing_source_is_one_clear_line_and_leaves_no_store(tmp_path, capsys):
    assert main(["prepare", "ptbxl", str(tmp_path / "nowhere"), str(tmp_path / "store")]) == 2
    assert "nowhere" in error_line(capsys)
    assert not (tmp_path / "store").exists()
