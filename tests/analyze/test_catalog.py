"""The catalog of analyses: each row leads to functions that fit together, and none needs torch to be read."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lamina
from lamina.analyze.catalog import ANALYSES
from lamina.analyze.output import Summary

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("row", ANALYSES, ids=lambda row: row.name)
def test_what_an_analysis_returns_is_what_its_picture_and_table_take(row):
    run, draw, summarize = row.load()
    takes = inspect.get_annotations(run, eval_str=True)
    assert takes["options"] is row.options
    for function in (draw, summarize):
        (result,) = inspect.signature(function).parameters
        assert inspect.get_annotations(function, eval_str=True)[result] is takes["return"]
    assert inspect.get_annotations(summarize, eval_str=True)["return"] is Summary


def test_every_picture_belongs_to_a_row():
    files = Path(lamina.__file__).parent.glob("analyze/*_plot.py")
    assert {file.stem for file in files} == {f"{row.module.rpartition('.')[2]}_plot" for row in ANALYSES}


def test_options_are_read_without_torch():
    code = "import sys, lamina.analyze.catalog; sys.exit(len({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_guide_has_every_analysis():
    table = re.findall(
        r"^\| .*`lamina analyze (\w+)`", (DOCS / "guides/analyze.md").read_text(), re.MULTILINE
    )
    assert sorted(table) == sorted(row.name for row in ANALYSES)
