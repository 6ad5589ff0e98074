"""One vector per image, in a file that other tools read."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.core.files import check_writable, replacing
from lamina.core.text import csv_cell, printable
from lamina.data.open import Spec, open_source
from lamina.data.options import DataOptions, reading_facts
from lamina.data.read_as import read_as
from lamina.data.sources import Source
from lamina.encoder.options import EncoderOptions
from lamina.features.extract import collect_for
from lamina.features.options import ComputeOptions, FeatureOptions, Progress
from lamina.features.pooling import BackboneVectors
from lamina.features.table import FeatureTable
from lamina.interop.backbone import Backbone, FeatureKind, Pool
from lamina.interop.load import as_backbone
from lamina.train.distributed import choose_device

LIST_HEADER = ["name", "reason"]
"""First line of the list of images that could not be read, by which `embed` knows its own."""


def embed(
    model: str | Path | Backbone,
    data: Spec,
    out: str | Path,
    *,
    features: FeatureKind = "last",
    pool: Pool = "mean",
    encoder: str | EncoderOptions | None = None,
    image_size: tuple[int, ...] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> FeatureTable:
    """Write a feature vector for each image of `data` (all parts of it) and return what was written.

    A .npz holds `features` (n, D) float32, `names` (n,), `labels` (n,) and `class_names` where there are
    classes, and `about`: JSON with the model, step, features, pool, how images were read and what could not
    be. It loads without pickle. A .csv has a line per image: name, label (its class), then D numbers; a name
    or label that a spreadsheet would take for a formula (= + - @ first) has an apostrophe before it. Where an
    image may have several labels, `labels` are (n, K), true for those that it has, and a .csv has their
    names, divided by semicolons. Images that could not be read are in a file beside it (`unreadable_file`),
    with the reason. The table's `notes` say how many they are, and what was found beside the images.

    Raises:
        LaminaError: for another ending than .npz or .csv, a file that cannot be written (found before any
            image is read), features or a pool that the encoder has not, or images that cannot be read at all.
    """
    out = Path(out)
    if out.suffix not in (".npz", ".csv"):
        raise LaminaError(f"features go to a .npz or a .csv file, not {out.name}")
    check_writable(out)
    _check_list(out)
    compute = ComputeOptions(batch_size, workers, device, progress, cache)
    backbone = as_backbone(model, encoder, image_size).to(choose_device(device))
    vectors = BackboneVectors(backbone, FeatureOptions((features,), pools=(pool,)))
    source = open_source(data, "all")
    origin = backbone.origin
    reading = read_as(DataOptions() if origin is None else origin.recipe.data, source)
    resized = (origin.resized,) if origin is not None and origin.resized else ()
    with noted_on_interrupt(lambda: f"{out} is written at the end alone: nothing is kept"):
        table = collect_for(backbone, source, {"encoder": vectors}, compute)
    about = {
        "model": origin.name if origin is not None else "a backbone",
        "step": origin.step if origin is not None else None,
        "features": features,
        "pool": pool,
        "image_size": list(backbone.image_size),
        "reading": reading_facts(reading),
        "unreadable": {printable(source.name(fault.index)): fault.reason for fault in table.faults},
    }
    removed = _write(out, source, table, about)
    return replace(table, notes=(*resized, *source.notes, *table.notes, *_unread(out, table), *removed))


def unreadable_file(out: Path) -> Path:
    """Where the images are named that a .csv lacks, since they could not be read."""
    return out.with_name(f"{out.stem}.unreadable.csv")


def _check_list(out: Path) -> None:
    """Refuse to write a .csv where the name of its list of unreadable images is taken by another file."""
    file = unreadable_file(out)
    if out.suffix != ".csv" or not os.path.lexists(file):
        return
    check_writable(file)
    if file.is_file():
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
            if next(csv.reader(opened), []) == LIST_HEADER:
                return
    raise LaminaError(
        f"images that cannot be read are named in {file}, which is there and was not written by embed; move "
        "it, or choose another --out"
    )


def _unread(out: Path, table: FeatureTable) -> tuple[str, ...]:
    place = f" ({unreadable_file(out)} names all)" if out.suffix == ".csv" else ""
    return tuple(note + place for note in table.unread())


def _write(out: Path, source: Source, table: FeatureTable, about: dict[str, Any]) -> tuple[str, ...]:
    """Write the vectors; returns what is to be said of the list of an earlier call."""
    names = [source.name(i) for i in table.index.tolist()]
    (vectors,) = (matrix.numpy() for matrix in table.vectors.values())
    if out.suffix == ".csv":
        with replacing(out) as temporary:
            _write_csv(temporary, names, source, table, vectors)
        return _write_unreadable(unreadable_file(out), source, table)
    arrays: dict[str, Any] = {"features": vectors, "names": np.array(names, dtype=np.str_)}
    known = table.labels if table.multi_labels is None else table.multi_labels
    if known is not None:
        arrays["labels"] = known.numpy()
        arrays["class_names"] = np.array(source.class_names, dtype=np.str_)
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, about=np.array(json.dumps(about)))
    return ()


def _write_unreadable(file: Path, source: Source, table: FeatureTable) -> tuple[str, ...]:
    """A line for each image that could not be read: name and reason; no file where there is none. The list
    of an earlier call goes then, which is said."""
    if not table.faults:
        there = file.is_file()
        file.unlink(missing_ok=True)
        return (f"{file} of an earlier call is removed: all images could be read",) if there else ()
    with replacing(file) as temporary, _text(temporary) as opened:
        writer = csv.writer(opened)
        writer.writerow(LIST_HEADER)
        writer.writerows((csv_cell(source.name(fault.index)), fault.reason) for fault in table.faults)
    return ()


def _text(path: Path) -> TextIO:
    """Names of any bytes can be written to it."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def _write_csv(
    path: Path,
    names: list[str],
    source: Source,
    table: FeatureTable,
    vectors: np.ndarray[Any, np.dtype[np.float32]],
) -> None:
    labels = [""] * len(names)
    if table.labels is not None:
        labels = [source.class_names[label] for label in table.labels.tolist()]
    if table.multi_labels is not None:
        labels = [";".join(compress(source.class_names, row)) for row in table.multi_labels.tolist()]
    with _text(path) as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label", *(f"f{i}" for i in range(vectors.shape[1]))])
        for name, label, vector in zip(names, labels, vectors, strict=True):
            writer.writerow([csv_cell(name), csv_cell(label), *(f"{value:.9g}" for value in vector)])
