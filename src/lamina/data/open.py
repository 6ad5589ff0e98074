"""Opening images by what they are called: a folder, a list, a glob, archives, a remote, a table, a sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.archives.open import have_held_out, open_archives
from lamina.data.archives.shards import archives_named
from lamina.data.datasets import DatasetSource, is_dataset
from lamina.data.file_names import not_files
from lamina.data.find_files import is_glob, listed, match_glob, read_list
from lamina.data.folders import open_folder, take_part
from lamina.data.found import HELP
from lamina.data.huggingface.open import dataset_has_held_out, open_dataset
from lamina.data.huggingface.spec import names_dataset
from lamina.data.pack.open import has_held_out, is_pack, open_pack
from lamina.data.parts import find_parts
from lamina.data.read_as import ReadAs
from lamina.data.reading import Reading, split_reading
from lamina.data.samples.catalog import SAMPLES, is_sample, open_sample
from lamina.data.sources import FileSource, Source, Split
from lamina.data.tables.files import is_table
from lamina.data.tables.open import open_table

Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Source | Dataset[Any]

_NO_CLASSES = "a list, a glob or a file has no classes; a folder of class folders has"


def open_source(
    spec: Spec, split: Split | None = None, val_share: float = 0.2, split_seed: int = 0
) -> Source:
    """Open images by what they are called.

    `spec` is a folder, one image, a list (.txt, one path on each line), a glob, `sample:NAME`, a Python list
    of paths, or tar and zip files: one, a pattern (`train-{000..099}.tar`, `*.tar`), a folder of them alone
    (`lamina.data.archives`), any of these and folders at a remote (`s3://...`); or `hf:org/name` or a folder
    with a dataset of Hugging Face (`lamina.data.huggingface`); or a table of images, CSV or parquet, with
    its columns behind it where they are not found by themselves: `table.csv?image=path&label=species`
    (`lamina.data.tables`); or a dataset with numbered items, as torch has them (`lamina.data.datasets`), or
    a `Source` of one's own. Folders in a list or a glob are searched. A folder has classes if it looks like
    root/CLASS/..., or root/train/CLASS/... beside root/val/CLASS/... Names of parts are those that people
    use, in any case (`lamina.data.parts`). The source's `notes` say what is passed over. Behind the name of
    any of these may stand how the images are read: `?pages=channels`, `?scale=0:10000`, `?nodata=-9999`
    (`lamina.data.reading`).

    `split`:

    - None: what pre-training may see: the training part where the source has parts of its own (train and
      val folders, samples), else everything.
    - "train", "val": that part; a folder without a held-out part of its own is split: within each class, the
      `val_share` of the files with the smallest SHA-256 of (`split_seed`, path) is for validation. Classes
      of "val" are those of both parts.
    - "all": everything, folders that are in neither part included.

    Raises:
        LaminaError: if there is nothing there, or no such part.
    """
    if split not in (None, "train", "val", "all"):
        raise LaminaError(f"there is no split {split!r}; take train, val or all")
    name, kind, reading = _kind_of(spec)
    source, has_parts = kind.open(name, split, val_share, split_seed)
    if len(source) and split in ("train", "val") and not has_parts:
        source = take_part(source, split == "val", val_share, split_seed)
    if not len(source):
        why = source.notes or (HELP,)
        raise LaminaError("; ".join((f"no images in {_describe(spec)}", *why)))
    return source if reading is None else ReadAs(source, reading)


def held_out(spec: Spec) -> Split:
    """The part that pre-training does not see, "val", where the source has parts of its own; else "all"."""
    name, kind, _ = _kind_of(spec)
    return "val" if kind.has_held_out(name) else "all"


def _kind_of(spec: Spec) -> tuple[Any, Kind, Reading | None]:
    """What is to be opened, its kind, and what it says of how the images are read."""
    reading = None
    if isinstance(spec, str | os.PathLike):
        spec, reading = split_reading(os.path.expanduser(spec))  # a configuration file has no shell to do it
    for kind in KINDS:
        if taken := kind.takes(spec):
            break
    return (spec if taken is True else taken), kind, reading


def _describe(spec: Spec) -> str:
    if isinstance(spec, str | os.PathLike):
        return printable(os.fspath(spec))
    return "the list of paths" if isinstance(spec, Sequence) else f"the {type(spec).__name__}"


def _paths(spec: Any) -> list[str]:
    """The paths of a list; raises for what holds images and not their paths."""
    try:
        return [os.fspath(path) for path in spec]
    except TypeError:
        raise not_files(spec, "images in memory are given as a torch Dataset") from None


def _listed(spec: Spec) -> FileSource:
    """Images of a list, a glob or a single file, by their paths."""
    if not isinstance(spec, str | os.PathLike):
        found = listed(_paths(spec))
    elif is_glob(path := os.fspath(spec)):
        found = match_glob(path)
    elif not os.path.lexists(path):
        raise LaminaError(
            f"there is no {printable(path)}; give a folder, a .txt list, a glob, tar or zip files, a table "
            f"or {SAMPLES[0].spec}"
        )
    else:
        found = listed(read_list(path) if path.lower().endswith(".txt") else [path])
    return FileSource("", found.names, notes=found.passed_over.notes(), no_labels=_NO_CLASSES)


def _is_folder(spec: object) -> bool:
    return isinstance(spec, str) and os.path.isdir(spec)


def _folder_has_held_out(folder: str) -> bool:
    parts = find_parts(folder)
    return parts is not None and bool(parts.val)


@dataclass(frozen=True)
class Kind:
    """A kind of sources: one row of `KINDS`."""

    takes: Callable[[Any], Any]
    """Whether a `Spec`, in which `~` is replaced already, names a source of this kind: False or None where it
    does not; True, or what `open` and `has_held_out` are given in place of the spec, where it does."""
    open: Callable[[Any, Split | None, float, int], tuple[Source, bool]]
    """The source for the spec, and `split`, `val_share` and `split_seed` of `open_source`; and whether it is
    the part that was asked for. Where it is not, it is all images, and `open_source` splits them."""
    has_held_out: Callable[[Any], bool]
    """Whether there is a held-out part of its own."""


KINDS = (
    Kind(lambda spec: isinstance(spec, Source), lambda spec, *_: (spec, False), lambda _: False),
    Kind(is_dataset, lambda spec, *_: (DatasetSource(spec), False), lambda _: False),
    Kind(is_sample, lambda spec, split, *_: (open_sample(spec, split), True), lambda _: True),
    Kind(is_pack, lambda spec, split, *_: open_pack(spec, split), has_held_out),
    Kind(names_dataset, lambda spec, split, *_: open_dataset(spec, split), dataset_has_held_out),
    Kind(archives_named, lambda named, split, *_: open_archives(named, split), have_held_out),
    Kind(is_table, lambda spec, split, *_: open_table(spec, split), lambda spec: open_table(spec, "all")[1]),
    Kind(_is_folder, lambda *given: (open_folder(*given), True), _folder_has_held_out),
    Kind(lambda _: True, lambda spec, *_: (_listed(spec), False), lambda _: False),
)
"""All kinds; the first one that takes a spec opens it. The last row is for lists, globs and single files."""
