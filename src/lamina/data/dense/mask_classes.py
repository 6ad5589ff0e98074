"""The numbers in mask files, and which classes they are: by a list of names, or as far as they are seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.decode import guarded
from lamina.data.decode.limits import Stream, check_memory, check_pixels
from lamina.data.decode.notes import collected
from lamina.data.decode.pillow import grey_factor
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.sources import IGNORE
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import EncodedSource

NAME_FILES = ("classes.txt", "objectInfo150.txt")
LOOKED_AT = 20
"""Masks that are looked at where a file names the classes, evenly spread."""


def read_numbers(file: Stream, how: Decoding = AS_STORED) -> NDArray[np.int64]:
    """The values in a mask file, which is closed: indices of a palette, or grey of 1 to 16 bits.

    Raises:
        Unreadable: where it cannot be read, is in colour, or has values above 255.
    """
    with collected(), guarded(file, how) as timed, Image.open(timed, formats=("PNG",)) as im:
        check_pixels(im.height, im.width, how)
        check_memory(im.height * im.width * 28, how)  # Pillow's 4, its copies of 4, three arrays of 8 bytes
        if im.mode not in ("1", "L", "P", "I", "I;16"):
            raise Unreadable(
                Reason.LABELS,
                f"the mask is a colour picture ({im.mode}); give classes as numbers in a palette or grey PNG",
            )
        factor = grey_factor(im)  # known until the pixels are loaded
        numbers = np.asarray(im).astype(np.int64) // factor
    if numbers.max() > IGNORE:
        raise Unreadable(Reason.LABELS, f"the mask has a {numbers.max()}; at most {IGNORE - 1} are possible")
    return numbers


def reduced(numbers: NDArray[np.int64], reduce: bool) -> NDArray[np.int64]:
    """With `reduce` 0 counts as nothing, and k is class k - 1."""
    return np.where((numbers == 0) | (numbers == IGNORE), IGNORE, numbers - 1) if reduce else numbers


def class_names(root: str, masks: EncodedSource, reduce: bool) -> list[str]:
    """The lines of root/classes.txt, or of ADE20K's objectInfo150.txt; else "0", "1", ... as far as the
    training masks go.

    Raises:
        LaminaError: where the classes are not known, masks are in colour, or hold 0 and 255 alone.
    """
    file = next((Path(root, name) for name in NAME_FILES if Path(root, name).is_file()), None)
    if file is None:
        seen, unread = _values(masks, range(len(masks)))
        _check_values(root, seen, unread)
        numbers = reduced(np.array(sorted(seen)), reduce)
        counted = numbers[numbers != IGNORE]
        if not counted.size:
            raise LaminaError(
                f"{printable(root)} has no classes.txt, and no training mask that shows the classes"
            )
        return [str(k + reduce) for k in range(int(counted.max()) + 1)]
    names = _listed(file)
    _check_values(
        root, *_values(masks, {k * len(masks) // LOOKED_AT for k in range(LOOKED_AT) if len(masks)})
    )
    return names


def _listed(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise LaminaError(f"cannot read {printable(str(file))}: {error}") from None
    if file.name == NAME_FILES[1]:  # Idx, Ratio, Train, Val, Stuff, Name in a table with tabs
        lines = [line.split("\t")[-1].strip() for line in lines[1:]]
    if not 1 <= len(lines) <= IGNORE:
        raise LaminaError(f"{printable(str(file))} names {len(lines)} classes; 1 to {IGNORE} are possible")
    return lines


def _values(masks: EncodedSource, indices: Iterable[int]) -> tuple[set[int], Counter[str]]:
    """All values in some mask files, and why some of these cannot be read."""
    seen, unread = np.zeros(IGNORE + 1, np.int64), Counter[str]()
    for i in indices:
        try:
            seen += np.bincount(read_numbers(masks.open(i)).ravel(), minlength=IGNORE + 1)
        except Unreadable as error:
            unread[str(error)] += 1
    return set(np.flatnonzero(seen).tolist()), unread


def _check_values(root: str, seen: set[int], unread: Counter[str]) -> None:
    """Refuse what masks of classes never are."""
    if not seen and unread:
        why, _ = unread.most_common(1)[0]
        raise LaminaError(f"no training mask of {printable(root)} can be used: {printable(why)}")
    if seen == {0, IGNORE}:
        raise LaminaError(
            f"the training masks of {printable(root)} hold {IGNORE} and 0 alone, and {IGNORE} marks pixels "
            f"that do not count; write 1 in place of {IGNORE} where it is a class"
        )
