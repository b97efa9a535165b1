"""LabelMap: the codes of one vocabulary told as labels of another; the one shipped, SNOMED CT to PTB-XL's statements.

It lets a model that was trained on PTB-XL be tested on records of another source. ``snomed_to_scp.csv`` has a row for
each pair of a code of ``snomed_ct.csv`` and a statement of PTB-XL: how the two relate, and where that is from.

- ``exact``: the code means the same as the statement.
- ``narrower``: the code is a special case of the statement, which therefore holds.
- ``broader``: the code says less than the statement, which may hold or not. Where a code has no other rows, one of its
  statements holds and the code does not say which; so a label that gathers all of them holds: a myocardial infarction
  wherever it is belongs to PTB-XL's class MI.

``challenge conversion of PTB-XL`` are the pairs of the PhysioNet/CinC Challenges 2020 and 2021, which published PTB-XL
with SNOMED CT codes (Perez Alday et al., Physiol. Meas. 41:124003, 2020); which code stands for which statement shows
in the column ``PTB_XL`` of ``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of
physionetchallenges/evaluation-2021 on GitHub, by its name and number of records. ``challenge scoring`` are codes scored
there as the same diagnosis, ``CPSC 2018`` the names of its nine classes in words; the rest is by the ``meaning of the
two names``, as SCP-ECG and SNOMED CT have them. Where one code of the conversion stands for several statements, it is
``exact`` for that of its own name and ``broader`` for the others. The mapping of PTB-XL+ leads to concepts of OMOP, not
to SNOMED CT, and is not used.

``scp_statements.csv`` has the 71 statements of PTB-XL 1.0.3 and the classes that its authors put them into (Wagner et
al., Sci. Data 7:154, 2020; CC BY 4.0), in their order, which is the order of the labels of a store of PTB-XL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Final

from data_modules.readers.ptbxl import label_sets_of
from data_modules.readers.tables import read_columns
from data_modules.records import LabelSets
from ecgfair.errors import ConfigurationError, did_you_mean

LABEL_MAPS: Final = ("snomed_to_scp",)
"""Names of the maps shipped."""

IMPLIES: Final = ("exact", "narrower")
BROADER: Final = "broader"

_STATEMENTS: Final = ("scp", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")


@dataclass(frozen=True)
class LabelMap:
    """What codes say in another vocabulary.

    Args:
        implies: Code -> the statements that hold where it is.
        may_be: Code -> the statements that may hold where it is.
        label_sets: Label set -> label -> the statements that make it positive.
    """

    implies: Mapping[str, frozenset[str]]
    may_be: Mapping[str, frozenset[str]]
    label_sets: LabelSets

    @property
    def codes(self) -> frozenset[str]:
        """All codes of which something is known."""
        return frozenset(self.implies) | frozenset(self.may_be)

    def codes_of(self, label_set: str) -> dict[str, tuple[str, ...]]:
        """Return the labels of a set, in order, and the codes that make each positive: none where nothing is known.

        Args:
            label_set: One of ``label_sets``.

        Raises:
            ConfigurationError: There is no such label set.
        """
        if label_set not in self.label_sets:
            raise ConfigurationError(
                f"The label map knows no label set {label_set!r}.{did_you_mean(label_set, self.label_sets)} "
                "With data.label_map, data.labels names the label set that the model was trained on."
            )
        every = sorted(self.codes)
        return {
            label: tuple(code for code in every if self._holds(code, frozenset(statements)))
            for label, statements in self.label_sets[label_set].items()
        }

    def undecided(self, label_set: str, codes: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return those of the codes that leave open whether labels of a set hold, and these labels.

        Args:
            label_set: One of ``label_sets``.
            codes: Codes to look at.
        """
        found = {}
        for code in codes:
            possible = self.may_be.get(code, frozenset())
            labels = [
                label
                for label, members in self.label_sets[label_set].items()
                if possible & set(members) and not self._holds(code, frozenset(members))
            ]
            if labels:
                found[code] = tuple(labels)
        return found

    def _holds(self, code: str, statements: frozenset[str]) -> bool:
        if code in self.implies:
            return bool(self.implies[code] & statements)
        return self.may_be[code] <= statements


def read_label_map(name: str) -> LabelMap:
    """Return a map that is shipped.

    Args:
        name: One of ``LABEL_MAPS``.

    Raises:
        ConfigurationError: There is no such map.
    """
    if name not in LABEL_MAPS:
        raise ConfigurationError(f"data.label_map is {name!r}: no such map.{did_you_mean(name, LABEL_MAPS)}")
    folder = files("data_modules.labels")
    with as_file(folder / f"{name}.csv") as path:
        pairs = read_columns(path, ("snomed", "scp", "relation"))
    with as_file(folder / "scp_statements.csv") as path:
        statements = read_columns(path, _STATEMENTS)
    implies: dict[str, frozenset[str]] = {}
    may_be: dict[str, frozenset[str]] = {}
    for code, statement, relation in zip(pairs["snomed"], pairs["scp"], pairs["relation"], strict=True):
        into = implies if relation in IMPLIES else may_be
        into[code] = into.get(code, frozenset()) | {statement}
    return LabelMap(implies, may_be, label_sets_of(statements))
