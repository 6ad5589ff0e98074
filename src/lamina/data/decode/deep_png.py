"""PNG of 16 bits in colour, with all bits: Pillow would keep 8 of them.

imagecodecs (extra tiff) decodes them in one pass. Where it is missing, or refuses a file, torchvision does,
after Pillow has: torchvision's decoder trusts the header, and ends the process where a file is shorter than
that says. Neither can be stopped: what could take longer than allowed is decoded by Pillow first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from lamina.data.decode.limits import TimedFile
from lamina.data.decode.notes import native_messages
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

_PIXELS_PER_SECOND = 1e7
"""Fewer than are decoded of any file that is not larger than its pixels: 70 million were measured."""
_BYTES_BESIDE = 1 << 20
_ORIENTED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""One of these is in every file that says which way up it is; it may stand behind the pixels."""


def read_deep_png(im: ImageFile, file: TimedFile, how: Decoding) -> NDArray[np.uint16]:
    """All samples as (H, W, C).

    Args:
        im: as Pillow opened it from `file`, not loaded; the caller has checked the memory that it takes.
        file: all bytes.

    Raises:
        Unreadable: where no package decodes it, or it takes too long.
    """
    here = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(here)
    found = _in_one_pass(content, im, how)
    if found is None:
        im.load()
        found = _by_torchvision(content)
    file.check()
    return found


def _in_one_pass(content: bytes, im: ImageFile, how: Decoding) -> NDArray[Any] | None:
    pixels = im.height * im.width
    most_bytes = 2 * pixels * len(im.getbands()) + _BYTES_BESIDE
    if pixels > how.max_decode_seconds * _PIXELS_PER_SECOND or len(content) > most_bytes:
        return None
    if any(word in content for word in _ORIENTED):
        return None
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    try:
        with native_messages():
            found: NDArray[Any] = png_decode(content)
    except Exception:  # damaged, or odd: the others say what is wrong
        return None
    if found.dtype != np.uint16 or found.shape != (im.height, im.width, len(im.getbands())):
        return None  # a transparent colour was made an alpha channel
    im.info.setdefault("exif", b"")  # or Pillow would decode all pixels to look for one behind them
    return found


def _by_torchvision(content: bytes) -> NDArray[Any]:
    try:
        from torchvision.io import ImageReadMode, decode_png
    except ImportError:  # deprecated since its version 0.29
        raise Unreadable(
            Reason.PIXEL_TYPE, "16-bit colour PNG; pip install 'lamina[tiff]', or store it as TIFF"
        ) from None
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with native_messages():
        found: NDArray[Any] = decode_png(encoded, mode=ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return found
