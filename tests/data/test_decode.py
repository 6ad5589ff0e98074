"""Every kind of file becomes the right values, or one of the fixed reasons; nothing crashes or hangs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor
from torchvision.io import decode_png as of_torchvision

from helpers.image_files import deep_png, packed, png, png_chunk
from lamina.data.decode import deep_png as deep_png_module
from lamina.data.decode.channels import composite, luminance
from lamina.data.decode.decode import decode_file
from lamina.data.decode.orientation import turn
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (12, 20, 4), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 20), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 20), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (12, 20, 3), dtype=np.uint16)


def read(path: Path, in_chans: int | None = None, **how: bool | int) -> Tensor:
    return decode_file(str(path), Decoding(in_chans, **how)).image  # type: ignore[arg-type]


def reason(path: Path | str | bytes, **how: int) -> Reason:
    with pytest.raises(Unreadable) as found:
        decode_file(path if isinstance(path, bytes) else str(path), Decoding(**how))  # type: ignore[arg-type]
    return found.value.reason


# --- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_eight_bits_stay_as_they_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert read(path).dtype == torch.uint8
    assert np.array_equal(read(path).permute(1, 2, 0), RGB)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    for name, image in {"rgb": Image.fromarray(RGB), "grey": Image.fromarray(GREY)}.items():
        image.save(tmp_path / f"{name}.jpg", progressive=True)
        want = np.asarray(Image.open(tmp_path / f"{name}.jpg"))
        got = read(tmp_path / f"{name}.jpg")
        assert np.array_equal(got.permute(1, 2, 0).squeeze(-1), want)


def test_one_bit_and_low_bit_grey(tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (12, 20)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "1.png")
    assert np.array_equal(read(tmp_path / "1.png")[0], bits * 255)
    (tmp_path / "4.png").write_bytes(png((4, 1, 4, 0), b"\0" + bytes([0x0F, 0x3A])))
    assert read(tmp_path / "4.png")[0].tolist() == [[0, 255, 51, 170]]  # v * 255 / 15


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    index = RNG.integers(0, 4, (12, 20), dtype=np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "p.png")
    assert np.array_equal(read(tmp_path / "p.png").permute(1, 2, 0), colours[index])
    alphas = np.array([0, 100, 255, 255], dtype=np.uint8)
    image.save(tmp_path / "t.png", transparency=alphas.tobytes())
    want = np.dstack([colours[index], alphas[index]])
    assert np.array_equal(read(tmp_path / "t.png").permute(1, 2, 0), want)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_colour_key_is_transparency(tmp_path: Path, bits: int) -> None:
    """PNG, 11.3.2.1: pixels of that value are transparent, all others opaque, at every depth."""
    most = 2**bits - 1
    row = [0, 1, most - 1, most, 1]
    key = png_chunk(b"tRNS", (1).to_bytes(2, "big"))
    rows = b"\0" + packed(np.array([row]), bits) if bits < 16 else None
    if rows is None:
        (tmp_path / "k.png").write_bytes(deep_png(np.array(row)[None, :, None], key))
    else:
        (tmp_path / "k.png").write_bytes(png((5, 1, bits, 0), rows, key))
    got = read(tmp_path / "k.png")
    got = got / 255 if got.dtype == torch.uint8 else got
    assert np.allclose(got[0], np.array([row]) / most, atol=1e-6)
    assert got[1].tolist() == [[float(value != 1) for value in row]]


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_key_of_colours_takes_all_three(tmp_path: Path, bits: int) -> None:
    colours = np.array([[[1, 2, 3], [1, 2, 4], [0, 2, 3], [3, 2, 1]]])
    key = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    rows = b"\0" + colours.astype(np.uint8).tobytes()
    whole = png((4, 1, 8, 2), rows, key) if bits == 8 else deep_png(colours, key)
    (tmp_path / "k.png").write_bytes(whole)
    got = read(tmp_path / "k.png")
    assert np.allclose(got[:3].permute(1, 2, 0) * (65535 if bits == 16 else 1), colours)
    assert (got[3] / got[3].max()).tolist() == [[0, 1, 1, 1]]
    background = read(tmp_path / "k.png", in_chans=3, alpha_background=0)
    assert background[:, 0, 0].tolist() == [0, 0, 0]


def test_cmyk_is_converted_as_pillow_does(tmp_path: Path) -> None:
    for suffix in ("jpg", "tif"):
        Image.fromarray(RGBA, mode="CMYK").save(tmp_path / f"a.{suffix}")
        want = np.asarray(Image.open(tmp_path / f"a.{suffix}").convert("RGB"))
        assert np.array_equal(read(tmp_path / f"a.{suffix}").permute(1, 2, 0), want)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / f"a.{suffix}")
    got = read(tmp_path / f"a.{suffix}")
    assert got.dtype == torch.float32
    assert np.array_equal(got[0], DEEP.astype(np.float32) / np.float32(65535))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour_png(tmp_path: Path, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (12, 20, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(deep_png(pixels))
    assert np.allclose(read(tmp_path / "a.png").permute(1, 2, 0), pixels / 65535, atol=1e-7)
    cut = (tmp_path / "a.png").read_bytes()
    lie = png((2000, 2000, 16, 2), b"\0" + bytes(120))  # the header promises more than there is
    (tmp_path / "b.png").write_bytes(lie)
    (tmp_path / "c.png").write_bytes(cut[: len(cut) // 2])
    assert reason(tmp_path / "b.png") == reason(tmp_path / "c.png") == Reason.BROKEN


def stand_in(content: bytes) -> np.ndarray:
    """What imagecodecs gives, and refuses, where it is not installed."""
    if not content.endswith(png_chunk(b"IEND", b"")):
        raise RuntimeError("not a whole file")
    return of_torchvision(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("package", ["imagecodecs", "a stand-in"])
def test_sixteen_bit_colour_png_is_decoded_once_by_imagecodecs(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "imagecodecs":
        pytest.importorskip("imagecodecs", reason="imagecodecs is not installed (extra: tiff)")
    else:
        monkeypatch.setitem(sys.modules, "imagecodecs", SimpleNamespace(png_decode=stand_in))
    pixels = RNG.integers(0, 65536, (12, 20, 3), dtype=np.uint16)
    content = deep_png(pixels)
    (tmp_path / "whole.png").write_bytes(content)
    (tmp_path / "lie.png").write_bytes(png((2000, 2000, 16, 2), b"\0" + bytes(120))[:-1])
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    turned = content[:-12] + png_chunk(
        b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)
    )
    (tmp_path / "turned.png").write_bytes(turned + content[-12:])
    loads, load = [], PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda im: loads.append(im) or load(im))
    assert np.array_equal(read(tmp_path / "whole.png").permute(1, 2, 0), pixels / np.float32(65535))
    assert not loads
    assert read(tmp_path / "turned.png").shape == (3, 20, 12)
    assert reason(tmp_path / "lie.png") == reason(tmp_path / "cut.png") == Reason.BROKEN
    for limit, value in (("_PIXELS_PER_SECOND", 1), ("_BYTES_BESIDE", -(10**6))):
        with (
            monkeypatch.context() as patched
        ):  # what could take long is decoded by Pillow, which can be stopped
            patched.setattr(deep_png_module, limit, value)
            loads.clear()
            assert np.array_equal(read(tmp_path / "whole.png").permute(1, 2, 0), pixels / np.float32(65535))
            assert loads, limit
    slow = Decoding(max_decode_seconds=1e-6)
    with pytest.raises(Unreadable, match="takes longer"):
        decode_file(str(tmp_path / "whole.png"), slow)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 5])
def test_sixteen_bit_tiff_of_many_channels(tmp_path: Path, planar: str, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (12, 20, channels), dtype=np.uint16)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    photometric = "rgb" if channels == 3 else "minisblack"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric=photometric, planarconfig=planar, compression="zlib")
    assert np.allclose(read(path).permute(1, 2, 0), pixels / 65535, atol=1e-7)


def test_white_is_zero_and_extra_samples_in_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "w.tif", DEEP, photometric="miniswhite")
    assert np.allclose(read(tmp_path / "w.tif")[0], 1 - DEEP / 65535, atol=1e-7)
    tifffile.imwrite(tmp_path / "n.tif", RGBA, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read(tmp_path / "n.tif").permute(1, 2, 0), RGBA)  # red, green, blue, infrared
    with pytest.raises(Unreadable, match="4 channels where 3"):
        read(tmp_path / "n.tif", in_chans=3)
    alpha = np.dstack([DEEP_RGB, np.full_like(DEEP, 65535)])
    tifffile.imwrite(tmp_path / "a.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    assert np.allclose(read(tmp_path / "a.tif", in_chans=3).permute(1, 2, 0), DEEP_RGB / 65535, atol=1e-7)


def test_float_files_are_taken_in_range_and_refused_with_a_reason(tmp_path: Path) -> None:
    unit = RNG.random((12, 20), dtype=np.float32)
    for dtype in (np.float32, np.float64):
        tifffile.imwrite(tmp_path / "f.tif", unit.astype(dtype))
        assert np.array_equal(read(tmp_path / "f.tif")[0], unit)
    tifffile.imwrite(tmp_path / "r.tif", unit * 300)
    assert reason(tmp_path / "r.tif") == Reason.PIXEL_TYPE
    for bad in (np.nan, np.inf, -np.inf):
        unit[3, 4] = bad
        tifffile.imwrite(tmp_path / "n.tif", unit)
        np.save(tmp_path / "n.npy", unit)
        assert reason(tmp_path / "n.tif") == reason(tmp_path / "n.npy") == Reason.NOT_FINITE


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "int8"])
def test_integers_without_a_range_are_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype))
    np.save(tmp_path / "a.npy", GREY.astype(dtype))
    assert reason(tmp_path / "a.tif") == reason(tmp_path / "a.npy") == Reason.PIXEL_TYPE


def test_npy_axes_and_types(tmp_path: Path) -> None:
    many = RNG.integers(0, 256, (7, 12, 20), dtype=np.uint8)
    for name, array in {"first": many, "last": np.moveaxis(many, 0, -1)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(read(tmp_path / f"{name}.npy"), many)
    np.save(tmp_path / "deep.npy", np.asfortranarray(DEEP))
    assert np.allclose(read(tmp_path / "deep.npy")[0], DEEP / 65535, atol=1e-7)
    np.save(tmp_path / "o.npy", np.array([[object()]]), allow_pickle=True)
    assert reason(tmp_path / "o.npy") == Reason.PIXEL_TYPE
    np.save(tmp_path / "4d.npy", np.zeros((2, 2, 2, 2), np.uint8))
    assert reason(tmp_path / "4d.npy") == Reason.CHANNELS


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for suffix in ("png", "webp", "tif"):
        lossless = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **lossless)
        found = decode_file(str(tmp_path / f"a.{suffix}"), Decoding())
        assert found.animated
        assert np.array_equal(found.image.permute(1, 2, 0), RGB)


# --- channels -------------------------------------------------------------------------------------------


def test_alpha_is_kept_or_composited_on_the_stated_grey(tmp_path: Path) -> None:
    Image.fromarray(RGBA).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", in_chans=4).permute(1, 2, 0), RGBA)
    share = RGBA[..., 3:] / 255
    for grey in (0, 128, 255):
        want = np.round(RGBA[..., :3] * share + grey * (1 - share))
        got = read(tmp_path / "a.png", in_chans=3, alpha_background=grey).permute(1, 2, 0).numpy()
        assert np.abs(got - want).max() <= 1  # halves may round either way
        assert np.array_equal(got[RGBA[..., 3] == 255], RGBA[..., :3][RGBA[..., 3] == 255])


def test_composite_is_exact_where_alpha_is_full_or_none() -> None:
    colour = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    opaque, clear = torch.full_like(colour, 255), torch.zeros_like(colour)
    assert torch.equal(composite(torch.cat([colour, opaque]), 9), colour)
    assert torch.equal(composite(torch.cat([colour, clear]), 9), torch.full_like(colour, 9))
    soft = composite(torch.cat([colour, opaque]).float() / 255, 9)
    assert torch.allclose(soft, colour / 255)


def test_grey_and_rgb_convert_as_pillow_and_nothing_else_does(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    want = np.asarray(Image.fromarray(RGB).convert("L"))
    assert np.array_equal(read(tmp_path / "rgb.png", in_chans=1)[0], want)
    assert np.array_equal(read(tmp_path / "grey.png", in_chans=3).permute(1, 2, 0), np.dstack([GREY] * 3))
    soft = luminance(torch.from_numpy(RGB).permute(2, 0, 1).float() / 255)
    assert np.allclose(soft[0] * 255, want, atol=0.51)
    for name, chans in (("rgb", 4), ("rgb", 2), ("grey", 2)):
        assert reason(tmp_path / f"{name}.png", in_chans=chans) == Reason.CHANNELS


# --- orientation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "deep.tif"])
def test_exif_orientation_is_an_option(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "deep.tif":
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, DEEP_RGB, photometric="rgb", extratags=tag)
        stored = torch.from_numpy(DEEP_RGB / 65535).permute(2, 0, 1)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(RGB).save(path, exif=exif)
        Image.fromarray(RGB).save(tmp_path / f"plain.{suffix}")
        stored = read(tmp_path / f"plain.{suffix}")
    assert torch.allclose(read(path, exif_orientation=False), stored.to(read(path).dtype))
    assert torch.allclose(read(path, exif_orientation=True), turn(stored, orientation).to(read(path).dtype))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_is_pillows_exif_transpose(orientation: int) -> None:
    image = Image.fromarray(RGB)
    image.getexif()[274] = orientation
    want = np.asarray(ImageOps.exif_transpose(image))
    got = turn(torch.from_numpy(RGB).permute(2, 0, 1), orientation)
    assert np.array_equal(got.permute(1, 2, 0), want)


def test_damaged_exif_costs_nothing(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read(tmp_path / "a.jpg").shape == (3, 12, 20)


# --- hostile files --------------------------------------------------------------------------------------


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "d.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "empty.jpg").touch()
    want = {"d": "NOT_A_FILE", "fifo": "NOT_A_FILE", "zero": "NOT_A_FILE", "dangling": "MISSING"}
    want |= {"loop": "MISSING", "absent": "MISSING", "empty": "EMPTY", "n" * 300: "MISSING"}
    for name, expected in want.items():
        assert reason(tmp_path / f"{name}.jpg") == Reason[expected], name
    assert reason("a\0b.jpg") == Reason.MISSING


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so for root the system's refusal is imitated."""
    file = tmp_path / "a.png"
    Image.fromarray(RGB).save(file)
    file.chmod(0)
    if os.geteuid() == 0:
        open_file = os.open

        def refusing(path: object, *args: object) -> int:
            if str(path) == str(file):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return open_file(path, *args)  # type: ignore[arg-type]

        monkeypatch.setattr("os.open", refusing)
    assert reason(file) == Reason.FORBIDDEN


def test_files_that_are_no_images(tmp_path: Path) -> None:
    contents = {
        "byte": b"\xff",
        "text": b"hello" * 100,
        "html": b"<html><script>alert(1)</script></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip": b"PK\3\4" + bytes(100),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
        assert reason(tmp_path / f"{name}.jpg") == Reason.UNKNOWN_FORMAT, name


def encodings() -> dict[str, Callable[[io.BytesIO], None]]:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    return {
        "jpg": lambda f: image.save(f, "JPEG"),
        "progressive": lambda f: image.save(f, "JPEG", progressive=True),
        "png": lambda f: image.save(f, "PNG"),
        "gif": lambda f: image.save(f, "GIF"),
        "bmp": lambda f: image.save(f, "BMP"),
        "webp": lambda f: image.save(f, "WEBP"),
        "tif": lambda f: image.save(f, "TIFF", compression="tiff_lzw"),
        "ppm": lambda f: image.save(f, "PPM"),
        "deep png": lambda f: f.write(deep_png(noise.astype(np.uint16) * 257)) and None,
        "deep tif": lambda f: tifffile.imwrite(f, noise.astype(np.uint16), photometric="rgb"),
        "npy": lambda f: np.save(f, noise),
    }


@pytest.mark.parametrize("kind", list(encodings()))
def test_truncated_files_are_bad_files(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    encodings()[kind](buffer)
    whole = buffer.getvalue()
    for share in (0.01, 0.25, 0.5, 0.9):
        (tmp_path / "a").write_bytes(whole[: max(1, int(len(whole) * share))])
        assert reason(tmp_path / "a") in (Reason.BROKEN, Reason.UNKNOWN_FORMAT), share


@pytest.mark.parametrize("kind", list(encodings()))
def test_flipped_bits_give_an_image_or_a_reason(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    encodings()[kind](buffer)
    whole = buffer.getvalue()
    rng = np.random.default_rng(1)
    for k in range(40):
        damaged = bytearray(whole)
        place = rng.integers(0, 60 if k % 2 else len(damaged))  # half of them in the header
        damaged[place] ^= 1 << rng.integers(0, 8)
        (tmp_path / "a").write_bytes(damaged)
        with contextlib.suppress(Unreadable):
            image = decode_file(str(tmp_path / "a"), Decoding(max_pixels=10_000_000)).image
            assert image.ndim == 3
            assert image.dtype in (torch.uint8, torch.float32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), Reason.BROKEN),
        ((2000, 2000), Reason.BROKEN),
        ((12000, 10000), Reason.TOO_LARGE),
        ((20000, 20000), Reason.TOO_LARGE),
        ((2**31 - 1, 2**31 - 1), Reason.TOO_LARGE),
        ((0, 0), None),
    ],
)
def test_headers_that_lie(tmp_path: Path, size: tuple[int, int], expected: Reason | None) -> None:
    (tmp_path / "a.png").write_bytes(png((*size, 8, 2), b"\0" + bytes(30)))
    found = reason(tmp_path / "a.png", max_pixels=100_000_000)
    assert found == expected if expected else found in (Reason.BROKEN, Reason.UNKNOWN_FORMAT)


def test_bombs_are_judged_by_their_header(tmp_path: Path) -> None:
    Image.new("1", (4000, 4000)).save(tmp_path / "a.png")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, 600, 600), np.uint16), photometric="rgb", planarconfig=2
    )
    np.save(tmp_path / "a.npy", np.zeros((600, 600), np.uint8))
    for name in ("a.png", "a.tif", "a.npy"):
        assert reason(tmp_path / name, max_pixels=300_000) == Reason.TOO_LARGE
    header = b"\x93NUMPY\x01\0\x76\0" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9000, 9000), }"
    (tmp_path / "lie.npy").write_bytes(header.ljust(127) + b"\n")
    assert reason(tmp_path / "lie.npy") == Reason.BROKEN


def test_a_huge_text_chunk_is_a_bad_file(tmp_path: Path) -> None:
    data = b"k\0\0" + zlib.compress(bytes(200_000_000), 9)
    (tmp_path / "a.png").write_bytes(png((2, 1, 8, 0), b"\0\1\2", png_chunk(b"zTXt", data)))
    assert reason(tmp_path / "a.png") == Reason.BROKEN


@pytest.mark.parametrize(
    "name", ["-rf.png", "é😀.png", "e\u0301.png", "<script>.png", "a\nb.png", "\u202egnp.png"]
)
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name).permute(1, 2, 0), RGB)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(path, "wb") as file:
        Image.fromarray(RGB).save(file, "PNG")
    assert np.array_equal(read(Path(os.fsdecode(path))).permute(1, 2, 0), RGB)
