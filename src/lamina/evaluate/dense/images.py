"""Test images of a dense protocol, read one by one at their own size: progress, faults, some to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lamina.core.batch import Batch, Fault, Remark
from lamina.data.decode.notes import remark_lines
from lamina.data.dense.loader import dense_images
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.loading.bad_files import unread_notes
from lamina.data.options import DataOptions
from lamina.features.options import Progress

SHOWN = 4
"""Test images that the picture shows."""


@dataclass
class DenseImages:
    """The images of a source, to be tested once.

    Args:
        source: images with labels.
        in_chans, reading: how images are read, and by how many processes.
        progress: told how many images of how many are done.
        faults, remarks: what could not be read so far, and what is worth knowing of the others.
    """

    source: MapSource | ObjectSource
    in_chans: int
    reading: DataOptions
    progress: Progress | None = None
    faults: list[Fault] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def groups(self, size: int) -> Iterator[list[Batch]]:
        """Batches of one image each, so many at a time; an image that cannot be read is a fault.

        Raises:
            LaminaError: where no image can be read.
        """
        n = len(self.source.images)
        waiting: list[Batch] = []
        for done, batch in enumerate(
            dense_images(self.source, self.in_chans, self.reading, self.reading.workers), 1
        ):
            self.faults += batch.faults
            self.remarks += batch.remarks
            waiting += [batch] if len(batch) else []
            if waiting and (len(waiting) == size or done == n):
                yield waiting
                waiting = []
            if self.progress is not None:
                self.progress(done, n, 0.0)

    def shown(self, batch: Batch) -> str | None:
        """The name of an image that the picture shows, else None; they are spread evenly, whatever their
        order."""
        assert batch.keys is not None
        n, index = len(self.source.images), int(batch.keys[0])
        wanted = {(2 * i + 1) * n // (2 * SHOWN) for i in range(SHOWN)}
        return self.source.images.name(index) if index in wanted else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on images that could not be read, and on how others were read."""
        unread = unread_notes(self.faults, len(self.source.images), "test images")
        return (*unread, *remark_lines(self.remarks))
