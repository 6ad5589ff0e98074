"""Grey values of DICOM: rescaled as the file says, then mapped by a range, a window or a table of it."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.data.decode.arrays import GIVE_RANGE, Pixels
from lamina.data.decode.notes import Note, NoteKind
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import map_range, to_pixels
from lamina.data.options import Decoding

VALUE_ELEMENTS = (
    "RescaleSlope",
    "RescaleIntercept",
    "DoseGridScaling",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)
"""The elements that say how stored values are rescaled and mapped."""


class Window(NamedTuple):
    """The first window of a frame: its centre, width and function, and how many windows there are."""

    centre: float
    width: float
    function: str
    of: int

    def __str__(self) -> str:
        which = f", the first of {self.of}" if self.of > 1 else ""
        function = "" if self.function == "LINEAR" else f", {self.function}"
        return f"centre {self.centre:g}, width {self.width:g}{function}{which}"


def grey_pixels(array: NDArray[Any], header: Any, how: Decoding) -> Pixels:
    """An (H, W, N) array of N frames of grey values as an image; MONOCHROME1 is inverted last.

    Raises:
        Unreadable: where the range of the values is not known.
    """
    frames = [frame_header(header, k) for k in range(array.shape[2])]
    plain = all(_linear(each) == (1.0, 0.0) and "ModalityLUTSequence" not in each for each in frames)
    windows = [first_window(each) for each in frames]
    if not plain:
        array = np.stack([_rescaled(array[..., k], each) for k, each in enumerate(frames)], -1)
    if how.value_range is not None:
        pixels = to_pixels(array, how)
    elif isinstance(how.nodata, float) and (windows[0] or "VOILUTSequence" in frames[0]):
        raise Unreadable(
            Reason.PIXEL_TYPE, "data.nodata is read together with data.value_range where a file has a window"
        )
    elif all(each is not None for each in windows):
        pixels = _windowed(array, [each for each in windows if each is not None])
    elif all("VOILUTSequence" in each for each in frames):
        pixels = _by_table(array, frames)
    elif plain and array.dtype.kind in "uf":
        pixels = to_pixels(array, how, bits=_bits(header, array))
    else:
        what = f"{array.dtype} values" if plain else "rescaled values"
        raise Unreadable(Reason.PIXEL_TYPE, f"{what} without a window; {GIVE_RANGE}")
    if str(header.PhotometricInterpretation) != "MONOCHROME1":
        return pixels
    return pixels._replace(image=(1 if pixels.image.is_floating_point() else 255) - pixels.image)


def frame_header(header: Any, frame: int) -> Any:
    """The elements that rescale and map a frame: its own where the file is of the enhanced kind (PS3.3
    C.7.6.16), else those of the file."""
    import pydicom

    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*per_frame[frame : frame + 1], *(header.get("SharedFunctionalGroupsSequence") or ())[:1]]
    found = pydicom.Dataset()
    for holder in (header, *reversed(groups)):
        parts = [holder] if holder is header else []
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            parts += (holder.get(name) or ())[:1]
        for part in parts:
            for name in VALUE_ELEMENTS:
                if name in part:
                    found[name] = part[name]
    return found


def _linear(frame: Any) -> tuple[float, float]:
    """Slope and intercept."""
    scale = frame.get("DoseGridScaling")
    slope, intercept = frame.get("RescaleSlope"), frame.get("RescaleIntercept")
    if scale is not None:
        return float(scale), 0.0
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _rescaled(values: NDArray[Any], frame: Any) -> NDArray[Any]:
    if frame.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(values, frame), np.float64)
    slope, intercept = _linear(frame)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise Unreadable(Reason.BROKEN, f"a rescale slope of {slope:g}, intercept {intercept:g}")
    return values.astype(np.float64) * slope + intercept


def first_window(frame: Any) -> Window | None:
    """The first window that a frame has; None where there is none, or it is not possible."""
    centres, widths = (_numbers(frame.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if not centres or not widths:
        return None
    function = str(frame.get("VOILUTFunction") or "LINEAR")
    centre, width = centres[0], widths[0]
    possible = np.isfinite([centre, width]).all() and (width >= 1 if function == "LINEAR" else width > 0)
    known = function in ("LINEAR", "LINEAR_EXACT", "SIGMOID")
    return Window(centre, width, function, len(centres)) if possible and known else None


def _numbers(value: Any) -> list[float]:
    """The numbers of an element that has none, one or several."""
    if value is None:
        return []
    return [float(each) for each in (value if isinstance(value, MutableSequence) else [value])]


def _windowed(array: NDArray[Any], windows: list[Window]) -> Pixels:
    """Each frame by its window, as PS3.3 C.11.2.1.2 and C.11.2.1.3 say, from 0 to 1."""
    found, clipped = np.empty(array.shape, np.float32), 0
    for k, window in enumerate(windows):
        centre, width = window.centre, window.width
        values = array[..., k : k + 1]
        if window.function == "SIGMOID":
            with np.errstate(over="ignore"):
                found[..., k] = 1 / (1 + np.exp(-4 * (values[..., 0].astype(np.float64) - centre) / width))
            continue
        exact = window.function == "LINEAR_EXACT"
        middle, half = (centre, width / 2) if exact else (centre - 0.5, (width - 1) / 2)
        if half == 0:
            found[..., k] = values[..., 0] > middle
            continue
        mapped = map_range(values, ((middle - half, middle + half),))
        found[..., k] = mapped.values[..., 0]
        clipped += mapped.clipped
    note = Note(NoteKind.WINDOWED, str(windows[0]), clipped, array.size)
    return Pixels(torch.from_numpy(found).permute(2, 0, 1), notes=(note,))


def _by_table(array: NDArray[Any], frames: list[Any]) -> Pixels:
    """Each frame by its first VOI LUT, over the largest value of the bits of its entries."""
    from pydicom.pixels.processing import apply_voi

    found = np.empty(array.shape, np.float32)
    for k, frame in enumerate(frames):
        values = array[..., k]
        whole = np.rint(values).astype(np.int64) if values.dtype.kind == "f" else values
        bits = int(frame.VOILUTSequence[0].LUTDescriptor[2])
        found[..., k] = np.asarray(apply_voi(whole, frame), np.float64) / (2**bits - 1)
    note = Note(NoteKind.WINDOWED, "the first VOI LUT")
    return Pixels(torch.from_numpy(found.clip(0, 1)).permute(2, 0, 1), notes=(note,))


def _bits(header: Any, array: NDArray[Any]) -> int | None:
    """The bits that are stored of integers; None for floats."""
    return int(header.get("BitsStored") or 8 * array.itemsize) if array.dtype.kind == "u" else None
