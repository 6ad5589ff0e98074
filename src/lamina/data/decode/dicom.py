"""DICOM by pydicom (extra `dicom`): what is checked before a frame is decoded, and its values.

- Grey values are rescaled (modality LUT, or slope and intercept; the dose's scale of RT Dose). Then
  `Decoding.value_range` maps them; without it the first window of the file does (PS3.3 C.11.2.1.2), or its
  first VOI LUT where it has no window. Without either, unsigned values that are not rescaled are over the
  largest one of the bits that are stored; others are refused, since their range is not known.
- MONOCHROME1 is inverted after that. A palette becomes RGB, and so does YBR.
- Of several frames the first is read, or all are channels (`Decoding.pages`). In files of the enhanced kind
  each frame has its own rescaling and window.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.text import counted
from lamina.data.decode.arrays import Pixels, Stored
from lamina.data.decode.codestream import frame_size
from lamina.data.decode.dicom_values import VALUE_ELEMENTS, grey_pixels
from lamina.data.decode.limits import TimedFile, check_fitting, check_memory, check_pixels
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.dicom_files import HEAD, MARK, MARK_AT
from lamina.data.options import Decoding

_DEFLATED, _PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_PIECE = 1 << 18
_GREY, _COLOUR, _PALETTE = ("MONOCHROME1", "MONOCHROME2"), ("RGB",), "PALETTE COLOR"
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_SCANS_PER_SECOND = 1e7
"""Pixels of one scan of a JPEG that are decoded in a second, at least."""
_COLOURS = ("Red", "Green", "Blue")
_TAGS = (
    "SOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    *VALUE_ELEMENTS,
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
)


def read_dicom(file: TimedFile, how: Decoding) -> Stored:
    """The image in a DICOM file, or its first frame, never turned.

    Raises:
        Unreadable: for a file without an image, one that is too large or damaged, pixels whose range is not
            known, and compression for which no decoder is installed.
    """
    file = _inflated(file, how)
    header = _header(file)
    photometric = str(header.get("PhotometricInterpretation", ""))
    height, width, frames = _extent(header)
    planes = frames if how.pages == "channels" else 1
    _check_size(header, planes, file, how)
    _check_frames(file, header, planes, how)
    array = _decoded(file, header, None if planes > 1 else 0)
    file.check()
    array = array.reshape(planes, height, width, -1)
    if photometric in _GREY:
        pixels = grey_pixels(np.moveaxis(array[..., 0], 0, -1), header, how)
    else:
        pixels = _colour_pixels(array, header, photometric, how)
    return Stored(pixels, "DICOM", photometric, animated=frames > 1)


def dicom_size(file: TimedFile, how: Decoding) -> tuple[int, int]:
    """Height and width of what `read_dicom` gives, from the header."""
    height, width, _ = _extent(_header(_inflated(file, how)))
    check_pixels(height, width, how)
    return height, width


def _inflated(file: TimedFile, how: Decoding) -> TimedFile:
    """The file itself, or, where all behind its first elements is deflated, what that becomes: piece by
    piece, since a few bytes can become any number."""
    file.seek(HEAD)
    first = file.read(12)  # (0002,0000) UL: the number of bytes of the elements that say how the rest is kept
    known = first[:4] == b"\2\0\0\0"
    meta = file.read(min(int.from_bytes(first[8:12], "little"), _PIECE) if known else 4096)
    if _DEFLATED not in meta:
        file.seek(0)
        return file
    if not known:
        raise Unreadable(Reason.BROKEN, "deflated, and it does not say where its first elements end")
    whole, stream = io.BytesIO(), zlib.decompressobj(-zlib.MAX_WBITS)
    whole.write(bytes(MARK_AT) + MARK + first + meta.replace(_DEFLATED, _PLAIN, 1))
    while (piece := stream.unconsumed_tail or file.read(_PIECE)) and not stream.eof:
        whole.write(stream.decompress(piece, _PIECE))
        file.check()
        check_memory(whole.tell(), how)
    whole.seek(0)
    return TimedFile(whole, how.max_decode_seconds)


def _header(file: TimedFile) -> Any:
    """What `_TAGS` name; the file stands at its pixels then."""
    try:
        import pydicom
    except ImportError:
        raise Unreadable(Reason.PIXEL_TYPE, "DICOM needs pydicom; pip install 'lamina[dicom]'") from None
    file.seek(0)
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    if "TransferSyntaxUID" not in header.file_meta:
        raise Unreadable(Reason.BROKEN, "DICOM that does not say how it is stored (no transfer syntax)")
    if "Rows" not in header or "Columns" not in header:
        kind = getattr(header.get("SOPClassUID"), "name", "") or "no class"
        raise Unreadable(Reason.UNKNOWN_FORMAT, f"DICOM without an image ({kind})")
    return header


def _extent(header: Any) -> tuple[int, int, int]:
    """Height, width, and the number of frames."""
    height, width = int(header.Rows), int(header.Columns)
    frames = int(header.get("NumberOfFrames") or 1)
    if min(height, width, frames) < 1:
        raise Unreadable(Reason.BROKEN, f"{width} x {height} px, {counted(frames, 'frame')}")
    return height, width, frames


def _check_size(header: Any, planes: int, file: TimedFile, how: Decoding) -> None:
    """Refuse what takes more memory than allowed: frames as stored and as arrays, rescaled, and mapped."""
    height, width, _ = _extent(header)
    check_pixels(height, width, how)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric not in (*_GREY, *_COLOUR, *_YBR, _PALETTE):
        raise Unreadable(Reason.PIXEL_TYPE, f"DICOM of photometric interpretation {photometric or 'unknown'}")
    item = max(1, int(header.get("BitsAllocated") or 8) // 8)
    samples = 3 if photometric == _PALETTE else int(header.get("SamplesPerPixel") or 1)
    channels = planes * samples
    grey = photometric in _GREY
    here = file.tell()
    encoded = file.seek(0, 2) if planes > 1 else 0
    file.seek(here)
    check_memory(height * width * channels * (3 * item + (17 if grey else 4)) + encoded, how)
    check_fitting(height, width, channels, 4 if grey or item > 1 else 1, how)


def _check_frames(file: TimedFile, header: Any, planes: int, how: Decoding) -> None:
    """Refuse compressed frames that are not as large as the file says, or could take too long: libraries
    decode them in one piece, and trust them. The file stands at its pixels."""
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    height, width, frames = _extent(header)
    file.read(12)  # tag, OB, and an undefined length
    start = file.tell()
    found = 0
    for data in generate_frames(file, number_of_frames=frames):
        found += 1
        if syntax != RLELossless and frame_size(data) != (height, width):
            own = frame_size(data)
            size = "no size" if own is None else f"{own[1]} x {own[0]} px"
            raise Unreadable(
                Reason.BROKEN, f"a frame that states {size} in an image of {width} x {height} px"
            )
        scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 1
        if height * width * scans > how.max_decode_seconds * _SCANS_PER_SECOND:
            raise Unreadable(Reason.TOO_SLOW, f"a frame of {counted(scans, 'scan')} (max_decode_seconds)")
        if found == planes:
            break
    if found < planes:
        raise Unreadable(Reason.BROKEN, f"{counted(found, 'frame')}, where {planes} are announced")
    file.seek(start)


def _decoded(file: TimedFile, header: Any, index: int | None) -> NDArray[Any]:
    """All frames, or one; YBR as RGB."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Unreadable(Reason.PIXEL_TYPE, f"DICOM stored as {syntax.name}") from None
    if not decoder.is_available:
        raise Unreadable(Reason.PIXEL_TYPE, f"{syntax.name}: {_missing(decoder)}")
    try:
        return np.asarray(pixel_array(file, index=index))
    except RuntimeError as error:  # of the decoders that are installed
        if not syntax.is_encapsulated or not decoder.missing_dependencies:
            raise
        why = str(error).splitlines()[-1].strip()
        raise Unreadable(
            Reason.BROKEN, f"{why[:150]}; where the file is whole: {_missing(decoder)}"
        ) from None


def _missing(decoder: Any) -> str:
    """Which packages would decode it, as pydicom names them ("name - requires packages")."""
    packages = [each.partition(" requires ")[2] for each in decoder.missing_dependencies]
    return f"install {', or '.join(packages)}"


def _colour_pixels(array: NDArray[Any], header: Any, photometric: str, how: Decoding) -> Pixels:
    """Colours of (planes, height, width, samples), one plane's channels after the other."""
    bits: int | None = int(header.get("BitsStored") or 8)
    if photometric == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        array = apply_color_lut(array[..., 0], header)
        bits = 8 * array.itemsize
    planes, height, width, samples = array.shape
    if samples != 3:
        raise Unreadable(Reason.CHANNELS, f"{photometric} of {counted(samples, 'sample')}")
    channels = array.transpose(1, 2, 0, 3).reshape(height, width, planes * samples)
    return to_pixels(np.ascontiguousarray(channels), how, bits=bits)
