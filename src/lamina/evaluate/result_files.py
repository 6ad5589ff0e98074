"""The files that results of a run are kept in: one for each protocol, data, settings, seed and step."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from lamina.core.records import read_object
from lamina.data import Source


def file_name(text: str, most: int = 80) -> str:
    """What something is called, as part of a file's name; what is longer than `most` ends in a digest."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-.") or "data"
    if len(name) <= most:
        return name
    return f"{name[-most + 20 :]}-{short_digest(text)}"


def result_file(
    results: Path,
    protocol: str,
    data: str,
    way: str,
    seed: int,
    earlier_step: int | None = None,
    images: str = "",
) -> Path:
    """PROTOCOL-DATA-WAY-seedS.json in the folder `results`, with @STEP for a step that is not the newest.

    Other data or settings have another file: where the file is taken, since their names differ in punctuation
    alone or one name (a relative path) stands for other images, a digest is added.

    Args:
        results: folder of the run.
        protocol, data, seed: of the result.
        way: the settings that differ from the usual ones, as text; "" for none.
        earlier_step: the step of the run that was evaluated, where it is not the newest.
        images: `images_digest` of the data; "" where it is not known.
    """
    step = "" if earlier_step is None else f"@{earlier_step}"
    called = file_name(data) + (f"-{file_name(way)}" if way else "")
    file = results / f"{protocol}-{called}-seed{seed}{step}.json"
    texts = (f"{data}|{way}", f"{data}|{way}|{images}")
    files = (file, *(results / f"{protocol}-{called}-{short_digest(t)}-seed{seed}{step}.json" for t in texts))
    return next((each for each in files if _is_of(each, data, way, images)), files[-1])


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


def _is_of(file: Path, data: str, way: str, images: str) -> bool:
    """Whether the file is free for these data and settings: not there, of the same, or damaged. A result of
    an earlier version does not say its images; it counts as one of the same."""
    try:
        content = read_object(file)
        same = images == "" or content.get("images", "") in ("", images)
        return bool(same and (content["data"], content.get("way", "")) == (data, way))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def short_digest(text: str) -> str:
    """The first 12 digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
