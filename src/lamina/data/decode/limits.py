"""How much memory and time one image may take: counted before it is decoded, and kept while it is."""

from __future__ import annotations

import io
import time

from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

_MIB = 2**20
_SMALL_BYTES = 512
_LARGE_BYTES = 1 << 24
Stream = io.RawIOBase | io.BufferedIOBase
"""Bytes that can be read in any order: a file, a part of one, or `io.BytesIO`."""


def check_pixels(height: int, width: int, how: Decoding) -> None:
    """Refuse an image by the size that its header states, before anything is decoded.

    Raises:
        Unreadable: where it has more pixels than `how.max_pixels`.
    """
    if height * width > how.max_pixels:
        raise Unreadable(
            Reason.TOO_LARGE, f"{width} x {height} px, at most {how.max_pixels} pixels (max_pixels)"
        )


def check_memory(n_bytes: int, how: Decoding) -> None:
    """Refuse an image by the memory that decoding it takes at its highest.

    Args:
        n_bytes: all buffers that exist at the same time: those of the decoder, the array that it fills, and
            copies that are made of it.
        how: its `max_decode_mb` is the limit, in MiB.

    Raises:
        Unreadable: where it takes more.
    """
    if n_bytes > how.max_decode_mb * _MIB:
        taken = f"decoding takes about {n_bytes / _MIB:,.0f} MiB"
        raise Unreadable(Reason.TOO_LARGE, f"{taken}, at most {how.max_decode_mb} MiB (max_decode_mb)")


def check_fitting(height: int, width: int, channels: int, item: int, how: Decoding) -> None:
    """Refuse what turning the array and fitting its channels would make too large; `item` in bytes."""
    copies = 2 * channels if how.exif_orientation else channels
    fitted = 0 if how.in_chans in (None, channels) else min(channels, how.in_chans or 0)
    check_memory(height * width * item * (copies + fitted), how)


class TimedFile(io.BufferedReader):
    """A file whose reading ends when decoding has taken too long.

    Decoders ask for their data piece by piece, so this is where they can be stopped: in any thread, in
    worker processes and in the main process, on every system, and without a signal. What counts is the
    processor time of the thread, so that a slow disk or a busy machine costs no image.
    """

    def __init__(self, raw: Stream, seconds: float) -> None:
        super().__init__(raw)
        self._seconds = seconds
        self._end = time.thread_time() + seconds
        self._small_reads = 0

    @property
    def name(self) -> str:
        """What libraries call it in errors: streams in memory and in archives have no name."""
        return "image"

    def check(self) -> None:
        """Raises `Unreadable` where the time is over."""
        if time.thread_time() > self._end:
            detail = f"more than {self._seconds:g} s of processor time (max_decode_seconds)"
            raise Unreadable(Reason.TOO_SLOW, detail)

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file, but for the time, which is looked at with each piece of data, or each 16th of those
        small ones that a header is read in."""
        self._small_reads += 1
        if size is not None and size > _LARGE_BYTES:  # for which memory is taken before anything is read
            size = min(size, self._left())
        if size is None or not 0 <= size <= _SMALL_BYTES or self._small_reads % 16 == 0:
            self.check()
        return super().read(size)

    def _left(self) -> int:
        here = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(here)
        return max(0, end - here)

    def readinto(self, buffer: object, /) -> int:
        """As of any file, but for the time."""
        self.check()
        return super().readinto(buffer)  # type: ignore[arg-type]
