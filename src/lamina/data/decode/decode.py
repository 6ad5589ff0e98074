"""A file as an image: opened safely, checked by its header, decoded without a silent change of value.

- 8-bit images stay uint8: grey (1 channel), grey + alpha (2), RGB (3), RGBA (4). A palette becomes RGB, or
  RGBA where it has transparency; 1-bit becomes 0 and 255; CMYK and YCCK become RGB as Pillow does
  (ICC profiles are not applied). AVIF of 10 or 12 bits is decoded to 8.
- 16-bit grey, 16-bit PNG and TIFF of any number of channels, and .npy become float32 in [0, 1]; so does TIFF
  of other depths, over its own largest value. Floats are taken if finite and within [0, 1]; signed integers
  and those of 32 bits are refused, since their range is not known, unless it is given.
- The transparent colour of a PNG becomes an alpha channel.
- Of an animation, a series of depths or times, or several pages the first is taken, which is noted, or all
  of them become channels (`Decoding.pages`); planes that a TIFF's metadata calls channels are channels
  (`tiff`).
- Other ranges than those of the pixels' type are given by `Decoding.value_range`, and pixels without data are
  filled (`values`).
- What an image may take is limited: pixels and memory by the header, time while it is decoded (`limits`).
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from lamina.data.decode.arrays import Stored, read_npy
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.dicom import dicom_size, read_dicom
from lamina.data.decode.limits import Stream, TimedFile, check_memory, check_pixels
from lamina.data.decode.notes import Note, NoteKind, collected
from lamina.data.decode.orientation import orientation_of, turn
from lamina.data.decode.pillow import read_pillow
from lamina.data.decode.plain_jpeg import read_plain_jpeg
from lamina.data.decode.reduction import Reduced
from lamina.data.decode.tiff import TIFF_MAGIC, read_tiff
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.dicom_files import HEAD, MARK_AT, has_mark
from lamina.data.options import Decoding

# Pillow knows more, among them EPS, which it hands to Ghostscript: not for files from anywhere.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "AVIF")
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


@dataclass(frozen=True)
class Decoded:
    """An image and what its file said: `format`, Pillow's `mode`, EXIF `orientation`, more than one frame
    of which the first was read, and what else is worth knowing."""

    image: Shaped[Tensor, "C H W"]
    format: str
    mode: str
    orientation: int = 1
    animated: bool = False
    notes: tuple[Note, ...] = ()
    reduced: Reduced | None = None
    """By how much it was decoded smaller than it is (`Decoding.reduce`); None: not at all."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px of the image, also where it was decoded smaller."""
        if self.reduced is not None:
            return self.reduced.height, self.reduced.width
        return self.image.shape[1], self.image.shape[2]


def decode_file(path: str | bytes, how: Decoding) -> Decoded:
    """Read one image file; as `decode` and `open_regular`."""
    return decode(open_regular(path), how)


def decode(stream: Stream, how: Decoding) -> Decoded:
    """Read an image from the bytes of its file, and close them.

    Args:
        stream: the bytes, seekable, from the first one on (`sources.EncodedSource.open`).
        how: channels, orientation and limits.

    Raises:
        Unreadable: for whatever is wrong with the bytes; nothing else is raised for a bad file.
    """
    notes: list[Note] = []
    with guarded(stream, how) as file:
        found = read_plain_jpeg(file, how)
        if found is None:
            with collected() as notes:
                found = _decode(file, how)
    (image, alpha, reduced, of_values), kind, mode, orientation, animated = found
    notes += of_values
    image = turn(image, orientation) if how.exif_orientation else image
    image = fit_channels(image, how.in_chans, alpha, how.alpha_background)
    animated = animated and how.pages == "first"
    if animated:
        notes.append(Note(NoteKind.FRAMES))
    return Decoded(image, kind, mode, orientation, animated, tuple(notes), reduced)


def image_size(stream: Stream, how: Decoding) -> tuple[int, int]:
    """Height and width of what `decode` gives, for most files from the header alone; closes the stream.

    Raises:
        Unreadable: for whatever is wrong with the file, as far as it is looked at.
    """
    with collected(), guarded(stream, how) as file:
        head = file.read(HEAD)
        if has_mark(head) and not _is_tiff_too(head, file):
            return dicom_size(file, how)
        _check_whole_file(file, how)
        try:
            opened = Image.open(file, formats=_formats())
        except UnidentifiedImageError:
            opened = None
        if opened is None or opened.format == "TIFF":  # of which Pillow's size depends on its version
            file.seek(0)
            found = _decode(file, how)
            _, height, width = found.pixels.image.shape
            turned = how.exif_orientation and found.orientation >= 5
        else:
            with opened as im:
                check_pixels(im.height, im.width, how)
                height, width = im.height, im.width
                turned = how.exif_orientation and orientation_of(im) >= 5
        return (width, height) if turned else (height, width)


@contextmanager
def guarded(stream: Stream, how: Decoding) -> Iterator[TimedFile]:
    """A stream that can be read for as long as `how` allows and is closed at the end; what a decoder raises
    becomes `Unreadable`."""
    with TimedFile(stream, how.max_decode_seconds) as file:
        try:
            if not file.peek(1):
                raise Unreadable(Reason.EMPTY)
            yield file
        except (Unreadable, KeyboardInterrupt):
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            raise Unreadable(Reason.TOO_LARGE, _first_line(error)) from None
        except UnidentifiedImageError:
            file.check()  # Pillow asks each format, and takes what it raises for "not mine"
            raise Unreadable(Reason.UNKNOWN_FORMAT) from None
        except Exception as error:  # decoders raise nearly anything on a damaged file
            file.check()
            raise Unreadable(Reason.BROKEN, _first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def open_regular(path: str | bytes) -> io.FileIO:
    """Open a file without waiting (a pipe cannot block), and look at what was opened, not at what was there
    before.

    Raises:
        Unreadable: for what is not there, is no regular file, or may not be read. Nothing is read of it.
    """
    try:
        file = io.FileIO(path, "rb", opener=_without_waiting)
    except IsADirectoryError:
        raise Unreadable(Reason.NOT_A_FILE, "a folder") from None
    except PermissionError:
        raise Unreadable(Reason.FORBIDDEN) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) in (errno.ENXIO, errno.ENODEV):
            raise Unreadable(Reason.NOT_A_FILE, "a socket or a device") from None
        raise Unreadable(Reason.MISSING, getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Unreadable(Reason.NOT_A_FILE)
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _WITHOUT_WAITING)


def _decode(file: TimedFile, how: Decoding) -> Stored:
    head = file.read(HEAD)
    if head.startswith(b"\x93NUMPY"):
        file.seek(0)
        pixels = to_pixels(read_npy(file, how), how)
        return Stored(pixels, "NPY", str(pixels.image.dtype).removeprefix("torch."))
    if has_mark(head) and not _is_tiff_too(head, file):
        return read_dicom(file, how)
    if head[:4] in TIFF_MAGIC:
        return read_tiff(file, how)
    _check_whole_file(file, how)
    with Image.open(file, formats=_formats()) as im:
        kind, mode = im.format or "", im.mode
        animated = _animated(im)
        if animated and how.pages == "channels":
            only = "data.pages channels reads those of TIFF and DICOM alone"
            raise Unreadable(Reason.CHANNELS, f"a {kind} of several frames; {only}")
        pixels = read_pillow(im, file, how)
        return Stored(pixels, kind, mode, orientation_of(im), animated)


def _is_tiff_too(head: bytes, file: TimedFile) -> bool:
    """Whether a DICOM file's first 128 bytes lead to the images of a TIFF; they may hold anything, and often
    hold the beginning of a TIFF that leads nowhere."""
    if head[:4] not in TIFF_MAGIC:
        return False
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    large = 43 in head[2:4]
    place = int.from_bytes(head[8:16] if large else head[4:8], order)
    return MARK_AT <= place < file.seek(0, 2)


def _check_whole_file(file: TimedFile, how: Decoding) -> None:
    """Refuse a WebP or AVIF whose file alone is too large: they are read whole as soon as they are opened."""
    file.seek(0)
    head = file.read(12)
    if head[8:12] == b"WEBP" or head[4:8] == b"ftyp":
        check_memory(file.seek(0, 2), how)
    file.seek(0)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF came with Pillow 11.3


def _animated(im: ImageFile) -> bool:
    try:
        return bool(getattr(im, "is_animated", False))  # for GIF it looks at the second frame
    except Exception:  # which may be damaged, but is not used
        return True
