"""More than 112 files that are damaged, lie, are too large or take too long, each with what must come of it.

A test goes through the small ones; `benchmarks/reliability/hostile_files.py` prints time and memory of each,
of the large ones too. All are made here, from formulas and seeds.
"""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from helpers.image_files import as_npy, as_tiff, deep_png, encoded, packed, png, png_chunk, sampled_tiff, tiff
from lamina.data.decode.decode import decode_file
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

Content = bytes | Callable[[Path], object]
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
TENTH = {"max_decode_seconds": 0.1}
NOISE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
FLAT = np.full((12, 20, 3), 128, np.uint8)


@dataclass(frozen=True)
class Hostile:
    """A file and its one right outcome: an image (H, W, C), uint8 or float, within `tolerance`; or one of the
    reasons. With neither: damaged at random, so any image of the right type or any reason, but no crash."""

    name: str
    content: Content
    pixels: np.ndarray | None = None
    reasons: tuple[Reason, ...] = ()
    tolerance: float = 0
    how: dict = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The file in `folder`; its name is part of some of them."""
        path = folder / self.name
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path

    def read(self, path: Path) -> Tensor | Unreadable:
        """The image, or why there is none; anything else that is raised is a fault."""
        try:
            return decode_file(str(path), Decoding(**self.how)).image
        except Unreadable as error:
            return error

    def judge(self, found: Tensor | Unreadable) -> tuple[bool, str]:
        """Whether that is what it should be, and what it is, in words."""
        if isinstance(found, Unreadable):
            return found.reason in self.reasons or self._any, str(found)
        said = f"{str(found.dtype).removeprefix('torch.')} {' x '.join(map(str, found.shape))}"
        if self._any:
            return found.ndim == 3 and found.dtype in (torch.uint8, torch.float32), said
        if self.pixels is None:
            return False, said
        want = self.pixels if self.pixels.ndim == 3 else self.pixels[..., None]
        if tuple(found.shape) != (want.shape[2], *want.shape[:2]):
            return False, said
        if not any(want.strides[:2]):  # one value, however many pixels
            return float(found.min()) == float(found.max()) == float(want[0, 0, 0]), said
        got = found.permute(1, 2, 0).numpy().astype(np.float64)
        return bool(np.abs(got - want).max() <= self.tolerance), said

    @property
    def _any(self) -> bool:
        return self.pixels is None and not self.reasons


def corpus() -> list[Hostile]:
    """All small ones; together they take seconds."""
    groups = (no_files, no_images, cut, flipped, lies, bombs, odd_png, odd_jpeg, odd_tiff, numbers, names)
    return [hostile for group in groups for hostile in group()]


# --- what is no file, or no image -------------------------------------------------------------------------


def no_files() -> Iterator[Hostile]:
    def a_socket(path: Path) -> None:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is at most 108 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)

    def two_links(path: Path) -> None:
        path.symlink_to(path.with_suffix(".b"))
        path.with_suffix(".b").symlink_to(path)

    made: dict[str, tuple[Content, Reason]] = {
        "empty.jpg": (b"", Reason.EMPTY),
        "folder.jpg": (Path.mkdir, Reason.NOT_A_FILE),
        "pipe.jpg": (os.mkfifo, Reason.NOT_A_FILE),
        "socket.jpg": (a_socket, Reason.NOT_A_FILE),
        "zero-device.jpg": (lambda path: path.symlink_to("/dev/zero"), Reason.NOT_A_FILE),
        "null-device.jpg": (lambda path: path.symlink_to("/dev/null"), Reason.NOT_A_FILE),
        "dangling-link.jpg": (lambda path: path.symlink_to(path.with_suffix(".gone")), Reason.MISSING),
        "link-to-itself.jpg": (lambda path: path.symlink_to(path), Reason.MISSING),
        "two-links-in-a-circle.jpg": (two_links, Reason.MISSING),
        "deleted-since-it-was-listed.jpg": (lambda path: None, Reason.MISSING),
        "link-to-a-folder.jpg": (lambda path: path.symlink_to(path.parent), Reason.NOT_A_FILE),
    }
    for name, (content, reason) in made.items():
        yield Hostile(name, content, reasons=(reason,))
    sparse = lambda path: path.open("wb").truncate(1 << 40)  # noqa: E731
    yield Hostile("a-terabyte-of-nothing.jpg", sparse, reasons=(Reason.UNKNOWN_FORMAT,))


def no_images() -> Iterator[Hostile]:
    contents = {
        "one-byte.jpg": b"\xff",
        "text.jpg": b"hello" * 100,
        "page.jpg": b"<html><script>alert(1)</script></html>",
        "drawing.svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "archive.png": b"PK\3\4" + bytes(100),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "document.png": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "program.png": b"\x7fELF\2\1\1" + bytes(200),
        "compressed.png": b"\x1f\x8b\x08\0" + bytes(60),
        "pickle.npy.png": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.",
        "photoshop.png": b"8BPS\0\1" + bytes(60),
        "icon.png": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + bytes(60),
        "spaces.jpg": b" " * 5000,
        "video.jpg": struct.pack(">I", 24) + b"ftypisom\0\0\2\0isomiso2" + bytes(500),
    }
    for name, content in contents.items():
        yield Hostile(name, content, reasons=(Reason.UNKNOWN_FORMAT, Reason.BROKEN))
    jpeg = encoded(RGB, "JPEG", quality=95)
    want = np.asarray(Image.open(io.BytesIO(jpeg)))
    yield Hostile("jpeg-and-archive.jpg", jpeg + b"PK\3\4" + bytes(500), want)
    yield Hostile("gif-and-page.gif", encoded(FLAT[..., 0], "GIF") + b"<script>alert(1)</script>", FLAT)
    yield Hostile("png-named.jpg", encoded(RGB, "PNG"), RGB)


# --- damage -----------------------------------------------------------------------------------------------


def whole_files() -> dict[str, bytes]:
    return {
        "jpg": encoded(NOISE, "JPEG"),
        "progressive.jpg": encoded(NOISE, "JPEG", progressive=True),
        "png": encoded(NOISE, "PNG"),
        "gif": encoded(NOISE, "GIF"),
        "bmp": encoded(NOISE, "BMP"),
        "webp": encoded(NOISE, "WEBP"),
        "avif": encoded(NOISE, "AVIF"),
        "lzw.tif": encoded(NOISE, "TIFF", compression="tiff_lzw"),
        "deep.tif": as_tiff(NOISE.astype(np.uint16), photometric="rgb"),
        "deep.png": deep_png(NOISE.astype(np.uint16) * 257),
        "ppm": encoded(NOISE, "PPM"),
        "npy": as_npy(NOISE),
    }


def cut() -> Iterator[Hostile]:
    for kind, whole in whole_files().items():
        for share in (1, 25, 50, 99):
            content = whole[: max(1, len(whole) * share // 100)]
            reasons = (Reason.BROKEN, Reason.UNKNOWN_FORMAT)
            yield Hostile(f"cut-at-{share}-percent.{kind}", content, reasons=reasons)


def flipped() -> Iterator[Hostile]:
    rng = np.random.default_rng(1)
    for kind, whole in whole_files().items():
        for part, end in (("header", 60), ("body", len(whole))):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[rng.integers(4, end)] ^= 1 << rng.integers(0, 8)
            yield Hostile(f"{part}-bits-flipped.{kind}", bytes(damaged), how={"max_pixels": 10_000_000})


# --- headers that promise, files that expand --------------------------------------------------------------


def lies() -> Iterator[Hostile]:
    large, broken = (Reason.TOO_LARGE,), (Reason.BROKEN,)
    for side, reasons in ((64, broken), (2000, broken), (20_000, large), (2**31 - 1, large)):
        content = png((side, side, 8, 2), b"\0" + bytes(30))
        yield Hostile(f"png-that-says-{side}.png", content, reasons=reasons)
    nothing = (Reason.BROKEN, Reason.UNKNOWN_FORMAT)
    yield Hostile("png-of-no-width.png", png((0, 5, 8, 2), b"\0"), reasons=nothing)
    jpeg = bytearray(encoded(NOISE, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    yield Hostile("jpeg-that-says-65500.jpg", bytes(jpeg), reasons=large)
    gif = bytearray(encoded(NOISE, "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield Hostile("gif-that-says-65535.gif", bytes(gif), reasons=large)
    bmp = bytearray(encoded(NOISE, "BMP"))
    bmp[18:26] = struct.pack("<ii", 1 << 30, -(1 << 30))
    yield Hostile("bmp-that-says-a-billion.bmp", bytes(bmp), reasons=large)
    yield Hostile("ppm-that-says-a-billion.ppm", b"P6 1000000000 1000000000 255\n" + bytes(99), reasons=large)
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"
    for shape, reasons in (("9000, 9000", broken), ("99999, 99999", large), ("9999, 9999, 3000", large)):
        text = (header % shape).encode().ljust(117) + b"\n"
        start = b"\x93NUMPY\x01\0" + struct.pack("<H", len(text))
        yield Hostile(f"npy-that-says-{shape.replace(', ', 'x')}.npy", start + text, reasons=reasons)
    for samples in (2000, 60_000):
        short = {258: (3, (8,)), 277: (3, (samples,)), 338: (3, (0,))}
        content = tiff((2000, 2000), 8, [bytes(99)], more=short)
        yield Hostile(f"tiff-of-{samples}-channels.tif", content, reasons=(*large, *nothing))
    strips = {273: (4, (8,) * 400), 279: (4, (48,) * 400), 278: (4, (1,)), 257: (4, (400,))}
    yield Hostile(
        "tiff-whose-strips-overlap.tif", tiff((48, 400), 8, [bytes(48)], more=strips), reasons=broken
    )
    counts = {279: (4, (2**32 - 1,))}
    content = tiff((48, 4), 8, [bytes(100)], more=counts)
    yield Hostile("tiff-of-a-strip-of-4-GB.tif", content, reasons=broken)
    no_end = bytearray(tiff((8, 6), 8, [bytes(range(48))]))
    no_end[-4:] = no_end[4:8]
    pixels = np.arange(48).reshape(6, 8)
    yield Hostile("tiff-whose-pages-are-a-circle.tif", bytes(no_end), pixels)


def bombs() -> Iterator[Hostile]:
    """Small files of many pixels, channels, bytes or scans, against limits that are small as well."""
    memory = {"max_decode_mb": 16}
    large, slow = (Reason.TOO_LARGE,), (Reason.TOO_SLOW,)

    def blank(header: tuple[int, int, int, int], row_bytes: int, extra: bytes = b"") -> bytes:
        return png(header, bytes((row_bytes + 1) * header[1]), extra)

    palette = png_chunk(b"PLTE", bytes(range(48))) + png_chunk(b"tRNS", bytes(16))
    made = {
        "rgba.png": blank((1500, 1500, 8, 6), 6000),
        "palette-with-transparency.png": blank((1500, 1500, 4, 3), 750, palette),
        "16-bit-rgb.png": blank((1200, 1200, 16, 2), 7200),
        "16-bit-grey-with-a-key.png": blank((1500, 1500, 16, 0), 3000, png_chunk(b"tRNS", b"\0\1")),
        "one-bit.png": blank((5000, 5000, 1, 0), 625),
        "progressive.jpg": encoded(np.zeros((1400, 1400, 3), np.uint8), "JPEG", progressive=True),
        "lossless.webp": encoded(np.zeros((1100, 1100, 4), np.uint8), "WEBP", lossless=True, method=0),
        "flat.avif": encoded(np.zeros((1100, 1100, 3), np.uint8), "AVIF", speed=10),
        "60-channels.tif": as_tiff(
            np.zeros((60, 500, 500), np.uint8), metadata={"axes": "CYX"}, photometric="minisblack"
        ),
        "double.npy": as_npy(np.zeros((1200, 1200))),
    }
    for name, content in made.items():
        yield Hostile(f"bomb-{name}", content, reasons=large, how=memory)
    yield Hostile("padding-of-FF.jpg", b"\xff\xd8" + b"\xff" * 3_000_000, reasons=slow, how=TENTH)
    yield Hostile("scans.jpg", many_scans(2048, 3000), reasons=slow, how=TENTH)
    words = [png_chunk(b"tEXt", b"k\0v")] * 100_000
    yield Hostile("100000-chunks.png", png((2, 1, 8, 0), b"\0\1\2", b"".join(words)), reasons=slow, how=TENTH)
    rows = b"P3 1000 1000 255\n" + b"1 " * 3_000_000
    yield Hostile("numbers-as-text.ppm", rows, reasons=slow, how=TENTH)


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that refines nothing, again and again: each scan goes over all blocks."""
    whole = encoded(np.full((side, side), 128, np.uint8), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + whole[-2:]


def large() -> Iterator[Hostile]:
    """Those that take gigabytes or a minute where nothing limits them; for the default limits."""
    side, too_large, too_slow = 13_376, (Reason.TOO_LARGE,), (Reason.TOO_SLOW,)

    def one_colour(value: int, channels: int) -> np.ndarray:
        return np.broadcast_to(np.uint8(value), (side, side, channels))

    def blank(depth: int, colour: int, row_bytes: int, extra: bytes = b"") -> Content:
        def write(path: Path) -> None:
            packer, row = zlib.compressobj(1), bytes(row_bytes + 1)
            body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
            header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
            end = png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + extra + end)

        return write

    palette = png_chunk(b"PLTE", bytes(768)) + png_chunk(b"tRNS", bytes(256))
    rgb = {"in_chans": 3}
    yield Hostile("rgba-13376.png", blank(8, 6, 4 * side), one_colour(255, 3), how=rgb)
    yield Hostile("palette-13376.png", blank(8, 3, side, palette), one_colour(255, 3), how=rgb)
    yield Hostile("one-bit-13376.png", blank(1, 0, side // 8), one_colour(0, 1))
    yield Hostile("16-bit-grey-13376.png", blank(16, 0, 2 * side), one_colour(0, 1))
    yield Hostile("16-bit-rgb-13376.png", blank(16, 2, 6 * side), reasons=too_large)

    def webp(path: Path) -> None:
        Image.new("RGBA", (side, side)).save(path, "WEBP", lossless=True, method=0, quality=0)

    yield Hostile("webp-13376.webp", webp, reasons=too_large)

    def channels(path: Path) -> None:
        strip, more = 2 * 2000 * 1000 * 1000, {338: (3, (0,) * 1999)}
        more |= {273: (4, (100_000,)), 279: (4, (strip,))}
        path.write_bytes(tiff((1000, 1000), 16, [b""], samples=2000, more=more))
        os.truncate(path, 100_000 + strip)

    yield Hostile("2000-channels.tif", channels, reasons=too_large)
    yield Hostile("50-MB-of-FF.jpg", b"\xff\xd8" + b"\xff" * 50_000_000, reasons=too_slow)
    yield Hostile("30000-scans.jpg", many_scans(2048, 30_000), reasons=too_slow)
    noise = np.tile(NOISE, (94, 94, 1))
    yield Hostile("noise-6016.avif", encoded(noise, "AVIF", speed=10))
    yield Hostile("noise-6016.webp", encoded(noise, "WEBP", lossless=True, method=0), noise)


# --- odd, but images --------------------------------------------------------------------------------------


def odd_png() -> Iterator[Hostile]:
    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        row = np.array([[0, 1, most, 1]])
        key = png_chunk(b"tRNS", b"\0\1")
        content = (
            deep_png(row[..., None], key)
            if bits == 16
            else png((4, 1, bits, 0), b"\0" + packed(row, bits), key)
        )
        top = 1 if bits == 16 else 255
        want = np.stack([row / most * top, (row != 1) * top], -1)
        yield Hostile(f"key-of-{bits}-bits.png", content, want, tolerance=1e-6)
    text = b"k\0\0" + zlib.compress(bytes(100_000_000), 9)
    large_text = png((2, 1, 8, 0), b"\0\1\2", png_chunk(b"zTXt", text))
    yield Hostile("text-of-100-MB.png", large_text, reasons=(Reason.BROKEN, Reason.UNKNOWN_FORMAT))
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000_000), 9))
    yield Hostile("profile-of-100-MB.png", png((2, 1, 8, 0), b"\0\1\2", profile), reasons=(Reason.BROKEN,))
    wrong = bytearray(encoded(RGB, "PNG"))
    wrong[wrong.index(b"IDAT") - 5] ^= 255
    yield Hostile("wrong-checksum.png", bytes(wrong), reasons=(Reason.BROKEN, Reason.UNKNOWN_FORMAT))
    yield Hostile("no-palette.png", png((4, 1, 8, 3), b"\0\0\1\2\3"))
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
        yield Hostile(f"animated.{kind.lower()}", buffer.getvalue(), RGB)
    for height, width in ((1, 1), (1, 10_000), (10_000, 1)):
        strip = RNG.integers(0, 256, (height, width), dtype=np.uint8)
        yield Hostile(f"{width}x{height}.png", encoded(strip, "PNG"), strip)


def odd_jpeg() -> Iterator[Hostile]:
    cmyk = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(cmyk, "JPEG", quality=100)
    want = np.asarray(Image.open(io.BytesIO(cmyk.getvalue())).convert("RGB"))
    yield Hostile("cmyk.jpg", cmyk.getvalue(), want)
    grey = encoded(np.full((9, 7), 77, np.uint8), "JPEG")
    yield Hostile("grey.jpg", grey, np.full((9, 7), 77), tolerance=1)
    turned = np.zeros((10, 30, 3), np.uint8)
    turned[:, :15] = 255  # left half white, stored; what is up then, EXIF says
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(turned)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", exif=exif)
        flips = {1: turned, 2: turned[:, ::-1], 3: turned[::-1, ::-1], 4: turned[::-1]}
        standing = turned.transpose(1, 0, 2)
        flips |= {5: standing, 6: standing[:, ::-1], 7: standing[::-1, ::-1], 8: standing[::-1]}
        yield Hostile(f"orientation-{orientation}.png", buffer.getvalue(), flips[orientation])
    broken_exif = encoded(FLAT, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    yield Hostile("broken-exif.jpg", broken_exif, FLAT, tolerance=1)


def odd_tiff() -> Iterator[Hostile]:
    stack = RNG.integers(0, 65536, (5, 12, 20), dtype=np.uint16)
    want, channels = stack.transpose(1, 2, 0) / 65535, (Reason.CHANNELS,)
    five = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    yield Hostile("channels.imagej.tif", as_tiff(stack, imagej=True), want, tolerance=1e-6)
    ome = as_tiff(stack, ome=True, metadata={"axes": "CYX"})
    yield Hostile("channels.ome.tif", ome, want, tolerance=1e-6)
    yield Hostile("channels-by-tifffile.tif", as_tiff(stack, **five), want, tolerance=1e-6)
    yield Hostile("stack-of-what.tif", as_tiff(stack, photometric="minisblack"), reasons=channels)
    first = as_tiff(stack, photometric="minisblack", metadata=None)
    yield Hostile("plain-pages.tif", first, want[..., :1], tolerance=1e-6)
    for bits in (1, 2, 4, 8, 12, 16):
        grey = RNG.integers(0, 2**bits, (6, 8, 1))
        top = 255 if bits <= 8 else 1
        scaled = grey / (2**bits - 1) * top
        yield Hostile(f"grey-of-{bits}-bits.tif", sampled_tiff(grey, bits), scaled, tolerance=1e-6)
    for planar in (1, 2):
        deep = RNG.integers(0, 65536, (6, 8, 3))
        content = sampled_tiff(deep, 16, 2, planar)
        yield Hostile(f"16-bit-rgb-planar-{planar}.tif", content, deep / 65535, tolerance=1e-6)
    white = RNG.integers(0, 256, (6, 8, 1))
    yield Hostile("white-is-zero.tif", sampled_tiff(white, 8, 0), 255 - white)
    yield Hostile(
        "white-is-zero-and-alpha.tif",
        sampled_tiff(RNG.integers(0, 256, (6, 8, 2)), 8, 0, extra=(2,)),
        reasons=(Reason.PIXEL_TYPE,),
    )
    yield Hostile("volume.tif", volume(), reasons=(Reason.PIXEL_TYPE,))
    cmyk = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(cmyk, "TIFF")
    yield Hostile(
        "cmyk.tif", cmyk.getvalue(), np.asarray(Image.fromarray(RGB).convert("CMYK").convert("RGB"))
    )


def volume() -> bytes:
    return as_tiff(np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))


def numbers() -> Iterator[Hostile]:
    unit = RNG.random((12, 20), dtype=np.float32)
    yield Hostile("floats.tif", as_tiff(unit), unit)
    for name, value, reason in (
        ("nan", np.nan, Reason.NOT_FINITE),
        ("infinity", np.inf, Reason.NOT_FINITE),
        ("255", 255.0, Reason.PIXEL_TYPE),
        ("minus-one", -1.0, Reason.PIXEL_TYPE),
    ):
        spoilt = unit.copy()
        spoilt[3, 4] = value
        yield Hostile(f"{name}-among-floats.tif", as_tiff(spoilt), reasons=(reason,))
        yield Hostile(f"{name}-among-floats.npy", as_npy(spoilt), reasons=(reason,))
    for dtype in ("int8", "int16", "int32", "uint32", "complex64"):
        reasons = (Reason.PIXEL_TYPE, Reason.BROKEN)
        yield Hostile(f"{dtype}.tif", as_tiff(np.ones((6, 8), dtype)), reasons=reasons)
        yield Hostile(f"{dtype}.npy", as_npy(np.ones((6, 8), dtype)), reasons=reasons)


def names() -> Iterator[Hostile]:
    """Names that hurt programs, of a file that is an image."""
    content = encoded(RGB, "PNG")
    for name in (
        "-rf.png",
        "\N{GRINNING FACE}.png",
        "e\N{COMBINING ACUTE ACCENT}.png",
        "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png",
        "a\nb.png",
        "\N{ESCAPE}[31mred\N{ESCAPE}[0m.png",
        "<script>alert(1)<\N{DIVISION SLASH}script>.png",
        "=1+1.png",
        "+1.png",
        "@sum.png",
        "'\"`$(touch x)`.png",
        "%s%n.png",
        "..png",
        "n" * 251 + ".png",
        os.fsdecode(b"\xff\xfe.png"),
    ):
        yield Hostile(name, content, RGB)
