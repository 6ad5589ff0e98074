"""What is known of the images before a run: how many there are, and how large those of a sample are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from lamina.core.batch import Remark
from lamina.core.text import counted
from lamina.data.decode.notes import OF_VALUES, NoteKind, remark_lines, remarks_on
from lamina.data.decode.unreadable import Unreadable
from lamina.data.options import DataOptions
from lamina.data.sources import Source

SIZES = 64
"""Images whose size is looked up, for most files in the header alone."""
DECODED, DECODING_SECONDS = 16, 1.0
"""Images that are decoded at most, for their channels and for the time that it takes, and the processor time
after which no further one is."""


@dataclass(frozen=True)
class ImageFacts:
    """The images of a run. What is None is not known."""

    images: int
    height: float | None = None
    """Median height of a sample, in pixels; so is the width."""
    width: float | None = None
    channels: int = 3
    """As many as the encoder needs, alpha aside: 3 where images differ in it."""
    decode_seconds: float | None = None
    """Median processor time for decoding one image."""
    notes: tuple[str, ...] = ()
    """Sentences on the values of the images that were decoded: how many were clipped or filled."""

    @property
    def side(self) -> float | None:
        """The shorter side, in pixels."""
        return None if self.height is None or self.width is None else min(self.height, self.width)

    def __str__(self) -> str:
        count = f"{self.images:,} image" + ("s" if self.images != 1 else "")
        if self.height is None or self.width is None:
            return count
        grey = {1: ", grey", 3: ""}.get(self.channels, f", {self.channels} channels")
        return f"{count} of about {self.width:.0f} x {self.height:.0f} px{grey}"


def look_at(source: Source, options: DataOptions) -> ImageFacts:
    """What a sample of the images says, evenly spread over them. Files that cannot be read are left out: the
    training counts them."""
    how = options.decoding(None)
    sizes: list[tuple[int, int]] = []
    source.read_ahead(_spread(len(source), SIZES), how)
    for i in _spread(len(source), SIZES):
        with suppress(Unreadable):
            sizes.append(source.size(i, how))
    channels: set[int] = set()
    seconds: list[float] = []
    remarks: list[Remark] = []
    source.read_ahead(_spread(len(source), DECODED), how)
    for i in _spread(len(source), DECODED):
        started = time.process_time()
        if sum(seconds) > DECODING_SECONDS:
            break
        with suppress(Unreadable):
            found = source.inspect(i, how)
            image = found.image
            seconds.append(time.process_time() - started)
            remarks += remarks_on(i, source.name(i), (n for n in found.notes if n.kind in OF_VALUES))
            channels.add(len(image) - _has_alpha(source, i, len(image), options))
    if not sizes:
        return ImageFacts(len(source))
    height, width = (median(each) for each in zip(*sizes, strict=True))
    in_chans = channels.pop() if len(channels) == 1 else 3
    return ImageFacts(
        len(source),
        height,
        width,
        in_chans,
        median(seconds) if seconds else None,
        _of_values(remarks, len(seconds), options),
    )


def _of_values(remarks: Sequence[Remark], looked_at: int, options: DataOptions) -> tuple[str, ...]:
    """What was found of the values in so many images."""
    lines = remark_lines(remarks)
    if options.value_range is not None and not any(r.kind == NoteKind.CLIPPED for r in remarks):
        lines = (f"no value outside of data.value_range {options.value_range}", *lines)
    return tuple(f"of {counted(looked_at, 'image')} looked at: {line}" for line in lines)


def _spread(n: int, most: int) -> list[int]:
    """Up to `most` of n indices, evenly spread."""
    return [k * n // min(n, most) for k in range(min(n, most))]


def _has_alpha(source: Source, i: int, channels: int, options: DataOptions) -> bool:
    """Whether the last of two or four channels is alpha, so that the image can be read without it."""
    if channels not in (2, 4):
        return False
    try:
        source.read(i, options.decoding(channels - 1))
    except Unreadable:
        return False
    return True
