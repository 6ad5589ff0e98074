"""The one interface through which lamina sees images, `Source`, and the ways in which images are kept.

A source is a fixed sequence of images, numbered from 0 to len(source) - 1. Of image i it gives:

- `name(i)`: a text that errors and tables show, and by which a run knows its images again;
- `inspect(i, how)`, or `read(i, how)` without what the file says: the decoded image;
- `size(i, how)`: the height and width of that image, where possible without decoding it;
- `open(i)`: the bytes of its file, or None where it is not kept as a file (their number, equal files).

`read_ahead(indices)` tells it which images this process reads next, for sources that wait for a network.

Of all images it gives `labels` and `class_names` (or `multi_labels`, where an image may have several of the
names), sentences for users (`notes`, `no_labels`), and digests:
`content` is the same for copies in other places, `fingerprint` may differ for them. Nothing else asks where
an image lies. Worker processes have a source too, so it holds no open file, and what there is of each image
is in arrays that they share (`lamina.data.columns`); its methods are called in any order, in several
processes at the same time.

Another way to keep images: those that are files within something else derive from `EncodedSource` and write
`open`, and are then decoded, limited and reported like files in a folder; pixels in memory are an
`ArraySource`; others derive from `Source` and write `inspect`. `data/open.py` gives a source for its name.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray
from torch import Tensor

from lamina.data.columns import Names, Numbers, SharedArray, chunks, encoded_name
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded, decode, image_size, open_regular
from lamina.data.decode.limits import Stream
from lamina.data.decode.values import in_memory
from lamina.data.digest import file_state, files_digest, images_sha256, joined_digests
from lamina.data.options import AS_STORED, Decoding

if TYPE_CHECKING:
    from lamina.data.reading import Reading

Split = Literal["train", "val", "all"]
SEVERAL = (
    "each image has any number of labels, which `lamina evaluate linear`, knn, linear-mae, attentive and "
    "finetune take; for others name one column of classes"
)
"""Why there are no classes where there are `multi_labels`."""


class Version(NamedTuple):
    """What the keeper of a data set calls the state that it is in."""

    revision: str = ""
    """The commit of a repository: of the same one, images are the same."""
    fingerprint: str = ""
    """A digest that another copy of the same images need not have."""


class Source(ABC):
    """A fixed sequence of images; see the docstring of this file.

    Args:
        names: a text for each image.
        labels: of each image an index into `class_names`; None where there are no classes.
        class_names: names of the classes.
        notes: sentences for users: what was found beside the images and is not used, which parts there are.
        no_labels: why there are no classes, where there are none; it completes a sentence.
        multi_labels: which of `class_names` each image has, where it may have several, or none of them;
            `labels` are None then.
    """

    reading: Reading | None = None
    """What the path says of how the images are read, which a training has to keep (`reading`)."""
    version: Version = Version()
    """The state that the data set is in, where its keeper has a name for it."""

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
        multi_labels: Bool[NDArray[np.bool_], "N K"] | None = None,
    ) -> None:
        self._names = names if isinstance(names, Names) else Names(names)
        self.labels = labels if labels is None or isinstance(labels, Numbers) else Numbers(labels)
        self.class_names = tuple(class_names)
        self.notes, self.no_labels = tuple(notes), no_labels if multi_labels is None else SEVERAL
        self._several = None if multi_labels is None else SharedArray(multi_labels)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def multi_labels(self) -> Bool[NDArray[np.bool_], "N K"] | None:
        """Which of `class_names` each image has, where it may have several; it must not be changed."""
        return None if self._several is None else self._several.values

    def name(self, i: int) -> str:
        """What image i is called: its path below the folder, or as it was listed."""
        return self._names[i]

    def encoded_names(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The names of these images in UTF-8, each with a NUL behind it, of many images in each piece."""
        if type(self).name is Source.name:
            return map(self._names.encoded, chunks(indices))
        return (encoded_name(self.name(i)) for i in indices)

    @abstractmethod
    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""

    def read(self, i: int, how: Decoding = AS_STORED) -> Shaped[Tensor, "C H W"]:
        """Image i in its stored range (uint8, or float in [0, 1]); raises `Unreadable`."""
        return self.inspect(i, how).image

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """Height and width in pixels of `read(i, how)`; raises `Unreadable`."""
        _, height, width = self.read(i, how).shape
        return height, width

    def open(self, i: int) -> Stream | None:
        """The bytes of the file of image i, seekable; who asks closes them. None where the image is not kept
        as a file. Raises `Unreadable` where the file cannot be opened."""
        return None

    def read_ahead(self, indices: Sequence[int], how: Decoding = AS_STORED) -> None:
        """Say that this process is going to read these images next, with `how`: a source that waits for each
        of them may begin to read all at the same time. An image that is opened several times is listed as
        often, and is then asked for once. By default nothing happens."""
        return None

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """What differs where the content of these images may; None where a source cannot tell."""
        return None

    def content(self, indices: Sequence[int]) -> bytes | None:
        """What differs where the content of these images does, wherever they lie, as far as is cheap to find
        out; None where a source cannot tell."""
        return self.fingerprint(indices)

    def identity(self) -> str | None:
        """SHA-256 over names, classes and `fingerprint`, for what is kept of these images elsewhere."""
        known = self.fingerprint(range(len(self)))
        return None if known is None else self.sha256(known)

    def sha256(self, content: bytes) -> str:
        """SHA-256 of what is known of the content of all images, of their names and of their classes."""
        if self.multi_labels is not None:
            content += self.multi_labels.tobytes()
        return images_sha256(content, self.encoded_names(range(len(self))), self.labels, self.class_names)


class EncodedSource(Source):
    """Images that are kept as bytes of a file's format, wherever these bytes lie."""

    @abstractmethod
    def open(self, i: int) -> Stream:
        """The bytes of the file of image i, seekable, from the first one on; raises `Unreadable`."""

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""
        return decode(self.open(i), how)

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """Height and width in pixels of `read(i, how)`, mostly from the header; raises `Unreadable`."""
        return image_size(self.open(i), how)


class FileSource(EncodedSource):
    """Images in files; names are paths relative to `root`."""

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
        multi_labels: Bool[NDArray[np.bool_], "N K"] | None = None,
    ) -> None:
        super().__init__(
            names, labels, class_names, multi_labels=multi_labels, notes=notes, no_labels=no_labels
        )
        self.root = root

    def path(self, i: int) -> str:
        """The path of image i."""
        return os.path.join(self.root, self.name(i))

    def open(self, i: int) -> Stream:
        """The file of image i; raises `Unreadable`."""
        return open_regular(self.path(i))

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of each file."""
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.root)))
        for i in indices:
            digest.update(file_state(self.path(i)))
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the files and a sample of their bytes (`digest.files_digest`)."""
        return files_digest(map(self.path, indices), len(indices))


class Subset(Source):
    """Some images of another source, in the order of their indices' list."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        own = indices if isinstance(indices, Numbers) else Numbers(indices)
        labels = None if source.labels is None else source.labels.at(own)
        several = None if source.multi_labels is None else source.multi_labels[own.values]
        super().__init__(
            (),
            labels,
            source.class_names,
            notes=source.notes,
            no_labels=source.no_labels,
            multi_labels=several,
        )
        self.source, self.indices = source, own
        self.reading, self.version = source.reading, source.version

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, i: int) -> str:
        """As of the source."""
        return self.source.name(self.indices[i])

    def encoded_names(self, indices: Sequence[int]) -> Iterator[bytes]:
        """As of the source."""
        return self.source.encoded_names(self.indices.at(indices))

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """As of the source."""
        return self.source.inspect(self.indices[i], how)

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """As of the source."""
        return self.source.size(self.indices[i], how)

    def open(self, i: int) -> Stream | None:
        """As of the source."""
        return self.source.open(self.indices[i])

    def read_ahead(self, indices: Sequence[int], how: Decoding = AS_STORED) -> None:
        """As of the source."""
        self.source.read_ahead(self.indices.at(indices), how)

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """As of the source."""
        return self.source.fingerprint(self.indices.at(indices))

    def content(self, indices: Sequence[int]) -> bytes | None:
        """As of the source."""
        return self.source.content(self.indices.at(indices))


class ArraySource(Source):
    """Images of one size in memory, (N, C, H, W), uint8 or float in [0, 1]."""

    def __init__(
        self,
        images: Shaped[Tensor, "N C H W"],
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        multi_labels: Bool[NDArray[np.bool_], "N K"] | None = None,
    ) -> None:
        super().__init__(names, labels, class_names, multi_labels=multi_labels)
        self.images = images

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i; raises `Unreadable` where its channels do not fit."""
        found = in_memory(self.images[i], how)
        image = fit_channels(found.image, how.in_chans, alpha=False)
        return Decoded(image, "memory", str(image.dtype).removeprefix("torch."), notes=found.notes)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the pixels."""
        digest = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape[1:])}".encode())
        for i in indices:
            digest.update(self.images[i].contiguous().numpy().data)
        return digest.digest()


def images_digest(*sources: Source, labels: Iterable[bytes] = ()) -> str:
    """A digest by which a result tells its images from others of the same name, and knows copies again.

    It covers the names in their order, the classes and their labels, and of the content what
    `Source.content` covers: of files the sizes of all and the bytes of a sample (`files_digest`), of images
    in memory all pixels. Where the images lie does not count. `labels` are digests of what else is known of
    them, such as masks.
    """
    parts = [each.sha256(each.content(range(len(each))) or b"")[:12] for each in sources]
    return joined_digests(*parts, *(each.hex() for each in labels))
