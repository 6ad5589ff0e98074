"""The splits of a dataset as memory-mapped tables, through the package `datasets`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable, some_of
from lamina.data.huggingface.spec import Named, is_saved

_COMMIT = re.compile("[0-9a-f]{40}")
_QUIET = ("huggingface_hub", "datasets")
"""Loggers that repeat, over several lines, what the error says in the end."""
_HINTS = {
    "gated": "accept its terms on its page at huggingface.co, and log in with `hf auth login`",
    "authenticated": "log in with `hf auth login`",
    "reach": "without a network only what was downloaded before can be read; give the folder of a copy that "
    "`save_to_disk` wrote",
    "script": "it is made by a program, which is never run; convert it to Parquet",
    "BuilderConfig": "name one with ?config=...",
    "Config name is missing": "name one with ?config=...",
    "Revision": "give one that is there, or leave @... out",
}
"""What an error's text has in it, and what helps; the first one that fits is taken."""


@dataclass(frozen=True)
class Splits:
    """The splits of a dataset."""

    tables: dict[str, Any]
    """A `datasets.Dataset` for each; one that is no part of a `DatasetDict` has the name ""."""
    revision: str
    """Commit of the hub's repository; "" where it is not known."""


def load_splits(named: Named) -> Splits:
    """All splits; what is on the hub is downloaded once, into the cache of Hugging Face's packages.

    Raises:
        LaminaError: without the package, without a network, for what is not there or may not be read, and
            for whatever else the package raises.
    """
    datasets = _package(named.spec)
    with _one_line(named):
        if named.is_folder and is_saved(named.place):
            if named.options.config:
                raise LaminaError(
                    f"{named.spec} is a folder that save_to_disk wrote, which has no configurations; leave "
                    "config=... out"
                )
            loaded = datasets.load_from_disk(named.place, keep_in_memory=False)
            return Splits(dict(loaded) if isinstance(loaded, dict) else {"": loaded}, "")
        builder = find_builder(named)
        revision = str(builder.hash) if _COMMIT.fullmatch(str(builder.hash)) else ""
        _check_revision(named, revision)
        builder.download_and_prepare()
        return Splits(dict(builder.as_dataset(in_memory=False)), revision)


def find_builder(named: Named) -> Any:
    """The builder of `datasets` for a name on the hub, or a folder of data files with a card."""
    datasets = _package(named.spec)
    return datasets.load_dataset_builder(
        named.place, name=named.options.config or None, revision=named.revision or None
    )


def _check_revision(named: Named, found: str) -> None:
    """Without a network `datasets` gives the newest revision that it has, whichever was asked for."""
    if named.revision and _COMMIT.fullmatch(named.revision) and found and found != named.revision:
        raise LaminaError(
            f"{named.spec} is not there, and the copy on this machine is of revision {found}; connect to the "
            "network to download the other one"
        )


def _package(spec: str) -> ModuleType:
    try:
        datasets: ModuleType = import_module("datasets")
    except ImportError:
        raise LaminaError(f"{spec} needs the package datasets; pip install 'lamina[hf]'") from None
    return datasets


@contextmanager
def _one_line(named: Named) -> Iterator[None]:
    """Make one line of whatever `datasets` raises and logs."""
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        yield
    except LaminaError:
        raise
    except Exception as error:  # foreign code, which has errors of many kinds
        text = _first_line(error)
        hint = next((hint for word, hint in _HINTS.items() if word in text), "")
        raise LaminaError("; ".join(filter(None, (f"cannot open {named.spec}: {text}", hint)))) from None
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _first_line(error: BaseException) -> str:
    """What went wrong, of the error that is behind all others where it says more than they do."""
    root = error
    while type(error).__name__ == "DatasetGenerationError" and root.__cause__ is not None:
        root = root.__cause__
    lines = str(root).splitlines() or str(error).splitlines()
    return printable(lines[0] if lines else type(root).__name__)[:300].rstrip(".")


def unknown_split(named: Named, name: str, tables: dict[str, Any]) -> LaminaError:
    """The error for a split that is not there."""
    if list(tables) == [""]:
        return LaminaError(f"{named.spec} is one table without splits; leave split=... out")
    return LaminaError(f"{named.spec} has no split {printable(name)!r}; it has {some_of(tables)}")
