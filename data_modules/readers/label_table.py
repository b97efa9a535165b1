"""Label sets from a table with one row a code; the one shipped has the diagnoses of the PhysioNet/CinC challenges.

``snomed_ct.csv`` lists the 133 SNOMED CT codes of the PhysioNet/CinC Challenge 2021, with its abbreviations as labels,
after ``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of physionetchallenges/evaluation-2021 on GitHub
(Copyright 2020, 2021 PhysioNet/Computing in Cardiology Challenges, BSD-2-Clause); names are spelt alike, abbreviations
and codes are as there. Its label sets:

- ``all``: a label a code.
- ``scored``: what the challenge scored, 26 labels; four pairs count as one label each, such as ``CRBBB|RBBB``.
- ``chagas``: the label of the PhysioNet/CinC Challenge 2025.

Some copies of CPSC 2018 name its nine classes in words instead of codes; each word has a row with the label of that
name. ``Normal`` is sinus rhythm and nothing else, as in the challenge's own conversion of CPSC 2018. ``PVC`` is
premature ventricular contractions, which that conversion files under 164884008, ventricular ectopics.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from data_modules.readers.tables import column_names, read_columns
from data_modules.records import LabelSets
from ecgfair.errors import SourceError, did_you_mean

DEFAULT_SET: Final = "all"

_NEEDED: Final = ("code", "label")
_SET: Final = "label_set"


def read_label_table(path: Path | None = None) -> LabelSets:
    """Return label sets, their labels and the codes of each, in the order of the table.

    Args:
        path: A ``.csv`` or ``.parquet`` with the columns ``code`` and ``label``, and ``label_set`` if there is more
            than one, which is called ``all``; other columns are for the reader. None for the table shipped.

    Raises:
        SourceError: The table can't be read, lacks a column, has none but its header, or has an empty cell in one.
    """
    if path is None:
        with as_file(files("data_modules.readers") / "snomed_ct.csv") as shipped:
            return read_label_table(shipped)
    columns = column_names(path)
    for name in _NEEDED:
        if name not in columns:
            raise SourceError(
                f"{path} has no column {name!r}: a table of labels has code and label, and label_set if there are "
                f"several.{did_you_mean(name, columns)}"
            )
    table = read_columns(path, [*_NEEDED, *([_SET] if _SET in columns else [])])
    if _SET not in table:
        table[_SET] = DEFAULT_SET
    if table.empty:
        raise SourceError(f"{path} lists no code: expected one a row.")
    sets: dict[str, dict[str, tuple[str, ...]]] = {}
    for row, (code, label, label_set) in enumerate(zip(table["code"], table["label"], table[_SET], strict=True), 2):
        if not (code and label and label_set):
            raise SourceError(f"{path} has an empty cell in row {row}: expected a code and its label.")
        labels = sets.setdefault(label_set, {})
        labels[label] = (*labels.get(label, ()), code)
    return sets
