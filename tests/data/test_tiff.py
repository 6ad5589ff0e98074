"""Planes of a TIFF are channels where its metadata say so, and values are over the file's own largest one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from helpers.image_files import packed, sampled_tiff, tiff
from lamina.data.decode.decode import Decoded, decode_file
from lamina.data.decode.notes import NoteKind
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 65536, (5, 12, 20), dtype=np.uint16)
SMALL = RNG.integers(0, 256, (2, 3, 4, 12, 20), dtype=np.uint8)  # times, depths, channels


def read(path: Path) -> Decoded:
    return decode_file(str(path), Decoding())


def refused(path: Path, words: str) -> Reason:
    with pytest.raises(Unreadable, match=words) as found:
        read(path)
    return found.value.reason


# --- stacks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("imagej.tif", {"imagej": True, "metadata": {"axes": "CYX"}}),
        ("imagej.tif", {"imagej": True}),  # of three axes, the first is what ImageJ calls channels
        ("a.ome.tif", {"metadata": {"axes": "CYX"}}),
        ("a.ome.tif", {"metadata": {"axes": "CYX"}, "compression": "zlib"}),
        ("a.ome.tif", {"metadata": {"axes": "CYX"}, "bigtiff": True, "byteorder": ">"}),
        ("told.tif", {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}),
    ],
)
def test_planes_that_the_file_calls_channels_are_channels(tmp_path: Path, name: str, how: dict) -> None:
    tifffile.imwrite(tmp_path / name, STACK, **how)
    found = read(tmp_path / name)
    assert np.allclose(found.image, STACK / 65535, atol=1e-7)
    assert not found.notes


@pytest.mark.parametrize(
    ("name", "axes", "how"),
    [
        ("imagej.tif", "TZCYX", {"imagej": True}),
        ("a.ome.tif", "TZCYX", {}),
        ("b.ome.tif", "CZTYX", {}),
        ("told.tif", "TZCYX", {"photometric": "minisblack"}),
    ],
)
def test_of_times_and_depths_the_first_is_read_with_all_channels_and_noted(
    tmp_path: Path, name: str, axes: str, how: dict
) -> None:
    stored = SMALL if axes == "TZCYX" else SMALL.transpose(2, 1, 0, 3, 4)
    tifffile.imwrite(tmp_path / name, stored, metadata={"axes": axes}, **how)
    found = read(tmp_path / name)
    assert np.array_equal(found.image, SMALL[0, 0])
    assert [note.kind for note in found.notes] == [NoteKind.FRAMES]


def test_a_large_imagej_stack_has_one_page_and_its_planes_behind_it(tmp_path: Path) -> None:
    """ImageJ writes stacks beyond 4 GB with a single page; so does tifffile where it is asked to."""
    with tifffile.TiffWriter(tmp_path / "a.tif", imagej=True) as writer:
        writer.write(STACK, metadata={"axes": "CYX"}, truncate=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff_file:
        assert len(tiff_file.pages) == 1
    assert np.allclose(read(tmp_path / "a.tif").image, STACK / 65535, atol=1e-7)
    cut = (tmp_path / "a.tif").read_bytes()[:-100]
    (tmp_path / "cut.tif").write_bytes(cut)
    assert refused(tmp_path / "cut.tif", "announced 5") == Reason.BROKEN


@pytest.mark.parametrize("how", [{}, {"metadata": {"axes": "QYX"}}])
def test_a_stack_without_axes_is_refused(tmp_path: Path, how: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", **how)
    assert refused(tmp_path / "a.tif", "5 planes.*does not say.*channels") == Reason.CHANNELS


def test_pages_without_metadata_give_the_first_and_a_note(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "same.tif", STACK, photometric="minisblack", metadata=None)
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as writer:
        for page in (STACK[0], STACK[0, :6]):
            writer.write(page, metadata=None)
    for name in ("same.tif", "sizes.tif"):
        found = read(tmp_path / name)
        assert np.allclose(found.image, STACK[:1] / 65535, atol=1e-7)
        assert [note.kind for note in found.notes] == [NoteKind.FRAMES]


def test_volumes_thumbnails_and_planes_in_other_files_are_refused(tmp_path: Path) -> None:
    cube = RNG.integers(0, 256, (16, 32, 32), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", cube, volumetric=True, tile=(16, 16, 16))
    assert refused(tmp_path / "v.tif", "axes ZYX") == Reason.PIXEL_TYPE
    tifffile.imwrite(tmp_path / "t.tif", cube[0], subfiletype=1)
    assert refused(tmp_path / "t.tif", "thumbnail") == Reason.PIXEL_TYPE
    tifffile.imwrite(tmp_path / "whole.ome.tif", STACK, metadata={"axes": "CYX"})
    whole = (tmp_path / "whole.ome.tif").read_bytes()
    other = b'<UUID FileName="b.tif">x</UUID>'
    assert b"UUID FileName" not in whole
    description = tifffile.tiffcomment(tmp_path / "whole.ome.tif").encode()
    planes = b"".join(
        b'<TiffData IFD="0" FirstC="%d" FirstZ="0" FirstT="0" PlaneCount="1">%s</TiffData>'
        % (c, other if c else b"")
        for c in range(5)
    )
    start, end = description.index(b"<TiffData"), description.index(b"</Pixels>")
    tifffile.imwrite(
        tmp_path / "part.ome.tif",
        STACK[0],
        description=description[:start] + planes + description[end:],
        metadata=None,
    )
    assert refused(tmp_path / "part.ome.tif", "other files") == Reason.BROKEN


# --- depths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_of_any_depth_is_over_its_own_largest_value(tmp_path: Path, bits: int, photometric: int) -> None:
    grey = RNG.integers(0, 2**bits, (6, 8, 1))
    grey[0, :2, 0] = (0, 2**bits - 1)
    (tmp_path / "a.tif").write_bytes(sampled_tiff(grey, bits, photometric))
    if (bits, photometric) == (12, 0):  # needs a package that unpacks 12 bits
        with pytest.raises(Unreadable, match="imagecodecs"):
            read(tmp_path / "a.tif")
        return
    got = read(tmp_path / "a.tif").image
    want = grey[..., 0] / (2**bits - 1)
    got = got / 255 if got.dtype == torch.uint8 else got
    assert np.allclose(got[0], want if photometric else 1 - want, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(
    ("photometric", "samples", "extra"),
    [(1, 2, (0,)), (1, 2, (2,)), (1, 5, (0,) * 4), (2, 3, ()), (2, 4, (0,)), (2, 4, (2,)), (2, 5, (0, 0))],
)
def test_samples_of_a_page_are_channels_however_they_are_stored(
    tmp_path: Path, bits: int, planar: int, photometric: int, samples: int, extra: tuple[int, ...]
) -> None:
    pixels = RNG.integers(0, 2**bits, (6, 8, samples))
    (tmp_path / "a.tif").write_bytes(sampled_tiff(pixels, bits, photometric, planar, extra))
    got = read(tmp_path / "a.tif").image
    want = pixels.transpose(2, 0, 1) / (2**bits - 1)
    assert np.allclose(got / 255 if bits == 8 else got, want, atol=1e-6)


def test_colours_multiplied_by_alpha_are_divided_by_it_or_refused(tmp_path: Path) -> None:
    pixels = np.array([[[100, 50, 25, 100], [0, 10, 20, 200]]])
    (tmp_path / "8.tif").write_bytes(sampled_tiff(pixels, 8, 2, extra=(1,)))
    want = np.concatenate([np.round(pixels[..., :3] * 255 / pixels[..., 3:]), pixels[..., 3:]], -1)
    assert np.abs(read(tmp_path / "8.tif").image.permute(1, 2, 0).numpy() - want).max() <= 1
    (tmp_path / "16.tif").write_bytes(sampled_tiff(pixels * 257, 16, 2, extra=(1,)))
    assert refused(tmp_path / "16.tif", "multiplied by alpha") == Reason.PIXEL_TYPE


def test_white_as_zero_is_refused_beside_other_channels(tmp_path: Path) -> None:
    """Which of them it holds for, the file does not say; alpha must not be inverted."""
    pixels = RNG.integers(0, 256, (6, 8, 2))
    (tmp_path / "a.tif").write_bytes(sampled_tiff(pixels, 8, 0, extra=(2,)))
    assert refused(tmp_path / "a.tif", "2 channels with white as zero") == Reason.PIXEL_TYPE


def test_samples_of_different_depths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff((4, 2), (5, 6, 5), [bytes(16)], 2, 3))
    assert refused(tmp_path / "a.tif", r"samples of \(5, 6, 5\) bits") == Reason.PIXEL_TYPE


def test_ome_says_how_many_bits_are_used(tmp_path: Path) -> None:
    twelve = STACK >> 4
    meta = {"axes": "CYX", "SignificantBits": 12}
    tifffile.imwrite(tmp_path / "a.ome.tif", twelve, metadata=meta)
    assert np.allclose(read(tmp_path / "a.ome.tif").image, twelve / 4095, atol=1e-6)
    tifffile.imwrite(tmp_path / "one.ome.tif", twelve[0], metadata={"axes": "YX", "SignificantBits": 12})
    assert np.allclose(read(tmp_path / "one.ome.tif").image, twelve[:1] / 4095, atol=1e-6)
    tifffile.imwrite(tmp_path / "lie.ome.tif", STACK, metadata=meta)
    assert refused(tmp_path / "lie.ome.tif", "in a file that says 12 bits") == Reason.PIXEL_TYPE


def test_compressed_files_are_what_pillow_wrote(tmp_path: Path) -> None:
    rgb = Image.fromarray(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    for codec in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        rgb.save(tmp_path / "a.tif", compression=codec)
        assert np.array_equal(read(tmp_path / "a.tif").image.permute(1, 2, 0), rgb)
    rgb.save(tmp_path / "j.tif", compression="jpeg")  # JPEG in TIFF, YCbCr
    with Image.open(tmp_path / "j.tif") as stored:
        assert np.array_equal(read(tmp_path / "j.tif").image.permute(1, 2, 0), stored.convert("RGB"))
    rgb.convert("P").save(tmp_path / "p.tif")
    assert np.array_equal(read(tmp_path / "p.tif").image.permute(1, 2, 0), rgb.convert("P").convert("RGB"))


def test_strips_that_overlap_and_pages_in_a_circle_end(tmp_path: Path) -> None:
    strip = packed(RNG.integers(0, 256, (6, 8)), 8)
    many = {273: (4, (8,) * 400), 279: (4, (48,) * 400), 278: (4, (1,)), 257: (4, (400,))}
    (tmp_path / "a.tif").write_bytes(tiff((48, 400), 8, [strip], more=many))
    assert refused(tmp_path / "a.tif", "strips overlap") == Reason.BROKEN
    circle = bytearray(tiff((8, 6), 8, [strip]))
    circle[-4:] = circle[4:8]  # the next page is this one
    (tmp_path / "c.tif").write_bytes(circle)
    assert np.array_equal(read(tmp_path / "c.tif").image[0].numpy().tobytes(), strip)
