"""Which texts name a dataset of Hugging Face: `hf:org/name@revision?split=train`, or a folder with one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import yaml

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import is_image_name
from lamina.data.query import parse_query, split_query

PREFIX = "hf:"
_REMOTE = "hf://"
"""Begins the address of a single file on the hub."""
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^@\s]+))?")
_CARD = "README.md"
_CARD_FIELDS = frozenset(("configs", "dataset_info"))
_MOST_CARD_BYTES = 1 << 20
_SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
_DATA_ENDINGS = (".parquet", ".arrow")


@dataclass(frozen=True)
class HubOptions:
    """What stands behind the name of a dataset; an empty text leaves the choice to lamina."""

    split: str = ""
    """Names of the splits to read, joined by +. By default the training split, or the part asked for."""
    config: str = ""
    """Name of the dataset's configuration, where it has several."""
    image: str = ""
    """Name of the column with the images, where it has several."""
    label: str = ""
    """Name of the column with the classes, where it has several, or these are texts or numbers."""


@dataclass(frozen=True)
class Named:
    """What a text names."""

    place: str
    """`org/name` on the hub, or the path of a folder."""
    is_folder: bool
    revision: str
    """Branch, tag or commit; "" for the newest, and for folders."""
    options: HubOptions
    spec: str
    """The whole text, safe to print."""


def names_dataset(spec: object) -> bool:
    """Whether a text names a dataset of Hugging Face: by `hf:`, or as a folder that `datasets` wrote, or one
    with Parquet files and a card, as a clone of a repository has them."""
    if not isinstance(spec, str) or spec.startswith(_REMOTE):
        return False
    if spec.startswith(PREFIX):
        return True
    folder, _ = split_query(spec)
    return os.path.isdir(folder) and (is_saved(folder) or _is_clone(folder))


def parse_spec(spec: str) -> Named:
    """The parts of a text for which `names_dataset` holds.

    Raises:
        LaminaError: for what is no name of a dataset, or an unknown parameter.
    """
    place, query = split_query(spec)
    options = parse_query(query, HubOptions, "a dataset of Hugging Face")
    given = os.path.expanduser(place.removeprefix(PREFIX))
    if os.path.isdir(given):
        return Named(given, True, "", options, printable(spec))
    found = _NAME.fullmatch(given)
    if found is None:
        raise LaminaError(
            f"{printable(place)} is no folder, and no name of a dataset on the Hugging Face hub; write "
            "hf:organisation/name, or hf:organisation/name@revision"
        )
    return Named(found["name"], False, found["revision"] or "", options, printable(spec))


def is_saved(folder: str) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote a folder."""
    has = {name: os.path.isfile(os.path.join(folder, name)) for name in _SAVED}
    return has["dataset_dict.json"] or (has["state.json"] and has["dataset_info.json"])


def _is_clone(folder: str) -> bool:
    """Whether a folder has a dataset's card, and data files and no images at its top or in a folder of it."""
    try:
        with open(os.path.join(folder, _CARD), encoding="utf-8") as file:
            card = file.read(_MOST_CARD_BYTES)
        start, _, rest = card.partition("---\n")
        known = yaml.safe_load(rest.partition("\n---")[0]) if not start.strip() else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    if not isinstance(known, dict) or not _CARD_FIELDS & known.keys():
        return False
    names = _names_within(folder)
    return any(name.endswith(_DATA_ENDINGS) for name in names) and not any(map(is_image_name, names))


def _names_within(folder: str) -> list[str]:
    """Names of the files in a folder, and in the folders that it holds."""
    found: list[str] = []
    try:
        with os.scandir(folder) as opened:
            for entry in opened:
                if entry.name.startswith("."):
                    continue
                found += os.listdir(entry.path) if entry.is_dir() else [entry.name]
    except OSError:
        return []
    return found
