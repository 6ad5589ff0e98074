"""Which images a run was trained on: what a resumed run must find again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.digest import names_sha256
from lamina.data.open import Spec
from lamina.data.remote.urls import path_of
from lamina.data.sources import Source, Version


class DataFacts(NamedTuple):
    """What identifies the data of a run: as given, how many, and a digest of their names in order.

    `content` is a digest of what the images hold; "" where it is no part of the run's identity. `version` is
    the state of a data set whose keeper has a name for it.
    """

    source: str
    images: int
    names_sha256: str
    content: str = ""
    version: Version = Version()


def data_facts(data: Spec, source: Source, content: str = "") -> DataFacts:
    """The facts of `source`, which `data` names: as given, without the query of an address in the web; or how
    many paths of a list; and all names."""
    if isinstance(data, str | os.PathLike):
        given = printable(path_of(os.fspath(data)))
    elif isinstance(data, Sequence):
        given = f"a list of {len(data)} paths"
    else:
        given = f"a {type(data).__name__} of {len(source)} images"
    names = names_sha256(source.encoded_names(range(len(source))))
    return DataFacts(given, len(source), names, content, source.version)


def check_same_images(before: DataFacts, now: DataFacts, run: Path) -> None:
    """Raise where the images of now are not those that the run was started on."""
    if before.version.revision and now.version.revision not in ("", before.version.revision):
        raise LaminaError(
            f"the run was started on revision {before.version.revision} of {before.source}, and now it is at "
            f"{now.version.revision}; name the first one (hf:org/name@revision), or start a new run with "
            f"--init {run}"
        )
    if (now.images, now.names_sha256) != (before.images, before.names_sha256):
        raise LaminaError(
            f"the run was started on {before.images} images, and the {now.images} of now are not the same; "
            "restore them (also those that cannot be read: without them the order of all others is another), "
            f"or start a new run with --init {run}"
        )
    if now.content and before.content and now.content != before.content:
        raise LaminaError(
            f"the run in {run} was started on other images of the same names; restore them, replace it "
            "with --overwrite, or choose another --out"
        )


def other_copy_note(before: DataFacts, now: DataFacts) -> str | None:
    """A sentence where the data set was written again since the run was started, as far as is known."""
    was, is_now = before.version.fingerprint, now.version.fingerprint
    if before.version.revision or not was or was == is_now:
        return None
    return (
        f"the dataset was written again since the run was started (fingerprint {was}, now "
        f"{is_now or 'none'}); the run goes on with the images of now, which have the same names"
    )
