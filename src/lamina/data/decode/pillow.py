"""Images that Pillow opens: the memory they take, and their pixels without a silent change of value."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from lamina.data.decode.arrays import Pixels
from lamina.data.decode.deep_png import read_deep_png
from lamina.data.decode.jpeg import read_jpeg
from lamina.data.decode.limits import TimedFile, check_fitting, check_memory, check_pixels
from lamina.data.decode.notes import native_messages
from lamina.data.decode.orientation import orientation_of
from lamina.data.decode.reduction import reduction
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.options import Decoding

_TO_RGB = ("CMYK", "YCbCr", "HSV")
_CONVERSIONS = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"} | dict.fromkeys(_TO_RGB, "RGB")
_KEPT = ("L", "LA", "RGB", "RGBA", "F")
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes of a pixel in Pillow's own memory; 4 in every other mode."""
_WHOLE_FILE = {"WEBP": 16, "AVIF": 16}
"""Formats that are decoded in one piece, and the bytes of a pixel that this takes (measured at 9 million
pixels: 16.2 and at most 12.2)."""
_BAND_PX = 1 << 16
_PIECE_BYTES = 8192
"""How much of a JPEG is decoded between two looks at the time; 64 KiB can hold thousands of scans."""


def read_pillow(im: ImageFile, file: TimedFile, how: Decoding, nodata: float | None = None) -> Pixels:
    """Decode an image of at most 8 bits per sample, or grey of up to 16.

    Args:
        im: as Pillow opened it from `file`, not loaded.
        nodata: the value of pixels without data, where the file names one.

    Raises:
        Unreadable: where it is too large, or Pillow would change its values.
    """
    check_pixels(im.height, im.width, how)
    _fit_key(im)
    if _narrowed(im):
        return _read_deep_png(im, file, how)
    mode = _delivered(im)
    deep = mode in ("F", "I") or mode.startswith("I;16")
    key = im.info.get("transparency") if deep and im.format == "PNG" else None
    channels = len(Image.new(mode, (1, 1)).getbands()) + (key is not None)
    check_memory(_decoder_bytes(im) + im.height * im.width * channels * (6 if deep else 1), how)
    check_fitting(im.height, im.width, channels, 4 if deep else 1, how)
    if im.format in ("JPEG", "MPO"):
        return _read_jpeg(im, file, how, mode)
    bits = _tag(im, 258)[0] if _tag(im, 258) else 16  # TIFF says how many of 16 bits it uses
    white_is_zero = im.mode == "I;16" and _tag(im, 262) == (0,)
    _load(im)
    array = _array(im, mode)
    if mode in ("L", "LA", "RGB", "RGBA", "F"):
        return to_pixels(array, how, alpha=mode in ("LA", "RGBA"), own_nodata=nodata)
    array = array.astype(np.uint16, copy=False)
    if white_is_zero:
        array = np.uint16(2**bits - 1) - array
    return to_pixels(_with_key(array, key), how, bits=bits, alpha=key is not None, own_nodata=nodata)


def _read_jpeg(im: ImageFile, file: TimedFile, how: Decoding, mode: str) -> Pixels:
    reduced = None
    if how.reduce is not None:
        reduced = reduction(im.height, im.width, orientation_of(im), how)
    factor = 1 if reduced is None else reduced.factor
    array = read_jpeg(im, file, how, _several_scans(im), factor)
    if array is None:
        im.decodermaxblock = _PIECE_BYTES
        if factor > 1:
            im.draft(im.mode, (im.width // factor, im.height // factor))
        im.load()
        array = _array(im, mode)
    return to_pixels(array, how, reduced=reduced)


def _load(im: ImageFile) -> None:
    with native_messages() if im.format == "TIFF" else nullcontext():
        im.load()


def _delivered(im: ImageFile) -> str:
    """The mode in which the pixels are handed over."""
    if im.mode in ("P", "1", "L", "RGB") and "transparency" in im.info:
        return "LA" if im.mode in ("1", "L") else "RGBA"
    mode = "RGB" if im.mode == "P" else _CONVERSIONS.get(im.mode, im.mode)
    sixteen = mode.startswith("I;16") or (mode == "I" and im.format in ("PNG", "PPM"))  # "I": older Pillow
    if mode not in _KEPT and not sixteen:
        raise Unreadable(Reason.PIXEL_TYPE, f"Pillow mode {im.mode}")
    return mode


def _decoder_bytes(im: ImageFile) -> int:
    """Memory of the decoder and of Pillow's image."""
    pixels = im.height * im.width
    whole = _WHOLE_FILE.get(im.format or "")
    if whole is not None:
        return pixels * whole + _file_bytes(im)
    stored = pixels * _STORED_BYTES.get(im.mode, 4)
    if im.format in ("JPEG", "MPO") and _several_scans(im):
        return stored + pixels * 2 * len(im.getbands())  # all coefficients wait for the last scan
    return 2 * stored if im.format == "TIFF" else stored  # which Pillow turns, or decodes strip by strip


def _file_bytes(im: ImageFile) -> int:
    assert im.fp is not None
    here = im.fp.tell()
    size = im.fp.seek(0, 2)
    im.fp.seek(here)
    return size


def _several_scans(im: ImageFile) -> bool:
    """Whether a JPEG is progressive, or its first scan lacks a component, so that others must follow."""
    if im.info.get("progressive"):
        return True
    assert im.fp is not None
    here = im.fp.tell()  # Pillow stops at the scan's header: its length in two bytes, then the components
    head = im.fp.read(3)
    im.fp.seek(here)
    return len(head) < 3 or head[2] < len(im.getbands())


def _array(im: Image.Image, mode: str) -> NDArray[Any]:
    """The pixels in `mode`, some rows at a time, since Pillow copies what it converts and hands over."""
    rows = max(1, _BAND_PX // im.width)
    found: NDArray[Any] | None = None
    for top in range(0, im.height, rows):
        part = im.crop((0, top, im.width, min(top + rows, im.height))) if rows < im.height else im
        pixels = np.asarray(part if part.mode == mode else part.convert(mode))
        if rows >= im.height:
            return np.array(pixels)
        if found is None:
            found = np.empty((im.height, *pixels.shape[1:]), pixels.dtype)
        found[top : top + len(pixels)] = pixels
    assert found is not None
    return found


def _fit_key(im: ImageFile) -> None:
    """Bring a PNG's transparent colour to the 8 bits that Pillow compares: it scales pixels of 2 and 4 bits,
    but not the colour. Bits beyond the depth do not count (PNG, 11.3.2.1)."""
    key = im.info.get("transparency")
    if im.format != "PNG" or im.mode not in ("L", "RGB") or key is None or isinstance(key, bytes):
        return
    if ";16" in _raw_mode(im):
        return
    factor = grey_factor(im)
    most = 255 // factor
    values = [(int(k) & most) * factor for k in (key if isinstance(key, tuple) else (key,))]
    im.info["transparency"] = tuple(values) if isinstance(key, tuple) else values[0]


def grey_factor(im: ImageFile) -> int:
    """What Pillow multiplies grey of 2 and 4 bits by, so that it fills 8; 1 for every other image."""
    return {"L;2": 85, "L;4": 17}.get(_raw_mode(im), 1)


def _with_key(array: NDArray[np.uint16], key: object) -> NDArray[np.uint16]:
    """An alpha channel behind the others: 0 where all of them are the transparent colour."""
    if key is None:
        return array
    colours = array[..., None] if array.ndim == 2 else array
    clear = (colours == np.asarray(key, np.uint16)).all(-1, keepdims=True)
    return np.concatenate([colours, np.where(clear, 0, 65535).astype(np.uint16)], -1)


def _tag(im: Image.Image, number: int) -> tuple[int, ...]:
    """A TIFF tag's numbers; empty for other files."""
    found = getattr(im, "tag_v2", {}).get(number, ())
    return found if isinstance(found, tuple) else (found,)


def _raw_mode(im: ImageFile) -> str:
    args = im.tile[0][3] if im.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _narrowed(im: ImageFile) -> bool:
    """Whether Pillow would cut 16-bit samples to 8 (it does so for all but grey)."""
    if im.format not in ("PNG", "PPM") or im.mode.startswith(("I", "F")) or not im.tile:
        return False
    args = im.tile[0][3]
    rest = args[1:] if isinstance(args, tuple) else ()
    return ";16" in _raw_mode(im) or (im.format == "PPM" and bool(rest) and int(rest[0]) > 255)


def _read_deep_png(im: ImageFile, file: TimedFile, how: Decoding) -> Pixels:
    """A 16-bit colour PNG, with all bits."""
    if im.format != "PNG":
        raise Unreadable(Reason.PIXEL_TYPE, "16-bit colour PPM; store it as PNG or TIFF")
    key = im.info.get("transparency")
    channels = len(im.getbands()) + (key is not None)
    pixels = im.height * im.width
    check_memory(pixels * (4 + channels * (2 + 2 * (key is not None) + 4)) + 2 * _file_bytes(im), how)
    check_fitting(im.height, im.width, channels, 4, how)
    deep = read_deep_png(im, file, how)
    has_alpha = deep.shape[-1] in (2, 4) or key is not None
    return to_pixels(_with_key(deep, key), how, alpha=has_alpha)
