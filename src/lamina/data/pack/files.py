"""The files of a pack: what stands in them, written and read back with everything checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.plain_files import DamagedFile, check_plain
from lamina.core.records import read_object, write_json
from lamina.core.tensor_files import load_tensors, save_tensors
from lamina.data.columns import Names, SharedArray
from lamina.data.pack.source import FILE, ITEM_BYTES, JPEG, Columns

ABOUT, INDEX, BLOB = "pack.json", "index.safetensors", "images.bin"
FORMAT, VERSION = "lamina-pack", 1
_MEND = "make the pack again, or restore it from a copy"


@dataclass(frozen=True)
class View:
    """Which images a split has, in which order, and what is known of them."""

    indices: Int64[NDArray[np.int64], "n"]
    labels: Int64[NDArray[np.int64], "n"] | None
    multi_labels: Bool[NDArray[np.bool_], "n K"] | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    no_labels: str

    @property
    def unlabelled(self) -> bool:
        """Whether it has no labels of either kind."""
        return self.labels is None and self.multi_labels is None


@dataclass(frozen=True)
class About:
    """What stands in pack.json beside the views."""

    source: str
    """What was packed, as it was called."""
    encoding: str
    """jpeg or raw: how images that were shrunk are stored."""
    side: int
    quality: int | None
    images: int
    blob_bytes: int
    blob_sha256: str
    held_out: bool
    """Whether there is a held-out part of its own."""
    left_out: Mapping[str, int]
    """How many images could not be read, for each reason."""


@dataclass(frozen=True)
class Index:
    """A pack as it is on the disk."""

    about: About
    columns: Columns
    names: Names
    views: Mapping[str, View]
    """By split; "pretrain" is that of None."""


def write_index(folder: Path, index: Index) -> None:
    """Write all files of a pack but the blob; pack.json, by which it is one, is the last. Raises OSError."""
    ends = index.names.ends.values
    arrays: dict[str, NDArray[Any]] = {
        "spans": index.columns.spans,
        "layouts": index.columns.layouts,
        "names": index.names.text.values,
        "name_bytes": np.diff(ends, prepend=0).astype(np.int32),
    }
    for split, view in index.views.items():
        arrays[f"{split}.indices"] = view.indices
        if view.labels is not None:
            arrays[f"{split}.labels"] = view.labels.astype(np.int32)
        if view.multi_labels is not None:
            arrays[f"{split}.multi_labels"] = view.multi_labels
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_tensors(tensors, folder / INDEX, {"blob_sha256": index.about.blob_sha256})
    views = {
        split: {"classes": view.classes, "notes": view.notes, "no_labels": view.no_labels}
        for split, view in index.views.items()
    }
    write_json(folder / ABOUT, {"format": FORMAT, "version": VERSION, **asdict(index.about), "views": views})


def read_index(folder: Path) -> Index:
    """What a pack says of itself; the blob must be as long as it was.

    Raises:
        DamagedFile: for a file that is missing, was changed, or does not fit the others.
        LaminaError: for a pack of a later version.
    """
    about, views = _read_about(folder / ABOUT)
    try:
        tensors, metadata = load_tensors(folder / INDEX, mend=_MEND)
        check_plain(folder / BLOB, mend=_MEND)
        blob_bytes = os.stat(folder / BLOB).st_size
    except FileNotFoundError as error:
        raise DamagedFile(Path(error.filename), "it is missing", _MEND) from None
    if blob_bytes != about.blob_bytes:
        reason = f"it has {blob_bytes:,} bytes, and was written with {about.blob_bytes:,}"
        raise DamagedFile(folder / BLOB, reason, _MEND)
    if metadata.get("blob_sha256") != about.blob_sha256:
        raise DamagedFile(folder / INDEX, f"it belongs to another {BLOB}", _MEND)
    try:
        return _index(about, views, {name: tensor.numpy() for name, tensor in tensors.items()})
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedFile(folder / INDEX, f"it does not fit {ABOUT} ({_line(error)})", _MEND) from None


def _read_about(file: Path) -> tuple[About, dict[str, Any]]:
    try:
        content = read_object(file, mend=_MEND)
    except FileNotFoundError:
        raise DamagedFile(file, "it is missing", _MEND) from None
    if content.get("format") != FORMAT:
        raise DamagedFile(file, "it does not describe a pack", _MEND)
    if content.get("version") != VERSION:
        raise LaminaError(
            f"{file.parent} is a pack of version {content.get('version')}, and this lamina reads version "
            f"{VERSION}; use the lamina that wrote it, or pack the images again"
        )
    try:
        known = {name: content[name] for name in About.__dataclass_fields__}
        about, views = About(**known), dict(content["views"])
        if not all(isinstance(n, int) and n >= 0 for n in (about.images, about.blob_bytes, about.side)):
            raise ValueError("images, blob_bytes and side are whole numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(file, f"a field is missing or of a wrong kind ({_line(error)})", _MEND) from None
    return about, views


def _index(about: About, views: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Index:
    """Raises ValueError, or what a wrong type raises, for whatever does not fit."""
    n = about.images
    spans, layouts = arrays["spans"].astype(np.int64), arrays["layouts"].astype(np.int32)
    _check(spans.shape == (n, 2) and layouts.shape == (n, 6), "so many images")
    firsts, sizes = spans.T
    inside = (
        (firsts >= 0) & (sizes >= 0) & (firsts <= about.blob_bytes) & (sizes <= about.blob_bytes - firsts)
    )
    _check(bool(inside.all()), f"places in {BLOB}")
    kinds = layouts[:, 0]
    for kind, item in ITEM_BYTES.items():
        height, width, channels = layouts[kinds == kind, 1:4].astype(np.int64).T
        _check(bool(((height > 0) & (width > 0) & (channels > 0)).all()), "shapes of images")
        pixels, rest = np.divmod(sizes[kinds == kind], channels * item)  # products of all could overflow
        _check(bool(((rest == 0) & (pixels == height * width)).all()), "sizes of images")
    of_jpeg = layouts[kinds == JPEG]
    _check(bool((of_jpeg[:, 1:3] > 0).all() and np.isin(of_jpeg[:, 3], [1, 3]).all()), "shapes of images")
    _check(bool(np.isin(kinds, [FILE, JPEG, *ITEM_BYTES]).all()), "kinds of images")
    _check(bool(((layouts[:, 5] >= 1) & (layouts[:, 5] <= 8)).all()), "orientations")
    names = _names(arrays["names"], arrays["name_bytes"], n)
    found = {split: _view(split, view, arrays, n) for split, view in views.items()}
    _check("all" in found, "the view of all images")
    return Index(about, Columns(spans, layouts), names, found)


def _names(text: NDArray[Any], lengths: NDArray[Any], n: int) -> Names:
    _check(text.dtype == np.uint8 and lengths.shape == (n,) and bool((lengths > 0).all()), "names")
    ends = np.cumsum(lengths, dtype=np.int64)
    _check((ends[-1] if n else 0) == len(text) and not text[ends - 1].any(), "names")
    return Names(text=SharedArray(text), ends=SharedArray(ends))


def _view(split: str, view: Mapping[str, Any], arrays: dict[str, NDArray[Any]], n: int) -> View:
    indices, labels = arrays[f"{split}.indices"].astype(np.int64), arrays.get(f"{split}.labels")
    classes, notes = tuple(map(str, view["classes"])), tuple(map(str, view["notes"]))
    _check(indices.ndim == 1 and bool(((indices >= 0) & (indices < n)).all()), f"images of {split}")
    if labels is not None:
        labels = labels.astype(np.int64)
        within = (labels >= 0) & (labels < len(classes))
        _check(labels.shape == indices.shape and bool(within.all()), f"labels of {split}")
    several = arrays.get(f"{split}.multi_labels")
    if several is not None:
        right = several.dtype == np.bool_ and several.shape == (len(indices), len(classes))
        _check(right and labels is None, f"labels of {split}")
    return View(indices, labels, several, classes, notes, str(view["no_labels"]))


def _check(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
