"""Charts: ticks are round, points are where they belong, labels do not collide, colours can be told apart."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.evaluate.results import Row
from lamina.evaluate.score import Score
from lamina.report import page as page_module
from lamina.report.colours import MUTED, Colour, depth_colours, run_colours
from lamina.report.format import number, points, visible
from lamina.report.plots import LABEL_GAP, Bar, Series, bar_chart, line_chart, thin, ticks
from lamina.report.result_views import cell_of

BLUE = Colour("#0072b2", "#56b4e9")
finite = st.floats(allow_nan=False)


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert 1 <= len(marks) <= 11
    assert all(low - slack <= mark <= high + slack for mark in marks)
    for a, b in pairwise(marks):
        mantissa = (b - a) / 10 ** math.floor(math.log10(b - a) + 1e-6)
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-2


def test_points_are_drawn_where_the_ticks_say() -> None:
    """Least squares over the ticks gives the axes; the drawn curve must be the data under them."""
    x = list(range(0, 110, 10))
    y = [0.5 + 0.01 * v for v in x]
    chart = line_chart("t", [Series("s", x, y, BLUE)])
    assert chart
    across = np.polyfit([float(t.label) for t in chart.x_ticks], [t.at for t in chart.x_ticks], 1)
    up = np.polyfit([float(t.label) for t in chart.y_ticks], [t.at for t in chart.y_ticks], 1)
    drawn = np.array([[float(v) for v in p.split(",")] for p in chart.lines[0].stretches[0].split()])
    np.testing.assert_allclose(drawn[:, 0], np.polyval(across, x), atol=0.2)
    np.testing.assert_allclose(drawn[:, 1], np.polyval(up, y), atol=0.2)


@pytest.mark.parametrize(("values", "unit"), [([1e-4, 3e-4], "10⁻⁴"), ([2e6, 3e6], "10⁶"), ([0.1, 50.0], "")])
def test_small_and_large_numbers_share_a_power_of_ten(values: list[float], unit: str) -> None:
    chart = line_chart("t", [Series("s", [1, 2], values, BLUE)], label="value")
    assert chart
    assert chart.unit == (f"in units of {unit}" if unit else "")
    assert all(len(tick.label) <= 5 for tick in chart.y_ticks)
    assert len(chart.lines[0].label) <= 5


def test_values_that_are_not_finite_leave_a_gap() -> None:
    y = [1.0, 2.0, math.nan, math.inf, 3.0, 4.0, math.nan]
    chart = line_chart("t", [Series("s", list(range(7)), y, BLUE)], label="value")
    assert chart
    assert [len(s.split()) for s in chart.lines[0].stretches] == [2, 2]
    assert chart.lines[0].label == "4"
    assert "nan" not in chart.summary


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_finite_makes_no_chart(values: list[float]) -> None:
    assert line_chart("t", [Series("s", list(range(len(values))), values, BLUE)]) is None


@pytest.mark.parametrize("values", [[0.0], [5.0], [0.0, 0.0], [-1.0, -1.0]])
def test_constant_curves_have_axes(values: list[float]) -> None:
    for from_zero in (False, True):
        chart = line_chart("t", [Series("s", list(range(len(values))), values, BLUE)], from_zero=from_zero)
        assert chart
        assert chart.y_ticks
        assert "nan" not in repr(chart)


@given(st.lists(finite, min_size=1, max_size=40))
def test_labels_keep_apart_and_inside(ends: list[float]) -> None:
    series = [Series(f"block {i}", [0, 1], [0.0, end], BLUE) for i, end in enumerate(ends)]
    chart = line_chart("t", series, label="name")
    assert chart
    places = sorted(line.label_y for line in chart.lines if line.label)
    assert places
    assert all(b - a >= LABEL_GAP - 0.2 for a, b in pairwise(places))
    assert chart.top - LABEL_GAP <= places[0]
    assert places[-1] <= chart.bottom + 0.2
    if len(ends) <= 12:
        assert len(places) == len(ends)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_thinning_keeps_ends_order_and_mean(values: list[float]) -> None:
    kept = thin(range(len(values)), values, most=50)
    assert len(kept) <= 50
    assert kept[0] == (0, values[0])
    assert kept[-1] == (len(values) - 1, values[-1])
    assert all(a[0] < b[0] for a, b in pairwise(kept))
    assert min(values) - 1e-3 <= min(v for _, v in kept)
    assert max(v for _, v in kept) <= max(values) + 1e-3


def test_bars_are_as_long_as_their_shares() -> None:
    chart = bar_chart("t", [Bar("a", 0.5, 0.45, 0.55, BLUE), Bar("b", 1.0, 0.9, 1.0, BLUE)])
    assert chart
    assert (chart.x(0.5) - chart.x(0)) * 2 == pytest.approx(chart.x(1) - chart.x(0))
    assert [(t.label, t.at) for t in chart.ticks] == [
        (f"{v}\u202f%", pytest.approx(chart.x(v / 100))) for v in (0, 25, 50, 75, 100)
    ]
    small = bar_chart("t", [Bar("a", 0.06, 0.05, 0.08, BLUE)])
    assert small
    assert small.limit == 0.1
    assert bar_chart("t", []) is None


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    if len(colour) == 4:
        colour = "#" + "".join(2 * c for c in colour[1:])
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio (WCAG 2.2): 4.5 for text, 3 for graphics."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def themes() -> list[dict[str, str]]:
    """The style sheet's colours, light and dark."""
    style = (Path(page_module.__file__).parent / "templates" / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in blocks]


def test_text_and_graphics_have_contrast_in_both_themes(themes: list[dict[str, str]]) -> None:
    assert len(themes) == 2
    for theme, side in zip(themes, ("light", "dark"), strict=True):
        for ground in ("paper", "card"):
            for text in ("ink", "soft", "accent", "good"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (side, text, ground)
        assert contrast(theme["accent"], theme["tint"]) >= 4.5
        assert contrast(theme["ink"], theme["tint"]) >= 4.5
        for colour in run_colours(list(map(str, range(8)))) + depth_colours(12) + [MUTED]:
            assert contrast(getattr(colour, side), theme["card"]) >= 3, (side, colour)


def test_no_two_runs_look_alike() -> None:
    looks = {(c.light, c.dash) for c in run_colours(list(map(str, range(20))))}
    assert len(looks) == 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12400, "12\u202f400"),
        (0.0712345, "0.0712"),
        (1.5e-4, "1.5 × 10⁻⁴"),  # noqa: RUF001
        (1e-3, "0.001"),
        (0.9999, "1"),
        (123.456, "123"),
        (float("nan"), "nan"),
        (None, "–"),  # noqa: RUF001
        (True, "–"),  # noqa: RUF001
    ],
)
def test_numbers_read_well(value: object, text: str) -> None:
    assert number(value) == text


def test_points_have_a_sign() -> None:
    assert [points(v) for v in (0.123, -0.05, 0.0)] == ["+12.3", "−5.0", "+0.0"]  # noqa: RUF001


@given(st.text(st.characters(), max_size=60))
def test_a_visible_name_hides_nothing(name: str) -> None:
    shown = visible(name)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", shown)
    assert len(visible(name * 50)) <= 210


def test_a_cell_says_among_how_many_features_its_own_were_chosen():
    def row(encoder: str, features: str, chosen: bool) -> Row:
        return Row(encoder, features, "mean", {}, 0.5, (0.4, 0.6), 0.5, chosen)

    def score(rows: list[Row]) -> Score:
        return Score.of_rows(
            tuple(rows), protocol="knn", model="", data="photos", step=1, n_train=9, n_test=9, seed=0
        )

    fused = [row("trained", "last", False), row("trained", "fused", True), row("untrained", "last", True)]
    plain = [row("trained", "last", True)]
    remarks = [cell_of([score(rows)], "trained").remark for rows in (fused, plain)]
    assert remarks == ["fused, mean (chosen among 2)", "last, mean"]


@pytest.mark.parametrize("last", [0.00532, 0.532, 1e-7])
def test_the_value_at_the_end_of_a_curve_fits_beside_it(last):
    """It is within half a hundredth of the largest value's decade, and has no more than five characters."""
    chart = line_chart("lr", [Series("lr", [0, 1], [1.24, last], MUTED)], label="value")
    (line,) = chart.lines
    assert len(line.label) <= 5
    assert abs(float(line.label) - last) <= 0.005
