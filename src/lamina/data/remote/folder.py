"""Images that are files at a remote, each read by one request."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np

from lamina.data.columns import Names, Numbers
from lamina.data.decode.limits import Stream, check_memory
from lamina.data.digest import encoded_digest
from lamina.data.options import AS_STORED, Decoding
from lamina.data.remote.ahead import ReadAhead
from lamina.data.remote.requests import in_parallel, read_whole
from lamina.data.sources import EncodedSource


class RemoteFiles(EncodedSource):
    """Images in files at a remote.

    Args:
        urls: of each image.
        states: of each file the number of its bytes, and what differs where it was written anew, when it was
            listed.
        names, labels, class_names, notes, no_labels: as `Source`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        states: Sequence[tuple[int, str]],
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.urls, self.stamps = Names(urls), Names([stamp for _, stamp in states])
        self.sizes = Numbers([size for size, _ in states])
        self._ahead = ReadAhead()

    def open(self, i: int) -> Stream:
        """The bytes of image i.

        Raises:
            Unreadable: where the file is gone, may not be read, or has another size than it had.
            LaminaError: where the remote does not answer.
        """
        return self._ahead.take(i) or self._read(i)

    def read_ahead(self, indices: Sequence[int], how: Decoding = AS_STORED) -> None:
        """Ask the remote for several of these images at a time."""
        self._ahead.start(indices, self._read)

    def _read(self, i: int) -> io.BytesIO:
        check_memory(self.sizes[i], AS_STORED)  # it is held in memory
        return io.BytesIO(read_whole(self.urls[i], self.sizes[i]))

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the URL, size and state of each file."""
        digest = hashlib.sha256(self.urls.encoded(indices))
        for i in indices:
            digest.update(f"{self.sizes[i]} {self.stamps[i]} ".encode())
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the files and a sample of their bytes (`digest.files_digest`)."""
        sizes = self.sizes.at(indices).values.astype(np.int64)
        return encoded_digest(sizes, lambda k: self.open(indices[k]), in_parallel)
