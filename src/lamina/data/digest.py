"""Digests of files and names, by which results and runs know images again and tell them from others."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.data.columns import chunks
from lamina.data.decode.unreadable import Unreadable

SAMPLED_FILES = 1024
"""Files whose bytes are read, evenly spread over all of them."""
SAMPLED_BYTES = 1 << 16
"""Bytes that are read at each end of such a file; a file of up to twice as many is read whole."""


def files_digest(paths: Iterable[str], n: int) -> bytes:
    """SHA-256 of the size of each of n files in its order, and of the bytes of a sample of them.

    Up to `SAMPLED_FILES` files of up to twice `SAMPLED_BYTES` are covered to the last byte. Of more files,
    a change that keeps the size of each is found where it touches one of the sample; of larger ones, where it
    touches the beginning or the end. Neither places nor times count: a copy has the same digest.
    """
    digest, with_bytes = hashlib.sha256(), sampled(n)
    for i, path in enumerate(paths):
        digest.update(_of_file(path, i in with_bytes))
    return digest.digest()


def encoded_digest(
    sizes: Int64[NDArray[np.int64], "n"],
    opened: Callable[[int], io.RawIOBase | io.BufferedIOBase],
    each: Callable[..., Iterable[bytes]] = map,
) -> bytes:
    """`files_digest` of files within something else, or at a remote.

    Args:
        sizes: the number of bytes of each; below 0 where it is not known.
        opened: the bytes of one by its number, closed here; where it raises, the file is unreadable.
        each: opens them: one after the other, or several at a time (`requests.in_parallel`).
    """
    digest, n = hashlib.sha256(), len(sizes)
    with_bytes = sampled(n)

    def known(i: int) -> bytes:
        try:
            with opened(i) as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(0)
                return f"{length} ".encode() + (ends_digest(file, length) if i in with_bytes else b"")
        except (OSError, Unreadable):
            return b"unreadable "

    looked_at = sorted({*with_bytes, *np.flatnonzero(sizes < 0).tolist()})  # the first one always
    for found, (i, following) in zip(each(known, looked_at), pairwise([*looked_at, n]), strict=True):
        digest.update(found)
        digest.update("".join(f"{size} " for size in sizes[i + 1 : following].tolist()).encode())
    return digest.digest()


def sampled(n: int) -> Collection[int]:
    """Which of n files `files_digest` reads bytes of."""
    return range(n) if n <= SAMPLED_FILES else {i * n // SAMPLED_FILES for i in range(SAMPLED_FILES)}


def ends_digest(file: BinaryIO | io.RawIOBase | io.BufferedIOBase, size: int) -> bytes:
    """SHA-256 of the first and the last `SAMPLED_BYTES` of a file; of a short one, of all its bytes."""
    if size <= 2 * SAMPLED_BYTES:
        return hashlib.sha256(file.read(2 * SAMPLED_BYTES) or b"").digest()
    digest = hashlib.sha256(file.read(SAMPLED_BYTES) or b"")
    file.seek(size - SAMPLED_BYTES)
    digest.update(file.read(SAMPLED_BYTES) or b"")
    return digest.digest()


def _of_file(path: str, with_bytes: bool) -> bytes:
    """The size, and the ends of a plain file; what cannot be read has a value of its own."""
    try:
        found = os.stat(path)
        size = f"{found.st_size} ".encode()
        if not with_bytes or not stat.S_ISREG(found.st_mode):
            return size
        with open(path, "rb") as file:
            return size + ends_digest(file, found.st_size)
    except OSError:
        return b"unreadable "


def file_state(path: str) -> bytes:
    """The size and the time of change of a file, by which this machine knows it again."""
    try:
        found = os.stat(path)
    except OSError:
        return b"absent "
    return f"{found.st_size} {found.st_mtime_ns} ".encode()


def placed_state(path: str) -> bytes:
    """The real path of a file, and its `file_state`."""
    return os.fsencode(os.path.realpath(path)) + b"\0" + file_state(path)


def joined_digests(*digests: str) -> str:
    """One digest for several: of images in parts, each of which has its own."""
    return digests[0] if len(digests) == 1 else short_digest(" ".join(digests))


def images_sha256(
    content: bytes, names: Iterable[bytes], labels: Sequence[int] | None, class_names: Sequence[str]
) -> str:
    """SHA-256 of what is known of the content of images, of their names (`Source.encoded_names`), labels and
    classes."""
    digest = hashlib.sha256(content)
    for piece in names:
        digest.update(piece)
    if labels is None:
        digest.update(b"(None, ")
    else:  # as a list is written
        for k, some in enumerate(chunks(labels)):
            digest.update(((", " if k else "([") + ", ".join(map(str, some))).encode())
        digest.update(b"], " if len(labels) else b"([], ")
    digest.update(f"{tuple(class_names)!r})".encode(errors="surrogateescape"))
    return digest.hexdigest()


def names_sha256(names: Iterable[bytes]) -> str:
    """SHA-256 of names in their order (`Source.encoded_names`), by which a run knows its images again."""
    digest = hashlib.sha256()
    for piece in names:
        digest.update(piece)
    return digest.hexdigest()


def short_digest(text: str) -> str:
    """The first 12 digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
