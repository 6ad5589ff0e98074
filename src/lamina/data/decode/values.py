"""Stored values as an image: the range that is mapped to [0, 1], and pixels without data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray
from torch import Tensor

from lamina.core.text import counted
from lamina.data.decode.arrays import Pixels, to_image
from lamina.data.decode.limits import check_fitting, check_memory
from lamina.data.decode.notes import Note, NoteKind
from lamina.data.decode.reduction import Reduced
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding
from lamina.data.value_range import (
    BY_FILE,
    NO_FILL,
    ONLY_NAN,
    Nodata,
    ValueRange,
    number_text,
    value_range_text,
)

_BAND_VALUES = 1 << 18
_EXACT_IN_FLOAT32 = 2  # bytes of an integer


class Mapped(NamedTuple):
    """Values from 0 to 1, and how many were clipped to get there."""

    values: NDArray[np.float32]
    clipped: int


def to_pixels(
    array: NDArray[Any],
    how: Decoding,
    *,
    bits: int | None = None,
    alpha: bool = False,
    own_nodata: float | None = None,
    reduced: Reduced | None = None,
) -> Pixels:
    """An (H, W) or (H, W, C) array as an image, by the options `value_range` and `nodata`.

    Without a range values are in that of their type (`arrays.to_image`). With one, LOW becomes 0 and HIGH
    becomes 1, linearly, and others are clipped. Pixels without data become the mean of the others of their
    channel. A channel of alpha is in the range of its type, and always has data. Notes say how many values
    were clipped and filled.

    Args:
        bits: as for `to_image`.
        own_nodata: the value of pixels without data, where the file names one.

    Raises:
        Unreadable: as `to_image`; for a channel without any data; for another number of ranges than channels.
    """
    value = own_nodata if how.nodata == BY_FILE else how.nodata
    value = None if value == NO_FILL else value
    if how.value_range is None and value is None:
        return Pixels(to_image(array, bits), alpha, reduced)
    colours = array[..., None] if array.ndim == 2 else array
    cover = colours[..., -1:] if alpha else None
    colours = colours[..., :-1] if alpha else colours
    height, width, channels = colours.shape
    if how.value_range is not None:
        check_memory(array.nbytes * 2 + array.size * 5, how)
        check_fitting(height, width, channels, 4, how)
    notes = []
    empty = None if value is None else without_data(colours, value)
    if empty is not None:
        check_memory(array.nbytes * 2 + array.size * 9, how)
        colours = _covered(colours, empty)
    if how.value_range is None:
        image = to_image(colours, bits)
    else:
        mapped = map_range(colours, how.value_range, empty)
        image = torch.from_numpy(mapped.values).permute(2, 0, 1)
        if mapped.clipped:
            detail = f"the range is {value_range_text(how.value_range)}"
            notes.append(Note(NoteKind.CLIPPED, detail, mapped.clipped, colours.size))
    if empty is not None:
        image = fill(image, torch.from_numpy(np.moveaxis(empty, -1, 0)))
        notes.append(Note(NoteKind.FILLED, _named(value), int(empty.sum()), empty.size))
    if cover is not None:
        image = _with_alpha(image, to_image(cover, bits))
    return Pixels(image, alpha, reduced, tuple(notes))


def in_memory(image: Shaped[Tensor, "C H W"], how: Decoding) -> Pixels:
    """An image that was no file, with the options of `to_pixels`; itself where none is given."""
    if how.value_range is None and how.nodata in (BY_FILE, NO_FILL):
        return Pixels(image)
    return to_pixels(image.permute(1, 2, 0).numpy(), how)


def map_range(array: NDArray[Any], pairs: ValueRange, ignored: NDArray[np.bool_] | None = None) -> Mapped:
    """(value - LOW) / (HIGH - LOW), clipped to [0, 1]: of an (H, W, C) array of numbers, some rows at a time.

    Args:
        pairs: LOW and HIGH for all channels, or for each.
        ignored: values that do not count as clipped.

    Raises:
        Unreadable: for another number of pairs than channels, and for values that are no finite numbers.
    """
    height, width, channels = array.shape
    if len(pairs) not in (1, channels):
        raise Unreadable(
            Reason.CHANNELS,
            f"{counted(channels, 'channel')}, and data.value_range has {counted(len(pairs), 'pair')}",
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif" or not array.size:
        raise Unreadable(
            Reason.PIXEL_TYPE if array.size else Reason.BROKEN, f"{array.dtype}, {array.size} values"
        )
    exact = (array.dtype.kind == "f" and array.itemsize <= 4) or array.itemsize <= _EXACT_IN_FLOAT32
    work: Any = np.float32 if exact and all(map(_wide_enough, pairs)) else np.float64
    low: Any
    high: Any
    low, high = (np.array(each, work) for each in zip(*pairs, strict=True))
    found, clipped = np.empty(array.shape, np.float32), 0
    rows = max(1, _BAND_VALUES // (width * channels))
    for top in range(0, height, rows):
        part: NDArray[Any] = array[top : top + rows].astype(work)
        if array.dtype.kind == "f" and not np.isfinite(part).all():
            raise Unreadable(Reason.NOT_FINITE, "data.nodata nan fills NaN")
        outside = (part < low) | (part > high)
        if ignored is not None:
            outside &= ~ignored[top : top + rows]
        clipped += int(np.count_nonzero(outside))
        part -= low
        part /= high - low
        np.clip(part, 0, 1, out=part)
        found[top : top + rows] = part
    return Mapped(found, clipped)


def _wide_enough(pair: tuple[float, float]) -> bool:
    """Whether float32 tells apart a million values between LOW and HIGH."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.spacing(np.float32(max(map(abs, pair))))
    return bool(step <= 1e-6 * (pair[1] - pair[0]))


def without_data(array: NDArray[Any], value: float | Nodata) -> NDArray[np.bool_] | None:
    """Which values of an (H, W, C) array are no data: those equal to `value`, as far as the array's type can
    hold it, and NaN; None where none is.

    Raises:
        Unreadable: where a channel has no other values.
    """
    number = np.nan if value == ONLY_NAN else float(value)
    if array.dtype.kind == "f":
        empty = np.isnan(array)
        if not np.isnan(number):
            with np.errstate(over="ignore"):
                empty |= array == array.dtype.type(number)
    elif number.is_integer() and array.dtype.kind in "ui":
        limits = np.iinfo(array.dtype)
        inside = limits.min <= number <= limits.max
        empty = array == array.dtype.type(int(number)) if inside else np.zeros(array.shape, np.bool_)
    else:
        return None
    counts = empty.sum((0, 1))
    if not counts.any():
        return None
    if (counts == array.shape[0] * array.shape[1]).any():
        where = (
            ""
            if array.shape[2] == 1 or counts.min() == counts.max()
            else (f" in channel {int(counts.argmax()) + 1} of {array.shape[2]}")
        )
        raise Unreadable(Reason.NO_DATA, f"{_named(value)}{where}")
    return np.asarray(empty)


def _covered(array: NDArray[Any], empty: NDArray[np.bool_]) -> NDArray[Any]:
    """A copy in which values without data are, for now, the first one of their channel that is data."""
    channels = array.shape[2]
    first = (~empty).reshape(-1, channels).argmax(0)
    return np.where(empty, array.reshape(-1, channels)[first, np.arange(channels)], array)


def fill(image: Shaped[Tensor, "C H W"], empty: Bool[Tensor, "C H W"]) -> Shaped[Tensor, "C H W"]:
    """The image with the mean of a channel's other values where it is empty, in place; rounded for uint8."""
    totals = torch.where(empty, 0, image).sum((1, 2), dtype=torch.float64)
    means = totals / (~empty).sum((1, 2))
    means = means if image.is_floating_point() else means.round()
    pixels, no = (each.permute(1, 2, 0).numpy() for each in (image, empty))  # as they lie in memory
    np.copyto(pixels, means.to(image.dtype).numpy(), where=no)
    return image


def _with_alpha(image: Tensor, cover: Tensor) -> Tensor:
    """The image with its channel of alpha, both as floats where one of them is."""
    if image.dtype != cover.dtype:
        cover = cover.float() / 255 if cover.dtype == torch.uint8 else cover
    return torch.cat([image, cover.to(image.dtype)])


def _named(value: float | Nodata | None) -> str:
    return "NaN" if value == ONLY_NAN else f"the value {number_text(float(value or 0))}"
