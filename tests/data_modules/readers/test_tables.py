"""Tables: every cell becomes the text that a person would write, whatever kind of table it is from."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.readers.tables import as_text, column_names, read_columns
from ecgfair.errors import SourceError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (pd.NaT, ""),
        (57.0, "57"),
        (57.5, "57.5"),
        (2**60 + 1, str(2**60 + 1)),
        (float("inf"), "inf"),
        (True, "True"),
        (" AF ", "AF"),
        (date(2024, 5, 31), "2024-05-31"),
        (datetime(2024, 5, 31, 9, 15), "2024-05-31T09:15:00"),
        (["AF", "LBBB"], "AF;LBBB"),
        ([], ""),
        ([("AF", 80.0)], '{"AF": 80.0}'),
        ({"AF": 80, "LBBB": None}, '{"AF": 80}'),
    ],
)
def test_a_typed_cell_is_written_plainly(value, text):
    assert as_text(value) == text


def test_parquet_and_csv_of_one_table_give_the_same_text(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "age": [57.0, None], "male": [True, False], "n": [1, 2]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    columns = ["n", "male", "id"]
    assert read_columns(tmp_path / "t.csv", columns).equals(read_columns(tmp_path / "t.parquet", columns))
    assert read_columns(tmp_path / "t.parquet", ["age"])["age"].tolist() == ["57", ""]


def test_whole_numbers_with_a_gap_keep_every_digit(tmp_path):
    pq.write_table(pa.table({"id": pa.array([2**60 + 1, None])}), tmp_path / "t.parquet")
    assert read_columns(tmp_path / "t.parquet", ["id"])["id"].tolist() == [str(2**60 + 1), ""]


def test_words_for_missing_stay_what_they_are(tmp_path):
    path = write(tmp_path / "t.csv", "a,b\nNA,None\n nan , 1 \n")
    assert read_columns(path, ["a", "b"]).to_numpy().tolist() == [["NA", "None"], ["nan", "1"]]


def test_a_byte_order_mark_and_quotes_are_understood(tmp_path):
    path = write(tmp_path / "t.csv", '\ufeffa,b\n"x, y","two\nlines"\n')
    assert column_names(path) == ["a", "b"]
    assert read_columns(path, ["b", "a"]).to_numpy().tolist() == [["two\nlines", "x, y"]]


def test_a_row_that_ends_early_lacks_its_last_cells(tmp_path):
    path = write(tmp_path / "t.csv", "a,b,c\n1,2,3\n4\n")
    assert read_columns(path, ["a", "c"]).to_numpy().tolist() == [["1", "3"], ["4", ""]]


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n", "a,b\n1,2\n1,2,3\n"])
def test_a_row_with_too_many_cells_is_an_error_not_a_shift(tmp_path, text):
    with pytest.raises(SourceError):
        read_columns(write(tmp_path / "t.csv", text), ["a"])


def test_a_table_of_a_header_alone_has_no_row(tmp_path):
    assert read_columns(write(tmp_path / "t.csv", "a,b\n"), ["a", "b"]).shape == (0, 2)


def test_an_empty_file_has_no_column(tmp_path):
    assert column_names(write(tmp_path / "t.csv", "")) == []


def test_a_column_asked_for_that_is_there_twice_is_an_error(tmp_path):
    path = write(tmp_path / "t.csv", "a,b,a\n1,2,3\n")
    assert read_columns(path, ["b"])["b"].tolist() == ["2"]
    with pytest.raises(SourceError, match="two columns 'a'"):
        read_columns(path, ["a"])


def test_a_missing_table_is_named(tmp_path):
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(SourceError, match="There is no table"):
            column_names(tmp_path / name)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_bytes_that_are_no_table_are_an_error_of_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00PAR1\x80\n\n\xff")
    with pytest.raises(SourceError, match="can't be read as a table") as caught:
        column_names(tmp_path / name)
    assert "\n" not in str(caught.value)
