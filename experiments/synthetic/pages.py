"""Draw one example of every condition on the 12-lead page, and the README that shows them.

    python experiments/synthetic/pages.py experiments/synthetic

The same versions make the same files. Signs are marked on the page where the generator's mask says that they are; a
condition of the whole record, such as a rhythm, is not marked.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from data_modules.synthetic.people.conditions import CONDITIONS, NORMAL
from data_modules.synthetic.people.draw import example
from data_modules.synthetic.signals.masks import mask_array
from data_modules.synthetic.signals.recording import SECONDS, Recording, record
from ecgfair.ecg import LEADS
from ecgfair.report.ecg_page import draw_page

RATE = 500
DOTS_PER_INCH = 110
COLOURS = 64  # of the page: paper, grid, ink and what lies between them

INTRODUCTION = """# One example of every synthetic condition

Made by `python experiments/synthetic/pages.py experiments/synthetic`, which writes this file too. A man of 60, one
condition each, plainly (one standard deviation above its mean severity), on a quiet recording. The background is darker
where the generator's mask says that the signs are; conditions of the whole record are not marked.
"""


def main() -> None:
    """Write the pages and the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Where README.md and the folder pages are written.")
    folder = parser.parse_args().folder
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    for code in (NORMAL, *CONDITIONS):
        name = "normal ECG" if code == NORMAL else CONDITIONS[code].name
        signs = "Nothing abnormal." if code == NORMAL else CONDITIONS[code].signs
        file = f"pages/{code.rstrip('_')}.png"
        draw(code, name, signs, folder / file)
        parts.append(f"## {code}: {name}\n\n{signs}\n\n![{name}]({file})\n")
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def draw(code: str, name: str, signs: str, path: Path) -> None:
    """Write the page of one condition, in few colours: two dozen pages of full colour take 14 MB."""
    drawn = record(example(code), RATE)
    marked = mask_array(drawn.masks, code, SECONDS * RATE, RATE)
    figure = draw_page(
        drawn.signal / 1000,
        LEADS,
        RATE,
        beats=np.rint(drawn.beats * RATE).astype(np.int64),
        title=f"{code}: {name}",
        lines=[signs, asked(drawn)],
        marked=None if marked.all(axis=1).any() else marked,
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    # The usual choice of colours would mix the ink with the shades of the paper.
    few = Image.open(buffer).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def asked(drawn: Recording) -> str:
    """Say with which rate and intervals an ECG was drawn."""
    values = drawn.asked
    pr = "" if values.pr is None else f", PR {values.pr:.0f} ms"
    axis = "" if values.axis is None else f", axis {values.axis:.0f} degrees"
    return (
        f"Drawn with {values.heart_rate:.0f} beats a minute{pr}, QRS {values.qrs:.0f} ms, QT {values.qt:.0f} ms, "
        f"QTc {values.qtc:.0f} ms{axis}."
    )


if __name__ == "__main__":
    main()
