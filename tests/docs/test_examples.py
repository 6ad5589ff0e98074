"""The notebooks run from the first cell to the last at a tiny size, without the packages of Jupyter.

The cell that is tagged `parameters` (as papermill has it) is followed by the values here.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TINY = {"IMAGES": "sample:photos?crop=32&most=2", "STEPS": 2}


def cells(notebook: Path) -> list[tuple[str, list[str]]]:
    """The text of each cell of code, and its tags."""
    content = json.loads(notebook.read_text())
    assert content["nbformat"] == 4
    found = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found), (
        "clear its outputs"
    )
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in found]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    plt.switch_backend("Agg")
    plt.close("all")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    tagged = 0
    for i, (code, tags) in enumerate(cells(notebook)):
        exec(compile(code, f"{notebook.name}, cell {i}", "exec"), names)
        if "parameters" in tags:
            assert set(TINY) <= set(names)
            names.update(TINY)
            tagged += 1
    figures = len(plt.get_fignums())
    plt.close("all")
    assert tagged == 1
    assert names["outcome"].step == TINY["STEPS"]
    assert figures == 2, "the training and the reconstructions"
    assert names["result"].model == names["RUN"]
    # Training wrote a report already: the last cell writes it again, behind the export.
    report, encoder = tmp_path / names["RUN"] / "report.html", tmp_path / "encoder.safetensors"
    assert report.stat().st_mtime_ns > encoder.stat().st_mtime_ns


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_heading_has_a_cell_of_code(notebook):
    kinds = [
        "heading" if "".join(cell["source"]).startswith("## ") else cell["cell_type"]
        for cell in json.loads(notebook.read_text())["cells"]
    ]
    assert kinds.count("heading") >= 6
    assert all(kinds[i + 1 : i + 2] == ["code"] for i, kind in enumerate(kinds) if kind == "heading")
