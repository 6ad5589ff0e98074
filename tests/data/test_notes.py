"""What decoders say of images that could be read is counted and said once, never a line per image."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.bad_files import arguments
from helpers.image_files import deep_png, png_chunk, sampled_tiff
from lamina.cli.entry import main
from lamina.data.check import check
from lamina.data.decode.notes import native_messages
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.features.extract import collect
from lamina.features.options import ComputeOptions
from lamina.features.pooling import PixelVectors

RNG = np.random.default_rng(0)
FRAMES = "several frames, depths or pages, of which the first is read"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three stacks of depths, two files that a decoder warns of, three plain ones, and two of 13 bands."""
    (tmp_path / "images").mkdir()
    made = tmp_path / "images"
    for i in range(3):
        depths = RNG.integers(0, 256, (4, 24, 24), dtype=np.uint8)
        tifffile.imwrite(made / f"stack-{i}.tif", depths, imagej=True, metadata={"axes": "ZYX"})
        Image.fromarray(depths[0]).save(made / f"plain-{i}.png")
    (made / "warned.png").write_bytes(
        deep_png(RNG.integers(0, 65536, (24, 24, 3)), png_chunk(b"iCCP", b"x\0\0too short"))
    )
    grey = Image.fromarray(RNG.integers(0, 256, (24, 24), dtype=np.uint8))
    grey.save(made / "warned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    return made


def test_check_counts_them_by_kind_and_writes_nothing_to_stderr(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loggers = [logging.getLogger(name) for name in ("tifffile", "PIL")]
    before = [list(logger.handlers) for logger in loggers]
    for i in range(2):
        bands = RNG.integers(0, 256, (24, 24, 13))
        (folder / f"bands-{i}.tif").write_bytes(sampled_tiff(bands, 8, extra=(0,) * 12))
    lines = check(open_source(str(folder)), DataOptions(workers=0)).notes
    assert lines[0] == f"3 images: {FRAMES} (the first is stack-0.tif)"
    assert lines[1].startswith("2 images: a warning by the decoder (the first is warned.jpg: Corrupt EXIF")
    assert len(lines) == 2  # nothing of the 13 bands, which are read as they are
    assert capfd.readouterr().err == ""
    assert [list(logger.handlers) for logger in loggers] == before
    assert main(["data", "check", str(folder)]) == 0
    assert f"3 images: {FRAMES}" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("workers", [0, 1])
def test_they_travel_with_the_batch_out_of_any_process(folder: Path, workers: int) -> None:
    source = open_source(str(folder))
    options = DataOptions(workers=workers)
    loader = TrainLoader(source, options, seed=0, batch_size=8, image_size=(16, 16))
    (batch,) = loader.batches(0, 1)
    assert {remark.name for remark in batch.remarks if remark.kind == FRAMES} == {
        f"stack-{i}.tif" for i in range(3)
    }
    assert not batch.faults
    assert not next(batch.split(4)).remarks


def test_training_says_each_kind_once(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(arguments(folder, out, max_steps="2")) == 0
    said = [line for line in (out / "train.log").read_text().splitlines() if "said once" in line]
    assert len(said) == 2
    assert sum(FRAMES in line for line in said) == 1
    assert sum("warning by the decoder (" in line for line in said) == 1


def test_features_say_them_from_the_cache_too(folder: Path, tmp_path: Path) -> None:
    computing = ComputeOptions(4, 0, "cpu", cache=tmp_path / "cache")
    for _ in range(2):
        table = collect(open_source(str(folder)), {"pixels": PixelVectors()}, (16, 16), 3, None, computing)
        assert f"3 images: {FRAMES} (the first is stack-0.tif)" in table.notes


def test_lines_of_a_c_library_are_logged_and_others_written(capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logging.getLogger("PIL").addHandler(handler)
    try:
        with native_messages():
            os.write(2, b"libpng warning: iCCP: too short\na line of another thread\n")
    finally:
        logging.getLogger("PIL").removeHandler(handler)
    assert [record.getMessage() for record in found] == ["libpng warning: iCCP: too short"]
    assert capfd.readouterr().err == "a line of another thread\n"
