"""The notebooks run from the first cell to the last at a tiny size, without the packages of Jupyter.

The cell that is tagged `parameters` (as papermill has it) is followed by the values here.
"""

import json
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
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


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    tagged = 0
    for i, (code, tags) in enumerate(cells(notebook)):
        exec(compile(code, f"{notebook.name}, cell {i}", "exec"), names)
        if "parameters" in tags:
            assert set(TINY) <= set(names)
            names.update(TINY)
            tagged += 1
    matplotlib.pyplot.close("all")
    assert tagged == 1
    assert (tmp_path / "encoder.safetensors").is_file()
