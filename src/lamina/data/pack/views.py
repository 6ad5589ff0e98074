"""The images that are packed, each once, and which of them the splits of their source have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.columns import as_array
from lamina.data.open import Spec, held_out, open_source
from lamina.data.pack.files import View
from lamina.data.pack.open import PRETRAIN
from lamina.data.sources import Source, Split


@dataclass(frozen=True)
class Views:
    """The splits of a source, opened."""

    sources: Mapping[str, Source]
    """By split; "pretrain" is that of None."""
    jobs: Int64[NDArray[np.int64], "N 2"]
    """Of each image that is in any of them, once: the number of a source, and the index in it."""
    places: Mapping[str, Int64[NDArray[np.int64], "n"]]
    """Of each image of a split, its place in `jobs`."""

    def name(self, job: int) -> str:
        """The name of an image."""
        number, i = map(int, self.jobs[job])
        return list(self.sources.values())[number].name(i)

    def packed(self, jobs: Sequence[int]) -> dict[str, View]:
        """The splits, where these of the `jobs` were packed, in this order; those that have none are left
        out."""
        number = np.full(len(self.jobs), -1, np.int64)
        number[np.asarray(jobs, np.int64)] = np.arange(len(jobs))
        views = {}
        for split, source in self.sources.items():
            indices = number[self.places[split]]
            kept = indices >= 0
            if kept.any():
                labels = None if source.labels is None else as_array(source.labels)[kept]
                several = None if source.multi_labels is None else source.multi_labels[kept]
                about = source.class_names, source.notes, source.no_labels
                views[split] = View(indices[kept], labels, several, *about)
        return views


def open_views(spec: Spec) -> Views:
    """Open all splits that a source has.

    Images are the same where their names are, and the number of images of that name before them. Raises
    LaminaError as `open_source`.
    """
    splits: dict[str, Split | None] = {"all": "all", PRETRAIN: None}
    if held_out(spec) == "val":
        splits = {"all": "all", "val": "val", PRETRAIN: None, "train": "train"}
    sources = {}
    for view, split in splits.items():
        try:
            sources[view] = open_source(spec, split)
        except LaminaError:
            if "val" not in sources or len(sources["val"]) < len(sources["all"]):
                raise  # else there is a held-out part alone
    if (reading := sources["all"].reading) is not None:
        raise LaminaError(
            f"a pack has the values that are stored, so that ?{reading} is not taken here; pack the images "
            "without it, and write it behind the name of the pack, as it stands behind theirs"
        )
    known: dict[tuple[str, int], int] = {}
    jobs: list[tuple[int, int]] = []
    places = {}
    for number, (view, source) in enumerate(sources.items()):
        seen: dict[str, int] = {}
        found = np.empty(len(source), np.int64)
        for i in range(len(source)):
            name = source.name(i)
            seen[name] = seen.get(name, 0) + 1
            place = known.setdefault((name, seen[name]), len(jobs))
            if place == len(jobs):
                jobs.append((number, i))
            found[i] = place
        places[view] = found
        if len(jobs) > len(sources["all"]):
            raise LaminaError(
                f"images have other names in a part than among all images, such as "
                f"{printable(source.name(jobs[-1][1]))}, so that they would be packed twice; pack each "
                "part alone"
            )
    return Views(sources, np.array(jobs, np.int64), places)
