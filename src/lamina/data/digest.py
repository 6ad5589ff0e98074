"""A digest of images, by which results tell them from others of the same name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from lamina.data.sources import Source


def images_digest(*sources: Source, labels: Iterable[bytes] = ()) -> str:
    """A digest by which a result tells its images from others of the same name, and knows copies again.

    It covers the names in their order, the classes and their labels, and of the content what
    `Source.content` covers: of files the sizes of all and the bytes of a sample (`data.content`), of images
    in memory all pixels. Where the images lie does not count. `labels` are digests of what else is known of
    them, such as masks.
    """
    return joined_digests(*map(_digest_of, sources), *(each.hex() for each in labels))


def joined_digests(*digests: str) -> str:
    """One digest for several: of images in parts, each of which has its own."""
    return digests[0] if len(digests) == 1 else short_digest(" ".join(digests))


def _digest_of(source: Source) -> str:
    digest = hashlib.sha256(source.content(range(len(source))) or b"")
    for i in range(len(source)):
        digest.update(os.fsencode(source.name(i)) + b"\0")
    digest.update(repr((source.labels, source.class_names)).encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]


def short_digest(text: str) -> str:
    """The first 12 digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
