"""Tables of labels: the one shipped, and one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_modules.readers.label_table import read_label_table
from ecgfair.errors import SourceError


def test_the_shipped_table_has_the_diagnoses_of_the_challenge():
    sets = read_label_table()
    assert list(sets) == ["all", "scored", "chagas"]
    snomed = [code for codes in sets["all"].values() for code in codes if code.isdecimal()]
    assert (len(sets["all"]), len(snomed), len(set(snomed))) == (134, 133, 133)
    assert sets["all"]["Chagas"] == sets["chagas"]["Chagas"]
    scored = [code for codes in sets["scored"].values() for code in codes if code.isdecimal()]
    assert (len(sets["scored"]), len(set(scored))) == (26, 30)
    assert set(scored) <= set(snomed)
    assert sets["scored"]["CRBBB|RBBB"] == ("713427006", "59118001", "RBBB")
    assert sets["chagas"] == {"Chagas": ("Chagas",)}


def test_every_snomed_code_has_its_check_digit():
    # SNOMED CT identifiers end in a digit by Verhoeff's scheme over the dihedral group of order 10: a typo would show.
    def product(first: int, other: int) -> int:
        turned = first + other if first < 5 else first - other
        return turned % 5 + 5 * ((first < 5) != (other < 5))

    permutations = [list(range(10))]
    for _ in range(7):
        permutations.append([[1, 5, 7, 6, 2, 8, 3, 0, 9, 4][digit] for digit in permutations[-1]])
    for code in (code for codes in read_label_table()["all"].values() for code in codes if code.isdecimal()):
        check = 0
        for place, digit in enumerate(reversed(code)):
            check = product(check, permutations[place % 8][int(digit)])
        assert check == 0, code


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("AF", "AF"),
        ("I-AVB", "IAVB"),
        ("Normal", "NSR"),
        ("PVC", "PVC"),
        ("STD", "STD"),
        ("STE", "STE"),
        ("LBBB", "LBBB"),
    ],
)
def test_a_word_of_cpsc_2018_counts_for_the_label_of_its_name(word: str, label: str):
    assert [name for name, codes in read_label_table()["all"].items() if word in codes] == [label]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("code,lable\na,b\n", r"no column 'label'.* Did you mean 'lable'\?"),
        ("code,label\n", "lists no code"),
        ("code,label\na,b\nc,\n", "empty cell in row 3"),
        ("", "no column 'code'"),
    ],
)
def test_a_table_that_makes_no_labels_is_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(SourceError, match=rf"labels\.csv.* {message}"):
        read_label_table(tmp_path / "labels.csv")
