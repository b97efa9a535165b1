import pandas as pd

from ecgfair.metrics.age_profile import COLUMNS
from ecgfair.metrics.fairness_report import MACRO
from ecgfair.report.age_figure import SHOWN, draw_age_profile, save_age_profile


def profile(labels, *, defined=True):
    value = 0.8 if defined else float("nan")
    lines = [
        (start, start + 20.0, label, value, value - 0.1, value + 0.1, 10 * number, 50, 1, "")
        for start in (20.0, 25.0, 30.0)
        for number, label in enumerate([*labels, MACRO], start=1)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def test_it_shows_the_mean_and_the_most_common_labels_alone():
    names = [f"label{number}" for number in range(SHOWN + 3)]
    shown = legend(draw_age_profile(profile(names)))
    assert shown[:-1] == names[::-1][:SHOWN]
    assert shown[-1] == "mean of 1 label,\n95 % interval"


def test_the_middle_of_a_window_is_where_its_value_stands():
    (axes,) = draw_age_profile(profile(["a"])).axes
    assert axes.lines[0].get_xdata().tolist() == [30.0, 35.0, 40.0]
    assert "20 years" in axes.get_xlabel()


def test_a_profile_without_a_defined_value_is_an_empty_figure_and_no_error(tmp_path):
    save_age_profile(profile(["a"], defined=False), tmp_path / "age.png")
    assert (tmp_path / "age.png").read_bytes().startswith(b"\x89PNG")
