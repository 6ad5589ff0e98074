"""The settings that all scores of a comparison share, on disk: scores of other data are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.records import as_json, read_object
from lamina.data.dense.open import open_maps, open_objects
from lamina.evaluate.dense.data import TwoParts
from lamina.evaluate.protocol import Protocol
from lamina.features.data import open_labelled
from lamina.runs.same_settings import check_same_settings

SETTINGS = "comparison.json"
IMAGES = "images"


def images_of(data: str, protocols: Sequence[Protocol]) -> dict[str, str]:
    """Digests of the images of `data` and their labels, by kind: "labelled", "segment" and "detect", as far
    as the protocols need them.

    Raises:
        LaminaError: where the data lack what a protocol needs.
    """
    found = {}
    labels = {protocol.labels for protocol in protocols}
    if "classes" in labels:
        found["labelled"] = open_labelled(data).images_digest
    if "maps" in labels:
        found["segment"] = TwoParts(data, *(open_maps(data, part) for part in ("train", "val"))).images_digest
    if "objects" in labels:
        objects = TwoParts(data, *(open_objects(data, part) for part in ("train", "val")))
        found["detect"] = objects.images_digest
    return found


def check_settings(
    out: Path, settings: Mapping[str, Any], images: Mapping[str, str], say: Callable[[str], None]
) -> dict[str, Any]:
    """See that the scores in the folder were measured with these settings, on the same images; returns the
    settings to write there.

    Digests of images that earlier calls needed stay. A folder of an earlier version does not say its images:
    they are taken to be those of now, which `say` is told.

    Raises:
        LaminaError: where settings or images are others.
    """
    file, now = out / SETTINGS, as_json(settings)
    if not file.is_file():
        return {**now, IMAGES: dict(images)}
    before = read_object(file, mend="restore it from a copy, or choose another --out")
    known = before.pop(IMAGES, None)
    check_same_settings(before, now, f"{out} holds a comparison", "give the same, or another --out")
    if known is None:
        say(f"{file} does not say which images were measured; they are taken to be those of now")
    if other := [kind for kind, digest in images.items() if (known or {}).get(kind, digest) != digest]:
        raise LaminaError(
            f"{out} holds a comparison on other images of the same names ({', '.join(other)}); restore them, "
            "or choose another --out"
        )
    return {**now, IMAGES: {**(known or {}), **images}}
