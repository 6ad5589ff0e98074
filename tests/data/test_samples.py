"""A sample is one row: it can be opened, and help and errors name it, without another line anywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.data.dense.open import open_maps, open_objects
from lamina.data.open import held_out, open_source
from lamina.data.query import parse_query
from lamina.data.samples import catalog
from lamina.data.samples.catalog import SAMPLES, SampleRow, at_path, parts_of, sample_names
from lamina.data.sources import ArraySource


def open_mine(query: str, split: str | None) -> ArraySource:
    """One grey image of 1 px for each part, called after it and the parameters."""
    names = [f"{part}?{query}" for part in parts_of(split)]
    return ArraySource(torch.zeros(len(names), 1, 1, 1, dtype=torch.uint8), names, [0] * len(names), ["it"])


MINE = SampleRow("mine", "Mine.", "a=1", f"{__name__}.MineOptions", f"{__name__}.open_mine")


def test_each_row_names_functions_that_are_there() -> None:
    for row in SAMPLES:
        assert row.help.endswith(".")
        for path in filter(None, (row.images, row.maps, row.objects)):
            assert callable(at_path(path))
        example = parse_query(row.example, at_path(row.options))
        assert example != at_path(row.options)()  # it changes something


def test_a_row_is_all_that_a_sample_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "SAMPLES", (*SAMPLES, MINE))
    assert held_out("sample:mine") == "val"
    for split, names in (
        (None, ["train"]),
        ("train", ["train"]),
        ("val", ["val"]),
        ("all", ["train", "val"]),
    ):
        source = open_source("sample:mine?a=1", split)
        assert [source.name(i) for i in range(len(source))] == [f"{name}?a=1" for name in names]
    with pytest.raises(LaminaError, match=r"there is no sample:yours; take .* or sample:mine$"):
        open_source("sample:yours")
    for opened, lacks in ((open_maps, "no class for each pixel"), (open_objects, "no objects")):
        with pytest.raises(LaminaError, match=f"sample:mine has {lacks}; take sample:doom"):
            opened("sample:mine", "train")


def test_help_names_every_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    text = capsys.readouterr().out
    assert sample_names() in text
    assert all(row.spec in sample_names() for row in SAMPLES)


def test_the_list_of_samples_is_read_without_torch() -> None:
    """Help prints it, and answers at once."""
    script = "import sys, lamina.data.samples.catalog; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
