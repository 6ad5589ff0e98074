"""`check` counts what is there and names what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.file_names import SUFFIXES
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.interop.complete import check_readable
from lamina.methods.catalog import recipe

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
    assert check(open_source(folder), ONE_PROCESS, in_chans=3).pixels == {
        "uint8 x 3": 4,
        "float32 x 1": 1,  # as stored, though an encoder of 3 channels is given 3
        "uint8 x 1": 1,
    }
    assert not found.ok
    assert not check(open_source(str(folder / "a" / "bad*")), ONE_PROCESS).ok  # nothing at all can be read


def test_it_can_be_printed_and_saved(folder: Path) -> None:
    found = check(open_source(folder), ONE_PROCESS, in_chans=4)
    lines = found.lines(most=3)
    assert all(line.isprintable() for line in lines)
    assert lines[-1].strip() == "... and 4 more"
    assert any("6 x unsuitable number of channels" in line for line in lines)
    groups = check(open_source(folder), ONE_PROCESS, duplicates=True).lines()
    assert "  same content: a/1.png = b/copy.png" in groups
    assert "same content: 1 group of equal files, 1 file more than there are contents" in groups
    assert json.loads(json.dumps(found.to_json()))["reasons"] == found.reasons
    assert dict(found.facts())["unreadable"] == "7 of 7; a run stops at more than 2"


def test_the_training_part_decides(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("val", 40)):
        (tmp_path / part).mkdir()
        for k in range(n):
            (tmp_path / part / f"bad{k}.png").write_bytes(b"")
            Image.new("L", (2, 2), k).save(tmp_path / part / f"{k}.png")
    source, training = open_source(tmp_path, "all"), open_source(tmp_path)
    told: list[tuple[int, int]] = []
    found = check(
        source, ONE_PROCESS, training=training, progress=lambda done, of, _: told.append((done, of))
    )
    assert (len(found.bad), found.n_training, found.n_training_bad, found.limit) == (45 * 1, 10, 5, 2)
    assert not found.ok
    assert check(source, DataOptions(workers=0), training=training).ok  # 40 in val stop no training
    assert told[-1] == (90, 90)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert "45 of 90, 5 of them in the training part of 10" in dict(found.facts())["unreadable"]


def test_what_passes_is_trained_on(tmp_path: Path) -> None:
    """Ten bad files are borne: the first ten, and ten of eleven."""
    for k in range(10):
        (tmp_path / f"a{k}.png").write_bytes(b"")
    Image.new("L", (8, 8), 5).save(tmp_path / "z.png")
    source = open_source(tmp_path)
    assert check(source, DataOptions(workers=0)).ok
    loader = TrainLoader(source, DataOptions(workers=0), 0, 11, image_size=(8, 8), in_chans=1)
    for batch in loader.batches(0, 8):
        assert (batch.images == 5).all()
    check_readable(source, recipe("mae-small"))
    for k in range(10, 30):
        (tmp_path / f"a{k}.png").write_bytes(b"")
    source = open_source(tmp_path)
    assert not check(source, DataOptions(workers=0)).ok
    with pytest.raises(LaminaError, match="none of the first 11 images"):
        check_readable(source, recipe("mae-small"))


def test_the_help_names_every_ending_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "check", "--help"])
    said = capsys.readouterr().out
    assert [ending for ending in sorted(SUFFIXES) if ending not in said] == []


def test_the_verb_counts_what_it_passes_over_and_fits_the_default_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    (tmp_path / "2.heic").write_bytes(b"")
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "1 file passed over by the ending: 1 .heic" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "1.png").unlink()
    np.save(tmp_path / "bands.npy", np.zeros((16, 16, 7), np.uint8))  # pre-training takes 3 channels
    assert main(["data", "check", str(tmp_path)]) == 1
    assert main(["data", "check", str(tmp_path), "--in-chans", "7"]) == 0


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
