"""The rows of the tables: which configurations and flags make each, and which run it starts from.

A row is ``statements.yaml``, or ``pretrain.yaml`` for stage 1, with files of ``rows/`` or of other experiments on top.
What a file changes is told in the file, once; here stands only how they go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ecgfair.errors import ConfigurationError, did_you_mean

HERE: Final = Path(__file__).parent
ROWS_FOLDER: Final = HERE / "rows"
PRETRAIN: Final = "pretrain"
FINETUNE: Final = "finetune"
BASELINE: Final = "baseline"
REFERENCE: Final = "xresnet1d101"
"""The row that all others are compared with."""
THREE: Final = (0, 1, 2)

Kind = Literal["pretrain", "finetune", "baseline"]


@dataclass(frozen=True)
class ResultRow:
    """One row.

    Args:
        name: Of its run folders, ``NAME-SEED``.
        title: What a reader is told.
        section: The table that it stands in.
        configs: Files below ``experiments``, the later ones on top.
        flags: Further arguments of ``fit``.
        kind: ``pretrain`` for stage 1, ``finetune`` for stage 2, ``baseline`` for a model of ``baselines.py``.
        start: Row of the pretraining whose encoder it starts from, of the same seed.
        seeds: What is run unless asked otherwise.
        gap_from: Row from scratch on the same budget, against which the gap reduction is reckoned.
        several_stores: Its files name the stores it is trained on, and no other can take their place.
    """

    name: str
    title: str
    section: str
    configs: tuple[str, ...] = ("ptbxl/statements.yaml",)
    flags: tuple[str, ...] = ()
    kind: Kind = FINETUNE
    start: str | None = None
    seeds: tuple[int, ...] = (0,)
    gap_from: str | None = None
    several_stores: bool = False

    @property
    def files(self) -> list[Path]:
        """Where the configurations lie."""
        return [HERE.parent / name for name in self.configs]

    @property
    def lacking(self) -> list[str]:
        """Configurations that are not there."""
        return [
            f"experiments/{name}" for name, path in zip(self.configs, self.files, strict=True) if not path.is_file()
        ]


def _on_top(*names: str) -> tuple[str, ...]:
    return ("ptbxl/statements.yaml", *names)


def _headline() -> list[ResultRow]:
    """{from scratch, pretrained without attributes, with} x {BCE, asymmetric}."""
    starts = {
        "scratch": (None, "from scratch", ("ptbxl/rows/scratch.yaml",)),
        "without-attributes": ("pretrain-without-attributes", "pretrained without attributes", ()),
        "with-attributes": ("pretrain", "pretrained with attributes", ()),
    }
    losses = {"bce": ("BCE", ()), "asymmetric": ("asymmetric", ("ptbxl/rows/asymmetric.yaml",))}
    return [
        ResultRow(
            f"{start}-{loss}",
            f"{told}, {told_loss}",
            "headline",
            _on_top(*own, *of_loss),
            start=pretrained,
            seeds=THREE,
            gap_from=None if start == "scratch" else f"scratch-{loss}",
        )
        for loss, (told_loss, of_loss) in losses.items()
        for start, (pretrained, told, own) in starts.items()
    ]


def _variants(section: str, files: Iterable[str]) -> list[ResultRow]:
    """One file each on top of the row that is pretrained with attributes and trained by BCE."""
    return [
        ResultRow(
            Path(name).stem,
            f"with {Path(name).stem.replace('_', ' ')}",
            section,
            _on_top(name),
            start="pretrain",
            gap_from="scratch-bce",
        )
        for name in files
    ]


MITIGATIONS: Final = ("balanced_sampling", "group_dro", "reweighting", "adversary", "worst_group")
LOSSES: Final = ("focal", "ldam", "distribution_balanced", "logit_adjusted")
INPUTS: Final = ("demographics", "mixup", "augmented", "layerwise")

ROWS: Final = (
    ResultRow("pretrain", "stage 1 with attributes", "stage 1", ("ptbxl/pretrain.yaml",), (), PRETRAIN, seeds=THREE),
    ResultRow(
        "pretrain-without-attributes",
        "stage 1 without attributes",
        "stage 1",
        ("ptbxl/pretrain.yaml", "ptbxl/rows/pretrain_without_attributes.yaml"),
        kind=PRETRAIN,
        seeds=THREE,
    ),
    ResultRow(
        "pretrain-mixture",
        "stage 1 with attributes, on four sources",
        "stage 1",
        ("ptbxl/pretrain.yaml", "ptbxl/rows/pretrain_mixture.yaml"),
        kind=PRETRAIN,
        several_stores=True,
    ),
    ResultRow("age-sex", "age and sex alone, logistic regression", "baselines", (), (), BASELINE),
    ResultRow("attributes", "measured attributes alone, boosted trees", "baselines", (), (), BASELINE),
    ResultRow(REFERENCE, "xresnet1d101", "baselines", _on_top("ptbxl/rows/xresnet1d101.yaml"), seeds=THREE),
    *_headline(),
    ResultRow(
        "residual",
        "the record alone, without its beats, from scratch",
        "encoders",
        _on_top("ptbxl/rows/scratch.yaml", "ptbxl/rows/residual.yaml"),
    ),
    ResultRow(
        "linear-probe",
        "frozen, pretrained with attributes, linear heads",
        "encoders",
        _on_top("ptbxl/rows/frozen.yaml"),
        start="pretrain",
    ),
    ResultRow(
        "random-frozen",
        "frozen as drawn, linear heads",
        "encoders",
        _on_top("ptbxl/rows/scratch.yaml", "ptbxl/rows/frozen.yaml"),
    ),
    ResultRow(
        "with-mixture-bce",
        "pretrained with attributes on four sources, BCE",
        "sources",
        start="pretrain-mixture",
        gap_from="scratch-bce",
    ),
    *_variants("losses", [f"ptbxl/rows/{name}.yaml" for name in LOSSES]),
    *_variants("mitigation", [f"mitigation/{name}.yaml" for name in MITIGATIONS]),
    *_variants("inputs and training", [f"ptbxl/rows/{name}.yaml" for name in INPUTS]),
    *(
        ResultRow(
            f"{start}-{share}",
            f"{told}, {share.removeprefix('share_')} % of the training records",
            "few labels",
            _on_top(*own, f"ptbxl/rows/{share}.yaml"),
            start=pretrained,
            gap_from=None if pretrained is None else f"scratch-{share}",
        )
        for share in ("share_1", "share_10")
        for start, told, pretrained, own in (
            ("scratch", "from scratch", None, ("ptbxl/rows/scratch.yaml",)),
            ("with-attributes", "pretrained with attributes", "pretrain", ()),
        )
    ),
)
"""All rows, those of stage 1 first."""


def row_named(name: str, rows: Sequence[ResultRow] = ROWS) -> ResultRow:
    """Return a row.

    Raises:
        ConfigurationError: There is none of that name.
    """
    for row in rows:
        if row.name == name:
            return row
    raise ConfigurationError(f"There is no row {name!r}.{did_you_mean(name, [row.name for row in rows])}")


def with_starts(chosen: Sequence[ResultRow], rows: Sequence[ResultRow] = ROWS) -> list[ResultRow]:
    """Return the rows and those whose encoders they start from, in the order of ``rows``."""
    names = {row.name for row in chosen} | {row.start for row in chosen}
    return [row for row in rows if row.name in names]


def unused_files(rows: Sequence[ResultRow] = ROWS) -> list[str]:
    """Return files of ``rows/`` that no row uses."""
    used = {path.resolve() for row in rows for path in row.files}
    return sorted(str(path) for path in ROWS_FOLDER.glob("*.yaml") if path.resolve() not in used)
