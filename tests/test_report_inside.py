"""The page of a folder of analyses: each with its picture, numbers and command, reached from the top."""

import base64
import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from lamina.analyze.written import Summary, write_analysis
from lamina.report.inside import TITLES, read_analyses, write_analyses_page

COMMAND = "lamina analyze rank '<b>run</b>' --images 8"


@dataclass(frozen=True)
class Toy:
    """Stands for an analysis."""

    def to_json(self):
        return {"value": float("nan")}

    def plot(self):
        figure = Figure(layout="constrained")
        figure.subplots().plot([0, 1], [1, 2])
        return figure


def write(folder, *names):
    for name in names:
        told = Summary(("model", "number"), (("<i>a</i>", "1.5"),), ("a remark",))
        write_analysis(name, Toy(), told, folder, {"models": {"a": "runs/a"}}, COMMAND)


def test_every_analysis_is_on_the_page_with_its_command(tmp_path):
    write(tmp_path, "retrieval", "rank", "layers")
    html = write_analyses_page(tmp_path).read_text()
    order = [name for name in TITLES if name in ("retrieval", "rank", "layers")]
    assert re.findall(r'href="#inside-(\w+)"', html) == order
    assert re.findall(r'id="inside-(\w+)"', html) == order
    assert html.count("<code>lamina analyze rank") == 3
    assert "<b>run" not in html
    assert "<i>a" not in html
    assert html.count("a remark") == 3
    shown = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert [base64.b64decode(each) for each in shown] == [(tmp_path / f"{n}.svg").read_bytes() for n in order]


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
