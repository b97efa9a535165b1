"""The map under an ECG: every sample in its place and colour, nothing hidden without a word."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import rgb_to_hsv
from matplotlib.image import AxesImage, imread
from matplotlib.text import Text

from ecgfair.ecg import FEMALE, LEADS, UNKNOWN_SEX
from ecgfair.errors import ConfigurationError
from ecgfair.report.ecg_page import LEFT, START, TOP, save_page
from ecgfair.report.map_figure import NORMALS_WORDS, MappedRecord, MapScale, draw_map

RATE = 100
WHO = MappedRecord("00012_lr", 3.5, 0.993, 63.0, FEMALE, ["MI", "HYP"])


def ecg(leads=12, samples=1000):
    """(leads, time) millivolts."""
    return 0.4 * np.sin(np.arange(leads * samples).reshape(leads, samples) / 9)


def strange(leads=12, samples=1000):
    """A map: lead 3 is strange from 2 to 3 s."""
    found = np.zeros((leads, samples))
    found[min(3, leads - 1), 200:300] = 1.0
    return found


def images(figure) -> dict[str, AxesImage]:
    return {image.get_gid(): image for image in figure.axes[0].images}


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def drawn(image):
    """(time, RGBA) colours of a row."""
    return image.to_rgba(image.get_array())[0]


def on_white(colours):
    return colours[..., :3] * colours[..., 3:] + 1 - colours[..., 3:]


def test_the_page_is_a4_landscape_and_has_a_row_a_lead_with_all_ten_seconds():
    figure = draw_map(ecg(), strange(), LEADS, RATE, record=WHO)
    assert figure.get_size_inches() * 25.4 == pytest.approx((297, 210))
    assert set(images(figure)) == {"scale", *(f"map-{lead}" for lead in LEADS)}
    left, right, _, top = images(figure)["map-I"].get_extent()
    assert (left, right) == pytest.approx((START, START + 250))
    assert top <= TOP
    assert figure.axes[0].get_xlim() == (0, 297)


def test_the_colour_is_under_the_samples_that_are_strange_and_nowhere_else():
    figure = draw_map(ecg(), strange(), LEADS, RATE, record=WHO, scale=MapScale(0, 1))
    for lead, rows in zip(LEADS, strange(), strict=True):
        np.testing.assert_array_equal(images(figure)[f"map-{lead}"].get_array()[0], rows)
    colours = on_white(drawn(images(figure)["map-aVR"]))
    assert (colours[:200] == 1).all()
    assert (colours[300:] == 1).all()
    assert colours[200:300].max(1).max() < 0.95


def test_the_trace_lies_over_the_map_at_the_same_time_and_at_5_mm_a_millivolt():
    signal = np.zeros((12, 1000))
    signal[:, 250] = 1.0
    figure = draw_map(signal, strange(), LEADS, RATE, record=WHO)
    (line,) = (line for line in figure.axes[0].lines if line.get_gid() == "lead-aVR")
    x, y = line.get_xydata()[250]
    assert x == pytest.approx(START + 62.5)
    assert y - line.get_ydata()[0] == pytest.approx(5)
    assert line.get_zorder() > images(figure)["map-aVR"].get_zorder()


def test_the_colours_are_of_one_hue_and_darken_so_that_they_read_in_grey():
    figure = draw_map(ecg(), strange(), LEADS, RATE, record=WHO)
    scale = on_white(images(figure)["scale"].to_rgba(np.linspace(0, 1, 256)))
    grey = scale @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) < 1e-3).all()
    assert grey[0] - grey[-1] > 0.4
    hues = rgb_to_hsv(scale[64:])[:, 0]
    assert hues.max() - hues.min() < 0.06
    # The trace is seen on the deepest of them (contrast of WCAG 2, graphical objects: 3).
    linear = np.where(scale[-1] <= 0.04045, scale[-1] / 12.92, ((scale[-1] + 0.055) / 1.055) ** 2.4)
    assert (linear @ [0.2126, 0.7152, 0.0722] + 0.05) / (0.01 + 0.05) > 3


def test_what_was_not_recorded_and_what_the_map_does_not_know_is_grey_and_not_drawn():
    signal, found = ecg(), strange()
    recorded = np.ones(signal.shape, dtype=bool)
    recorded[0] = False
    found[1, 500:600] = np.nan
    figure = draw_map(signal, found, LEADS, RATE, record=WHO, recorded=recorded)
    assert images(figure)["map-I"].get_array().mask.all()
    mask = images(figure)["map-II"].get_array().mask[0]
    assert mask[500:600].all()
    assert mask.sum() == 100
    grey = drawn(images(figure)["map-I"])[0]
    assert grey[0] == grey[1] == grey[2]
    assert "not recorded" in words(figure)
    assert not any(line.get_gid() == "lead-I" for line in figure.axes[0].lines)


def test_the_truth_is_a_bar_above_its_samples():
    truth = strange() > 0
    figure = draw_map(ecg(), strange(), LEADS, RATE, record=WHO, truth=truth)
    (bar,) = (patch for patch in figure.axes[0].patches if str(patch.get_gid()).startswith("truth"))
    assert bar.get_gid() == "truth-aVR"
    assert (bar.get_x(), bar.get_width()) == pytest.approx((START + 50, 25))
    assert any("black bar" in text for text in words(figure))
    assert not any("black bar" in text for text in words(draw_map(ecg(), strange(), LEADS, RATE, record=WHO)))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            WHO,
            [
                "Record 00012_lr",
                "Anomaly score 3.5: stranger than 99.3 % of normals",
                "63 years, female; labels: MI, HYP",
            ],
        ),
        (MappedRecord("$a$", 3.5), ["Record $a$", "Anomaly score 3.5 (higher is stranger; not calibrated on normals)"]),
        (
            MappedRecord("b", age=math.nan, sex=UNKNOWN_SEX, labels=[]),
            ["No anomaly score", "age unknown, sex unknown; labels: none"],
        ),
    ],
)
def test_the_header_says_who_it_is_and_how_strange(record, said):
    assert set(said) <= set(words(draw_map(ecg(), strange(), LEADS, RATE, record=record)))


def test_the_scale_speaks_of_normals_only_where_it_is_made_of_them():
    plain = words(draw_map(ecg(), strange(), LEADS, RATE, record=WHO))
    assert "higher is stranger" in plain
    assert not set(NORMALS_WORDS) & set(plain)
    normals = np.linspace(0, 1, 101).reshape(1, 101)
    scale = MapScale.of_normals([normals, normals])
    assert (scale.low, scale.high) == pytest.approx((0.5, 0.99))
    assert set(NORMALS_WORDS) <= set(words(draw_map(ecg(), strange(), LEADS, RATE, record=WHO, scale=scale)))


@given(
    st.lists(
        arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])), max_size=3
    )
)
@settings(deadline=None, max_examples=50)
def test_any_maps_have_a_scale_between_their_values(maps):
    scale = MapScale.of_maps(maps)
    values = np.concatenate([part.ravel() for part in maps]) if maps else np.zeros(0)
    values = values[np.isfinite(values)]
    if len(np.unique(values)) > 1:
        assert values.min() <= scale.low < scale.high
    assert math.isfinite(scale.low)
    assert scale.low < scale.high


def test_a_recording_that_is_longer_or_leaves_the_paper_says_so():
    signal = ecg(samples=1500)
    signal[0, 100] = 9.0
    text = " ".join(words(draw_map(signal, strange(samples=1500), LEADS, RATE, record=WHO)))
    assert "the first 10 s of 15 s" in text
    assert "I leaves the paper (-0.4 to 9 mV)" in text


def test_few_leads_and_a_short_record_are_drawn():
    figure = draw_map(ecg(2, 300), strange(2, 300), ["I", "MLII"], RATE, record=WHO)
    assert images(figure)["map-MLII"].get_extent()[1] == pytest.approx(START + 75)
    assert any(text.get_position()[0] == LEFT + 1 for text in figure.axes[0].texts if text.get_text() == "MLII")


def test_the_same_page_makes_the_same_bytes_whatever_the_style_of_the_program(tmp_path):
    save_page(draw_map(ecg(), strange(), LEADS, RATE, record=WHO), tmp_path / "a.png")
    with mpl.rc_context({"font.family": "serif", "image.cmap": "jet", "axes.grid": True}):
        save_page(draw_map(ecg(), strange(), LEADS, RATE, record=WHO), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert imread(tmp_path / "a.png").shape[:2] == (1240, 1753)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"anomaly_map": np.zeros((12, 999))}, r"anomaly_map has shape \(12, 999\): expected \(12, 1000\)"),
        ({"recorded": np.ones((11, 1000), bool)}, "recorded has shape"),
        ({"truth": np.ones((12, 1), bool)}, "truth has shape"),
        ({"leads": LEADS[:11]}, "one name a lead"),
        ({"sampling_rate": 0}, "sampling_rate is 0"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(change, said):
    arguments = {"signal": ecg(), "anomaly_map": strange(), "leads": LEADS, "sampling_rate": RATE} | change
    with pytest.raises(ConfigurationError, match=said):
        draw_map(**arguments, record=WHO)


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (math.nan, 1), (0, math.inf)])
def test_a_scale_that_nothing_can_be_placed_on_is_refused(ends):
    with pytest.raises(ConfigurationError, match="expected two finite, rising numbers"):
        MapScale(*ends)
