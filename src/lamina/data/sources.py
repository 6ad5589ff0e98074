"""Where images come from: a `Source` gives image i, its name and, where there are classes, its label."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal

from jaxtyping import Shaped
from torch import Tensor

from lamina.data.content import files_digest
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded, decode_file
from lamina.data.file_names import Names
from lamina.data.options import AS_STORED, Decoding

Split = Literal["train", "val", "all"]


class Source(ABC):
    """A fixed sequence of images; a source of one's own needs only `inspect`.

    `labels` are indices into `class_names`, or None where there are no classes; `no_labels` says why.
    `notes` are sentences for users: what was found beside the images and is not used, which parts there are.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        self._names = Names(names)
        self.labels = None if labels is None else list(labels)
        self.class_names = tuple(class_names)
        self.notes, self.no_labels = tuple(notes), no_labels

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """What image i is called: its path below the folder, or as it was listed."""
        return self._names[i]

    @abstractmethod
    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""

    def read(self, i: int, how: Decoding = AS_STORED) -> Shaped[Tensor, "C H W"]:
        """Image i in its stored range (uint8, or float in [0, 1]); raises `Unreadable`."""
        return self.inspect(i, how).image

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """What differs where the content of these images may; None where a source cannot tell."""
        return None

    def content(self, indices: Sequence[int]) -> bytes | None:
        """What differs where the content of these images does, wherever they lie, as far as is cheap to find
        out; None where a source cannot tell."""
        return self.fingerprint(indices)

    def identity(self) -> str | None:
        """SHA-256 over names, classes and `fingerprint`, for what is kept of these images elsewhere."""
        content = self.fingerprint(range(len(self)))
        if content is None:
            return None
        digest = hashlib.sha256(content)
        for i in range(len(self)):
            digest.update(os.fsencode(self.name(i)) + b"\0")
        digest.update(repr((self.labels, self.class_names)).encode())
        return digest.hexdigest()


def names_sha256(names: Iterable[str]) -> str:
    """SHA-256 of names in their order, by which a run knows its images again."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


class FileSource(Source):
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
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.root = root

    def path(self, i: int) -> str:
        """The path of image i."""
        return os.path.join(self.root, self.name(i))

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""
        return decode_file(self.path(i), how)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of each file."""
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.root)))
        for i in indices:
            try:
                stat = os.stat(self.path(i))
            except OSError:
                digest.update(b"absent ")
            else:
                digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode())
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the files and a sample of their bytes (`content.files_digest`)."""
        return files_digest([self.path(i) for i in indices])


class Subset(Source):
    """Some images of another source, in the order of their indices' list."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        labels = None if source.labels is None else [source.labels[i] for i in indices]
        super().__init__(
            [source.name(i) for i in indices],
            labels,
            source.class_names,
            notes=source.notes,
            no_labels=source.no_labels,
        )
        self.source, self.indices = source, list(indices)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""
        return self.source.inspect(self.indices[i], how)

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """That of the source."""
        return self.source.fingerprint([self.indices[i] for i in indices])

    def content(self, indices: Sequence[int]) -> bytes | None:
        """That of the source."""
        return self.source.content([self.indices[i] for i in indices])


class ArraySource(Source):
    """Images of one size in memory, (N, C, H, W), uint8 or float in [0, 1]."""

    def __init__(
        self,
        images: Shaped[Tensor, "N C H W"],
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(names, labels, class_names)
        self.images = images

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i; raises `Unreadable` where its channels do not fit."""
        image = fit_channels(self.images[i], how.in_chans, alpha=False)
        return Decoded(image, "memory", str(image.dtype).removeprefix("torch."))

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the pixels."""
        digest = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape[1:])}".encode())
        for i in indices:
            digest.update(self.images[i].contiguous().numpy().data)
        return digest.digest()
