"""Images that are read as their path says, whoever asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lamina.data.decode.decode import Decoded
from lamina.data.decode.limits import Stream
from lamina.data.options import AS_STORED, DataOptions, Decoding
from lamina.data.reading import Reading
from lamina.data.sources import Source


class ReadAs(Source):
    """The images of another source, read as a path says.

    Reading them with other options than those raises `LaminaError`.
    """

    reading: Reading

    def __init__(self, source: Source, reading: Reading) -> None:
        note = f"images are read with {reading}, as the path says"
        super().__init__(
            (),
            source.labels,
            source.class_names,
            notes=(*source.notes, note),
            no_labels=source.no_labels,
            multi_labels=source.multi_labels,
        )
        self.source, self.reading, self.version = source, reading, source.version

    def __len__(self) -> int:
        return len(self.source)

    def name(self, i: int) -> str:
        """As of the source."""
        return self.source.name(i)

    def encoded_names(self, indices: Sequence[int]) -> Iterator[bytes]:
        """As of the source."""
        return self.source.encoded_names(indices)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """As of the source, read as the path says."""
        return self.source.inspect(i, self.reading.applied(how))

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """As of the source, read as the path says."""
        return self.source.size(i, self.reading.applied(how))

    def open(self, i: int) -> Stream | None:
        """As of the source."""
        return self.source.open(i)

    def read_ahead(self, indices: Sequence[int], how: Decoding = AS_STORED) -> None:
        """As of the source, read as the path says."""
        self.source.read_ahead(indices, self.reading.applied(how))

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """As of the source, with what the path says."""
        return self._with_reading(self.source.fingerprint(indices))

    def content(self, indices: Sequence[int]) -> bytes | None:
        """As of the source, with what the path says."""
        return self._with_reading(self.source.content(indices))

    def _with_reading(self, known: bytes | None) -> bytes | None:
        return None if known is None else known + str(self.reading).encode()


def read_as(options: DataOptions, source: Source) -> DataOptions:
    """The options with what the path of the images says of how they are read.

    Raises:
        LaminaError: where the two say different things.
    """
    return options if source.reading is None else source.reading.completed(options)
