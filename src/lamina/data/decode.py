"""A file as an image: opened safely, judged by its header, decoded without a silent change of value.

- 8-bit images stay uint8: grey (1 channel), grey + alpha (2), RGB (3), RGBA (4). A palette becomes RGB, or
  RGBA where it has transparency; 1-bit becomes 0 and 255; CMYK and YCCK become RGB as Pillow does
  (ICC profiles are not applied). AVIF of 10 or 12 bits is decoded to 8.
- 16-bit grey, 16-bit PNG and TIFF of any number of channels, and .npy become float32 in [0, 1]; floats are
  taken if finite and within [0, 1]; integers of other widths are refused, since their range is not known.
- Of an animation or several pages the first is taken.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from lamina.data.arrays import Pixels, check_size, read_npy, read_tiff, to_image
from lamina.data.channels import fit_channels
from lamina.data.options import Decoding
from lamina.data.unreadable import Reason, Unreadable

# Pillow knows more, among them EPS, which it hands to Ghostscript: not for files from anywhere.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "AVIF")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TO_RGB = ("CMYK", "YCbCr", "HSV")
_CONVERSIONS = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"} | dict.fromkeys(_TO_RGB, "RGB")
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_INVERSE_TURN = {6: 8, 8: 6}


@dataclass(frozen=True)
class Decoded:
    """An image and what its file said: `format`, Pillow's `mode`, EXIF `orientation`, more than one frame."""

    image: Shaped[Tensor, "C H W"]
    format: str
    mode: str
    orientation: int = 1
    animated: bool = False


def decode_file(path: str | bytes, how: Decoding) -> Decoded:
    """Read one image file.

    Raises:
        Unreadable: for whatever is wrong with the file; nothing else is raised for a bad file, and a
            device, a pipe or a folder is refused without being read.
    """
    with guarded(path) as file:
        found, alpha = _decode(file, how)
    image = fit_channels(found.image, how.in_chans, alpha, how.alpha_background)
    return Decoded(image, found.format, found.mode, found.orientation, found.animated)


def image_size(path: str | bytes, how: Decoding) -> tuple[int, int]:
    """Height and width of what `decode_file` gives, for most files from the header alone.

    Raises:
        Unreadable: for whatever is wrong with the file, as far as it is looked at.
    """
    with guarded(path) as file:
        try:
            opened = Image.open(file, formats=_formats())
        except UnidentifiedImageError:
            opened = None
        if opened is None or opened.format == "TIFF":  # of which Pillow's size depends on its version
            file.seek(0)
            _, height, width = _decode(file, how)[0].image.shape
            return height, width
        with opened as im:
            check_size(im.height, im.width, how.max_pixels)
            turned = how.exif_orientation and _orientation(im) >= 5
            return (im.width, im.height) if turned else (im.height, im.width)


@contextmanager
def guarded(path: str | bytes) -> Iterator[BinaryIO]:
    """A regular file, open for reading; whatever a decoder raises meanwhile becomes `Unreadable`."""
    with _open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of metadata and palettes; the values are judged here
        try:
            yield file
        except (Unreadable, KeyboardInterrupt):
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            raise Unreadable(Reason.TOO_LARGE, _first_line(error)) from None
        except UnidentifiedImageError:
            raise Unreadable(Reason.UNKNOWN_FORMAT) from None
        except Exception as error:  # decoders raise nearly anything on a damaged file
            raise Unreadable(Reason.BROKEN, _first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _open_regular(path: str | bytes) -> BinaryIO:
    """Open without waiting (a pipe cannot block), and judge what was opened, not what was there before."""
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    except IsADirectoryError:
        raise Unreadable(Reason.NOT_A_FILE, "a folder") from None
    except PermissionError:
        raise Unreadable(Reason.FORBIDDEN) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) in (errno.ENXIO, errno.ENODEV):
            raise Unreadable(Reason.NOT_A_FILE, "a socket or a device") from None
        raise Unreadable(Reason.MISSING, getattr(error, "strerror", None) or str(error)) from None
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return file
    file.close()
    raise Unreadable(Reason.EMPTY if stat.S_ISREG(status.st_mode) else Reason.NOT_A_FILE)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _WITHOUT_WAITING)


def _decode(file: BinaryIO, how: Decoding) -> tuple[Decoded, bool]:
    head = file.read(8)
    file.seek(0)
    if head.startswith(b"\x93NUMPY"):
        image, alpha = read_npy(file, how.max_pixels)
        return Decoded(image, "NPY", str(image.dtype).removeprefix("torch.")), alpha
    try:
        opened = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        if head[:4] not in _TIFF_MAGIC:
            raise
        pixels = read_tiff(file, how.max_pixels)  # many channels, float64 and the like
        return Decoded(pixels.image, "TIFF", f"{len(pixels.image)} channels"), pixels.alpha
    with opened as im:
        return _decode_pillow(im, file, how)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF came with Pillow 11.3


def _decode_pillow(im: ImageFile, file: BinaryIO, how: Decoding) -> tuple[Decoded, bool]:
    check_size(im.height, im.width, how.max_pixels)
    kind, mode, narrowed = im.format or "", im.mode, _narrowed(im)
    tiff_orientation = _orientation(im) if kind == "TIFF" else 0  # loading takes the tag away
    if kind == "TIFF" and (narrowed or _beyond_pillow(im)):
        pixels = read_tiff(file, how.max_pixels)
    elif narrowed:
        pixels = _read_deep_png(im, file)
    else:
        pixels = _read_pillow(im)
        if kind == "TIFF":  # Pillow turns TIFF, and no other format, while loading: turn it back
            back = _INVERSE_TURN.get(tiff_orientation, tiff_orientation)
            pixels = Pixels(turn(pixels.image, back), pixels.alpha)
    orientation = tiff_orientation or _orientation(im)
    image = turn(pixels.image, orientation) if how.exif_orientation else pixels.image
    return Decoded(image, kind, mode, orientation, _animated(im)), pixels.alpha


def _read_pillow(opened: ImageFile) -> Pixels:
    """Decode what Pillow holds without loss."""
    im: Image.Image = opened
    kind = opened.format
    white_is_zero = im.mode == "I;16" and _tag(im, 262) == (0,)
    if im.mode in ("P", "1", "L", "RGB") and "transparency" in im.info:
        im = im.convert("LA" if im.mode in ("1", "L") else "RGBA")
    elif im.mode == "P":
        im = im.convert("RGB")
    elif im.mode in _CONVERSIONS:
        im = im.convert(_CONVERSIONS[im.mode])
    if im.mode == "I" and kind in ("PNG", "PPM"):  # older Pillow: 16 bits held as 32
        return Pixels(to_image(np.asarray(im).astype(np.uint16)))
    if im.mode.startswith("I;16"):
        deep = np.asarray(im).astype(np.uint16)
        return Pixels(to_image(65535 - deep if white_is_zero else deep))
    if im.mode not in ("L", "LA", "RGB", "RGBA", "F"):
        raise Unreadable(Reason.PIXEL_TYPE, f"Pillow mode {im.mode}")
    return Pixels(to_image(np.array(im)), alpha=im.mode in ("LA", "RGBA"))


def _tag(im: Image.Image, number: int) -> tuple[int, ...]:
    """A TIFF tag's numbers; empty for other files."""
    found = getattr(im, "tag_v2", {}).get(number, ())
    return found if isinstance(found, tuple) else (found,)


def _beyond_pillow(im: Image.Image) -> bool:
    """Whether a TIFF has more samples than Pillow keeps, or signed or 32-bit integers (which are refused)."""
    kept = im.mode in ("P", "1") or _tag(im, 277) in ((), (len(im.getbands()),))
    return not kept or im.mode == "I" or 2 in _tag(im, 339)


def _narrowed(im: ImageFile) -> bool:
    """Whether Pillow would cut 16-bit samples to 8 (it does so for all but grey)."""
    if im.format not in ("PNG", "TIFF", "PPM") or im.mode.startswith(("I", "F")) or not im.tile:
        return False
    args = im.tile[0][3]
    raw, *rest = args if isinstance(args, tuple) else (args,)
    return ";16" in str(raw) or (im.format == "PPM" and bool(rest) and int(rest[0]) > 255)


def _read_deep_png(im: ImageFile, file: BinaryIO) -> Pixels:
    """A 16-bit colour PNG through libpng; Pillow decodes it first, for torchvision trusts the header."""
    if im.format != "PNG":
        raise Unreadable(Reason.PIXEL_TYPE, "16-bit colour PPM; store it as PNG or TIFF")
    im.load()
    try:
        from torchvision.io import ImageReadMode, decode_png
    except ImportError:
        raise Unreadable(Reason.PIXEL_TYPE, "16-bit colour PNG; store it as TIFF") from None
    file.seek(0)
    encoded = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    deep = decode_png(encoded, mode=ImageReadMode.UNCHANGED)
    return Pixels(to_image(deep.permute(1, 2, 0).numpy()), alpha=len(deep) in (2, 4))


def _orientation(im: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a damaged tag counts as 1."""
    if "exif" not in im.info and im.format not in ("PNG", "TIFF"):
        return 1
    try:
        found = int(im.getexif().get(0x0112, 1))
    except Exception:  # the pixels are fine, only their metadata is not
        return 1
    return found if 1 <= found <= 8 else 1


def _animated(im: ImageFile) -> bool:
    try:
        return bool(getattr(im, "is_animated", False))  # for GIF it looks at the second frame
    except Exception:  # which may be damaged, but is not used
        return True


def turn(image: Shaped[Tensor, "C H W"], orientation: int) -> Shaped[Tensor, "C H2 W2"]:
    """Turn an image upright as EXIF's orientation 1 to 8 says (as Pillow's `exif_transpose`)."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return image.flip(flips) if flips else image
