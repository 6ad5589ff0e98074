"""The page of a folder of analyses: each with its picture, numbers and command, reached from the top."""

import base64
import re
from dataclasses import dataclass

import pytest
from matplotlib.figure import Figure

from lamina.analyze.catalog import ANALYSES
from lamina.analyze.output import Result, Summary, write_analysis
from lamina.core.plotting import hues, thin_labels
from lamina.report.analyses import read_analyses, recoloured, write_analyses_page
from lamina.report.colours import run_colours
from lamina.report.sections import images_per_second

COMMAND = "lamina analyze rank '<b>run</b>' --images 8"


@dataclass(frozen=True)
class Toy(Result):
    """Stands for an analysis."""

    def to_json(self):
        return {"value": float("nan")}


def drawn():
    """Stands for its picture."""
    figure = Figure(layout="constrained")
    figure.subplots().plot([0, 1], [1, 2])
    return figure


def write(folder, *names):
    for name in names:
        told = Summary(("model", "number"), (("<i>a</i>", "1.5"),), ("a remark",))
        write_analysis(name, Toy(), drawn(), told, folder, {"models": {"a": "runs/a"}}, COMMAND)


def test_every_analysis_is_on_the_page_with_its_command(tmp_path):
    write(tmp_path, "retrieval", "rank", "layers")
    html = write_analyses_page(tmp_path).read_text()
    order = [row.name for row in ANALYSES if row.name in ("retrieval", "rank", "layers")]
    assert re.findall(r'href="#analysis-(\w+)"', html) == order
    assert re.findall(r'id="analysis-(\w+)"', html) == order
    assert html.count("<code>lamina analyze rank") == 3
    assert "<b>run" not in html
    assert "<i>a" not in html
    assert html.count("a remark") == 3
    shown = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    for name, each in zip(
        order, shown, strict=True
    ):  # as written, but for one sheet of colours on dark pages
        svg, sheets = re.subn(
            rb"<style>@media \(prefers-color-scheme: dark\).*?</style>", b"", base64.b64decode(each)
        )
        assert (svg, sheets) == ((tmp_path / f"{name}.svg").read_bytes(), 1)


def test_what_is_broken_is_left_out_and_said(tmp_path):
    write(tmp_path, "rank", "layers")
    (tmp_path / "rank.json").write_text("{")
    (tmp_path / "layers.svg").unlink()
    notes = []
    (found,) = read_analyses(tmp_path, notes)
    assert (found.name, found.picture, found.command) == ("layers", None, COMMAND)
    assert len(notes) == 2
    assert "rank.json" in notes[1] + notes[0]
    assert "was left out: it is no JSON" in write_analyses_page(tmp_path).read_text()


def test_a_run_has_one_colour_on_a_page(tmp_path):
    """In the pictures that analyses drew of it alone, and in the charts of a page of several."""
    names = ["first", "second", "mff"]
    for name in names:
        figure, summary = crowded(hues([name])[0]), Summary(("model",), ())
        write_analysis("rank", Toy(), figure, summary, tmp_path / name, {"models": {}}, COMMAND)
    for name, colour in zip(names, run_colours(names), strict=True):
        (shown,) = recoloured(read_analyses(tmp_path / name, []), name, colour.light)
        strokes = set(re.findall(rb"stroke: (#[0-9a-f]{6}); stroke-width: 7", shown.svg))
        assert strokes == {colour.light.encode()}
    assert len({colour.light for colour in run_colours(names)}) == 3
    assert run_colours(["mff"])[0].light == run_colours(names)[2].light


def crowded(hue):
    """A line in a colour, over crowded ticks."""
    figure = Figure(figsize=(3.2, 2), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 13], [1, 2], color=hue, linewidth=7)
    panel.set_xticks([*range(12), 13, 16], [*map(str, range(12)), "last", "fused"])
    return figure


def test_labels_of_ticks_do_not_touch():
    figure = crowded("#0072b2")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    thin_labels(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_visible()]
    assert 6 <= len(boxes) < 14
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels() if t.get_visible()][-2:] == [
        "last",
        "fused",
    ]


def test_the_speed_of_a_run_is_that_of_all_its_images():
    """640 images in 10 s, 640 in 40 s (and an interval whose clock is unknown): 1,280 in 50 s."""
    rows = [
        {"step": 10, "images_per_second": 64.0},
        {"step": 12},
        {"step": 22, "images_per_second": 16.0},
    ]
    assert images_per_second(rows, 64) == pytest.approx(1280 / 50)
    assert images_per_second([{"step": 10}], 64) is None


def test_pictures_keep_their_size_on_a_narrow_page_and_move_sideways(tmp_path):
    """Scaled to 390 px, their letters would be 3 px high."""
    write(tmp_path, "rank")
    html = write_analyses_page(tmp_path).read_text()
    assert len(re.findall(r'<div class="scroll"[^>]*><img class="analysis"', html)) == 1
    (rule,) = re.findall(r"img\.analysis \{([^}]*)\}", html)
    assert "max-width: none" in rule
    assert "width: 100%" not in rule
    assert "#fff" not in rule


def test_the_shade_at_the_edge_of_a_wide_table_shows_through_its_coloured_rows(tmp_path):
    """The shade is a background of the box around the table: an opaque row would interrupt it."""
    html = write_analyses_page(tmp_path).read_text()
    (name,) = re.findall(r"tr\.chosen > \* \{ background: var\((--\w+)\); \}", html)
    colours = re.findall(rf"{name}: rgb\(\d+ \d+ \d+ / (\.\d+)\);", html)
    assert len(colours) == 2  # on light and on dark pages
    assert all(0 < float(alpha) < 0.3 for alpha in colours)
