"""The localisation map of one ECG, under its traces: which lead is strange, and when.

A page of A4 landscape in millimetres, like ``ecg_page``, but with all ten seconds of every lead in a row of its own,
because a map is about each of them; so the voltage is at half scale, 5 mm/mV, and the paper is grey: colour means the
map and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ecgfair.ecg import FEMALE, MALE
from ecgfair.errors import ConfigurationError
from ecgfair.report.ecg_page import (
    BOTTOM,
    GREY,
    HEIGHT,
    LEFT,
    MM_PER_INCH,
    MM_PER_SECOND,
    PAGE,
    SECONDS,
    START,
    STYLE,
    TOP,
    WIDTH,
    draw_grid,
    draw_header,
    trace,
    write,
)

MM_PER_MILLIVOLT: Final = 5.0
_PAPER: Final = "#ffffff", None, "#d4d4d4"
"""Without a line each millimetre: under the colours it is noise, and it doubles the size of a file."""
_TRUTH: Final = "#14141e"
_BAR: Final = 60.0, 2.6  # mm, width and height
_BAND: Final = 0.94  # of the distance of two rows
_MOST_LEADS: Final = 24
_GAP: Final = "#d9d9d9"

NORMALS_WORDS: Final = "as normal", "stranger than 99 % of normals"
PLAIN_WORDS: Final = "", "higher is stranger"


@dataclass(frozen=True)
class MapScale:
    """What the colours stand for, so that several maps can be compared.

    Args:
        low: Value of the map that has no colour, and all below it.
        high: Value of the deepest colour, and all above it.
        words: What the two ends mean.

    Raises:
        ConfigurationError: The ends are not finite, or in the wrong order.
    """

    low: float
    high: float
    words: tuple[str, str] = PLAIN_WORDS

    def __post_init__(self) -> None:
        """Refuse a scale that nothing could be placed on."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigurationError(
                f"The scale of a map goes from {self.low} to {self.high}: expected two finite, rising numbers."
            )

    @classmethod
    def of_maps(cls, maps: Sequence[NDArray[np.floating[Any]]]) -> MapScale:
        """Span maps that are to be compared: from their median to the value that 1 % of all samples exceed.

        It says nothing of normals: the words are plain. Where nothing is known or all is the same, it is 0 to 1 above.
        """
        return cls(*_span(maps), PLAIN_WORDS)

    @classmethod
    def of_normals(cls, maps: Sequence[NDArray[np.floating[Any]]]) -> MapScale:
        """Span the maps of normal records, none of them one that is to be shown, and say so in words."""
        return cls(*_span(maps), NORMALS_WORDS)


@dataclass(frozen=True)
class MappedRecord:
    """What is known of the record on the page; what is not known says so.

    Args:
        record_id: Its id.
        score: Its anomaly score; NaN if unknown.
        percentile: Share of normals with a lower score, 0 to 1; ``None`` without calibration.
        age: Years; NaN or ``None`` if unknown.
        sex: A code of ``ecg``.
        labels: Its positive labels; ``None`` if nothing is known of them.
    """

    record_id: str
    score: float = math.nan
    percentile: float | None = None
    age: float | None = None
    sex: int | None = None
    labels: Sequence[str] | None = None

    def lines(self) -> list[str]:
        """Return what stands below the title."""
        sex = {MALE: "male", FEMALE: "female"}.get(-1 if self.sex is None else self.sex, "sex unknown")
        age = "age unknown" if self.age is None or math.isnan(self.age) else f"{self.age:.0f} years"
        known = [f"{age}, {sex}"]
        if self.labels is not None:
            known.append(f"labels: {', '.join(self.labels) or 'none'}")
        return [self._scored(), "; ".join(known)]

    def _scored(self) -> str:
        if math.isnan(self.score):
            return "No anomaly score"
        score = f"Anomaly score {self.score:.4g}"
        if self.percentile is None or math.isnan(self.percentile):
            return f"{score} (higher is stranger; not calibrated on normals)"
        return f"{score}: stranger than {100 * self.percentile:.3g} % of normals"


def draw_map(
    signal: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.floating[Any]],
    leads: Sequence[str],
    sampling_rate: float,
    *,
    record: MappedRecord,
    scale: MapScale | None = None,
    recorded: NDArray[np.bool_] | None = None,
    truth: NDArray[np.bool_] | None = None,
) -> Figure:
    """Draw the ECG of a record, its map under the traces.

    A row is a lead over the first ten seconds; samples that were not recorded are grey, and so is what the map knows
    nothing of. The colours are of one hue that darkens, so they read in grey and with any colour vision. Where the
    truth is known, a bar stands above its samples.

    Args:
        signal: (leads, time) millivolts.
        anomaly_map: (leads, time), higher is stranger; NaN where nothing is known.
        leads: Names of the rows.
        sampling_rate: Hz.
        record: Who it is.
        scale: Of the colours; that of this map alone if ``None``.
        recorded: (leads, time) false where ``signal`` holds no voltage; none missing if ``None``.
        truth: (leads, time) true where an anomaly is known to be.

    Returns:
        The figure, 297 x 210 mm; ``ecg_page.save_page`` writes it.

    Raises:
        ConfigurationError: The arguments contradict each other.
    """
    _check(signal, anomaly_map, leads, sampling_rate, recorded, truth)
    scale = scale or MapScale.of_maps([anomaly_map])
    voltages = np.array(signal, dtype=np.float64)
    voltages[~np.isfinite(voltages) if recorded is None else ~recorded | ~np.isfinite(voltages)] = np.nan
    shown = min(voltages.shape[1], math.floor(SECONDS * sampling_rate))
    room = HEIGHT / len(leads)
    notes = []
    with style.context(STYLE):
        figure = Figure(figsize=(PAGE[0] / MM_PER_INCH, PAGE[1] / MM_PER_INCH), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE[0]), ylim=(0, PAGE[1]))
        axes.set_axis_off()
        draw_grid(axes, _PAPER)
        for row, lead in enumerate(leads):
            middle = TOP - (row + 0.5) * room
            values, volts = np.asarray(anomaly_map[row, :shown], dtype=np.float64), voltages[row, :shown]
            _draw_band(axes, lead, np.where(np.isnan(volts), np.nan, values), (middle, room), sampling_rate, scale)
            if truth is not None:
                _draw_truth(axes, lead, truth[row, :shown], (middle, room), sampling_rate)
            notes += _draw_trace(axes, lead, volts, middle, sampling_rate)
            write(axes, LEFT + 1, middle, lead, size=8, weight="bold")
        draw_header(axes, f"Record {record.record_id}", record.lines())
        _draw_bar(axes, scale)
        _draw_footer(axes, notes, voltages.shape[1], shown, sampling_rate, has_truth=truth is not None)
    return figure


def _colours() -> Colormap:
    # The deepest colours of matplotlib's are left out: the trace has to be seen on them. What is not strange is
    # transparent: white, as the paper.
    colours = colormaps["Oranges"](np.linspace(0, 0.72, 256))
    colours[:, 3] = np.linspace(0, 1, 256) ** 0.5
    return ListedColormap(colours, "map").with_extremes(bad=_GAP)


def _span(maps: Sequence[NDArray[np.floating[Any]]]) -> tuple[float, float]:
    values = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in maps] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(values, (0.5, 0.99)))
    # Of a map that is strange in fewer samples than that, the highest value still has to show.
    high = high if high > low else float(values.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _draw_band(
    axes: Axes, lead: str, values: NDArray[np.float64], place: tuple[float, float], rate: float, scale: MapScale
) -> None:
    """Colour the row of a lead, a sample a column; under the bold lines of the grid, which stay to be counted."""
    middle, room = place
    half = _BAND * room / 2
    end = START + len(values) / rate * MM_PER_SECOND
    image = axes.imshow(
        np.ma.masked_invalid(values)[None],
        cmap=_colours(),
        vmin=scale.low,
        vmax=scale.high,
        extent=(START, end, middle - half, middle + half),
        aspect="auto",
        interpolation="nearest",
        zorder=1.05,
    )
    image.set_gid(f"map-{lead}")
    axes.set(xlim=(0, PAGE[0]), ylim=(0, PAGE[1]))  # an image takes the axes for its own


def _draw_truth(axes: Axes, lead: str, truth: NDArray[np.bool_], place: tuple[float, float], rate: float) -> None:
    middle, room = place
    edges = np.flatnonzero(np.diff(truth.astype(np.int8), prepend=0, append=0))
    for start, end in (edges / rate * MM_PER_SECOND + START).reshape(-1, 2):
        corner = start, middle + 0.5 * _BAND * room - 0.9
        bar = Rectangle(corner, end - start, 0.9, color=_TRUTH, linewidth=0, zorder=5, gid=f"truth-{lead}")
        axes.add_patch(bar)


def _draw_trace(axes: Axes, lead: str, volts: NDArray[np.float64], middle: float, rate: float) -> list[str]:
    """Draw a lead about its median; return what the reader has to know."""
    known = volts[np.isfinite(volts)]
    if not known.size:
        write(axes, START + SECONDS / 2 * MM_PER_SECOND, middle, "not recorded", size=8, style="italic", ha="center")
        return []
    baseline = float(np.median(known))
    height = middle + (volts - baseline) * MM_PER_MILLIVOLT
    line = trace(START + np.arange(len(volts)) / rate * MM_PER_SECOND, height, gid=f"lead-{lead}")
    line.set_linewidth(0.7)
    axes.add_line(line)
    line.set_clip_path(Rectangle((LEFT, BOTTOM), WIDTH, HEIGHT, transform=axes.transData))
    if np.nanmax(height) > TOP or np.nanmin(height) < BOTTOM:
        return [f"{lead} leaves the paper ({known.min():.3g} to {known.max():.3g} mV)"]
    return []


def _draw_bar(axes: Axes, scale: MapScale) -> None:
    """Explain the colours above the grid, on the right."""
    width, height = _BAR
    left, low = LEFT + WIDTH - width, TOP + 7.0
    image = axes.imshow(
        np.linspace(0, 1, 256)[None],
        cmap=_colours(),
        extent=(left, left + width, low, low + height),
        aspect="auto",
        zorder=2,
    )
    image.set_gid("scale")
    axes.set(xlim=(0, PAGE[0]), ylim=(0, PAGE[1]))
    frame = Rectangle((left, low), width, height, fill=False, edgecolor=GREY, linewidth=0.5, zorder=3)
    axes.add_patch(frame)
    for x, value, words, side in (
        (left, scale.low, scale.words[0], "left"),
        (left + width, scale.high, scale.words[1], "right"),
    ):
        write(axes, x, low - 2.4, f"{value:.3g}", size=7, ha=side, color=GREY)
        write(axes, x, low + height + 2.4, words, size=7.5, ha=side)


def _draw_footer(axes: Axes, notes: Sequence[str], samples: int, shown: int, rate: float, *, has_truth: bool) -> None:
    said = [f"the first {SECONDS:g} s of {samples / rate:.4g} s"] if shown < samples else []
    said += ["grey: not recorded, or unknown to the map"]
    said += ["black bar above a row: where an anomaly is known to be"] if has_truth else []
    text = "; ".join([*said, *notes])
    write(axes, LEFT, 8, f"{MM_PER_SECOND:g} mm/s  {MM_PER_MILLIVOLT:g} mm/mV", size=8, weight="bold")
    write(axes, LEFT + 45, 8, text, size=min(8, 1000 / max(len(text), 1)))
    write(axes, LEFT + WIDTH, 8, f"{rate:g} Hz", size=8, color=GREY, ha="right")


def _check(
    signal: NDArray[np.floating[Any]],
    anomaly_map: NDArray[np.floating[Any]],
    leads: Sequence[str],
    sampling_rate: float,
    recorded: NDArray[np.bool_] | None,
    truth: NDArray[np.bool_] | None,
) -> None:
    shape = np.shape(signal)
    if len(shape) != 2 or shape[0] != len(leads) or not 0 < len(leads) <= _MOST_LEADS:
        raise ConfigurationError(
            f"A map of the leads {', '.join(leads) or 'none'} was asked for a signal of shape {shape}: expected "
            f"(leads, time) and one name a lead, at most {_MOST_LEADS}."
        )
    if not sampling_rate > 0:
        raise ConfigurationError(f"sampling_rate is {sampling_rate}: expected a positive number of Hz.")
    for name, values in (("anomaly_map", anomaly_map), ("recorded", recorded), ("truth", truth)):
        if values is not None and np.shape(values) != shape:
            raise ConfigurationError(f"{name} has shape {np.shape(values)}: expected {shape}, that of the signal.")
