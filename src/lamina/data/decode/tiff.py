"""TIFF: which planes of a file are one image, by its own metadata (ImageJ, OME, tifffile and others).

- An axis of channels becomes the image's channels, whether its planes are samples or pages.
- Of times, depths, positions and of plain pages without metadata the first is read; that is noted.
- An axis without a meaning (a stack written without its axes, as `tifffile.imwrite` does by default) is
  refused: it may be channels as well as depths.
- With `Decoding.pages` "channels" all planes of the one image in a file are channels, in the file's order,
  whatever their axes are called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from lamina.core.text import counted
from lamina.data.decode.arrays import Pixels, Stored
from lamina.data.decode.limits import TimedFile, check_fitting, check_memory, check_pixels
from lamina.data.decode.orientation import turn
from lamina.data.decode.pillow import read_pillow
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.options import Decoding

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FRAMES = {"T": "times", "Z": "depths", "P": "positions", "I": "pages"}
_PLAIN = ("generic", "uniform")  # pages beside each other, of which the file says nothing
_GREY_OR_RGB = (0, 1, 2)
_OWN_CODECS = (1, 8, 32946)  # none and deflate: tifffile needs no other package for them
_GDAL_NODATA = 42113
_INVERSE_TURN = {6: 8, 8: 6}


class _Layout(NamedTuple):
    """The planes (each of all samples of a page) that are one image, among `of` planes in a series."""

    planes: Sequence[int]
    of: int
    frames: bool


def read_tiff(file: TimedFile, how: Decoding) -> Stored:
    """The first image of a TIFF of any depth and number of channels, never turned.

    Raises:
        Unreadable: where the file does not say what the planes are, or for what cannot be decoded as it is.
    """
    import tifffile  # which scikit-image depends on; it takes a while

    file.seek(0)
    with tifffile.TiffFile(file, name="image", _multifile=False) as tiff:  # never the files beside it
        if not tiff.pages or not tiff.series:
            raise Unreadable(Reason.BROKEN, "a TIFF without an image")
        page, series = tiff.pages.first, tiff.series[0]
        _check_page(page, series, tiff)
        layout = _layout(series, page, how.pages == "channels")
        if how.pages == "channels" and len(tiff.series) > 1:
            raise Unreadable(Reason.CHANNELS, f"{len(tiff.series)} images that differ in size or type")
        frames = layout.frames or len(tiff.series) > 1
        tag = page.tags.get(274)
        orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        how = _with_inverted_nodata(how, page)
        used = _used_bits(tiff, page)
        fewer = used is not None and used < page.bitspersample  # which Pillow does not look for
        im = _opened_by_pillow(file, page) if len(layout.planes) == 1 and not fewer else None
        if im is not None:
            with im:
                mode = im.mode
                nodata = None if mode == "P" else _nodata(page)  # of which it is an index
                found = _by_pillow(im, file, how, orientation, nodata)
                return Stored(found, "TIFF", mode, orientation, frames)
        pixels = _by_tifffile(tiff, series, page, layout, how)
    return Stored(pixels, "TIFF", counted(len(pixels.image), "channel"), orientation, frames)


def _check_page(page: Any, series: Any, tiff: Any) -> None:
    """Refuse what tifffile would read from other files, or where the image is not the first page."""
    if tiff.is_ndtiff or any(each is None for each in series.pages):
        raise Unreadable(Reason.BROKEN, "a part of an image whose other planes are in other files")
    if tiff.is_ome and series.kind != "ome":
        raise Unreadable(Reason.BROKEN, "OME metadata that are damaged, or of planes in other files")
    announced = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    if series.kind not in ("imagej", "ome") and announced > len(tiff.pages):
        raise Unreadable(Reason.BROKEN, f"{len(tiff.pages)} planes, where ImageJ announced {announced}")
    if page.is_reduced and not series.kind == "ome":
        raise Unreadable(Reason.PIXEL_TYPE, "its first page is a thumbnail; store the image as first page")
    stored = sum(page.databytecounts)
    if stored > 4 * tiff.filehandle.size:
        raise Unreadable(Reason.BROKEN, f"{stored} bytes of data in {tiff.filehandle.size}: strips overlap")


def _layout(series: Any, page: Any, all_planes: bool) -> _Layout:
    """Which planes are the channels of the first image, or of the only one where `all_planes` are."""
    sizes = dict(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
    own = dict(zip(page.axes, page.shape, strict=True))
    lead = {axis: n for axis, n in sizes.items() if axis not in own and not (axis == "S" and n == 1)}
    if any(sizes.get(axis, n) != n for axis, n in own.items()):
        raise Unreadable(Reason.PIXEL_TYPE, f"a TIFF of axes {series.axes} in pages of {page.axes}")
    if all_planes:
        count = math.prod(lead.values())
        return _Layout(range(count), count, False)
    unknown = [a for a, n in lead.items() if n > 1 and a != "C" and not _is_frames(a, series.kind)]
    if unknown:
        raise Unreadable(
            Reason.CHANNELS,
            f"a stack of {lead[unknown[0]]} planes, and the file does not say whether they are channels "
            f"(axes {series.axes}); give --data.pages channels, or store it with its axes, e.g. CYX",
        )
    if lead.get("C", 1) > 1 and own.get("S", 1) > 1:
        raise Unreadable(Reason.CHANNELS, f"{lead['C']} channels of {own['S']} samples each")
    shape = tuple(lead.values())
    first = tuple(slice(None) if axis == "C" else 0 for axis in lead)
    planes = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)[first]
    frames = any(n > 1 for axis, n in lead.items() if axis != "C")
    return _Layout(np.atleast_1d(planes).ravel().tolist(), int(np.prod(shape, dtype=np.int64)), frames)


def _is_frames(axis: str, kind: str) -> bool:
    return axis in _FRAMES and (axis != "I" or kind in _PLAIN)


def _opened_by_pillow(file: TimedFile, page: Any) -> ImageFile | None:
    """A single plane that Pillow holds as it is: up to 8 bits, or grey of 12, 16 or float 32; else None.

    What it was found to change: planes of 16 bits stored one after the other, samples beyond the mode's,
    signed integers, volumes in one page.
    """
    bits, samples = page.bitspersample, page.samplesperpixel
    bits = (bits,) if isinstance(bits, int) else tuple(bits)
    formats = {int(f) for f in np.atleast_1d(page.sampleformat)}
    if "Z" in page.axes or len(set(bits)) > 1 or not formats <= {1, 3}:
        return None
    if samples > 4 or (samples > 1 and max(bits) > 8):
        return None
    if samples > 1 and page.planarconfig == 2 and page.compression in _OWN_CODECS:
        return None
    file.seek(0)
    try:
        im = Image.open(file, formats=("TIFF",))
    except UnidentifiedImageError:
        return None
    known = im.mode in ("P", "1") or len(im.getbands()) == samples
    return im if known and im.mode != "I" else None


def _by_pillow(
    im: ImageFile, file: TimedFile, how: Decoding, orientation: int, nodata: float | None
) -> Pixels:
    pixels = read_pillow(im, file, how, nodata)
    back = _INVERSE_TURN.get(orientation, orientation)  # Pillow turns TIFF, and no other format
    return pixels._replace(image=turn(pixels.image, back))


def _by_tifffile(tiff: Any, series: Any, page: Any, layout: _Layout, how: Decoding) -> Pixels:
    photometric, item = int(page.photometric), np.dtype(page.dtype or "V1").itemsize
    if photometric not in _GREY_OR_RGB or page.axes not in ("YX", "YXS", "SYX"):
        raise Unreadable(Reason.PIXEL_TYPE, f"a TIFF of axes {page.axes}, photometric {page.photometric}")
    if not isinstance(page.bitspersample, int):
        raise Unreadable(Reason.PIXEL_TYPE, f"samples of {page.bitspersample} bits")
    extra = tuple(int(e) for e in page.extrasamples)
    if extra == (1,):
        raise Unreadable(Reason.PIXEL_TYPE, "colours multiplied by alpha; store them unassociated")
    channels = len(layout.planes) * page.samplesperpixel
    if photometric == 0 and channels > (len(layout.planes) if how.pages == "channels" else 1):
        raise Unreadable(Reason.PIXEL_TYPE, f"{channels} channels with white as zero")
    height, width = page.imagelength, page.imagewidth
    check_pixels(height, width, how)
    plane = height * width * page.samplesperpixel * item + sum(page.databytecounts)
    deep = item > 1 or page.bitspersample not in (1, 2, 4, 8)
    check_memory(height * width * channels * (item + 4 * deep) + plane, how)
    check_fitting(height, width, channels, 4 if deep else 1, how)
    array = _planes(tiff, series, page, layout)
    if photometric == 0:  # white is zero
        array = _inverted(array, page.bitspersample)
    alpha = len(layout.planes) == 1 and extra == (2,)
    return to_pixels(array, how, bits=_used_bits(tiff, page), alpha=alpha, own_nodata=_nodata(page))


def _nodata(page: Any) -> float | None:
    """The value of pixels without data, as GDAL writes it as text into a tag of its own."""
    tag = page.tags.get(_GDAL_NODATA)
    try:
        value = None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None
    return value if value is None or int(page.photometric) != 0 else _most(page) - value


def _with_inverted_nodata(how: Decoding, page: Any) -> Decoding:
    """Where white is zero, values are turned round before those without data are looked for."""
    if int(page.photometric) != 0 or isinstance(how.nodata, str):
        return how
    return replace(how, nodata=_most(page) - how.nodata)


def _most(page: Any) -> int:
    bits = page.bitspersample
    return int(2**bits - 1) if isinstance(bits, int) else 0


def _planes(tiff: Any, series: Any, page: Any, layout: _Layout) -> NDArray[Any]:
    """The layout's planes as (H, W, C), or (H, W)."""
    if len(layout.planes) == 1:
        array = _plane(tiff, series, page, layout, layout.planes[0])
        return np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    samples = page.samplesperpixel
    found = np.empty((len(layout.planes), samples, page.imagelength, page.imagewidth), page.dtype)
    for rows, k in zip(found, layout.planes, strict=True):
        plane = _plane(tiff, series, page, layout, k)
        rows[...] = np.moveaxis(plane, -1, 0) if page.axes == "YXS" else plane
    return np.moveaxis(found.reshape(-1, *found.shape[2:]), 0, -1)


def _plane(tiff: Any, series: Any, page: Any, layout: _Layout, k: int) -> NDArray[Any]:
    """One plane: a page of its own, or, as ImageJ stores large stacks, bytes behind those of the first."""
    if k == 0 or len(series.pages) == layout.of:
        try:
            return np.asarray(series.pages[k].asarray())
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise Unreadable(Reason.PIXEL_TYPE, f"{_codec(page)}: pip install imagecodecs") from None
            raise
    if series.dataoffset is None:
        raise Unreadable(Reason.BROKEN, f"{len(series.pages)} pages, where {layout.of} are announced")
    kind = page.dtype.newbyteorder(tiff.byteorder)
    n_bytes = int(np.prod(page.shape)) * kind.itemsize
    tiff.filehandle.seek(series.dataoffset + k * n_bytes)
    raw = tiff.filehandle.read(n_bytes)
    if len(raw) < n_bytes:
        raise Unreadable(Reason.BROKEN, "shorter than its header says")
    return np.frombuffer(raw, kind).reshape(page.shape)


def _codec(page: Any) -> str:
    return f"compression {page.compression.name}, {page.bitspersample} bits"


def _used_bits(tiff: Any, page: Any) -> int | None:
    """How many bits of a sample the file says that it uses: those of the tag, or fewer as OME has them."""
    if page.dtype is None or page.dtype.kind != "u":
        return None
    bits = page.bitspersample
    if not isinstance(bits, int):
        return None
    found = re.search(r'\bSignificantBits="(\d{1,2})"', tiff.ome_metadata or "") if tiff.is_ome else None
    if found is not None and 1 <= int(found[1]) <= bits:
        return int(found[1])
    return int(bits)


def _inverted(array: NDArray[Any], bits: int) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return ~array
    if array.dtype.kind != "u":
        raise Unreadable(Reason.PIXEL_TYPE, f"{array.dtype} with white as zero")
    return np.asarray(array.dtype.type(2**bits - 1) - array)
