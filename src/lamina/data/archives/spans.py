"""Images whose bytes are a part of a larger file each: where they lie, and how they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.data.archives.files import State, identity_of, part_of, states_of
from lamina.data.archives.members import PLAIN, Place
from lamina.data.archives.unpack import unpack
from lamina.data.columns import Numbers, SharedArray, selected
from lamina.data.decode.decode import Decoded, decode, image_size
from lamina.data.decode.limits import Stream
from lamina.data.digest import encoded_digest
from lamina.data.options import AS_STORED, Decoding
from lamina.data.remote.ahead import ReadAhead
from lamina.data.remote.requests import in_parallel
from lamina.data.remote.urls import is_url
from lamina.data.sources import EncodedSource

Spans = Int64[NDArray[np.int64], "N k"]
"""Of each image the number of its file, and the first byte and the number of bytes in it; where an image is
packed, also how, its size and its checksum (`members.Place`)."""
_PLAIN_COLUMNS = 3


class SpanSource(EncodedSource):
    """Images that are parts of files.

    Args:
        files: paths of the files.
        spans: where each image lies.
        names, labels, class_names, notes, no_labels: as `Source`.
        states: the state of each file in which the images lie where `spans` says, by default that of now;
            what lies in a file of another state is unreadable.
    """

    def __init__(
        self,
        files: Sequence[str],
        spans: Spans | SharedArray,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
        states: Sequence[State] | None = None,
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.files, self.states = tuple(files), tuple(states_of(files) if states is None else states)
        self._remote, self._ahead = any(map(is_url, files)), ReadAhead()
        self._spans = spans if isinstance(spans, SharedArray) else SharedArray(_needed(spans))

    @property
    def spans(self) -> Spans:
        """Where each image lies."""
        return self._spans.values

    def columns(self) -> dict[str, NDArray[Any]]:
        """All that there is of each image, by the names of the arguments."""
        labels = Numbers([]) if self.labels is None else self.labels
        text, ends = self._names.text.values, self._names.ends.values
        return {"spans": self.spans, "text": text, "ends": ends, "labels": labels.values}

    def open(self, i: int, how: Decoding = AS_STORED) -> Stream:
        """The bytes of image i.

        Raises:
            Unreadable: where the file is gone or was changed, or where unpacking the image fails or takes
                more memory than `how` allows.
        """
        return self._ahead.take(i) or self._read(i, how)

    def read_ahead(self, indices: Sequence[int], how: Decoding = AS_STORED) -> None:
        """Ask a remote for several of these images at a time; files here are read when they are needed."""
        if self._remote:
            self._ahead.start(indices, partial(self._read, how=how))

    def _read(self, i: int, how: Decoding) -> Stream:
        number, *place = self.spans[i].tolist()
        return unpack(partial(part_of, self.files[number], self.states[number]), Place(*place), how)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""
        return decode(self.open(i, how), how)

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """Height and width in pixels of `read(i, how)`, mostly from the header; raises `Unreadable`."""
        return image_size(self.open(i, how), how)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path and state of the files, and of where the images lie in them."""
        digest, spans = hashlib.sha256(), selected(self.spans, indices)
        for number in np.unique(spans[:, 0]).tolist():
            digest.update(os.fsencode(identity_of(self.files[number])) + b"\0")
            digest.update(repr(tuple(self.states[number])).encode())
        digest.update(np.ascontiguousarray(spans).data)
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes: that of the same files in a folder
        (`digest.files_digest`)."""
        each = in_parallel if self._remote else map
        return encoded_digest(self._sizes(indices), lambda k: self.open(indices[k]), each)

    def _sizes(self, indices: Sequence[int]) -> Int64[NDArray[np.int64], "n"]:
        """The number of bytes of each image, unpacked."""
        spans = selected(self.spans, indices)
        packed = spans.shape[1] > _PLAIN_COLUMNS
        sizes: Int64[NDArray[np.int64], "n"] = spans[:, 2]
        return np.where(spans[:, 3] == PLAIN, sizes, spans[:, 4]) if packed else sizes


def _needed(spans: Spans) -> Spans:
    """Without what no image needs, where all lie in their archives as they are."""
    plain = spans.shape[1] > _PLAIN_COLUMNS and bool((spans[:, 3] == PLAIN).all())
    return np.ascontiguousarray(spans[:, :_PLAIN_COLUMNS]) if plain else spans
