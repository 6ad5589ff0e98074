"""A pack by the path of its folder, with the parts, names, classes and order of what was packed."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.text import counted_each, printable
from lamina.data.columns import Numbers, SharedArray
from lamina.data.outputs import is_output
from lamina.data.pack.files import ABOUT, BLOB, INDEX, About, read_index
from lamina.data.pack.source import PackedSource
from lamina.data.sources import Split

PRETRAIN = "pretrain"
"""The name of the view that `split` None gives."""
_PARTS = {"val": "held-out", "train": "training", PRETRAIN: "training"}


def is_pack(spec: object) -> bool:
    """Whether it is the path of a pack, perhaps a damaged one."""
    if not isinstance(spec, str) or not os.path.isdir(spec):
        return False
    names = {name for name in (ABOUT, BLOB, INDEX) if os.path.lexists(os.path.join(spec, name))}
    return {BLOB, INDEX} <= names or is_output(spec, names & {ABOUT})


def has_held_out(folder: str) -> bool:
    """Whether what was packed had a held-out part of its own."""
    return read_index(Path(folder)).about.held_out


def open_pack(folder: str, split: Split | None) -> tuple[PackedSource, bool]:
    """The images of a pack; and whether they are the part that was asked for.

    Raises:
        LaminaError: for a pack that is damaged, or has no such part.
    """
    index = read_index(Path(folder))
    about = index.about
    name = (split or PRETRAIN) if about.held_out or split == "all" else PRETRAIN
    view = index.views.get(name)
    if view is None:
        raise LaminaError(f"{printable(folder)} has no images of a {_PARTS[name]} part; pack such images")
    source = PackedSource(
        os.path.join(folder, BLOB),
        index.columns.take(view.indices),
        index.names.at(Numbers(SharedArray(view.indices))),
        None if view.labels is None else Numbers(SharedArray(view.labels)),
        view.classes,
        multi_labels=view.multi_labels,
        notes=(*_notes(about), *view.notes),
        no_labels=view.no_labels,
    )
    return source, about.held_out or split == "all"


def _notes(about: About) -> list[str]:
    how = "pixels" if about.encoding == "raw" else f"JPEG of quality {about.quality}"
    notes = [
        f"packed from {printable(about.source)}: images of 8 bits have a short side of at most {about.side} "
        f"px, those that were shrunk are stored as {how}"
    ]
    if about.left_out:
        notes.append(f"images that were left out when it was packed: {counted_each(about.left_out)}")
    return notes
