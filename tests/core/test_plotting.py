"""What pictures share: colours that stay apart and with their method, legends and commands that stay clear."""

import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.output import save_figure
from lamina.core.plotting import HUES, METHODS, WIDTH, depths, hues, legend_below, method_colour

# Viénot, Brettel and Mollon (1999): what protanopes and deuteranopes see, in linear RGB.
SEEN = {
    "protanope": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranope": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


def lab(hue, matrix):
    """CIE L*a*b* of a colour as it is seen through `matrix`."""
    rgb = np.array(to_rgb(hue))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(
        matrix @ linear, 0, 1
    )
    t = xyz / [0.9505, 1, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", [np.eye(3), *map(np.array, SEEN.values())], ids=["all", *SEEN])
def test_colours_are_apart_for_colour_blind_readers(matrix):
    for one, other in combinations([*HUES, "#ffffff"], 2):
        assert np.linalg.norm(lab(one, matrix) - lab(other, matrix)) > 15, (one, other)


def test_a_method_keeps_its_colour_and_shares_it_with_none():
    own = [method_colour(name) for name in METHODS]
    assert len(set(own)) == len(METHODS)
    for names in (["MAE", "MAE + MFF"], ["MAE + MFF", "MAE"], ["other", "MAE + MFF", "another", "MAE"]):
        found = dict(zip(names, hues(names), strict=True))
        assert (found["MAE"], found["MAE + MFF"]) == (own[0], own[1])
        assert len(set(found.values())) == len(names)
    assert hues(["mff", "mae"]) == hues(["MAE + MFF", "MAE"])  # as runs are called
    assert hues(["mae", "MAE"])[1] != own[0]
    assert hues([str(i) for i in range(9)]) == [*HUES, *HUES[:2]]


def test_depth_darkens_towards_the_first_block_and_never_fades_into_a_page():
    lightness = [lab(depths()(share)[:3], np.eye(3))[0] for share in np.linspace(0, 1, 24)]
    assert np.all(np.diff(lightness) > 0)
    assert lightness[-1] < 85  # white is 100
    assert lightness[0] > 30  # a dark page is 11


def lines_in(file):
    """Where each line of text starts, in points from the left and from the top."""
    place = r"<!-- (.*?) -->\s*<g[^>]*transform=\"translate\(([-\d.]+) ([-\d.]+)\)"
    found = re.findall(place, file.read_text())
    return {text.replace("- -", "--"): (float(x), float(y)) for text, x, y in found}


@pytest.mark.parametrize("length", [8, 60])
def test_legends_and_commands_are_clear_of_each_other(tmp_path, length):
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    figure.subplots(1, 2)[0].set_xlabel("block")
    names = [f"{'a model with a long name ' * 3}"[: length - 1] + str(i) for i in range(6)]
    legend_below(figure, [Line2D([], [], label=name) for name in names])
    save_figure(figure, [tmp_path / "a.svg", tmp_path / "b.svg"], "lamina $x$ _y_ --batch-size 8")
    for file in (tmp_path / "a.svg", tmp_path / "b.svg"):
        found = lines_in(file)
        keys = [found[name] for name in names]
        assert found["block"][1] + 8 < min(y for _, y in keys)
        assert max(y for _, y in keys) + 8 < found["lamina $x$ _y_ --batch-size 8"][1]
        assert "Oblique" not in file.read_text()  # dollars make no mathematics
        assert len({x for x, _ in keys}) == (6 if length == 8 else 1)
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', file.read_text())[1])
        assert width < 72 * WIDTH + 15  # nothing sticks out


def test_a_long_command_is_broken_between_words(tmp_path):
    command = " ".join(["lamina", *(f"{'o' * i}-option of-many" for i in range(1, 20))])
    figure = Figure(figsize=(4, 3), layout="constrained")
    figure.subplots()
    save_figure(figure, [tmp_path / "a.svg"], command)
    lines = [text for text in lines_in(tmp_path / "a.svg") if "o" in text]
    assert len(lines) > 5
    assert " ".join(lines) == command
