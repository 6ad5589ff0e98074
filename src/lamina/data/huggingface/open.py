"""A dataset of Hugging Face as a source: names, parts and classes of its images, by the rules of folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.huggingface.columns import classes_of, image_column
from lamina.data.huggingface.source import ArrowSource, Table, paths_of
from lamina.data.huggingface.spec import Named, parse_spec
from lamina.data.huggingface.splits import Splits, load_splits, unknown_split
from lamina.data.part_names import roles_among, usual_first
from lamina.data.sources import Split, Version

_ANY_FOLDER = re.compile(r"[/\\]")


def open_dataset(spec: str, split: Split | None) -> tuple[ArrowSource, bool]:
    """The images of a dataset, in the order of its rows; and whether there is a held-out part.

    Parts are splits, by their names, as folders are (`part_names.roles_among`). Where the text names splits,
    these are all there is; they are given whole then, and so is a dataset without a held-out part.

    Raises:
        LaminaError: as `parse_spec`, `load_splits`, `image_column` and `classes_of`; and where there is no
            such split, or no image of the part.
    """
    named = parse_spec(spec)
    found = load_splits(named)
    train, val = _parts(named, found.tables)
    chosen = {None: train, "train": train, "val": val or train, "all": list(found.tables)}[split]
    if named.options.split:
        chosen = train
    if not chosen:
        raise LaminaError(
            f"{named.spec} has a held-out split alone, {printable(val[0])}; add "
            f"?split={printable(val[0])} to read it"
        )
    notes = [] if split == "all" else _notes(found.tables, train, val, named)
    return _source(named, found, chosen, (*train, *val), notes), bool(val) and not named.options.split


def dataset_has_held_out(spec: str) -> bool:
    """Whether a dataset has a held-out split, and the text names none; raises as `open_dataset`."""
    named = parse_spec(spec)
    return not named.options.split and bool(_parts(named, load_splits(named).tables)[1])


def _parts(named: Named, tables: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The splits that are for training, and those that are held out."""
    if named.options.split:
        wanted = named.options.split.split("+")
        for name in wanted:
            if name not in tables or not name:
                raise unknown_split(named, name, tables)
        return list(dict.fromkeys(wanted)), []
    roles = roles_among(tables)
    train = [name for name in tables if roles.get(name) == "train"]
    val = usual_first(name for name in tables if roles.get(name) == "val")
    if len(tables) > 1 and val and not train:
        train = [name for name in tables if name not in roles]
    return (train, val) if train or val else (list(tables), [])


def _notes(tables: dict[str, Any], train: list[str], val: list[str], named: Named) -> list[str]:
    """Which splits are which part, where that does not go without saying."""
    if named.options.split or len(tables) == 1:
        return []
    shown = {name: f"{printable(name)} ({counted(len(tables[name]), 'image')})" for name in tables}
    trained = " and ".join(shown[name] for name in train)
    held_out = " and ".join(shown[name] for name in val)
    notes = [f"the training split is {trained}, the held-out split {held_out or 'missing'}"]
    if rest := [shown[name] for name in tables if name not in (*train, *val)]:
        notes.append(f"not used: {', '.join(rest)}; name splits by ?split=... to use them")
    return notes


def _source(
    named: Named, found: Splits, chosen: Sequence[str], parts: Sequence[str], notes: Sequence[str]
) -> ArrowSource:
    """The images of the `chosen` splits; `parts` are those for training and those that are held out."""
    features = found.tables[chosen[0]].features
    column = image_column(features, named)
    for name in (*chosen, *parts):
        if found.tables[name].features != features:
            raise LaminaError(
                f"the splits {printable(chosen[0])} and {printable(name)} of {named.spec} have different "
                "columns; name one by ?split=..."
            )
    classes = classes_of(found.tables, chosen, parts, named)
    opened = [found.tables[name] for name in chosen]
    tables = [Table(each.select_columns([column]).data, _files(each)) for each in opened]
    one = len(found.tables) == 1 or named.options.split == chosen[0]
    folders = ["" if one else f"{name}/" for name in chosen]
    of_class = [classes.of_splits.get(name, ()) for name in chosen]
    return ArrowSource(
        tables,
        column,
        _names(folders, [paths_of(table.data.column(column)) for table in tables], of_class),
        classes.labels,
        classes.names,
        notes=notes,
        no_labels=classes.why_none,
        # `datasets` has no public name for it
        version=Version(found.revision, "+".join(str(each._fingerprint) for each in opened)),
    )


def _names(
    folders: Sequence[str], paths: Sequence[Sequence[str | None]], classes: Sequence[Sequence[str]]
) -> list[str]:
    """SPLIT/CLASS/FILE, as the images would be called in a folder of them; SPLIT/ROW where rows of a split
    have no names of files, or the same ones. What there is none of is left out. A name depends on its split
    alone, not on those that are opened with it."""
    names: list[str] = []
    for folder, given, of_class in zip(folders, paths, classes, strict=True):
        files = [_ANY_FOLDER.split(path or "")[-1] for path in given]
        whole = list(map("{}/{}".format, of_class, files)) if of_class else files
        if not all(files) or len(set(whole)) < len(whole):
            digits = len(str(max(0, len(given) - 1)))
            whole = [f"{row:0{digits}d}" for row in range(len(given))]
        names += [folder + name for name in whole]
    return names


def _files(part: Any) -> tuple[str, ...]:
    return tuple(str(file["filename"]) for file in part.cache_files)
