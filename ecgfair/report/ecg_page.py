"""The page of a 12-lead ECG as cardiologists read it: paper grid, 25 mm/s and 10 mm/mV, true to scale when printed.

Everything is drawn in millimetres on a page of A4 landscape. The four columns follow one another in time, as on the
paper of an ECG device: column k shows seconds 2.5 k to 2.5 (k + 1), above the same seconds of the rhythm strip.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError

MM_PER_INCH: Final = 25.4
PAGE: Final = 297.0, 210.0
"""Width and height in mm."""
MM_PER_SECOND: Final = 25.0
MM_PER_MILLIVOLT: Final = 10.0
SECONDS: Final = 10.0
"""What a row holds."""

LEFT, BOTTOM, WIDTH, HEIGHT = 13.5, 12.0, 270.0, 170.0  # of the paper grid, whole squares of 5 mm
TOP: Final = BOTTOM + HEIGHT
START: Final = LEFT + 15.0  # of the signals, behind the calibration pulse
_PULSE: Final = (2.5, 5, 5, 10, 10, 12.5), (0, 0, 1, 1, 0, 0)  # mm from the left, mV; 5 mm are 200 ms

_COLUMNS: Final = tuple(LEADS[first : first + 3] for first in range(0, 12, 3))
_COLUMN_SECONDS: Final = SECONDS / len(_COLUMNS)
_RHYTHM: Final = "II"
_FEW_LEADS: Final = 4  # so many are read better over ten seconds each than in twelve places, most of them empty
FAR_OFF: Final = 1.0  # mV; a baseline beyond it is an offset of the electrode or the amplifier

PINK: Final = "#fff6f5", "#f7cfcb", "#e8a19b"
"""Paper, fine and bold lines."""
INK, GREY, _BEAT = "#14141e", "#6e6e78", "#1f5fa8"
_MARK: Final = "#ffe9a8"
_PNG_DPI: Final = 150
# matplotlib's own defaults and its own font, so that a page looks the same on every machine.
STYLE: Final = ("default", {"font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "ecgfair"})
# Neither date nor program: the same page makes the same bytes.
_FORMATS: Final[Mapping[str, Mapping[str, None]]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
}


@dataclass(frozen=True)
class _Strip:
    """A lead over some seconds, the height of its baseline on the page and the height of its row in mm."""

    lead: str
    baseline: float
    room: float
    start: float
    end: float


@dataclass(frozen=True)
class _Recording:
    """What is drawn; NaN where nothing was recorded."""

    signal: NDArray[np.float64]
    leads: tuple[str, ...]
    sampling_rate: float
    marked: NDArray[np.bool_]

    @property
    def shown(self) -> int:
        """Samples on the page."""
        return min(int(self.signal.shape[1]), round(SECONDS * self.sampling_rate))


def draw_page(
    signal: NDArray[np.floating[Any]],
    leads: Sequence[str],
    sampling_rate: float,
    *,
    beats: Sequence[int] | NDArray[np.integer[Any]] = (),
    title: str = "",
    lines: Sequence[str] = (),
    recorded: NDArray[np.bool_] | None = None,
    marked: NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw the page of one ECG.

    Standard leads stand in three rows of four columns over a rhythm strip of lead II, or of the first lead there is;
    leads of other names, or four at most, have a row of ten seconds each. A missing lead says so in its place, missing
    samples are gaps. What would be hidden is told below the grid: a longer recording, a voltage beyond the paper, and
    a lead moved because its baseline lies more than 1 mV off.

    Args:
        signal: (leads, time) millivolts; NaN where nothing was recorded.
        leads: Names of the rows of ``signal``.
        sampling_rate: Hz.
        beats: Sample index of each R peak; those of the first ten seconds are marked.
        title: The first line of the page.
        lines: What stands below it, such as demographics and intervals; long ones are wrapped.
        recorded: (leads, time) false where ``signal`` holds no voltage; none missing if None.
        marked: (leads, time) true where something is to be pointed out, a light background; nothing if None.

    Returns:
        The figure, 297 x 210 mm.

    Raises:
        ConfigurationError: The arguments contradict each other.
    """
    recording = _recording(signal, leads, sampling_rate, recorded, marked)
    notes = _in_place(recording)
    strips = _strips(recording)
    with style.context(STYLE):
        figure = Figure(figsize=(PAGE[0] / MM_PER_INCH, PAGE[1] / MM_PER_INCH), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(0, PAGE[1]))
        axes.set_axis_off()
        draw_grid(axes)
        _draw_beats(axes, np.asarray(beats, dtype=np.int64), recording, strips[0])
        for baseline in dict.fromkeys(strip.baseline for strip in strips):
            _draw_pulse(axes, baseline)
        for strip in strips:
            notes += _draw_strip(axes, strip, recording)
        draw_header(axes, title, lines)
        _draw_footer(axes, sampling_rate, list(dict.fromkeys(notes)))
    return figure


def save_page(figure: Figure, path: str | Path) -> None:
    """Write a page as PNG (150 dots an inch) or SVG, as the name ends; the same page makes the same bytes.

    Raises:
        ConfigurationError: The name ends otherwise, or the file can't be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigurationError(f"A page can't be written as {path.name!r}: expected a name ending in .png or .svg.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with style.context(STYLE):
            figure.savefig(path, format=suffix[1:], dpi=_PNG_DPI, metadata=dict(_FORMATS[suffix]))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written ({error}): choose another file.") from error


def _recording(
    signal: NDArray[np.floating[Any]],
    leads: Sequence[str],
    sampling_rate: float,
    recorded: NDArray[np.bool_] | None,
    marked: NDArray[np.bool_] | None,
) -> _Recording:
    """Check what is to be drawn, and take out what was not recorded."""
    voltages = np.array(signal, dtype=np.float64)
    if voltages.ndim != 2 or len(voltages) != len(leads) or len(set(leads)) != len(leads) or not leads:
        raise ConfigurationError(
            f"A page of the leads {', '.join(leads) or 'none'} was asked for a signal of shape {voltages.shape}: "
            "expected (leads, time) and one name a lead, none twice."
        )
    if not sampling_rate > 0:
        raise ConfigurationError(f"sampling_rate is {sampling_rate}: expected a positive number of Hz.")
    for name, flags in (("recorded", recorded), ("marked", marked)):
        if flags is not None and np.shape(flags) != voltages.shape:
            raise ConfigurationError(f"{name} has shape {np.shape(flags)}: expected {voltages.shape}.")
    if recorded is not None:
        voltages[~recorded] = np.nan
    voltages[~np.isfinite(voltages)] = np.nan
    nothing = np.zeros(voltages.shape, dtype=np.bool_)
    return _Recording(voltages, tuple(leads), sampling_rate, nothing if marked is None else np.asarray(marked))


def _in_place(recording: _Recording) -> list[str]:
    """Bring leads that are far off back to their place; return what the reader of the page has to know."""
    notes = []
    samples = recording.signal.shape[1]
    if recording.shown < samples:
        notes.append(f"the first {SECONDS:g} s of {samples / recording.sampling_rate:.4g} s")
    for lead, row in zip(recording.leads, recording.signal, strict=True):
        drawn = row[: recording.shown][np.isfinite(row[: recording.shown])]
        baseline = float(np.median(drawn)) if drawn.size else 0.0
        if abs(baseline) > FAR_OFF:
            row -= baseline
            notes.append(f"{lead} moved {'down' if baseline > 0 else 'up'} by {abs(baseline):.4g} mV")
    return notes


def _strips(recording: _Recording) -> list[_Strip]:
    """Return what stands where; the strip that the beats are marked above comes first."""
    leads = recording.leads
    if len(leads) <= _FEW_LEADS or not set(leads) <= set(LEADS):
        baselines, room = _rows(len(leads))
        return [_Strip(lead, baseline, room, 0, SECONDS) for lead, baseline in zip(leads, baselines, strict=True)]
    (*baselines, last), room = _rows(len(_COLUMNS[0]) + 1)
    there = [lead for lead, row in zip(leads, recording.signal, strict=True) if np.isfinite(row).any()]
    rhythm = _RHYTHM if _RHYTHM in there or not there else min(there, key=LEADS.index)
    return [
        _Strip(rhythm, last, room, 0, SECONDS),
        *(
            _Strip(lead, baseline, room, column * _COLUMN_SECONDS, (column + 1) * _COLUMN_SECONDS)
            for column, names in enumerate(_COLUMNS)
            for lead, baseline in zip(names, baselines, strict=True)
        ),
    ]


def _rows(count: int) -> tuple[list[float], float]:
    """Return the heights of the baselines of some rows, on lines of the grid from the top, and their distance.

    The highest leaves room for its calibration pulse.
    """
    room = min(40.0, HEIGHT / count, (HEIGHT - 15) / max(count - 1, 1))
    first = max((HEIGHT - (count - 1) * room) / 2, 10.0)
    return [TOP - math.floor(first + row * room) for row in range(count)], room


def outline(segments: Iterator[tuple[float, float, float, float]]) -> Outline:
    """Join straight segments, each from (x, y) to (x, y), into one shape."""
    points = np.array(list(segments), dtype=np.float64).reshape(-1, 2)
    return Outline(points, np.tile([Outline.MOVETO, Outline.LINETO], len(points) // 2))


def draw_grid(axes: Axes, colours: tuple[str, str | None, str] = PINK) -> None:
    """Draw the paper, in the colours of its ground, of a line each millimetre (``None`` for none) and each five."""
    paper, fine, bold = colours
    axes.add_patch(Rectangle((LEFT, BOTTOM), WIDTH, HEIGHT, facecolor=paper, edgecolor="none", zorder=0))
    for gid, step, colour, width, zorder in (("grid-1mm", 1, fine, 0.3, 1), ("grid-5mm", 5, bold, 0.6, 1.1)):
        if colour is None:
            continue
        across = ((LEFT + x, BOTTOM, LEFT + x, TOP) for x in range(0, int(WIDTH) + 1, step))
        along = ((LEFT, BOTTOM + y, LEFT + WIDTH, BOTTOM + y) for y in range(0, int(HEIGHT) + 1, step))
        for name, segments in (("across", across), ("along", along)):
            # Snapping to pixels would make squares of unequal size.
            axes.add_patch(
                PathPatch(
                    outline(segments),
                    fill=False,
                    edgecolor=colour,
                    linewidth=width,
                    capstyle="butt",
                    snap=False,
                    zorder=zorder,
                    gid=f"{gid}-{name}",
                )
            )


def _draw_beats(axes: Axes, beats: NDArray[np.int64], recording: _Recording, strip: _Strip) -> None:
    """Mark the R peaks by a triangle above a strip, and by a light line through what is simultaneous with it."""
    places = START + beats[(beats >= 0) & (beats < recording.shown)] / recording.sampling_rate * MM_PER_SECOND
    lines = outline((x, BOTTOM, x, TOP) for x in places)
    axes.add_patch(
        PathPatch(lines, fill=False, edgecolor=_BEAT, alpha=0.35, linewidth=0.5, snap=False, zorder=2, gid="beat-lines")
    )
    height = np.full(places.shape, min(strip.baseline + 0.4 * strip.room, TOP - 2))
    axes.add_line(
        Line2D(places, height, linestyle="none", marker="v", markersize=4.5, color=_BEAT, mew=0, zorder=3, gid="beats")
    )


def _draw_pulse(axes: Axes, baseline: float) -> None:
    x, millivolts = np.array(_PULSE)
    axes.add_line(trace(LEFT + x, baseline + millivolts * MM_PER_MILLIVOLT, gid=f"calibration-{baseline:g}"))


def _draw_strip(axes: Axes, strip: _Strip, recording: _Recording) -> list[str]:
    """Draw a strip; return what does not fit on the paper."""
    x = START + strip.start * MM_PER_SECOND
    if strip.start:
        border = outline(iter([(x, strip.baseline - 4, x, strip.baseline + 4)]))
        axes.add_patch(PathPatch(border, fill=False, edgecolor=INK, linewidth=0.6, snap=False, zorder=4))
    # Under the trace, which nothing may hide.
    write(axes, x + 1.5, strip.baseline + 0.3 * strip.room, strip.lead, size=9, weight="bold", zorder=3)
    row = recording.signal[recording.leads.index(strip.lead)] if strip.lead in recording.leads else np.array([])
    if not np.isfinite(row).any():
        middle = START + (strip.start + strip.end) / 2 * MM_PER_SECOND
        write(axes, middle, strip.baseline, "not recorded", size=9, style="italic", color=GREY, ha="center")
        return []
    # The sample at the end is drawn too, or the line would stop short of the border.
    rate = recording.sampling_rate
    samples = np.arange(math.ceil(strip.start * rate), min(math.floor(strip.end * rate) + 1, row.size))
    _draw_marks(axes, strip, recording)
    height = strip.baseline + row[samples] * MM_PER_MILLIVOLT
    part = "strip" if strip.end - strip.start == SECONDS else "lead"
    line = trace(START + samples / rate * MM_PER_SECOND, height, gid=f"{part}-{strip.lead}")
    axes.add_line(line)
    line.set_clip_path(Rectangle((LEFT, BOTTOM), WIDTH, HEIGHT, transform=axes.transData))
    if np.nanmax(height, initial=BOTTOM) <= TOP and np.nanmin(height, initial=TOP) >= BOTTOM:
        return []
    return [f"{strip.lead} leaves the paper ({np.nanmin(row[samples]):.3g} to {np.nanmax(row[samples]):.3g} mV)"]


def _draw_marks(axes: Axes, strip: _Strip, recording: _Recording) -> None:
    """Lay a background under what is pointed out, a rectangle a stretch."""
    rate = recording.sampling_rate
    first, last = math.ceil(strip.start * rate), math.floor(strip.end * rate)
    flags = recording.marked[recording.leads.index(strip.lead), first:last].astype(np.int8)
    edges = np.flatnonzero(np.diff(flags, prepend=0, append=0))
    for start, end in ((first + edges) / rate * MM_PER_SECOND + START).reshape(-1, 2):
        corner = start, strip.baseline - 0.35 * strip.room
        axes.add_patch(
            Rectangle(
                corner, end - start, 0.7 * strip.room, color=_MARK, linewidth=0, zorder=0.5, gid=f"mark-{strip.lead}"
            )
        )


def trace(x: NDArray[np.float64], y: NDArray[np.float64], gid: str) -> Line2D:
    """Return the line of a lead, of points in mm on the page."""
    return Line2D(x, y, color=INK, linewidth=0.85, solid_joinstyle="round", snap=False, zorder=4, gid=gid)


def draw_header(axes: Axes, title: str, lines: Sequence[str]) -> None:
    """Write all lines into the space above the grid, in two columns if there are many, smaller if need be."""
    write(axes, LEFT, 203, title, size=min(11, 1200 / max(len(title), 1)), weight="bold")
    columns = 1 if len(lines) <= 4 else 2
    wrapped = [part for line in lines for part in textwrap.wrap(line, 200 // columns) or [""]]
    rows = math.ceil(len(wrapped) / columns)
    spacing = min(4.2, 16.8 / max(rows, 1))
    for number, part in enumerate(wrapped):
        column, row = divmod(number, rows)
        write(axes, LEFT + column * WIDTH / 2, 197.5 - row * spacing, part, size=8 * spacing / 4.2)


def _draw_footer(axes: Axes, sampling_rate: float, notes: Sequence[str]) -> None:
    scale = f"{MM_PER_SECOND:g} mm/s  {MM_PER_MILLIVOLT:g} mm/mV"
    write(axes, LEFT, 8, scale, size=8, weight="bold")
    write(axes, LEFT + WIDTH, 8, f"{sampling_rate:g} Hz", size=8, color=GREY, ha="right")
    wrapped = textwrap.wrap("; ".join(notes), 125)
    for row, part in enumerate(wrapped):
        write(axes, LEFT + 45, 8 - row * 6 / max(len(wrapped), 2), part, size=min(8, 16 / len(wrapped)))


def write(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """Write a text at a place in mm."""
    # A dollar sign in an id is no formula.
    axes.text(x, y, text, va="center", parse_math=False, **dict[str, Any]({"color": INK, "zorder": 6} | look))
