"""The lists of methods and recipes: complete, and true of what the recipes build."""

import re

from lamina.cli.entry import main
from lamina.cli.info import METHOD_COLUMNS, RECIPE_COLUMNS, method_rows, recipe_rows
from lamina.evaluate.detect.recipes import detect_recipes
from lamina.evaluate.finetune.recipes import finetune_recipes
from lamina.evaluate.segment.recipes import segment_recipes
from lamina.methods.catalog import METHODS, recipes


def test_every_method_has_a_whole_row():
    rows = {row[0]: dict(zip(METHOD_COLUMNS, row, strict=True)) for row in method_rows()}
    assert list(rows) == [method.name for method in METHODS]
    for row in rows.values():
        assert all(row.values())
        assert re.fullmatch(r"\d{4}\.\d{5}", row["paper"])
    assert rows["beit"]["loss"] == "cross entropy"
    assert rows["milan"]["hidden"] == "0.75, by attention"
    assert rows["pixio"]["decoder"] == "MAE's, 512 x 32"
    assert rows["simmim"]["encoder sees"] == "mask tokens too"


def test_every_recipe_has_a_whole_row():
    rows = recipe_rows()
    assert [row[0] for row in rows] == [
        *recipes(),
        *finetune_recipes(),
        *segment_recipes(),
        *detect_recipes(),
    ]
    assert all(len(row) == len(RECIPE_COLUMNS) and all(row) for row in rows)


def test_the_verbs_print_them(capsys):
    assert main(["methods"]) == main(["recipes"]) == 0
    told = capsys.readouterr().out
    assert "2111.06377" in told
    assert "crossmae-small" in told
