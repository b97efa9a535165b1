"""The page of an ECG: true to scale, nothing hidden without a word, the same bytes every time."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import wfdb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text

from ecgfair.ecg import LEADS
from ecgfair.errors import ConfigurationError
from ecgfair.report.ecg_page import draw_page, save_page

RATE = 100
POINTS_PER_MM = 72 / 25.4


def waves(leads: int = 12, seconds: float = 10, rate: float = RATE) -> np.ndarray:
    """Millivolts that differ from lead to lead and from second to second."""
    time = np.arange(round(seconds * rate)) / rate
    return np.array([0.1 * (lead + 1) * np.sin(2 * np.pi * time) + 0.01 * time for lead in range(leads)])


def lines(figure: Figure) -> dict[str, Line2D]:
    return {line.get_gid(): line for line in figure.axes[0].lines}


def on_paper(figure: Figure, gid: str) -> np.ndarray:
    """(points, 2) mm from the lower left corner of the page, as drawn."""
    line = lines(figure)[gid]
    return line.get_transform().transform(line.get_xydata()) / figure.dpi * 25.4


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def place(figure: Figure, word: str) -> tuple[float, float]:
    """Where a text stands, in mm."""
    (found,) = (text for text in figure.axes[0].texts if text.get_text() == word)
    return found.get_position()


def test_the_page_is_a4_landscape():
    assert draw_page(waves(), LEADS, RATE).get_size_inches() * 25.4 == pytest.approx((297, 210))


@pytest.mark.parametrize("rate", [100, 360, 500])
def test_a_second_is_25_mm_and_a_millivolt_10_mm_on_paper(rate: float):
    figure = draw_page(waves(rate=rate), LEADS, rate)
    strip = on_paper(figure, "strip-II")
    assert np.diff(strip[:, 0]) == pytest.approx(25 / rate)
    assert np.ptp(strip[:, 0]) == pytest.approx(25 * (10 - 1 / rate))
    voltage = waves(rate=rate)[LEADS.index("II")]
    assert strip[:, 1] - strip[0, 1] == pytest.approx(10 * (voltage - voltage[0]))


def test_the_calibration_pulse_is_1_mv_for_200_ms_at_the_start_of_every_row():
    figure = draw_page(waves(), LEADS, RATE)
    pulses = [on_paper(figure, gid) for gid in lines(figure) if gid.startswith("calibration")]
    assert len(pulses) == 4
    for pulse in pulses:
        raised = pulse[pulse[:, 1] > pulse[0, 1]]
        assert np.ptp(pulse[:, 1]) == pytest.approx(10)
        assert np.ptp(raised[:, 0]) == pytest.approx(5)
        assert pulse[:, 0].max() < on_paper(figure, "lead-I")[0, 0]


def test_the_grid_has_lines_every_mm_and_bold_ones_every_5_mm():
    figure = draw_page(waves(), LEADS, RATE)
    patches = {patch.get_gid(): patch for patch in figure.axes[0].patches}
    for name, step in (("grid-1mm", 1.0), ("grid-5mm", 5.0)):
        for direction, axis in (("across", 0), ("along", 1)):
            patch = patches[f"{name}-{direction}"]
            points = patch.get_transform().transform(patch.get_path().vertices) / figure.dpi * 25.4
            assert np.diff(np.unique(points[:, axis].round(6))) == pytest.approx(step)
    assert patches["grid-5mm-along"].get_linewidth() > patches["grid-1mm-along"].get_linewidth()


def test_an_svg_prints_to_scale(tmp_path: Path):
    save_page(draw_page(waves(), LEADS, RATE), tmp_path / "page.svg")
    root = ElementTree.parse(tmp_path / "page.svg").getroot()  # noqa: S314  # of our own making
    assert float(root.get("width", "").removesuffix("pt")) / POINTS_PER_MM == pytest.approx(297, abs=0.01)
    (group,) = (one for one in root.iter() if (one.get("id") or "").startswith("calibration-37"))
    numbers = re.findall(r"-?[\d.]+", next(one.get("d") for one in group.iter() if one.get("d")))
    points = np.array(numbers, dtype=float).reshape(-1, 2) / POINTS_PER_MM
    assert np.ptp(points[:, 1]) == pytest.approx(10, abs=0.001)
    assert np.ptp(points[:, 0]) == pytest.approx(10, abs=0.001)


def test_a_png_has_150_dots_an_inch(tmp_path: Path):
    save_page(draw_page(waves(), LEADS, RATE), tmp_path / "page.PNG")
    height, width, _ = imread(tmp_path / "page.PNG", format="png").shape
    assert (width / 150 * 25.4, height / 150 * 25.4) == pytest.approx((297, 210), abs=0.2)


def test_each_lead_stands_in_its_column_with_its_own_seconds():
    signal = waves()
    figure = draw_page(signal, LEADS, RATE)
    start = on_paper(figure, "strip-II")[0, 0]
    for number, lead in enumerate(LEADS):
        column, row = divmod(number, 3)
        points = on_paper(figure, f"lead-{lead}")
        assert points[0, 0] == pytest.approx(start + 62.5 * column)
        assert np.ptp(points[:, 0]) == pytest.approx(62.5, abs=0.26)
        shown = signal[number, 250 * column : 250 * column + len(points)]
        baseline = 157 - 40 * row
        assert points[:, 1] == pytest.approx(baseline + 10 * shown)
        # What stands above each other is simultaneous.
        assert points[0, 0] == pytest.approx(on_paper(figure, "strip-II")[250 * column, 0])


def test_lead_names_stand_at_their_strips():
    figure = draw_page(waves(), LEADS, RATE)
    assert place(figure, "V1")[0] - place(figure, "aVR")[0] == pytest.approx(62.5)
    assert place(figure, "aVR")[1] == place(figure, "V1")[1] > place(figure, "V2")[1] > place(figure, "V3")[1]
    assert words(figure).count("II") == 2
    assert "25 mm/s  10 mm/mV" in words(figure)


def test_leads_are_placed_by_name_whatever_their_order():
    order = [LEADS.index(lead) for lead in reversed(LEADS)]
    shuffled = draw_page(waves()[order], [LEADS[number] for number in order], RATE)
    given = draw_page(waves(), LEADS, RATE)
    for lead in LEADS:
        assert on_paper(shuffled, f"lead-{lead}") == pytest.approx(on_paper(given, f"lead-{lead}"))


def test_beats_are_marked_above_the_rhythm_strip_at_their_time():
    figure = draw_page(waves(), LEADS, RATE, beats=[0, 120, 999, 1000, 4000, -1])
    strip = on_paper(figure, "strip-II")
    marks = on_paper(figure, "beats")
    assert marks[:, 0] == pytest.approx(strip[[0, 120, 999], 0])
    assert (marks[:, 1] > strip[:, 1].max()).all()
    (verticals,) = (patch for patch in figure.axes[0].patches if patch.get_gid() == "beat-lines")
    assert np.unique(verticals.get_path().vertices[:, 0]) == pytest.approx(strip[[0, 120, 999], 0])


def test_what_is_marked_has_a_background_in_its_leads_and_at_its_time():
    marked = np.zeros((12, 1000), dtype=bool)
    marked[LEADS.index("II"), 100:120] = marked[LEADS.index("II"), 999] = True
    marked[LEADS.index("V1"), 100:120] = marked[LEADS.index("V1"), 510:530] = True
    figure = draw_page(waves(), LEADS, RATE, marked=marked)
    start = on_paper(figure, "strip-II")[0, 0]
    spans = {"mark-II": [], "mark-V1": []}
    for patch in figure.axes[0].patches:
        if patch.get_gid() in spans:
            spans[patch.get_gid()].append((patch.get_x() - start, patch.get_width()))
    # Once in the rhythm strip and once in its column; V1 is shown from 5 s to 7.5 s.
    assert np.allclose(spans["mark-II"], [(25, 5), (249.75, 0.25), (25, 5)])
    assert np.allclose(spans["mark-V1"], [(127.5, 5)])
    assert not [patch for patch in draw_page(waves(), LEADS, RATE).axes[0].patches if patch.get_gid() in spans]


def test_a_record_without_beats_is_drawn_without_marks():
    assert on_paper(draw_page(waves(), LEADS, RATE), "beats").shape == (0, 2)


def test_a_lead_that_is_not_there_says_so_in_its_place():
    kept = [number for number, lead in enumerate(LEADS) if lead not in ("III", "V3")]
    figure = draw_page(waves()[kept], [LEADS[number] for number in kept], RATE)
    places = {text.get_position() for text in figure.axes[0].texts if text.get_text() == "not recorded"}
    assert places == {(28.5 + 31.25, 77), (28.5 + 125 + 31.25, 77)}
    assert {"lead-III", "lead-V3"}.isdisjoint(lines(figure))


def test_a_lead_without_any_recorded_sample_says_so_too():
    recorded = np.ones((12, 1000), dtype=bool)
    recorded[LEADS.index("V6")] = False
    figure = draw_page(np.zeros((12, 1000)), LEADS, RATE, recorded=recorded)
    assert words(figure).count("not recorded") == 1
    assert "lead-V6" not in lines(figure)


def test_missing_samples_are_gaps_and_not_zero_volts():
    signal, recorded = waves(), np.ones((12, 1000), dtype=bool)
    signal[1, 100:110] = np.nan
    signal[1, 200:210] = 0
    recorded[1, 200:210] = False
    drawn = on_paper(draw_page(signal, LEADS, RATE, recorded=recorded), "strip-II")[:, 1]
    missing = np.zeros(1000, dtype=bool)
    missing[100:110] = missing[200:210] = True
    assert np.array_equal(np.isnan(drawn), missing)


def test_without_lead_ii_the_first_lead_there_is_the_rhythm_strip():
    signal = waves()
    signal[[0, 1]] = np.nan
    figure = draw_page(signal, LEADS, RATE)
    assert "strip-III" in lines(figure)
    assert "strip-II" not in lines(figure)


def test_a_longer_record_shows_its_first_ten_seconds_and_says_so():
    signal = waves(seconds=30)
    figure = draw_page(signal, LEADS, RATE)
    assert "the first 10 s of 30 s" in words(figure)
    assert on_paper(figure, "strip-II")[:, 0].max() == pytest.approx(28.5 + 250)
    assert not [word for word in words(draw_page(waves(), LEADS, RATE)) if "first" in word]


def test_a_shorter_record_leaves_the_rest_blank():
    figure = draw_page(waves(seconds=4), LEADS, RATE)
    assert np.ptp(on_paper(figure, "strip-II")[:, 0]) == pytest.approx(25 * 3.99)
    assert on_paper(figure, "lead-aVR")[:, 0].max() == pytest.approx(28.5 + 25 * 3.99)
    assert on_paper(figure, "lead-V1").size == 0
    assert "not recorded" not in words(figure)


def test_leads_of_other_names_have_a_row_each():
    figure = draw_page(waves(2), ("MLII", "V5"), RATE, beats=[50])
    assert {gid for gid in lines(figure) if gid.startswith(("strip", "lead"))} == {"strip-MLII", "strip-V5"}
    assert np.ptp(on_paper(figure, "strip-V5")[:, 0]) == pytest.approx(249.75)
    assert on_paper(figure, "beats")[0, 1] > on_paper(figure, "strip-MLII")[:, 1].max()
    assert "not recorded" not in words(figure)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 15, 17])
def test_any_number_of_rows_stays_on_the_paper(count: int):
    figure = draw_page(np.zeros((count, 1000)), [f"lead {number}" for number in range(count)], RATE)
    for gid in lines(figure):
        if gid != "beats":
            assert 12 <= on_paper(figure, gid)[:, 1].min() <= on_paper(figure, gid)[:, 1].max() <= 182.001
    heights = [on_paper(figure, f"strip-lead {number}")[0, 1] for number in range(count)]
    assert heights == sorted(set(heights), reverse=True)


def test_a_large_voltage_runs_into_its_neighbours_as_it_is():
    signal = waves()
    signal[LEADS.index("V2"), 600] = -6.0
    figure = draw_page(signal, LEADS, RATE)
    assert on_paper(figure, "lead-V2")[:, 1].min() == pytest.approx(117 - 60)
    assert not [word for word in words(figure) if "paper" in word]


def test_a_voltage_beyond_the_paper_is_told():
    signal = waves()
    signal[LEADS.index("V2"), 600] = 9.5
    (note,) = (word for word in words(draw_page(signal, LEADS, RATE)) if "paper" in word)
    assert re.fullmatch(r"V2 leaves the paper \(-0\.\d+ to 9\.5 mV\)", note)


def test_a_lead_far_off_zero_is_brought_back_and_that_is_told():
    signal = waves()
    signal[LEADS.index("V2")] += 12.5
    figure = draw_page(signal, LEADS, RATE)
    given = on_paper(draw_page(waves(), LEADS, RATE), "lead-V2")
    moved = on_paper(figure, "lead-V2") - given
    assert np.ptp(moved, axis=0) == pytest.approx((0, 0), abs=1e-6)
    assert abs(moved[0, 1]) < 1
    assert "V2 moved down by 12.55 mV" in words(figure)
    assert signal[LEADS.index("V2"), 0] == 12.5


def test_title_and_lines_are_written_above_the_grid_word_by_word():
    given = ["Age 56 years $100", *(f"line {number}" for number in range(9)), "a long line of words " * 30]
    figure = draw_page(waves(), LEADS, RATE, title="record $1$ of 2", lines=given)
    assert "record $1$ of 2" in words(figure)
    assert set(" ".join(given).split()) <= set(" ".join(words(figure)).split())
    figure.draw_without_rendering()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
        if text.get_text().startswith(("line", "a long", "Age", "words")):
            assert box.y0 / figure.dpi * 25.4 > 181.5


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_page_makes_the_same_bytes_whatever_the_user_set(tmp_path: Path, suffix: str):
    page = {"beats": [10, 90], "title": "one", "lines": ["two"]}
    save_page(draw_page(waves(), LEADS, RATE, **page), tmp_path / f"first.{suffix}")
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "none", "savefig.dpi": 30, "lines.antialiased": False}):
        save_page(draw_page(waves(), LEADS, RATE, **page), tmp_path / f"second.{suffix}")
    assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()


def test_drawing_needs_neither_pyplot_nor_the_data_modules():
    source = Path(sys.modules[draw_page.__module__].__file__ or "").read_text(encoding="utf-8")
    assert "pyplot" not in source
    assert "data_modules" not in source


def test_another_suffix_is_refused_by_naming_the_two(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"'page\.pdf': expected a name ending in \.png or \.svg"):
        save_page(draw_page(waves(), LEADS, RATE), tmp_path / "page.pdf")


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/page\.png can't be written"):
        save_page(draw_page(waves(), LEADS, RATE), tmp_path / "file" / "page.png")


@pytest.mark.parametrize(
    ("shape", "leads", "rate", "recorded", "message"),
    [
        ((12, 1000), LEADS[:11], 100, None, r"shape \(12, 1000\)"),
        ((1000,), ("I",), 100, None, r"shape \(1000,\)"),
        ((2, 1000), ("I", "I"), 100, None, "none twice"),
        ((0, 1000), (), 100, None, "leads none"),
        ((1, 1000), ("I",), 0, None, "sampling_rate is 0"),
        ((1, 1000), ("I",), 100, (1, 999), r"recorded has shape \(1, 999\)"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(shape, leads, rate, recorded, message: str):
    mask = None if recorded is None else np.ones(recorded, dtype=bool)
    with pytest.raises(ConfigurationError, match=message):
        draw_page(np.zeros(shape), leads, rate, recorded=mask)


def test_marks_of_another_shape_are_refused():
    with pytest.raises(ConfigurationError, match=r"marked has shape \(12, 999\): expected \(12, 1000\)"):
        draw_page(waves(), LEADS, RATE, marked=np.ones((12, 999), dtype=bool))


@pytest.mark.parametrize("samples", [0, 1, 249, 250, 251])
def test_a_record_of_few_samples_is_drawn(samples: int, tmp_path: Path):
    figure = draw_page(np.zeros((12, samples)), LEADS, RATE)
    save_page(figure, tmp_path / "page.png")
    drawn = sum(on_paper(figure, gid).shape[0] for gid in lines(figure) if gid.startswith("strip"))
    assert drawn == samples


@pytest.mark.data
def test_a_real_record_at_500_hz_is_drawn_as_wfdb_reads_it_in_a_small_file(ptbxl_source: Path, tmp_path: Path):
    header = sorted((ptbxl_source / "records500").glob("*/*.hea"))[0]
    record = wfdb.rdrecord(str(header.with_suffix("")))
    leads = [name.replace("AV", "aV") for name in record.sig_name]
    figure = draw_page(record.p_signal.T, leads, record.fs)
    for number, lead in enumerate(LEADS):
        points = on_paper(figure, f"lead-{lead}")
        shown = record.p_signal[1250 * (number // 3) :, leads.index(lead)][: len(points)]
        assert points[:, 1] - points[0, 1] == pytest.approx(10 * (shown - shown[0]), abs=1e-6)
    save_page(figure, tmp_path / "page.svg")
    assert (tmp_path / "page.svg").stat().st_size < 1_000_000
