"""Stored values of any range, pixels without data, and pages as channels: against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from helpers.image_files import deep_png
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.decode.decode import Decoded, decode_file
from lamina.data.decode.notes import OF_VALUES, Note, NoteKind
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import _BAND_VALUES, map_range
from lamina.data.open import open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import ArraySource

RNG = np.random.default_rng(0)
TYPES = ("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64")


def read(path: Path, **options: object) -> Decoded:
    return decode_file(str(path), DataOptions(**options).decoding(None))  # type: ignore[arg-type]


def of_values(found: Decoded) -> list[Note]:
    return [note for note in found.notes if note.kind in OF_VALUES]


def refused(path: Path, words: str, **options: object) -> Reason:
    with pytest.raises(Unreadable, match=words) as found:
        read(path, **options)
    return found.value.reason


def write(path: Path, array: np.ndarray, **how: object) -> Path:
    """A .npy, .tif or .png file of (H, W) or (H, W, C) values."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(
            path,
            array,
            photometric="minisblack",
            **({"planarconfig": "contig"} if array.ndim == 3 else {}),
            **how,
        )  # type: ignore[arg-type]
    else:
        Image.fromarray(array).save(path)
    return path


# --- a range of values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npy", ".tif"])
@pytest.mark.parametrize("kind", TYPES)
def test_values_of_any_type_are_mapped_linearly_and_clipped(tmp_path: Path, ending: str, kind: str) -> None:
    low, high = (20, 200) if kind == "uint8" else (-1000, 3000) if kind[0] in "if" else (1000, 60_000)
    values = RNG.integers(0 if kind[0] == "u" else -2000, 256 if kind == "uint8" else 5000, (40, 30)).astype(
        kind
    )
    if kind in ("uint16", "uint32"):
        values *= 13
    found = read(write(tmp_path / f"a{ending}", values), value_range=f"{low}:{high}")
    exact = (values.astype(np.float64) - low) / (high - low)
    assert found.image.dtype == torch.float32
    assert np.abs(found.image[0].numpy() - np.clip(exact, 0, 1)).max() < 1e-6
    (note,) = found.notes
    outside = int(((exact < 0) | (exact > 1)).sum())
    assert (note.kind, note.found, note.of) == (NoteKind.CLIPPED, outside, values.size)
    assert outside


def test_an_image_of_several_bands_is_mapped_whole() -> None:
    values = RNG.integers(-100, 1200, (700, 400, 2)).astype(np.int16)
    ignored = RNG.random(values.shape) < 0.1
    assert values.size > 2 * _BAND_VALUES
    found = map_range(values, ((0.0, 1000.0),), ignored)
    assert np.allclose(found.values, np.clip(values / 1000, 0, 1), atol=1e-6)
    assert found.clipped == (((values < 0) | (values > 1000)) & ~ignored).sum()


def test_large_integers_keep_their_last_digits(tmp_path: Path) -> None:
    values = np.array([[2**31 - 100, 2**31 - 99], [2**31 - 98, 2**31 - 96]], np.int64).astype(np.uint32)
    found = read(write(tmp_path / "a.npy", values), value_range=f"{2**31 - 100}:{2**31 - 96}")
    assert found.image[0].tolist() == [[0.0, 0.25], [0.5, 1.0]]  # as float32 the four values are one
    assert not found.notes


def test_a_narrow_range_far_from_0_keeps_its_two_ends_apart(tmp_path: Path) -> None:
    values = np.array([[2**24, 2**24 + 2]], np.float32)
    found = read(write(tmp_path / "a.npy", values), value_range=f"{2**24}:{2**24 + 1}")
    assert found.image[0].tolist() == [[0.0, 1.0]]  # as float32 the two ends are one
    assert found.notes[0].found == 1


def test_each_channel_has_its_own_range_and_alpha_that_of_its_type(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (12, 10, 4), dtype=np.uint8)
    found = read(write(tmp_path / "a.png", values), value_range="0:255,100:200,50:51")
    low, high = np.array([0, 100, 50]), np.array([255, 200, 51])
    exact = np.clip((values[..., :3] - low) / (high - low), 0, 1)
    assert np.allclose(found.image[:3].numpy(), np.moveaxis(exact, -1, 0), atol=1e-6)
    assert np.allclose(found.image[3].numpy(), values[..., 3] / 255, atol=1e-6)
    assert (
        refused(tmp_path / "a.png", "3 channels, and data.value_range has 2 pairs", value_range="0:1,0:2")
        is Reason.CHANNELS
    )


def test_pictures_of_any_mode_are_mapped(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (9, 7, 3))
    (tmp_path / "a.png").write_bytes(deep_png(deep))
    found = read(tmp_path / "a.png", value_range="10000:50000")
    exact = np.clip((deep - 10_000) / 40_000, 0, 1)
    assert np.allclose(found.image.numpy(), np.moveaxis(exact, -1, 0), atol=1e-6)
    grey = RNG.integers(0, 256, (9, 7), dtype=np.uint8)
    for mode in ("L", "P", "LA", "RGB"):
        Image.fromarray(grey).convert(mode).save(tmp_path / "b.png")
        image = read(tmp_path / "b.png", value_range="0:100").image
        assert np.allclose(image[0], np.clip(grey / 100, 0, 1), atol=1e-6), mode
    Image.fromarray(grey).save(tmp_path / "c.jpg", quality=95)
    stored = read(tmp_path / "c.jpg").image
    assert torch.allclose(
        read(tmp_path / "c.jpg", value_range="20:200").image, ((stored - 20.0) / 180).clamp(0, 1), atol=1e-6
    )


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        (np.full((4, 4), -3, np.int16), Reason.PIXEL_TYPE, "int16; .*--data.value-range LOW:HIGH"),
        (np.full((4, 4), 7, np.int32), Reason.PIXEL_TYPE, "int32; .*--data.value-range LOW:HIGH"),
        (
            np.full((4, 4), 1.5, np.float32),
            Reason.PIXEL_TYPE,
            "from 1.5 to 1.5; .*--data.value-range LOW:HIGH",
        ),
        (np.full((4, 4), np.nan, np.float32), Reason.NOT_FINITE, "data.nodata nan"),
    ],
)
def test_values_without_a_known_range_are_refused_with_the_option(
    tmp_path: Path, values: np.ndarray, reason: Reason, words: str
) -> None:
    for ending in (".npy", ".tif"):
        assert refused(write(tmp_path / f"a{ending}", values), words) is reason


def test_infinite_values_and_complex_ones_are_refused_with_a_range_too(tmp_path: Path) -> None:
    infinite = np.array([[0, np.inf]], np.float32)
    assert refused(write(tmp_path / "a.npy", infinite), "infinite", value_range="0:1") is Reason.NOT_FINITE
    assert (
        refused(write(tmp_path / "b.npy", np.full((2, 2), 1j)), "complex", value_range="0:1")
        is Reason.PIXEL_TYPE
    )


def test_images_in_memory_are_mapped_as_files_are() -> None:
    images = torch.from_numpy(RNG.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    source = ArraySource(images, ["a", "b"])
    assert source.read(1) is not None
    assert torch.equal(source.read(1), images[1])
    found = source.read(1, Decoding(value_range=((0.0, 51.0),)))
    assert torch.allclose(found, (images[1] / 51).clamp(0, 1))


@pytest.mark.parametrize("text", ["", "1", "2:1", "1:1", "a:b", "0:inf", "nan:1", "0:1,", "0:1;0:2", "0:1:2"])
def test_ranges_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LaminaError, match=r"data\.value_range .*LOW:HIGH"):
        DataOptions(value_range=text)


def test_equal_options_have_equal_texts() -> None:
    assert DataOptions(value_range="0:1e4", nodata="-9999") == DataOptions(
        value_range="0.0:10000", nodata=-9999
    )
    assert DataOptions(nodata=float("nan")) == DataOptions(nodata="nan")
    for wrong in ("inf", "x", ""):
        with pytest.raises(LaminaError, match=r"data\.nodata"):
            DataOptions(nodata=wrong)


# --- pixels without data ----------------------------------------------------------------------------------


def test_pixels_without_data_become_the_mean_of_the_others_of_their_channel(tmp_path: Path) -> None:
    values = RNG.integers(-100, 2000, (16, 12, 3)).astype(np.int16)
    empty = RNG.random(values.shape) < 0.3
    values[empty] = -9999
    found = read(write(tmp_path / "a.tif", values), value_range="0:1000", nodata=-9999)
    mapped = np.clip(values / 1000, 0, 1)
    means = np.array([mapped[..., c][~empty[..., c]].mean() for c in range(3)])
    expected = np.where(empty, means, mapped)
    assert np.allclose(found.image.numpy(), np.moveaxis(expected, -1, 0), atol=1e-6)
    kinds = {note.kind: (note.found, note.of) for note in found.notes}
    clipped = int((((values < 0) | (values > 1000)) & ~empty).sum())
    assert kinds == {
        NoteKind.CLIPPED: (clipped, values.size),
        NoteKind.FILLED: (int(empty.sum()), values.size),
    }


@pytest.mark.parametrize("nodata", ["0", "0.0", " 0 ", "0\0"])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_the_value_that_gdal_wrote_into_a_tiff_counts_unless_it_is_turned_off(
    tmp_path: Path, nodata: str, kind: str
) -> None:
    values = RNG.integers(10, 200, (16, 12)).astype(kind)
    values[:4] = 0
    path = write(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, nodata, True)])
    most = np.iinfo(kind).max
    mean = values[4:].mean() / most if kind == "uint16" else round(values[4:].mean()) / most
    found = read(path)
    image = found.image.float() / (255 if kind == "uint8" else 1)
    assert np.allclose(image[0, :4], mean, atol=1e-6)
    assert np.allclose(image[0, 4:], values[4:] / most, atol=1e-6)
    assert [(n.kind, n.found, n.of) for n in of_values(found)] == [(NoteKind.FILLED, 48, values.size)]
    kept = read(path, nodata="keep")
    assert (kept.image[0, :4] == 0).all()
    assert not of_values(kept)
    assert (read(path, nodata=250).image[0, :4] == 0).all()


def test_a_value_of_gdals_that_is_none_is_no_matter(tmp_path: Path) -> None:
    values = RNG.integers(10, 200, (8, 8), dtype=np.uint8)
    for text in ("none", "", "-9999", "1e400"):
        found = read(write(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, text, True)]))
        assert np.array_equal(found.image[0], values)
        assert not of_values(found)


def test_nan_is_without_data_where_any_value_is(tmp_path: Path) -> None:
    values = RNG.random((6, 6)).astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, np.float32(-3.4028234663852886e38)
    path = write(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-3.4028234663852886e+38", True)])
    mean = values[(values >= 0) & (values <= 1)].mean()
    found = read(path)
    assert found.image[0, 0, 0] == pytest.approx(mean, abs=1e-6)
    assert found.image[0, 1, 1] == pytest.approx(mean, abs=1e-6)
    values[1, 1] = 0.5
    only_nan = read(write(tmp_path / "b.npy", values), nodata="nan")
    assert only_nan.image[0, 0, 0] == pytest.approx(np.nanmean(values), abs=1e-6)
    assert refused(tmp_path / "b.npy", "data.nodata nan", nodata="keep") is Reason.NOT_FINITE


def test_white_as_zero_is_turned_round_with_its_value_without_data(tmp_path: Path) -> None:
    values = RNG.integers(10, 60_000, (8, 8)).astype(np.uint16)
    values[0] = 7
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="miniswhite", extratags=[(42113, "s", 0, "7", True)]
    )
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="miniswhite")
    mean = (65535 - values[1:].astype(float)).mean() / 65535
    for found in (read(tmp_path / "a.tif"), read(tmp_path / "b.tif", nodata=7)):
        assert np.allclose(found.image[0, 0], mean, atol=1e-6)
        assert np.allclose(found.image[0, 1:], (65535 - values[1:]) / 65535, atol=1e-6)


def test_an_image_without_any_data_is_unreadable_for_a_reason_of_its_own(tmp_path: Path) -> None:
    values = np.full((4, 4, 3), -1, np.int16)
    assert refused(write(tmp_path / "a.npy", values), "the value -1$", nodata=-1) is Reason.NO_DATA
    values[..., :2] = 5
    reason = refused(
        write(tmp_path / "a.npy", values), "the value -1 in channel 3 of 3", nodata=-1, value_range="0:9"
    )
    assert reason is Reason.NO_DATA


# --- pages ------------------------------------------------------------------------------------------------

STACK = RNG.integers(0, 65536, (6, 12, 20), dtype=np.uint16)


@pytest.mark.parametrize(
    ("name", "axes", "how"),
    [
        ("imagej.tif", "ZYX", {"imagej": True}),
        ("imagej.tif", "TZCYX", {"imagej": True}),
        ("a.ome.tif", "TZCYX", {}),
        ("a.ome.tif", "CZTYX", {"compression": "zlib"}),
        ("plain.tif", "QYX", {}),
        ("plain.tif", "TZCYX", {"metadata": None}),
    ],
)
def test_all_planes_become_channels_in_the_files_order(
    tmp_path: Path, name: str, axes: str, how: dict
) -> None:
    shape = {"TZCYX": (3, 2, 1), "CZTYX": (1, 3, 2)}.get(axes, (6,))
    volume = STACK.reshape(*shape, 12, 20)
    how = {"metadata": {"axes": axes}, "photometric": "minisblack", **how}
    tifffile.imwrite(tmp_path / name, volume, **how)
    found = read(tmp_path / name, pages="channels")
    with tifffile.TiffFile(tmp_path / name) as tiff:
        planes = tiff.series[0].asarray().reshape(-1, 12, 20)
    assert np.allclose(found.image.numpy(), planes / 65535, atol=1e-6)
    assert not found.notes
    assert not found.animated


def test_colour_pages_give_their_channels_one_page_after_the_other(tmp_path: Path) -> None:
    pages = RNG.integers(0, 256, (4, 12, 20, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb", metadata=None)
    found = read(tmp_path / "a.tif", pages="channels")
    assert np.array_equal(found.image.numpy(), np.moveaxis(pages, -1, 1).reshape(12, 12, 20))
    first = read(tmp_path / "a.tif")
    assert np.array_equal(first.image.numpy(), np.moveaxis(pages[0], -1, 0))
    assert [note.kind for note in first.notes] == [NoteKind.FRAMES]


def test_what_has_no_pages_that_could_be_channels_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (9, 9), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert refused(tmp_path / "a.gif", "GIF of several frames", pages="channels") is Reason.CHANNELS
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(STACK[0], metadata=None)
        tiff.write(STACK[0, :5], metadata=None)
    assert refused(tmp_path / "a.tif", "2 images that differ", pages="channels") is Reason.CHANNELS
    frames[0].save(tmp_path / "one.png")
    assert read(tmp_path / "one.png", pages="channels").image.shape == (1, 9, 9)


def test_a_volume_counts_with_all_its_planes_against_the_memory(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((64, 256, 256), np.uint16), photometric="minisblack", compression="zlib"
    )
    how = replace(DataOptions(pages="channels").decoding(None), max_decode_mb=16)
    with pytest.raises(Unreadable, match="max_decode_mb"):
        decode_file(str(tmp_path / "a.tif"), how)


# --- on a path --------------------------------------------------------------------------------------------


def test_a_path_says_how_its_images_are_read_and_check_counts_it(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    values = RNG.integers(-100, 1100, (3, 10, 10)).astype(np.int16)
    for i, each in enumerate(values):
        write(folder / f"{i}.tif", each)
    spec = f"{folder}?scale=0:1000&nodata=-100"
    source = open_source(spec)
    how = DataOptions(value_range="0:1000", nodata=-100).decoding(1)
    for i in range(3):
        assert torch.equal(source.read(i), open_source(str(folder)).read(i, how))
    (clipped, *_), options = (
        check(source, DataOptions(workers=0), 1).notes,
        DataOptions(workers=0, value_range="0:1000", nodata=-100),
    )
    assert check(open_source(str(folder)), options, 1).notes[0] == clipped
    outside = int((((values < 0) & (values != -100)) | (values > 1000)).sum())
    assert f"{outside} of 300 values" in clipped
    assert source.identity() != open_source(f"{folder}?scale=0:1001&nodata=-100").identity()


def test_parameters_of_a_sample_and_of_reading_stand_beside_each_other() -> None:
    plain, scaled = (open_source(f"sample:photos?crop=64{more}&most=3") for more in ("", "&scale=0:100"))
    assert torch.allclose(scaled.read(2), (plain.read(2) / 100).clamp(max=1))


def test_other_options_than_those_of_the_path_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", RNG.integers(0, 9, (9, 9)).astype(np.int16))
    source = open_source(f"{tmp_path}?scale=0:8")
    with pytest.raises(LaminaError, match=r"scale=0:8.*data\.value_range 0:9"):
        source.read(0, DataOptions(value_range="0:9").decoding(1))
    with pytest.raises(LaminaError, match="pages=all"):
        open_source(f"{tmp_path}?pages=all")
    with pytest.raises(LaminaError, match="LOW:HIGH"):
        open_source(f"{tmp_path}?scale=8")
