"""Arrays as images: the one rule for pixel types, and the files that hold arrays (.npy, deep TIFF)."""

from __future__ import annotations

import math
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from lamina.data.unreadable import Reason, Unreadable


class Pixels(NamedTuple):
    """An image in its stored range, and whether its last channel is alpha."""

    image: Shaped[Tensor, "C H W"]
    alpha: bool = False


def to_image(array: NDArray[np.generic]) -> Shaped[Tensor, "C H W"]:
    """An (H, W) or (H, W, C) array as a tensor in its stored range.

    bool becomes 0 or 255; uint8 stays; uint16 becomes float32 / 65535; floats become float32 and must be
    finite and within [0, 1].

    Raises:
        Unreadable: for any other type, since its range is not known.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    elif array.dtype.kind == "f":
        array = _unit_range(array)
    elif array.dtype != np.uint8:
        raise Unreadable(Reason.PIXEL_TYPE, f"{array.dtype}; store uint8, uint16 or [0, 1]")
    if not array.size:
        raise Unreadable(Reason.BROKEN, "no pixels")
    image = torch.from_numpy(array if array.flags.writeable else array.copy())
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def _unit_range(array: NDArray[np.generic]) -> NDArray[np.float32]:
    low, high = float(np.min(array)), float(np.max(array))
    if not math.isfinite(low + high):
        raise Unreadable(Reason.NOT_FINITE)
    if low < 0 or high > 1:
        raise Unreadable(Reason.PIXEL_TYPE, f"floats from {low:g} to {high:g}; store [0, 1]")
    return array.astype(np.float32)


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuse an image by the size that its header states, before anything is decoded."""
    if height * width > max_pixels:
        raise Unreadable(Reason.TOO_LARGE, f"{width} x {height} px, at most {max_pixels} pixels")


def read_npy(file: BinaryIO, max_pixels: int) -> Pixels:
    """A .npy array: (H, W), or three axes of which the shorter of first and last is the channels (tie: last).

    There is never an alpha channel; objects are never unpickled.
    """
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.hasobject or dtype.fields is not None:
        raise Unreadable(Reason.PIXEL_TYPE, f"an array of {dtype}")
    if len(shape) not in (2, 3):
        raise Unreadable(Reason.CHANNELS, f"an array of shape {shape}")
    channels_first = len(shape) == 3 and shape[0] < shape[2]
    height, width = shape[1:] if channels_first else shape[:2]
    check_size(height, width, max_pixels)
    _check_bytes(file, math.prod(shape) * dtype.itemsize)
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    return Pixels(to_image(np.moveaxis(array, 0, -1) if channels_first else array))


def _check_bytes(file: BinaryIO, wanted: int) -> None:
    start = file.tell()
    if file.seek(0, 2) - start < wanted:
        raise Unreadable(Reason.BROKEN, "shorter than its header says")


def read_tiff(file: BinaryIO, max_pixels: int) -> Pixels:
    """The first page of a TIFF of any depth and number of channels, by tifffile (extra `tiff`)."""
    try:
        import tifffile
    except ImportError:
        raise Unreadable(Reason.PIXEL_TYPE, "this TIFF needs: pip install lamina[tiff]") from None
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        photometric = int(page.photometric)
        if photometric not in (0, 1, 2) or page.axes not in ("YX", "YXS", "SYX"):
            raise Unreadable(Reason.PIXEL_TYPE, f"a TIFF of axes {page.axes}, photometric {page.photometric}")
        check_size(page.imagelength, page.imagewidth, max_pixels)
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise Unreadable(Reason.PIXEL_TYPE, "compression: pip install imagecodecs") from None
            raise
    if page.axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    if photometric == 0:  # white is zero
        array = _inverted(array)
    return Pixels(to_image(array), alpha=_ends_with_alpha(page))


def _inverted(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind != "u":
        raise Unreadable(Reason.PIXEL_TYPE, f"{array.dtype} with white as zero")
    return np.asarray(np.iinfo(array.dtype).max - array, dtype=array.dtype)


def _ends_with_alpha(page: object) -> bool:
    """Grey or RGB and one extra sample that the file calls alpha (unassociated)."""
    extra = tuple(int(e) for e in getattr(page, "extrasamples", ()))
    if extra == (1,):
        raise Unreadable(Reason.PIXEL_TYPE, "colours multiplied by alpha; store them unassociated")
    return extra == (2,)
