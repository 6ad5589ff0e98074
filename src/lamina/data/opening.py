"""Opening images by what they are called: a folder, a list, a glob, a sample."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lamina.data.doom import open_doom
from lamina.data.fashion import open_fashion_mnist
from lamina.data.files import find_images, is_glob, match_glob, printable, read_list
from lamina.data.photos import open_photos
from lamina.data.sources import FileSource, Source, Split
from lamina.errors import LaminaError

Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_VALIDATION_NAMES = ("val", "valid", "validation", "test")


def open_source(
    spec: Spec, split: Split | None = None, val_share: float = 0.2, split_seed: int = 0
) -> Source:
    """Open images by what they are called.

    `spec` is a folder, one image, a list (.txt, one path on each line), a glob, `sample:NAME`, or a
    Python list of paths (folders among them are searched). A folder has classes if it looks like
    root/CLASS/..., or root/train/CLASS/... beside root/val/CLASS/... (or valid, validation, test).

    `split`:

    - None: what pre-training may see: the training part where the source has parts of its own (train and
      val folders, samples), else everything.
    - "train", "val": that part; a folder without parts of its own is split: within each class, the
      `val_share` of the files with the smallest SHA-256 of (`split_seed`, path) is for validation.
    - "all": everything.

    Raises:
        LaminaError: if there is nothing there, or no such part.
    """
    if split not in (None, "train", "val", "all"):
        raise LaminaError(f"there is no split {split!r}; take train, val or all")
    if isinstance(spec, str) and spec.startswith("sample:"):
        return _open_sample(spec, split)
    if isinstance(spec, str | os.PathLike):
        spec = os.path.expanduser(spec)  # a configuration file has no shell to do it
    if isinstance(spec, str) and os.path.isdir(spec):
        source, has_parts = _open_folder(spec, split)
    else:
        source, has_parts = FileSource("", _listed(spec)), False
    if not len(source):
        raise LaminaError(f"no images in {_describe(spec)}; see `lamina data check --help` for what is read")
    if has_parts or split in (None, "all"):
        return source
    return _take_part(source, split == "val", val_share, split_seed)


def held_out(spec: Spec) -> Split:
    """The part that pre-training does not see, "val", where the source has parts of its own; else "all"."""
    if isinstance(spec, str) and spec.startswith("sample:"):
        return "val"
    if not isinstance(spec, str | os.PathLike):
        return "all"
    root = Path(os.path.expanduser(spec))
    return "val" if (root / "train").is_dir() and _validation_folder(root) else "all"


def _open_sample(spec: str, split: Split | None) -> Source:
    name, _, query = spec.removeprefix("sample:").partition("?")
    if name == "photos":
        return open_photos(query, split)
    if name == "fashion-mnist":
        return open_fashion_mnist(query, split)
    if name == "doom":
        return open_doom(query, split)
    raise LaminaError(
        f"there is no {printable(spec)}; take sample:photos, sample:fashion-mnist or sample:doom"
    )


def _describe(spec: Spec) -> str:
    return printable(os.fspath(spec)) if isinstance(spec, str | os.PathLike) else "the list of paths"


def _listed(spec: Spec) -> list[str]:
    if not isinstance(spec, str | os.PathLike):
        paths = [os.fspath(path) for path in spec]
        return [file for path in paths for file in (_files_in(path) if os.path.isdir(path) else [path])]
    path = os.fspath(spec)
    if is_glob(path):
        return match_glob(path)
    if not os.path.lexists(path):
        raise LaminaError(
            f"there is no {printable(path)}; give a folder, a .txt list, a glob or sample:photos"
        )
    return read_list(path) if path.lower().endswith(".txt") else [path]


def _files_in(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in find_images(folder)]


def _open_folder(root: str, split: Split | None) -> tuple[FileSource, bool]:
    """A folder's images, with labels where it has classes; and whether it has parts of its own."""
    val = _validation_folder(Path(root))
    if val is None or not (Path(root) / "train").is_dir():
        names = find_images(root)
        return _labelled(root, names, [name.split(os.sep)[:-1][:1] for name in names]), False
    parts = {None: ("train",), "train": ("train",), "val": (val,), "all": ("train", val)}[split]
    names = [os.path.join(part, name) for part in parts for name in find_images(os.path.join(root, part))]
    classes = {name.split(os.sep)[0] for name in find_images(os.path.join(root, "train")) if os.sep in name}
    return _labelled(root, names, [name.split(os.sep)[1:-1][:1] for name in names], classes), True


def _validation_folder(root: Path) -> str | None:
    return next((v for v in _VALIDATION_NAMES if (root / v).is_dir()), None)


def _labelled(
    root: str, names: list[str], folders: list[list[str]], known: set[str] | None = None
) -> FileSource:
    """Labels if each image is in a class folder, and there are at least two classes."""
    if not all(folders):
        return FileSource(root, names)
    found = {folder[0] for folder in folders}
    if known is not None and not found <= known and known:
        unknown = printable(sorted(found - known)[0])
        raise LaminaError(f"{printable(root)}: the class {unknown!r} is missing in train; add or remove it")
    classes = sorted(found | (known or set()))
    if len(classes) < 2:
        return FileSource(root, names)
    number = {name: i for i, name in enumerate(classes)}
    return FileSource(root, names, [number[folder[0]] for folder in folders], classes)


def _take_part(source: FileSource, validation: bool, val_share: float, seed: int) -> FileSource:
    """One side of the split that `open_source` describes; a class of two or more has both sides."""
    labels = source.labels or [0] * len(source)
    names = [source.name(i) for i in range(len(source))]
    keys = [hashlib.sha256(f"{seed}/".encode() + os.fsencode(name)).digest() for name in names]
    left = {c: _validation_count(n, val_share) for c, n in Counter(labels).items()}
    chosen = set()
    for i in sorted(range(len(names)), key=keys.__getitem__):
        if left[labels[i]]:
            left[labels[i]] -= 1
            chosen.add(i)
    keep = [i for i in range(len(names)) if (i in chosen) == validation]
    if not keep:
        raise LaminaError(
            "too few images for a validation part; give more, or root/train and root/val folders"
        )
    kept_labels = [labels[i] for i in keep] if source.labels is not None else None
    return FileSource(source.root, [names[i] for i in keep], kept_labels, source.class_names)


def _validation_count(n: int, share: float) -> int:
    return min(n - 1, max(1, round(n * share)))
