"""`check` counts what is there and names what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data import DataOptions, check, open_source

ONE_PROCESS = DataOptions(workers=0, bad_files_min=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    rgb = Image.fromarray(rng.integers(0, 256, (10, 20, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[274] = 6
    rgb.save(tmp_path / "a" / "1.png")
    rgb.save(tmp_path / "b" / "copy.png")
    rgb.save(tmp_path / "a" / "2.jpg", exif=turned)
    rgb.save(tmp_path / "b" / "3.webp", save_all=True, append_images=[rgb.rotate(90)])
    Image.new("I;16", (300, 40)).save(tmp_path / "b" / "4.png")
    Image.new("L", (3, 4)).save(tmp_path / "b" / "5.png")
    (tmp_path / "a" / "bad\x1b[2J.png").write_bytes(b"")
    return tmp_path


def test_what_is_there(folder: Path) -> None:
    found = check(open_source(folder), ONE_PROCESS, duplicates=True)
    assert found.n_files == 7
    assert found.formats == {"PNG RGB": 2, "JPEG RGB": 1, "WEBP RGB": 1, "PNG I;16": 1, "PNG L": 1}
    assert found.pixels == {"uint8 x 3": 4, "float32 x 1": 1, "uint8 x 1": 1}
    assert (found.smallest, found.median, found.largest) == ((3, 4), (20, 10), (300, 40))
    assert (found.turned, found.animated) == (1, 1)
    assert found.classes == {"a": 3, "b": 4}
    assert found.duplicates == (("a/1.png", "b/copy.png"),)
    assert [(file.name, file.reason) for file in found.bad] == [("a/bad\\x1b[2J.png", "empty file")]
    assert found.ok


def test_bad_files_beyond_the_budget_are_not_ok(folder: Path) -> None:
    found = check(open_source(folder), ONE_PROCESS, in_chans=4)
    assert found.reasons == {"unsuitable number of channels": 6, "empty file": 1}
    assert not found.ok
    assert not check(open_source(str(folder / "a" / "bad*")), ONE_PROCESS).ok  # nothing at all can be read


def test_it_can_be_printed_and_saved(folder: Path) -> None:
    found = check(open_source(folder), ONE_PROCESS, in_chans=4)
    lines = found.lines(most=3)
    assert all(line.isprintable() for line in lines)
    assert lines[-1].strip() == "... and 4 more"
    assert any("6 x unsuitable number of channels" in line for line in lines)
    assert json.loads(json.dumps(found.to_json()))["reasons"] == found.reasons
    assert dict(found.facts())["unreadable"] == "7 of 7; a run bears 2"


def test_workers_and_samples(folder: Path) -> None:
    for k in range(80):
        Image.new("L", (2, 2), k).save(folder / "a" / f"x{k}.png")
    alone = check(open_source(folder), ONE_PROCESS)
    together = check(open_source(folder), DataOptions(workers=2, bad_files_min=2))
    assert together.formats == alone.formats
    assert together.bad == alone.bad
    sample = check(open_source("sample:photos?crop=96"), ONE_PROCESS)
    assert sample.ok
    assert sample.largest == sample.smallest == (96, 96)
    assert set(sample.formats) == {"memory uint8"}
