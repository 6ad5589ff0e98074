"""Arrays as images: the one rule for pixel types, and .npy files."""

from __future__ import annotations

import math
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from lamina.data.decode.limits import check_fitting, check_memory, check_pixels
from lamina.data.decode.notes import Note
from lamina.data.decode.reduction import Reduced
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

GIVE_RANGE = "say by --data.value-range LOW:HIGH which values become 0 and 1"


class Pixels(NamedTuple):
    """An image in its stored range, whether its last channel is alpha, by how much it was decoded smaller
    than it is, and what is worth knowing of its values."""

    image: Shaped[Tensor, "C H W"]
    alpha: bool = False
    reduced: Reduced | None = None
    notes: tuple[Note, ...] = ()


class Stored(NamedTuple):
    """An image as it is stored, before it is turned and its channels are fitted; and what its file says."""

    pixels: Pixels
    format: str
    mode: str
    """Pillow's name of the pixels' kind, or the number of channels."""
    orientation: int = 1
    animated: bool = False
    """Whether there are more frames, pages or depths than this one."""


def to_image(array: NDArray[Any], bits: int | None = None) -> Shaped[Tensor, "C H W"]:
    """An (H, W) or (H, W, C) array as a tensor in its stored range.

    bool becomes 0 or 255; uint8 stays; uint16 becomes float32 / 65535; floats become float32 and must be
    finite and within [0, 1].

    Args:
        bits: how many bits of a uint8 or uint16 the file uses, where it says so: the largest value is then
            2**bits - 1. 1, 2 and 4 bits become uint8, others float32.

    Raises:
        Unreadable: for any other type, since its range is not known, and for values beyond `bits`.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = _unit_range(array)
    elif array.dtype not in (np.uint8, np.uint16):
        raise Unreadable(Reason.PIXEL_TYPE, f"{array.dtype}; {GIVE_RANGE}")
    elif array.dtype == np.uint16 or bits not in (None, 8):
        array = _scaled(array, bits or 8 * array.itemsize)
    if not array.size:
        raise Unreadable(Reason.BROKEN, "no pixels")
    image = torch.from_numpy(array if array.flags.writeable else array.copy())
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def _scaled(array: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unsigned integers of so many bits over their largest value; nothing else is as large as the result."""
    most = 2**bits - 1
    if bits < 8 * array.itemsize and array.size and int(array.max()) > most:
        raise Unreadable(Reason.PIXEL_TYPE, f"a value of {array.max()} in a file that says {bits} bits")
    if bits in (1, 2, 4):
        return np.asarray(array * np.uint8(255 // most), np.uint8)
    scaled = array.astype(np.float32)
    scaled /= np.float32(most)
    return scaled


def _unit_range(array: NDArray[np.generic]) -> NDArray[np.float32]:
    low, high = float(np.min(array)), float(np.max(array))
    if not math.isfinite(low + high):
        raise Unreadable(Reason.NOT_FINITE, "data.nodata nan fills NaN" if np.isnan(low + high) else "")
    if low < 0 or high > 1:
        raise Unreadable(Reason.PIXEL_TYPE, f"floats from {low:g} to {high:g}; {GIVE_RANGE}")
    return array.astype(np.float32, copy=False)


def read_npy(file: BinaryIO, how: Decoding) -> NDArray[Any]:
    """A .npy array as (H, W) or (H, W, C): of three axes, the shorter of first and last is the channels (tie:
    last).

    Objects are never unpickled.
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
    check_pixels(height, width, how)
    values, item = math.prod(shape), 1 if dtype.itemsize == 1 else 4
    check_memory(values * (dtype.itemsize + 4 * (dtype.itemsize > 1)), how)
    check_fitting(height, width, values // max(1, height * width), item, how)
    _check_bytes(file, values * dtype.itemsize)
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    return np.moveaxis(array, 0, -1) if channels_first else array


def _check_bytes(file: BinaryIO, wanted: int) -> None:
    start = file.tell()
    if file.seek(0, 2) - start < wanted:
        raise Unreadable(Reason.BROKEN, "shorter than its header says")
